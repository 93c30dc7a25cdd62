//! Running governed components: the only place where one is instantiated.

mod answer;
mod execute;
mod inflight;
mod state;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use govrun_verdict::{Agent, Builtin, Call, Operation, Refusal, ToolRef, Value};
use tracing::Instrument as _;
use wasmtime::Engine;
use wasmtime::component::Linker;
use wasmtime::component::types::{ComponentFunc, ComponentItem};

pub use self::answer::{Answer, CallError, Offers, Tool};
pub use self::execute::MAX_RESULT_BYTES;
pub use self::inflight::{MAX_CALLS, MAX_CALLS_PER_AGENT};
pub(crate) use self::state::CallState;

use self::answer::exports;
use self::execute::{Entry, deadline, lost, span};
use self::inflight::Inflight;
use self::worker::{Lost, Ticker, on_own_thread};
use crate::arguments::{Arguments, Given};
use crate::gate::Gate;
use crate::imports;
use crate::pause::within;
use crate::scope::{MAX_DEPTH, Scope};
use crate::wasi;

/// Fuel of a call whose obligations name no limit: about a minute of one core.
pub const DEFAULT_FUEL: u64 = 50_000_000_000;
/// Deadline of a call whose obligations name none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// After stop orders and at the end: how long a cancelled call may take to let go.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Who asks, for every call of one principal.
#[derive(Debug, Clone)]
pub struct Who {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Its session.
    pub session: Arc<str>,
    /// Longest that a call waits for an approval before it is refused with its ticket; `None`: as long as the rule says.
    pub hold: Option<Duration>,
}

/// The engine with the governed imports linked, over one gate, with the tools that components may call.
pub struct Runtime {
    engine: Engine,
    linker: Linker<CallState>,
    gate: Arc<Gate>,
    tools: BTreeMap<Arc<str>, Tool>,
    inflight: Arc<Inflight>,
    ticker: Ticker,
}

impl Runtime {
    /// A runtime over `gate`, with its epoch ticker running.
    ///
    /// # Errors
    /// When the imports cannot be linked: a bug, not a user's mistake.
    pub fn new(engine: Engine, gate: Arc<Gate>, tools: Vec<Tool>) -> wasmtime::Result<Arc<Self>> {
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker)?;
        imports::add_to_linker(&mut linker)?;
        let ticker = Ticker::start(&engine)?;
        let tools = tools.into_iter().map(|tool| (Arc::clone(&tool.name), tool)).collect();
        let inflight = Inflight::new();
        Ok(Arc::new(Self { engine, linker, gate, tools, inflight, ticker }))
    }

    /// The registered tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.tools.values()
    }

    /// Whether policy can ever permit this principal to call `tool.function`, whatever the arguments.
    #[must_use]
    pub fn reachable(&self, who: &Who, tool: &Tool, function: &str) -> bool {
        self.gate.policy().can_permit(&self.tool_call(who, None, tool, function, Value::Null))
    }

    /// The decision path.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// How many calls run now, those that wait for an approval included.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.inflight.running()
    }

    /// End well: take no more calls, let those that run finish for at most `grace`, cancel the rest, and seal the log. What
    /// did not finish has an outcome that says so. Returns how many calls were cancelled.
    ///
    /// # Errors
    /// When the log cannot be closed; everything in it still verifies up to its last seal.
    pub async fn shutdown(&self, grace: Duration) -> Result<u32, govrun_audit::AppendError> {
        self.inflight.close();
        let finished = tokio::time::timeout(grace, self.inflight.idle()).await;
        let cancelled = if finished.is_ok() { 0 } else { self.inflight.running() };
        if cancelled > 0 {
            self.gate.standing().stop_everybody();
            if tokio::time::timeout(LETTING_GO, self.inflight.idle()).await.is_err() {
                tracing::error!("a call is stuck in the operating system; its outcome is missing in the log");
            }
        }
        self.gate.log().close()?;
        Ok(cancelled)
    }

    /// The engine, to load components with.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Call one exported function: decided, recorded, run in a fresh instance, and its outcome recorded.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        self: &Arc<Self>,
        who: &Who,
        tool: &Tool,
        function: &str,
        given: Given<'_>,
    ) -> Result<Answer, CallError> {
        self.call_within(who, None, tool, function, given).await
    }

    /// Call `component.function` of the registry from inside a running call, which bounds the new one.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call_from(
        self: &Arc<Self>,
        outer: &Arc<Scope>,
        name: &str,
        given: Given<'_>,
    ) -> Result<Answer, CallError> {
        let who = outer.who();
        let found =
            name.rsplit_once('.').and_then(|(tool, function)| Some((self.tools.get(tool)?, function)));
        let Some((tool, function)) = found else {
            let call = outer.unknown_tool(name);
            return Err(CallError::refused(self.gate.refuse(
                &call,
                Some(outer.bounds()),
                Builtin::ToolUnknown,
            )));
        };
        // Tools may call tools: the future contains itself, so it lives on the heap.
        Box::pin(self.call_within(&who, Some(outer), tool, function, given)).await
    }

    async fn call_within(
        self: &Arc<Self>,
        who: &Who,
        outer: Option<&Arc<Scope>>,
        tool: &Tool,
        function: &str,
        given: Given<'_>,
    ) -> Result<Answer, CallError> {
        let bounds = outer.map(|scope| scope.bounds());
        let signature = self.function(tool, function)?;
        let arguments = match Arguments::parse(&signature, given) {
            Ok(arguments) => arguments,
            Err(error) => {
                // The attempt is worth a record even though nothing of it can be shown.
                let call = self.tool_call(who, outer, tool, function, Value::Null);
                let _ = self.gate.refuse(&call, bounds, Builtin::ArgumentsInvalid);
                return Err(error.into());
            }
        };
        let call = self.tool_call(who, outer, tool, function, arguments.to_policy());
        if outer.is_some_and(|scope| scope.depth() >= MAX_DEPTH) {
            return Err(CallError::refused(self.gate.refuse(&call, bounds, Builtin::LimitDepth)));
        }
        let entry = Entry::Function(function.to_owned(), arguments.into_vals());
        match outer {
            None => {
                let answered = self.begin(who, tool, &call, entry).await;
                self.gate.heard_answer(&call, &answered);
                answered
            }
            Some(outer) => {
                let admitted = self.gate.admit(&call, bounds, outer.pauses(), who.hold).await;
                let grant = admitted.map_err(CallError::refused)?;
                let scope = Scope::enter(&self.gate, &call, &grant, Some(outer), who.hold);
                let span = span(&call, &grant);
                // It runs where its caller waits for it.
                let answered = self.run(tool, entry, &scope, grant).instrument(span).await;
                self.gate.heard_answer(&call, &answered);
                answered
            }
        }
    }

    /// Run a WASI command (`wasi:cli/run`) with the arguments it is offered; the value of the answer is its exit code, an
    /// `s32`. Policy sees a call of `NAME.run` with one argument, the list `argv`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn command(self: &Arc<Self>, who: &Who, tool: &Tool) -> Result<Answer, CallError> {
        if !tool.component.inspected().command {
            return Err(CallError::NoFunction {
                component: tool.name.to_string(),
                function: "wasi:cli/run".to_owned(),
                known: exports(tool),
            });
        }
        let argv = tool.offers.args.iter().cloned().map(Value::Text).collect();
        let args = Value::Record(vec![("argv".to_owned(), Value::List(argv))]);
        let call = self.tool_call(who, None, tool, "run", args);
        self.begin(who, tool, &call, Entry::Command).await
    }

    /// A call that no other call made: it takes a place, is decided, and runs on a thread of its own.
    async fn begin(
        self: &Arc<Self>,
        who: &Who,
        tool: &Tool,
        call: &Call,
        entry: Entry,
    ) -> Result<Answer, CallError> {
        let slot = self.inflight.enter(&who.agent.name).map_err(|reason| {
            let retry_after_ms = (reason == Builtin::LimitConcurrency).then_some(inflight::RETRY_MS);
            CallError::refused(Refusal { retry_after_ms, ..self.gate.refuse(call, None, reason) })
        })?;
        if !self.ticker.ticks() {
            tracing::error!("the epoch ticker does not tick: no guest could be interrupted");
            return Err(CallError::refused(self.gate.refuse(call, None, Builtin::HostFault)));
        }
        let grant = self.gate.admit(call, None, &[], who.hold).await.map_err(CallError::refused)?;
        let scope = Scope::enter(&self.gate, call, &grant, None, who.hold);
        let span = span(call, &grant);
        let deadline = deadline(&scope).saturating_add(LETTING_GO);
        let work = {
            let (runtime, tool, scope) = (Arc::clone(self), tool.clone(), Arc::clone(&scope));
            async move {
                let _slot = slot;
                runtime.run(&tool, entry, &scope, grant).await
            }
        };
        // The work minds its own deadline; this one is for work that is stuck where nothing can interrupt it.
        match within(deadline, scope.pause(), on_own_thread(work.instrument(span))).await {
            Some(Ok(answer)) => answer,
            Some(Err(Lost)) => Err(lost(&scope, Builtin::HostFault, "the host's own code crashed")),
            None => Err(lost(&scope, Builtin::LimitDeadline, "an operation of the host does not end")),
        }
    }

    fn function(&self, tool: &Tool, function: &str) -> Result<ComponentFunc, CallError> {
        let kind = tool.component.component().component_type();
        let found = kind.exports(&self.engine).find_map(|(name, item)| match item.ty {
            ComponentItem::ComponentFunc(f) if name == function => Some(f),
            _ => None,
        });
        found.ok_or_else(|| CallError::NoFunction {
            component: tool.name.to_string(),
            function: function.to_owned(),
            known: exports(tool),
        })
    }

    fn tool_call(
        &self,
        who: &Who,
        outer: Option<&Arc<Scope>>,
        tool: &Tool,
        function: &str,
        args: Value,
    ) -> Call {
        Call {
            agent: Arc::clone(&who.agent),
            env: Arc::clone(self.gate.env()),
            session: Arc::clone(&who.session),
            tool: Arc::new(ToolRef {
                name: format!("{}.{function}", tool.name).into(),
                component: tool.component.inspected().digest,
            }),
            caller: outer.map(|scope| Arc::clone(scope.tool())),
            parent: outer.map(|scope| scope.decision()),
            operation: Operation::ToolCall { args },
        }
    }
}
