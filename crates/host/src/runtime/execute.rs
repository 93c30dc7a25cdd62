//! One permitted call in one fresh instance, from its grant to its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use govrun_verdict::{Builtin, Call, Stream};
use wasmtime::component::Val;
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::Command;

use super::{Answer, CallError, CallState, DEFAULT_DEADLINE, Runtime, Tool};
use crate::databases::Databases;
use crate::folders::{Folders, Unavailable, absorbed_into};
use crate::grant::{Grant, Outcome};
use crate::kv::Stores;
use crate::limiter::{DEFAULT_MEMORY_BYTES, Limiter};
use crate::net::NetCall;
use crate::pause::within;
use crate::scope::Scope;
use crate::wasi::{CliState, WasiState};

const TOO_LATE: &str = "the deadline passed";

impl Runtime {
    /// INVARIANT: takes the grant by value; every way out ends it with an outcome.
    pub(super) async fn run(
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
        let ended = within(left, scope.pause(), self.invoke(&mut store, tool, entry)).await;
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
            Some(Ok(value)) => Ok(Answer {
                sandboxed: layered || scope.sandboxed(),
                ..succeed(grant, scope, &outcome, value, printed)
            }),
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
        let instance = tool.component.linked(&self.linker)?.instantiate_async(&mut *store).await?;
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
pub(super) enum Entry<'a> {
    Function(&'a str, Vec<Val>),
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
