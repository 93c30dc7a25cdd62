//! The writer: [`Log`].

mod open;
mod recover;
mod threads;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use govrun_verdict::{DecisionId, Digest, Durability, LogId};

pub use open::OpenError;
pub(crate) use open::log_ids;
pub use recover::{Damage, RecoverError};

use crate::clock::{Clock, ClockError};
use crate::encode::{self, Encoded};
use crate::entry::{
    ApprovalEntry, ApprovalEvent, DecisionEntry, EscalationEntry, OutcomeEntry, PolicyLoadEntry, Receipt,
};
use crate::form::body::{self, Body};
use crate::form::{FormError, Kind, Text};
use crate::keys::{Answer, KeyStore};
use crate::storage::{self, Disk, LocalDisk};
use writer::Writer;

/// Name of the one segment file that this version writes.
pub(crate) const SEGMENT: &str = "00000001.jsonl";
/// Name of the lock file of a log.
pub(crate) const LOCK: &str = "lock";
/// Name of the openings file of a log.
pub(crate) const OPENINGS: &str = "openings.jsonl";
/// Name of the folder of policy bundles beside the logs.
pub(crate) const POLICIES: &str = "policies";
/// Name of the file with the last checkpoint that is on disk.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// What the name of a log that is still being made begins with.
pub(crate) const UNFINISHED: &str = ".new-";

/// A record could not be made as safe as it has to be: the effect must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A write or sync failed, now or earlier; the log takes nothing more.
    #[error("the audit log stopped: {0}")]
    Failed(Arc<str>),
    /// The log is closed.
    #[error("the audit log is closed")]
    Closed,
    /// The clock could not be read.
    #[error(transparent)]
    Clock(ClockError),
    /// The record is longer than a line may be.
    #[error("the record has {bytes} bytes, more than a line may have")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// No random bytes for the salts.
    #[error("the operating system gave no random bytes")]
    Random,
    /// A number or value that the format does not hold.
    #[error("the record cannot be written: {0}")]
    Encode(FormError),
    /// An entry that contradicts itself.
    #[error("the entry is not consistent: {0}")]
    Invalid(&'static str),
    /// A policy bundle could not be archived.
    #[error("the policy bundle could not be archived: {0}")]
    Archive(String),
}

/// An open log. Clones share it; it is closed by [`Log::close`], or when the last clone goes.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

struct Handle {
    writer: Arc<Writer>,
    dir: PathBuf,
    held: Mutex<Held>,
}

/// What is let go of when the log is closed.
struct Held {
    threads: Vec<JoinHandle<()>>,
    lock: Option<File>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.id())
    }
}

impl Log {
    /// Open a log under `dir`: one of the same keys that no other process writes, or else a new one.
    ///
    /// Several processes may open the same directory; each gets a log of its own.
    ///
    /// # Errors
    /// When the directory cannot be used, holds a log of other keys, or the log to reopen is damaged where it must not be.
    pub fn open(dir: &Path, keys: &KeyStore, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_on(dir, keys, clock, Arc::new(LocalDisk))
    }

    /// As [`Log::open`], on a disk of the caller's: how tests make writes fail.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(
        dir: &Path,
        keys: &KeyStore,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, OpenError> {
        open::open(dir, keys, &clock, &disk)
    }

    /// The id of this log.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.0.writer.id
    }

    /// Record a decision, at the durability it names. No receipt, no effect.
    ///
    /// # Errors
    /// When the record could not be made that safe.
    pub fn decision(&self, entry: &DecisionEntry<'_>) -> Result<Receipt, AppendError> {
        let body = encode::decision(entry, &mut *self.salts()?)?;
        let seq = self.append(Kind::Decision, &body, entry.decision.durability)?;
        Ok(Receipt::new(DecisionId { log: self.id(), seq }))
    }

    /// Record what became of a call (class `os`).
    ///
    /// # Errors
    /// When the record could not be written.
    pub fn outcome(&self, entry: &OutcomeEntry) -> Result<(), AppendError> {
        let body = encode::outcome(entry, &mut *self.salts()?)?;
        self.append(Kind::Outcome, &body, Durability::Os).map(drop)
    }

    /// Record that an approval was asked for (class `disk`).
    ///
    /// # Errors
    /// When the record could not be brought to the disk.
    pub fn escalation(&self, entry: &EscalationEntry<'_>) -> Result<(), AppendError> {
        check_ticket(entry.ticket)?;
        self.append(Kind::Escalation, &encode::escalation(entry)?, Durability::Disk).map(drop)
    }

    /// Record what happened to an approval (class `disk`).
    ///
    /// # Errors
    /// When a signed answer does not hold or is about something else, or the record could not be brought to the disk.
    pub fn approval(&self, entry: &ApprovalEntry<'_>) -> Result<(), AppendError> {
        check_ticket(entry.ticket)?;
        check_answer(entry)?;
        self.append(Kind::Approval, &encode::approval(entry)?, Durability::Disk).map(drop)
    }

    /// Record that a policy came into force (class `disk`). Archive its bundle first.
    ///
    /// # Errors
    /// When the record could not be brought to the disk.
    pub fn policy_load(&self, entry: &PolicyLoadEntry<'_>) -> Result<(), AppendError> {
        self.append(Kind::PolicyLoad, &encode::policy_load(entry)?, Durability::Disk).map(drop)
    }

    /// Keep a policy bundle under its digest beside the logs, so that verdicts can be derived again later. A bundle that is
    /// there already is left alone.
    ///
    /// # Errors
    /// When it cannot be written, or another bundle is there under that digest.
    pub fn archive_policy(&self, epoch: Digest, bundle: &[u8]) -> Result<(), AppendError> {
        let folder = self.0.dir.join(POLICIES);
        archive(&folder, epoch, bundle).map_err(|e| AppendError::Archive(e.to_string()))
    }

    /// Seal everything written so far.
    ///
    /// # Errors
    /// When the log failed.
    pub fn seal(&self) -> Result<(), AppendError> {
        let size = self.0.writer.lock()?.tree.size();
        self.0.writer.seal_to(size)
    }

    /// Write the last record and a seal over everything, bring it to the disk and let the log go. Doing it again does nothing.
    ///
    /// # Errors
    /// When the log failed, now or earlier.
    pub fn close(&self) -> Result<(), AppendError> {
        self.0.close()
    }

    fn append(&self, kind: Kind, body: &Encoded, class: Durability) -> Result<u64, AppendError> {
        self.0.writer.append(kind, body, class)
    }

    fn salts(&self) -> Result<std::sync::MutexGuard<'_, crate::commit::Salts>, AppendError> {
        self.0.writer.salts.lock().map_err(|_| AppendError::Random)
    }
}

impl Handle {
    fn close(&self) -> Result<(), AppendError> {
        if self.writer.lock()?.closed {
            return Ok(());
        }
        let body = Body::Close(Box::new(body::Close { reason: Text::from("closed") }));
        let body = encode::plain_body(&body)?;
        let result = self.writer.append(Kind::Close, &body, Durability::Disk);
        let result = result.and_then(|_| self.writer.seal_synced());
        self.writer.lock()?.closed = true;
        self.writer.stop_threads();
        self.let_go();
        result
    }

    fn let_go(&self) {
        let Ok(mut held) = self.held.lock() else { return };
        for thread in held.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(log = %self.writer.id, "a thread of the audit log panicked");
            }
        }
        held.lock = None;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(log = %self.writer.id, %error, "the audit log could not be closed");
        }
    }
}

fn check_ticket(ticket: &str) -> Result<(), AppendError> {
    if (1..=128).contains(&ticket.len()) && !ticket.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(AppendError::Invalid("a ticket has 1 to 128 bytes and no control characters"))
    }
}

fn check_answer(entry: &ApprovalEntry<'_>) -> Result<(), AppendError> {
    let answer = match entry.event {
        ApprovalEvent::Approved => Some(Answer::Approve),
        ApprovalEvent::Denied => Some(Answer::Deny),
        ApprovalEvent::Expired | ApprovalEvent::Consumed | ApprovalEvent::Cancelled => None,
    };
    match (answer, entry.signed) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(AppendError::Invalid("only an approval or denial is signed")),
        (Some(_), None) => Err(AppendError::Invalid("an approval or denial must be signed")),
        (Some(answer), Some(signed)) => {
            let s = &signed.statement;
            let same = s.ticket == entry.ticket
                && s.decision == entry.decision
                && s.binding == entry.binding
                && s.answer == answer;
            if !same {
                return Err(AppendError::Invalid("the signed answer is about something else"));
            }
            if !signed.verifies() {
                return Err(AppendError::Invalid("the approver's signature does not hold"));
            }
            Ok(())
        }
    }
}

fn archive(folder: &Path, epoch: Digest, bundle: &[u8]) -> std::io::Result<()> {
    storage::private_dir(folder)?;
    let hex = epoch.to_string();
    let hex = hex.strip_prefix("b3:").unwrap_or(&hex);
    let path = folder.join(format!("{hex}.bundle"));
    match std::fs::read(&path) {
        Ok(there) if there == bundle => return Ok(()),
        Ok(_) => return Err(std::io::Error::other("another bundle is archived under this digest")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let temporary = folder.join(format!(".{hex}.{}", std::process::id()));
    let mut file = File::create(&temporary)?;
    std::io::Write::write_all(&mut file, bundle)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    storage::sync_dir(folder)
}
