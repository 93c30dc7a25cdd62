//! Reading records back, to show and explain them. A reader believes what it reads: to know whether a log can be believed,
//! verify it.

use std::collections::{BTreeMap, VecDeque};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use govrun_verdict::{DecisionId, LogId};

use crate::commit::Opening;
use crate::form::body::Body;
use crate::form::{FormError, FrameHead, Line, MAX_LINE, Text, parse_line};
use crate::lines::{LineEnd, Lines, segments};
use crate::log::{OPENINGS, log_ids};
use crate::storage::open_read;

/// A log that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        error: String,
    },
    /// A line is not a line of a log.
    #[error("{}:{line}:{byte}: {error}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Offset of the line.
        byte: u64,
        /// Why not.
        error: FormError,
    },
}

impl ReadError {
    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), error: error.to_string() }
    }
}

/// The logs under a directory, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn logs(dir: &Path) -> std::io::Result<Vec<LogId>> {
    log_ids(dir)
}

/// One record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The log it stands in.
    pub log: LogId,
    /// Type, number and times.
    pub head: FrameHead,
    /// The line without its newline.
    pub line: Vec<u8>,
}

impl Record {
    /// The id a decision of this number has.
    #[must_use]
    pub const fn id(&self) -> DecisionId {
        DecisionId { log: self.log, seq: self.head.seq }
    }

    /// The typed body, borrowed from `scratch`.
    ///
    /// # Errors
    /// When the line is not in its one spelling.
    pub fn body<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<Body<'s>, FormError> {
        match parse_line(&self.line)? {
            Line::Record(frame) => frame.body_in(scratch),
            Line::Seal(_) => Err(FormError::Frame { what: "a record", at: 0 }),
        }
    }
}

/// The records of one log, in the order they were written. Ends at a torn last line.
pub(crate) struct LogRecords {
    log: LogId,
    segments: VecDeque<PathBuf>,
    open: Option<(PathBuf, Lines)>,
}

impl LogRecords {
    pub(crate) fn new(dir: &Path, log: LogId) -> Result<Self, ReadError> {
        let path = dir.join(log.to_string());
        let (segments, _) = segments(&path).map_err(|e| ReadError::io(&path, &e))?;
        Ok(Self { log, segments: segments.into(), open: None })
    }

    pub(crate) fn read(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            let Some((path, lines)) = &mut self.open else {
                let Some(path) = self.segments.pop_front() else { return Ok(None) };
                let lines = Lines::open(&path).map_err(|e| ReadError::io(&path, &e))?;
                self.open = Some((path, lines));
                continue;
            };
            let Some(raw) = lines.next().map_err(|e| ReadError::io(path, &e))? else {
                self.open = None;
                continue;
            };
            match (raw.end, parse_line(raw.bytes)) {
                (LineEnd::EndOfFile, _) => return Ok(None),
                (LineEnd::Newline, Ok(Line::Seal(_))) => {}
                (LineEnd::Newline, Ok(Line::Record(frame))) => {
                    return Ok(Some(Record { log: self.log, head: frame.head, line: raw.bytes.to_vec() }));
                }
                (LineEnd::TooLong, _) => {
                    return Err(form(path, &raw, FormError::Body("a line is too long".into())));
                }
                (LineEnd::Newline, Err(e)) => return Err(form(path, &raw, e)),
            }
        }
    }
}

fn form(path: &Path, raw: &crate::lines::RawLine<'_>, error: FormError) -> ReadError {
    ReadError::Form { path: path.to_owned(), line: raw.number, byte: raw.byte, error }
}

/// The records of all logs under a directory, merged by time. Within one log the order is always that of writing.
pub struct Records {
    logs: Vec<(LogRecords, Option<Record>)>,
    failed: Option<ReadError>,
}

impl Records {
    /// Read all logs under a directory.
    ///
    /// # Errors
    /// When the directory or a log cannot be opened, or a first record cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let ids = log_ids(dir).map_err(|e| ReadError::io(dir, &e))?;
        let mut logs = Vec::new();
        for id in ids {
            let mut log = LogRecords::new(dir, id)?;
            let first = log.read()?;
            logs.push((log, first));
        }
        Ok(Self { logs, failed: None })
    }
}

impl Iterator for Records {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.logs.clear();
            return Some(Err(error));
        }
        let time = |r: &Record| (r.head.time, r.log, r.head.seq);
        let ready = self.logs.iter_mut().filter(|(_, next)| next.is_some());
        let (log, next) = ready.min_by_key(|(_, next)| next.as_ref().map(time))?;
        let record = next.take()?;
        match log.read() {
            Ok(following) => *next = following,
            // What was read before the error is still handed out.
            Err(error) => self.failed = Some(error),
        }
        Some(Ok(record))
    }
}

/// The record with this id, whatever its type; `None` when the log is not there or has no such record.
///
/// # Errors
/// When the log cannot be read.
pub fn record(dir: &Path, id: DecisionId) -> Result<Option<Record>, ReadError> {
    if !dir.join(id.log.to_string()).is_dir() {
        return Ok(None);
    }
    let mut log = LogRecords::new(dir, id.log)?;
    while let Some(record) = log.read()? {
        if record.head.seq == id.seq {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// A small file of text, such as a checkpoint. Links are not followed.
///
/// # Errors
/// When it cannot be read, is longer than `most` bytes, or not UTF-8.
pub fn small_file(path: &Path, most: usize) -> std::io::Result<String> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(open_read(path)?, limit), &mut text)?;
    if text.len() > most {
        return Err(std::io::Error::other(format!("longer than {most} bytes")));
    }
    Ok(text)
}

/// Goes through the records of all logs once, and later through those that were written since.
pub struct Follower {
    dir: PathBuf,
    /// Segment and byte up to which each log was read.
    seen: BTreeMap<LogId, (usize, u64)>,
}

impl Follower {
    /// Begin before the first record.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        log_ids(dir).map_err(|e| ReadError::io(dir, &e))?;
        Ok(Self { dir: dir.to_owned(), seen: BTreeMap::new() })
    }

    /// Every record that was not handed out yet, log by log. A line that is being written is left for the next time.
    ///
    /// # Errors
    /// When a log cannot be read or holds something else than lines, or `each` fails.
    pub fn each(&mut self, mut each: impl FnMut(&Record) -> Result<(), FormError>) -> Result<(), ReadError> {
        for log in log_ids(&self.dir).map_err(|e| ReadError::io(&self.dir, &e))? {
            self.log(log, &mut each)?;
        }
        Ok(())
    }

    fn log(
        &mut self,
        log: LogId,
        each: &mut impl FnMut(&Record) -> Result<(), FormError>,
    ) -> Result<(), ReadError> {
        let dir = self.dir.join(log.to_string());
        let (segments, _) = segments(&dir).map_err(|e| ReadError::io(&dir, &e))?;
        let (first, mut from) = self.seen.get(&log).copied().unwrap_or((0, 0));
        for (number, path) in segments.iter().enumerate().skip(first) {
            let mut lines = Lines::open_from(path, from).map_err(|e| ReadError::io(path, &e))?;
            while let Some(raw) = lines.next().map_err(|e| ReadError::io(path, &e))? {
                if raw.end != LineEnd::Newline {
                    break;
                }
                from = raw.byte + u64::try_from(raw.bytes.len()).unwrap_or(u64::MAX) + 1;
                match parse_line(raw.bytes) {
                    Ok(Line::Seal(_)) => {}
                    Ok(Line::Record(frame)) => {
                        let record = Record { log, head: frame.head, line: raw.bytes.to_vec() };
                        each(&record).map_err(|e| form(path, &raw, e))?;
                    }
                    Err(e) => return Err(form(path, &raw, e)),
                }
            }
            self.seen.insert(log, (number, from));
            from = 0;
        }
        Ok(())
    }
}

/// A decision and every record about it, in the order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The decision.
    pub decision: Record,
    /// Its outcome, escalation and approvals, and the decisions made under it.
    pub about: Vec<Record>,
}

/// Find a decision by its id, with everything that refers to it. Looks through all logs: an approval may have been recorded
/// by another process.
///
/// # Errors
/// When a log cannot be read.
pub fn find(dir: &Path, id: DecisionId) -> Result<Option<Story>, ReadError> {
    let quoted = format!("\"{id}\"");
    let mut decision = None;
    let mut about = Vec::new();
    for record in Records::open(dir)? {
        let record = record?;
        if record.id() == id && record.head.kind == crate::form::Kind::Decision {
            decision = Some(record);
        } else if contains(&record.line, quoted.as_bytes()) && refers(&record, id) {
            about.push(record);
        }
    }
    Ok(decision.map(|decision| Story { decision, about }))
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|w| w == text)
}

fn refers(record: &Record, id: DecisionId) -> bool {
    match record.body(&mut Vec::new()) {
        Ok(Body::Decision(d)) => d.parent == Some(id),
        Ok(Body::Outcome(o)) => o.decision == id,
        Ok(Body::Escalation(e)) => e.decision == id,
        Ok(Body::Approval(a)) => a.decision == id || a.used_by == Some(id),
        Ok(
            Body::Genesis(_)
            | Body::PolicyLoad(_)
            | Body::ModeChange(_)
            | Body::Drill(_)
            | Body::KeyEpoch(_)
            | Body::Gap(_)
            | Body::Heartbeat(_)
            | Body::Recover(_)
            | Body::IoError(_)
            | Body::ClockStep(_)
            | Body::Open(_)
            | Body::Close(_),
        )
        | Err(_) => false,
    }
}

/// The openings kept for one record; empty when there are none any more. Whether one really opens a commitment is for
/// [`Opening::opens`] to say.
///
/// # Errors
/// When the file is there and cannot be read, or holds something else than openings.
pub fn openings(dir: &Path, id: DecisionId) -> Result<Vec<Opening<'static>>, ReadError> {
    let mut lines = OpeningLines::open(dir, id.log)?;
    let mut found = Vec::new();
    while let Some((opening, _)) = lines.next()? {
        if opening.log == id.log && opening.seq.0 == id.seq {
            found.push(opening);
        }
    }
    Ok(found)
}

/// The openings of a log, one after the other. A file that is not there has none.
struct OpeningLines {
    path: PathBuf,
    file: Option<std::io::BufReader<std::fs::File>>,
    line: Vec<u8>,
    number: u64,
    byte: u64,
}

impl OpeningLines {
    fn open(dir: &Path, log: LogId) -> Result<Self, ReadError> {
        let path = dir.join(log.to_string()).join(OPENINGS);
        let file = match open_read(&path) {
            Ok(file) => Some(std::io::BufReader::new(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(ReadError::io(&path, &e)),
        };
        Ok(Self { path, file, line: Vec::new(), number: 0, byte: 0 })
    }

    /// The next opening, and the length of its line.
    fn next(&mut self) -> Result<Option<(Opening<'static>, usize)>, ReadError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        self.line.clear();
        let longest = u64::try_from(4 * MAX_LINE).unwrap_or(u64::MAX);
        let read = std::io::Read::take(file, longest).read_until(b'\n', &mut self.line);
        let read = read.map_err(|e| ReadError::io(&self.path, &e))?;
        // A torn last line belongs to a record that was never acknowledged.
        if self.line.pop() != Some(b'\n') {
            self.file = None;
            return Ok(None);
        }
        self.number += 1;
        let opening: Opening<'_> = serde_json::from_slice(&self.line).map_err(|e| ReadError::Form {
            path: self.path.clone(),
            line: self.number,
            byte: self.byte,
            error: FormError::Body(e.to_string()),
        })?;
        self.byte += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(Some((owned(opening), read)))
    }
}

/// Openings by ascending record number, in one pass over the file. They stand in it in about the order of the records: those
/// that are further out of order than [`OPENINGS_AHEAD`] are not found.
pub(crate) struct OpeningsInOrder {
    lines: OpeningLines,
    ahead: BTreeMap<u64, Vec<Opening<'static>>>,
    /// Bytes of all that were read since none was kept last.
    bytes: usize,
    furthest: u64,
}

/// How many records further than the one asked for is read.
const OPENINGS_AHEAD: u64 = 4_096;
/// Most bytes of openings that are kept for records to come.
const MAX_OPENINGS_AHEAD: usize = 16 << 20;

impl OpeningsInOrder {
    pub(crate) fn open(dir: &Path, log: LogId) -> Result<Self, ReadError> {
        let lines = OpeningLines::open(dir, log)?;
        Ok(Self { lines, ahead: BTreeMap::new(), bytes: 0, furthest: 0 })
    }

    /// Those of this record. Record numbers must ascend from call to call.
    pub(crate) fn of(&mut self, seq: u64) -> Result<Vec<Opening<'static>>, ReadError> {
        self.ahead = self.ahead.split_off(&seq);
        if self.ahead.is_empty() {
            self.bytes = 0;
        }
        while self.furthest <= seq.saturating_add(OPENINGS_AHEAD) && self.bytes < MAX_OPENINGS_AHEAD {
            let Some((opening, length)) = self.lines.next()? else { break };
            self.furthest = self.furthest.max(opening.seq.0);
            if opening.seq.0 >= seq {
                self.bytes += length;
                self.ahead.entry(opening.seq.0).or_default().push(opening);
            }
        }
        Ok(self.ahead.remove(&seq).unwrap_or_default())
    }
}

fn owned(opening: Opening<'_>) -> Opening<'static> {
    Opening {
        log: opening.log,
        seq: opening.seq,
        field: Text::from(opening.field.0.into_owned()),
        salt: opening.salt,
        value: opening.value.0.into_owned().into(),
    }
}
