//! What a log does about itself: the next epoch key, the next segment, a sign of life, its checkpoint for others to pin.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use govrun_verdict::{Durability, LogId};

use super::segment::segment_name;
use super::writer::{Guard, Position, Writer, poisoned};
use super::{AppendError, CHECKPOINT, log_ids};
use crate::encode;
use crate::form::body::{Body, EpochEnd, Heartbeat, Sibling};
use crate::form::{B64, Hex, Int, Kind};
use crate::keys::{Epochs, Sealer};
use crate::note::{MAX_NOTE, Note};
use crate::storage::open_read;

/// Most logs that a sign of life names.
pub(super) const MAX_SIBLINGS: usize = 256;

fn io(e: &std::io::Error) -> AppendError {
    AppendError::Failed(e.to_string().into())
}

impl Writer {
    /// The lock, at a moment when nobody is signing or syncing. While it is held nobody appends.
    fn quiet(&self) -> Result<Guard<'_>, AppendError> {
        let mut state = self.lock()?;
        while state.sealing || state.syncing {
            state = self.wait(state)?;
        }
        state.alive()?;
        Ok(state)
    }

    /// End the epoch: the outgoing key seals the record that names the next one; once that is on disk, the seed of the next
    /// epoch takes the place of this one's.
    pub(super) fn rotate(&self, reason: EpochEnd) -> Result<(), AppendError> {
        let mut epochs = self.epochs.lock().map_err(|_| poisoned())?;
        let (next, record) = epochs.next(&self.co_signer.secret, reason);
        let record = encode::plain_body(&Body::KeyEpoch(Box::new(record)))?;
        let sealer = next.sealer().map_err(|e| AppendError::Failed(e.to_string().into()))?;
        // Most of what is not on disk yet goes there while others append.
        let size = self.lock()?.tree.size();
        self.seal_to(size)?;
        self.sync_to(size)?;
        let mut state = self.quiet()?;
        if state.unsealed() > 0 {
            self.seal_now(&mut state)?;
        }
        let time = self.clock.now().map_or(state.time, |now| now.0.max(state.time));
        self.write_record(&mut state, Kind::KeyEpoch, &record, time)?;
        self.seal_now(&mut state)?;
        let result = self.begin_epoch(&mut state, &next, sealer);
        drop(state);
        self.done.notify_all();
        result?;
        *epochs = next;
        Ok(())
    }

    /// The end of an epoch is sealed: bring it to the disk, then its seed away. All with the lock held, so that nothing is
    /// written under the next key that the seed on disk could not go on from.
    fn begin_epoch(&self, state: &mut Guard<'_>, next: &Epochs, sealer: Sealer) -> Result<(), AppendError> {
        state.turning = true;
        self.sync_now(state)?;
        next.store(&*self.disk).map_err(|e| self.fail(state, "erase the seed of an epoch", &e))?;
        state.turning = false;
        state.sealer = Some(Arc::new(sealer));
        state.epoch_records = 0;
        state.epoch_since = None;
        Ok(())
    }

    /// The seal that ends an epoch is missing after a crash: write it, and let the next epoch begin.
    pub(super) fn finish_epoch(&self, is_sealed: bool) -> Result<(), AppendError> {
        let mut epochs = self.epochs.lock().map_err(|_| poisoned())?;
        // The record is there already, with its reason; only the key is wanted.
        let (next, _) = epochs.next(&self.co_signer.secret, EpochEnd::Recover);
        let sealer = next.sealer().map_err(|e| AppendError::Failed(e.to_string().into()))?;
        let mut state = self.quiet()?;
        if !is_sealed {
            self.seal_now(&mut state)?;
        }
        self.begin_epoch(&mut state, &next, sealer)?;
        *epochs = next;
        Ok(())
    }

    /// Bring everything to the disk with the lock held.
    fn sync_now(&self, state: &mut Guard<'_>) -> Result<(), AppendError> {
        let openings = state.openings.file.clone().filter(|_| state.openings.dirty);
        let synced = openings.map_or(Ok(()), |file| file.sync()).and_then(|()| state.position.file.sync());
        if let Err(e) = synced {
            return Err(self.sync_failed(state, &e));
        }
        state.openings.dirty = false;
        state.synced = state.sealed;
        state.synced_offset = state.position.offset;
        state.unsynced_bytes = 0;
        state.unsynced_since = None;
        state.durable = state.newest.clone().or_else(|| state.durable.take());
        Ok(())
    }

    /// Begin the next segment, with a seal over everything before it, which is on disk.
    pub(super) fn roll(&self) -> Result<(), AppendError> {
        let size = self.lock()?.tree.size();
        self.seal_to(size)?;
        self.sync_to(size)?;
        let mut state = self.quiet()?;
        if state.unsealed() > 0 {
            self.seal_now(&mut state)?;
        }
        self.sync_now(&mut state)?;
        let number = state.position.number + 1;
        let path = self.dir.join(segment_name(number));
        let file = self.new_segment(&path).map_err(|e| self.fail(&mut state, "begin a segment", &e))?;
        let began = state.time;
        state.position = Position { file, number, offset: 0, began };
        state.synced_offset = 0;
        let result = self.seal_now(&mut state);
        drop(state);
        self.done.notify_all();
        result
    }

    fn new_segment(&self, path: &Path) -> std::io::Result<Arc<dyn crate::storage::Storage>> {
        if path.symlink_metadata().is_ok() {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        let file = self.disk.open(path, true)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// A sign of life, which names how far the logs beside this one are.
    pub(super) fn heartbeat(&self) -> Result<(), AppendError> {
        let siblings = siblings(&self.all, self.id).map_err(|e| io(&e))?;
        self.lock()?.heartbeat_since = None;
        let body = encode::plain_body(&Body::Heartbeat(Box::new(Heartbeat::new(siblings))))?;
        self.append(Kind::Heartbeat, &body, Durability::Os).map(drop)
    }

    /// Put the last checkpoint that is on disk where others find it, signed by the epoch key and the log key. Never one that a
    /// crash could take back: whoever pins it can hold the log to it for ever.
    pub(super) fn publish(&self) {
        let Ok(mut state) = self.lock() else { return };
        let Some(seal) = state.durable.take() else { return };
        drop(state);
        let note = self.co_signer.co_sign(&seal.checkpoint().text(), &seal.note());
        let (path, new) = (self.dir.join(CHECKPOINT), self.dir.join(".checkpoint.new"));
        let written = std::fs::write(&new, note).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            tracing::warn!(log = %self.id, %error, "the checkpoint could not be published");
        }
    }
}

/// What the logs beside this one have published.
fn siblings(dir: &Path, own: LogId) -> std::io::Result<Vec<Sibling>> {
    let ids = log_ids(dir)?.into_iter().filter(|id| *id != own);
    Ok(ids.filter_map(|id| published(dir, id)).take(MAX_SIBLINGS).collect())
}

fn published(dir: &Path, id: LogId) -> Option<Sibling> {
    let file = open_read(&dir.join(id.to_string()).join(CHECKPOINT)).ok()?;
    let mut text = String::new();
    file.take(u64::try_from(MAX_NOTE).ok()?).read_to_string(&mut text).ok()?;
    let note = Note::parse(&text).ok()?;
    let mut lines = note.text.lines();
    let origin = lines.next()?;
    if origin.rsplit('/').next() != Some(&id.to_string()) {
        return None;
    }
    let size = lines.next()?;
    let number: u64 =
        size.parse().ok().filter(|n: &u64| n.to_string() == size && *n <= crate::form::MAX_INT)?;
    let root = B64::<32>::parse(lines.next()?)?;
    Some(Sibling { log: id, size: Int(number), root: Hex(root.0) })
}
