//! From a proof back to the root key: whose log it is, with nothing at hand but the trust file.

use govrun_verdict::LogId;

use crate::cosign::Head;
use crate::keys::{CertError, Certificate};
use crate::note::{Note, NoteError, VerifierKey, render};
use crate::prove::{Proof, ProofForm};
use crate::trust::Trust;

/// A proof that does not prove the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof.
    #[error(transparent)]
    Form(#[from] ProofForm),
    /// Its checkpoint is not one, or not signed by the log key.
    #[error("the checkpoint in the proof: {0}")]
    Checkpoint(#[from] NoteError),
    /// It does not carry the certificate of its log key.
    #[error("the proof carries no certificate of the log key")]
    NoCertificate,
    /// The root key of the trust file did not certify the log key.
    #[error("the log key is not certified by the root of the trust file: {0}")]
    Certificate(CertError),
    /// Of another origin.
    #[error("a checkpoint of `{0}`, which is no log of the trust file's origin")]
    Origin(String),
    /// The hashes do not lead from the record to the root.
    #[error(
        "the record is not number {index} of this log: the hashes do not lead to the root of the checkpoint"
    )]
    NotIncluded {
        /// Where it should be.
        index: u64,
    },
}

impl ProofError {
    /// Whether the trouble is the key, not the record.
    #[must_use]
    pub const fn is_untrusted(&self) -> bool {
        match self {
            Self::Certificate(_) | Self::Origin(_) | Self::NoCertificate => true,
            Self::Form(_) | Self::Checkpoint(_) | Self::NotIncluded { .. } => false,
        }
    }
}

/// What a proof has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The log.
    pub log: LogId,
    /// Number of the record.
    pub index: u64,
    /// Number of records under the checkpoint.
    pub size: u64,
    /// Witnesses of the trust file that cosigned it.
    pub witnesses: Vec<String>,
}

/// What the certificate says beyond what every reader of the trust file knows: the log key, the signature, and the last line.
/// With it a proof for one of a million records stays below 1.5 KB.
///
/// `None` when the certificate has another form than expected.
#[must_use]
pub fn condense(certificate: &Certificate) -> Option<Vec<u8>> {
    let note = Note::parse(certificate.note()).ok()?;
    let [signature] = note.signatures.as_slice() else { return None };
    let last = note.text.strip_suffix('\n')?.rsplit('\n').next()?;
    let mut bytes = certificate.log().public().to_vec();
    bytes.extend_from_slice(&signature.signature);
    bytes.extend_from_slice(last.as_bytes());
    Some(bytes)
}

/// The certificate again.
///
/// # Errors
/// When it is not one that the root of the trust file signed.
pub fn expand(bytes: &[u8], trust: &Trust) -> Result<Certificate, CertError> {
    let form = CertError::Form("its condensed form");
    let (log, rest) = bytes.split_first_chunk::<32>().ok_or_else(|| form.clone())?;
    let (signature, last) = rest.split_first_chunk::<64>().ok_or_else(|| form.clone())?;
    let last = std::str::from_utf8(last).map_err(|_| form)?;
    let (origin, root) = (&trust.origin, &trust.root);
    let log = VerifierKey::new(&format!("{origin}/log"), *log)?;
    let text = format!("govrun genesis v1\norigin {origin}\nroot-key {root}\nlog-key {log}\n{last}\n");
    Certificate::parse(&render(&text, root.name(), root.id(), signature))
}

/// The checkpoint without the signatures that a stranger cannot link to the root: the epoch keys'.
#[must_use]
pub fn without_epoch_signature(checkpoint: &str) -> String {
    let Ok(note) = Note::parse(checkpoint) else { return checkpoint.to_owned() };
    let origin = note.text.lines().next().unwrap_or_default();
    let epoch = format!("\u{2014} {origin} ");
    let signatures = checkpoint.get(note.text.len() + 1..).unwrap_or_default();
    let kept: String = signatures.split_inclusive('\n').filter(|line| !line.starts_with(&epoch)).collect();
    format!("{}\n{kept}", note.text)
}

/// Check that `line` (a record without its newline) is in a log of the trust file.
///
/// # Errors
/// See [`ProofError`].
pub fn check(proof: &str, line: &[u8], trust: &Trust) -> Result<Proved, ProofError> {
    let proof = Proof::parse(proof)?;
    let note = Note::parse(&proof.checkpoint)?;
    let head = Head::parse(note.text)?;
    let log = head.log(&trust.origin).ok_or_else(|| ProofError::Origin(head.origin.clone()))?;
    if proof.extra.is_empty() {
        return Err(ProofError::NoCertificate);
    }
    let certificate = expand(&proof.extra, trust).map_err(ProofError::Certificate)?;
    note.signed_by(certificate.log())?;
    if !proof.includes(line, head.size, &head.root) {
        return Err(ProofError::NotIncluded { index: proof.index });
    }
    let signed = trust.witnesses.iter().filter(|w| w.cosigned(&note).is_some());
    let witnesses = signed.map(|w| w.name().to_owned()).collect();
    Ok(Proved { log, index: proof.index, size: head.size, witnesses })
}
