//! The genesis certificate: a signed note of the root key.
//!
//! ```text
//! govrun genesis v1
//! origin example.org/govrun
//! root-key example.org/govrun/root+…
//! log-key example.org/govrun/log+…
//! epoch-keys 1 <base64 of the RFC 6962 root over the epoch keys>
//!
//! — example.org/govrun/root …
//! ```
//! Leaf `i` of the tree of epoch keys is `SHA-256(0x00 ‖ i as 8 bytes big-endian ‖ public key)`.

use ed25519_dalek::SigningKey;

use super::check_name;
use crate::form::{B64, MAX_INT};
use crate::hash::{self, Hash, Tree};
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
    epochs: u64,
    epoch_root: Hash,
}

fn epoch_leaf(epoch: u64, public: &[u8; 32]) -> Hash {
    let mut bytes = epoch.to_be_bytes().to_vec();
    bytes.extend_from_slice(public);
    hash::leaf(&bytes)
}

impl Certificate {
    pub(super) fn issue(
        origin: &str,
        root: &SigningKey,
        log: [u8; 32],
        epochs: &[[u8; 32]],
    ) -> Result<Self, NoteError> {
        let root_key = VerifierKey::new(&format!("{origin}/root"), root.verifying_key().to_bytes())?;
        let log = VerifierKey::new(&format!("{origin}/log"), log)?;
        let mut tree = Tree::default();
        (0_u64..).zip(epochs).for_each(|(i, key)| tree.push(epoch_leaf(i, key)));
        let text = format!(
            "govrun genesis v1\norigin {origin}\nroot-key {root_key}\nlog-key {log}\nepoch-keys {} {}\n",
            tree.size(),
            B64(tree.root()),
        );
        let note = note::sign(&text, &root_key, root);
        let (epochs, epoch_root) = (tree.size(), tree.root());
        Ok(Self { note, origin: origin.to_owned(), root: root_key, log, epochs, epoch_root })
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
        let (epochs, rest) = line(rest, "epoch-keys ")?;
        if !rest.is_empty() {
            return Err(CertError::Form("lines after the last"));
        }
        check_name(origin).map_err(|_| CertError::Form("the origin"))?;
        let (count, epoch_root) = epochs.split_once(' ').ok_or(CertError::Form("the epoch keys"))?;
        let epoch_root = B64::<32>::parse(epoch_root).ok_or(CertError::Form("the root of the epoch keys"))?.0;
        let epochs = count.parse().ok().filter(|n: &u64| n.to_string() == count && (1..=MAX_INT).contains(n));
        let epochs = epochs.ok_or(CertError::Form("the number of epoch keys"))?;
        let root = VerifierKey::parse(root)?;
        let log = VerifierKey::parse(log)?;
        if root.name() != format!("{origin}/root") || log.name() != format!("{origin}/log") {
            return Err(CertError::Form("the names of the keys"));
        }
        parsed.signed_by(&root)?;
        Ok(Self { note: note.to_owned(), origin: origin.to_owned(), root, log, epochs, epoch_root })
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

    /// Whether `public` is epoch key number `epoch`.
    #[must_use]
    pub fn has_epoch(&self, epoch: u64, public: &[u8; 32], proof: &[Hash]) -> bool {
        hash::includes(epoch, self.epochs, epoch_leaf(epoch, public), proof, &self.epoch_root)
    }
}

fn line<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str), CertError> {
    text.strip_prefix(name).and_then(|rest| rest.split_once('\n')).ok_or(CertError::Form("its lines"))
}
