//! What the layer absorbed: the difference between the tree as the call left it and the tree below.

use super::{Id, Kind, Layer, Name, Result};

/// Most changes listed one by one.
pub(crate) const MAX_CHANGES: usize = 1_000;

/// What happened at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ChangeKind {
    /// A file is new, or has been opened for writing, or had its times set.
    Written,
    /// A directory is new.
    Made,
    /// What was elsewhere is here now. A directory comes with everything in it, which is not listed.
    Moved,
    /// What was here is not any more.
    Removed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    /// Index of the tree.
    pub(crate) tree: usize,
    /// Path in it.
    pub(crate) path: String,
    /// What happened.
    pub(crate) kind: ChangeKind,
    /// Size now, or before it was removed; 0 for directories.
    pub(crate) bytes: u64,
}

/// The first [`MAX_CHANGES`] changes by path, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    pub(crate) list: Vec<Change>,
    pub(crate) total: usize,
}

/// What was at a path below that is no longer there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vacated {
    pub(super) directory: bool,
    pub(super) bytes: u64,
}

impl Layer {
    /// What the call changed, as it is now.
    pub(crate) fn changes(&self) -> Changes {
        let mut list: Vec<Change> = Vec::new();
        // What hangs in no tree any more is reported by what it vacated.
        for (id, (tree, path)) in self.nodes.keys().filter_map(|id| Some((*id, self.place(*id)?))) {
            if let Ok(Some((kind, bytes))) = self.change_of(id, (tree, &path)) {
                list.push(Change { tree, path, kind, bytes });
            }
        }
        for ((tree, path), was) in &self.vacated {
            if !self.occupied(*tree, path) {
                let bytes = if was.directory { 0 } else { was.bytes };
                list.push(Change { tree: *tree, path: path.clone(), kind: ChangeKind::Removed, bytes });
            }
        }
        list.sort();
        list.dedup();
        let total = list.len();
        list.truncate(MAX_CHANGES);
        Changes { list, total }
    }

    fn change_of(&self, id: Id, at: (usize, &str)) -> Result<Option<(ChangeKind, u64)>> {
        let node = self.node(id)?;
        let origin = node.origin.as_ref();
        let moved = origin.is_some_and(|origin| (origin.tree, origin.path.as_str()) != at);
        Ok(match &node.kind {
            Kind::File { own: Some(_), .. } => Some((ChangeKind::Written, self.stat(id)?.size)),
            _any if moved => {
                let size = match node.kind {
                    Kind::Directory(_) => 0,
                    Kind::File { .. } | Kind::Link | Kind::Special(_) => {
                        self.stat(id).map_or(0, |stat| stat.size)
                    }
                };
                self.moved_itself(id).then_some((ChangeKind::Moved, size))
            }
            Kind::Directory(_) if origin.is_none() => Some((ChangeKind::Made, 0)),
            Kind::Directory(_) => None,
            Kind::File { .. } | Kind::Link | Kind::Special(_) => None,
        })
    }

    /// False for what only came along with the directory it is in.
    fn moved_itself(&self, id: Id) -> bool {
        let Ok(node) = self.node(id) else { return false };
        let (Some(origin), Some((parent, name))) = (&node.origin, &node.parent) else { return true };
        let above = self.node(*parent).ok().and_then(|node| node.origin.as_ref());
        !above.is_some_and(|above| {
            (origin.tree, origin.path.as_str()) == (above.tree, super::join(&above.path, name).as_str())
        })
    }

    fn occupied(&self, tree: usize, path: &str) -> bool {
        let Some(mut at) = self.roots.get(tree).copied() else { return false };
        for name in path.split('/') {
            match self.names(at).ok().and_then(|names| names.get(name)) {
                Some(Name::Seen(id) | Name::Placed(id)) => at = *id,
                Some(Name::Gone) | None => return false,
            }
        }
        true
    }
}
