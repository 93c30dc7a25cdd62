//! What a verification found, for people and for exit codes.

use std::fmt;

use govrun_verdict::LogId;

use super::{Ask, Level};
use crate::form::Hex;
use crate::hash::Hash;
use crate::pin::Pinned;

/// What a verification comes to. The order is that of gravity: the gravest finding decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Verified to the level asked for.
    Verified,
    /// It cannot be said: crash tail, no seal, unknown version, nothing there.
    Inconclusive,
    /// A file could not be read.
    Unusable,
    /// Signed, but not under the root or approvers of the trust file.
    Untrusted,
    /// Two histories of one log.
    Fork,
    /// Something was changed.
    Tampered,
}

impl Outcome {
    /// Exit code of `govrun audit verify`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Tampered => 1,
            Self::Unusable => 2,
            Self::Inconclusive => 3,
            Self::Untrusted => 4,
            Self::Fork => 5,
        }
    }

    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "VERIFIED",
            Self::Tampered => "TAMPERED",
            Self::Unusable => "UNUSABLE",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Untrusted => "UNTRUSTED KEY",
            Self::Fork => "FORK",
        }
    }
}

/// A line in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File name of the segment.
    pub segment: String,
    /// Line, from 1.
    pub line: u64,
    /// Offset of the line, or of the byte in question, in the segment.
    pub byte: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.segment, self.line, self.byte)
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How grave.
    pub outcome: Outcome,
    /// Where, if in a file.
    pub place: Option<Place>,
    /// What.
    pub what: String,
    /// What the lines before (or the trust file) demand: a hash, number or key.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
}

impl Finding {
    pub(super) fn of(outcome: Outcome, what: impl Into<String>) -> Self {
        Self { outcome, place: None, what: what.into(), expected: None, found: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.outcome.name())?;
        if let Some(place) = &self.place {
            write!(f, " at {place}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(expected) = &self.expected {
            write!(f, "\n    expected {expected}")?;
        }
        if let Some(found) = &self.found {
            write!(f, "\n    found    {found}")?;
        }
        Ok(())
    }
}

/// The last seal that held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealPoint {
    /// Records covered.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Where the seal line is.
    pub place: Place,
}

/// How a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// With a `close` record under a seal.
    Closed,
    /// Some process holds its lock.
    InProgress,
    /// Without a `close` record: its process was killed, or the end was cut off.
    NotClosed,
}

/// What was found in one log.
#[derive(Debug, Clone)]
pub struct LogReport {
    /// The log, by the name of its directory.
    pub id: LogId,
    /// The log that its genesis record names.
    pub genesis: Option<LogId>,
    /// Records that follow from each other.
    pub records: u64,
    /// Seals that hold.
    pub seals: u64,
    /// Records after the last seal.
    pub unsealed: u64,
    /// The last seal that held.
    pub last_seal: Option<SealPoint>,
    /// The last seal that held and is known to be on disk: what a pin may keep.
    pub pinnable: Option<Pinned>,
    /// Records that a pin or witnesses have seen, and that are the same here.
    pub anchored: Option<u64>,
    /// How it ends.
    pub status: Status,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What this verification cannot say about this log.
    pub not_covered: Vec<String>,
}

impl LogReport {
    pub(super) const fn new(id: LogId) -> Self {
        Self {
            id,
            genesis: None,
            records: 0,
            seals: 0,
            unsealed: 0,
            last_seal: None,
            pinnable: None,
            anchored: None,
            status: Status::NotClosed,
            findings: Vec::new(),
            not_covered: Vec::new(),
        }
    }

    /// What this log comes to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.findings.iter().map(|f| f.outcome).max().unwrap_or(Outcome::Verified)
    }
}

/// What was found in a directory of logs.
#[derive(Debug, Clone)]
pub struct Report {
    /// The level asked for.
    pub level: Level,
    /// Each log, by id.
    pub logs: Vec<LogReport>,
    /// What concerns no single log.
    pub findings: Vec<Finding>,
    /// What no verification of this level can see. Never empty.
    pub not_covered: Vec<String>,
}

/// What no verifier can see, whatever it is given.
const ALWAYS: [&str; 4] = [
    "what the host never handed to the log",
    "whether the writer's clock was right",
    "a history rewritten by whoever holds the epoch key that signed it",
    "guest data that was committed to and has no opening any more",
];

impl Report {
    pub(super) fn new(ask: &Ask<'_>) -> Self {
        let unseen = [
            (Level::L2, "who wrote it: signatures are looked at from level L2 on"),
            (
                Level::L1,
                "whether anything was changed, added, removed or moved: level L0 looks at spelling only",
            ),
        ];
        let mut not_covered: Vec<String> =
            unseen.iter().filter(|(from, _)| ask.level < *from).map(|(_, what)| (*what).to_owned()).collect();
        if ask.anchors.is_empty() || ask.level < Level::L1 {
            not_covered.push(
                "records cut off the end together with their seals, and logs that were deleted whole: that takes a pin or a witness"
                    .to_owned(),
            );
        } else {
            not_covered.push("logs that were deleted whole before anybody saw them".to_owned());
        }
        if ask.level < Level::L4 {
            not_covered.push(
                "whether each verdict follows from its recorded inputs and policy: level L4 evaluates the policy again".to_owned(),
            );
        } else {
            not_covered.push("whether the recorded inputs were what really was asked for".to_owned());
        }
        not_covered.extend(ALWAYS.iter().map(|s| (*s).to_owned()));
        Self { level: ask.level, logs: Vec::new(), findings: Vec::new(), not_covered }
    }

    /// What the directory comes to: its gravest finding.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let own = self.findings.iter().map(|f| f.outcome);
        own.chain(self.logs.iter().map(LogReport::outcome)).max().unwrap_or(Outcome::Verified)
    }

    /// Exit code: 0 verified, 1 tampered, 2 unusable, 3 inconclusive, 4 untrusted key, 5 fork.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.outcome().exit_code()
    }

    /// Everything this verification cannot say, in general and about each log.
    pub fn all_not_covered(&self) -> impl Iterator<Item = String> {
        let general = self.not_covered.iter().cloned();
        general.chain(
            self.logs.iter().flat_map(|log| log.not_covered.iter().map(|n| format!("{}: {n}", log.id))),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for log in &self.logs {
            writeln!(f, "{log}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        writeln!(f, "NOT COVERED")?;
        for what in self.all_not_covered() {
            writeln!(f, "  {what}")?;
        }
        write!(f, "{} at level {:?}", self.outcome().name(), self.level)
    }
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Closed => "closed",
            Status::InProgress => "in progress",
            Status::NotClosed => "not closed",
        };
        let Self { id, records, seals, .. } = self;
        write!(f, "log {id}: {}, {records} records, {seals} seals, {status}", self.outcome().name())?;
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        match &self.last_seal {
            Some(SealPoint { size, root, place }) => {
                write!(f, "\n  last good seal: size {size}, root {}, at {place}", Hex(*root))
            }
            None => write!(f, "\n  no good seal"),
        }?;
        match self.anchored {
            Some(size) => write!(f, "\n  complete up to size {size}"),
            None => Ok(()),
        }
    }
}
