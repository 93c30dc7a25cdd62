//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use govrun_control::Choice;
use tracing_subscriber::EnvFilter;

use crate::audit::{AuditCommand, places};
use crate::exit::{Exit, Failure};
use crate::policy::PolicyCommand;
use crate::state::StateDir;
use crate::{
    agent, approvals, call, demo, doctor, drill, explain, inspect, keys, policy, replay, run, serve, witness,
};

const EXAMPLES: &str = "\
Examples:
  govrun inspect tool.wasm                 what a component imports and exports, and how each import is governed
  govrun policy check policies             every error of a policy folder, with file, line and column
  govrun call --policy policies --agent finance-1 payments.wasm 'send(\"ACME\", 48000)'

Exit codes: 0 ok, 1 runtime error, 2 usage, 3 blocked, 4 throttled, 5 escalated, 6 check failed, 8 configuration,
  9 log or store unavailable, 130 interrupted";

/// What is told without being asked for: that somebody could not be told.
const QUIET: &str = "off,govrun::page=error";

/// Run WebAssembly tools of AI agents under policy.
#[derive(Debug, Parser)]
#[command(name = "govrun", version, about, before_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The state directory: keys, log, budgets. Default: `$XDG_STATE_HOME/govrun` or `~/.local/state/govrun`.
    #[arg(long, global = true, env = "GOVRUN_STATE")]
    state: Option<PathBuf>,
    /// Trace to standard error: a level such as `info`, or a filter such as `govrun::decision=info`.
    #[arg(long, global = true, env = "GOVRUN_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Call one exported function of a component under policy.
    ///
    /// The exit code says the verdict: 0 allowed or sandboxed, 3 blocked, 4 throttled, 5 escalated.
    Call {
        /// The policy folder.
        #[arg(long)]
        policy: PathBuf,
        /// The registered agent that calls.
        #[arg(long)]
        agent: String,
        /// The component.
        component: PathBuf,
        /// The call, such as `send("ACME", 48000)`.
        call: String,
        /// How to print the answer.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Show the five verdicts on real components, in under ten seconds and without a network.
    Demo {
        /// Keep policies, log and trust file in this new folder, for a look.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Run a WASI command under policy; its exit code is passed through.
    Run {
        /// The policy folder.
        #[arg(long)]
        policy: PathBuf,
        /// The registered agent that runs it. Default: the only one.
        #[arg(long)]
        agent: Option<String>,
        /// Offer a directory: `HOST::GUEST`, or `HOST::GUEST::ro`. Policy decides each use.
        #[arg(long = "dir")]
        dirs: Vec<String>,
        /// Offer an environment variable: `NAME=VALUE`. Policy decides whether it is seen.
        #[arg(long = "env")]
        env: Vec<String>,
        /// The component.
        component: PathBuf,
        /// Its arguments, after `--`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Let an agent component work on a task with the registered tools, each call under policy.
    Agent {
        /// The policy folder.
        #[arg(long)]
        policy: PathBuf,
        /// The registered agent that it is.
        #[arg(long)]
        agent: String,
        /// The component: world `agent` of `govrun:host`.
        component: PathBuf,
        /// The task, in words.
        task: String,
        /// How to print the report.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Offer the registered tools to agents as an MCP server, each call under policy.
    Serve {
        /// How clients are connected.
        #[arg(long, value_enum)]
        mcp: serve::Transport,
        /// The configuration: policy folder, who is on the pipe, who may connect. See `docs/formats/serve.md`.
        #[arg(long)]
        config: PathBuf,
    },
    /// Decide about calls that wait for a person.
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// Verify and show the signed log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Be a witness: cosign the checkpoints of logs that only ever grow, so that nobody can cut or rewrite them unseen.
    Witness(witness::Witness),
    /// Say why one decision came out as it did, from its record and the policy that was in force.
    Explain {
        /// Its id, such as `9f3c21aa04be7710-42`: refusals and `audit show` name it.
        decision: String,
        /// The folder of logs. Default: that of the state directory.
        #[arg(long)]
        audit: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Check that everything a governed call needs is there and works. Changes nothing.
    Doctor {
        /// A policy folder to check with the components of its tools.
        #[arg(long)]
        policy: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Check, test, compare, learn, promote and sign policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Do the known-bad actions in the folder `drills` beside the manifest, through the live path, and see them stopped.
    ///
    /// Nothing real changes: every call is bounded by a sandbox without egress. Exits with 6 when one is not stopped as it
    /// must be.
    Drill {
        /// The policy folder.
        #[arg(long)]
        policy: PathBuf,
        /// Only this drill.
        #[arg(long)]
        id: Option<String>,
        /// How to print the result.
        #[arg(long, value_enum, default_value_t = drill::Lines::Human)]
        format: drill::Lines,
    },
    /// Show what another policy would have made of the calls in the log. Exits with 6 when it decides one otherwise.
    Replay {
        /// The folder of logs. Default: that of the state directory.
        folder: Option<PathBuf>,
        /// The policy folder to decide with.
        #[arg(long)]
        policy: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Make, show, replace and revoke keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show what a component imports and exports, and whether it may load.
    Inspect {
        /// The component.
        component: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
enum ApprovalsCommand {
    /// List the calls that wait.
    List {
        /// Also those that were decided, used or expired.
        #[arg(long)]
        all: bool,
        /// How to print them.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Show one approval whole.
    Show {
        /// Its id, such as `apr-7k3m9q2x4v8n5`.
        id: String,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Let the call happen, once.
    Approve(Ballot),
    /// Refuse the call.
    Deny(Ballot),
}

#[derive(Debug, Args)]
struct Ballot {
    /// The approval's id.
    id: String,
    /// Who decides: an approver of the trust file.
    #[arg(long = "as")]
    approver: String,
    /// The approver's key. Default: `NAME.approver.key` beside the trust file.
    #[arg(long)]
    key: Option<PathBuf>,
    /// A remark for the record.
    #[arg(long, default_value = "")]
    comment: String,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// For machines; the shape is named by its `schema` field.
    Json,
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        trace(self.log.as_deref().unwrap_or(QUIET))?;
        let exit = match self.command {
            Command::Inspect { component, format } => inspect::run(&component, format),
            Command::Call { policy, agent, component, call, format } => {
                let state = StateDir::find(self.state)?;
                call::run(
                    &state,
                    &call::Request {
                        policy: &policy,
                        agent: &agent,
                        component: &component,
                        call: &call,
                        format,
                    },
                )
            }
            Command::Run { policy, agent, dirs, env, component, args } => {
                let request = run::Request { policy, agent, component, dirs, env, args };
                return run::run(&StateDir::find(self.state)?, &request);
            }
            Command::Demo { dir } => demo::run(dir),
            Command::Agent { policy, agent, component, task, format } => {
                agent::run(&StateDir::find(self.state)?, &policy, &agent, &component, &task, format)
            }
            Command::Serve { mcp, config } => serve::run(self.state, mcp, &config),
            Command::Approvals(command) => decide(&StateDir::find(self.state)?, &command),
            Command::Keys(command) => keys::run(&StateDir::find(self.state)?, command),
            Command::Audit(command) => return command.run(self.state),
            Command::Witness(asked) => return witness::run(asked),
            Command::Explain { decision, audit, format } => {
                explain::run(&places(self.state, audit, None)?.folder, &decision, format)
            }
            Command::Doctor { policy, format } => {
                doctor::run(&StateDir::find(self.state)?, policy.as_deref(), format)
            }
            Command::Policy(command) => policy::run(self.state, &command),
            Command::Drill { policy, id, format } => {
                drill::run(&StateDir::find(self.state)?, &policy, id.as_deref(), format)
            }
            Command::Replay { folder, policy, format } => {
                replay::run(&places(self.state, folder, None)?.folder, &policy, format)
            }
        };
        exit.map(ExitCode::from)
    }
}

/// Spans and events on standard error, so that standard output stays data.
fn trace(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        Failure::new(Exit::Usage, format!("`{filter}` is no trace filter: {e}; try `info` or `govrun=debug`"))
    })?;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    subscriber.try_init().map_err(|e| Failure::new(Exit::Runtime, e))
}

fn decide(state: &StateDir, command: &ApprovalsCommand) -> Result<Exit, Failure> {
    let (choice, ballot) = match command {
        ApprovalsCommand::List { all, format } => return approvals::list(state, *all, *format),
        ApprovalsCommand::Show { id, format } => return approvals::show(state, id, *format),
        ApprovalsCommand::Approve(ballot) => (Choice::Approve, ballot),
        ApprovalsCommand::Deny(ballot) => (Choice::Deny, ballot),
    };
    approvals::answer(
        state,
        &approvals::Answer {
            id: &ballot.id,
            choice,
            approver: &ballot.approver,
            key: ballot.key.as_deref(),
            comment: &ballot.comment,
        },
    )
}
