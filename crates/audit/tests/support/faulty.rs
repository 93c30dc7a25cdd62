//! A disk whose writes and syncs fail on demand.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use govrun_audit::storage::{Disk, LocalDisk, Storage};

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and the error says so.
    Refused(i32),
    /// Some bytes are written, then the error comes.
    Partial(i32),
    /// Everything is written, and yet an error is reported.
    Kept(i32),
    /// Fewer bytes than asked for are written, and that is said truly: not an error.
    Short,
}

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

/// What to break, counted over all files of the disk.
#[derive(Default)]
pub struct Plan {
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    pub bytes_read: AtomicU64,
    pub fail_write: Mutex<Option<(u64, Fault)>>,
    pub fail_sync: Mutex<Option<u64>>,
    /// Whether a sync was tried on a file after one failed on it.
    pub retried: AtomicU64,
}

pub struct FaultyDisk(pub Arc<Plan>);

struct FaultyFile {
    file: Arc<dyn Storage>,
    plan: Arc<Plan>,
    sync_failed: AtomicU64,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn Storage>> {
        let file = LocalDisk.open(path, create)?;
        Ok(Arc::new(FaultyFile { file, plan: Arc::clone(&self.0), sync_failed: AtomicU64::new(0) }))
    }

    /// Counts as a write; whole or not at all, so that a partial one is a refused one.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let index = self.0.writes.fetch_add(1, Ordering::SeqCst);
        match *self.0.fail_write.lock().unwrap() {
            Some((at, Fault::Refused(e) | Fault::Partial(e))) if index >= at => {
                Err(io::Error::from_raw_os_error(e))
            }
            Some((at, Fault::Kept(e))) if index >= at => {
                LocalDisk.replace(path, bytes)?;
                Err(io::Error::from_raw_os_error(e))
            }
            _ => LocalDisk.replace(path, bytes),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(dir)
    }
}

impl Storage for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let index = self.plan.writes.fetch_add(1, Ordering::SeqCst);
        let fault = match *self.plan.fail_write.lock().unwrap() {
            // A broken disk stays broken, but a short write is over.
            Some((at, Fault::Short)) if index == at => Some(Fault::Short),
            Some((_, Fault::Short)) => None,
            Some((at, fault)) if index >= at => Some(fault),
            _ => None,
        };
        let half = &bytes[..bytes.len() / 2 + 1];
        match fault {
            None => self.file.write_at(bytes, offset),
            Some(Fault::Short) => self.file.write_at(half, offset),
            Some(Fault::Refused(e)) => Err(io::Error::from_raw_os_error(e)),
            Some(Fault::Partial(e)) => {
                if self.plan.writes.load(Ordering::SeqCst) == index + 1 {
                    self.file.write_at(half, offset)?;
                }
                Err(io::Error::from_raw_os_error(e))
            }
            Some(Fault::Kept(e)) => {
                self.file.write_at(bytes, offset)?;
                Err(io::Error::from_raw_os_error(e))
            }
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(bytes, offset)?;
        self.plan.bytes_read.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.truncate(size)
    }

    fn sync(&self) -> io::Result<()> {
        let index = self.plan.syncs.fetch_add(1, Ordering::SeqCst);
        if self.sync_failed.load(Ordering::SeqCst) > 0 {
            self.plan.retried.fetch_add(1, Ordering::SeqCst);
        }
        match *self.plan.fail_sync.lock().unwrap() {
            Some(at) if index >= at => {
                self.sync_failed.fetch_add(1, Ordering::SeqCst);
                Err(io::Error::from_raw_os_error(EIO))
            }
            _ => self.file.sync(),
        }
    }
}
