//! Finding a log to write, or making one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use govrun_verdict::{Durability, LogId};

use super::limits::Limits;
use super::recover::{self, RecoverError, Resumed};
use super::segment::segment_name;
use super::writer::{Position, State, Writer};
use super::{AppendError, Handle, Held, LOCK, Log, UNFINISHED, threads};
use crate::clock::Clock;
use crate::commit::Salts;
use crate::encode;
use crate::form::body::{self, Body, EpochEnd};
use crate::form::{Hex, Int, Kind, Line, MAX_LINE, Text, parse_line};
use crate::keys::{Certificate, Epochs, KeyError, KeyStore};
use crate::storage::{self, Disk, Storage};

/// Most logs under one directory that are tried before a new one is made.
const MAX_TRIED: usize = 256;

/// No log could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it could not be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A log there belongs to other keys. Nothing was written to it.
    #[error(
        "{} was begun under other keys (root {found}, ours is {ours}): use another directory or the keys it was begun with",
        path.display()
    )]
    ForeignKey {
        /// The log.
        path: PathBuf,
        /// Its root key, as far as it can be read.
        found: String,
        /// Ours.
        ours: String,
    },
    /// The log is damaged where a crash cannot have damaged it.
    #[error("{}: {error}", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where and how.
        error: RecoverError,
    },
    /// The log was begun with these keys, but its epoch seed is not among them.
    #[error("the epoch seed of {} is not among the keys: use another directory, or the keys it was written with", .0.display())]
    NoSeed(PathBuf),
    /// The first records could not be written.
    #[error("the log could not be begun: {0}")]
    Append(#[from] AppendError),
    /// The keys cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No random bytes for the id.
    #[error("the operating system gave no random bytes")]
    Random,
}

struct Opener<'a> {
    dir: &'a Path,
    keys: &'a KeyStore,
    clock: &'a Arc<dyn Clock>,
    disk: &'a Arc<dyn Disk>,
    boot: Hex<16>,
    limits: Limits,
}

/// What is held while a log is open: its directory, and its epoch keys wherever its directory is.
struct Locks {
    dir: std::fs::File,
    epochs: std::fs::File,
}

pub(super) fn open(
    dir: &Path,
    keys: &KeyStore,
    clock: &Arc<dyn Clock>,
    disk: &Arc<dyn Disk>,
    limits: Limits,
) -> Result<Log, OpenError> {
    storage::private_dir(dir).map_err(|e| io(dir, &e))?;
    let opener = Opener { dir, keys, clock, disk, boot: boot_id()?, limits };
    for id in log_ids(dir).map_err(|e| io(dir, &e))?.into_iter().take(MAX_TRIED) {
        if let Some(log) = opener.reopen(id)? {
            return Ok(log);
        }
    }
    opener.create()
}

pub(super) fn open_free(
    dir: &Path,
    keys: &KeyStore,
    clock: &Arc<dyn Clock>,
    disk: &Arc<dyn Disk>,
) -> Result<Vec<Log>, OpenError> {
    let opener = Opener { dir, keys, clock, disk, boot: boot_id()?, limits: Limits::default() };
    let ids = log_ids(dir).map_err(|e| io(dir, &e))?;
    ids.into_iter().take(MAX_TRIED).filter_map(|id| opener.reopen(id).transpose()).collect()
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), error: error.to_string() }
}

/// The logs under a directory, sorted.
pub(crate) fn log_ids(dir: &Path) -> std::io::Result<Vec<LogId>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(id) = entry?.file_name().to_str().and_then(|name| LogId::parse(name).ok()) {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Id of this boot, so that monotonic times can be compared. Where the system has none, one per process.
fn boot_id() -> Result<Hex<16>, OpenError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Hex::parse(digits.as_bytes()).map_or_else(|| random().map(Hex), Ok)
}

fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| OpenError::Random)?;
    Ok(bytes)
}

impl Opener<'_> {
    fn reopen(&self, id: LogId) -> Result<Option<Log>, OpenError> {
        let path = self.dir.join(id.to_string());
        let Some(dir) = storage::lock(&path.join(LOCK)).map_err(|e| io(&path, &e))? else {
            return Ok(None);
        };
        if !self.is_ours(&path, id)? {
            return Ok(None);
        }
        let Some(held) = self.keys.hold(id)? else { return Ok(None) };
        let epochs = self.keys.epochs(id)?.ok_or_else(|| OpenError::NoSeed(path.clone()))?;
        let now = self.clock.now().map_err(AppendError::Clock)?;
        let resumed = recover::resume(&path, &epochs, now, &**self.disk)
            .map_err(|error| OpenError::Damaged { path: path.clone(), error })?;
        let Resumed { state, epochs: order, recovered } = resumed;
        let unfinished = order.is_ended() && epochs.epoch() < order.next();
        let writer = Arc::new(self.writer(id, path, state, epochs)?);
        if unfinished {
            writer.finish_epoch(!order.is_open_ended())?;
        }
        if let Some(body) = recovered {
            let body = encode::plain_body(&body).map_err(AppendError::from)?;
            writer.append(Kind::Recover, &body, Durability::Os)?;
            // The key that signed before the crash signs what was found, and nothing after it.
            writer.rotate(EpochEnd::Recover)?;
        }
        self.append_open(&writer)?;
        self.start(writer, Locks { dir, epochs: held }).map(Some)
    }

    /// Whether a log is one of these keys; one of an older certificate of the same root is left alone. The first line says
    /// whose log it is.
    fn is_ours(&self, path: &Path, id: LogId) -> Result<bool, OpenError> {
        let segment = path.join(segment_name(1));
        let file = self.disk.open(&segment, false).map_err(|e| io(&segment, &e))?;
        let found = genesis_certificate(&*file, id)
            .map_err(|error| OpenError::Damaged { path: path.to_owned(), error })?;
        if found == self.keys.certificate().note() {
            return Ok(true);
        }
        let certificate = Certificate::parse(&found);
        if certificate.as_ref().is_ok_and(|c| c.root() == self.keys.certificate().root()) {
            return Ok(false);
        }
        let found = certificate.map_or_else(|e| format!("unknown, {e}"), |c| c.root().to_string());
        let ours = self.keys.certificate().root().to_string();
        Err(OpenError::ForeignKey { path: path.to_owned(), found, ours })
    }

    /// A log is made under another name and gets its own once it is whole and on disk: a crash leaves no half-made log.
    fn create(&self) -> Result<Log, OpenError> {
        let (id, epochs, genesis) = self.keys.take(&**self.disk)?;
        let busy = |path: &Path| io(path, &std::io::ErrorKind::WouldBlock.into());
        let held = self.keys.hold(id)?.ok_or_else(|| busy(self.dir))?;
        let unfinished = self.dir.join(format!("{UNFINISHED}{id}"));
        let path = self.dir.join(id.to_string());
        storage::private_dir(&unfinished).map_err(|e| io(&unfinished, &e))?;
        let lock = storage::lock(&unfinished.join(LOCK)).map_err(|e| io(&unfinished, &e))?;
        let dir = lock.ok_or_else(|| busy(&unfinished))?;
        let file =
            self.disk.open(&unfinished.join(segment_name(1)), true).map_err(|e| io(&unfinished, &e))?;
        let began = self.clock.now().map_err(AppendError::Clock)?.0;
        let state = State::at(Position { file, number: 1, offset: 0, began });
        let writer = Arc::new(self.writer(id, path.clone(), state, epochs)?);
        let genesis = encode::plain_body(&Body::Genesis(Box::new(genesis))).map_err(AppendError::from)?;
        writer.append(Kind::Genesis, &genesis, Durability::Os)?;
        self.append_open(&writer)?;
        storage::sync_dir(&unfinished).map_err(|e| io(&unfinished, &e))?;
        std::fs::rename(&unfinished, &path).map_err(|e| io(&path, &e))?;
        storage::sync_dir(self.dir).map_err(|e| io(self.dir, &e))?;
        self.start(writer, Locks { dir, epochs: held })
    }

    fn writer(&self, id: LogId, dir: PathBuf, mut state: State, epochs: Epochs) -> Result<Writer, OpenError> {
        state.sealer = Some(Arc::new(epochs.sealer()?));
        Ok(Writer {
            id,
            dir,
            all: self.dir.to_owned(),
            disk: Arc::clone(self.disk),
            limits: self.limits,
            clock: Arc::clone(self.clock),
            boot: self.boot,
            epochs: Mutex::new(epochs),
            co_signer: self.keys.co_signer(),
            salts: Mutex::new(Salts::new()),
            state: Mutex::new(state),
            wake_sealer: Condvar::new(),
            wake_syncer: Condvar::new(),
            done: Condvar::new(),
        })
    }

    /// The second seal states that the first is on disk: a reopening has that to hold on to.
    fn append_open(&self, writer: &Writer) -> Result<(), OpenError> {
        let open = Body::Open(Box::new(body::Open {
            program: Text::from(concat!("govrun ", env!("CARGO_PKG_VERSION"))),
            pid: Int(std::process::id().into()),
        }));
        writer.append(
            Kind::Open,
            &encode::plain_body(&open).map_err(AppendError::from)?,
            Durability::Disk,
        )?;
        writer.seal_synced()?;
        Ok(())
    }

    fn start(&self, writer: Arc<Writer>, locks: Locks) -> Result<Log, OpenError> {
        writer.publish();
        let threads = threads::start(&writer).map_err(|e| io(self.dir, &e))?;
        let held = Mutex::new(Held { threads, locks: Some((locks.dir, locks.epochs)) });
        Ok(Log(Arc::new(Handle { writer, dir: self.dir.to_owned(), held })))
    }
}

fn genesis_certificate(file: &dyn Storage, id: LogId) -> Result<String, RecoverError> {
    let size = file.size().map_err(|e| RecoverError::io(&e))?;
    let length = usize::try_from(size).unwrap_or(MAX_LINE).min(MAX_LINE);
    let mut bytes = vec![0; length.min(16 * 1024)];
    storage::read_exact_at(file, &mut bytes, 0).map_err(|e| RecoverError::io(&e))?;
    let no_genesis = || RecoverError::beginning("the file does not begin with a genesis record");
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(no_genesis)?;
    let line = bytes.get(..end).unwrap_or_default();
    let Ok(Line::Record(frame)) = parse_line(line) else { return Err(no_genesis()) };
    let mut scratch = Vec::new();
    match frame.body_in(&mut scratch) {
        Ok(Body::Genesis(genesis)) if genesis.log == id => Ok(genesis.cert.to_string()),
        Ok(Body::Genesis(_)) => Err(RecoverError::beginning("the genesis record is of another log")),
        Ok(_) | Err(_) => Err(no_genesis()),
    }
}
