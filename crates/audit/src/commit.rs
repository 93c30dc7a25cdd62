//! Salted commitments to guest data, and the openings that can disclose them later.
//!
//! A commitment is BLAKE3 keyed with a random 32-byte salt over
//! `len(domain) ‖ domain ‖ len(name) ‖ name ‖ len(value) ‖ value`, lengths as 8 bytes little-endian, the value as the JSON
//! that a clear field would have. Without the salt nothing about the value can be learnt, however few values are possible.

use govrun_verdict::LogId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::form::{Hex, Int, Json, Text};

const DOMAIN: &[u8] = b"govrun audit field commitment v1";

/// The commitment to `value` (as JSON) of the field `name` under `salt`.
#[must_use]
pub fn commitment(salt: &[u8; 32], name: &str, value: &[u8]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_keyed(salt);
    for part in [DOMAIN, name.as_bytes(), value] {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    *hash.finalize().as_bytes()
}

/// One line of `openings.jsonl`: discloses one field of one record. Deleting it never breaks the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening<'a> {
    /// The log.
    pub log: LogId,
    /// The record.
    pub seq: Int,
    /// The field.
    #[serde(borrow)]
    pub field: Text<'a>,
    /// The salt.
    pub salt: Hex<32>,
    /// The value.
    pub value: Json<'a>,
}

impl Opening<'_> {
    /// Whether this opens the commitment.
    #[must_use]
    pub fn opens(&self, commitment: &[u8; 32]) -> bool {
        serde_json::to_vec(&self.value)
            .is_ok_and(|value| self::commitment(&self.salt.0, &self.field, &value) == *commitment)
    }
}

const POOL: usize = 4_096;

/// Random salts, drawn from the operating system a page at a time and never used twice.
pub(crate) struct Salts {
    pool: Zeroizing<Vec<u8>>,
}

impl Salts {
    pub(crate) fn new() -> Self {
        Self { pool: Zeroizing::new(Vec::new()) }
    }

    pub(crate) fn draw(&mut self) -> Result<[u8; 32], getrandom::Error> {
        if self.pool.is_empty() {
            let mut fresh = vec![0; POOL];
            getrandom::fill(&mut fresh)?;
            *self.pool = fresh;
        }
        let start = self.pool.len().saturating_sub(32);
        let mut salt = [0; 32];
        if let Some(bytes) = self.pool.get_mut(start..) {
            salt.copy_from_slice(bytes);
            bytes.fill(0);
        }
        self.pool.truncate(start);
        Ok(salt)
    }
}
