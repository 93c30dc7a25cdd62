//! One log, line by line.

use std::path::Path;

use govrun_verdict::LogId;

use super::Level;
use super::authority::Authority;
use super::report::{Finding, LogReport, Outcome, Place, SealPoint, Status};
use crate::chain::{Break, Chain};
use crate::form::body::{ApprovalEvent, Body};
use crate::form::{FormError, Frame, Kind, Line, SealLine, parse_line};
use crate::hash;
use crate::lines::{LineEnd, Lines, RawLine, segments};
use crate::log::LOCK;
use crate::storage::is_locked;
use crate::trust::Trust;

/// Most findings of the lesser kind that are kept for one log; a grave one ends its verification.
const MAX_FINDINGS: usize = 16;

/// Whether to read on.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

struct Stream<'a> {
    level: Level,
    live: bool,
    chain: Chain,
    authority: Authority<'a>,
    report: LogReport,
    segment: String,
    scratch: Vec<u8>,
}

pub(super) fn verify_log(dir: &Path, id: LogId, trust: &Trust, level: Level) -> LogReport {
    let path = dir.join(id.to_string());
    let mut stream = Stream {
        level,
        live: is_locked(&path.join(LOCK)),
        chain: Chain::start(),
        authority: Authority::new(trust, id),
        report: LogReport {
            id,
            genesis: None,
            records: 0,
            seals: 0,
            unsealed: 0,
            last_seal: None,
            status: Status::NotClosed,
            findings: Vec::new(),
            not_covered: Vec::new(),
        },
        segment: String::new(),
        scratch: Vec::new(),
    };
    if let Err(e) = stream.segments(&path) {
        stream.report.findings.push(Finding::of(Outcome::Unusable, format!("{}: {e}", path.display())));
    }
    stream.finish();
    stream.report
}

impl Stream<'_> {
    fn segments(&mut self, path: &Path) -> std::io::Result<()> {
        let (segments, missing) = segments(path)?;
        if let Some(missing) = missing {
            self.grave(format!("the segment {missing} is missing"));
            return Ok(());
        }
        for segment in segments {
            self.segment = segment.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mut lines = match Lines::open(&segment) {
                Ok(lines) => lines,
                Err(e) => {
                    let what = format!("{}: {e}", self.segment);
                    self.report.findings.push(Finding::of(Outcome::Unusable, what));
                    return Ok(());
                }
            };
            if self.segment(&mut lines)? == Next::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    fn segment(&mut self, lines: &mut Lines) -> std::io::Result<Next> {
        loop {
            let Some(raw) = lines.next()? else { return Ok(Next::Go) };
            let place = self.place(&raw);
            match raw.end {
                LineEnd::Newline => {}
                LineEnd::EndOfFile => return Ok(self.torn(place, "the last line has no end")),
                LineEnd::TooLong => {
                    let zero = raw.bytes.iter().all(|b| *b == 0);
                    return if zero && lines.rest_is_zero()? {
                        Ok(self.torn(place, "the file ends in zero bytes"))
                    } else {
                        Ok(self.broken(place, Outcome::Tampered, "a line is longer than a line may be"))
                    };
                }
            }
            if self.line(&raw) == Next::Stop {
                return Ok(Next::Stop);
            }
        }
    }

    /// What a crash leaves behind, or a writer that is writing right now.
    fn torn(&mut self, place: Place, what: &str) -> Next {
        if self.live {
            return Next::Stop;
        }
        self.broken(
            place,
            Outcome::Inconclusive,
            &format!("crash tail: {what}; reopening the log moves it aside"),
        )
    }

    fn line(&mut self, raw: &RawLine<'_>) -> Next {
        match parse_line(raw.bytes) {
            Ok(Line::Record(frame)) => self.record(raw, &frame),
            Ok(Line::Seal(seal)) => self.seal(raw, &seal),
            Err(e @ (FormError::UnknownType(_) | FormError::UnknownVersion)) => self.unknown(raw, &e),
            Err(e) => self.malformed(raw, &e),
        }
    }

    fn record(&mut self, raw: &RawLine<'_>, frame: &Frame<'_>) -> Next {
        let mut scratch = std::mem::take(&mut self.scratch);
        let next = match frame.body_in(&mut scratch) {
            Ok(body) => self.typed(raw, frame, &body),
            Err(e) => self.malformed(raw, &e),
        };
        self.scratch = scratch;
        next
    }

    fn typed(&mut self, raw: &RawLine<'_>, frame: &Frame<'_>, body: &Body<'_>) -> Next {
        if let Body::Genesis(genesis) = body {
            self.report.genesis = Some(genesis.log);
        }
        if self.level >= Level::L1 {
            let before = self.chain.time;
            if let Err(e) = self.chain.record(frame, hash::leaf(raw.bytes)) {
                return self.break_at(raw, e);
            }
            if let Err(e) = meaning(self.report.id, frame, body, before, self.chain.sealed.size()) {
                return self.break_at(raw, e);
            }
        }
        self.report.records += 1;
        self.note(frame, body);
        if self.level >= Level::L2
            && let Err(finding) = self.authority.record(body)
        {
            return self.found(raw, *finding);
        }
        Next::Go
    }

    fn note(&mut self, frame: &Frame<'_>, body: &Body<'_>) {
        match body {
            Body::Recover(r) if r.recovered.0 > 0 || r.quarantined_bytes.0 > 0 => {
                let (first, last) = (r.sealed.0, (r.sealed.0 + r.recovered.0).saturating_sub(1));
                let mut what = format!("crash before record {}", frame.head.seq);
                if r.recovered.0 > 0 {
                    what +=
                        &format!("; records {first} to {last} were not under any signature when it happened");
                }
                if r.quarantined_bytes.0 > 0 {
                    what += &format!("; {} bytes were moved to quarantine", r.quarantined_bytes.0);
                }
                if self.report.not_covered.len() < MAX_FINDINGS {
                    self.report.not_covered.push(what);
                }
            }
            Body::Genesis(_)
            | Body::Recover(_)
            | Body::PolicyLoad(_)
            | Body::Decision(_)
            | Body::Outcome(_)
            | Body::Escalation(_)
            | Body::Approval(_)
            | Body::IoError(_)
            | Body::ClockStep(_)
            | Body::Open(_)
            | Body::Close(_) => {}
        }
    }

    fn seal(&mut self, raw: &RawLine<'_>, seal: &SealLine) -> Next {
        if self.level >= Level::L1
            && let Err(e) = self.chain.seal(seal, hash::seal(raw.bytes))
        {
            return self.break_at(raw, e);
        }
        if self.level >= Level::L2
            && let Err(finding) = self.authority.seal(seal)
        {
            return self.found(raw, *finding);
        }
        if self.level >= Level::L2 && !self.authority.is_known() {
            return Next::Go;
        }
        self.report.seals += 1;
        if self.level >= Level::L1 {
            let place = self.place(raw);
            self.report.last_seal = Some(SealPoint { size: seal.size.0, root: seal.root.0, place });
        }
        Next::Go
    }

    fn unknown(&mut self, raw: &RawLine<'_>, e: &FormError) -> Next {
        if self.level >= Level::L1
            && let Err(e) = self.chain.opaque(hash::leaf(raw.bytes))
        {
            return self.break_at(raw, e);
        }
        let finding =
            Finding::of(Outcome::Inconclusive, format!("{e}: written by a newer program, or altered"));
        self.found(raw, finding)
    }

    fn malformed(&mut self, raw: &RawLine<'_>, e: &FormError) -> Next {
        let within = match e {
            FormError::Frame { at, .. } | FormError::Spelling { at } => u64::try_from(*at).unwrap_or(0),
            FormError::UnknownVersion | FormError::UnknownType(_) | FormError::Body(_) => 0,
        };
        let mut finding = Finding::of(Outcome::Tampered, e.to_string());
        let mut place = self.place(raw);
        place.byte += within;
        finding.place = Some(place);
        self.report.findings.push(finding);
        Next::Stop
    }

    fn break_at(&mut self, raw: &RawLine<'_>, e: Break) -> Next {
        let mut finding = Finding::of(Outcome::Tampered, e.what);
        finding.expected = Some(e.expected);
        finding.found = Some(e.found);
        self.found(raw, finding)
    }

    fn found(&mut self, raw: &RawLine<'_>, mut finding: Finding) -> Next {
        let stop = finding.outcome == Outcome::Tampered;
        finding.place = Some(self.place(raw));
        if stop || self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        }
        if stop { Next::Stop } else { Next::Go }
    }

    fn broken(&mut self, place: Place, outcome: Outcome, what: &str) -> Next {
        let mut finding = Finding::of(outcome, what);
        finding.place = Some(place);
        self.report.findings.push(finding);
        Next::Stop
    }

    fn grave(&mut self, what: impl Into<String>) {
        self.report.findings.push(Finding::of(Outcome::Tampered, what));
    }

    fn place(&self, raw: &RawLine<'_>) -> Place {
        Place { segment: self.segment.clone(), line: raw.number, byte: raw.byte }
    }

    fn finish(&mut self) {
        let nothing_said = self.report.findings.is_empty();
        if self.report.records == 0 && nothing_said {
            self.grave(
                "there is no record; a log is made whole with its genesis record, so something was removed",
            );
        }
        let closed = self.chain.last_kind == Some(Kind::Close) && self.chain.unsealed() == 0;
        self.report.status = match (closed, self.live) {
            (true, _) => Status::Closed,
            (false, true) => Status::InProgress,
            (false, false) => Status::NotClosed,
        };
        if self.level == Level::L0 || self.report.outcome() == Outcome::Tampered {
            return;
        }
        self.report.unsealed = self.chain.unsealed();
        if self.report.seals == 0 && self.report.findings.is_empty() {
            let what = "no seal: nothing here is signed";
            self.report.findings.push(Finding::of(Outcome::Inconclusive, what));
        } else if self.report.unsealed > 0 {
            self.unsealed_tail();
        }
    }

    fn unsealed_tail(&mut self) {
        let unsealed = self.report.unsealed;
        if self.live {
            let what = format!("in progress: {unsealed} records after the last seal are not signed yet");
            self.report.not_covered.push(what);
        } else {
            let what = format!("crash tail: {unsealed} records after the last seal are not signed");
            self.report.findings.push(Finding::of(Outcome::Inconclusive, what));
        }
    }
}

/// What typed records promise about the log they stand in.
fn meaning(id: LogId, frame: &Frame<'_>, body: &Body<'_>, before: u64, sealed: u64) -> Result<(), Break> {
    let broken = |what, expected: String, found: String| Err(Break { what, expected, found });
    match body {
        Body::Genesis(genesis) if genesis.log != id => broken(
            "the genesis record is of another log than the directory",
            id.to_string(),
            genesis.log.to_string(),
        ),
        Body::ClockStep(step)
            if (step.from.0, step.to.0) != (before, frame.head.time) || step.from <= step.to =>
        {
            broken(
                "the clock_step record does not fit the times around it",
                format!("{before} to {}", frame.head.time),
                format!("{} to {}", step.from.0, step.to.0),
            )
        }
        Body::Recover(r) if r.sealed.0 != sealed || r.recovered.0 > frame.head.seq - sealed => broken(
            "the recover record does not fit the seals before it",
            format!("{sealed} sealed, at most {} recovered", frame.head.seq - sealed),
            format!("{} sealed, {} recovered", r.sealed.0, r.recovered.0),
        ),
        Body::Approval(a) if a.used_by.is_some() && a.event != ApprovalEvent::Consumed => {
            broken("only a consumed approval has a user", "none".into(), "used_by".into())
        }
        Body::Genesis(_)
        | Body::ClockStep(_)
        | Body::Approval(_)
        | Body::PolicyLoad(_)
        | Body::Decision(_)
        | Body::Outcome(_)
        | Body::Escalation(_)
        | Body::Recover(_)
        | Body::IoError(_)
        | Body::Open(_)
        | Body::Close(_) => Ok(()),
    }
}
