//! `govrun policy …`: everything about a policy that needs no call to be made.

mod check;
mod diff;
mod junit;
mod learn;
mod promote;
mod sarif;
mod sign;
mod signatures;
mod test;

pub(crate) use junit::{Case as JunitCase, Suite as JunitSuite};
pub(crate) use sign::signed_policy;

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use govrun_policy::{LoadErrors, Policy, SourceFile, Sources};

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::state::StateDir;

/// Folder of the cases, beside the manifest.
pub(crate) const TESTS: &str = "tests";
/// Folder of the drills, beside the manifest.
pub(crate) const DRILLS: &str = "drills";

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Load a policy folder, report every error with its place, and what is probably not meant.
    ///
    /// Exits with 8 when the policy does not load, with 6 when it has findings and they are denied.
    Check {
        /// The policy folder, with its `govrun.toml`.
        folder: PathBuf,
        /// What findings come to.
        #[arg(long, value_enum)]
        deny: Option<Deny>,
        /// How to print them.
        #[arg(long, value_enum, default_value_t = check::Lines::Human)]
        format: check::Lines,
    },
    /// Run the cases in the folder `tests` beside the manifest. Exits with 6 when one fails.
    Test {
        /// The policy folder.
        folder: PathBuf,
        /// Also make every small mistake in the policy, one at a time, and see whether a case notices.
        #[arg(long)]
        mutate: bool,
        /// Fail when fewer than this percentage of the mistakes are noticed.
        #[arg(long, requires = "mutate", value_parser = clap::value_parser!(u8).range(0..=100))]
        min_kill: Option<u8>,
        /// Fail when less than this percentage of the ways through the rules is gone.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
        min_coverage: Option<u8>,
        /// How to print the result.
        #[arg(long, value_enum, default_value_t = test::Lines::Human)]
        format: test::Lines,
    },
    /// Show what a new policy decides otherwise, with a call for each difference. Exits with 6 when there is one.
    Diff {
        /// The policy that is in force.
        old: PathBuf,
        /// The one that is to replace it.
        new: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Write shadow rules that permit what the log shows was permitted, and nothing else.
    Learn {
        /// The folder of logs. Default: that of the state directory.
        folder: Option<PathBuf>,
        /// Learn of this agent only.
        #[arg(long)]
        agent: Option<String>,
    },
    /// Let a rule be enforced, on the evidence of the log; refuses without it.
    Promote {
        /// The policy folder.
        folder: PathBuf,
        /// The rule.
        rule: String,
        /// The folder of logs. Default: that of the state directory.
        #[arg(long)]
        audit: Option<PathBuf>,
        /// Without evidence: who takes the responsibility, and why.
        #[arg(long, value_name = "WHO-AND-WHY")]
        break_glass: Option<String>,
    },
    /// Write `policy.lock`: the digest of every file of the policy.
    Lock {
        /// The policy folder.
        folder: PathBuf,
    },
    /// Sign the policy as it is now with an approver's key, into `policy.sig`.
    Sign {
        /// The policy folder.
        folder: PathBuf,
        /// Who signs: an approver of the trust file.
        #[arg(long = "as")]
        approver: String,
        /// The approver's key. Default: `NAME.approver.key` beside the trust file.
        #[arg(long)]
        key: Option<PathBuf>,
    },
    /// Check that enough approvers signed the policy as it is now.
    Verify {
        /// The policy folder.
        folder: PathBuf,
        /// How many different approvers must have signed.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=32))]
        need: u64,
        /// The trust file. Default: that of the state directory.
        #[arg(long)]
        trust: Option<PathBuf>,
    },
}

/// What findings come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deny {
    /// Any finding fails the check.
    Warnings,
}

/// Do what is asked.
pub(crate) fn run(state: Option<PathBuf>, command: &PolicyCommand) -> Result<Exit, Failure> {
    let logs = |folder: &Option<PathBuf>| match folder {
        Some(folder) => Ok(folder.clone()),
        None => StateDir::find(state.clone()).map(|state| state.audit()),
    };
    match command {
        PolicyCommand::Check { folder, deny, format } => check::run(folder, *deny, *format),
        PolicyCommand::Test { folder, mutate, min_kill, min_coverage, format } => {
            test::run(folder, *mutate, *min_kill, *min_coverage, *format)
        }
        PolicyCommand::Diff { old, new, format } => diff::run(old, new, *format),
        PolicyCommand::Learn { folder, agent } => learn::run(&logs(folder)?, agent.as_deref()),
        PolicyCommand::Promote { folder, rule, audit, break_glass } => {
            promote::run(folder, rule, &logs(audit)?, break_glass.as_deref())
        }
        PolicyCommand::Lock { folder } => sign::lock(folder),
        PolicyCommand::Sign { folder, approver, key } => {
            sign::sign(&StateDir::find(state)?, folder, approver, key.as_deref())
        }
        PolicyCommand::Verify { folder, need, trust } => {
            let trust = match trust {
                Some(trust) => trust.clone(),
                None => StateDir::find(state)?.trust(),
            };
            sign::verify(folder, &trust, *need)
        }
    }
}

/// The policy in a folder; its errors as the failure of a configuration.
fn load(folder: &Path) -> Result<Policy, Failure> {
    let shown = folder.display();
    let told = |e: LoadErrors| {
        Failure::new(Exit::Configuration, format!("the policy in `{shown}` does not load\n{e}"))
    };
    Policy::load(folder).map_err(told)
}

/// The TOML files in a folder beside the manifest.
pub(crate) fn beside(policy: &Path, folder: &str) -> Result<Vec<SourceFile>, Failure> {
    Sources::read_beside(policy, folder).map_err(|e| Failure::new(Exit::Configuration, e))
}
