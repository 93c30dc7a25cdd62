//! Deciding a call, charging its budgets and remembering what it comes to: all that is done before it is recorded.

use std::sync::Arc;
use std::time::Duration;

use govrun_control::{Approval, Reserved};
use govrun_policy::Context;
use govrun_verdict::{Builtin, Call, Mode, Obligations, Refusal, Verdict};

use super::{Gate, Settled, approve, block, throttle, unrecorded};
use crate::past::Unlabel;
use crate::pause::{Pause, Waiting};

impl Gate {
    /// Settle the call, and where its budgets are used up and let it wait, again as soon as they have room. What was
    /// settled before charged nothing and is not recorded: a call that waits has not been decided yet.
    pub(super) async fn settle_in_time(
        &self,
        call: &Call,
        bounds: Option<&Obligations>,
        pauses: &[Arc<Pause>],
    ) -> Result<Settled, Refusal> {
        let mut waited_ms: u64 = 0;
        loop {
            let settled = self.settle(call, bounds, None)?;
            let left_ms = settled.patience_ms.map_or(0, |patience| patience.saturating_sub(waited_ms));
            match settled.retry_after_ms {
                // Another caller may be first each time, so that each turn costs at least a millisecond of the patience.
                Some(wait_ms) if wait_ms <= left_ms => {
                    let waiting = Waiting::begin(pauses);
                    tokio::time::sleep(Duration::from_millis(wait_ms.max(1))).await;
                    drop(waiting);
                    waited_ms = waited_ms.saturating_add(wait_ms.max(1));
                }
                Some(_) | None => return Ok(settled),
            }
        }
    }

    /// Decide the call and charge it, and remember what it comes to.
    pub(super) fn settle(
        &self,
        call: &Call,
        bounds: Option<&Obligations>,
        approval: Option<&Approval>,
    ) -> Result<Settled, Refusal> {
        let generation = self.standing.generation();
        if let Some(reason) = self.standing.against(&call.agent.name) {
            return Err(self.refuse(call, bounds, reason));
        }
        let now = self.ledger.clock.now().map_err(|_| unrecorded(Builtin::ClockUnavailable))?;
        let started = std::time::Instant::now();
        // One policy from the first question to what is remembered, whatever is loaded meanwhile.
        let policy = self.policy.load_full();
        let known = self.known_past(&policy, call, now);
        let facts = known.as_ref().ok().and_then(Option::as_ref);
        let mut decision = policy.decide_knowing(call, &Context { now, bounds }, facts);
        if self.drill.is_some() {
            decision.mode = Mode::Drill;
        }
        let decide_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(approval) = approval {
            approve(&mut decision, approval);
        }
        if let Err(reason) = &known {
            block(&mut decision, *reason);
        }
        let mut levels = Vec::new();
        let mut reservation = None;
        let mut retry_after_ms = None;
        let mut patience_ms = None;
        // A pending approval charges nothing yet, and what is blocked anyway is not charged at all.
        let charged = matches!(decision.verdict, Verdict::Allow | Verdict::Sandbox);
        if charged && !decision.budgets.is_empty() {
            match self.store.reserve(&decision.budgets, now) {
                Ok(Reserved::Admitted { levels: before, reservation: kept }) => {
                    levels = before;
                    reservation = Some(kept);
                }
                Ok(Reserved::Exhausted { budget, retry_after_ms: wait, levels: before, wait_ms }) => {
                    throttle(&mut decision, &budget);
                    levels = before;
                    retry_after_ms = Some(wait);
                    patience_ms = wait_ms;
                }
                Ok(Reserved::KeysFull { .. }) => block(&mut decision, Builtin::BudgetKeysFull),
                Err(error) => {
                    tracing::error!(%error, "the store failed; the call is refused");
                    block(&mut decision, Builtin::StoreUnavailable);
                }
            }
        }
        let mut unlabel = Unlabel::new();
        let facts = known.ok().flatten();
        if let Some(facts) = &facts {
            match self.remember(&policy, call, &decision, facts, now) {
                Ok(labels) => unlabel = labels,
                Err(reason) => {
                    self.refund(reservation.take().as_ref());
                    block(&mut decision, reason);
                }
            }
        }
        Ok(Settled {
            decision,
            now,
            generation,
            levels,
            reservation,
            retry_after_ms,
            patience_ms,
            facts,
            unlabel,
            decide_ns,
        })
    }
}
