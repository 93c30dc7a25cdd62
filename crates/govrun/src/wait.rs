//! Calls that take a while: who is told that one waits for an approval, and what an interrupt leaves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use govrun_control::{Approval, ApprovalId};
use govrun_host::Waits;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};

/// The approvals that calls of this process wait for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tickets(Arc<Mutex<BTreeSet<ApprovalId>>>);

impl Waits for Tickets {
    fn begins(&self, approval: &Approval) {
        let roles: Vec<&str> = approval.roles.iter().map(|role| &**role).collect();
        let id = &approval.id;
        eprintln!("govrun: waits for {}; see `govrun approvals show {id}`", roles.join(" or "));
        // A poisoned lock loses a sentence to the user, nothing else.
        if let Ok(mut waiting) = self.0.lock() {
            waiting.insert(id.clone());
        }
    }

    fn ends(&self, approval: &Approval) {
        if let Ok(mut waiting) = self.0.lock() {
            waiting.remove(&approval.id);
        }
    }
}

impl Tickets {
    /// What to say when an interrupt ends the calls.
    pub(crate) fn interrupted(&self) -> Failure {
        match self.0.lock().ok().and_then(|waiting| waiting.first().cloned()) {
            Some(id) => Failure::new(
                Exit::Escalated,
                format!(
                    "interrupted; approval {id} stays to be decided, and the same call, repeated, uses it"
                ),
            ),
            None => Failure::new(
                Exit::Interrupted,
                "interrupted; what happened until then is in the log: `govrun audit show`",
            ),
        }
    }
}

/// Where calls run.
pub(crate) fn executor() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Runtime, e))
}

/// Ends when the process is asked to end, by Ctrl-C or by a service manager.
pub(crate) async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended,
        _ = terminate.recv() => Ok(()),
    }
}
