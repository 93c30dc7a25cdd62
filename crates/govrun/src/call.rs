//! `govrun call`: one exported function under policy.

use std::path::Path;

use govrun_host::arguments::{self, Given};
use govrun_host::{Answer, CallError};
use govrun_verdict::{Builtin, Refusal, Verdict};
use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::state::{self, Session, StateDir, Tools};
use crate::tools::Loader;

/// What to call, as whom.
pub(crate) struct Request<'a> {
    pub(crate) policy: &'a Path,
    pub(crate) agent: &'a str,
    pub(crate) component: &'a Path,
    pub(crate) call: &'a str,
    pub(crate) format: Format,
}

#[derive(Serialize)]
struct Done<'a> {
    schema: &'static str,
    verdict: &'static str,
    decision: String,
    fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<serde_json::Value>,
    stdout: &'a str,
    stderr: &'a str,
}

#[derive(Serialize)]
struct Refused<'a> {
    schema: &'static str,
    #[serde(flatten)]
    refusal: &'a Refusal,
}

/// Call it and print the answer; the exit code says the verdict.
pub(crate) fn run(state: &StateDir, request: &Request<'_>) -> Result<Exit, Failure> {
    let policy = state::load_policy(state, request.policy)?;
    let function = arguments::function_name(request.call).map_err(|e| Failure::new(Exit::Usage, e))?;
    let engine = govrun_host::engine().map_err(|e| Failure::new(Exit::Runtime, e))?;
    let loader = Loader { engine: &engine, cache: state.cache(), policy: &policy, folder: request.policy };
    let tool = loader.load(request.component)?;
    let list = loader.callable(&tool)?;
    let session = Session::open(state, policy, Tools { engine, list })?;
    let who = session.who(request.agent);
    let answer = session.drive(session.runtime.call(&who, &tool, &function, Given::Wave(request.call)));
    session.close();
    match answer? {
        Ok(answer) => print(&answer, request.format),
        Err(error) => refuse(&error, request.format),
    }
}

fn print(answer: &Answer, format: Format) -> Result<Exit, Failure> {
    match format {
        Format::Human => {
            eprint!("{}{}", answer.stdout, answer.stderr);
            if answer.sandboxed {
                eprintln!("govrun: sandboxed, nothing real changed [{}]", answer.decision);
            }
            if let Some(value) = &answer.value {
                let text = value.to_wave().map_err(|e| Failure::new(Exit::Runtime, e))?;
                println!("{text}");
            }
        }
        Format::Json => json(&Done {
            schema: "govrun.call/v1",
            verdict: if answer.sandboxed { "sandbox" } else { "allow" },
            decision: answer.decision.to_string(),
            fuel: answer.fuel,
            result: answer.value.as_ref().map(govrun_host::json::to_json),
            stdout: &answer.stdout,
            stderr: &answer.stderr,
        })?,
    }
    Ok(match &answer.value {
        Some(govrun_host::wasmtime::component::Val::Result(Err(_))) => Exit::Runtime,
        _ => Exit::Ok,
    })
}

/// Say why not; the exit code says the verdict.
pub(crate) fn refuse(error: &CallError, format: Format) -> Result<Exit, Failure> {
    let CallError::Refused(refusal) = error else {
        let exit = match error {
            CallError::NoFunction { .. } | CallError::Arguments(_) => Exit::Usage,
            CallError::Failed { .. } | CallError::Refused(_) => Exit::Runtime,
        };
        return Err(Failure::new(exit, error));
    };
    if format == Format::Json {
        json(&Refused { schema: "govrun.refusal/v1", refusal })?;
    }
    let unavailable = [Builtin::AuditUnavailable, Builtin::StoreUnavailable, Builtin::ClockUnavailable];
    let exit = match refusal.verdict {
        // Nothing was decided: something on the path is not there.
        Verdict::Block if unavailable.iter().any(|b| b.code() == refusal.reason) => Exit::Dependency,
        Verdict::Throttle => Exit::Throttled,
        Verdict::Escalate => Exit::Escalated,
        Verdict::Block | Verdict::Allow | Verdict::Sandbox => Exit::Block,
    };
    Err(Failure::new(exit, refusal))
}

fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::Runtime, e))?;
    println!("{text}");
    Ok(())
}
