//! What is in files: below until the first change, then on the shelf, under one cap on bytes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::lower::describe;
use super::{Id, Kind, Layer, Node, Result, Stat};

/// Bytes that the layer may still take.
#[derive(Debug)]
pub(super) struct Room(AtomicU64);

impl Room {
    pub(super) fn of(bytes: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> Result<()> {
        let order = Ordering::Relaxed;
        let taken = self.0.fetch_update(order, order, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| Errno::NOSPC)
    }

    fn give_back(&self, bytes: u64) {
        let order = Ordering::Relaxed;
        // The closure never refuses, so this cannot fail.
        let _ = self.0.fetch_update(order, order, |left| Some(left.saturating_add(bytes)));
    }

    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the layer's own files are: a directory that only this process can enter, removed with the layer.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: tempfile::TempDir,
    empty: PathBuf,
    next: u64,
}

impl Shelf {
    pub(super) fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let private = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("govrun-").permissions(private).tempdir().map_err(errno)?;
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).map_err(errno)?;
        Ok(Self { dir, empty, next: 0 })
    }

    pub(super) fn empty(&self) -> &Path {
        &self.empty
    }

    /// A new empty file; its number.
    pub(super) fn put(&mut self) -> Result<u64> {
        let number = self.next;
        self.next = number.saturating_add(1);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::open(self.path(number), flags, Mode::from_raw_mode(0o600))?;
        Ok(number)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.path().join(number.to_string())
    }

    fn open(&self, number: u64) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::open(self.path(number), flags, Mode::empty())?.into())
    }

    pub(super) fn stat(&self, number: u64, open: &Weak<Content>) -> Result<Stat> {
        match open.upgrade() {
            Some(content) => content.stat(),
            None => describe(&self.open(number)?).map(|found| found.stat),
        }
    }

    /// The file lost its name: its bytes are free now, or when the last handle is closed.
    pub(super) fn take_away(&self, number: u64, open: &Weak<Content>, room: &Room) {
        match open.upgrade() {
            Some(content) => content.nameless.store(true, Ordering::Relaxed),
            None => room.give_back(std::fs::metadata(self.path(number)).map_or(0, |meta| meta.len())),
        }
        // What cannot be removed now goes with the directory.
        let _ = std::fs::remove_file(self.path(number));
    }
}

/// The content of a file that is open. All handles of the file share it, so that each sees what the others write, also
/// when the file was opened before its first change.
#[derive(Debug)]
pub(crate) struct Content {
    id: Id,
    file: Mutex<Arc<File>>,
    own: AtomicBool,
    nameless: AtomicBool,
    room: Arc<Room>,
}

impl Content {
    /// The node it belongs to.
    pub(crate) const fn id(&self) -> Id {
        self.id
    }

    /// What holds the bytes at this time.
    pub(crate) fn file(&self) -> Arc<File> {
        // The lock guards one pointer, which is whole after any panic.
        Arc::clone(&self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn stat(&self) -> Result<Stat> {
        Ok(describe(&*self.file())?.stat)
    }

    /// Up to `buffer.len()` bytes from `offset`; 0 at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.file();
        loop {
            match file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// All of `bytes` from `offset`, or at the end where it is `None`. What the file grows by counts, holes too.
    ///
    /// # Errors
    /// `NOSPC` when the layer is full; then nothing is written.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: Option<u64>) -> io::Result<()> {
        let file = self.writable()?;
        let size = file.metadata()?.len();
        let offset = offset.unwrap_or(size);
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(count).ok_or(Errno::FBIG)?;
        let grows = if bytes.is_empty() { 0 } else { end.saturating_sub(size) };
        self.room.take(grows)?;
        let written = file.write_all_at(bytes, offset);
        if written.is_err() {
            let now = file.metadata().map_or(end, |meta| meta.len());
            self.room.give_back(grows.saturating_sub(now.saturating_sub(size)));
        }
        written
    }

    /// # Errors
    /// `NOSPC` when the layer is full.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        let file = self.writable()?;
        let size = file.metadata()?.len();
        self.room.take(len.saturating_sub(size))?;
        let changed = file.set_len(len);
        let unused = if changed.is_ok() { size.saturating_sub(len) } else { len.saturating_sub(size) };
        self.room.give_back(unused);
        changed
    }

    pub(super) fn set_times(&self, accessed: Option<Timespec>, modified: Option<Timespec>) -> Result<()> {
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times =
            Timestamps { last_access: accessed.unwrap_or(omit), last_modification: modified.unwrap_or(omit) };
        rustix::fs::futimens(&*self.writable()?, &times)
    }

    /// INVARIANT: only the layer's own file is ever written to.
    fn writable(&self) -> Result<Arc<File>> {
        if self.own.load(Ordering::Acquire) { Ok(self.file()) } else { Err(Errno::BADF) }
    }

    fn now_own(&self, file: File) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        self.own.store(true, Ordering::Release);
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.nameless.load(Ordering::Relaxed) && self.own.load(Ordering::Relaxed) {
            self.room.give_back(self.file().metadata().map_or(0, |meta| meta.len()));
        }
    }
}

impl Layer {
    /// Open a file. For writing it is copied first, unless it is to be truncated.
    ///
    /// # Errors
    /// As `open`; `NOSPC` when the copy does not fit.
    pub(crate) fn open(&mut self, id: Id, write: bool, truncate: bool) -> Result<Arc<Content>> {
        let Kind::File { own, open } = &self.node(id)?.kind else { return Err(Errno::ISDIR) };
        let (own, shared) = (*own, open.upgrade());
        let content = match (shared, own) {
            (Some(content), _) => content,
            (None, Some(number)) => self.share(id, self.shelf.open(number)?, true)?,
            (None, None) => self.share(id, self.file_below(self.node(id)?)?, false)?,
        };
        if (write || truncate) && own.is_none() {
            self.copy_up(id, &content, truncate)?;
        }
        if truncate {
            content.set_len(0).map_err(errno)?;
        }
        Ok(content)
    }

    fn share(&mut self, id: Id, file: File, own: bool) -> Result<Arc<Content>> {
        let content = Arc::new(Content {
            id,
            file: Mutex::new(Arc::new(file)),
            own: AtomicBool::new(own),
            nameless: AtomicBool::new(false),
            room: Arc::clone(&self.room),
        });
        if let Kind::File { open, .. } = &mut self.node_mut(id)?.kind {
            *open = Arc::downgrade(&content);
        }
        Ok(content)
    }

    fn file_below(&self, node: &Node) -> Result<File> {
        let origin = node.origin.as_ref().ok_or(Errno::NOENT)?;
        self.tree(origin.tree)?.file(&origin.path, origin.identity)
    }

    fn copy_up(&mut self, id: Id, content: &Content, empty: bool) -> Result<()> {
        // A name that was removed has nothing below to change any more; its handle alone is not enough to write.
        let attached = self.place(id).is_some();
        let origin = self.node(id)?.origin.clone().ok_or(Errno::NOENT)?;
        if attached {
            self.tree(origin.tree)?.changeable(&origin.path)?;
        }
        let below = content.stat()?;
        let size = if empty { 0 } else { below.size };
        self.room.take(size)?;
        let copied = self.copy(content, size, (below.times.accessed, below.times.modified));
        let (number, file) = copied.inspect_err(|_| self.room.give_back(size))?;
        if let Kind::File { own, .. } = &mut self.node_mut(id)?.kind {
            *own = Some(number);
        }
        content.now_own(file);
        self.pin(id)
    }

    /// Exactly `size` bytes at most: a file that grows meanwhile would not be paid for.
    fn copy(
        &mut self,
        content: &Content,
        size: u64,
        (accessed, modified): (Timespec, Timespec),
    ) -> Result<(u64, File)> {
        let number = self.shelf.put()?;
        let mut file = self.shelf.open(number)?;
        let mut from = ReadAt { content, offset: 0 }.take(size);
        io::copy(&mut from, &mut file).map_err(errno)?;
        rustix::fs::futimens(&file, &Timestamps { last_access: accessed, last_modification: modified })?;
        Ok((number, file))
    }
}

/// Reads without moving the file's own position, which other handles share.
struct ReadAt<'a> {
    content: &'a Content,
    offset: u64,
}

impl io::Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read_at(buffer, self.offset)?;
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
