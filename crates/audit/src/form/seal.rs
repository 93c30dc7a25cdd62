//! Seal lines and the checkpoint they rebuild.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};

use super::error::{FormError, first_difference};
use super::scalar::{B64, Hex, Int};
use crate::hash::{Hash, Tree};
use crate::note::{self, VerifierKey};

/// What a seal signs: a C2SP checkpoint (origin, size, root) with one extension line, the size known to be on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Origin of the log: the trust file's origin, `/`, the log id.
    pub origin: String,
    /// Number of records covered.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
    /// Number of records known to have reached the disk when this was signed.
    pub synced: u64,
}

impl Checkpoint {
    /// The signed text, with its final newline.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { origin, size, root, synced } = self;
        format!("{origin}\n{size}\n{}\nsynced {synced}\n", STANDARD.encode(root))
    }
}

/// A seal line. It is not a leaf; the record after it carries its hash, and so does the seal after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealLine {
    v: Int,
    t: Seal,
    /// Number of the epoch whose key signed.
    pub epoch: Int,
    /// Origin of the log.
    pub origin: String,
    /// Number of records covered: all of them, or all but the last few that came while this was being signed.
    pub size: Int,
    /// Root over them.
    pub root: B64<32>,
    /// Number of records known to be on disk.
    pub synced: Int,
    /// Compact range of the tree: roots of its perfect subtrees, largest first.
    pub range: Vec<Hex<32>>,
    /// Hash of the seal line before this one; zeros in the first.
    pub after: Hex<32>,
    /// Id of the key.
    pub key: Hex<4>,
    /// Signature over the text of the checkpoint.
    pub sig: B64<64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Seal {
    Seal,
}

impl SealLine {
    /// Sign this tree.
    #[must_use]
    pub fn sign(
        epoch: u64,
        key: &VerifierKey,
        secret: &SigningKey,
        tree: &Tree,
        synced: u64,
        after: Hash,
    ) -> Self {
        let checkpoint =
            Checkpoint { origin: key.name().to_owned(), size: tree.size(), root: tree.root(), synced };
        let signature = secret.sign(checkpoint.text().as_bytes()).to_bytes();
        Self {
            v: Int(1),
            t: Seal::Seal,
            epoch: Int(epoch),
            size: Int(checkpoint.size),
            root: B64(checkpoint.root),
            synced: Int(synced),
            range: tree.range().iter().map(|h| Hex(*h)).collect(),
            after: Hex(after),
            key: Hex(key.id()),
            sig: B64(signature),
            origin: checkpoint.origin,
        }
    }

    /// Parse a whole line, and prove that it is in its one spelling.
    ///
    /// # Errors
    /// When it is not a seal line of version 1, or spelled differently.
    pub fn parse(line: &[u8]) -> Result<Self, FormError> {
        let seal: Self = serde_json::from_slice(line).map_err(|e| FormError::Body(e.to_string()))?;
        if seal.v.0 != 1 {
            return Err(FormError::UnknownVersion);
        }
        let again = seal.line()?;
        if again == line { Ok(seal) } else { Err(FormError::Spelling { at: first_difference(&again, line) }) }
    }

    /// The line without its newline.
    ///
    /// # Errors
    /// When a number is more than 2⁵³ − 1.
    pub fn line(&self) -> Result<Vec<u8>, FormError> {
        serde_json::to_vec(self).map_err(|e| FormError::Body(e.to_string()))
    }

    /// What was signed.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            origin: self.origin.clone(),
            size: self.size.0,
            root: self.root.0,
            synced: self.synced.0,
        }
    }

    /// The C2SP signed note, byte for byte as a witness or any C2SP tool reads it.
    #[must_use]
    pub fn note(&self) -> String {
        note::render(&self.checkpoint().text(), &self.origin, self.key.0, &self.sig.0)
    }

    /// The tree this seal describes, or `None` when its range does not fit its size.
    #[must_use]
    pub fn tree(&self) -> Option<Tree> {
        Tree::from_range(self.size.0, self.range.iter().map(|h| h.0).collect())
    }

    /// Whether this key signed it.
    #[must_use]
    pub fn verifies(&self, key: &VerifierKey) -> bool {
        self.origin == key.name() && key.verifies(self.checkpoint().text().as_bytes(), &self.sig.0)
    }
}
