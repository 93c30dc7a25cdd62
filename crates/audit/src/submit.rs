//! The log's side of witnessing: the request for a cosignature, and what to do with the answer.

use std::path::Path;

use govrun_verdict::LogId;

use crate::cosign::{Head, WitnessKey};
use crate::log::CHECKPOINT;
use crate::note::{MAX_NOTE, Note, NoteError};
use crate::prove::{Prover, leaves};
use crate::read::{ReadError, small_file};
use crate::witness::Request;

/// A request that cannot be made, or an answer that is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No checkpoint is published.
    #[error("log {log} has published no checkpoint: {error}")]
    NoCheckpoint {
        /// The log.
        log: LogId,
        /// What the system said.
        error: String,
    },
    /// The published checkpoint is not one.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The witness has seen more than the checkpoint says there is, or than is there.
    #[error("the witness has seen {old} records, and there are {size}")]
    Shorter {
        /// What the witness has seen.
        old: u64,
        /// What there is.
        size: u64,
    },
    /// The answer holds no signature of the witness.
    #[error("the answer is no cosignature of {0} on this checkpoint")]
    NotCosigned(String),
}

/// The checkpoint that a log has published: its newest that is on disk.
///
/// # Errors
/// When there is none, or it is not one.
pub fn published(dir: &Path, log: LogId) -> Result<(String, Head), SubmitError> {
    let path = dir.join(log.to_string()).join(CHECKPOINT);
    let note =
        small_file(&path, MAX_NOTE).map_err(|e| SubmitError::NoCheckpoint { log, error: e.to_string() })?;
    let head = Head::parse(Note::parse(&note)?.text)?;
    Ok((note, head))
}

/// The request to cosign this checkpoint by a witness that has seen the first `old` records.
///
/// # Errors
/// When the log is shorter than that, or cannot be read.
pub fn request(
    dir: &Path,
    log: LogId,
    old: u64,
    checkpoint: &str,
    head: &Head,
) -> Result<Request, SubmitError> {
    let shorter = || SubmitError::Shorter { old, size: head.size };
    let proof = if old == 0 || old == head.size {
        Vec::new()
    } else {
        let mut prover = Prover::consistency(old, head.size).ok_or_else(shorter)?;
        leaves(dir, log, |leaf, record| {
            prover.push(leaf);
            if record.head.seq + 1 == head.size {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })?;
        prover.finish().ok_or_else(shorter)?
    };
    Ok(Request { old, proof, checkpoint: checkpoint.to_owned() })
}

/// The checkpoint with the witness's cosignature, once it is known to be one.
///
/// # Errors
/// When the answer does not hold it.
pub fn cosigned(checkpoint: &str, answer: &str, witness: &WitnessKey) -> Result<String, SubmitError> {
    let wrong = || SubmitError::NotCosigned(witness.to_string());
    let prefix = format!("\u{2014} {} ", witness.name());
    let line = answer.lines().find(|line| line.starts_with(&prefix)).ok_or_else(wrong)?;
    let note = format!("{checkpoint}{line}\n");
    if Note::parse(&note).is_ok_and(|parsed| witness.cosigned(&parsed).is_some()) {
        Ok(note)
    } else {
        Err(wrong())
    }
}
