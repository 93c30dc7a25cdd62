//! The one way from a call to its effect: decide, charge the limits, record, and only then mint a grant.

use std::sync::Arc;

use govrun_audit::{
    Clock, DecisionEntry, Inputs, Log, OutcomeEntry, OutcomeStatus, PolicyLoadEntry, Receipt,
};
use govrun_control::{Reservation, Reserved, Store};
use govrun_policy::{Context, Policy};
use govrun_verdict::{
    BudgetLevel, Builtin, Call, Decision, DecisionId, Disclosure, Durability, Mode, Obligations, Refusal,
    RuleId, Severity, Timestamp, Verdict,
};

use crate::grant::{Grant, Outcome};

/// The policy enforcement point's decision path. One per process; shared by all calls.
pub struct Gate {
    policy: Arc<Policy>,
    store: Store,
    ledger: Arc<Ledger>,
}

/// The log with the clock that stamps it: where grants report what became of them.
pub(crate) struct Ledger {
    log: Log,
    clock: Arc<dyn Clock>,
}

/// A decision with the state it was completed by.
struct Settled {
    decision: Decision,
    now: Timestamp,
    levels: Vec<BudgetLevel>,
    reservation: Option<Reservation>,
    retry_after_ms: Option<u64>,
    decide_ns: u64,
}

impl Gate {
    /// A gate over a loaded policy, an open log and an open store. Archives the policy with the log and records that it
    /// came into force.
    ///
    /// # Errors
    /// When the log cannot be written: without a record nothing may run.
    pub fn open(
        policy: Arc<Policy>,
        log: Log,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, govrun_audit::AppendError> {
        log.archive_policy(policy.epoch(), policy.bundle())?;
        log.policy_load(&PolicyLoadEntry { epoch: policy.epoch(), previous: None, env: policy.env() })?;
        Ok(Arc::new(Self { policy, store, ledger: Arc::new(Ledger { log, clock }) }))
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Name of the policy's environment.
    #[must_use]
    pub fn env(&self) -> &Arc<str> {
        self.policy.env()
    }

    /// Decide, charge and record one call. A grant is the only way on.
    ///
    /// # Errors
    /// Why not, for the caller: throttled, escalated, blocked, or something on the path itself failed.
    pub fn admit(&self, call: &Call, bounds: Option<&Obligations>) -> Result<Grant, Refusal> {
        let settled = self.settle(call, bounds)?;
        let receipt = match self.record(call, bounds, &settled) {
            Ok(receipt) => receipt,
            Err(refusal) => {
                self.refund(settled.reservation.as_ref());
                return Err(refusal);
            }
        };
        self.answer(call, settled, receipt)
    }

    /// Record a refusal of the host's own, for something that policy does not decide.
    #[must_use]
    pub fn refuse(&self, call: &Call, bounds: Option<&Obligations>, reason: Builtin) -> Refusal {
        let Ok(now) = self.ledger.clock.now() else { return unrecorded(Builtin::ClockUnavailable) };
        let decision = self.host_refusal(reason, call);
        let settled = Settled {
            decision,
            now,
            levels: Vec::new(),
            reservation: None,
            retry_after_ms: None,
            decide_ns: 0,
        };
        match self.record(call, bounds, &settled) {
            Ok(receipt) => refusal(&settled, receipt.id()),
            Err(refusal) => refusal,
        }
    }

    fn settle(&self, call: &Call, bounds: Option<&Obligations>) -> Result<Settled, Refusal> {
        let now = self.ledger.clock.now().map_err(|_| unrecorded(Builtin::ClockUnavailable))?;
        let started = std::time::Instant::now();
        let mut decision = self.policy.decide(call, &Context { now, bounds });
        let decide_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut levels = Vec::new();
        let mut reservation = None;
        let mut retry_after_ms = None;
        // A pending approval charges nothing yet, and what is blocked anyway is not charged at all.
        let charged = matches!(decision.verdict, Verdict::Allow | Verdict::Sandbox);
        if charged && !decision.budgets.is_empty() {
            match self.store.reserve(&decision.budgets, now) {
                Ok(Reserved::Admitted { levels: before, reservation: kept }) => {
                    levels = before;
                    reservation = Some(kept);
                }
                Ok(Reserved::Exhausted { budget, retry_after_ms: wait, levels: before }) => {
                    throttle(&mut decision, &budget);
                    levels = before;
                    retry_after_ms = Some(wait);
                }
                Ok(Reserved::KeysFull { .. }) => block(&mut decision, Builtin::BudgetKeysFull),
                Err(error) => {
                    tracing::error!(%error, "the store failed; the call is refused");
                    block(&mut decision, Builtin::StoreUnavailable);
                }
            }
        }
        Ok(Settled { decision, now, levels, reservation, retry_after_ms, decide_ns })
    }

    fn record(
        &self,
        call: &Call,
        bounds: Option<&Obligations>,
        settled: &Settled,
    ) -> Result<Receipt, Refusal> {
        let entry = DecisionEntry {
            call,
            decision: &settled.decision,
            inputs: &Inputs { now: settled.now, budgets: &settled.levels, bounds, cohort: None },
            decide_ns: settled.decide_ns,
            trace: None,
        };
        let receipt = self.ledger.log.decision(&entry).map_err(|error| {
            tracing::error!(%error, "the decision could not be recorded; the call is refused");
            unrecorded(Builtin::AuditUnavailable)
        })?;
        tracing::info!(
            target: "govrun::decision",
            decision = %receipt.id(),
            agent = %call.agent.name,
            tool = %call.tool.name,
            action = %call.action(),
            verdict = %settled.decision.verdict,
            reason = %settled.decision.reason,
            "decided"
        );
        Ok(receipt)
    }

    fn answer(&self, call: &Call, settled: Settled, receipt: Receipt) -> Result<Grant, Refusal> {
        match settled.decision.verdict {
            Verdict::Allow | Verdict::Sandbox => Ok(Grant::mint(
                receipt,
                call.operation.clone(),
                settled.decision.obligations.clone(),
                settled.decision.verdict == Verdict::Sandbox,
                Arc::clone(&settled.decision.disclosure),
                self.ledger.clock.monotonic_us(),
                Arc::clone(&self.ledger),
            )),
            Verdict::Throttle | Verdict::Escalate | Verdict::Block => Err(refusal(&settled, receipt.id())),
        }
    }

    fn refund(&self, reservation: Option<&Reservation>) {
        if let Some(kept) = reservation
            && let Err(error) = self.store.refund(kept)
        {
            tracing::warn!(%error, "a budget charge of a refused call could not be given back");
        }
    }

    fn host_refusal(&self, reason: Builtin, call: &Call) -> Decision {
        let durability = if call.action().is_effectful() { Durability::Sealed } else { Durability::Os };
        Decision {
            verdict: Verdict::Block,
            mode: Mode::Enforce,
            reason: reason.code(),
            message: reason.info().sentence.to_owned(),
            rule: Some(RuleId::builtin("host")),
            matched: Vec::new(),
            shadow: None,
            obligations: Obligations::default(),
            budgets: Vec::new(),
            escalate: None,
            notify: Vec::new(),
            severity: Severity::High,
            durability,
            disclosure: Arc::new(Disclosure::default()),
            epoch: self.policy.epoch(),
        }
    }
}

impl Ledger {
    pub(crate) fn outcome(&self, grant: &GrantRef<'_>, outcome: &Outcome) {
        let status = match &outcome.failed {
            None => OutcomeStatus::Ok,
            Some(kind) => OutcomeStatus::Failed(kind.clone()),
        };
        self.write(grant, status, outcome);
    }

    pub(crate) fn cancelled(&self, grant: &GrantRef<'_>) {
        self.write(grant, OutcomeStatus::Cancelled, &Outcome::default());
    }

    fn write(&self, grant: &GrantRef<'_>, status: OutcomeStatus, outcome: &Outcome) {
        let entry = OutcomeEntry {
            decision: grant.decision,
            status,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            rows: outcome.rows,
            fuel: outcome.fuel,
            duration_us: self.clock.monotonic_us().saturating_sub(grant.started_us),
            absorbed: outcome.absorbed.clone(),
            disclosure: Arc::clone(grant.disclosure),
            note: outcome.note,
        };
        // The effect is over; a log that cannot take its outcome refuses every later call.
        if let Err(error) = self.log.outcome(&entry) {
            tracing::error!(%error, decision = %grant.decision, "an outcome could not be recorded");
        }
    }
}

/// What an outcome needs to know of its grant.
pub(crate) struct GrantRef<'a> {
    pub(crate) decision: DecisionId,
    pub(crate) disclosure: &'a Arc<Disclosure>,
    pub(crate) started_us: u64,
}

fn throttle(decision: &mut Decision, budget: &str) {
    let owner = decision.budgets.iter().find(|used| &*used.budget.name == budget);
    let (rule, reason) = match owner {
        Some(used) => (Some(used.rule.clone()), used.reason.clone()),
        None => (decision.rule.clone(), Builtin::BudgetExhausted.code()),
    };
    decision.verdict = Verdict::Throttle;
    decision.rule = rule;
    decision.reason = reason;
    decision.message = Builtin::BudgetExhausted.info().sentence.to_owned();
    decision.obligations = Obligations::default();
}

fn block(decision: &mut Decision, reason: Builtin) {
    decision.verdict = Verdict::Block;
    decision.rule = Some(RuleId::builtin("host"));
    decision.reason = reason.code();
    decision.message = reason.info().sentence.to_owned();
    decision.obligations = Obligations::default();
}

fn refusal(settled: &Settled, decision: DecisionId) -> Refusal {
    Refusal {
        verdict: settled.decision.verdict,
        reason: settled.decision.reason.clone(),
        message: settled.decision.message.clone(),
        decision: Some(decision),
        retry_after_ms: settled.retry_after_ms,
        ticket: None,
    }
}

fn unrecorded(reason: Builtin) -> Refusal {
    Refusal {
        verdict: reason.info().verdict,
        reason: reason.code(),
        message: reason.info().sentence.to_owned(),
        decision: None,
        retry_after_ms: None,
        ticket: None,
    }
}
