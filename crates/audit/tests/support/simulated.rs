//! A disk that writes down what is asked of it, so that the directory can be put together as any crash would have left it.
//!
//! What a crash may do: everything before the end of a sync that succeeded, and was written before that sync began, is
//! there. Of everything else each write is there, is not there, or is there in part, whatever the others are. What was
//! written before a sync that failed may be missing for ever, even when a later sync of the file succeeds, unless it was
//! written again. A name that was made is there for certain once its directory is synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use govrun_audit::storage::{Disk, LocalDisk, Storage};

/// Files by their path below the root.
pub type Snapshot = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Clone)]
pub enum Op {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    /// A sync began here; its end names this operation.
    SyncBegins,
    /// It succeeded, or failed.
    SyncEnds(PathBuf, usize, bool),
    SyncDir(PathBuf),
    Replace(PathBuf, Vec<u8>),
    Remove(PathBuf),
    /// The writer was told that this record is as safe as it asked.
    Acknowledged(govrun_verdict::DecisionId, govrun_verdict::Durability),
    /// This checkpoint was published.
    Published(String),
}

/// What goes wrong at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The write or sync with this number fails, having done nothing.
    Refused(usize),
    /// It is done and fails all the same.
    Kept(usize),
}

#[derive(Default)]
pub struct Trace {
    pub ops: Vec<Op>,
    asked: usize,
}

#[derive(Clone)]
pub struct SimDisk {
    root: PathBuf,
    pub trace: Arc<Mutex<Trace>>,
    trouble: Trouble,
}

impl SimDisk {
    pub fn new(root: &Path, trouble: Trouble) -> Self {
        Self { root: root.to_owned(), trace: Arc::default(), trouble }
    }

    pub fn note(&self, op: Op) {
        self.trace.lock().unwrap().ops.push(op);
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    /// Whether this operation is to be done, and whether it is to be called a success.
    fn fate(&self, trace: &mut Trace) -> (bool, bool) {
        let number = trace.asked;
        trace.asked += 1;
        match self.trouble {
            Trouble::Refused(at) if at == number => (false, false),
            Trouble::Kept(at) if at == number => (true, false),
            _ => (true, true),
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn Storage>> {
        let mut trace = self.trace.lock().unwrap();
        let is_new = path.symlink_metadata().is_err();
        let file = LocalDisk.open(path, create)?;
        let name = self.relative(path);
        if is_new {
            trace.ops.push(Op::Create(name.clone()));
        }
        Ok(Arc::new(SimFile { file, name, disk: self.clone() }))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        let (done, success) = self.fate(&mut trace);
        if done {
            LocalDisk.replace(path, bytes)?;
            trace.ops.push(Op::Replace(self.relative(path), bytes.to_vec()));
        }
        if success { Ok(()) } else { Err(eio()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        LocalDisk.remove(path)?;
        trace.ops.push(Op::Remove(self.relative(path)));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut trace = self.trace.lock().unwrap();
        trace.ops.push(Op::SyncDir(self.relative(dir)));
        Ok(())
    }
}

struct SimFile {
    file: Arc<dyn Storage>,
    name: PathBuf,
    disk: SimDisk,
}

impl Storage for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut trace = self.disk.trace.lock().unwrap();
        let (done, success) = self.disk.fate(&mut trace);
        if done {
            self.file.write_at(bytes, offset)?;
            trace.ops.push(Op::Write(self.name.clone(), offset, bytes.to_vec()));
        }
        if success { Ok(bytes.len()) } else { Err(eio()) }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut trace = self.disk.trace.lock().unwrap();
        self.file.truncate(size)?;
        trace.ops.push(Op::Truncate(self.name.clone(), size));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (began, done, success) = {
            let mut trace = self.disk.trace.lock().unwrap();
            let (done, success) = self.disk.fate(&mut trace);
            trace.ops.push(Op::SyncBegins);
            (trace.ops.len() - 1, done, success)
        };
        let mut trace = self.disk.trace.lock().unwrap();
        trace.ops.push(Op::SyncEnds(self.name.clone(), began, done && success));
        if success { Ok(()) } else { Err(eio()) }
    }
}

/// Numbers that look random, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }
}

/// What a crash does to the writes that no sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: the system still has everything.
    Killed,
    /// All are lost.
    Lost,
    /// All are there, but the last in part.
    Torn,
    /// Those from some point on are lost.
    Cut,
    /// Each is there, is not there, or is there in part.
    Any,
}

/// The files as a crash after these operations leaves them.
pub fn after_crash(base: &Snapshot, ops: &[Op], crash: Crash, dice: &mut Dice) -> Snapshot {
    let safe = safe_ops(ops);
    let open: Vec<usize> = (0..ops.len()).filter(|i| !safe[*i] && matches!(ops[*i], Op::Write(..))).collect();
    let cut = if open.is_empty() { 0 } else { open[dice.roll(open.len())] };
    let last = open.last().copied();
    let mut files = base.clone();
    for (i, op) in ops.iter().enumerate() {
        let part = match crash {
            _ if safe[i] => 2,
            Crash::Killed => 2,
            Crash::Lost => 0,
            Crash::Torn => {
                if Some(i) == last {
                    1
                } else {
                    2
                }
            }
            Crash::Cut => {
                if i < cut {
                    2
                } else {
                    0
                }
            }
            Crash::Any => dice.roll(3),
        };
        apply(&mut files, op, part, dice);
    }
    files
}

/// Whether an operation is on disk for certain.
fn safe_ops(ops: &[Op]) -> Vec<bool> {
    let mut safe = vec![false; ops.len()];
    let mut doomed = vec![false; ops.len()];
    for (i, op) in ops.iter().enumerate() {
        match op {
            Op::SyncEnds(file, began, success) => {
                for j in 0..*began {
                    let ours = matches!(&ops[j], Op::Write(f, ..) | Op::Truncate(f, _) if f == file);
                    if ours && !safe[j] {
                        safe[j] = *success && !doomed[j];
                        doomed[j] = !safe[j];
                    }
                }
            }
            Op::SyncDir(dir) => {
                for j in 0..i {
                    if matches!(&ops[j], Op::Create(f) if f.parent() == Some(dir)) {
                        safe[j] = true;
                    }
                }
            }
            Op::Replace(..) | Op::Remove(_) => safe[i] = true,
            Op::Create(_)
            | Op::Write(..)
            | Op::Truncate(..)
            | Op::SyncBegins
            | Op::Acknowledged(..)
            | Op::Published(_) => {}
        }
    }
    safe
}

/// `part`: 0 not at all, 1 in part, 2 whole.
fn apply(files: &mut Snapshot, op: &Op, part: usize, dice: &mut Dice) {
    match op {
        Op::Create(file) if part > 0 => drop(files.entry(file.clone()).or_default()),
        Op::Write(file, offset, bytes) if part > 0 => {
            let length = if part == 1 { dice.roll(bytes.len()) } else { bytes.len() };
            // A file whose name was lost has lost its content too.
            let Some(content) = files.get_mut(file) else { return };
            let start = usize::try_from(*offset).unwrap();
            if content.len() < start + length {
                content.resize(start + length, 0);
            }
            content[start..start + length].copy_from_slice(&bytes[..length]);
        }
        Op::Truncate(file, size) if part > 0 => {
            if let Some(content) = files.get_mut(file) {
                content.resize(usize::try_from(*size).unwrap(), 0);
            }
        }
        Op::Replace(file, bytes) => drop(files.insert(file.clone(), bytes.clone())),
        Op::Remove(file) => drop(files.remove(file)),
        Op::Create(_)
        | Op::Write(..)
        | Op::Truncate(..)
        | Op::SyncBegins
        | Op::SyncEnds(..)
        | Op::SyncDir(_)
        | Op::Acknowledged(..)
        | Op::Published(_) => {}
    }
}

/// The files of a directory; locks left out.
pub fn read_all(root: &Path) -> Snapshot {
    let mut files = Snapshot::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") && path.extension() != Some("lock".as_ref()) {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Put the files into an empty directory.
pub fn write_all(root: &Path, files: &Snapshot) {
    use std::os::unix::fs::OpenOptionsExt as _;
    for (name, content) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        io::Write::write_all(&mut file, content).unwrap();
    }
}
