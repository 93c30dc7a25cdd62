//! The real tree as the layer reads it: beneath its root, through no link, and never for writing.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec};
use rustix::io::Errno;

use super::{MAX_NAMES, Result, Stat, Times};

/// How often a path is tried again when the kernel saw it change while it was resolved.
const MAX_RETRIES: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Lower {
    root: OwnedFd,
    device: u64,
}

/// An object with what tells it from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct LowerStat {
    pub(super) stat: Stat,
    /// Device and inode.
    pub(super) identity: (u64, u64),
}

impl Lower {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        let device = rustix::fs::fstat(&root)?.st_dev;
        Ok(Self { root, device })
    }

    /// The device of the root: a move between trees of different ones is not possible, as without the layer.
    pub(super) const fn device(&self) -> u64 {
        self.device
    }

    pub(super) fn stat(&self, path: &str) -> Result<LowerStat> {
        describe(&self.locate(path)?)
    }

    /// The file for reading. It is looked at before it is opened, since opening a device or a pipe has effects.
    pub(super) fn file(&self, path: &str, identity: (u64, u64)) -> Result<File> {
        let located = self.locate(path)?;
        let found = describe(&located)?;
        if found.identity != identity || found.stat.kind != FileType::RegularFile {
            return Err(Errno::NOENT);
        }
        let again = format!("/proc/self/fd/{}", located.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(again, flags, Mode::empty())?.into())
    }

    /// Names and kinds in a directory, in the order of the disk.
    pub(super) fn list(&self, path: &str) -> Result<Vec<(OsString, FileType)>> {
        let located = self.locate(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&located, ".", flags, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&readable)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if entries.len() >= MAX_NAMES {
                return Err(Errno::OVERFLOW);
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&readable, entry.file_name())?,
                known => known,
            };
            entries.push((OsString::from_vec(name.to_vec()), kind));
        }
        Ok(entries)
    }

    /// Where a link leads, as text.
    pub(super) fn link(&self, path: &str) -> Result<String> {
        let target = rustix::fs::readlinkat(self.locate(path)?, "", Vec::new())?;
        target.into_string().map_err(|_| Errno::ILSEQ)
    }

    /// Whether the process itself could change it: what the layer permits must be possible for real.
    pub(super) fn changeable(&self, path: &str) -> Result<()> {
        let located = self.locate(path)?;
        let again = format!("/proc/self/fd/{}", located.as_raw_fd());
        rustix::fs::accessat(rustix::fs::CWD, again, Access::WRITE_OK, AtFlags::EACCESS)
    }

    fn locate(&self, path: &str) -> Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        for _ in 0..MAX_RETRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), within) {
                Err(Errno::AGAIN) => {}
                // A kernel or a system-call filter from before openat2.
                Err(Errno::NOSYS | Errno::PERM) => return self.step_by_step(path),
                // A directory on the way became a link: nothing of that name is there any more.
                Err(Errno::LOOP | Errno::XDEV) => return Err(Errno::NOENT),
                other => return other,
            }
        }
        Err(Errno::BUSY)
    }

    fn step_by_step(&self, path: &str) -> Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let from = at.as_ref().map_or_else(|| self.root.as_fd(), AsFd::as_fd);
            let inner = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | inner;
            at = Some(rustix::fs::openat(from, name, flags, Mode::empty())?);
        }
        at.ok_or(Errno::NOENT)
    }
}

fn kind_of(dir: &OwnedFd, name: &std::ffi::CStr) -> Result<FileType> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// What an open file or directory is.
pub(super) fn describe(file: &impl AsFd) -> Result<LowerStat> {
    let found = rustix::fs::fstat(file)?;
    let time =
        |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or_default() };
    let times = Times {
        accessed: time(found.st_atime, found.st_atime_nsec),
        modified: time(found.st_mtime, found.st_mtime_nsec),
        changed: time(found.st_ctime, found.st_ctime_nsec),
    };
    let stat = Stat {
        kind: FileType::from_raw_mode(found.st_mode),
        size: u64::try_from(found.st_size).unwrap_or_default(),
        links: found.st_nlink,
        times,
    };
    Ok(LowerStat { stat, identity: (found.st_dev, found.st_ino) })
}
