//! `govrun audit verify`: prove a log.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use govrun_audit::Trust;
use govrun_audit::verify::{Level, verify};

use crate::cli::Format;
use crate::exit::Failure;
use crate::text::print_json;
use crate::verified;

/// Verify every log under `folder`. The exit code is this command's own: 0 verified, 1 tampered, 2 unusable,
/// 3 inconclusive, 4 untrusted key, 5 fork.
pub(crate) fn check(folder: &Path, trust: &Path, level: Level, format: Format) -> Result<ExitCode, Failure> {
    match Trust::load(trust) {
        Ok(trust) => {
            let report = verify(folder, &trust, level);
            match format {
                Format::Human => print!("{report}"),
                Format::Json => print_json(&verified::as_json(&report))?,
            }
            Ok(report.exit_code().into())
        }
        Err(error) => {
            eprintln!("govrun: {error}; pass the trust file that `govrun keys init` wrote with --trust");
            Ok(ExitCode::from(2))
        }
    }
}

/// Where a log and its trust file are when the command line does not say.
pub(crate) struct Places {
    pub(crate) folder: PathBuf,
    pub(crate) trust: PathBuf,
}
