//! C2SP signed notes and verifier keys: the text form of every signature in a log.
//!
//! ```text
//! example.org/govrun/9f3c21aa04be7710        <- text: one or more lines, each ended by a newline
//! 42
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!                                            <- one empty line
//! — example.org/govrun/9f3c21aa04be7710 Az3grlgtz...   <- em dash, key name, base64(key id ‖ signature)
//! ```
//! A verifier key is `<name>+<key id, 8 hex digits>+<base64(0x01 ‖ public key)>`, where the key id is the first four bytes
//! of `SHA-256(name ‖ "\n" ‖ 0x01 ‖ public key)`. See <https://c2sp.org/signed-note>.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// Longest note that is parsed, in bytes.
pub const MAX_NOTE: usize = 16 * 1024;

const ED25519: u8 = 1;
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// A note or verifier key that does not have its form, or a signature that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a verifier key.
    #[error("`{0}` is not an ed25519 verifier key: name+key id+base64")]
    Key(String),
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Form(&'static str),
    /// The note carries no signature of the key asked for.
    #[error("not signed by {0}")]
    OtherKey(String),
    /// The signature of the key asked for is wrong.
    #[error("the signature of {0} does not fit the text")]
    Signature(String),
}

/// Strict ed25519 verification, the only judgement on a signature anywhere: canonical encodings, no small-order keys.
#[must_use]
pub fn verify_strict(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    key.verify_strict(message, &signature).is_ok()
}

/// The public half of a signing key under a name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// The key of this name.
    ///
    /// # Errors
    /// When the name is empty, longer than 256 bytes, or holds white space, control characters or `+`.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        let good = !name.is_empty()
            && name.len() <= 256
            && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if good { Ok(Self { name: name.to_owned(), public }) } else { Err(NoteError::Key(name.to_owned())) }
    }

    /// Parse `name+key id+base64`.
    ///
    /// # Errors
    /// When the text has another form, another algorithm, or a key id that does not belong to the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::Key(text.to_owned());
        let (name, rest) = text.split_once('+').ok_or_else(wrong)?;
        let (id, key) = rest.split_once('+').ok_or_else(wrong)?;
        let bytes = STANDARD.decode(key).map_err(|_| wrong())?;
        let (algorithm, public) = bytes.split_first().ok_or_else(wrong)?;
        let public: [u8; 32] = public.try_into().map_err(|_| wrong())?;
        let key = Self::new(name, public)?;
        if *algorithm == ED25519 && hex::encode(key.id()) == id { Ok(key) } else { Err(wrong()) }
    }

    /// The name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The four bytes that point at this key in a signature line.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.public);
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        [a, b, c, d]
    }

    /// Whether this key signed exactly this text.
    #[must_use]
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        verify_strict(&self.public, text, signature)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The signed note over `text` (which ends in a newline) with the one signature of `key`.
#[must_use]
pub fn sign(text: &str, key: &VerifierKey, secret: &SigningKey) -> String {
    render(text, key.name(), key.id(), &secret.sign(text.as_bytes()).to_bytes())
}

/// The signed note made of its parts.
#[must_use]
pub fn render(text: &str, name: &str, key_id: [u8; 4], signature: &[u8; 64]) -> String {
    let mut bytes = key_id.to_vec();
    bytes.extend_from_slice(signature);
    format!("{text}\n{SIGNATURE_PREFIX}{name} {}\n", STANDARD.encode(bytes))
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature<'a> {
    /// Name of the key.
    pub name: &'a str,
    /// Its id.
    pub key_id: [u8; 4],
    /// The signature; 64 bytes for ed25519.
    pub signature: Vec<u8>,
}

/// A parsed note: its text with the final newline, and its signatures, none of them checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    /// What was signed.
    pub text: &'a str,
    /// Who says so.
    pub signatures: Vec<NoteSignature<'a>>,
}

impl<'a> Note<'a> {
    /// Parse a note.
    ///
    /// # Errors
    /// When it is too long, has control characters, no empty line or a malformed signature line.
    pub fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE {
            return Err(NoteError::Form("longer than 16 KiB"));
        }
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Form("holds a control character"));
        }
        // The last empty line divides: the text itself may hold empty lines.
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Form("no empty line"))?;
        let text = note.get(..text.len() + 1).ok_or(NoteError::Form("no text"))?;
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Form("no final newline"))?;
        let signatures = signatures.split('\n').map(parse_signature).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text, signatures })
    }

    /// The text, once `key` is known to have signed it.
    ///
    /// # Errors
    /// When there is no signature of that key, or a wrong one. Signatures of other keys are ignored, as C2SP demands.
    pub fn signed_by(&self, key: &VerifierKey) -> Result<&'a str, NoteError> {
        let mut found = false;
        for signature in self.signatures.iter().filter(|s| s.name == key.name() && s.key_id == key.id()) {
            found = true;
            if !key.verifies(self.text.as_bytes(), &signature.signature) {
                return Err(NoteError::Signature(key.to_string()));
            }
        }
        if found { Ok(self.text) } else { Err(NoteError::OtherKey(key.to_string())) }
    }
}

fn parse_signature(line: &str) -> Result<NoteSignature<'_>, NoteError> {
    let wrong = NoteError::Form("a malformed signature line");
    let rest = line.strip_prefix(SIGNATURE_PREFIX).ok_or_else(|| wrong.clone())?;
    let (name, bytes) = rest.split_once(' ').ok_or_else(|| wrong.clone())?;
    let bytes = STANDARD.decode(bytes).map_err(|_| wrong.clone())?;
    let (key_id, signature) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong.clone())?;
    if name.is_empty() || signature.is_empty() {
        return Err(wrong);
    }
    Ok(NoteSignature { name, key_id: *key_id, signature: signature.to_vec() })
}
