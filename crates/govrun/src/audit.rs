//! `govrun audit`: prove a log, and show it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use govrun_audit::Trust;
use govrun_audit::read::Records;
use govrun_audit::verify::{Level, verify};

use crate::exit::{Exit, Failure};

/// Verify every log under `folder`. The exit code is this command's own: 0 verified, 1 tampered, 2 unusable,
/// 3 inconclusive, 4 untrusted key, 5 fork.
pub(crate) fn check(folder: &Path, trust: &Path, level: Level) -> ExitCode {
    match Trust::load(trust) {
        Ok(trust) => {
            let report = verify(folder, &trust, level);
            print!("{report}");
            report.exit_code().into()
        }
        Err(error) => {
            eprintln!("govrun: {error}; pass the trust file that `govrun keys init` wrote with --trust");
            ExitCode::from(2)
        }
    }
}

/// Print the records of every log under `folder`, oldest first, exactly as they are stored.
pub(crate) fn show(folder: &Path) -> Result<Exit, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
    let mut out = std::io::stdout().lock();
    for record in Records::open(folder).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        let written = out.write_all(&record.line).and_then(|()| out.write_all(b"\n"));
        match written {
            Ok(()) => {}
            // Whoever read it has seen enough, as with `| head`.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(e) => return Err(Failure::new(Exit::Runtime, e)),
        }
    }
    Ok(Exit::Ok)
}

/// Where a log and its trust file are when the command line does not say.
pub(crate) struct Places {
    pub(crate) folder: PathBuf,
    pub(crate) trust: PathBuf,
}
