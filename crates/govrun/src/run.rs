//! `govrun run`: a plain WASI command under policy.

use std::path::PathBuf;
use std::process::ExitCode;

use govrun_host::wasmtime::component::Val;
use govrun_host::{Answer, Tool};
use govrun_verdict::FsMode;

use crate::call;
use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::state::{self, Session, StateDir, Tools};
use crate::tools::Loader;

/// What to run, as whom, and what it is offered.
pub(crate) struct Request {
    pub(crate) policy: PathBuf,
    pub(crate) agent: Option<String>,
    pub(crate) component: PathBuf,
    pub(crate) dirs: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) args: Vec<String>,
}

/// Run it and pass its exit code through. When govrun refuses it, the last line on standard error says so.
pub(crate) fn run(state: &StateDir, request: &Request) -> Result<ExitCode, Failure> {
    let policy = state::load_policy(state, &request.policy)?;
    let engine = govrun_host::engine().map_err(|e| Failure::new(Exit::Runtime, e))?;
    let loader = Loader { engine: &engine, cache: state.cache(), policy: &policy, folder: &request.policy };
    let mut tool = loader.load(&request.component)?;
    offer(&mut tool, request)?;
    let list = loader.callable(&tool)?;
    let agent = match &request.agent {
        Some(agent) => agent.clone(),
        None => only_agent(&policy)?,
    };
    let session = Session::open(state, policy, Tools { engine, list })?;
    let who = session.who(&agent);
    let answer = session.drive(session.runtime.command(&who, &tool));
    session.close();
    match answer? {
        Ok(answer) => Ok(finished(&answer)),
        Err(error) => call::refuse(&error, Format::Human).map(ExitCode::from),
    }
}

fn finished(answer: &Answer) -> ExitCode {
    print!("{}", answer.stdout);
    eprint!("{}", answer.stderr);
    if answer.sandboxed {
        eprintln!("govrun: sandboxed, nothing real changed [{}]", answer.decision);
    }
    match answer.value {
        Some(Val::S32(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        _ => ExitCode::SUCCESS,
    }
}

fn only_agent(policy: &govrun_policy::Policy) -> Result<String, Failure> {
    let names: Vec<&str> = policy.agents().map(|agent| &*agent.name).collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(Failure::new(
            Exit::Usage,
            format!(
                "the policy registers {} agents; say which with --agent: {}",
                names.len(),
                names.join(", ")
            ),
        )),
    }
}

/// What the command line offers, on top of the tool's registration. Policy decides each use of it.
fn offer(tool: &mut Tool, request: &Request) -> Result<(), Failure> {
    let usage = |sentence: String| Failure::new(Exit::Usage, sentence);
    for dir in &request.dirs {
        let mut parts = dir.split("::");
        let (Some(host), Some(guest), mode, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(usage(format!(
                "`{dir}` is not HOST::GUEST or HOST::GUEST::ro, such as ./data::/data"
            )));
        };
        let mode = match mode {
            None | Some("rw") => FsMode::ReadWrite,
            Some("ro") => FsMode::ReadOnly,
            Some(other) => return Err(usage(format!("`{other}` is no mode; use ro or rw"))),
        };
        if !guest.starts_with('/') {
            return Err(usage(format!("guest path `{guest}` must be absolute, such as /{guest}")));
        }
        let host = std::fs::canonicalize(host).map_err(|e| usage(format!("cannot open `{host}`: {e}")))?;
        tool.offers.dirs.push((host, guest.to_owned(), mode));
    }
    for pair in &request.env {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| usage(format!("`{pair}` is not NAME=VALUE")))?;
        tool.offers.env.insert(name.to_owned(), value.to_owned());
    }
    // What a program expects to find first is its own name.
    let name = request.component.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    tool.offers.args = std::iter::once(name).chain(request.args.iter().cloned()).collect();
    Ok(())
}
