//! The genesis certificate: a signed note of the root key.
//!
//! ```text
//! govrun genesis v1
//! origin example.org/govrun
//! root-key example.org/govrun/root+…
//! log-key example.org/govrun/log+…
//! logs 128 <base64 of the RFC 6962 root over the logs>
//!
//! — example.org/govrun/root …
//! ```
//! The certificate names every log that may ever be written under it, before the first is: leaf `i` of the tree of logs is
//! `SHA-256(0x00 ‖ i ‖ number of epoch keys ‖ root of the tree of epoch keys)`, numbers as 8 bytes big-endian, and the first
//! eight bytes of that hash are the log's id. So a log id stands for one row of epoch keys and no other: who holds keys that
//! were not used yet can begin a new log with them, but never a second history of a log that is there.
//!
//! Leaf `i` of a tree of epoch keys that begins with epoch `f` is `SHA-256(0x00 ‖ f + i ‖ public key)`.

use ed25519_dalek::SigningKey;
use govrun_verdict::LogId;

use super::check_name;
use crate::form::{B64, MAX_INT};
use crate::hash::{self, Hash};
use crate::note::{self, Note, NoteError, VerifierKey};

/// A certificate that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// The text is not a certificate.
    #[error("not a genesis certificate: {0}")]
    Form(&'static str),
    /// The signature does not hold.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// What the root key says about a log's keys. The signature is checked by every constructor, against the root key in
/// the text: whether that is the root to trust is the reader's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    note: String,
    origin: String,
    root: VerifierKey,
    log: VerifierKey,
    logs: u64,
    logs_root: Hash,
}

/// The leaf of one log in the certificate.
pub(super) fn slot_leaf(slot: u64, epochs: &EpochTree) -> Hash {
    let mut bytes = slot.to_be_bytes().to_vec();
    bytes.extend_from_slice(&epochs.count.to_be_bytes());
    bytes.extend_from_slice(&epochs.root);
    hash::leaf(&bytes)
}

/// The id of the log with this leaf.
pub(super) fn slot_id(leaf: &Hash) -> LogId {
    let [a, b, c, d, e, f, g, h, ..] = *leaf;
    LogId([a, b, c, d, e, f, g, h])
}

/// A row of epoch keys, by the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochTree {
    /// Number of the first epoch.
    pub first: u64,
    /// Number of epochs.
    pub count: u64,
    /// RFC 6962 root over their public keys.
    pub root: Hash,
}

/// The leaf of one epoch key.
pub(super) fn epoch_leaf(epoch: u64, public: &[u8; 32]) -> Hash {
    let mut bytes = epoch.to_be_bytes().to_vec();
    bytes.extend_from_slice(public);
    hash::leaf(&bytes)
}

impl EpochTree {
    /// Whether `public` is the key of `epoch`.
    #[must_use]
    pub fn has(&self, epoch: u64, public: &[u8; 32], proof: &[Hash]) -> bool {
        epoch.checked_sub(self.first).is_some_and(|index| {
            hash::includes(index, self.count, epoch_leaf(epoch, public), proof, &self.root)
        })
    }

    /// What the log key signs to put this tree in force for the log with this origin.
    #[must_use]
    pub fn statement(&self, log_origin: &str) -> String {
        let Self { first, count, root } = self;
        format!("govrun epochs v1\norigin {log_origin}\nfirst {first}\ncount {count}\nroot {}\n", B64(*root))
    }
}

impl Certificate {
    pub(super) fn issue(
        origin: &str,
        root: &SigningKey,
        log: [u8; 32],
        slots: &[Hash],
    ) -> Result<Self, NoteError> {
        let root_key = VerifierKey::new(&format!("{origin}/root"), root.verifying_key().to_bytes())?;
        let log = VerifierKey::new(&format!("{origin}/log"), log)?;
        let tree = hash::tree_of(slots);
        let text = format!(
            "govrun genesis v1\norigin {origin}\nroot-key {root_key}\nlog-key {log}\nlogs {} {}\n",
            tree.size(),
            B64(tree.root()),
        );
        let note = note::sign(&text, &root_key, root);
        let (logs, logs_root) = (tree.size(), tree.root());
        Ok(Self { note, origin: origin.to_owned(), root: root_key, log, logs, logs_root })
    }

    /// Parse a certificate and check its signature.
    ///
    /// # Errors
    /// When the text has another form, or the root key it names did not sign it.
    pub fn parse(note: &str) -> Result<Self, CertError> {
        let parsed = Note::parse(note)?;
        let body =
            parsed.text.strip_prefix("govrun genesis v1\n").ok_or(CertError::Form("the first line"))?;
        let (origin, rest) = line(body, "origin ")?;
        let (root, rest) = line(rest, "root-key ")?;
        let (log, rest) = line(rest, "log-key ")?;
        let (logs, rest) = line(rest, "logs ")?;
        if !rest.is_empty() {
            return Err(CertError::Form("lines after the last"));
        }
        check_name(origin).map_err(|_| CertError::Form("the origin"))?;
        let (count, logs_root) = logs.split_once(' ').ok_or(CertError::Form("the logs"))?;
        let logs_root = B64::<32>::parse(logs_root).ok_or(CertError::Form("the root of the logs"))?.0;
        let logs = count.parse().ok().filter(|n: &u64| n.to_string() == count && (1..=MAX_INT).contains(n));
        let logs = logs.ok_or(CertError::Form("the number of logs"))?;
        let root = VerifierKey::parse(root)?;
        let log = VerifierKey::parse(log)?;
        if root.name() != format!("{origin}/root") || log.name() != format!("{origin}/log") {
            return Err(CertError::Form("the names of the keys"));
        }
        parsed.signed_by(&root)?;
        Ok(Self { note: note.to_owned(), origin: origin.to_owned(), root, log, logs, logs_root })
    }

    /// The certificate, byte for byte.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The root key that signed it.
    #[must_use]
    pub const fn root(&self) -> &VerifierKey {
        &self.root
    }

    /// The log key.
    #[must_use]
    pub const fn log(&self) -> &VerifierKey {
        &self.log
    }

    /// Number of logs that may be written under it.
    #[must_use]
    pub const fn logs(&self) -> u64 {
        self.logs
    }

    /// Root over them.
    #[must_use]
    pub const fn logs_root(&self) -> &Hash {
        &self.logs_root
    }

    /// The id of log number `slot`, if that is the one with these epoch keys.
    #[must_use]
    pub fn log_of(&self, slot: u64, epochs: &EpochTree, proof: &[Hash]) -> Option<LogId> {
        let leaf = slot_leaf(slot, epochs);
        (epochs.first == 0 && hash::includes(slot, self.logs, leaf, proof, &self.logs_root))
            .then(|| slot_id(&leaf))
    }
}

fn line<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str), CertError> {
    text.strip_prefix(name).and_then(|rest| rest.split_once('\n')).ok_or(CertError::Form("its lines"))
}
