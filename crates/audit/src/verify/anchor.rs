//! Level L3: what somebody outside has seen of a log must still be there, and be the same.

use std::fmt;

use govrun_verdict::LogId;

use super::report::{Finding, LogReport, Outcome, Report};
use super::{Ask, Level};
use crate::form::{B64, SealLine};
use crate::hash::Hash;
use crate::trust::Trust;

/// Who has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The verifier itself, the last time.
    Pin,
    /// As many witnesses of the trust file as it demands.
    Witnesses(Vec<String>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin => f.write_str("the pin"),
            Self::Witnesses(names) => write!(f, "the witnesses {}", names.join(", ")),
        }
    }
}

/// A state of one log that somebody has seen: its first `size` records had this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The log.
    pub log: LogId,
    /// How many records.
    pub size: u64,
    /// Their RFC 6962 root.
    pub root: Hash,
    /// The signed note it was seen in.
    pub note: String,
    /// Who saw it.
    pub source: Source,
}

/// Held against one log while the verifier goes through it.
pub(super) struct Watch<'a> {
    anchors: Vec<&'a Anchor>,
    /// Seals of the sizes that are watched, for the second note of a fork.
    notes: Vec<(u64, String)>,
}

impl<'a> Watch<'a> {
    pub(super) fn of(ask: &Ask<'a>, log: LogId) -> Self {
        let level_looks = ask.level >= Level::L1;
        let anchors = ask.anchors.iter().filter(|a| level_looks && a.log == log).collect();
        Self { anchors, notes: Vec::new() }
    }

    /// The sizes whose roots are wanted.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.anchors.iter().map(|a| a.size)
    }

    pub(super) fn seal(&mut self, seal: &SealLine) {
        let size = seal.size.0;
        if self.anchors.iter().any(|a| a.size == size) && !self.notes.iter().any(|(of, _)| *of == size) {
            self.notes.push((size, seal.note()));
        }
    }

    /// What became of each. `roots` are those of the sizes that the log has.
    pub(super) fn conclude(
        self,
        report: &mut LogReport,
        roots: &[(u64, Hash)],
        size: u64,
        last: Option<String>,
    ) {
        for anchor in &self.anchors {
            let found = roots.iter().find(|(of, _)| *of == anchor.size).map(|(_, root)| *root);
            let ours = self.notes.iter().find(|(of, _)| *of == anchor.size).map(|(_, note)| note);
            match found {
                Some(root) if root == anchor.root => {
                    report.anchored = report.anchored.max(Some(anchor.size));
                }
                Some(root) => report.findings.push(fork(anchor, root, ours)),
                None => report.findings.push(rollback(anchor, size, last.as_deref())),
            }
        }
    }
}

fn fork(anchor: &Anchor, root: Hash, ours: Option<&String>) -> Finding {
    let what = format!(
        "a fork: {} saw another history of the first {} records than this",
        anchor.source, anchor.size
    );
    let mut finding = Finding::of(Outcome::Fork, what);
    finding.expected = Some(format!("root {} in the note\n{}", B64(anchor.root), indented(&anchor.note)));
    finding.found = Some(match ours {
        Some(note) => format!("root {} in the note\n{}", B64(root), indented(note)),
        None => format!("root {} (no seal of this size)", B64(root)),
    });
    finding
}

fn rollback(anchor: &Anchor, size: u64, last: Option<&str>) -> Finding {
    let what = format!("a rollback: {} saw {} records, and there are {size} now", anchor.source, anchor.size);
    let mut finding = Finding::of(Outcome::Fork, what);
    finding.expected = Some(format!("the note\n{}", indented(&anchor.note)));
    finding.found = Some(match last {
        Some(note) => format!("at last the note\n{}", indented(note)),
        None => "no seal at all".to_owned(),
    });
    finding
}

fn indented(note: &str) -> String {
    note.trim_end().lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

/// Logs that were seen and are gone; and whether level L3 has anything to go by.
pub(super) fn conclude(report: &mut Report, ask: &Ask<'_>, trust: &Trust) {
    if ask.level < Level::L1 {
        return;
    }
    for anchor in ask.anchors {
        if !report.logs.iter().any(|log| log.id == anchor.log) {
            let what = format!(
                "a rollback: {} saw {} records of log {}, which is not here",
                anchor.source, anchor.size, anchor.log
            );
            let mut finding = Finding::of(Outcome::Fork, what);
            finding.expected = Some(format!("the note\n{}", indented(&anchor.note)));
            report.findings.push(finding);
        }
    }
    for log in &mut report.logs {
        match log.anchored {
            Some(size) if size < log.records => log.not_covered.push(format!(
                "records cut off the end after record {}: nobody has seen more than {size} records",
                size.saturating_sub(1)
            )),
            Some(_) => {}
            None if ask.anchors.is_empty() => {}
            None => {
                log.not_covered.push("records cut off the end: nobody has seen this log before".to_owned())
            }
        }
    }
    if ask.level >= Level::L3 && ask.anchors.is_empty() {
        report.findings.push(Finding::of(Outcome::Inconclusive, nothing_to_go_by(trust)));
    }
}

fn nothing_to_go_by(trust: &Trust) -> String {
    let mut what =
        "completeness cannot be told without a pin or checkpoints that witnesses signed".to_owned();
    if trust.witnesses.is_empty() {
        what += "; the trust file names no witness";
    }
    what
}
