//! The append path: one mutex around the file, a signature outside of it.
//!
//! A seal is signed while others go on appending, so it may stand a few records after the last one it covers. Whoever
//! needs a seal and finds nobody signing signs; the others wait and share the next one (group commit). One sync runs at
//! a time, likewise.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use govrun_verdict::{Durability, LogId};

use super::limits::Limits;
use super::segment::{copy_over, segment_name};
use super::{AppendError, OPENINGS};
use crate::clock::{Clock, ClockError};
use crate::commit::Salts;
use crate::encode::{self, Encoded};
use crate::form::SealLine;
use crate::form::body::{self, Body};
use crate::form::{
    FormError, FrameHead, Hex, Kind, MAX_INT, MAX_LINE, MAX_UNSEALED, Text, begin_line, end_line, push_body,
};
use crate::hash::{self, Hash, NOTHING, Tree};
use crate::keys::{CoSigner, Epochs, Sealer};
use crate::storage::{Disk, Storage, write_all_at};

/// Records after which a seal is written without anybody asking.
pub(super) const SEAL_AT: u64 = 256;
/// Longest time a record stays unsealed.
pub(super) const SEAL_AFTER: Duration = Duration::from_millis(10);
/// Longest time a record stays out of reach of a sync.
pub(super) const SYNC_AFTER: Duration = Duration::from_secs(1);
/// Most bytes that stay unsynced: bounds what a reopening has to read.
pub(super) const SYNC_AT_BYTES: u64 = 32 << 20;
/// An append waits for a seal here, well below the bound of the format.
const WAIT_AT: u64 = 4_000;
const _: () = assert!(4_000 + 16 < MAX_UNSEALED);

/// Where the next line goes.
pub(super) struct Position {
    /// The segment.
    pub(super) file: Arc<dyn Storage>,
    /// Its number.
    pub(super) number: u64,
    /// End of its last whole line.
    pub(super) offset: u64,
    /// Time of its first record.
    pub(super) began: u64,
}

/// Everything that changes with an append.
pub(super) struct State {
    pub(super) position: Position,
    /// Bytes of the segment that are known to be on disk.
    pub(super) synced_offset: u64,
    pub(super) tree: Tree,
    pub(super) prev: Hash,
    pub(super) time: u64,
    /// Size that the last seal covers.
    pub(super) sealed: u64,
    pub(super) last_seal: Hash,
    pub(super) seal_due: bool,
    /// Size known to be on disk, and what the last seal said about it.
    pub(super) synced: u64,
    pub(super) synced_said: u64,
    pub(super) unsynced_bytes: u64,
    pub(super) unsynced_since: Option<Instant>,
    pub(super) unsealed_since: Option<Instant>,
    /// What signs now.
    pub(super) sealer: Option<Arc<Sealer>>,
    /// Since when the epoch has records, and how many besides the one that began it.
    pub(super) epoch_since: Option<Instant>,
    pub(super) epoch_records: u64,
    /// Since when there are records that no sign of life follows.
    pub(super) heartbeat_since: Option<Instant>,
    /// The last seal, and the last one that is on disk.
    pub(super) newest: Option<Arc<SealLine>>,
    pub(super) durable: Option<Arc<SealLine>>,
    pub(super) sealing: bool,
    /// Between the end of an epoch and the key of the next: no key may sign another record.
    pub(super) turning: bool,
    /// Whether the last seal covered more than one record.
    pub(super) shared: bool,
    pub(super) syncing: bool,
    pub(super) failed: Option<Arc<str>>,
    /// No record but the last is taken any more, and then none.
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) openings: Openings,
    line: Vec<u8>,
}

/// The openings file, made when first needed.
pub(super) struct Openings {
    pub(super) file: Option<Arc<dyn Storage>>,
    pub(super) offset: u64,
    pub(super) dirty: bool,
}

impl State {
    /// An empty log that begins here.
    pub(super) const fn at(position: Position) -> Self {
        Self {
            position,
            synced_offset: 0,
            tree: Tree::EMPTY,
            prev: NOTHING,
            time: 0,
            sealed: 0,
            last_seal: NOTHING,
            seal_due: false,
            synced: 0,
            synced_said: 0,
            unsynced_bytes: 0,
            unsynced_since: None,
            unsealed_since: None,
            sealer: None,
            epoch_since: None,
            epoch_records: 0,
            heartbeat_since: None,
            newest: None,
            durable: None,
            sealing: false,
            turning: false,
            shared: false,
            syncing: false,
            failed: None,
            closing: false,
            closed: false,
            openings: Openings { file: None, offset: 0, dirty: false },
            line: Vec::new(),
        }
    }

    pub(super) fn alive(&self) -> Result<(), AppendError> {
        match &self.failed {
            Some(why) => Err(AppendError::Failed(Arc::clone(why))),
            None if self.closed => Err(AppendError::Closed),
            None => Ok(()),
        }
    }

    pub(super) fn unsealed(&self) -> u64 {
        self.tree.size() - self.sealed
    }

    pub(super) fn sealer(&self) -> Result<Arc<Sealer>, AppendError> {
        self.sealer.clone().ok_or(AppendError::Closed)
    }
}

/// One open log, shared by its handles and its two threads.
pub(super) struct Writer {
    pub(super) id: LogId,
    /// The directory of this log, and the one that it and its siblings are in.
    pub(super) dir: PathBuf,
    pub(super) all: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) boot: Hex<16>,
    /// The seed of the epoch that signs now. Held while an epoch ends.
    pub(super) epochs: Mutex<Epochs>,
    pub(super) co_signer: CoSigner,
    pub(super) salts: Mutex<Salts>,
    pub(super) state: Mutex<State>,
    /// The sealing thread waits here, and the syncing one there.
    pub(super) wake_sealer: Condvar,
    pub(super) wake_syncer: Condvar,
    /// Callers wait here for somebody else's seal or sync.
    pub(super) done: Condvar,
}

pub(super) type Guard<'a> = MutexGuard<'a, State>;

pub(super) fn poisoned() -> AppendError {
    AppendError::Failed("a thread died while it held the log".into())
}

impl Writer {
    pub(super) fn lock(&self) -> Result<Guard<'_>, AppendError> {
        self.state.lock().map_err(|_| poisoned())
    }

    pub(super) fn wait<'a>(&self, guard: Guard<'a>) -> Result<Guard<'a>, AppendError> {
        self.done.wait(guard).map_err(|_| poisoned())
    }

    /// Append one record and return its number, once it is as safe as the class asks.
    pub(super) fn append(&self, kind: Kind, body: &Encoded, class: Durability) -> Result<u64, AppendError> {
        let seq = self.write(kind, body, class)?;
        match class {
            Durability::Os => {}
            Durability::Sealed => self.seal_to(seq + 1)?,
            Durability::Disk => {
                self.seal_to(seq + 1)?;
                self.sync_to(seq + 1)?;
            }
        }
        Ok(seq)
    }

    fn write(&self, kind: Kind, body: &Encoded, class: Durability) -> Result<u64, AppendError> {
        let mut state = self.lock()?;
        while state.unsealed() >= WAIT_AT {
            let size = state.tree.size();
            drop(state);
            self.seal_to(size)?;
            state = self.lock()?;
        }
        state.alive()?;
        if state.closing && kind != Kind::Close {
            return Err(AppendError::Closed);
        }
        let now = self.clock.now().map_err(AppendError::Clock)?.0;
        if now > MAX_INT {
            return Err(AppendError::Clock(ClockError::Unreadable));
        }
        if now < state.time {
            let step = encode::plain_body(&Body::ClockStep(Box::new(body::ClockStep::new(state.time, now))))?;
            self.write_record(&mut state, Kind::ClockStep, &step, now)?;
        }
        let seq = self.write_record(&mut state, kind, body, now)?;
        self.start_clocks(&mut state, class);
        Ok(seq)
    }

    /// From here the record may stay unsealed for 10 ms and unsynced for a second. A caller that waits for its seal makes it
    /// itself, so only the others start the sealing thread's clock.
    fn start_clocks(&self, state: &mut State, class: Durability) {
        if class == Durability::Os {
            let first = state.unsealed_since.is_none();
            state.unsealed_since.get_or_insert_with(Instant::now);
            if first || state.unsealed() == SEAL_AT {
                self.wake_sealer.notify_one();
            }
        }
        let turn = self.limits.is_reached(state);
        if state.unsynced_since.is_none() || turn {
            state.unsynced_since.get_or_insert_with(Instant::now);
            self.wake_syncer.notify_one();
        }
    }

    pub(super) fn write_record(
        &self,
        state: &mut State,
        kind: Kind,
        body: &Encoded,
        time: u64,
    ) -> Result<u64, AppendError> {
        let seq = state.tree.size();
        let head = FrameHead { kind, seq, time, mono: self.clock.monotonic_us(), boot: self.boot };
        let mut line = std::mem::take(&mut state.line);
        line.clear();
        begin_line(&mut line, &head);
        push_body(&mut line, &body.json);
        let seal = state.seal_due.then_some(state.last_seal);
        end_line(&mut line, seal.as_ref(), &state.prev);
        let written = self.write_checked(state, &mut line, body, seq);
        state.line = line;
        let leaf = written?;
        state.tree.push(leaf);
        state.prev = leaf;
        state.time = time;
        state.seal_due = false;
        if kind != Kind::KeyEpoch {
            state.epoch_records += 1;
            state.epoch_since.get_or_insert_with(Instant::now);
            if kind != Kind::Heartbeat {
                state.heartbeat_since.get_or_insert_with(Instant::now);
            }
        }
        Ok(seq)
    }

    fn write_checked(
        &self,
        state: &mut State,
        line: &mut Vec<u8>,
        body: &Encoded,
        seq: u64,
    ) -> Result<Hash, AppendError> {
        if line.len() > MAX_LINE {
            return Err(AppendError::TooLarge { bytes: line.len() });
        }
        self.write_openings(state, body, seq)?;
        let leaf = hash::leaf(line);
        self.write_line(state, line)?;
        Ok(leaf)
    }

    /// Write a line and its newline at the end, or fail for good: after an error nobody knows what the file holds.
    fn write_line(&self, state: &mut State, line: &mut Vec<u8>) -> Result<(), AppendError> {
        line.push(b'\n');
        if let Err(e) = write_all_at(&*state.position.file, line, state.position.offset) {
            return Err(self.fail(state, "write", &e));
        }
        let written = u64::try_from(line.len()).unwrap_or(u64::MAX);
        state.position.offset += written;
        state.unsynced_bytes += written;
        Ok(())
    }

    /// Openings go first: one without a record discloses nothing, a record without its opening could never be disclosed.
    fn write_openings(&self, state: &mut State, body: &Encoded, seq: u64) -> Result<(), AppendError> {
        for opening in &body.openings {
            let line = opening.line(self.id, seq)?;
            let written = self.openings_file(state).and_then(|file| {
                write_all_at(&*file, &line, state.openings.offset)?;
                u64::try_from(line.len()).map_err(|_| std::io::ErrorKind::InvalidData.into())
            });
            match written {
                Ok(bytes) => state.openings.offset += bytes,
                Err(e) => return Err(self.fail(state, "write openings", &e)),
            }
            state.openings.dirty = true;
        }
        Ok(())
    }

    fn openings_file(&self, state: &mut State) -> std::io::Result<Arc<dyn Storage>> {
        if let Some(file) = &state.openings.file {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.dir.join(OPENINGS), true)?;
        self.disk.sync_dir(&self.dir)?;
        state.openings.offset = file.size()?;
        state.openings.file = Some(Arc::clone(&file));
        Ok(file)
    }

    pub(super) fn fail(&self, state: &mut State, op: &str, error: &std::io::Error) -> AppendError {
        let why: Arc<str> = format!("{op}: {error}").into();
        tracing::error!(log = %self.id, %why, "the audit log stopped");
        let why = Arc::clone(state.failed.get_or_insert(why));
        self.done.notify_all();
        self.stop_threads();
        AppendError::Failed(why)
    }

    /// Let both threads see that the log is closed or failed.
    pub(super) fn stop_threads(&self) {
        self.wake_sealer.notify_all();
        self.wake_syncer.notify_all();
    }

    /// Return once a seal covers `size` records.
    pub(super) fn seal_to(&self, size: u64) -> Result<(), AppendError> {
        self.seal_when(|state| state.sealed < size)
    }

    /// Write a seal that states the synced size, if the last one did not.
    pub(super) fn seal_synced(&self) -> Result<(), AppendError> {
        self.seal_when(|state| state.synced_said < state.synced)
    }

    fn seal_when(&self, wanted: impl Fn(&State) -> bool) -> Result<(), AppendError> {
        let mut state = self.lock()?;
        let mut yielded = false;
        loop {
            // A record that is sealed stays so, whatever failed since.
            if !wanted(&state) {
                return Ok(());
            }
            state.alive()?;
            if state.sealing {
                state = self.wait(state)?;
            } else if state.shared && !yielded {
                // The others that shared the last seal are about to append: let them, and share this one too.
                yielded = true;
                drop(state);
                std::thread::yield_now();
                state = self.lock()?;
            } else {
                break;
            }
        }
        state.sealing = true;
        let (tree, synced, after) = (state.tree.clone(), state.synced, state.last_seal);
        let sealer = state.sealer();
        state.unsealed_since = None;
        drop(state);
        let seal = sealer.map(|sealer| sealer.seal(&tree, synced, after));
        let mut state = self.lock()?;
        state.sealing = false;
        let result = state.alive().and(seal).and_then(|seal| self.write_seal(&mut state, seal));
        if state.unsealed_since.is_some() {
            // Its clock ran while this seal was made, and the thread does not look at it meanwhile.
            self.wake_sealer.notify_one();
        }
        self.done.notify_all();
        result
    }

    pub(super) fn write_seal(&self, state: &mut State, seal: SealLine) -> Result<(), AppendError> {
        let mut line = seal.line()?;
        let hash = hash::seal(&line);
        self.write_line(state, &mut line)?;
        state.last_seal = hash;
        state.seal_due = true;
        state.shared = seal.size.0 - state.sealed > 1;
        state.sealed = seal.size.0;
        state.synced_said = seal.synced.0;
        state.newest = Some(Arc::new(seal));
        Ok(())
    }

    /// Seal everything, with the lock held. Nobody else may be sealing.
    pub(super) fn seal_now(&self, state: &mut State) -> Result<(), AppendError> {
        let seal = state.sealer()?.seal(&state.tree, state.synced, state.last_seal);
        state.unsealed_since = None;
        self.write_seal(state, seal)
    }

    /// Return once `size` records are known to be on disk, their seal with them.
    pub(super) fn sync_to(&self, size: u64) -> Result<(), AppendError> {
        let mut state = self.lock()?;
        loop {
            if state.synced >= size {
                if state.synced == state.tree.size() {
                    state.unsynced_since = None;
                }
                return Ok(());
            }
            state.alive()?;
            if !state.syncing {
                break;
            }
            state = self.wait(state)?;
        }
        state.syncing = true;
        let (sealed, bytes, offset) = (state.sealed, state.unsynced_bytes, state.position.offset);
        let (newest, file) = (state.newest.clone(), Arc::clone(&state.position.file));
        let openings = state.openings.file.clone().filter(|_| state.openings.dirty);
        state.openings.dirty = false;
        state.unsynced_since = None;
        drop(state);
        let result = openings.map_or(Ok(()), |file| file.sync()).and_then(|()| file.sync());
        let mut state = self.lock()?;
        state.syncing = false;
        let result = match result {
            Ok(()) => {
                state.synced = state.synced.max(sealed);
                state.synced_offset = offset;
                state.durable = newest.or_else(|| state.durable.take());
                state.unsynced_bytes -= bytes.min(state.unsynced_bytes);
                Ok(())
            }
            Err(e) => Err(self.sync_failed(&mut state, &e)),
        };
        if state.unsynced_bytes > 0 {
            state.unsynced_since.get_or_insert_with(Instant::now);
            self.wake_syncer.notify_one();
        }
        self.done.notify_all();
        result
    }

    /// Nobody knows what the disk has, and asking the same descriptor again proves nothing. What may be missing is written
    /// once more through another one, with the reason after it; then the log takes nothing more, whatever comes of that.
    pub(super) fn sync_failed(&self, state: &mut State, error: &std::io::Error) -> AppendError {
        if state.alive().is_ok()
            && let Err(e) = self.write_again(state, error)
        {
            tracing::error!(log = %self.id, error = %e, "what was not on disk could not be written again");
        }
        self.fail(state, "fdatasync", error)
    }

    fn write_again(&self, state: &mut State, error: &std::io::Error) -> Result<(), AppendError> {
        let io = |e: std::io::Error| AppendError::Failed(e.to_string().into());
        let path = self.dir.join(segment_name(state.position.number));
        let again = self.disk.open(&path, false).map_err(io)?;
        let before = std::mem::replace(&mut state.position.file, again);
        let range = state.synced_offset..state.position.offset;
        copy_over(&*before, &*state.position.file, range).map_err(io)?;
        if state.turning {
            return state.position.file.sync().map_err(io);
        }
        let body = Body::IoError(Box::new(body::IoError {
            op: Text::from("fdatasync"),
            error: Text::from(error.kind().to_string()),
        }));
        self.write_record(state, Kind::IoError, &encode::plain_body(&body)?, state.time)?;
        if !state.sealing {
            self.seal_now(state)?;
        }
        state.position.file.sync().map_err(io)
    }
}

impl From<encode::EncodeError> for AppendError {
    fn from(e: encode::EncodeError) -> Self {
        match e {
            encode::EncodeError::Random => Self::Random,
            encode::EncodeError::Form(e) => Self::Encode(e),
        }
    }
}

impl From<FormError> for AppendError {
    fn from(e: FormError) -> Self {
        Self::Encode(e)
    }
}
