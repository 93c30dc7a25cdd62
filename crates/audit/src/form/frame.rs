//! The fixed part of every line, read and written by hand.

use super::body::Body;
use super::error::{FormError, first_difference};
use super::scalar::{Hex, MAX_INT};
use super::seal::SealLine;
use crate::hash::Hash;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal)*) => {
        /// The record types of version 1 that this program writes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every record type.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name in the `t` field.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            fn from_name(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() { return Some(Self::$kind); })*
                None
            }
        }
    };
}

kinds! {
    /// The first record: whose log this is.
    Genesis "genesis"
    /// A policy came into force.
    PolicyLoad "policy_load"
    /// A policy, rule or environment changed the way in which it counts.
    ModeChange "mode_change"
    /// One decision on one call.
    Decision "decision"
    /// What became of a permitted call.
    Outcome "outcome"
    /// An approval was asked for.
    Escalation "escalation"
    /// An approval was given, denied, used, expired or withdrawn.
    Approval "approval"
    /// An exercise began or ended.
    Drill "drill"
    /// The last record of an epoch: which key signs from here on.
    KeyEpoch "key_epoch"
    /// For a while calls were refused because nothing could be recorded.
    Gap "gap"
    /// The writer is alive, and this is how far the logs beside it are.
    Heartbeat "heartbeat"
    /// The writer came back after a crash.
    Recover "recover"
    /// A write or sync failed; the log stopped.
    IoError "io_error"
    /// The wall clock stepped back.
    ClockStep "clock_step"
    /// A process began to write.
    Open "open"
    /// A process stopped writing.
    Close "close"
}

/// What precedes the body of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// The type.
    pub kind: Kind,
    /// Number of the record in its log, from 0.
    pub seq: u64,
    /// Wall-clock time in microseconds since 1970.
    pub time: u64,
    /// Monotonic time of this boot in microseconds.
    pub mono: u64,
    /// Id of the boot.
    pub boot: Hex<16>,
}

/// One record line, taken apart. The body is not looked into yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What precedes the body.
    pub head: FrameHead,
    /// The fields of the body, without braces.
    pub body: &'a [u8],
    /// Hash of the seal line before this record; present exactly on the first record after a seal.
    pub seal: Option<Hash>,
    /// Hash of the record before.
    pub prev: Hash,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A record: a leaf of the tree.
    Record(Frame<'a>),
    /// A seal: not a leaf; it signs the tree.
    Seal(Box<SealLine>),
}

const START: &[u8] = b"{\"v\":1,\"t\":\"";
const PREV: &[u8] = b",\"prev\":\"";
const SEAL: &[u8] = b",\"seal\":\"";
const END: &[u8] = b"\"}";

struct Scan<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }

    fn literal(&mut self, text: &[u8], what: &'static str) -> Result<(), FormError> {
        if !self.rest().starts_with(text) {
            return Err(FormError::Frame { what, at: self.at });
        }
        self.at += text.len();
        Ok(())
    }

    fn until(&mut self, end: u8, most: usize, what: &'static str) -> Result<&'a [u8], FormError> {
        let taken = self.rest().iter().take(most).position(|b| *b == end);
        let taken = taken.and_then(|n| self.rest().get(..n)).ok_or(FormError::Frame { what, at: self.at })?;
        self.at += taken.len() + 1;
        Ok(taken)
    }

    fn number(&mut self, name: &'static [u8], what: &'static str) -> Result<u64, FormError> {
        self.literal(name, what)?;
        let at = self.at;
        let digits = self.until(b',', 17, what)?;
        let one_spelling = digits == b"0" || digits.first().is_some_and(|d| (b'1'..=b'9').contains(d));
        let number = digits.iter().try_fold(0_u64, |n, d| match d {
            b'0'..=b'9' => Some(n * 10 + u64::from(d - b'0')),
            _ => None,
        });
        match number {
            Some(n) if one_spelling && n <= MAX_INT => Ok(n),
            Some(_) | None => Err(FormError::Frame { what, at }),
        }
    }
}

/// Take a line (without its newline) apart.
///
/// # Errors
/// When the fixed part is not in its one spelling, or version or type are unknown.
pub fn parse_line(line: &[u8]) -> Result<Line<'_>, FormError> {
    let mut scan = Scan { line, at: 0 };
    if scan.literal(START, "{\"v\":1,\"t\":\"").is_err() {
        return Err(version_error(line));
    }
    let name = scan.until(b'"', 32, "a record type")?;
    if name == b"seal" {
        return SealLine::parse(line).map(|seal| Line::Seal(Box::new(seal)));
    }
    let kind = Kind::from_name(name)
        .ok_or_else(|| FormError::UnknownType(String::from_utf8_lossy(name).into_owned()))?;
    let seq = scan.number(b",\"seq\":", "`seq` with an integer")?;
    let time = scan.number(b"\"time\":", "`time` with an integer")?;
    let mono = scan.number(b"\"mono\":", "`mono` with an integer")?;
    scan.literal(b"\"boot\":\"", "`boot`")?;
    let at = scan.at;
    let boot = Hex::parse(scan.until(b'"', 40, "32 hex digits")?)
        .ok_or(FormError::Frame { what: "32 lower-case hex digits", at })?;
    scan.literal(b",", "a body")?;
    let (body, seal, prev) = parse_end(scan.rest(), scan.at)?;
    Ok(Line::Record(Frame { head: FrameHead { kind, seq, time, mono, boot }, body, seal, prev }))
}

fn version_error(line: &[u8]) -> FormError {
    let version = line.strip_prefix(b"{\"v\":").and_then(|rest| rest.first());
    match version {
        Some(b'0' | b'2'..=b'9') => FormError::UnknownVersion,
        Some(b'1') if line.get(6).is_some_and(u8::is_ascii_digit) => FormError::UnknownVersion,
        Some(_) | None => FormError::Frame { what: "{\"v\":1,\"t\":\"", at: first_difference(line, START) },
    }
}

type End<'a> = (&'a [u8], Option<Hash>, Hash);

fn parse_end(rest: &[u8], offset: usize) -> Result<End<'_>, FormError> {
    let wrong =
        |at: usize| FormError::Frame { what: "`prev` with 64 lower-case hex digits", at: offset + at };
    let (body, prev) = hash_at_end(rest, PREV, END).ok_or_else(|| wrong(rest.len()))?;
    let (body, seal) = match hash_at_end(body, SEAL, b"\"") {
        Some((body, seal)) => (body, Some(seal)),
        None => (body, None),
    };
    Ok((body, seal, prev))
}

fn hash_at_end<'a>(bytes: &'a [u8], name: &[u8], end: &[u8]) -> Option<(&'a [u8], Hash)> {
    let bytes = bytes.strip_suffix(end)?;
    let (bytes, digits) = bytes.split_last_chunk::<64>()?;
    Some((bytes.strip_suffix(name)?, Hex::parse(digits)?.0))
}

/// Write what precedes the body.
pub fn begin_line(out: &mut Vec<u8>, head: &FrameHead) {
    out.extend_from_slice(START);
    out.extend_from_slice(head.kind.name().as_bytes());
    push_number(out, b"\",\"seq\":", head.seq);
    push_number(out, b",\"time\":", head.time);
    push_number(out, b",\"mono\":", head.mono);
    out.extend_from_slice(b",\"boot\":\"");
    head.boot.push_to(out);
    out.extend_from_slice(b"\",");
}

fn push_number(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

/// Write what follows the body.
pub fn end_line(out: &mut Vec<u8>, seal: Option<&Hash>, prev: &Hash) {
    if let Some(seal) = seal {
        out.extend_from_slice(SEAL);
        Hex(*seal).push_to(out);
        out.push(b'"');
    }
    out.extend_from_slice(PREV);
    Hex(*prev).push_to(out);
    out.extend_from_slice(END);
}

/// Write the body: `json` is the object that [`Body::write_to`] makes; a frame holds it without its braces.
pub fn push_body(out: &mut Vec<u8>, json: &[u8]) {
    let fields = json.strip_prefix(b"{").and_then(|j| j.strip_suffix(b"}")).unwrap_or_default();
    out.extend_from_slice(fields);
}

impl Frame<'_> {
    /// Understand the body, and prove that it is in its one spelling by writing it again.
    ///
    /// # Errors
    /// When the fields do not fit the type, or are spelled differently.
    pub fn body_in<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<Body<'s>, FormError> {
        scratch.clear();
        scratch.push(b'{');
        scratch.extend_from_slice(self.body);
        scratch.push(b'}');
        let body = Body::parse(self.head.kind, scratch)?;
        let mut again = Vec::with_capacity(scratch.len());
        body.write_to(&mut again)?;
        if again == *scratch {
            Ok(body)
        } else {
            let before = body_offset(&self.head);
            Err(FormError::Spelling { at: before + first_difference(&again, scratch).saturating_sub(1) })
        }
    }
}

fn body_offset(head: &FrameHead) -> usize {
    let mut bytes = Vec::new();
    begin_line(&mut bytes, head);
    bytes.len()
}
