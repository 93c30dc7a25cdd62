//! Tickets.

use std::fmt;
use std::sync::Arc;

use govrun_verdict::NameError;

use crate::error::{Result, StoreError};

/// Crockford's base 32: no letter that reads like a digit.
const ALPHABET: [char; 32] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'j', 'k', 'm',
    'n', 'p', 'q', 'r', 's', 't', 'v', 'w', 'x', 'y', 'z',
];
const PREFIX: &str = "apr-";
/// 13 characters of 5 bits: 65 random bits.
const LENGTH: usize = 13;

/// The id of an approval, such as `apr-7k3m9q2x4v8n5`: 65 random bits, so that nobody guesses another's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(Arc<str>);

impl ApprovalId {
    /// A new random id.
    pub(crate) fn random() -> Result<Self> {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
        // 256 is a multiple of 32, so every character is equally likely.
        let drawn = bytes.iter().filter_map(|b| ALPHABET.get(usize::from(b % 32)));
        Ok(Self(PREFIX.chars().chain(drawn.copied()).collect::<String>().into()))
    }

    /// Parse an id as it is shown; upper case is accepted.
    ///
    /// # Errors
    /// When the text is not `apr-` and 13 characters of `0-9` and `a-z` without `i`, `l`, `o` and `u`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let shape = lower.strip_prefix(PREFIX).is_some_and(|rest| {
            rest.chars().count() == LENGTH && rest.chars().all(|c| ALPHABET.contains(&c))
        });
        if shape {
            return Ok(Self(lower.into()));
        }
        Err(NameError {
            kind: "approval id",
            given: text.to_owned(),
            rule: "`apr-` and 13 characters of 0-9 and a-z without i, l, o and u, such as apr-7k3m9q2x4v8n5",
        })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1_000).map(|_| ApprovalId::random().unwrap()).collect();
        assert_eq!(ids.len(), 1_000);
        for id in ids {
            assert_eq!(ApprovalId::parse(&id.to_string().to_uppercase()), Ok(id));
        }
        for bad in ["", "apr-", "apr-7k3m9q2x", "apr-7k3m9q2x4v8nl", "7k3m9q2x4v8n5", "apr-7k3m9q2x4v8n5 "] {
            assert!(ApprovalId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
