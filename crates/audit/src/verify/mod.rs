//! Offline verification: a directory, a trust file, nothing else. No socket is opened, nothing is written.
//!
//! Levels build on each other: **L0** every line is in its one spelling · **L1** nothing was changed, added, removed or
//! moved between the first record and the last seal · **L2** it was all signed under the root of the trust file.

mod authority;
mod report;
mod stream;

use std::path::Path;

use govrun_verdict::LogId;

pub use report::{Finding, LogReport, Outcome, Place, Report, SealPoint, Status};

use crate::log::{UNFINISHED, log_ids};
use crate::trust::Trust;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Form.
    L0,
    /// And integrity.
    L1,
    /// And authenticity.
    L2,
}

/// Verify every log under `dir`.
///
/// Memory stays below a few MiB whatever the size of the logs. A log that is being written is verified up to what was there
/// when it was opened.
#[must_use]
pub fn verify(dir: &Path, trust: &Trust, level: Level) -> Report {
    let mut report = Report::new(level);
    let ids = match log_ids(dir) {
        Ok(ids) => ids,
        Err(e) => {
            report.findings.push(Finding::of(Outcome::Unusable, format!("{}: {e}", dir.display())));
            return report;
        }
    };
    if ids.is_empty() {
        let what = format!("{} holds no log; what is not there cannot be verified", dir.display());
        report.findings.push(Finding::of(Outcome::Inconclusive, what));
    }
    report.logs = ids.iter().map(|id| stream::verify_log(dir, *id, trust, level)).collect();
    find_copies(&mut report, &ids);
    note_unfinished(dir, &mut report);
    report
}

/// A second directory that says in its genesis that it is a log which is there under its own name.
fn find_copies(report: &mut Report, ids: &[LogId]) {
    for log in &mut report.logs {
        if let Some(genesis) = log.genesis.filter(|genesis| *genesis != log.id && ids.contains(genesis)) {
            let what = format!("this is another history of log {genesis}, which is here too");
            log.findings.push(Finding::of(Outcome::Fork, what));
        }
    }
}

fn note_unfinished(dir: &Path, report: &mut Report) {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names {
        let name = name.to_string_lossy();
        if name.starts_with(UNFINISHED) {
            report.not_covered.push(format!("{name}: a log that was never finished being made, or was renamed so; it holds no decision of a finished log"));
        }
    }
}
