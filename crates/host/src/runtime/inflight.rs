//! How many calls run, for each agent and in all, and whether new ones may begin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use govrun_verdict::Builtin;
use tokio::sync::watch;

/// Most calls of one agent at once, those that wait for an approval included. Calls inside calls are not counted here;
/// their depth is bounded.
pub const MAX_CALLS_PER_AGENT: u32 = 32;
/// Most calls of all agents at once: a quarter of the pool is left to the tools that tools call.
pub const MAX_CALLS: u32 = crate::engine::MAX_CALLS / 4 * 3;
/// How long a caller who was refused for that should wait, in milliseconds. A call may end sooner or later.
pub(super) const RETRY_MS: u64 = 100;

/// The calls that run.
pub(super) struct Inflight {
    state: Mutex<State>,
    total: watch::Sender<u32>,
}

#[derive(Default)]
struct State {
    closing: bool,
    agents: BTreeMap<Arc<str>, u32>,
}

/// The place of one call. It is free again when this is dropped.
pub(super) struct Slot {
    inflight: Arc<Inflight>,
    agent: Arc<str>,
}

impl Inflight {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), total: watch::Sender::new(0) })
    }

    /// A place for a call of this agent.
    ///
    /// # Errors
    /// The reason there is none.
    pub(super) fn enter(self: &Arc<Self>, agent: &Arc<str>) -> Result<Slot, Builtin> {
        let mut state = self.state.lock().map_err(|_| Builtin::HostFault)?;
        if state.closing {
            return Err(Builtin::ShuttingDown);
        }
        let own = state.agents.get(agent).copied().unwrap_or(0);
        if own >= MAX_CALLS_PER_AGENT || *self.total.borrow() >= MAX_CALLS {
            return Err(Builtin::LimitConcurrency);
        }
        state.agents.insert(Arc::clone(agent), own.saturating_add(1));
        self.total.send_modify(|total| *total = total.saturating_add(1));
        Ok(Slot { inflight: Arc::clone(self), agent: Arc::clone(agent) })
    }

    /// Nobody enters any more.
    pub(super) fn close(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.closing = true;
        }
    }

    /// How many run now.
    pub(super) fn running(&self) -> u32 {
        *self.total.borrow()
    }

    /// Wait until none runs.
    pub(super) async fn idle(&self) {
        // The sender lives as long as this does, so waiting cannot fail.
        let _ = self.total.subscribe().wait_for(|total| *total == 0).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Ok(mut state) = self.inflight.state.lock() {
            let left = state.agents.get(&self.agent).copied().unwrap_or(0).saturating_sub(1);
            if left == 0 {
                state.agents.remove(&self.agent);
            } else {
                state.agents.insert(Arc::clone(&self.agent), left);
            }
        }
        self.inflight.total.send_modify(|total| *total = total.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_does_not_take_the_places_of_others() {
        let inflight = Inflight::new();
        let (a, b) = (Arc::<str>::from("a"), Arc::<str>::from("b"));
        let mut slots: Vec<Slot> =
            (0..MAX_CALLS_PER_AGENT).map(|_| inflight.enter(&a).ok().unwrap()).collect();
        assert_eq!(inflight.enter(&a).err(), Some(Builtin::LimitConcurrency));
        assert!(inflight.enter(&b).is_ok());
        slots.pop();
        assert!(inflight.enter(&a).is_ok());
        drop(slots);
        assert_eq!(inflight.running(), 0);
    }

    #[test]
    fn all_together_are_bounded_and_closing_lets_nobody_in() {
        let inflight = Inflight::new();
        let mut slots = Vec::new();
        let refused = (0_u32..).find_map(|number| {
            let agent = format!("agent-{}", number / MAX_CALLS_PER_AGENT).into();
            inflight.enter(&agent).map(|slot| slots.push(slot)).err()
        });
        assert_eq!(refused, Some(Builtin::LimitConcurrency));
        assert_eq!(inflight.running(), MAX_CALLS);
        slots.clear();
        inflight.close();
        assert_eq!(inflight.enter(&"a".into()).err(), Some(Builtin::ShuttingDown));
    }
}
