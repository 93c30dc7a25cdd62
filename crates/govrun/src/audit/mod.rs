//! `govrun audit`: verify, show, prove and export the signed log.

mod disclose;
mod export;
mod prove;
pub(crate) mod show;
mod submit;
mod tail;
pub(crate) mod verified;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use govrun_audit::verify::Level;

use crate::cli::Format;
use crate::exit::Failure;
use crate::state::StateDir;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify every log of a folder, offline. Exits with 0 verified, 1 tampered, 2 unusable, 3 inconclusive, 4 untrusted
    /// key, 5 rollback or fork.
    ///
    /// Levels: L0 every line is in its one spelling; L1 nothing was changed, added, removed or moved; L2 it was signed under
    /// the trust file; L3 nothing was cut off that the pin or the witnesses have seen; L4 every verdict follows from its
    /// recorded inputs and the archived policy. What none of them can see is printed under NOT COVERED.
    Verify(verify::Verify),
    /// Print the records, oldest first, one a line.
    Show {
        /// The folder of logs. Default: that of the state directory.
        folder: Option<PathBuf>,
        #[command(flatten)]
        filter: show::Filter,
        /// How to print them.
        #[arg(long, value_enum, default_value_t = show::Lines::Jsonl)]
        format: show::Lines,
    },
    /// Print the last records, and with `--follow` those to come.
    Tail {
        /// The folder of logs. Default: that of the state directory.
        folder: Option<PathBuf>,
        /// How many of the last records.
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: usize,
        /// Go on as records are written, until interrupted.
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        filter: show::Filter,
        /// How to print them.
        #[arg(long, value_enum, default_value_t = show::Lines::Human)]
        format: show::Lines,
    },
    /// Make or check a proof that one record is in a log: a `.tlog-proof` of C2SP, which needs no log to be checked.
    Prove(prove::Prove),
    /// Check that a log at one size continues the same log at another, and print the RFC 6962 proof. Exits with 5 when not.
    Consistency(prove::Consistency),
    /// Ask a witness to cosign the newest checkpoint of each log.
    Submit(submit::Submit),
    /// Print one field of one record that the log only commits to, with the salt that proves it.
    Disclose {
        /// The record, such as `9f3c21aa04be7710-42`.
        record: String,
        /// The field, such as `args.to`.
        field: String,
        /// The folder of logs. Default: that of the state directory.
        folder: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Print the records in the form of another system, one JSON object a line.
    Export {
        /// The folder of logs. Default: that of the state directory.
        folder: Option<PathBuf>,
        #[command(flatten)]
        filter: show::Filter,
        /// Which form.
        #[arg(long, value_enum, default_value_t = export::Shape::Jsonl)]
        format: export::Shape,
    },
}

/// How much `audit verify` checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuditLevel {
    /// Form.
    L0,
    /// And integrity.
    L1,
    /// And authenticity.
    L2,
    /// And completeness, against a pin or witnesses.
    L3,
    /// And semantics: every verdict is decided again.
    L4,
}

impl From<AuditLevel> for Level {
    fn from(level: AuditLevel) -> Self {
        match level {
            AuditLevel::L0 => Self::L0,
            AuditLevel::L1 => Self::L1,
            AuditLevel::L2 => Self::L2,
            AuditLevel::L3 => Self::L3,
            AuditLevel::L4 => Self::L4,
        }
    }
}

/// Where a log and its trust file are when the command line does not say.
pub(crate) struct Places {
    pub(crate) folder: PathBuf,
    pub(crate) trust: PathBuf,
}

/// What was given, and the state directory's own for what was not.
pub(crate) fn places(
    state: Option<PathBuf>,
    folder: Option<PathBuf>,
    trust: Option<PathBuf>,
) -> Result<Places, Failure> {
    if let (Some(folder), Some(trust)) = (&folder, &trust) {
        return Ok(Places { folder: folder.clone(), trust: trust.clone() });
    }
    let state = StateDir::find(state)?;
    Ok(Places {
        folder: folder.unwrap_or_else(|| state.audit()),
        trust: trust.unwrap_or_else(|| state.trust()),
    })
}

impl AuditCommand {
    pub(crate) fn run(self, state: Option<PathBuf>) -> Result<ExitCode, Failure> {
        let folder = |folder| places(state.clone(), folder, None).map(|places| places.folder);
        let exit = match self {
            Self::Verify(asked) => return verify::run(state, asked),
            Self::Prove(asked) => return prove::run(state, asked),
            Self::Submit(asked) => return submit::run(state, asked),
            Self::Consistency(asked) => return prove::consistency(state, &asked),
            Self::Show { folder: at, filter, format } => show::run(&folder(at)?, &filter, format),
            Self::Tail { folder: at, lines, follow, filter, format } => {
                tail::run(&folder(at)?, lines, follow, &filter, format)
            }
            Self::Disclose { record, field, folder: at, format } => {
                disclose::run(&folder(at)?, &record, &field, format)
            }
            Self::Export { folder: at, filter, format } => export::run(&folder(at)?, &filter, format),
        };
        exit.map(ExitCode::from)
    }
}
