//! The bytes of a log: one JSON object per line, in one spelling. What is hashed is the stored line; the spelling is
//! proved by encoding what was understood and comparing (`docs/formats/audit-log.md` has the format with worked bytes).
//!
//! A record line is a frame around a body. The frame (`v t seq time mono boot … [seal] prev`) is the same for every type
//! and is read without a JSON parser; the body is one typed struct per record type.

pub mod body;
mod decision;
mod error;
mod frame;
mod keeping;
mod scalar;
mod seal;
mod value;

pub use body::Body;
pub use error::FormError;
pub use frame::{Frame, FrameHead, Kind, Line, begin_line, end_line, parse_line, push_body};
pub use scalar::{B64, Hex, Int, MAX_INT, Text};
pub use seal::{Checkpoint, SealLine};
pub use value::Json;

/// Longest line of a log, in bytes without the newline. Longer ones are never written and never read into memory.
pub const MAX_LINE: usize = 1 << 20;

/// Most records that may be waiting for a seal. The writer waits at this bound, so a verifier needs no more memory.
pub const MAX_UNSEALED: usize = 4_096;
