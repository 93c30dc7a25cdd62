//! Offline verification: a directory, a trust file, nothing else. No socket is opened, nothing is written.
//!
//! Levels build on each other: **L0** every line is in its one spelling · **L1** nothing was changed, added, removed or
//! moved between the first record and the last seal · **L2** it was all signed under the root of the trust file · **L3** nothing
//! was cut off that a pin or a quorum of witnesses has seen · **L4** every verdict follows from its recorded inputs and the
//! archived policy, every permit has its outcome, every approval was given for exactly its call and used once.

mod anchor;
mod authority;
mod engine;
mod ledger;
mod piece;
mod report;
mod scan;
mod semantics;
mod stream;

use std::path::Path;

use govrun_verdict::LogId;

pub use anchor::{Anchor, Source};
pub use report::{Finding, LogReport, Outcome, Place, Report, SealPoint, Status};
pub use semantics::{Answer, Case, Difference, Evaluator};

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
    /// And completeness.
    L3,
    /// And semantics.
    L4,
}

/// Whose spelling is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// That of every line.
    All,
    /// That of every line's fixed part, and of those bodies that the verification draws conclusions from. Decisions and
    /// outcomes are then hashed, chained and signed bytes that nobody looked into: several times faster.
    Relied,
}

/// What to verify.
pub struct Ask<'a> {
    /// How much.
    pub level: Level,
    /// Whose spelling. Levels L0 and L4 look into every line whatever this says.
    pub form: Form,
    /// How many threads, at most 8; 0 for one each core.
    pub threads: usize,
    /// What somebody has seen of these logs before. Held against them from level L1 on; level L3 demands one.
    pub anchors: &'a [Anchor],
    /// Decides again, for level L4. Without one that level is inconclusive.
    pub evaluator: Option<&'a dyn Evaluator>,
}

impl Ask<'_> {
    /// Everything up to this level, with all cores, without anchors.
    #[must_use]
    pub const fn level(level: Level) -> Self {
        Self { level, form: Form::All, threads: 0, anchors: &[], evaluator: None }
    }

    fn form(&self) -> Form {
        match self.level {
            Level::L0 | Level::L4 => Form::All,
            Level::L1 | Level::L2 | Level::L3 => self.form,
        }
    }
}

/// Verify every log under `dir` to this level.
#[must_use]
pub fn verify(dir: &Path, trust: &Trust, level: Level) -> Report {
    verify_asked(dir, trust, &Ask::level(level))
}

/// Verify every log under `dir`.
///
/// Memory stays below 64 MiB whatever the size of the logs. A log that is being written is verified up to what was there
/// when it was opened.
#[must_use]
pub fn verify_asked(dir: &Path, trust: &Trust, ask: &Ask<'_>) -> Report {
    let mut report = Report::new(ask);
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
    report.logs = ids.iter().map(|id| stream::verify_log(dir, *id, trust, ask)).collect();
    find_copies(&mut report, &ids);
    anchor::conclude(&mut report, ask, trust);
    note_unfinished(dir, &mut report);
    if ask.level >= Level::L4 {
        semantics::judge(dir, trust, ask.evaluator, &mut report);
    }
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
