//! Cosignatures: witnesses state that a checkpoint continues everything they have seen of a log
//! (<https://c2sp.org/tlog-cosignature>, the Ed25519 kind).
//!
//! The signed message is
//! ```text
//! cosignature/v1
//! time 1764000000
//! example.org/govrun/9f3c21aa04be7710
//! 42
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! synced 42
//! ```
//! and a signature line of the note holds `key id ‖ time as 8 bytes big-endian ‖ signature`. The key id is the first 4 bytes of
//! `SHA-256(name ‖ "\n" ‖ 0x04 ‖ public key)`, and a verifier key is `<name>+<key id>+<base64(0x04 ‖ public key)>`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use govrun_verdict::LogId;
use sha2::{Digest as _, Sha256};

use crate::form::B64;
use crate::hash::Hash;
use crate::note::{Note, NoteError, VerifierKey, verify_strict};
use crate::trust::Trust;
use crate::verify::{Anchor, Source};

const COSIGNATURE: u8 = 4;

/// The public key of a witness.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey(VerifierKey);

impl WitnessKey {
    /// The key of this name.
    ///
    /// # Errors
    /// When the name is empty, too long, or holds white space, control characters or `+`.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        VerifierKey::new(name, public).map(Self)
    }

    /// Parse `name+key id+base64`.
    ///
    /// # Errors
    /// When the text has another form, another algorithm, or a key id that does not belong to the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::Key(text.to_owned());
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let bytes = STANDARD.decode(key).map_err(|_| wrong())?;
        let (algorithm, public) = bytes.split_first().ok_or_else(wrong)?;
        let public: [u8; 32] = public.try_into().map_err(|_| wrong())?;
        let key = Self::new(name, public)?;
        if *algorithm == COSIGNATURE && hex::encode(key.id()) == id { Ok(key) } else { Err(wrong()) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        self.0.public()
    }

    /// The four bytes that point at this key in a signature line.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name().as_bytes());
        hash.update([b'\n', COSIGNATURE]);
        hash.update(self.public());
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        [a, b, c, d]
    }

    /// When this witness cosigned the note, in seconds since 1970; `None` when it did not.
    #[must_use]
    pub fn cosigned(&self, note: &Note<'_>) -> Option<u64> {
        let id = self.id();
        let mine = note.signatures.iter().filter(|s| s.name == self.name() && s.key_id == id);
        mine.filter_map(|s| {
            let (time, signature) = s.signature.split_first_chunk::<8>()?;
            let time = u64::from_be_bytes(*time);
            let holds = i64::try_from(time).is_ok()
                && verify_strict(self.public(), message(note.text, time).as_bytes(), signature);
            holds.then_some(time)
        })
        .max()
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![COSIGNATURE];
        key.extend_from_slice(self.public());
        write!(f, "{}+{}+{}", self.name(), hex::encode(self.id()), STANDARD.encode(key))
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// The signature line of a cosignature, with its newline.
#[must_use]
pub fn cosign(text: &str, time: u64, key: &WitnessKey, secret: &SigningKey) -> String {
    let mut bytes = key.id().to_vec();
    bytes.extend_from_slice(&time.to_be_bytes());
    bytes.extend_from_slice(&secret.sign(message(text, time).as_bytes()).to_bytes());
    format!("\u{2014} {} {}\n", key.name(), STANDARD.encode(bytes))
}

/// The three lines of a checkpoint that C2SP knows. What follows them is the log's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// First line.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash,
}

impl Head {
    /// Parse the text of a checkpoint.
    ///
    /// # Errors
    /// When it does not begin with origin, decimal size and base64 root.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::Form("not the three lines of a checkpoint"));
        };
        let number = size.parse().ok().filter(|n: &u64| n.to_string() == size);
        let size = number.ok_or(NoteError::Form("the size is not a number in decimal"))?;
        let root = B64::parse(root).ok_or(NoteError::Form("the root is not the base64 of 32 bytes"))?.0;
        if origin.is_empty() {
            return Err(NoteError::Form("no origin"));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// The log this is a checkpoint of, when it is one of this origin.
    #[must_use]
    pub fn log(&self, origin: &str) -> Option<LogId> {
        LogId::parse(self.origin.strip_prefix(origin)?.strip_prefix('/')?).ok()
    }
}

/// A checkpoint that cannot be an anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// Not a checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Of another origin than the trust file's.
    #[error("a checkpoint of `{0}`, which is no log of the trust file's origin")]
    Origin(String),
    /// The trust file does not ask for witnesses.
    #[error("the trust file names no witnesses, so no number of them is enough")]
    NoWitnesses,
    /// Too few.
    #[error("{found} of the {needed} witnesses that the trust file demands signed it")]
    TooFew {
        /// How many did.
        found: u64,
        /// How many must.
        needed: u64,
    },
}

/// What a quorum of the trust file's witnesses has seen, from a cosigned checkpoint.
///
/// # Errors
/// When it is not a checkpoint of a log of this origin, or fewer witnesses than the trust file demands signed it.
pub fn anchor(note: &str, trust: &Trust) -> Result<Anchor, QuorumError> {
    let parsed = Note::parse(note)?;
    let head = Head::parse(parsed.text)?;
    let log = head.log(&trust.origin).ok_or_else(|| QuorumError::Origin(head.origin.clone()))?;
    if trust.witnesses.is_empty() {
        return Err(QuorumError::NoWitnesses);
    }
    let signed = trust.witnesses.iter().filter(|witness| witness.cosigned(&parsed).is_some());
    let names: Vec<String> = signed.map(|witness| witness.name().to_owned()).collect();
    let (found, needed) = (u64::try_from(names.len()).unwrap_or(0), trust.quorum());
    if found < needed {
        return Err(QuorumError::TooFew { found, needed });
    }
    Ok(Anchor {
        log,
        size: head.size,
        root: head.root,
        note: note.to_owned(),
        source: Source::Witnesses(names),
    })
}
