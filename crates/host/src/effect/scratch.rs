//! The private copy that a sandboxed call works on, thrown away when it ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use govrun_verdict::Preopen;
use rustix::fs::{Dir, Mode, OFlags};

/// Most entries copied, skipped ones included.
pub const MAX_ENTRIES: u64 = 10_000;
/// Most entries looked at when listing changes.
pub const MAX_CHANGED_ENTRIES: u64 = 100_000;
/// Deepest directory that is copied.
pub const MAX_DEPTH: usize = 64;
/// Most changes listed one by one.
pub const MAX_CHANGES: usize = 1_000;

/// Why there is no private copy.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The trees are larger than a private copy may be.
    #[error("the directories exceed the sandbox's limit of {cap}")]
    TooLarge {
        /// `bytes`, `files` or `depth`.
        cap: &'static str,
    },
    /// A tree cannot be read, or the copy cannot be written.
    #[error("the directories cannot be copied: {0}")]
    Io(#[from] io::Error),
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It has other content, or became another kind of entry.
    Modified,
    /// It is gone.
    Deleted,
}

/// One difference between the copy as it was made and as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Absolute path as the guest sees it.
    pub guest_path: String,
    /// True when it is, or for a deletion was, a directory.
    pub directory: bool,
    /// Size now, or before a deletion; 0 for directories.
    pub bytes: u64,
}

/// The first [`MAX_CHANGES`] changes by path, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Sorted by guest path.
    pub list: Vec<Change>,
    /// All changes, listed or not.
    pub total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Directory,
    File { bytes: u64, digest: Option<blake3::Hash> },
    Other,
}

impl State {
    const fn bytes(self) -> u64 {
        match self {
            Self::File { bytes, .. } => bytes,
            Self::Directory | Self::Other => 0,
        }
    }

    fn change(self, kind: ChangeKind, guest_path: String) -> Change {
        Change { kind, guest_path, directory: self == Self::Directory, bytes: self.bytes() }
    }
}

type Tree = BTreeMap<PathBuf, State>;

/// The private copy; dropping it removes it from the disk.
#[derive(Debug)]
pub struct Scratch {
    roots: Vec<(PathBuf, String, Tree)>,
    remaining: u64,
    skipped: u64,
    _dir: tempfile::TempDir,
}

impl Scratch {
    /// Copies directories and regular files with one link; other entries are skipped and counted. Below the host path
    /// of a preopen no link is followed, even when the tree changes meanwhile.
    ///
    /// # Errors
    /// See [`ScratchError`].
    pub fn of(preopens: &[Preopen], max_bytes: u64) -> Result<Self, ScratchError> {
        let mode = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("govrun-").permissions(mode).tempdir()?;
        let mut copier = Copier { remaining: max_bytes, entries: 0, skipped: 0 };
        let mut roots = Vec::new();
        for (index, preopen) in preopens.iter().enumerate() {
            let dest = dir.path().join(index.to_string());
            let source: OwnedFd = File::open(Path::new(&*preopen.host))?.into();
            let mut tree = Tree::new();
            make_dir(&dest)?;
            copier.directory(&source, &dest, Path::new(""), 0, &mut tree)?;
            roots.push((dest, preopen.guest.to_string(), tree));
        }
        Ok(Self { roots, remaining: copier.remaining, skipped: copier.skipped, _dir: dir })
    }

    /// Host path of each copy with the guest path it stands for, in the order of the preopens.
    #[must_use]
    pub fn views(&self) -> Vec<(PathBuf, String)> {
        self.roots.iter().map(|(host, guest, _)| (host.clone(), guest.clone())).collect()
    }

    /// Bytes of the limit that the copy left for writes.
    #[must_use]
    pub const fn remaining_bytes(&self) -> u64 {
        self.remaining
    }

    /// Links, devices, pipes, sockets and files with several links that were left out.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What differs from the copy as it was made.
    ///
    /// # Errors
    /// When the copy cannot be read or has more than [`MAX_CHANGED_ENTRIES`] entries.
    pub fn changes(&self) -> io::Result<Changes> {
        let mut all = Vec::new();
        let mut entries = 0;
        for (host, guest, before) in &self.roots {
            let mut now = Tree::new();
            walk(host, Path::new(""), before, &mut now, &mut entries)?;
            let name = |path: &Path| format!("{}/{}", guest.trim_end_matches('/'), path.display());
            for (path, state) in &now {
                let kind = match before.get(path) {
                    None => ChangeKind::Created,
                    Some(old) if old != state => ChangeKind::Modified,
                    Some(_) => continue,
                };
                all.push(state.change(kind, name(path)));
            }
            let gone = before.iter().filter(|(path, _)| !now.contains_key(*path));
            all.extend(gone.map(|(path, state)| state.change(ChangeKind::Deleted, name(path))));
        }
        all.sort_by(|a, b| (&a.guest_path, a.kind).cmp(&(&b.guest_path, b.kind)));
        let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
        all.truncate(MAX_CHANGES);
        Ok(Changes { list: all, total })
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

struct Copier {
    remaining: u64,
    entries: u64,
    skipped: u64,
}

impl Copier {
    fn directory(
        &mut self,
        source: &OwnedFd,
        dest: &Path,
        at: &Path,
        depth: usize,
        tree: &mut Tree,
    ) -> Result<(), ScratchError> {
        if depth > MAX_DEPTH {
            return Err(ScratchError::TooLarge { cap: "depth" });
        }
        for entry in Dir::read_from(source).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.entries = self.entries.saturating_add(1);
            if self.entries > MAX_ENTRIES {
                return Err(ScratchError::TooLarge { cap: "files" });
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(opened) = rustix::fs::openat(source.as_fd(), name, flags, Mode::empty()) else {
                self.skipped = self.skipped.saturating_add(1);
                continue;
            };
            let file = File::from(opened);
            let meta = file.metadata()?;
            let (path, target) = (at.join(name), dest.join(name));
            if meta.is_dir() {
                make_dir(&target)?;
                tree.insert(path.clone(), State::Directory);
                self.directory(&file.into(), &target, &path, depth.saturating_add(1), tree)?;
            } else if meta.is_file() && meta.nlink() == 1 {
                tree.insert(path, self.file(file, &target)?);
            } else {
                self.skipped = self.skipped.saturating_add(1);
            }
        }
        Ok(())
    }

    fn file(&mut self, mut from: File, dest: &Path) -> Result<State, ScratchError> {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dest)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut bytes = 0_u64;
        loop {
            let read = from.read(&mut buffer)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            let size = u64::try_from(read).unwrap_or(u64::MAX);
            let too_large = ScratchError::TooLarge { cap: "bytes" };
            self.remaining = self.remaining.checked_sub(size).ok_or(too_large)?;
            bytes = bytes.saturating_add(size);
            hasher.update(part);
            to.write_all(part)?;
        }
        Ok(State::File { bytes, digest: Some(hasher.finalize()) })
    }
}

/// Only files of unchanged size are read: others differ already, and a sparse one could be endless.
fn walk(root: &Path, at: &Path, before: &Tree, now: &mut Tree, entries: &mut u64) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(at))? {
        let entry = entry?;
        *entries = entries.saturating_add(1);
        if *entries > MAX_CHANGED_ENTRIES {
            return Err(io::Error::other("the sandbox has too many entries"));
        }
        let path = at.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            now.insert(path.clone(), State::Directory);
            walk(root, &path, before, now, entries)?;
        } else if meta.is_file() {
            let same = before.get(&path).is_some_and(|old| old.bytes() == meta.len());
            let digest = if same { Some(hash(&entry.path())?) } else { None };
            now.insert(path, State::File { bytes: meta.len(), digest });
        } else {
            now.insert(path, State::Other);
        }
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}
