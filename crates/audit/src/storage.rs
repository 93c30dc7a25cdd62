//! The few things a log asks of a file, as a trait that tests wrap to fail.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// One file: written at offsets, so that what a failed write left behind is simply written over or cut off.
pub trait Storage: Send + Sync {
    /// Write some of the bytes; returns how many.
    ///
    /// # Errors
    /// When nothing could be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Read some bytes; 0 at the end of the file.
    ///
    /// # Errors
    /// When nothing could be read.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Length in bytes.
    ///
    /// # Errors
    /// When the system cannot tell.
    fn size(&self) -> io::Result<u64>;

    /// Cut the file off.
    ///
    /// # Errors
    /// When it cannot be cut.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Bring everything written to the disk (`fdatasync`).
    ///
    /// # Errors
    /// When it cannot be known to be there. Trying again on the same file proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// Where the files of a log are opened.
pub trait Disk: Send + Sync {
    /// Open a regular file for reading and writing; with `create`, make it (0600) if it is not there. Links are not followed.
    ///
    /// # Errors
    /// When it cannot be opened or is not a regular file.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn Storage>>;

    /// Put a small file (0600) in place of what is there, whole or not at all, on disk when this returns; then overwrite the
    /// bytes that were there before.
    ///
    /// # Errors
    /// When it cannot be known to be there. What is there then is the old file or the new one.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Take a file away, so that it stays away after a crash.
    ///
    /// # Errors
    /// When it could not be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Bring the names in a directory to the disk.
    ///
    /// # Errors
    /// When they cannot be known to be there.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn Storage>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600).custom_flags(no_follow());
        Ok(Arc::new(regular(options.open(path)?)?))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(no_follow());
        let file = regular(options.open(&temporary)?)?;
        write_all_at(&file, bytes, 0)?;
        file.sync_all()?;
        let before = OpenOptions::new().write(true).custom_flags(no_follow()).open(path).ok();
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), sync_dir)?;
        before.map_or(Ok(()), |file| overwrite(&file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

/// Overwrite a file that has no name any more. What the disk or file system keeps of it besides is out of reach.
fn overwrite(file: &File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    write_all_at(file, &vec![0; length], 0)?;
    file.sync_data()
}

impl Storage for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn no_follow() -> i32 {
    // Non-blocking, so that opening a FIFO returns and can be refused.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    i32::try_from(flags.bits()).unwrap_or(0)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Open a regular file for reading; a link, FIFO or device is refused.
pub(crate) fn open_read(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).custom_flags(no_follow()).open(path)?)
}

/// Write all of the bytes, however short the single writes are.
pub(crate) fn write_all_at(file: &dyn Storage, bytes: &[u8], offset: u64) -> io::Result<()> {
    let (mut rest, mut at) = (bytes, offset);
    while !rest.is_empty() {
        match file.write_at(rest, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                rest = rest.get(n..).ok_or(io::ErrorKind::InvalidData)?;
                at += u64::try_from(n).map_err(|_| io::ErrorKind::InvalidData)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Read exactly the bytes from `offset` on.
pub(crate) fn read_exact_at(file: &dyn Storage, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let (mut rest, mut at) = (bytes, offset);
    while !rest.is_empty() {
        match file.read_at(rest, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                rest = rest.get_mut(n..).ok_or(io::ErrorKind::InvalidData)?;
                at += u64::try_from(n).map_err(|_| io::ErrorKind::InvalidData)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Make a directory, 0700, with its parents, if it is not there.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Bring the names in a directory to the disk.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Take an exclusive lock, and wait until whoever has it lets it go.
pub(crate) fn wait_for_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
    let file = regular(options.open(path)?)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Take the exclusive lock of a log, without waiting. `None`: another process or handle has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
    let file = regular(options.open(path)?)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Whether somebody holds the lock of a log. A missing lock file is held by nobody.
pub(crate) fn is_locked(path: &Path) -> bool {
    let Ok(file) = open_read(path) else { return false };
    let taken = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
    matches!(taken, Err(rustix::io::Errno::WOULDBLOCK))
}
