//! The writer: [`Log`].

mod limits;
mod open;
mod recover;
mod segment;
mod threads;
mod turn;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use govrun_verdict::{DecisionId, Digest, Durability, LogId};

pub use limits::Limits;
pub use open::OpenError;
pub(crate) use open::log_ids;
pub use recover::{Damage, RecoverError};

use crate::clock::{Clock, ClockError};
use crate::encode::{self, Encoded};
use crate::entry::{
    ApprovalEntry, ApprovalEvent, DecisionEntry, DrillEntry, EscalationEntry, GapEntry, ModeChangeEntry,
    OutcomeEntry, PolicyLoadEntry, Receipt,
};
use crate::form::body::{self, Body, EpochEnd};
use crate::form::{FormError, Kind, Text};
use crate::keys::{Answer, KeyStore};
use crate::storage::{self, Disk, LocalDisk};
use writer::Writer;

/// Name of the lock file of a log.
pub(crate) const LOCK: &str = "lock";
/// Name of the openings file of a log.
pub(crate) const OPENINGS: &str = "openings.jsonl";
/// Name of the file with the last checkpoint of a log that is on disk.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Name of the folder of policy bundles beside the logs.
pub(crate) const POLICIES: &str = "policies";
/// Name of the folder of lists beside the logs.
pub(crate) const LISTS: &str = "lists";
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
    locks: Option<(File, File)>,
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
        Self::open_on(dir, keys, clock, Arc::new(LocalDisk), Limits::default())
    }

    /// As [`Log::open`], on a disk of the caller's and with other limits: how tests make writes fail and time pass.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(
        dir: &Path,
        keys: &KeyStore,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        open::open(dir, keys, &clock, &disk, limits)
    }

    /// Open every log under `dir` that these keys wrote and nobody writes now, and begin none.
    ///
    /// # Errors
    /// As [`Log::open`]; logs that were opened before the error are closed again.
    pub fn open_free(dir: &Path, keys: &KeyStore, clock: Arc<dyn Clock>) -> Result<Vec<Self>, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        open::open_free(dir, keys, &clock, &disk)
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

    /// Record that a policy, rule or environment counts in another way from here on (class `disk`).
    ///
    /// # Errors
    /// When the record could not be brought to the disk.
    pub fn mode_change(&self, entry: &ModeChangeEntry<'_>) -> Result<(), AppendError> {
        self.append(Kind::ModeChange, &encode::mode_change(entry)?, Durability::Disk).map(drop)
    }

    /// Record that an exercise began or ended (class `disk`).
    ///
    /// # Errors
    /// When the record could not be brought to the disk.
    pub fn drill(&self, entry: &DrillEntry<'_>) -> Result<(), AppendError> {
        self.append(Kind::Drill, &encode::drill(entry)?, Durability::Disk).map(drop)
    }

    /// Record that for a while calls were refused because nothing could be recorded (class `disk`).
    ///
    /// # Errors
    /// When the time runs backwards, or the record could not be brought to the disk.
    pub fn gap(&self, entry: &GapEntry<'_>) -> Result<(), AppendError> {
        if entry.from > entry.to {
            return Err(AppendError::Invalid("a gap ends before it begins"));
        }
        self.append(Kind::Gap, &encode::gap(entry)?, Durability::Disk).map(drop)
    }

    /// End the epoch: from here on the next key signs, and the seed of this one is erased. Happens by itself every quarter of an
    /// hour in which there were records.
    ///
    /// # Errors
    /// When the end of the epoch could not be brought to the disk; then the log takes nothing more.
    pub fn rotate(&self) -> Result<(), AppendError> {
        self.0.writer.rotate(EpochEnd::Rotate)
    }

    /// Record a sign of life now, with how far the logs beside this one are (class `os`). Happens by itself a minute after a
    /// record.
    ///
    /// # Errors
    /// When the directory cannot be read or the record could not be written.
    pub fn heartbeat(&self) -> Result<(), AppendError> {
        self.0.writer.heartbeat()
    }

    /// Keep a list (of addresses, hosts, names) under its digest beside the logs, as [`Log::archive_policy`] keeps bundles.
    ///
    /// # Errors
    /// When it cannot be written, or another list is there under that digest.
    pub fn archive_list(&self, digest: Digest, list: &[u8]) -> Result<(), AppendError> {
        let folder = self.0.dir.join(LISTS);
        archive(&folder, digest, "list", list).map_err(|e| AppendError::Archive(e.to_string()))
    }

    /// Keep a policy bundle under its digest beside the logs, so that verdicts can be derived again later. A bundle that is
    /// there already is left alone.
    ///
    /// # Errors
    /// When it cannot be written, or another bundle is there under that digest.
    pub fn archive_policy(&self, epoch: Digest, bundle: &[u8]) -> Result<(), AppendError> {
        let folder = self.0.dir.join(POLICIES);
        archive(&folder, epoch, "bundle", bundle).map_err(|e| AppendError::Archive(e.to_string()))
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
        if std::mem::replace(&mut self.writer.lock()?.closing, true) {
            return Ok(());
        }
        // From here on nobody appends, and once the threads have ended nothing comes after the last record.
        self.writer.stop_threads();
        self.end_threads();
        let result = self.end();
        self.writer.lock()?.closed = true;
        self.writer.publish();
        self.let_go();
        result
    }

    /// What was written is left under a key that is gone: whoever finds the keys later can change the last record only.
    fn end(&self) -> Result<(), AppendError> {
        self.writer.rotate(EpochEnd::Close)?;
        let body = Body::Close(Box::new(body::Close { reason: Text::from("closed") }));
        self.writer.append(Kind::Close, &encode::plain_body(&body)?, Durability::Disk)?;
        self.writer.seal_synced()
    }

    fn let_go(&self) {
        let Ok(mut held) = self.held.lock() else { return };
        held.locks = None;
    }

    fn end_threads(&self) {
        let Ok(mut held) = self.held.lock() else { return };
        for thread in held.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(log = %self.writer.id, "a thread of the audit log panicked");
            }
        }
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

fn archive(folder: &Path, epoch: Digest, extension: &str, bundle: &[u8]) -> std::io::Result<()> {
    storage::private_dir(folder)?;
    let hex = epoch.to_string();
    let hex = hex.strip_prefix("b3:").unwrap_or(&hex);
    let path = folder.join(format!("{hex}.{extension}"));
    match std::fs::read(&path) {
        Ok(there) if there == bundle => return Ok(()),
        Ok(_) => return Err(std::io::Error::other("something else is archived under this digest")),
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
