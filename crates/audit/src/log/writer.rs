//! The append path: one mutex around the file, a signature outside of it.
//!
//! A seal is signed while others go on appending, so it may stand a few records after the last one it covers. Whoever
//! needs a seal and finds nobody signing signs; the others wait and share the next one (group commit). One sync runs at
//! a time, likewise.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use govrun_verdict::{Durability, LogId};

use super::AppendError;
use crate::clock::{Clock, ClockError};
use crate::commit::Salts;
use crate::encode::{self, Encoded};
use crate::form::body::{self, Body};
use crate::form::{
    FormError, FrameHead, Hex, Kind, MAX_INT, MAX_LINE, MAX_UNSEALED, Text, begin_line, end_line, push_body,
};
use crate::hash::{self, Hash, NOTHING, Tree};
use crate::keys::Sealer;
use crate::storage::{Storage, write_all_at};

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

/// Everything that changes with an append.
pub(super) struct State {
    /// End of the last whole line.
    pub(super) offset: u64,
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
    pub(super) sealing: bool,
    /// Whether the last seal covered more than one record.
    pub(super) shared: bool,
    pub(super) syncing: bool,
    pub(super) failed: Option<Arc<str>>,
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
    /// An empty log, its file still empty.
    pub(super) const fn empty() -> Self {
        Self {
            offset: 0,
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
            sealing: false,
            shared: false,
            syncing: false,
            failed: None,
            closed: false,
            openings: Openings { file: None, offset: 0, dirty: false },
            line: Vec::new(),
        }
    }

    fn alive(&self) -> Result<(), AppendError> {
        match &self.failed {
            Some(why) => Err(AppendError::Failed(Arc::clone(why))),
            None if self.closed => Err(AppendError::Closed),
            None => Ok(()),
        }
    }

    fn unsealed(&self) -> u64 {
        self.tree.size() - self.sealed
    }
}

/// One open log, shared by its handles and its two threads.
pub(super) struct Writer {
    pub(super) id: LogId,
    pub(super) file: Arc<dyn Storage>,
    pub(super) open_openings: Box<dyn Fn() -> std::io::Result<Arc<dyn Storage>> + Send + Sync>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) boot: Hex<16>,
    pub(super) sealer: Sealer,
    pub(super) salts: Mutex<Salts>,
    pub(super) state: Mutex<State>,
    /// The sealing thread waits here, and the syncing one there.
    pub(super) wake_sealer: Condvar,
    pub(super) wake_syncer: Condvar,
    /// Callers wait here for somebody else's seal or sync.
    pub(super) done: Condvar,
}

type Guard<'a> = MutexGuard<'a, State>;

fn poisoned() -> AppendError {
    AppendError::Failed("a thread died while it held the log".into())
}

impl Writer {
    pub(super) fn lock(&self) -> Result<Guard<'_>, AppendError> {
        self.state.lock().map_err(|_| poisoned())
    }

    fn wait<'a>(&self, guard: Guard<'a>) -> Result<Guard<'a>, AppendError> {
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
        if state.unsynced_since.is_none() {
            state.unsynced_since = Some(Instant::now());
            self.wake_syncer.notify_one();
        }
    }

    fn write_record(
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
        if let Err(e) = write_all_at(&*self.file, line, state.offset) {
            return Err(self.fail(state, "write", &e));
        }
        let written = u64::try_from(line.len()).unwrap_or(u64::MAX);
        state.offset += written;
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
        let file = (self.open_openings)()?;
        state.openings.offset = file.size()?;
        state.openings.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn fail(&self, state: &mut State, op: &str, error: &std::io::Error) -> AppendError {
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
        state.unsealed_since = None;
        drop(state);
        let line = self.sealer.seal(&tree, synced, after).line();
        let mut state = self.lock()?;
        state.sealing = false;
        let result = state.alive().and_then(|()| self.write_seal(&mut state, line?, tree.size(), synced));
        if state.unsealed_since.is_some() {
            // Its clock ran while this seal was made, and the thread does not look at it meanwhile.
            self.wake_sealer.notify_one();
        }
        self.done.notify_all();
        result
    }

    fn write_seal(
        &self,
        state: &mut State,
        mut line: Vec<u8>,
        size: u64,
        synced: u64,
    ) -> Result<(), AppendError> {
        let hash = hash::seal(&line);
        self.write_line(state, &mut line)?;
        state.last_seal = hash;
        state.seal_due = true;
        state.shared = size - state.sealed > 1;
        state.sealed = size;
        state.synced_said = synced;
        Ok(())
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
        let (sealed, bytes) = (state.sealed, state.unsynced_bytes);
        let openings = state.openings.file.clone().filter(|_| state.openings.dirty);
        state.openings.dirty = false;
        state.unsynced_since = None;
        drop(state);
        let result = openings.map_or(Ok(()), |file| file.sync()).and_then(|()| self.file.sync());
        let mut state = self.lock()?;
        state.syncing = false;
        let result = match result {
            Ok(()) => {
                state.synced = state.synced.max(sealed);
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

    /// The file can still be written, so it says why it ends; nothing is claimed about the disk.
    fn sync_failed(&self, state: &mut State, error: &std::io::Error) -> AppendError {
        let body = Body::IoError(Box::new(body::IoError {
            op: Text::from("fdatasync"),
            error: Text::from(error.kind().to_string()),
        }));
        if let Ok(body) = encode::plain_body(&body)
            && state.alive().is_ok()
            && self.write_record(state, Kind::IoError, &body, state.time).is_ok()
            && !state.sealing
        {
            let line = self.sealer.seal(&state.tree, state.synced, state.last_seal).line();
            let (size, synced) = (state.tree.size(), state.synced);
            if let Ok(line) = line
                && let Err(e) = self.write_seal(state, line, size, synced)
            {
                tracing::error!(log = %self.id, error = %e, "the last seal could not be written");
            }
        }
        self.fail(state, "fdatasync", error)
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
