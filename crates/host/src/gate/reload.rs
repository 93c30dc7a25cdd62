//! Changing what is permitted while calls run: another policy, stop orders, the end.

use std::sync::Arc;

use govrun_audit::PolicyLoadEntry;
use govrun_control::Approval;
use govrun_policy::{Context, Policy};
use govrun_verdict::{Builtin, Call, Obligations, Refusal, Verdict};

use super::{Gate, approve, unrecorded};
use crate::notify::{Pager, Webhooks};

/// Why the policy in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new policy is for another environment.
    #[error(
        "the new policy is for `{wanted}`, and this process enforces `{env}`; restart it to change the environment"
    )]
    Environment {
        /// What is enforced.
        env: String,
        /// What was given.
        wanted: String,
    },
    /// The log does not take the change, so it does not happen.
    #[error(transparent)]
    Log(#[from] govrun_audit::AppendError),
    /// The thread that sends the new policy's pages cannot start.
    #[error("pages cannot be sent: {0}")]
    Pager(#[from] std::io::Error),
    /// An earlier reload crashed.
    #[error("an earlier reload crashed; restart the process")]
    Crashed,
}

impl Gate {
    /// Put another policy into force. From the moment this returns every decision is made by it, and every held grant is
    /// looked at again before its next use. `webhooks` are where its notification targets lead.
    ///
    /// Archived and recorded first; on any error the old policy stays in force, with its pages.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload(&self, policy: Arc<Policy>, webhooks: Webhooks) -> Result<(), ReloadError> {
        let _one = self.reloading.lock().map_err(|_| ReloadError::Crashed)?;
        let before = self.policy.load_full();
        if policy.env() != &self.env {
            let (env, wanted) = (self.env.to_string(), policy.env().to_string());
            return Err(ReloadError::Environment { env, wanted });
        }
        let pager = Pager::start(webhooks)?;
        if policy.epoch() != before.epoch() {
            let log = &self.ledger.log;
            log.archive_policy(policy.epoch(), policy.bundle())?;
            let (epoch, previous) = (policy.epoch(), Some(before.epoch()));
            log.policy_load(&PolicyLoadEntry { epoch, previous, env: &self.env })?;
            tracing::info!(%epoch, "another policy is in force");
        }
        self.policy.store(policy);
        self.standing.bump();
        // What the old pager still has to send is sent before it goes.
        drop(self.pager.swap(Arc::new(pager)));
        Ok(())
    }

    /// Stop an agent: its running calls end, what it holds is refused at the next use, and it may do nothing until
    /// [`Gate::resume`]. Holds for this process.
    pub fn stop(&self, agent: &Arc<str>) {
        tracing::warn!(%agent, "an agent is stopped");
        self.standing.stop(agent);
    }

    /// Lift the stop order of an agent. What it held stays refused.
    pub fn resume(&self, agent: &str) {
        tracing::warn!(%agent, "an agent may act again");
        self.standing.resume(agent);
    }

    /// Decide again on what somebody holds, without a charge. Permitted only as it was given: the same verdict, and
    /// obligations that are no tighter.
    ///
    /// # Errors
    /// The recorded refusal.
    pub(crate) fn reconsider(
        &self,
        call: &Call,
        held: &Obligations,
        sandboxed: bool,
        approval: Option<&Approval>,
    ) -> Result<(), Refusal> {
        if let Some(reason) = self.standing.against(&call.agent.name) {
            return Err(self.refuse(call, Some(held), reason));
        }
        let Ok(now) = self.ledger.clock.now() else { return Err(unrecorded(Builtin::ClockUnavailable)) };
        let policy = self.policy.load();
        let mut decision = policy.decide(call, &Context { now, bounds: Some(held) });
        if let Some(approval) = approval {
            approve(&mut decision, approval);
        }
        let given = if sandboxed { Verdict::Sandbox } else { Verdict::Allow };
        let stands = policy.agent(&call.agent.name).is_some()
            && decision.verdict == given
            && decision.obligations == *held;
        if stands { Ok(()) } else { Err(self.refuse(call, Some(held), Builtin::GrantRevoked)) }
    }
}
