//! The logs: whose they are, and how they end.

use std::path::Path;

use govrun_audit::verify::{Level, LogReport, Outcome, verify};
use govrun_audit::{KeyStore, Trust};

use super::Area::Dependency;
use super::Check;
use crate::audit::verified::status;
use crate::state::StateDir;

/// Logs of at most this many bytes together are verified whole; larger ones take `audit verify`.
const MAX_VERIFIED: u64 = 64 << 20;

/// One check for each log.
pub(super) fn of(state: &StateDir) -> Vec<Check> {
    let folder = state.audit();
    if !folder.exists() {
        let found = format!("{} does not exist", folder.display());
        return vec![Check::warn("log", Dependency, found, "it is made on first use")];
    }
    // Without them the checks of keys and trust have failed, and said why.
    let (Ok(trust), Ok(keys)) = (Trust::load(&state.trust()), KeyStore::load(&state.keys())) else {
        let found = "not verified: the keys or the trust file do not load";
        return vec![Check::warn("log", Dependency, found, "correct them first")];
    };
    if keys.certificate().root() != &trust.root {
        let found = "the root key of the trust file did not sign the keys that write here";
        return vec![Check::fail(
            "log",
            Dependency,
            found,
            "restore the trust file that was made with the keys",
        )];
    }
    let size = bytes(&folder);
    if size > MAX_VERIFIED {
        let found = format!("{} MiB of logs, too much to verify here", size >> 20);
        return vec![Check::warn("log", Dependency, found, "run `govrun audit verify`")];
    }
    let report = verify(&folder, &trust, Level::L2);
    let whole = report.findings.iter().map(|f| graded(f.outcome, f.to_string()));
    whole.chain(report.logs.iter().map(log)).collect()
}

fn log(log: &LogReport) -> Check {
    let sealed = match log.unsealed {
        0 => String::new(),
        unsealed => format!(", {unsealed} of them after the last seal"),
    };
    let outcome = log.outcome();
    let found = format!(
        "{}: {} at level L2, {} records{sealed}, {}",
        log.id,
        outcome.name(),
        log.records,
        status(log.status)
    );
    let why = log.findings.first().map(|f| format!("; {f}")).unwrap_or_default();
    graded(outcome, found + &why)
}

fn graded(outcome: Outcome, found: String) -> Check {
    let next = "run `govrun audit verify`";
    match outcome {
        Outcome::Verified => Check::ok("log", Dependency, found),
        Outcome::Inconclusive => Check::warn("log", Dependency, found, next),
        Outcome::Unusable | Outcome::Untrusted | Outcome::Fork | Outcome::Tampered => {
            Check::fail("log", Dependency, found, next)
        }
    }
}

/// Bytes of the files of all logs. A directory that cannot be read counts as nothing here and fails in the verifier.
fn bytes(folder: &Path) -> u64 {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    entries(folder)
        .flat_map(|log| entries(&log.path()))
        .filter_map(|file| file.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
