//! What can take away what was granted: another policy, a stop order, the end of the process.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use govrun_verdict::Builtin;
use tokio::sync::watch;

/// Most stop orders at once. A further one stops everybody, which is the safe side of a mistake.
pub const MAX_STOP_ORDERS: usize = 10_000;

/// Counts every change that may take a held grant away. A grant that saw the present count still holds.
pub(crate) struct Standing {
    generation: AtomicU64,
    // True when anybody is stopped: the one thing that is looked at on the usual path.
    any: AtomicBool,
    orders: Mutex<Orders>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Orders {
    agents: BTreeSet<Arc<str>>,
    everybody: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(1),
            any: AtomicBool::new(false),
            orders: Mutex::default(),
            changed: watch::Sender::new(1),
        }
    }
}

impl Standing {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Something changed against which held grants must be looked at again.
    ///
    /// INVARIANT: called after the change is in place, so that whoever sees the new count sees the change.
    pub(crate) fn bump(&self) {
        let count = self.generation.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        self.changed.send_replace(count);
    }

    pub(crate) fn stop(&self, agent: &Arc<str>) {
        self.order(|orders| {
            if orders.agents.len() >= MAX_STOP_ORDERS {
                tracing::error!("there are too many stop orders: everybody is stopped");
                orders.everybody = true;
            }
            orders.agents.insert(Arc::clone(agent));
        });
    }

    pub(crate) fn resume(&self, agent: &str) {
        self.order(|orders| {
            orders.agents.remove(agent);
        });
    }

    pub(crate) fn stop_everybody(&self) {
        self.order(|orders| orders.everybody = true);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        if let Ok(mut orders) = self.orders.lock() {
            change(&mut orders);
            self.any.store(orders.everybody || !orders.agents.is_empty(), Ordering::Release);
        } else {
            // The orders are lost: nobody may act.
            self.any.store(true, Ordering::Release);
        }
        self.bump();
    }

    /// Why this agent may not act now, if so.
    pub(crate) fn against(&self, agent: &str) -> Option<Builtin> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        match self.orders.lock() {
            Ok(orders) if orders.agents.contains(agent) => Some(Builtin::AgentStopped),
            Ok(orders) if !orders.everybody => None,
            Ok(_) | Err(_) => Some(Builtin::ShuttingDown),
        }
    }

    /// Wait until the agent may not act, and say why.
    pub(crate) async fn ended(&self, agent: &str) -> Builtin {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(reason) = self.against(agent) {
                return reason;
            }
            if changes.changed().await.is_err() {
                return Builtin::ShuttingDown;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_about_its_agent_until_it_is_lifted() {
        let standing = Standing::default();
        let (a, before) = (Arc::<str>::from("a"), standing.generation());
        assert_eq!(standing.against("a"), None);
        standing.stop(&a);
        assert!(standing.generation() > before, "held grants are looked at again");
        assert_eq!(standing.against("a"), Some(Builtin::AgentStopped));
        assert_eq!(standing.against("b"), None);
        standing.resume("a");
        assert_eq!(standing.against("a"), None);
        standing.stop_everybody();
        assert_eq!(standing.against("b"), Some(Builtin::ShuttingDown));
    }

    #[test]
    fn too_many_orders_stop_everybody() {
        let standing = Standing::default();
        for number in 0..=MAX_STOP_ORDERS {
            standing.stop(&format!("agent-{number}").into());
        }
        assert_eq!(standing.against("somebody else"), Some(Builtin::ShuttingDown));
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_is_told() {
        let standing = Arc::new(Standing::default());
        let waiting = tokio::spawn({
            let standing = Arc::clone(&standing);
            async move { standing.ended("a").await }
        });
        tokio::task::yield_now().await;
        standing.stop(&"b".into());
        standing.stop(&"a".into());
        assert_eq!(waiting.await.unwrap(), Builtin::AgentStopped);
    }
}
