//! One log, line by line in order: the chain of records, its seals, and who signed them.

use std::collections::VecDeque;
use std::path::Path;

use govrun_verdict::LogId;

use super::anchor::Watch;
use super::authority::Authority;
use super::engine::{self, MAX_THREADS, Next};
use super::piece::{Piece, Pieces, Tail};
use super::report::{Finding, LogReport, Outcome, Place, SealPoint, Status};
use super::scan::{Hint, Item, What, relied_on, scan};
use super::{Ask, Form, Level};
use crate::chain::{Break, Chain};
use crate::form::body::{ApprovalEvent, Body};
use crate::form::{FormError, Frame, Kind, SealLine};
use crate::hash::Hash;
use crate::lines::segments;
use crate::log::LOCK;
use crate::pin::Pinned;
use crate::storage::is_locked;
use crate::trust::Trust;

/// Most findings of the lesser kind that are kept for one log; a grave one ends its verification.
const MAX_FINDINGS: usize = 16;

/// Most seals that are kept until a later seal says that they reached the disk.
const MAX_UNSYNCED_SEALS: usize = 16_384;

/// Logs up to this size are not worth a second thread.
const SMALL: u64 = 1 << 20;

struct Stream<'a> {
    level: Level,
    form: Form,
    live: bool,
    chain: Chain,
    authority: Authority<'a>,
    hint: &'a Hint,
    report: LogReport,
    watch: Watch<'a>,
    /// Seals that were good, since the last size known to be on disk.
    unsynced: VecDeque<SealLine>,
    last_seal: Option<SealLine>,
    piece: Piece,
    /// Whether a segment was read already.
    segment_begun: bool,
    line: u64,
    scratch: Vec<u8>,
}

pub(super) fn verify_log(dir: &Path, id: LogId, trust: &Trust, ask: &Ask<'_>) -> LogReport {
    let path = dir.join(id.to_string());
    let hint = Hint::default();
    let watch = Watch::of(ask, id);
    let mut chain = Chain::start();
    chain.watch(watch.sizes());
    let mut stream = Stream {
        level: ask.level,
        form: ask.form(),
        live: is_locked(&path.join(LOCK)),
        chain,
        authority: Authority::new(trust, id),
        hint: &hint,
        report: LogReport::new(id),
        watch,
        unsynced: VecDeque::new(),
        last_seal: None,
        piece: Piece { segment: "".into(), first: true, byte: 0, bytes: Vec::new(), tail: Tail::Nothing },
        segment_begun: false,
        line: 0,
        scratch: Vec::new(),
    };
    match segments(&path) {
        Ok((segments, None)) => {
            let threads = threads(ask, &segments);
            let form = ask.form();
            let look = |piece: &Piece| scan(piece, ask.level, form, &hint);
            let follow = |piece, items| stream.piece(piece, items);
            engine::run(Pieces::of(segments), threads, &look, follow);
        }
        Ok((_, Some(missing))) => stream.grave(format!("the segment {missing} is missing")),
        Err(e) => {
            stream.report.findings.push(Finding::of(Outcome::Unusable, format!("{}: {e}", path.display())));
        }
    }
    stream.finish()
}

fn threads(ask: &Ask<'_>, segments: &[std::path::PathBuf]) -> usize {
    let size = |path: &std::path::PathBuf| path.symlink_metadata().map_or(0, |meta| meta.len());
    if segments.iter().map(size).sum::<u64>() <= SMALL {
        return 1;
    }
    match ask.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_THREADS),
        asked => asked.min(MAX_THREADS),
    }
}

impl Stream<'_> {
    fn piece(&mut self, piece: Piece, items: Vec<Item>) -> Next {
        if piece.first {
            self.line = 0;
            if self.segment_begun {
                self.chain.begin_segment();
            }
            self.segment_begun = true;
        }
        self.piece = piece;
        for item in items {
            self.line += 1;
            if self.item(item) == Next::Stop {
                return Next::Stop;
            }
        }
        self.tail()
    }

    fn tail(&mut self) -> Next {
        let tail = std::mem::replace(&mut self.piece.tail, Tail::Nothing);
        let at = self.piece.bytes.len();
        self.line += 1;
        let place = self.place(at);
        self.line -= 1;
        match tail {
            Tail::Nothing => Next::Go,
            Tail::Torn { last_segment: true } => self.torn(place, "the last line has no end"),
            Tail::Zeros => self.torn(place, "the file ends in zero bytes"),
            Tail::Torn { last_segment: false } => {
                self.broken(place, "a line has no end, and another segment follows")
            }
            Tail::TooLong => self.broken(place, "a line is longer than a line may be"),
            Tail::Failed(e) => {
                let what = format!("{}: {e}", self.piece.segment);
                self.report.findings.push(Finding::of(Outcome::Unusable, what));
                Next::Stop
            }
        }
    }

    /// What a crash leaves behind, or a writer that is writing right now.
    fn torn(&mut self, place: Place, what: &str) -> Next {
        if !self.live {
            let what = format!("crash tail: {what}; reopening the log moves it aside");
            let mut finding = Finding::of(Outcome::Inconclusive, what);
            finding.place = Some(place);
            self.report.findings.push(finding);
        }
        Next::Stop
    }

    fn item(&mut self, item: Item) -> Next {
        let at = item.at.start;
        match item.what {
            What::Record { head, body, seal, prev, leaf } => {
                let mut bytes = std::mem::take(&mut self.piece.bytes);
                let line = bytes.get(item.at).unwrap_or_default();
                let frame = Frame { head, body: line.get(body).unwrap_or_default(), seal, prev };
                let next = self.record(at, &frame, leaf);
                std::mem::swap(&mut self.piece.bytes, &mut bytes);
                next
            }
            What::Seal { seal, hash, signed_by } => self.seal(at, &seal, hash, signed_by),
            What::Unknown { error, leaf } => self.unknown(at, &error, leaf),
            What::Malformed(error) => self.malformed(at, &error),
            What::TooLong => {
                let place = self.place(at);
                self.broken(place, "a line is longer than a line may be")
            }
        }
    }

    fn record(&mut self, at: usize, frame: &Frame<'_>, leaf: Hash) -> Next {
        let before = self.chain.time;
        if self.level >= Level::L1
            && let Err(e) = self.chain.record(frame, leaf)
        {
            return self.break_at(at, e);
        }
        self.report.records += 1;
        if !relied_on(frame.head.kind) {
            return Next::Go;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let next = match frame.body_in(&mut scratch) {
            Ok(body) => self.typed(at, frame, &body, before),
            Err(e) => self.malformed(at, &e),
        };
        self.scratch = scratch;
        next
    }

    fn typed(&mut self, at: usize, frame: &Frame<'_>, body: &Body<'_>, before: u64) -> Next {
        if let Body::Genesis(genesis) = body {
            self.report.genesis = Some(genesis.log);
        }
        if self.level >= Level::L1
            && let Err(e) = self.means(frame, body, before)
        {
            return self.break_at(at, e);
        }
        self.note(frame, body);
        if self.level >= Level::L2 {
            if let Err(finding) = self.authority.record(body) {
                return self.found(at, *finding);
            }
            if let Some(key) = self.authority.key() {
                self.hint.set(key);
            }
        }
        Next::Go
    }

    fn means(&self, frame: &Frame<'_>, body: &Body<'_>, before: u64) -> Result<(), Break> {
        meaning(self.report.id, frame, body, before, self.chain.sealed.size(), self.chain.epochs.next())
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
            | Body::KeyEpoch(_)
            | Body::ModeChange(_)
            | Body::Drill(_)
            | Body::Gap(_)
            | Body::Heartbeat(_)
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

    fn seal(&mut self, at: usize, seal: &SealLine, hash: Hash, signed_by: Option<[u8; 32]>) -> Next {
        if self.level >= Level::L1
            && let Err(e) = self.chain.seal(seal, hash)
        {
            return self.break_at(at, e);
        }
        if self.level >= Level::L2
            && let Err(finding) = self.authority.seal(seal, signed_by)
        {
            return self.found(at, *finding);
        }
        if self.level >= Level::L2 && !self.authority.is_known() {
            return Next::Go;
        }
        self.report.seals += 1;
        if self.level >= Level::L1 {
            let place = self.place(at);
            self.report.last_seal = Some(SealPoint { size: seal.size.0, root: seal.root.0, place });
            self.remember(seal);
        }
        Next::Go
    }

    /// A pin is made of a seal that is known to have reached the disk: a crash takes nothing of it, so that recovery cannot
    /// look like a fork.
    fn remember(&mut self, seal: &SealLine) {
        self.watch.seal(seal);
        self.unsynced.push_back(seal.clone());
        while self.unsynced.front().is_some_and(|s| s.size.0 < seal.synced.0) {
            self.unsynced.pop_front();
        }
        if let Some(synced) = self.unsynced.front().filter(|s| s.size.0 == seal.synced.0) {
            self.report.pinnable =
                Some(Pinned { size: synced.size.0, root: synced.root.0, note: synced.note() });
        }
        if self.unsynced.len() > MAX_UNSYNCED_SEALS {
            self.unsynced.pop_front();
        }
        self.last_seal = Some(seal.clone());
    }

    fn unknown(&mut self, at: usize, e: &FormError, leaf: Hash) -> Next {
        if self.level >= Level::L1
            && let Err(e) = self.chain.opaque(leaf)
        {
            return self.break_at(at, e);
        }
        let finding =
            Finding::of(Outcome::Inconclusive, format!("{e}: written by a newer program, or altered"));
        self.found(at, finding)
    }

    fn malformed(&mut self, at: usize, e: &FormError) -> Next {
        let within = match e {
            FormError::Frame { at, .. } | FormError::Spelling { at } => *at,
            FormError::UnknownVersion | FormError::UnknownType(_) | FormError::Body(_) => 0,
        };
        let place = self.place(at + within);
        self.broken(place, &e.to_string())
    }

    fn break_at(&mut self, at: usize, e: Break) -> Next {
        let mut finding = Finding::of(Outcome::Tampered, e.what);
        finding.expected = Some(e.expected);
        finding.found = Some(e.found);
        self.found(at, finding)
    }

    fn found(&mut self, at: usize, mut finding: Finding) -> Next {
        let stop = finding.outcome == Outcome::Tampered;
        finding.place = Some(self.place(at));
        if stop || self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        }
        if stop { Next::Stop } else { Next::Go }
    }

    fn broken(&mut self, place: Place, what: &str) -> Next {
        let mut finding = Finding::of(Outcome::Tampered, what);
        finding.place = Some(place);
        self.report.findings.push(finding);
        Next::Stop
    }

    fn grave(&mut self, what: impl Into<String>) {
        self.report.findings.push(Finding::of(Outcome::Tampered, what));
    }

    /// `at`: offset in the piece.
    fn place(&self, at: usize) -> Place {
        let byte = self.piece.byte + u64::try_from(at).unwrap_or(u64::MAX);
        Place { segment: self.piece.segment.to_string(), line: self.line, byte }
    }

    fn finish(mut self) -> LogReport {
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
            return self.report;
        }
        self.report.unsealed = self.chain.unsealed();
        if self.report.seals == 0 && self.report.findings.is_empty() {
            let what = "no seal: nothing here is signed";
            self.report.findings.push(Finding::of(Outcome::Inconclusive, what));
        } else if self.report.unsealed > 0 {
            self.unsealed_tail();
        }
        if self.form == Form::Relied {
            let what =
                "the spelling of decisions and outcomes: their bytes are proved, and nobody looked into them";
            self.report.not_covered.push(what.to_owned());
        }
        let roots = self.chain.watched_roots();
        let last = self.last_seal.as_ref().map(SealLine::note);
        self.watch.conclude(&mut self.report, &roots, self.chain.size, last);
        self.report
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
fn meaning(
    id: LogId,
    frame: &Frame<'_>,
    body: &Body<'_>,
    before: u64,
    sealed: u64,
    next_epoch: u64,
) -> Result<(), Break> {
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
        Body::KeyEpoch(e) if e.epoch.0 != next_epoch => {
            broken("epochs follow each other without a gap", next_epoch.to_string(), e.epoch.0.to_string())
        }
        Body::Genesis(_)
        | Body::KeyEpoch(_)
        | Body::ModeChange(_)
        | Body::Drill(_)
        | Body::Gap(_)
        | Body::Heartbeat(_)
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
