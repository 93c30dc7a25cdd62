//! The layer that a sandboxed call changes instead of the real files: copy-on-write, lazy, and gone when the call ends.
//!
//! Nothing is copied when the call begins. A look falls through to the tree below; the first change of a file copies that
//! one file; a removed name is remembered as gone; a moved file or directory keeps pointing at what it was below, so that
//! a move copies nothing. Every object the call has looked at has a node with an id that stays the same when the object is
//! copied, changed or moved. The tree below is opened for reading alone.
//!
//! - `lower`: reading the real tree, beneath its root and through no link.
//! - `walk`: from a path to a node, with links followed inside.
//! - `change`: making, removing, moving.
//! - `content`: what is in files, and the cap on bytes.
//! - `report`: what the layer absorbed, for the outcome record.

mod change;
mod content;
mod lower;
mod report;
mod walk;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

pub(crate) use self::content::Content;
pub(crate) use self::report::{Change, ChangeKind, Changes};
pub(crate) use self::walk::Found;

use self::content::{Room, Shelf};
use self::lower::Lower;

/// Most objects that one call may have looked at or made in its layer.
pub(crate) const MAX_NODES: usize = 200_000;
/// Most names of one directory.
pub(crate) const MAX_NAMES: usize = 200_000;
/// Most links that one path may lead through, as on Linux.
pub(crate) const MAX_LINKS: usize = 40;
/// Size that a directory of the layer's own reports, as most file systems do.
const DIRECTORY_BYTES: u64 = 4096;
/// Longest name in bytes, as on Linux.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// The errors of the layer are those of the system calls it stands for.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Identity of an object for as long as the layer lives.
pub(crate) type Id = u64;

/// When something was read, changed, and last touched at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) accessed: Timespec,
    pub(crate) modified: Timespec,
    pub(crate) changed: Timespec,
}

impl Times {
    fn now() -> Self {
        let now = now();
        Self { accessed: now, modified: now, changed: now }
    }
}

/// The clock that the kernel stamps files with.
pub(crate) fn now() -> Timespec {
    clock_gettime(ClockId::RealtimeCoarse)
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: FileType,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) times: Times,
}

/// What an object was below when it was first seen.
#[derive(Debug, Clone)]
struct Origin {
    tree: usize,
    /// Relative to the tree's root; empty for the root itself.
    path: String,
    identity: (u64, u64),
    bytes: u64,
}

#[derive(Debug)]
enum Name {
    /// Found below in this place; looked at again each time.
    Seen(Id),
    /// Made, changed or moved here by the call.
    Placed(Id),
    /// Removed or moved away by the call.
    Gone,
}

#[derive(Debug)]
enum Kind {
    Directory(BTreeMap<String, Name>),
    File {
        /// Number on the shelf; `None` while what is below is the content.
        own: Option<u64>,
        open: Weak<Content>,
    },
    /// Only those below: the layer makes none.
    Link,
    /// A pipe, a socket, a device.
    Special(FileType),
}

impl Kind {
    const fn file_type(&self) -> FileType {
        match self {
            Self::Directory(_) => FileType::Directory,
            Self::File { .. } => FileType::RegularFile,
            Self::Link => FileType::Symlink,
            Self::Special(kind) => *kind,
        }
    }
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// `None` for a root, and for what was removed.
    parent: Option<(Id, String)>,
    origin: Option<Origin>,
    /// Of a directory that the call changed.
    times: Option<Times>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Layer {
    trees: Vec<Lower>,
    roots: Vec<Id>,
    nodes: BTreeMap<Id, Node>,
    next: Id,
    shelf: Shelf,
    room: Arc<Room>,
    /// What is no longer where it was below.
    vacated: BTreeMap<(usize, String), report::Vacated>,
}

impl Layer {
    /// A layer over the directories `below`, in their order, that may hold `max_bytes` bytes of file content.
    ///
    /// # Errors
    /// When a directory cannot be opened or there is no place for the layer.
    pub(crate) fn over(below: &[&Path], max_bytes: u64) -> Result<Self> {
        let mut layer = Self {
            trees: Vec::new(),
            roots: Vec::new(),
            nodes: BTreeMap::new(),
            next: 0,
            shelf: Shelf::new()?,
            room: Room::of(max_bytes),
            vacated: BTreeMap::new(),
        };
        for (tree, path) in below.iter().enumerate() {
            let lower = Lower::open(path)?;
            let stat = lower.stat("")?;
            layer.trees.push(lower);
            let origin = Origin { tree, path: String::new(), identity: stat.identity, bytes: 0 };
            let root = layer.add(Kind::Directory(BTreeMap::new()), None, Some(origin))?;
            layer.roots.push(root);
        }
        Ok(layer)
    }

    /// The root of the tree with this index.
    pub(crate) fn root(&self, tree: usize) -> Result<Id> {
        self.roots.get(tree).copied().ok_or(Errno::BADF)
    }

    /// An empty directory of the host's own, for handles that must be something.
    pub(crate) fn empty_directory(&self) -> &Path {
        self.shelf.empty()
    }

    /// The tree that `id` hangs in and its path there; `None` when it was removed.
    pub(crate) fn place(&self, id: Id) -> Option<(usize, String)> {
        let mut names: Vec<&str> = Vec::new();
        let mut at = id;
        loop {
            match &self.nodes.get(&at)?.parent {
                Some((parent, name)) => {
                    names.push(name);
                    at = *parent;
                }
                None => {
                    let tree = self.roots.iter().position(|root| *root == at)?;
                    names.reverse();
                    return Some((tree, names.join("/")));
                }
            }
        }
    }

    /// What it is now.
    ///
    /// # Errors
    /// When it is gone below.
    pub(crate) fn stat(&self, id: Id) -> Result<Stat> {
        let node = self.node(id)?;
        match &node.kind {
            Kind::File { own: Some(number), open } => self.shelf.stat(*number, open),
            Kind::File { own: None, .. } | Kind::Link | Kind::Special(_) => self.below(node),
            Kind::Directory(_) => match (node.times, self.below(node)) {
                (Some(times), Ok(stat)) => Ok(Stat { times, ..stat }),
                (Some(times), Err(_)) => {
                    Ok(Stat { kind: FileType::Directory, size: DIRECTORY_BYTES, links: 1, times })
                }
                (None, stat) => stat,
            },
        }
    }

    /// How many names the object has in the tree below; 1 for what the layer made.
    pub(crate) fn links_below(&self, id: Id) -> Result<u64> {
        let node = self.node(id)?;
        if node.origin.is_none() { Ok(1) } else { self.below(node).map(|stat| stat.links) }
    }

    /// What it is, without asking for more.
    pub(crate) fn kind(&self, id: Id) -> Result<FileType> {
        Ok(self.node(id)?.kind.file_type())
    }

    /// Whether an operation on it must see the layer: the call made, changed or moved it.
    pub(crate) fn shadowed(&self, id: Id) -> bool {
        let Ok(node) = self.node(id) else { return true };
        let elsewhere = match (&node.origin, self.place(id)) {
            (Some(origin), Some((tree, path))) => (origin.tree, &origin.path) != (tree, &path),
            (None, _) | (_, None) => true,
        };
        elsewhere || matches!(node.kind, Kind::File { own: Some(_), .. })
    }

    fn below(&self, node: &Node) -> Result<Stat> {
        let origin = node.origin.as_ref().ok_or(Errno::NOENT)?;
        let found = self.tree(origin.tree)?.stat(&origin.path)?;
        if found.identity == origin.identity { Ok(found.stat) } else { Err(Errno::NOENT) }
    }

    fn tree(&self, index: usize) -> Result<&Lower> {
        self.trees.get(index).ok_or(Errno::BADF)
    }

    fn node(&self, id: Id) -> Result<&Node> {
        self.nodes.get(&id).ok_or(Errno::BADF)
    }

    fn node_mut(&mut self, id: Id) -> Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or(Errno::BADF)
    }

    fn names(&self, dir: Id) -> Result<&BTreeMap<String, Name>> {
        match &self.node(dir)?.kind {
            Kind::Directory(names) => Ok(names),
            Kind::File { .. } | Kind::Link | Kind::Special(_) => Err(Errno::NOTDIR),
        }
    }

    fn names_mut(&mut self, dir: Id) -> Result<&mut BTreeMap<String, Name>> {
        match &mut self.node_mut(dir)?.kind {
            Kind::Directory(names) => Ok(names),
            Kind::File { .. } | Kind::Link | Kind::Special(_) => Err(Errno::NOTDIR),
        }
    }

    fn add(&mut self, kind: Kind, parent: Option<(Id, String)>, origin: Option<Origin>) -> Result<Id> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Errno::NOSPC);
        }
        let id = self.next;
        self.next = id.saturating_add(1);
        self.nodes.insert(id, Node { kind, parent, origin, times: None });
        Ok(id)
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
