//! The two threads of a log: one keeps the unsigned window short, one the unsynced window, and it turns the log over when it
//! is time. Two, because a sync can take longer than a seal may wait.

use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::AppendError;
use super::limits::Limits;
use super::writer::{SEAL_AFTER, SEAL_AT, SYNC_AFTER, SYNC_AT_BYTES, State, Writer};
use crate::form::body::EpochEnd;

/// Start both.
pub(super) fn start(writer: &Arc<Writer>) -> std::io::Result<Vec<JoinHandle<()>>> {
    let (sealer, syncer) = (Arc::clone(writer), Arc::clone(writer));
    Ok(vec![
        std::thread::Builder::new().name("govrun-seal".into()).spawn(move || keep_sealed(&sealer))?,
        std::thread::Builder::new().name("govrun-sync".into()).spawn(move || keep_watch(&syncer))?,
    ])
}

fn keep_sealed(writer: &Writer) {
    let due = |state: &State| seal_due_in(state).map(|wait| (wait, ()));
    while let Some((size, ())) = wait_until_due(writer, &writer.wake_sealer, due) {
        if writer.seal_to(size).is_err() {
            return;
        }
    }
}

/// What is to be done when its time comes.
#[derive(Clone, Copy)]
enum Turn {
    Sync,
    Segment,
    Epoch(EpochEnd),
    Heartbeat,
}

fn keep_watch(writer: &Writer) {
    let due = |state: &State| turn_due_in(state, &writer.limits);
    while let Some((size, turn)) = wait_until_due(writer, &writer.wake_syncer, due) {
        if take_turn(writer, turn, size).is_err() {
            return;
        }
    }
}

fn take_turn(writer: &Writer, turn: Turn, size: u64) -> Result<(), AppendError> {
    match turn {
        Turn::Sync => writer.seal_to(size).and_then(|()| writer.sync_to(size))?,
        Turn::Segment => writer.roll()?,
        Turn::Epoch(reason) => writer.rotate(reason)?,
        Turn::Heartbeat => writer.heartbeat()?,
    }
    writer.publish();
    Ok(())
}

const NOW: Option<Duration> = Some(Duration::ZERO);

/// `None`: nothing to do until something is appended.
fn seal_due_in(state: &State) -> Option<Duration> {
    if state.sealing {
        return None;
    }
    if state.unsealed() >= SEAL_AT {
        return NOW;
    }
    state.unsealed_since.map(|since| remaining(since, SEAL_AFTER))
}

fn turn_due_in(state: &State, limits: &Limits) -> Option<(Duration, Turn)> {
    if limits.ends_segment(state) {
        return Some((Duration::ZERO, Turn::Segment));
    }
    if state.epoch_records >= limits.epoch_records {
        return Some((Duration::ZERO, Turn::Epoch(EpochEnd::Records)));
    }
    let after = |since: Option<Instant>, limit| since.map(|since| remaining(since, limit));
    let turns = [
        (sync_due_in(state), Turn::Sync),
        (after(state.epoch_since, limits.epoch_age), Turn::Epoch(EpochEnd::Age)),
        (after(state.heartbeat_since, limits.heartbeat), Turn::Heartbeat),
    ];
    turns.into_iter().filter_map(|(wait, turn)| Some((wait?, turn))).min_by_key(|(wait, _)| *wait)
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

/// Sleep until something is due, and return the size then and what it is; `None` when the log is closed or failed.
fn wait_until_due<T>(
    writer: &Writer,
    wake: &Condvar,
    due_in: impl Fn(&State) -> Option<(Duration, T)>,
) -> Option<(u64, T)> {
    let mut state = writer.lock().ok()?;
    loop {
        if state.closing || state.failed.is_some() {
            return None;
        }
        state = match due_in(&state) {
            Some((Duration::ZERO, turn)) => return Some((state.tree.size(), turn)),
            Some((wait, _)) => wake.wait_timeout(state, wait).ok()?.0,
            None => wake.wait(state).ok()?,
        };
    }
}
