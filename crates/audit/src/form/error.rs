//! Why a line is not a line of a log.

/// A line that is not in the one permitted spelling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Another version than 1: written by a newer program, or altered.
    #[error("unknown version of the record format")]
    UnknownVersion,
    /// A record type this program does not know: written by a newer program, or altered.
    #[error("unknown record type `{0}`")]
    UnknownType(String),
    /// The fixed part of the line is wrong.
    #[error("{what} expected at byte {at} of the line")]
    Frame {
        /// What should be there.
        what: &'static str,
        /// Offset within the line.
        at: usize,
    },
    /// The body is not what its type has.
    #[error("the fields do not fit the record type: {0}")]
    Body(String),
    /// Understood, but spelled differently from how this format spells it.
    #[error(
        "not in the one permitted spelling (key order, white space, escapes, duplicate keys), from byte {at}"
    )]
    Spelling {
        /// Offset of the first differing byte within the line.
        at: usize,
    },
}

/// Offset of the first byte in which the two differ.
pub(crate) fn first_difference(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
