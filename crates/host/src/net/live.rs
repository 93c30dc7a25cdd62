//! What one call has going on in the network: bounded, and over when the call is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::grant::{Grant, Outcome};

/// Most connections that one call has open at once, those of its sockets included.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// The connections of one call. Shared by its views and by the tasks that serve them.
#[derive(Default)]
pub(crate) struct Live(Mutex<State>);

#[derive(Default)]
struct State {
    closed: bool,
    open: usize,
    endings: Vec<Weak<Ending>>,
}

/// The place of one connection among those of its call.
pub(crate) struct Slot(Arc<Live>);

impl Live {
    /// A place for one more connection; `None` when there are enough, or when the call is over.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed || state.open >= MAX_CONNECTIONS {
            return None;
        }
        state.open += 1;
        Some(Slot(Arc::clone(self)))
    }

    /// The call is over: whatever is still going on ends here, before the call's own outcome is recorded, and what its
    /// tasks are granted from now on is not used.
    pub(crate) fn close(&self) {
        let endings = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.closed = true;
            std::mem::take(&mut state.endings)
        };
        endings.iter().filter_map(Weak::upgrade).for_each(|ending| ending.finish(Some("cancelled")));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
    }
}

/// The grants of one connection, and what went over it. They end together and once: their outcomes are recorded when the
/// exchange is over, fails, is dropped, or when its call ends.
pub(crate) struct Ending {
    grants: Mutex<Option<Vec<Grant>>>,
    sent: AtomicU64,
    received: AtomicU64,
    over_limit: AtomicBool,
    _slot: Slot,
}

impl Ending {
    /// Begin with the grant of the request, whose outcome counts the bytes.
    pub(crate) fn begin(slot: Slot, first: Grant) -> Arc<Self> {
        let live = Arc::clone(&slot.0);
        let ending = Arc::new(Self {
            grants: Mutex::new(Some(vec![first])),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            over_limit: AtomicBool::new(false),
            _slot: slot,
        });
        let mut state = live.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.endings.retain(|known| known.strong_count() > 0);
        if state.closed {
            drop(state);
            ending.finish(Some("cancelled"));
        } else {
            state.endings.push(Arc::downgrade(&ending));
        }
        ending
    }

    /// Add the grant of the connection; false when the exchange is over, so that it must not be used.
    pub(crate) fn add(&self, grant: Grant) -> bool {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        match grants.as_mut() {
            Some(list) => {
                list.push(grant);
                true
            }
            None => false,
        }
    }

    /// True when the exchange has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Count bytes to the world; the sum so far.
    pub(crate) fn sent(&self, bytes: usize) -> u64 {
        add(&self.sent, bytes)
    }

    /// Count bytes from the world; the sum so far.
    pub(crate) fn received(&self, bytes: usize) -> u64 {
        add(&self.received, bytes)
    }

    /// The guest sent more than it may: what fails next, fails for that.
    pub(crate) fn went_over_limit(&self) {
        self.over_limit.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over_limit(&self) -> bool {
        self.over_limit.load(Ordering::Relaxed)
    }

    /// Record the outcomes, the first time this is called.
    pub(crate) fn finish(&self, failed: Option<&'static str>) {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut counted = Outcome {
            failed: failed.map(str::to_owned),
            bytes_in: self.received.load(Ordering::Relaxed),
            bytes_out: self.sent.load(Ordering::Relaxed),
            ..Outcome::ok()
        };
        for grant in grants.into_iter().flatten() {
            grant.finish(&counted);
            (counted.bytes_in, counted.bytes_out) = (0, 0);
        }
    }
}

impl Drop for Ending {
    /// Whoever drops an exchange did not read it to its end.
    fn drop(&mut self) {
        self.finish(Some("abandoned"));
    }
}

fn add(counter: &AtomicU64, bytes: usize) -> u64 {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let sum = |sum: u64| Some(sum.saturating_add(bytes));
    let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).unwrap_or(u64::MAX);
    before.saturating_add(bytes)
}
