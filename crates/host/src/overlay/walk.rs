//! From a path to a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Weak;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::lower::LowerStat;
use super::{Id, Kind, Layer, MAX_LINKS, MAX_NAME_BYTES, Name, Origin, Result, join};

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The directory of the last segment, or the directory itself when the path names one through `.` or a link to it.
    pub(crate) dir: Id,
    /// The last segment; `None` when the path means `dir` itself.
    pub(crate) name: Option<String>,
    /// What is there, if anything.
    pub(crate) node: Option<Id>,
    /// True when the call changed something on the way: the layer and the tree below disagree about this path.
    pub(crate) shadowed: bool,
}

/// An entry of a listing; the name is `None` where it is not text.
pub(crate) type Entry = (Option<String>, FileType);

impl Layer {
    /// Follow `path`, segments without `.` and `..`, from the directory `base`. Links on the way are followed, the last one
    /// where `follow` says so. No link leads above `base`.
    ///
    /// # Errors
    /// Those of a path walk; `PERM` for a link that leads out.
    pub(crate) fn resolve(&mut self, base: Id, path: &[String], follow: bool) -> Result<Found> {
        let mut ahead: VecDeque<String> = path.iter().cloned().collect();
        let mut stack = vec![base];
        let (mut links, mut shadowed) = (0, self.shadowed(base));
        while let Some(name) = ahead.pop_front() {
            let dir = *stack.last().ok_or(Errno::PERM)?;
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    stack.pop();
                    continue;
                }
                _ => {}
            }
            let node = self.lookup(dir, &name)?;
            let last = ahead.is_empty();
            let Some(id) = node else {
                shadowed |= matches!(self.names(dir)?.get(&name), Some(Name::Gone));
                shadowed |= self.node(dir)?.origin.is_none();
                return if last {
                    Ok(Found { dir, name: Some(name), node, shadowed })
                } else {
                    Err(Errno::NOENT)
                };
            };
            match self.kind(id)? {
                FileType::Symlink if follow || !last => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    self.step_through(id, &mut ahead)?;
                }
                FileType::Directory if !last => {
                    shadowed |= self.shadowed(id);
                    stack.push(id);
                }
                _other if last => {
                    shadowed |= self.shadowed(id);
                    return Ok(Found { dir, name: Some(name), node, shadowed });
                }
                _other => return Err(Errno::NOTDIR),
            }
        }
        let dir = *stack.last().ok_or(Errno::PERM)?;
        Ok(Found { dir, name: None, node: Some(dir), shadowed })
    }

    fn step_through(&self, link: Id, ahead: &mut VecDeque<String>) -> Result<()> {
        let target = self.read_link(link)?;
        if target.starts_with('/') {
            return Err(Errno::PERM);
        }
        // A trailing slash asks for a directory: the empty segment keeps the last name from being the last.
        for segment in target.rsplit('/') {
            ahead.push_front(segment.to_owned());
        }
        Ok(())
    }

    /// Where a link leads.
    ///
    /// # Errors
    /// `INVAL` when it is none.
    pub(crate) fn read_link(&self, id: Id) -> Result<String> {
        let node = self.node(id)?;
        match (&node.kind, &node.origin) {
            (Kind::Link, Some(origin)) => self.tree(origin.tree)?.link(&origin.path),
            _other => Err(Errno::INVAL),
        }
    }

    /// What `dir` has under this name.
    ///
    /// # Errors
    /// When the tree below cannot be read.
    pub(super) fn lookup(&mut self, dir: Id, name: &str) -> Result<Option<Id>> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let seen = match self.names(dir)?.get(name) {
            Some(Name::Placed(id)) => return Ok(Some(*id)),
            Some(Name::Gone) => return Ok(None),
            Some(Name::Seen(id)) => Some(*id),
            None => None,
        };
        let Some((tree, path)) = self.node(dir)?.origin.as_ref().map(|o| (o.tree, join(&o.path, name)))
        else {
            return Ok(None);
        };
        let found = match self.tree(tree)?.stat(&path) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.forget(dir, name, seen)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(id) = seen.filter(|id| self.same(*id, &found)) {
            return Ok(Some(id));
        }
        self.forget(dir, name, seen)?;
        let kind = match found.stat.kind {
            FileType::Directory => Kind::Directory(BTreeMap::new()),
            FileType::RegularFile => Kind::File { own: None, open: Weak::new() },
            FileType::Symlink => Kind::Link,
            special => Kind::Special(special),
        };
        let origin = Origin { tree, path, identity: found.identity, bytes: found.stat.size };
        let id = self.add(kind, Some((dir, name.to_owned())), Some(origin))?;
        self.names_mut(dir)?.insert(name.to_owned(), Name::Seen(id));
        Ok(Some(id))
    }

    fn same(&self, id: Id, found: &LowerStat) -> bool {
        let Ok(node) = self.node(id) else { return false };
        node.kind.file_type() == found.stat.kind
            && node.origin.as_ref().is_some_and(|origin| origin.identity == found.identity)
    }

    /// Another process removed or replaced what was seen here.
    fn forget(&mut self, dir: Id, name: &str, seen: Option<Id>) -> Result<()> {
        if let Some(id) = seen {
            self.node_mut(id)?.parent = None;
            self.names_mut(dir)?.remove(name);
        }
        Ok(())
    }

    /// Names and kinds of everything in a directory, by name.
    ///
    /// # Errors
    /// `OVERFLOW` for more than [`super::MAX_NAMES`] names.
    pub(crate) fn list(&self, dir: Id) -> Result<Vec<Entry>> {
        let names = self.names(dir)?;
        let mut entries: Vec<Entry> = Vec::new();
        for (name, place) in names {
            if let Name::Placed(id) = place {
                entries.push((Some(name.clone()), self.kind(*id)?));
            }
        }
        let Some(origin) = &self.node(dir)?.origin else { return Ok(entries) };
        let below = match self.tree(origin.tree)?.list(&origin.path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Vec::new(),
            listed => listed?,
        };
        for (name, kind) in below {
            let name = name.into_string().ok();
            let hidden = name.as_ref().and_then(|name| names.get(name));
            if !matches!(hidden, Some(Name::Placed(_) | Name::Gone)) {
                entries.push((name, kind));
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }
}
