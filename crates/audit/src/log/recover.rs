//! Reopening after a crash, by reading the end of the log only.
//!
//! The last seal names a size that is known to be on disk. From the seal of that size on, every line is checked again by
//! the rules of the chain; what is not a line of this log is moved to `quarantine/`. Damage before it cannot come from a
//! crash: the log is not continued.

use std::path::Path;

use govrun_verdict::Timestamp;

use super::segment::{Piece, Tail, segment_name};
use super::writer::{Position, State};
use crate::chain::{Chain, EpochOrder};
use crate::form::body::{self, Body};
use crate::form::{Frame, Int, Kind, Line, MAX_LINE, SealLine, Text, parse_line};
use crate::hash;
use crate::keys::Epochs;
use crate::storage::Disk;

/// First part of the log's end that is looked at, in bytes; four times as much whenever it is not enough.
const FIRST_WINDOW: u64 = 64 * 1024;

/// Why a log cannot be continued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// It could not be read or repaired.
    #[error("{0}")]
    Io(String),
    /// It is damaged below what was known to be on disk.
    #[error(
        "{0}; this was known to be on disk, so no crash did it: run `govrun audit verify`, keep the directory as evidence and start a new one"
    )]
    Damaged(Damage),
    /// It ends in an epoch whose seed was erased, which happens only when later records are on disk.
    #[error(
        "the log ends in epoch {log}, but its keys are in epoch {keys}: records were removed from its end, or an old copy of the directory or of the keys was put in place; run `govrun audit verify`, keep the directory as evidence and start a new one"
    )]
    RolledBack {
        /// Epoch at the end of the log.
        log: u64,
        /// Epoch of the seed.
        keys: u64,
    },
}

/// Where a log is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File name of the segment.
    pub segment: String,
    /// Line, from 1; 0 when it could not be counted.
    pub line: u64,
    /// Offset of the line in the segment.
    pub byte: u64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.segment, self.line, self.byte, self.what)
    }
}

impl RecoverError {
    pub(super) fn io(e: &std::io::Error) -> Self {
        Self::Io(e.to_string())
    }

    pub(super) fn beginning(what: impl Into<String>) -> Self {
        Self::Damaged(Damage { segment: segment_name(1), line: 1, byte: 0, what: what.into() })
    }
}

/// A state to go on from, and the record that says what happened if the log was not closed.
pub(super) struct Resumed {
    pub(super) state: State,
    pub(super) epochs: EpochOrder,
    pub(super) recovered: Option<Body<'static>>,
}

pub(super) fn resume(
    dir: &Path,
    keys: &Epochs,
    now: Timestamp,
    disk: &dyn Disk,
) -> Result<Resumed, RecoverError> {
    let tail = Tail::open(dir, disk)?;
    let size = tail.size();
    let mut window = FIRST_WINDOW;
    loop {
        let start = size.saturating_sub(window);
        let bytes = tail.read(start).map_err(|e| RecoverError::io(&e))?;
        let pieces = tail.pieces(&bytes, start);
        match find_anchor(&pieces, keys, tail.whole) {
            Found::Anchor(chain, next) => {
                let rest = pieces.get(next..).unwrap_or_default();
                let end = follow(*chain, rest, keys, size);
                return go_on(tail, end, keys, now, disk);
            }
            Found::Damaged(at, what) => return Err(tail.damage(at, what)),
            Found::NotHere(what) if start == 0 => return Err(RecoverError::beginning(what)),
            Found::NotHere(_) => window = window.saturating_mul(4),
        }
    }
}

fn seal_in(piece: &Piece<'_>, keys: &Epochs) -> Option<SealLine> {
    if !piece.whole || !piece.bytes.starts_with(b"{\"v\":1,\"t\":\"seal\"") {
        return None;
    }
    SealLine::parse(piece.bytes).ok().filter(|seal| is_ours(seal, keys))
}

fn is_ours(seal: &SealLine, keys: &Epochs) -> bool {
    keys.verifier(seal.epoch.0).is_some_and(|key| seal.verifies(&key))
}

enum Found {
    /// The chain after the anchoring seal, and the index of the piece after it.
    Anchor(Box<Chain>, usize),
    Damaged(u64, String),
    NotHere(String),
}

/// The anchor is the last seal of the size that the last valid seal says is on disk.
fn find_anchor(pieces: &[Piece<'_>], keys: &Epochs, whole: bool) -> Found {
    let mut seals =
        pieces.iter().enumerate().rev().filter_map(|(i, p)| seal_in(p, keys).map(|seal| (i, seal)));
    let Some((last, newest)) = seals.next() else {
        return Found::NotHere("there is no seal of this log's keys".into());
    };
    let synced = newest.synced.0;
    if synced == 0 {
        // Nothing but the making of the log, which begins with the file.
        return match pieces.first() {
            Some(first) if first.at == 0 && whole => Found::Anchor(Box::new(Chain::start()), 0),
            Some(_) | None => Found::NotHere("the beginning of the log is missing".into()),
        };
    }
    let anchor =
        if newest.size.0 == synced { Some((last, newest)) } else { seals.find(|(_, s)| s.size.0 == synced) };
    let Some((index, seal)) = anchor else {
        return Found::NotHere(format!(
            "the seal over {synced} records, which was on disk, is missing or altered"
        ));
    };
    anchored(pieces, index, &seal)
}

fn anchored(pieces: &[Piece<'_>], index: usize, seal: &SealLine) -> Found {
    let at = pieces.get(index).map_or(0, |p| p.at);
    let Some(tree) = seal.tree().filter(|tree| tree.root() == seal.root.0) else {
        return Found::Damaged(at, "the compact range of the seal is not that of its root".into());
    };
    let before = pieces.get(..index).unwrap_or_default();
    let line = pieces.get(index).map_or(hash::NOTHING, |p| hash::seal(p.bytes));
    match records_before(before, tree.size()) {
        Before::Chain(mut chain, begins) => {
            // A seal of the epoch that the record begins stands after that of the epoch that it ends.
            let ended = begins == Some(seal.epoch.0 + 1);
            chain.epochs = EpochOrder::after_seal(seal.epoch.0, ended.then_some(tree.size()));
            chain.synced = tree.size();
            chain.sealed = tree;
            chain.last_seal = line;
            chain.seal_due = true;
            Found::Anchor(chain, index + 1)
        }
        Before::Damaged(at, what) => Found::Damaged(at, what),
        Before::NotHere => Found::NotHere(format!("record {} is missing", tree.size() - 1)),
    }
}

enum Before {
    /// The chain, and the epoch that begins with the last record that the seal covers.
    Chain(Box<Chain>, Option<u64>),
    Damaged(u64, String),
    NotHere,
}

/// The records from the last one the seal covers up to the seal: their hashes, checked against each other.
fn records_before(pieces: &[Piece<'_>], size: u64) -> Before {
    let mut records: Vec<(&Piece<'_>, Frame<'_>)> = Vec::new();
    for piece in pieces.iter().rev() {
        match parse_line(piece.bytes) {
            Ok(Line::Seal(_)) => {}
            Ok(Line::Record(frame)) => {
                let last = frame.head.seq < size;
                records.push((piece, frame));
                if last {
                    return chain_of(&records, size);
                }
            }
            Err(e) => return Before::Damaged(piece.at, e.to_string()),
        }
    }
    Before::NotHere
}

/// `newest_first`: the records, the oldest being the last that the seal covers.
fn chain_of(newest_first: &[(&Piece<'_>, Frame<'_>)], size: u64) -> Before {
    let mut chain = Chain::start();
    let mut begins = None;
    for (piece, frame) in newest_first.iter().rev() {
        let leaf = hash::leaf(piece.bytes);
        let first = chain.size == 0;
        if first && frame.head.seq + 1 != size {
            return Before::Damaged(
                piece.at,
                format!("record {} expected, {} found", size - 1, frame.head.seq),
            );
        }
        if !first && (frame.head.seq != chain.size || frame.prev != chain.prev) {
            return Before::Damaged(
                piece.at,
                "the record before is not the one this was written after".into(),
            );
        }
        if first {
            begins = begun_by(frame);
        } else {
            chain.pending.push_back(leaf);
        }
        chain.size = frame.head.seq + 1;
        chain.prev = leaf;
        chain.time = frame.head.time;
        chain.last_kind = Some(frame.head.kind);
    }
    Before::Chain(Box::new(chain), begins)
}

fn begun_by(frame: &Frame<'_>) -> Option<u64> {
    match frame.body_in(&mut Vec::new()) {
        Ok(Body::KeyEpoch(record)) => Some(record.epoch.0),
        Ok(_) | Err(_) => None,
    }
}

/// What the lines after the anchor come to.
struct End {
    chain: Chain,
    /// Where the lines after the anchor begin.
    start: u64,
    /// Where the first begins that does not belong to the log.
    bad: Option<u64>,
    size: u64,
}

/// Check the lines after the anchor.
fn follow(mut chain: Chain, rest: &[Piece<'_>], keys: &Epochs, size: u64) -> End {
    let start = rest.first().map_or(size, |p| p.at);
    let bad = rest.iter().find(|piece| !follows(&mut chain, piece, keys)).map(|p| p.at);
    End { chain, start, bad, size }
}

/// A line that does not fit leaves no trace in the chain.
fn follows(chain: &mut Chain, piece: &Piece<'_>, keys: &Epochs) -> bool {
    if !piece.whole || piece.bytes.len() > MAX_LINE {
        return false;
    }
    if piece.opens {
        chain.begin_segment();
    }
    match parse_line(piece.bytes) {
        Ok(Line::Record(frame)) => {
            frame.body_in(&mut Vec::new()).is_ok() && chain.record(&frame, hash::leaf(piece.bytes)).is_ok()
        }
        Ok(Line::Seal(seal)) => {
            let mut after = chain.clone();
            let fits = is_ours(&seal, keys) && after.seal(&seal, hash::seal(piece.bytes)).is_ok();
            if fits {
                *chain = after;
            }
            fits
        }
        Err(_) => false,
    }
}

/// Keep what belongs to the log and move the rest away.
fn go_on(
    mut tail: Tail,
    end: End,
    keys: &Epochs,
    now: Timestamp,
    disk: &dyn Disk,
) -> Result<Resumed, RecoverError> {
    let End { chain, start, bad, size } = end;
    check_epoch(&chain, keys)?;
    let stop = bad.unwrap_or(size);
    let closed = chain.last_kind == Some(Kind::Close) && chain.unsealed() == 0 && bad.is_none();
    let name =
        bad.map(|at| tail.quarantine(at, now.0, disk)).transpose().map_err(|e| RecoverError::io(&e))?;
    tail.cut(stop, disk).map_err(|e| RecoverError::io(&e))?;
    let epochs = chain.epochs;
    if closed {
        return Ok(Resumed { state: state(&chain, &tail, 0)?, epochs, recovered: None });
    }
    tail.rewrite(start, stop).map_err(|e| RecoverError::io(&e))?;
    // An epoch that was ending has its last record alone unsealed, and that is sealed before anything else is written.
    let ending = epochs.is_open_ended();
    let body = Body::Recover(Box::new(body::Recover {
        sealed: Int(if ending { chain.size } else { chain.sealed.size() }),
        recovered: Int(if ending { 0 } else { chain.unsealed() }),
        quarantined_bytes: Int(size - stop),
        quarantine: name.map(Text::from),
    }));
    Ok(Resumed { state: state(&chain, &tail, stop - start)?, epochs, recovered: Some(body) })
}

/// A seed is erased only when the seal that ends its epoch is on disk, so no crash can leave the keys ahead of the log.
fn check_epoch(chain: &Chain, keys: &Epochs) -> Result<(), RecoverError> {
    let (log, keys) = (chain.epochs.next(), keys.epoch());
    let ended_here = chain.epochs.is_ended();
    let fits = keys == log && !chain.epochs.is_open_ended() || ended_here && keys + 1 == log;
    if fits { Ok(()) } else { Err(RecoverError::RolledBack { log, keys }) }
}

fn state(chain: &Chain, tail: &Tail, unsynced_bytes: u64) -> Result<State, RecoverError> {
    let mut tree = chain.sealed.clone();
    chain.pending.iter().for_each(|leaf| tree.push(*leaf));
    let part = tail.parts.last().ok_or_else(|| RecoverError::beginning("there is no segment"))?;
    let began = first_time(&*part.file, part.size).unwrap_or(chain.time);
    let mut state =
        State::at(Position { file: part.file.clone(), number: part.number, offset: part.size, began });
    state.tree = tree;
    state.prev = chain.prev;
    state.time = chain.time;
    state.sealed = chain.sealed.size();
    state.last_seal = chain.last_seal;
    state.seal_due = chain.seal_due;
    state.synced = chain.synced;
    state.synced_said = chain.synced;
    state.unsynced_bytes = unsynced_bytes;
    Ok(state)
}

/// Time of the first record of a segment, if it is among its first lines.
fn first_time(file: &dyn crate::storage::Storage, size: u64) -> Option<u64> {
    let mut bytes = vec![0; usize::try_from(size.min(16 * 1024)).ok()?];
    crate::storage::read_exact_at(file, &mut bytes, 0).ok()?;
    bytes.split(|b| *b == b'\n').find_map(|line| match parse_line(line) {
        Ok(Line::Record(frame)) => Some(frame.head.time),
        Ok(Line::Seal(_)) | Err(_) => None,
    })
}
