//! Running governed components: the only place where one is instantiated.

mod answer;
mod execute;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use govrun_verdict::{Agent, Builtin, Call, Operation, ToolRef, Value};
use tracing::Instrument as _;
use wasmtime::Engine;
use wasmtime::component::Linker;
use wasmtime::component::types::{ComponentFunc, ComponentItem};

pub use self::answer::{Answer, CallError, Offers, Tool};
pub(crate) use self::state::CallState;

use self::answer::exports;
use self::execute::{Entry, span};
use crate::arguments::{Arguments, Given};
use crate::gate::Gate;
use crate::imports;
use crate::scope::{MAX_DEPTH, Scope};
use crate::wasi;

/// Fuel of a call whose obligations name no limit: about a minute of one core.
pub const DEFAULT_FUEL: u64 = 50_000_000_000;
/// Deadline of a call whose obligations name none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// How often a running guest lets other work run; also the resolution of its deadline.
const EPOCH_TICK: Duration = Duration::from_millis(5);

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
        let ticking = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(EPOCH_TICK);
            }
        });
        let tools = tools.into_iter().map(|tool| (Arc::clone(&tool.name), tool)).collect();
        Ok(Arc::new(Self { engine, linker, gate, tools }))
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
        let pauses = outer.map_or(&[][..], |scope| scope.pauses());
        let grant = self.gate.admit(&call, bounds, pauses, who.hold).await.map_err(CallError::refused)?;
        let scope = Scope::enter(&self.gate, &call, &grant, outer, who.hold);
        let span = span(&call, &grant);
        let entry = Entry::Function(function, arguments.into_vals());
        self.run(tool, entry, &scope, grant).instrument(span).await
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
        let grant = self.gate.admit(&call, None, &[], who.hold).await.map_err(CallError::refused)?;
        let scope = Scope::enter(&self.gate, &call, &grant, None, who.hold);
        let span = span(&call, &grant);
        self.run(tool, Entry::Command, &scope, grant).instrument(span).await
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
