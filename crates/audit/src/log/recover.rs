//! Reopening after a crash, by reading the end of the file only.
//!
//! The last seal names a size that is known to be on disk. From the seal of that size on, every line is checked again by
//! the rules of the chain; what is not a line of this log is moved to `quarantine/`. Damage before it cannot come from a
//! crash: the log is not continued.

use std::path::Path;

use govrun_verdict::Timestamp;

use super::SEGMENT;
use super::writer::State;
use crate::chain::Chain;
use crate::form::body::{self, Body};
use crate::form::{Frame, Int, Kind, Line, MAX_LINE, SealLine, Text, parse_line};
use crate::hash;
use crate::note::VerifierKey;
use crate::storage::{self, Storage};

/// First part of the file's end that is looked at, in bytes; four times as much whenever it is not enough.
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
}

/// Where a log is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Line, from 1; 0 when it could not be counted.
    pub line: u64,
    /// Offset of the line in the segment.
    pub byte: u64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SEGMENT}:{}:{}: {}", self.line, self.byte, self.what)
    }
}

impl RecoverError {
    pub(super) fn io(e: &std::io::Error) -> Self {
        Self::Io(e.to_string())
    }

    pub(super) fn damaged(line: u64, byte: u64, what: impl Into<String>) -> Self {
        Self::Damaged(Damage { line, byte, what: what.into() })
    }
}

/// A state to go on from, and the record that says what happened if the log was not closed.
pub(super) struct Resumed {
    pub(super) state: State,
    pub(super) recovered: Option<Body<'static>>,
}

/// One line of the window.
struct Piece<'a> {
    /// Offset in the file.
    at: u64,
    /// Without the newline.
    bytes: &'a [u8],
    /// False for what follows the last newline.
    whole: bool,
}

pub(super) fn resume(
    file: &dyn Storage,
    dir: &Path,
    key: &VerifierKey,
    now: Timestamp,
) -> Result<Resumed, RecoverError> {
    let size = file.size().map_err(|e| RecoverError::io(&e))?;
    let mut window = FIRST_WINDOW;
    loop {
        let start = size.saturating_sub(window);
        let mut bytes =
            vec![0; usize::try_from(size - start).map_err(|_| RecoverError::Io("too large".into()))?];
        storage::read_exact_at(file, &mut bytes, start).map_err(|e| RecoverError::io(&e))?;
        let pieces = pieces(&bytes, start);
        match find_anchor(&pieces, key) {
            Found::Anchor(chain, next) => return go_on(file, dir, key, now, *chain, &pieces, next),
            Found::Damaged(at, what) => return Err(RecoverError::damaged(count_lines(file, at)?, at, what)),
            Found::NotHere(what) if start == 0 => return Err(RecoverError::damaged(1, 0, what)),
            Found::NotHere(_) => window = window.saturating_mul(4),
        }
    }
}

/// Split the window into lines. The first is left out unless it begins the file: it may be the end of a longer one.
fn pieces(bytes: &[u8], start: u64) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut at = start;
    for piece in bytes.split_inclusive(|b| *b == b'\n') {
        let line = piece.strip_suffix(b"\n");
        pieces.push(Piece { at, bytes: line.unwrap_or(piece), whole: line.is_some() });
        at += length(piece);
    }
    if start > 0 && !pieces.is_empty() {
        pieces.remove(0);
    }
    pieces
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn seal_in(piece: &Piece<'_>, key: &VerifierKey) -> Option<SealLine> {
    if !piece.whole || !piece.bytes.starts_with(b"{\"v\":1,\"t\":\"seal\"") {
        return None;
    }
    SealLine::parse(piece.bytes).ok().filter(|seal| seal.verifies(key))
}

enum Found {
    /// The chain after the anchoring seal, and the index of the piece after it.
    Anchor(Box<Chain>, usize),
    Damaged(u64, String),
    NotHere(String),
}

/// The anchor is the last seal of the size that the last valid seal says is on disk.
fn find_anchor(pieces: &[Piece<'_>], key: &VerifierKey) -> Found {
    let mut seals =
        pieces.iter().enumerate().rev().filter_map(|(i, p)| seal_in(p, key).map(|seal| (i, seal)));
    let Some((last, newest)) = seals.next() else {
        return Found::NotHere("there is no seal of this log's key".into());
    };
    let synced = newest.synced.0;
    if synced == 0 {
        // Nothing but the making of the log, which begins with the file.
        return match pieces.first() {
            Some(first) if first.at == 0 => Found::Anchor(Box::new(Chain::start()), 0),
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
    let Some(tree) = seal.tree().filter(|tree| tree.root() == seal.root.0) else {
        let at = pieces.get(index).map_or(0, |p| p.at);
        return Found::Damaged(at, "the compact range of the seal is not that of its root".into());
    };
    let before = pieces.get(..index).unwrap_or_default();
    let line = pieces.get(index).map_or(hash::NOTHING, |p| hash::seal(p.bytes));
    match records_before(before, tree.size()) {
        Before::Chain(mut chain) => {
            chain.sealed = tree;
            chain.synced = synced;
            chain.last_seal = line;
            chain.seal_due = true;
            Found::Anchor(chain, index + 1)
        }
        Before::Damaged(at, what) => Found::Damaged(at, what),
        Before::NotHere => Found::NotHere(format!("record {} is missing", synced - 1)),
    }
}

enum Before {
    Chain(Box<Chain>),
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
        if !first {
            chain.pending.push_back(leaf);
        }
        chain.size = frame.head.seq + 1;
        chain.prev = leaf;
        chain.time = frame.head.time;
        chain.last_kind = Some(frame.head.kind);
    }
    Before::Chain(Box::new(chain))
}

/// Check the lines after the anchor, keep what belongs to the log and move the rest away.
fn go_on(
    file: &dyn Storage,
    dir: &Path,
    key: &VerifierKey,
    now: Timestamp,
    mut chain: Chain,
    pieces: &[Piece<'_>],
    next: usize,
) -> Result<Resumed, RecoverError> {
    let tail = pieces.get(next..).unwrap_or_default();
    let size = file.size().map_err(|e| RecoverError::io(&e))?;
    let start = tail.first().map_or(size, |p| p.at);
    let bad = tail.iter().find(|piece| !follows(&mut chain, piece, key)).map(|p| p.at);
    let end = bad.unwrap_or(size);
    let closed = chain.last_kind == Some(Kind::Close) && chain.unsealed() == 0 && bad.is_none();
    if closed {
        return Ok(Resumed { state: state(&chain, end, 0), recovered: None });
    }
    let quarantine =
        bad.map(|at| quarantine(file, dir, at, size, now)).transpose().map_err(|e| RecoverError::io(&e))?;
    rewrite(file, start, end).map_err(|e| RecoverError::io(&e))?;
    let body = Body::Recover(Box::new(body::Recover {
        sealed: Int(chain.sealed.size()),
        recovered: Int(chain.unsealed()),
        quarantined_bytes: Int(size - end),
        quarantine: quarantine.map(Text::from),
    }));
    Ok(Resumed { state: state(&chain, end, end - start), recovered: Some(body) })
}

fn follows(chain: &mut Chain, piece: &Piece<'_>, key: &VerifierKey) -> bool {
    if !piece.whole || piece.bytes.len() > MAX_LINE {
        return false;
    }
    match parse_line(piece.bytes) {
        Ok(Line::Record(frame)) => {
            frame.body_in(&mut Vec::new()).is_ok() && chain.record(&frame, hash::leaf(piece.bytes)).is_ok()
        }
        Ok(Line::Seal(seal)) => {
            // A seal that does not fit must leave no trace in the chain.
            let mut after = chain.clone();
            let fits = seal.verifies(key) && after.seal(&seal, hash::seal(piece.bytes)).is_ok();
            if fits {
                *chain = after;
            }
            fits
        }
        Err(_) => false,
    }
}

fn state(chain: &Chain, offset: u64, unsynced_bytes: u64) -> State {
    let mut tree = chain.sealed.clone();
    chain.pending.iter().for_each(|leaf| tree.push(*leaf));
    let mut state = State::empty();
    state.offset = offset;
    state.tree = tree;
    state.prev = chain.prev;
    state.time = chain.time;
    state.sealed = chain.sealed.size();
    state.last_seal = chain.last_seal;
    state.seal_due = chain.seal_due;
    state.synced = chain.synced;
    state.synced_said = chain.synced;
    state.unsynced_bytes = unsynced_bytes;
    state
}

/// Copy what is not of this log aside, on disk, before it is cut off.
fn quarantine(file: &dyn Storage, dir: &Path, at: u64, size: u64, now: Timestamp) -> std::io::Result<String> {
    let folder = dir.join("quarantine");
    storage::private_dir(&folder)?;
    let name = format!("00000001-{at}-{}.bin", now.0);
    let mut bytes = vec![0; usize::try_from(size - at).map_err(|_| std::io::ErrorKind::InvalidData)?];
    storage::read_exact_at(file, &mut bytes, at)?;
    let mut copy = std::fs::File::create_new(folder.join(&name))?;
    std::io::Write::write_all(&mut copy, &bytes)?;
    copy.sync_all()?;
    storage::sync_dir(&folder)?;
    storage::sync_dir(dir)?;
    file.truncate(at)?;
    Ok(name)
}

/// Write the unsynced end once more. After a failed sync the system may hold it in memory, call it clean and never write it
/// out; written again it is dirty, and the next sync means what it says.
fn rewrite(file: &dyn Storage, start: u64, end: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; usize::try_from(end - start).map_err(|_| std::io::ErrorKind::InvalidData)?];
    storage::read_exact_at(file, &mut bytes, start)?;
    storage::write_all_at(file, &bytes, start)?;
    file.sync()
}

fn count_lines(file: &dyn Storage, until: u64) -> Result<u64, RecoverError> {
    let (mut at, mut lines) = (0_u64, 1_u64);
    let mut bytes = vec![0; 1 << 16];
    while at < until {
        let wanted = usize::try_from(until - at).unwrap_or(usize::MAX).min(bytes.len());
        let chunk = bytes.get_mut(..wanted).unwrap_or_default();
        storage::read_exact_at(file, chunk, at).map_err(|e| RecoverError::io(&e))?;
        lines += chunk.iter().map(|b| u64::from(*b == b'\n')).sum::<u64>();
        at += length(chunk);
    }
    Ok(lines)
}
