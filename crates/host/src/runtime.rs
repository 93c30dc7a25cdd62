//! Running governed components: the only place where one is instantiated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use govrun_audit::Absorbed;
use govrun_verdict::{Agent, Builtin, Call, FsMode, Operation, Refusal, Stream, ToolRef, Value};
use tracing::Instrument as _;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Linker, Val};
use wasmtime::{Engine, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::Command;

use crate::arguments::{ArgumentError, Arguments, Given};
use crate::component::Admitted;
use crate::databases::{DatabaseOffers, Databases};
use crate::folders::{Folders, Unavailable};
use crate::gate::Gate;
use crate::grant::{Grant, Outcome};
use crate::imports;
use crate::limiter::{DEFAULT_MEMORY_BYTES, Limiter};
use crate::pause::within;
use crate::scope::{MAX_DEPTH, Scope};
use crate::wasi::{self, CliState, WasiState};

/// Fuel of a call whose obligations name no limit: about a minute of one core.
pub const DEFAULT_FUEL: u64 = 50_000_000_000;
/// Deadline of a call whose obligations name none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// How often a running guest lets other work run; also the resolution of its deadline.
const EPOCH_TICK: Duration = Duration::from_millis(5);

const TOO_LATE: &str = "the deadline passed";

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

/// A tool component with what it is offered. Offers never widen what policy grants.
#[derive(Clone)]
pub struct Tool {
    /// Name of the component in the registry, or `unregistered:<file stem>`.
    pub name: Arc<str>,
    /// The component.
    pub component: Admitted,
    /// What it is offered.
    pub offers: Offers,
}

/// What a component can ask for. Each use is decided by policy.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Program arguments.
    pub args: Vec<String>,
    /// Databases by label.
    pub databases: DatabaseOffers,
    /// Directories: canonical host path, absolute guest path, mode.
    pub dirs: Vec<(PathBuf, String, FsMode)>,
}

/// What a permitted call gave.
#[derive(Debug)]
pub struct Answer {
    /// The function's result, if it has one.
    pub value: Option<Val>,
    /// True when its effects were not real.
    pub sandboxed: bool,
    /// The record.
    pub decision: govrun_verdict::DecisionId,
    /// What the guest printed, control characters escaped.
    pub stdout: String,
    /// What the guest printed to standard error, control characters escaped.
    pub stderr: String,
    /// Fuel used.
    pub fuel: u64,
    /// The last host call that was refused inside, if any.
    pub last_refusal: Option<Refusal>,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Policy, or a limit, or the path itself refused it.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The component has no such function.
    #[error("`{component}` exports no function `{function}`; it exports: {known}")]
    NoFunction {
        /// The component.
        component: String,
        /// What was asked for.
        function: String,
        /// What there is.
        known: String,
    },
    /// The arguments do not fit.
    #[error("{0}")]
    Arguments(#[from] ArgumentError),
    /// The call was permitted and the guest failed.
    #[error("{reason}: {detail} [{decision}]")]
    Failed {
        /// The kind of failure.
        reason: govrun_verdict::ReasonCode,
        /// One line.
        detail: String,
        /// The record.
        decision: govrun_verdict::DecisionId,
        /// The last host call that was refused inside, if any: often the cause.
        last_refusal: Option<Box<Refusal>>,
    },
}

impl CallError {
    fn refused(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// The engine with the governed imports linked, over one gate, with the tools that components may call.
pub struct Runtime {
    engine: Engine,
    linker: Linker<CallState>,
    gate: Arc<Gate>,
    tools: BTreeMap<Arc<str>, Tool>,
}

/// Everything one store holds.
pub(crate) struct CallState {
    pub(crate) wasi: WasiState,
    pub(crate) databases: Databases,
    limiter: Limiter,
    runtime: Arc<Runtime>,
    scope: Arc<Scope>,
    absorbed: Vec<Absorbed>,
}

impl CallState {
    pub(crate) const fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub(crate) const fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Note an effect that landed in the sandbox, for the call's outcome record.
    pub(crate) fn absorb(&mut self, effect: Absorbed) {
        self.absorbed.push(effect);
    }

    /// Everything the sandbox absorbed.
    fn absorbed(&mut self) -> Vec<Absorbed> {
        std::mem::take(&mut self.absorbed)
    }
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

    /// INVARIANT: takes the grant by value; every way out ends it with an outcome.
    async fn run(
        self: &Arc<Self>,
        tool: &Tool,
        entry: Entry<'_>,
        scope: &Arc<Scope>,
        grant: Grant,
    ) -> Result<Answer, CallError> {
        let fuel = scope.fuel();
        let deadline =
            scope.bounds().deadline_ms.map_or(DEFAULT_DEADLINE, |ms| Duration::from_millis(ms.get()));
        let started = Instant::now();
        let prepared = within(deadline, scope.pause(), Folders::prepare(scope, &tool.offers.dirs)).await;
        let folders = match prepared {
            Some(Ok(folders)) => folders,
            Some(Err(Unavailable { reason, detail })) => {
                return Err(fail(grant, scope, Outcome::ok(), reason, detail));
            }
            None => {
                return Err(fail(grant, scope, Outcome::ok(), Builtin::LimitDeadline, TOO_LATE.to_owned()));
            }
        };
        let mut store = match self.store(tool, scope, fuel, &folders) {
            Ok(store) => store,
            Err(error) => {
                return Err(fail(grant, scope, Outcome::ok(), Builtin::FsUnavailable, one_line(&error)));
            }
        };
        let left = deadline.saturating_sub(started.elapsed());
        let ended = within(left, scope.pause(), self.invoke(&mut store, tool, entry)).await;
        let own = fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let used = own.saturating_add(scope.take_owed());
        scope.charge_outer(used);
        let state = store.data_mut();
        let printed = (state.wasi.cli.printed(Stream::Stdout), state.wasi.cli.printed(Stream::Stderr));
        let (mut absorbed, growth_refused) = (state.absorbed(), state.limiter.refused());
        // The store is dead after a trap or a cancelled call; its held grants end here, before the call's own outcome.
        drop(store);
        let note = folders.absorbed_into(&mut absorbed).await;
        let outcome = Outcome { fuel: used, absorbed, note, ..Outcome::ok() };
        match ended {
            Some(Ok(value)) => Ok(succeed(grant, scope, &outcome, value, printed)),
            Some(Err(error)) => {
                let (reason, detail) = classify(&error, growth_refused);
                Err(fail(grant, scope, outcome, reason, detail))
            }
            None => Err(fail(grant, scope, outcome, Builtin::LimitDeadline, TOO_LATE.to_owned())),
        }
    }

    fn store(
        self: &Arc<Self>,
        tool: &Tool,
        scope: &Arc<Scope>,
        fuel: u64,
        folders: &Folders,
    ) -> wasmtime::Result<Store<CallState>> {
        let memory = scope.bounds().memory_bytes.and_then(|b| usize::try_from(b.get()).ok());
        let memory = memory.unwrap_or(DEFAULT_MEMORY_BYTES);
        let env = tool.offers.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let cli = CliState::new(env, tool.offers.args.clone());
        let state = CallState {
            wasi: WasiState::new(Arc::clone(scope), folders.state(scope), cli)?,
            databases: Databases::new(tool.offers.databases.clone()),
            limiter: Limiter::new(memory),
            runtime: Arc::clone(self),
            scope: Arc::clone(scope),
            absorbed: Vec::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limiter);
        // Setting fuel only fails when the engine does not count it; then the guest would have none and trap at once.
        let _ = store.set_fuel(fuel);
        store.set_epoch_deadline(1);
        // Each tick lets other work run, and takes what the tools this one called have used from what it has left.
        store.epoch_deadline_callback(|mut store| {
            let owed = store.data().scope.take_owed();
            if owed > 0 {
                let left = store.get_fuel()?;
                store.set_fuel(left.saturating_sub(owed))?;
            }
            Ok(UpdateDeadline::Yield(1))
        });
        Ok(store)
    }

    async fn invoke(
        &self,
        store: &mut Store<CallState>,
        tool: &Tool,
        entry: Entry<'_>,
    ) -> wasmtime::Result<Option<Val>> {
        let instance = self.linker.instantiate_async(&mut *store, tool.component.component()).await?;
        let (function, params) = match entry {
            Entry::Function(function, params) => (function, params),
            Entry::Command => {
                let command = Command::new(&mut *store, &instance)?;
                return exit_code(command.wasi_cli_run().call_run(&mut *store).await).map(Some);
            }
        };
        let callee = instance
            .get_func(&mut *store, function)
            .ok_or_else(|| wasmtime::Error::msg("the export is gone"))?;
        let mut results = vec![Val::Bool(false); callee.ty(&*store).results().len()];
        callee.call_async(&mut *store, &params, &mut results).await?;
        Ok(results.into_iter().next())
    }
}

/// What of a component is called.
enum Entry<'a> {
    Function(&'a str, Vec<Val>),
    /// `wasi:cli/run`.
    Command,
}

/// One span for each call: what happens inside it is told apart by it.
fn span(call: &Call, grant: &Grant) -> tracing::Span {
    tracing::info_span!(target: "govrun::call", "call", agent = %call.agent.name, tool = %call.tool.name, decision = %grant.id())
}

/// A command ends by returning, or by `exit`, which unwinds it.
fn exit_code(ended: wasmtime::Result<Result<(), ()>>) -> wasmtime::Result<Val> {
    match ended {
        Ok(returned) => Ok(Val::S32(i32::from(returned.is_err()))),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(Val::S32(exit.0)),
            None => Err(error),
        },
    }
}

fn exports(tool: &Tool) -> String {
    let names: Vec<&str> = tool.component.inspected().functions.iter().map(|f| f.name.as_str()).collect();
    if names.is_empty() { "no functions".into() } else { names.join(", ") }
}

fn succeed(
    grant: Grant,
    scope: &Scope,
    outcome: &Outcome,
    value: Option<Val>,
    (stdout, stderr): (String, String),
) -> Answer {
    let answer = Answer {
        value,
        sandboxed: grant.sandboxed(),
        decision: grant.id(),
        stdout,
        stderr,
        fuel: outcome.fuel,
        last_refusal: scope.last_refusal(),
    };
    grant.finish(outcome);
    answer
}

fn fail(grant: Grant, scope: &Scope, outcome: Outcome, reason: Builtin, detail: String) -> CallError {
    let decision = grant.id();
    grant.finish(&Outcome { failed: Some(reason.info().code.to_owned()), ..outcome });
    CallError::Failed {
        reason: reason.code(),
        detail,
        decision,
        last_refusal: scope.last_refusal().map(Box::new),
    }
}

fn classify(error: &wasmtime::Error, growth_refused: bool) -> (Builtin, String) {
    let detail = one_line(error);
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => (Builtin::LimitFuel, detail),
        _ if growth_refused => (Builtin::LimitMemory, detail),
        _ => (Builtin::GuestTrap, detail),
    }
}

fn one_line(error: &wasmtime::Error) -> String {
    error.root_cause().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
