//! `govrun serve`: the registered tools as an MCP server.

mod config;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use govrun_gateway::http::{self, Tokens};
use govrun_gateway::mcp::{self, HOLD, Server};
use govrun_host::Who;

use crate::exit::{Exit, Failure};
use crate::state::{self, Session, StateDir, Tools};
use crate::tools::Loader;
use crate::wait::{executor, interrupted};
use config::{Config, Http};

/// How clients are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// One client on standard input and output.
    Stdio,
    /// Clients that show a bearer token, over HTTP.
    Http,
}

/// Serve until the client closes the pipe, or the process is asked to end; then the log is closed.
pub(crate) fn run(state: Option<PathBuf>, transport: Transport, file: &Path) -> Result<Exit, Failure> {
    let config = Config::load(file)?;
    let state = StateDir::find(state.or_else(|| config.state.clone()))?;
    let policy = state::load_policy(&state, &config.policy)?;
    let engine = govrun_host::engine().map_err(|e| Failure::new(Exit::Runtime, e))?;
    let loader = Loader { engine: &engine, cache: state.cache(), policy: &policy, folder: &config.policy };
    let list = loader.registered()?;
    if list.is_empty() {
        let sentence = "the policy registers no tool with a component; add [[tool]] entries to it";
        return Err(Failure::new(Exit::Configuration, sentence));
    }
    let session = Session::open(&state, policy, Tools { engine, list })?;
    let ended = match transport {
        Transport::Stdio => stdio(&session, &config),
        Transport::Http => over_http(&session, &config),
    };
    session.close();
    ended.map(|()| Exit::Ok)
}

fn principal(session: &Session, config: &Config, agent: &str) -> Result<Who, Failure> {
    let registered = session.policy.agent(agent).ok_or_else(|| {
        let known: Vec<&str> = session.policy.agents().map(|a| &*a.name).collect();
        let sentence = format!(
            "agent `{agent}` of the configuration is not in the registry; registered: {}",
            known.join(", ")
        );
        Failure::new(Exit::Configuration, sentence)
    })?;
    let hold = config.hold_s.map_or(HOLD, |s| Duration::from_secs(s.into()));
    Ok(Who { session: Arc::clone(&registered.name), agent: registered, hold: Some(hold) })
}

fn stdio(session: &Session, config: &Config) -> Result<(), Failure> {
    let Some(stdio) = &config.stdio else {
        let sentence = "the configuration does not say who is on the pipe; add `[stdio]` with `agent = NAME`";
        return Err(Failure::new(Exit::Configuration, sentence));
    };
    let server =
        Server::for_principal(Arc::clone(&session.runtime), principal(session, config, &stdio.agent)?);
    let runtime = executor()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = mcp::serve_stdio(server) => ended,
            signal = interrupted() => signal.map_err(|e| e.to_string()),
        }
    });
    // A read of standard input that is under way cannot be cancelled; the process ends without it.
    runtime.shutdown_background();
    ended.map_err(|e| Failure::new(Exit::Runtime, e))
}

fn over_http(session: &Session, config: &Config) -> Result<(), Failure> {
    let Some(http) = &config.http else {
        let sentence =
            "the configuration has no `[http]`; add one with `listen` and `[[http.agent]]` entries";
        return Err(Failure::new(Exit::Configuration, sentence));
    };
    let tokens = tokens(session, config, http)?;
    executor()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(http.listen)
            .await
            .map_err(|e| Failure::new(Exit::Dependency, format!("cannot listen on {}: {e}", http.listen)))?;
        let address: SocketAddr = listener.local_addr().map_err(|e| Failure::new(Exit::Dependency, e))?;
        eprintln!("govrun: MCP at http://{address}/mcp for {} agents", http.agents.len());
        let router = http::router(&session.runtime, tokens, address);
        let stop = async {
            if let Err(error) = interrupted().await {
                eprintln!("govrun: signals cannot be received: {error}");
            }
        };
        http::serve(listener, router, stop).await.map_err(|e| Failure::new(Exit::Runtime, e))
    })
}

fn tokens(session: &Session, config: &Config, http: &Http) -> Result<Tokens, Failure> {
    let configuration = |e: &dyn std::fmt::Display| Failure::new(Exit::Configuration, e);
    let mut pairs = Vec::new();
    for agent in &http.agents {
        pairs.push((
            agent.token.read().map_err(|e| configuration(&e))?,
            principal(session, config, &agent.name)?,
        ));
    }
    Tokens::new(pairs).map_err(|e| configuration(&e))
}
