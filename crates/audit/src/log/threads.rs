//! The two threads of a log: one keeps the unsigned window short, one the unsynced window. Two, because a sync can take
//! longer than a seal may wait.

use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::writer::{SEAL_AFTER, SEAL_AT, SYNC_AFTER, SYNC_AT_BYTES, State, Writer};

/// Start both.
pub(super) fn start(writer: &Arc<Writer>) -> std::io::Result<Vec<JoinHandle<()>>> {
    let (sealer, syncer) = (Arc::clone(writer), Arc::clone(writer));
    Ok(vec![
        std::thread::Builder::new().name("govrun-seal".into()).spawn(move || keep_sealed(&sealer))?,
        std::thread::Builder::new().name("govrun-sync".into()).spawn(move || keep_synced(&syncer))?,
    ])
}

fn keep_sealed(writer: &Writer) {
    while let Some(size) = wait_until_due(writer, &writer.wake_sealer, seal_due_in) {
        if writer.seal_to(size).is_err() {
            return;
        }
    }
}

fn keep_synced(writer: &Writer) {
    while let Some(size) = wait_until_due(writer, &writer.wake_syncer, sync_due_in) {
        if writer.seal_to(size).and_then(|()| writer.sync_to(size)).is_err() {
            return;
        }
    }
}

const NOW: Option<Duration> = Some(Duration::ZERO);

/// `None`: nothing to do until something is appended.
fn seal_due_in(state: &State) -> Option<Duration> {
    if state.sealing {
        return None;
    }
    if state.tree.size() - state.sealed >= SEAL_AT {
        return NOW;
    }
    state.unsealed_since.map(|since| remaining(since, SEAL_AFTER))
}

fn sync_due_in(state: &State) -> Option<Duration> {
    if state.syncing {
        return None;
    }
    if state.unsynced_bytes >= SYNC_AT_BYTES {
        return NOW;
    }
    state.unsynced_since.map(|since| remaining(since, SYNC_AFTER))
}

fn remaining(since: Instant, limit: Duration) -> Duration {
    limit.saturating_sub(since.elapsed())
}

/// Sleep until it is due, and return the size then; `None` when the log is closed or failed.
fn wait_until_due(
    writer: &Writer,
    wake: &Condvar,
    due_in: impl Fn(&State) -> Option<Duration>,
) -> Option<u64> {
    let mut state = writer.lock().ok()?;
    loop {
        if state.closed || state.failed.is_some() {
            return None;
        }
        state = match due_in(&state) {
            Some(Duration::ZERO) => return Some(state.tree.size()),
            Some(wait) => wake.wait_timeout(state, wait).ok()?.0,
            None => wake.wait(state).ok()?,
        };
    }
}
