//! One running call: who acts, within which bounds, and the way its host calls pass the gate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use govrun_verdict::{
    Agent, Builtin, Call, DecisionId, Digest, Obligations, Operation, ReasonCode, Refusal, ToolRef, Value,
};

use crate::gate::Gate;
use crate::grant::Grant;
use crate::runtime::Who;

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
    tool: Arc<ToolRef>,
    decision: DecisionId,
    bounds: Obligations,
    depth: u8,
    host_calls: AtomicU64,
    last_refusal: Mutex<Option<Refusal>>,
}

impl Scope {
    /// The scope of a call that `grant` permits: its host calls are bound by the grant's obligations.
    #[must_use]
    pub fn enter(gate: &Arc<Gate>, call: &Call, grant: &Grant, depth: u8) -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::clone(gate),
            agent: Arc::clone(&call.agent),
            session: Arc::clone(&call.session),
            tool: Arc::clone(&call.tool),
            decision: grant.id(),
            bounds: grant.obligations().clone(),
            depth,
            host_calls: AtomicU64::new(0),
            last_refusal: Mutex::new(None),
        })
    }

    /// Decide and record one host call, without waiting: an escalation is refused and leaves its approval to be asked for.
    ///
    /// # Errors
    /// The refusal, which is also kept as [`Self::last_refusal`].
    pub fn admit_now(self: &Arc<Self>, operation: Operation) -> Result<Grant, Refusal> {
        let call = self.call(operation);
        let answer = if self.over_budget() {
            Err(self.gate.refuse(&call, Some(&self.bounds), Builtin::LimitHostCalls))
        } else {
            self.gate.admit(&call, Some(&self.bounds))
        };
        self.remember(answer)
    }

    /// The same for host calls that may take their time.
    ///
    /// # Errors
    /// As [`Self::admit_now`].
    pub async fn admit(self: &Arc<Self>, operation: Operation) -> Result<Grant, Refusal> {
        self.admit_now(operation)
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
        Who { agent: Arc::clone(&self.agent), session: Arc::clone(&self.session) }
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

    fn over_budget(&self) -> bool {
        self.host_calls.fetch_add(1, Ordering::Relaxed) >= MAX_HOST_CALLS
    }

    fn remember(&self, answer: Result<Grant, Refusal>) -> Result<Grant, Refusal> {
        if let Err(refusal) = &answer {
            self.keep(refusal);
        }
        answer
    }

    fn keep(&self, refusal: &Refusal) {
        // A poisoned lock only loses a convenience for the guest; the record is written either way.
        if let Ok(mut kept) = self.last_refusal.lock() {
            *kept = Some(refusal.clone());
        }
    }
}
