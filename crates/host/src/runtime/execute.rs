//! One permitted call in one fresh instance, from its grant to its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use govrun_verdict::{Builtin, Call, Stream};
use wasmtime::component::{ResourceTableError, Val};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::Command;

use super::{Answer, CallError, CallState, DEFAULT_DEADLINE, Runtime, Tool};
use crate::databases::Databases;
use crate::folders::{Folders, Unavailable, absorbed_into};
use crate::grant::{Grant, Outcome};
use crate::kv::Stores;
use crate::limiter::{DEFAULT_MEMORY_BYTES, Limit, Limiter};
use crate::model::Models;
use crate::net::NetCall;
use crate::pause::within;
use crate::scope::{MAX_HOST_CALLS, Scope};
use crate::wasi::{CliState, WasiState};

/// Largest result of a call, in bytes of text, numbers and names.
pub const MAX_RESULT_BYTES: usize = 4 << 20;
/// Most bytes that one host call, or the result, may make the host allocate while they are read out of the guest.
const HOST_DATA_BYTES: usize = 32 << 20;
/// Most component-model handles of one call.
const MAX_HANDLES: usize = 10_000;

const TOO_LATE: &str = "the deadline passed";

impl Runtime {
    /// INVARIANT: takes the grant by value; every way out ends it with an outcome.
    pub(super) async fn run(
        self: &Arc<Self>,
        tool: &Tool,
        entry: Entry,
        scope: &Arc<Scope>,
        grant: Grant,
    ) -> Result<Answer, CallError> {
        let fuel = scope.fuel();
        let deadline = deadline(scope);
        let started = Instant::now();
        let folders = match Folders::prepare(scope, &tool.offers.dirs) {
            Ok(folders) => folders,
            Err(Unavailable { reason, detail }) => {
                return Err(fail(grant, scope, Outcome::ok(), reason, detail));
            }
        };
        let mut store = match self.store(tool, scope, fuel, folders) {
            Ok(store) => store,
            Err(error) => {
                return Err(fail(grant, scope, Outcome::ok(), Builtin::FsUnavailable, one_line(&error)));
            }
        };
        let left = deadline.saturating_sub(started.elapsed());
        let ended = tokio::select! {
            biased;
            reason = scope.ended() => Err((reason, reason.info().sentence.to_owned())),
            done = within(left, scope.pause(), self.invoke(&mut store, tool, entry)) => match done {
                Some(result) => Ok(result),
                None => Err((Builtin::LimitDeadline, TOO_LATE.to_owned())),
            },
        };
        let own = fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let used = own.saturating_add(scope.take_owed());
        scope.charge_outer(used);
        let state = store.data_mut();
        let printed = (state.wasi.cli.printed(Stream::Stdout), state.wasi.cli.printed(Stream::Stderr));
        let (mut absorbed, growth_refused) = (state.absorbed(), state.limiter.refused());
        let landed = state.wasi.landed();
        let layered = landed.as_ref().map_or(true, Option::is_some);
        // The store is dead after a trap or a cancelled call; its held grants end here, before the call's own outcome.
        drop(store);
        let note = absorbed_into(landed, &mut absorbed).await;
        let outcome = Outcome { fuel: used, absorbed, note, ..Outcome::ok() };
        match ended {
            Ok(Ok(value)) => match value.as_ref().map_or(0, result_bytes) {
                0..=MAX_RESULT_BYTES => Ok(Answer {
                    sandboxed: layered || scope.sandboxed(),
                    ..succeed(grant, scope, &outcome, value, printed)
                }),
                bytes => {
                    let detail =
                        format!("the result has {bytes} bytes; at most {MAX_RESULT_BYTES} are taken");
                    Err(fail(grant, scope, outcome, Builtin::LimitOutput, detail))
                }
            },
            Ok(Err(error)) => {
                let (reason, detail) = classify(&error, growth_refused);
                Err(fail(grant, scope, outcome, reason, detail))
            }
            Err((reason, detail)) => Err(fail(grant, scope, outcome, reason, detail)),
        }
    }

    fn store(
        self: &Arc<Self>,
        tool: &Tool,
        scope: &Arc<Scope>,
        fuel: u64,
        folders: Folders,
    ) -> wasmtime::Result<Store<CallState>> {
        let memory = scope.bounds().memory_bytes.and_then(|b| usize::try_from(b.get()).ok());
        let memory = memory.unwrap_or(DEFAULT_MEMORY_BYTES);
        let env = tool.offers.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let cli = CliState::new(env, tool.offers.args.clone());
        let net = NetCall::new(scope, &tool.offers.egress, &tool.offers.secrets);
        let state = CallState {
            wasi: WasiState::new(Arc::clone(scope), folders.state(), cli, net)?,
            databases: Databases::new(tool.offers.databases.clone()),
            stores: Stores::new(self.gate().store_folder("kv"), tool.offers.stores.clone()),
            models: Models::new(tool.offers.models.clone()),
            limiter: Limiter::new(memory),
            runtime: Arc::clone(self),
            scope: Arc::clone(scope),
            absorbed: Vec::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limiter);
        // Setting fuel only fails when the engine does not count it; then the guest would have none and trap at once.
        let _ = store.set_fuel(fuel);
        store.set_hostcall_fuel(HOST_DATA_BYTES);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(1);
        // Each tick lets other work run, and takes what the tools this one called have used from what it has left.
        store.epoch_deadline_callback(|mut store| {
            if store.data().scope.exhausted() {
                let detail = format!("more than {MAX_HOST_CALLS} host calls");
                return Err(Limit { reason: Builtin::LimitHostCalls, detail }.into());
            }
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
        entry: Entry,
    ) -> wasmtime::Result<Option<Val>> {
        let instance = tool.component.linked(&self.linker)?.instantiate_async(&mut *store).await?;
        let (function, params) = match entry {
            Entry::Function(function, params) => (function, params),
            Entry::Command => {
                let command = Command::new(&mut *store, &instance)?;
                return exit_code(command.wasi_cli_run().call_run(&mut *store).await).map(Some);
            }
        };
        let callee = instance
            .get_func(&mut *store, function.as_str())
            .ok_or_else(|| wasmtime::Error::msg("the export is gone"))?;
        let mut results = vec![Val::Bool(false); callee.ty(&*store).results().len()];
        callee.call_async(&mut *store, &params, &mut results).await?;
        Ok(results.into_iter().next())
    }
}

/// What of a component is called.
pub(super) enum Entry {
    Function(String, Vec<Val>),
    /// `wasi:cli/run`.
    Command,
}

/// One span for each call: what happens inside it is told apart by it.
pub(super) fn span(call: &Call, grant: &Grant) -> tracing::Span {
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

fn classify(error: &wasmtime::Error, growth_refused: Option<Builtin>) -> (Builtin, String) {
    (limit(error).or(growth_refused).unwrap_or(Builtin::GuestTrap), one_line(error))
}

/// The limit that the error comes from, when it is certain.
fn limit(error: &wasmtime::Error) -> Option<Builtin> {
    if let Some(limit) = error.downcast_ref::<Limit>() {
        return Some(limit.reason);
    }
    if let Some(Trap::OutOfFuel) = error.downcast_ref::<Trap>() {
        return Some(Builtin::LimitFuel);
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Some(Builtin::LimitConcurrency);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Some(Builtin::LimitHandles);
    }
    // Two errors of the engine have no public type; `tests/limits.rs` fails when their words change.
    let text = error.root_cause().to_string();
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return Some(Builtin::LimitOutput);
    }
    text.contains("store handle limit exceeded").then_some(Builtin::LimitHandles)
}

/// What a result takes to show: its text and names, and a little for each value.
fn result_bytes(value: &Val) -> usize {
    let boxed = |v: &Option<Box<Val>>| v.as_deref().map_or(0, result_bytes);
    let inner = match value {
        Val::String(text) | Val::Enum(text) => text.len(),
        Val::List(items) | Val::Tuple(items) => items.iter().map(result_bytes).fold(0, usize::saturating_add),
        Val::Record(fields) => fields
            .iter()
            .map(|(name, v)| name.len().saturating_add(result_bytes(v)))
            .fold(0, usize::saturating_add),
        Val::Flags(names) => names.iter().map(String::len).fold(0, usize::saturating_add),
        Val::Variant(case, v) => case.len().saturating_add(boxed(v)),
        Val::Option(v) | Val::Result(Ok(v) | Err(v)) => boxed(v),
        _ => 7,
    };
    inner.saturating_add(1)
}

/// The wall time the call has.
pub(super) fn deadline(scope: &Scope) -> Duration {
    scope.bounds().deadline_ms.map_or(DEFAULT_DEADLINE, |ms| Duration::from_millis(ms.get()))
}

/// A call whose thread gave no answer. Its grant ends, and is recorded, where it is.
pub(super) fn lost(scope: &Scope, reason: Builtin, detail: &str) -> CallError {
    CallError::Failed {
        reason: reason.code(),
        detail: detail.to_owned(),
        decision: scope.decision(),
        last_refusal: scope.last_refusal().map(Box::new),
    }
}

fn one_line(error: &wasmtime::Error) -> String {
    error.root_cause().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
