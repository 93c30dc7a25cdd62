//! Reading records back, to show and explain them. A reader believes what it reads: to know whether a log can be believed,
//! verify it.

use std::collections::VecDeque;
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
struct LogRecords {
    log: LogId,
    segments: VecDeque<PathBuf>,
    open: Option<(PathBuf, Lines)>,
}

impl LogRecords {
    fn new(dir: &Path, log: LogId) -> Result<Self, ReadError> {
        let path = dir.join(log.to_string());
        let (segments, _) = segments(&path).map_err(|e| ReadError::io(&path, &e))?;
        Ok(Self { log, segments: segments.into(), open: None })
    }

    fn read(&mut self) -> Result<Option<Record>, ReadError> {
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
    let path = dir.join(id.log.to_string()).join(OPENINGS);
    let file = match open_read(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(ReadError::io(&path, &e)),
    };
    let mut lines = std::io::BufReader::new(file);
    let mut found = Vec::new();
    let (mut line, mut number, mut byte) = (Vec::new(), 0_u64, 0_u64);
    loop {
        line.clear();
        let longest = u64::try_from(4 * MAX_LINE).unwrap_or(u64::MAX);
        let read = std::io::Read::take(&mut lines, longest).read_until(b'\n', &mut line);
        let read = read.map_err(|e| ReadError::io(&path, &e))?;
        // A torn last line belongs to a record that was never acknowledged.
        if line.pop() != Some(b'\n') {
            return Ok(found);
        }
        number += 1;
        let opening: Opening<'_> = serde_json::from_slice(&line).map_err(|e| ReadError::Form {
            path: path.clone(),
            line: number,
            byte,
            error: FormError::Body(e.to_string()),
        })?;
        byte += u64::try_from(read).unwrap_or(u64::MAX);
        if opening.log == id.log && opening.seq.0 == id.seq {
            found.push(owned(opening));
        }
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
