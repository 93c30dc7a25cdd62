//! What can be said of each line on its own: its form, its hash, and mostly its signature. Done by many threads at once.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::piece::Piece;
use super::{Form, Level};
use crate::form::{FormError, Frame, FrameHead, Kind, Line, MAX_LINE, SealLine, parse_line};
use crate::hash::{self, Hash};
use crate::note::VerifierKey;

/// One line of a piece.
pub(super) struct Item {
    /// Where it is in the piece, without its newline.
    pub(super) at: Range<usize>,
    pub(super) what: What,
}

/// What a line is.
pub(super) enum What {
    Record { head: FrameHead, body: Range<usize>, seal: Option<Hash>, prev: Hash, leaf: Hash },
    Seal { seal: Box<SealLine>, hash: Hash, signed_by: Option<[u8; 32]> },
    Unknown { error: FormError, leaf: Hash },
    Malformed(FormError),
    TooLong,
}

/// The key that the last seals were signed with, so that threads can check signatures ahead. It is only a hint: what counts is
/// the key that the chain of records names, and a seal that was checked under another is checked again.
#[derive(Default)]
pub(super) struct Hint(Mutex<Option<Arc<VerifierKey>>>);

impl Hint {
    pub(super) fn set(&self, key: &VerifierKey) {
        if let Ok(mut hint) = self.0.lock()
            && hint.as_deref() != Some(key)
        {
            *hint = Some(Arc::new(key.clone()));
        }
    }

    fn get(&self) -> Option<Arc<VerifierKey>> {
        self.0.lock().ok().and_then(|hint| hint.clone())
    }
}

/// Look at every line of a piece. Stops at the first that is malformed: what follows does not count.
pub(super) fn scan(piece: &Piece, level: Level, form: Form, hint: &Hint) -> Vec<Item> {
    let mut items = Vec::with_capacity(piece.bytes.len() / 700);
    let key = if level >= Level::L2 { hint.get() } else { None };
    let mut scratch = Vec::new();
    let mut start = 0;
    for line in piece.bytes.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let at = start..start + line.len();
        start = at.end + 1;
        let what = if line.len() > MAX_LINE {
            What::TooLong
        } else {
            look(line, level, form, key.as_deref(), &mut scratch)
        };
        let last = matches!(what, What::Malformed(_) | What::TooLong);
        items.push(Item { at, what });
        if last {
            break;
        }
    }
    items
}

fn look(line: &[u8], level: Level, form: Form, key: Option<&VerifierKey>, scratch: &mut Vec<u8>) -> What {
    match parse_line(line) {
        Ok(Line::Record(frame)) => record(line, &frame, level, form, scratch),
        Ok(Line::Seal(seal)) => {
            let signed_by = key.filter(|key| seal.key.0 == key.id() && seal.verifies(key));
            What::Seal { hash: hash::seal(line), signed_by: signed_by.map(|key| *key.public()), seal }
        }
        Err(error @ (FormError::UnknownType(_) | FormError::UnknownVersion)) => {
            What::Unknown { error, leaf: hash::leaf(line) }
        }
        Err(error) => What::Malformed(error),
    }
}

fn record(line: &[u8], frame: &Frame<'_>, level: Level, form: Form, scratch: &mut Vec<u8>) -> What {
    if (form == Form::All || relied_on(frame.head.kind))
        && let Err(error) = frame.body_in(scratch)
    {
        return What::Malformed(error);
    }
    let leaf = if level >= Level::L1 { hash::leaf(line) } else { hash::NOTHING };
    // The body is a part of the line: its place is told by what stands after it.
    let end = line.len() - tail_length(frame.seal.is_some()).min(line.len());
    let body = end.saturating_sub(frame.body.len())..end;
    What::Record { head: frame.head, body, seal: frame.seal, prev: frame.prev, leaf }
}

/// Bytes of a line after its body.
const fn tail_length(sealed: bool) -> usize {
    const PREV: usize = ",\"prev\":\"".len() + 64 + "\"}".len();
    const SEAL: usize = ",\"seal\":\"".len() + 64 + "\"".len();
    if sealed { PREV + SEAL } else { PREV }
}

/// Types whose bodies the verifier draws conclusions from: their form is always proved.
pub(super) const fn relied_on(kind: Kind) -> bool {
    match kind {
        Kind::Decision | Kind::Outcome => false,
        Kind::Genesis
        | Kind::PolicyLoad
        | Kind::ModeChange
        | Kind::Drill
        | Kind::KeyEpoch
        | Kind::Gap
        | Kind::Heartbeat
        | Kind::Escalation
        | Kind::Approval
        | Kind::Recover
        | Kind::IoError
        | Kind::ClockStep
        | Kind::Open
        | Kind::Close => true,
    }
}
