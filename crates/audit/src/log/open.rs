//! Finding a log to write, or making one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use govrun_verdict::{Durability, LogId};

use super::recover::{self, RecoverError, Resumed};
use super::writer::{State, Writer};
use super::{AppendError, Handle, Held, LOCK, Log, OPENINGS, SEGMENT, UNFINISHED, threads};
use crate::clock::Clock;
use crate::commit::Salts;
use crate::encode;
use crate::form::body::{self, Body};
use crate::form::{Hex, Int, Kind, Line, MAX_LINE, Text, parse_line};
use crate::keys::{KeyError, KeyStore, log_origin};
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
    /// The log has more segments than this version writes.
    #[error("{} has a second segment, which this version does not continue", .0.display())]
    NewerFormat(PathBuf),
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
}

pub(super) fn open(
    dir: &Path,
    keys: &KeyStore,
    clock: &Arc<dyn Clock>,
    disk: &Arc<dyn Disk>,
) -> Result<Log, OpenError> {
    storage::private_dir(dir).map_err(|e| io(dir, &e))?;
    let opener = Opener { dir, keys, clock, disk, boot: boot_id()? };
    for id in log_ids(dir).map_err(|e| io(dir, &e))?.into_iter().take(MAX_TRIED) {
        if let Some(log) = opener.reopen(id)? {
            return Ok(log);
        }
    }
    opener.create()
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
        let Some(lock) = storage::lock(&path.join(LOCK)).map_err(|e| io(&path, &e))? else {
            return Ok(None);
        };
        if path.join("00000002.jsonl").symlink_metadata().is_ok() {
            return Err(OpenError::NewerFormat(path));
        }
        let segment = path.join(SEGMENT);
        let file = self.disk.open(&segment, false).map_err(|e| io(&segment, &e))?;
        self.check_keys(&path, id, &*file)?;
        let sealer = self.keys.sealer(id)?;
        let now = self.clock.now().map_err(AppendError::Clock)?;
        let resumed = recover::resume(&*file, &path, &sealer.key, now)
            .map_err(|error| OpenError::Damaged { path: path.clone(), error })?;
        let Resumed { state, recovered } = resumed;
        let writer = Arc::new(self.writer(id, file, path, state)?);
        if let Some(body) = recovered {
            writer.append(
                Kind::Recover,
                &encode::plain_body(&body).map_err(AppendError::from)?,
                Durability::Os,
            )?;
        }
        self.begin(writer, lock).map(Some)
    }

    /// The first line says whose log it is.
    fn check_keys(&self, path: &Path, id: LogId, file: &dyn Storage) -> Result<(), OpenError> {
        let found = genesis_certificate(file, id)
            .map_err(|error| OpenError::Damaged { path: path.to_owned(), error })?;
        if found == self.keys.certificate().note() {
            return Ok(());
        }
        let root = crate::keys::Certificate::parse(&found);
        let found = root.map_or_else(|e| format!("unknown, {e}"), |c| c.root().to_string());
        let ours = self.keys.certificate().root().to_string();
        Err(OpenError::ForeignKey { path: path.to_owned(), found, ours })
    }

    /// A log is made under another name and gets its own once it is whole and on disk: a crash leaves no half-made log.
    fn create(&self) -> Result<Log, OpenError> {
        let id = LogId(random()?);
        let unfinished = self.dir.join(format!("{UNFINISHED}{id}"));
        let path = self.dir.join(id.to_string());
        storage::private_dir(&unfinished).map_err(|e| io(&unfinished, &e))?;
        let lock = storage::lock(&unfinished.join(LOCK)).map_err(|e| io(&unfinished, &e))?;
        let lock = lock.ok_or_else(|| io(&unfinished, &std::io::ErrorKind::WouldBlock.into()))?;
        let file = self.disk.open(&unfinished.join(SEGMENT), true).map_err(|e| io(&unfinished, &e))?;
        let writer = Arc::new(self.writer(id, file, path.clone(), State::empty())?);
        let genesis = Body::Genesis(Box::new(body::Genesis {
            log: id,
            origin: Text::from(log_origin(self.keys.origin(), id)),
            cert: Text::from(self.keys.certificate().note()),
            epoch_key: Hex(*writer.sealer.key.public()),
            epoch_proof: Vec::new(),
        }));
        writer.append(
            Kind::Genesis,
            &encode::plain_body(&genesis).map_err(AppendError::from)?,
            Durability::Os,
        )?;
        self.append_open(&writer)?;
        storage::sync_dir(&unfinished).map_err(|e| io(&unfinished, &e))?;
        std::fs::rename(&unfinished, &path).map_err(|e| io(&path, &e))?;
        storage::sync_dir(self.dir).map_err(|e| io(self.dir, &e))?;
        self.start(writer, lock)
    }

    fn writer(
        &self,
        id: LogId,
        file: Arc<dyn Storage>,
        path: PathBuf,
        state: State,
    ) -> Result<Writer, OpenError> {
        let disk = Arc::clone(self.disk);
        Ok(Writer {
            id,
            file,
            open_openings: Box::new(move || disk.open(&path.join(OPENINGS), true)),
            clock: Arc::clone(self.clock),
            boot: self.boot,
            sealer: self.keys.sealer(id)?,
            salts: Mutex::new(Salts::new()),
            state: Mutex::new(state),
            wake_sealer: Condvar::new(),
            wake_syncer: Condvar::new(),
            done: Condvar::new(),
        })
    }

    fn begin(&self, writer: Arc<Writer>, lock: std::fs::File) -> Result<Log, OpenError> {
        self.append_open(&writer)?;
        self.start(writer, lock)
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

    fn start(&self, writer: Arc<Writer>, lock: std::fs::File) -> Result<Log, OpenError> {
        let threads = threads::start(&writer).map_err(|e| io(self.dir, &e))?;
        let held = Mutex::new(Held { threads, lock: Some(lock) });
        Ok(Log(Arc::new(Handle { writer, dir: self.dir.to_owned(), held })))
    }
}

fn genesis_certificate(file: &dyn Storage, id: LogId) -> Result<String, RecoverError> {
    let size = file.size().map_err(|e| RecoverError::io(&e))?;
    let length = usize::try_from(size).unwrap_or(MAX_LINE).min(MAX_LINE);
    let mut bytes = vec![0; length.min(16 * 1024)];
    storage::read_exact_at(file, &mut bytes, 0).map_err(|e| RecoverError::io(&e))?;
    let no_genesis = || RecoverError::damaged(1, 0, "the file does not begin with a genesis record");
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(no_genesis)?;
    let line = bytes.get(..end).unwrap_or_default();
    let Ok(Line::Record(frame)) = parse_line(line) else { return Err(no_genesis()) };
    let mut scratch = Vec::new();
    match frame.body_in(&mut scratch) {
        Ok(Body::Genesis(genesis)) if genesis.log == id => Ok(genesis.cert.to_string()),
        Ok(Body::Genesis(_)) => Err(RecoverError::damaged(1, 0, "the genesis record is of another log")),
        Ok(_) | Err(_) => Err(no_genesis()),
    }
}
