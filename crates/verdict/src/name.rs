//! Identifiers that are checked once, where they enter, and trusted afterwards.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that does not have the form its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a valid {kind}: {rule}")]
pub struct NameError {
    /// What the name was meant to be.
    pub kind: &'static str,
    /// The offending text, as given.
    pub given: String,
    /// The form it should have.
    pub rule: &'static str,
}

/// A stable reason code: upper-case ASCII words joined by `-`, 2 to 64 characters, such as `PAY-OVER-LIMIT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ReasonCode(Arc<str>);

impl ReasonCode {
    /// Parse a code.
    ///
    /// # Errors
    /// When the text is not 2 to 64 characters of `A-Z`, `0-9` and `-`, starting with a letter and not ending in `-`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let shape = (2..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_uppercase())
            && !text.ends_with('-')
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
        if shape {
            Ok(Self(text.into()))
        } else {
            Err(NameError {
                kind: "reason code",
                given: text.to_owned(),
                rule: "2 to 64 characters of A-Z, 0-9 and `-`, starting with a letter",
            })
        }
    }

    /// The code with the suffix `-UNKNOWN`: the rule matched because an attribute could not be known.
    #[must_use]
    pub fn unknown(&self) -> Self {
        Self(format!("{}-UNKNOWN", self.0).into())
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn builtin(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a policy rule: lower-case words joined by `-`, 1 to 64 characters. Built-in rules are `builtin:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Parse a rule id.
    ///
    /// # Errors
    /// When the text is not 1 to 64 characters of `a-z`, `0-9`, `-`, `_` and `.`, starting with a letter or digit.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let shape = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if shape {
            Ok(Self(text.into()))
        } else {
            Err(NameError {
                kind: "rule id",
                given: text.to_owned(),
                rule: "1 to 64 characters of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit",
            })
        }
    }

    /// The id of a rule that is part of govrun itself, not of a policy file.
    #[must_use]
    pub fn builtin(name: &'static str) -> Self {
        Self(format!("builtin:{name}").into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A BLAKE3 digest of public bytes (a component, a policy bundle, a list). Guest data is never digested unsalted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Parse `b3:` followed by 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            kind: "digest",
            given: text.to_owned(),
            rule: "`b3:` followed by 64 lower-case hexadecimal digits",
        };
        let hex = text.strip_prefix("b3:").ok_or_else(wrong)?;
        if hex.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong());
        }
        blake3::Hash::from_hex(hex).map(|h| Self(*h.as_bytes())).map_err(|_| wrong())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b3:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The random id of one log: 8 bytes, shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 8]);

impl LogId {
    /// Parse 16 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong =
            || NameError { kind: "log id", given: text.to_owned(), rule: "16 lower-case hexadecimal digits" };
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(wrong());
        }
        u64::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| wrong())
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for LogId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Wall-clock time: whole microseconds since 1970-01-01T00:00:00Z. Never negative; the clock that supplies it fails
/// closed instead of reporting 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time in whole milliseconds, rounded down.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_codes_have_one_form() {
        assert!(ReasonCode::new("PAY-OVER-LIMIT").is_ok());
        for bad in ["", "A", "pay", "PAY_X", "-PAY", "PAY-", "1PAY", &"A".repeat(65)] {
            assert!(ReasonCode::new(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn digests_round_trip_and_refuse_other_spellings() {
        let d = Digest::of(b"govrun");
        assert_eq!(Digest::parse(&d.to_string()), Ok(d));
        assert!(Digest::parse(&d.to_string().to_uppercase()).is_err());
        assert!(Digest::parse("b3:00").is_err());
    }

    #[test]
    fn log_ids_round_trip() {
        let id = LogId([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!(LogId::parse(&id.to_string()), Ok(id));
        assert!(LogId::parse("+001020304050607").is_err());
        assert!(LogId::parse("00010203040506FF").is_err());
    }
}
