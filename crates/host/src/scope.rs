//! One running call: who acts, within which bounds, and the way its host calls pass the gate.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use govrun_verdict::{
    Agent, Builtin, Call, DecisionId, Digest, Obligations, Operation, ReasonCode, Refusal, ToolRef, Value,
};

use crate::gate::Gate;
use crate::grant::{Grant, Live};
use crate::pause::Pause;
use crate::runtime::{DEFAULT_FUEL, Who};

/// Most host calls of one tool call. Each writes records, so a guest without this bound could flood the log.
pub const MAX_HOST_CALLS: u64 = 100_000;

/// Deepest nesting of tools that call tools.
pub const MAX_DEPTH: u8 = 8;

/// Longest part of an unknown tool's name that a record keeps, in characters.
const MAX_TOOL_NAME: usize = 128;

/// A running tool call, as every host call inside it sees it. Shared by the views of one store.
pub struct Scope {
    gate: Arc<Gate>,
    agent: Arc<Agent>,
    session: Arc<str>,
    hold: Option<Duration>,
    tool: Arc<ToolRef>,
    decision: DecisionId,
    bounds: Obligations,
    outer: Option<Arc<Self>>,
    depth: u8,
    // Most fuel of this call with everything it calls.
    fuel: u64,
    // What the tools it called have used, and how much of that its own store was not charged for yet.
    nested_fuel: AtomicU64,
    owed_fuel: AtomicU64,
    host_calls: AtomicU64,
    pause: Arc<Pause>,
    // Its own and those of the calls it runs inside.
    pauses: Vec<Arc<Pause>>,
    last_refusal: Mutex<Option<Refusal>>,
    refusals: AtomicU64,
    // Kept once the call has made all the host calls it may make; it ends at the next tick then.
    exhausted: OnceLock<Refusal>,
}

impl Scope {
    /// The scope of a call that `grant` permits: its host calls are bound by the grant's obligations, and its fuel by what
    /// the call it runs inside has left.
    pub(crate) fn enter(
        gate: &Arc<Gate>,
        call: &Call,
        grant: &Grant,
        outer: Option<&Arc<Self>>,
        hold: Option<Duration>,
    ) -> Arc<Self> {
        let pause: Arc<Pause> = Arc::default();
        let around = outer.map_or(&[][..], |scope| &scope.pauses);
        let bounds = grant.obligations().clone();
        let own = bounds.fuel.map_or(DEFAULT_FUEL, NonZeroU64::get);
        Arc::new(Self {
            pauses: std::iter::once(&pause).chain(around).cloned().collect(),
            pause,
            gate: Arc::clone(gate),
            agent: Arc::clone(&call.agent),
            session: Arc::clone(&call.session),
            hold,
            tool: Arc::clone(&call.tool),
            decision: grant.id(),
            bounds,
            depth: outer.map_or(0, |scope| scope.depth.saturating_add(1)),
            fuel: outer.map_or(own, |scope| own.min(scope.fuel_for_others())),
            outer: outer.cloned(),
            nested_fuel: AtomicU64::new(0),
            owed_fuel: AtomicU64::new(0),
            host_calls: AtomicU64::new(0),
            last_refusal: Mutex::new(None),
            refusals: AtomicU64::new(0),
            exhausted: OnceLock::new(),
        })
    }

    /// Most fuel of this call, with everything it calls.
    pub(crate) const fn fuel(&self) -> u64 {
        self.fuel
    }

    fn fuel_for_others(&self) -> u64 {
        self.fuel.saturating_sub(self.nested_fuel.load(Ordering::Relaxed))
    }

    /// Fuel that tools called from here have used since the last time this was asked.
    pub(crate) fn take_owed(&self) -> u64 {
        self.owed_fuel.swap(0, Ordering::Relaxed)
    }

    /// This call used so much; the call it runs inside pays for it.
    pub(crate) fn charge_outer(&self, used: u64) {
        if let Some(outer) = &self.outer {
            outer.nested_fuel.fetch_add(used, Ordering::Relaxed);
            outer.owed_fuel.fetch_add(used, Ordering::Relaxed);
        }
    }

    /// Decide and record one host call; an escalated one waits for its approval, and the call's deadline with it.
    ///
    /// # Errors
    /// The refusal, which is also kept as [`Self::last_refusal`].
    pub async fn admit(self: &Arc<Self>, operation: Operation) -> Result<Grant, Refusal> {
        let call = self.call(operation);
        let answer = match self.over_budget(&call) {
            Some(refusal) => Err(refusal),
            None => self.gate.admit(&call, Some(&self.bounds), &self.pauses, self.hold).await,
        };
        self.remember(answer)
    }

    /// The same without waiting, for host calls that cannot: an escalation is refused with its ticket.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn admit_now(self: &Arc<Self>, operation: Operation) -> Result<Grant, Refusal> {
        let call = self.call(operation);
        let answer = match self.over_budget(&call) {
            Some(refusal) => Err(refusal),
            None => self.gate.admit_now(&call, Some(&self.bounds)),
        };
        self.remember(answer)
    }

    /// Record a refusal that the host itself makes after a permitted decision, such as a path that led elsewhere.
    #[must_use]
    pub fn refuse(&self, operation: Operation, reason: Builtin) -> Refusal {
        let refusal = self.gate.refuse(&self.call(operation), Some(&self.bounds), reason);
        self.keep(&refusal);
        refusal
    }

    /// True when the effects of this call are not real.
    #[must_use]
    pub const fn sandboxed(&self) -> bool {
        self.bounds.sandbox.is_some()
    }

    /// Who acts.
    #[must_use]
    pub fn who(&self) -> Who {
        Who { agent: Arc::clone(&self.agent), session: Arc::clone(&self.session), hold: self.hold }
    }

    /// The acting tool.
    #[must_use]
    pub const fn tool(&self) -> &Arc<ToolRef> {
        &self.tool
    }

    /// The decision under which the call runs.
    #[must_use]
    pub const fn decision(&self) -> DecisionId {
        self.decision
    }

    /// A call of a tool that the registry does not know, for its record: no component, no arguments.
    pub(crate) fn unknown_tool(&self, name: &str) -> Call {
        let shown: String = name.chars().take(MAX_TOOL_NAME).filter(|c| !c.is_control()).collect();
        Call {
            tool: Arc::new(ToolRef { name: format!("unknown:{shown}").into(), component: Digest::of(b"") }),
            caller: Some(Arc::clone(&self.tool)),
            ..self.call(Operation::ToolCall { args: Value::Null })
        }
    }

    /// What the whole call is bound to.
    #[must_use]
    pub const fn bounds(&self) -> &Obligations {
        &self.bounds
    }

    /// How many tools are between the agent and this one.
    #[must_use]
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// The last refusal of this call, if any.
    #[must_use]
    pub fn last_refusal(&self) -> Option<Refusal> {
        self.last_refusal.lock().ok().and_then(|kept| kept.clone())
    }

    /// How many of its host calls were refused so far.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// The reason code of the last refusal, if any.
    #[must_use]
    pub fn last_reason(&self) -> Option<ReasonCode> {
        self.last_refusal().map(|r| r.reason)
    }

    fn call(&self, operation: Operation) -> Call {
        Call {
            agent: Arc::clone(&self.agent),
            env: Arc::clone(self.gate.env()),
            session: Arc::clone(&self.session),
            tool: Arc::clone(&self.tool),
            caller: None,
            parent: Some(self.decision),
            operation,
        }
    }

    fn over_budget(&self, call: &Call) -> Option<Refusal> {
        if self.host_calls.fetch_add(1, Ordering::Relaxed) < MAX_HOST_CALLS {
            return None;
        }
        // Recorded once: what comes after it would flood the log that this bound protects.
        let refuse = || self.gate.refuse(call, Some(&self.bounds), Builtin::LimitHostCalls);
        Some(self.exhausted.get_or_init(refuse).clone())
    }

    /// True when the call has made more host calls than it may.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted.get().is_some()
    }

    /// Wait until the agent is stopped or the process ends, and say which.
    pub(crate) async fn ended(&self) -> Builtin {
        self.gate.standing().ended(&self.agent.name).await
    }

    /// Ask a held grant whether it still stands.
    ///
    /// # Errors
    /// The refusal, which is also kept as [`Self::last_refusal`].
    pub fn still<'g>(&self, grant: &'g Grant) -> Result<Live<'g>, Refusal> {
        grant.live().inspect_err(|refusal| self.keep(refusal))
    }

    /// What the call's own clock does not count.
    pub(crate) fn pause(&self) -> &Pause {
        &self.pause
    }

    /// The clocks that stand still while something in this call waits.
    pub(crate) fn pauses(&self) -> &[Arc<Pause>] {
        &self.pauses
    }

    fn remember(&self, answer: Result<Grant, Refusal>) -> Result<Grant, Refusal> {
        if let Err(refusal) = &answer {
            self.keep(refusal);
        }
        answer
    }

    pub(crate) fn keep(&self, refusal: &Refusal) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        // A poisoned lock only loses a convenience for the guest; the record is written either way.
        if let Ok(mut kept) = self.last_refusal.lock() {
            *kept = Some(refusal.clone());
        }
    }
}
