//! The one way from a call to its effect: decide, charge the limits, record, and only then mint a grant.

mod drill;
mod reload;
mod settle;
#[cfg(test)]
mod tests_reload;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use govrun_audit::{ApprovalEvent, Clock, DecisionEntry, Inputs, Log, PolicyLoadEntry, Receipt, Trust};
use govrun_control::{Approval, ApprovalId, Reservation, State, Store, Ticket};
use govrun_policy::Policy;
use govrun_verdict::{
    BudgetLevel, Builtin, Call, Decision, DecisionId, Durability, Facts, Mode, Obligations, Refusal, RuleId,
    Severity, Timestamp, Verdict,
};

use self::drill::drill_bounds;
use crate::approval::{POLL, encode};
use crate::grant::{Grant, Minted};
use crate::ledger::Ledger;
use crate::notify::{Pager, Webhooks};
use crate::past::{Heard, Unlabel};
use crate::pause::{Pause, Waiting};
use crate::standing::Standing;

pub use self::reload::ReloadError;

/// The policy enforcement point's decision path. One per process; shared by all calls.
pub struct Gate {
    pub(crate) heard: Heard,
    // Fixed for the life of the process: a reload cannot move a gate into another environment.
    env: Arc<str>,
    policy: ArcSwap<Policy>,
    standing: Standing,
    reloading: Mutex<()>,
    store: Store,
    trust: Trust,
    pager: ArcSwap<Pager>,
    waits: Box<dyn Waits>,
    ledger: Ledger,
    /// What bounds every call of an exercise.
    drill: Option<Obligations>,
}

/// Why a gate cannot open: without log, store or pager nothing may run.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The log.
    #[error(transparent)]
    Log(#[from] govrun_audit::AppendError),
    /// The thread that sends pages.
    #[error("pages cannot be sent: {0}")]
    Pager(#[from] std::io::Error),
}

/// Told of the approvals that calls of a gate wait for.
pub trait Waits: Send + Sync {
    /// A call is about to wait for it.
    fn begins(&self, approval: &Approval);
    /// The call waits no longer, because it was decided or expired; not called for a call that was cancelled.
    fn ends(&self, approval: &Approval);
}

/// Nobody is told.
impl Waits for () {
    fn begins(&self, _: &Approval) {}
    fn ends(&self, _: &Approval) {}
}

/// What a gate is made of.
pub struct Parts {
    /// The policy that decides.
    pub policy: Arc<Policy>,
    /// The log that records.
    pub log: Log,
    /// Budgets and approvals.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who may approve.
    pub trust: Trust,
    /// Where the policy's notification targets lead.
    pub webhooks: Webhooks,
    /// Who is told that a call waits.
    pub waits: Box<dyn Waits>,
}

/// A decision with the state it was completed by.
struct Settled {
    decision: Decision,
    now: Timestamp,
    // Changes counted before the policy was read.
    generation: u64,
    levels: Vec<BudgetLevel>,
    reservation: Option<Reservation>,
    retry_after_ms: Option<u64>,
    /// How long a throttled call may wait instead of being refused.
    patience_ms: Option<u64>,
    facts: Option<Facts>,
    /// Labels to take from the agent when this is on record.
    unlabel: Unlabel,
    decide_ns: u64,
}

impl Gate {
    /// Open the gate: archives the policy with the log and records that it came into force.
    ///
    /// # Errors
    /// When the log cannot be written: without a record nothing may run.
    pub fn open(parts: Parts) -> Result<Arc<Self>, GateError> {
        Self::open_as(parts, None)
    }

    /// Open the gate for exercises: the same path with the same policy and log, but every decision is recorded as a drill,
    /// nobody is paged, and every call is bounded by a sandbox without egress, so that an action that a rule should have
    /// stopped changes nothing. The store of `parts` is for this gate alone: drills use up no budget and queue no approval.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for_drills(parts: Parts) -> Result<Arc<Self>, GateError> {
        Self::open_as(parts, Some(drill_bounds()))
    }

    fn open_as(parts: Parts, drill: Option<Obligations>) -> Result<Arc<Self>, GateError> {
        let Parts { policy, log, store, clock, trust, webhooks, waits } = parts;
        log.archive_policy(policy.epoch(), policy.bundle())?;
        log.policy_load(&PolicyLoadEntry { epoch: policy.epoch(), previous: None, env: policy.env() })?;
        let pager = Pager::start(webhooks)?;
        Ok(Arc::new(Self {
            heard: Heard::default(),
            env: Arc::clone(policy.env()),
            policy: ArcSwap::new(policy),
            standing: Standing::default(),
            reloading: Mutex::default(),
            store,
            trust,
            pager: ArcSwap::from_pointee(pager),
            waits,
            ledger: Ledger { log, clock },
            drill,
        }))
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Name of the policy's environment.
    #[must_use]
    pub const fn env(&self) -> &Arc<str> {
        &self.env
    }

    pub(crate) const fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// A folder beside the state file.
    pub(crate) fn store_folder(&self, name: &str) -> std::path::PathBuf {
        self.store.path().with_file_name(name)
    }

    pub(crate) const fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(crate) fn log(&self) -> &Log {
        &self.ledger.log
    }

    /// Decide, charge and record one call. A grant is the only way on. While an escalated call waits for its approval, the
    /// clocks of `pauses` stand still; after `hold` it is refused with its ticket, and the approval stays to be decided.
    ///
    /// # Errors
    /// Why not, for the caller: throttled, denied, expired, blocked, or something on the path itself failed.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        call: &Call,
        bounds: Option<&Obligations>,
        pauses: &[Arc<Pause>],
        hold: Option<Duration>,
    ) -> Result<Grant, Refusal> {
        // What a drill's call makes inside is bounded by the call already.
        let bounds = bounds.or(self.drill.as_ref());
        self.registered(call, bounds)?;
        let settled = self.settle_in_time(call, bounds, pauses).await?;
        let (ticket, refusal) = match self.entered(call, bounds, &settled)? {
            Entered::Granted(grant) => return Ok(*grant),
            Entered::Escalated(ticket, refusal) => (ticket, refusal),
        };
        self.waits.begins(&ticket.approval);
        let waiting = Waiting::begin(pauses);
        let decided = self.decided(call, &ticket.approval.id);
        let ended = match hold {
            Some(hold) => tokio::time::timeout(hold, decided).await,
            None => Ok(decided.await),
        };
        drop(waiting);
        self.waits.ends(&ticket.approval);
        match ended {
            Ok(Ok(())) => self.redeem(call, bounds, &ticket.approval.id),
            Ok(Err(reason)) => Err(self.refuse(call, bounds, reason)),
            Err(_elapsed) => Err(*refusal),
        }
    }

    /// The same without waiting: an escalated call is refused with the ticket of its approval, and permitted when it comes
    /// again after the approval was given.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(crate) fn admit_now(
        self: &Arc<Self>,
        call: &Call,
        bounds: Option<&Obligations>,
    ) -> Result<Grant, Refusal> {
        let bounds = bounds.or(self.drill.as_ref());
        match self.enter(call, bounds)? {
            Entered::Granted(grant) => Ok(*grant),
            Entered::Escalated(ticket, refusal) if ticket.approval.state == State::Pending => Err(*refusal),
            Entered::Escalated(ticket, _) => self.redeem(call, bounds, &ticket.approval.id),
        }
    }

    fn enter(self: &Arc<Self>, call: &Call, bounds: Option<&Obligations>) -> Result<Entered, Refusal> {
        self.registered(call, bounds)?;
        let settled = self.settle(call, bounds, None)?;
        self.entered(call, bounds, &settled)
    }

    /// Rules may be about `*`: whoever is not registered, or no longer, never gets as far as the rules.
    fn registered(&self, call: &Call, bounds: Option<&Obligations>) -> Result<(), Refusal> {
        if self.policy.load().agent(&call.agent.name).is_none() {
            return Err(self.refuse(call, bounds, Builtin::AgentUnknown));
        }
        Ok(())
    }

    fn entered(
        self: &Arc<Self>,
        call: &Call,
        bounds: Option<&Obligations>,
        settled: &Settled,
    ) -> Result<Entered, Refusal> {
        let receipt = self.recorded(call, bounds, settled)?;
        if settled.decision.verdict != Verdict::Escalate {
            let granted = self.answer(call, settled, None, receipt);
            return granted.map(|grant| Entered::Granted(Box::new(grant)));
        }
        let ticket = self
            .ask(call, &settled.decision, receipt.id(), settled.now)
            .map_err(|reason| self.refuse(call, bounds, reason))?;
        let told = Refusal { ticket: Some(ticket.approval.id.to_string()), ..refusal(settled, receipt.id()) };
        tracing::info!(target: "govrun::approval", ticket = %ticket.approval.id, decision = %receipt.id(), "waits for an approval");
        Ok(Entered::Escalated(Box::new(ticket), Box::new(told)))
    }

    /// Wait until the approval is no longer pending.
    async fn decided(&self, call: &Call, id: &ApprovalId) -> Result<(), Builtin> {
        loop {
            if let Some(reason) = self.standing.against(&call.agent.name) {
                return Err(reason);
            }
            let now = self.ledger.clock.now().map_err(|_| Builtin::ClockUnavailable)?;
            match self.store.status(id, now) {
                Ok(Some(State::Pending)) => tokio::time::sleep(POLL).await,
                Ok(Some(State::Approved | State::Denied | State::Expired | State::Consumed)) => return Ok(()),
                Ok(None) => return Err(Builtin::ApprovalInvalid),
                Err(error) => {
                    tracing::error!(%error, "the approval could not be looked up");
                    return Err(Builtin::StoreUnavailable);
                }
            }
        }
    }

    /// Use a decided approval for exactly this call: re-evaluated, verified, consumed once, recorded, and only then granted.
    fn redeem(
        self: &Arc<Self>,
        call: &Call,
        bounds: Option<&Obligations>,
        id: &ApprovalId,
    ) -> Result<Grant, Refusal> {
        let approval = self.usable(id).map_err(|reason| self.refuse(call, bounds, reason))?;
        let settled = self.settle(call, bounds, Some(&approval))?;
        let permitted = matches!(settled.decision.verdict, Verdict::Allow | Verdict::Sandbox);
        if permitted && let Err(reason) = self.spend(call, &approval) {
            self.refund(settled.reservation.as_ref());
            return Err(self.refuse(call, bounds, reason));
        }
        let receipt = self.recorded(call, bounds, &settled)?;
        let used_by = Some(receipt.id());
        if permitted && !self.record_approval(&approval, ApprovalEvent::Consumed, None, used_by) {
            self.refund(settled.reservation.as_ref());
            return Err(unrecorded(Builtin::AuditUnavailable));
        }
        self.answer(call, &settled, Some(&approval), receipt)
    }

    /// The approval, when it was given and neither used nor expired.
    fn usable(&self, id: &ApprovalId) -> Result<Approval, Builtin> {
        let now = self.ledger.clock.now().map_err(|_| Builtin::ClockUnavailable)?;
        let unavailable = |error| {
            tracing::error!(%error, "the approval could not be read");
            Builtin::StoreUnavailable
        };
        let approval = self.store.get(id, now).map_err(unavailable)?.ok_or(Builtin::ApprovalInvalid)?;
        match approval.state {
            State::Approved => Ok(approval),
            State::Pending => Err(Builtin::ApprovalPending),
            State::Consumed => Err(Builtin::ApprovalInvalid),
            State::Denied => {
                self.record_end(&approval);
                Err(Builtin::ApprovalDenied)
            }
            State::Expired => {
                // Each expired approval is handed out once over all processes, so it is recorded once.
                for expired in self.store.expire_due(now).map_err(unavailable)? {
                    self.record_end(&expired);
                }
                Err(Builtin::ApprovalExpired)
            }
        }
    }

    fn spend(&self, call: &Call, approval: &Approval) -> Result<(), Builtin> {
        let now = self.ledger.clock.now().map_err(|_| Builtin::ClockUnavailable)?;
        self.verified(approval, approval.need)?;
        self.store.consume(&approval.id, &encode(call), now).map(drop).map_err(|error| {
            tracing::warn!(%error, ticket = %approval.id, "an approval was not used");
            Builtin::ApprovalInvalid
        })
    }

    /// Record a refusal of the host's own, for something that policy does not decide.
    #[must_use]
    pub fn refuse(&self, call: &Call, bounds: Option<&Obligations>, reason: Builtin) -> Refusal {
        let Ok(now) = self.ledger.clock.now() else { return unrecorded(Builtin::ClockUnavailable) };
        let decision = self.host_refusal(reason, call);
        let settled = Settled {
            decision,
            now,
            generation: 0,
            levels: Vec::new(),
            reservation: None,
            retry_after_ms: None,
            patience_ms: None,
            facts: None,
            unlabel: Unlabel::new(),
            decide_ns: 0,
        };
        match self.record(call, bounds, &settled) {
            Ok(receipt) => refusal(&settled, receipt.id()),
            Err(refusal) => refusal,
        }
    }

    /// The receipt, or the charge given back.
    fn recorded(
        &self,
        call: &Call,
        bounds: Option<&Obligations>,
        settled: &Settled,
    ) -> Result<Receipt, Refusal> {
        let receipt =
            self.record(call, bounds, settled).inspect_err(|_| self.refund(settled.reservation.as_ref()))?;
        self.unlabel(call, &settled.unlabel);
        Ok(receipt)
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
            inputs: &Inputs {
                now: settled.now,
                budgets: &settled.levels,
                bounds,
                cohort: settled.decision.cohort.as_deref(),
                facts: settled.facts.as_ref(),
            },
            decide_ns: settled.decide_ns,
            trace: None,
        };
        let receipt = self.ledger.log.decision(&entry).map_err(|error| {
            tracing::error!(%error, "the decision could not be recorded; the call is refused");
            unrecorded(Builtin::AuditUnavailable)
        })?;
        if self.drill.is_none() {
            self.pager.load().tell(call, &settled.decision, receipt.id());
        }
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

    fn answer(
        self: &Arc<Self>,
        call: &Call,
        settled: &Settled,
        approval: Option<&Approval>,
        receipt: Receipt,
    ) -> Result<Grant, Refusal> {
        match settled.decision.verdict {
            Verdict::Allow | Verdict::Sandbox => Ok(Grant::mint(
                self,
                Minted {
                    receipt,
                    call,
                    decision: &settled.decision,
                    approval,
                    started_us: self.ledger.clock.monotonic_us(),
                    generation: settled.generation,
                },
            )),
            Verdict::Throttle | Verdict::Escalate | Verdict::Block => Err(refusal(settled, receipt.id())),
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
        let policy = self.policy.load();
        let durability = if call.action().is_effectful() { Durability::Sealed } else { Durability::Os };
        Decision {
            verdict: reason.info().verdict,
            mode: if self.drill.is_some() { Mode::Drill } else { Mode::Enforce },
            reason: reason.code(),
            message: reason.info().sentence.to_owned(),
            rule: Some(RuleId::builtin("host")),
            matched: Vec::new(),
            shadow: None,
            cohort: None,
            obligations: Obligations::default(),
            budgets: Vec::new(),
            escalate: None,
            notify: Vec::new(),
            severity: Severity::High,
            durability,
            disclosure: Arc::clone(policy.disclosure()),
            epoch: policy.epoch(),
        }
    }
}

/// What became of a call at the gate.
enum Entered {
    Granted(Box<Grant>),
    /// It has an approval, pending or already given, and this is what a caller who will not wait is told.
    Escalated(Box<Ticket>, Box<Refusal>),
}

/// An approval turns an escalation, and nothing else, into what the other matching rules permit. A block that was added
/// meanwhile stays a block, and an approval that asks for less than the policy does now is not enough.
fn approve(decision: &mut Decision, approval: &Approval) {
    if decision.verdict != Verdict::Escalate {
        return;
    }
    let enough = decision.escalate.as_ref().is_some_and(|e| approval.satisfies(&e.roles, e.need));
    if !enough {
        return block(decision, Builtin::ApprovalInvalid);
    }
    decision.verdict = if decision.obligations.sandbox.is_some() { Verdict::Sandbox } else { Verdict::Allow };
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
