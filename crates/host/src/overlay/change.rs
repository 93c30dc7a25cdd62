//! Making, removing and moving: the rules are those of the system calls.

use std::collections::BTreeMap;
use std::sync::Weak;

use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;

use super::report::Vacated;
use super::{Id, Kind, Layer, MAX_NAME_BYTES, Name, Result, Times, now};

impl Layer {
    /// # Errors
    /// As `mkdir`.
    pub(crate) fn create_directory(&mut self, dir: Id, name: &str) -> Result<Id> {
        self.make(dir, name, |_| Ok(Kind::Directory(BTreeMap::new())))
    }

    /// An empty file.
    ///
    /// # Errors
    /// As `open` with `O_CREAT | O_EXCL`.
    pub(crate) fn create_file(&mut self, dir: Id, name: &str) -> Result<Id> {
        self.make(dir, name, |layer| Ok(Kind::File { own: Some(layer.shelf.put()?), open: Weak::new() }))
    }

    fn make(&mut self, dir: Id, name: &str, kind: impl FnOnce(&mut Self) -> Result<Kind>) -> Result<Id> {
        if self.lookup(dir, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.changeable(dir)?;
        let kind = kind(self)?;
        let id = self.add(kind, None, None)?;
        self.node_mut(id)?.times = Some(Times::now());
        self.attach(dir, name, id)?;
        Ok(id)
    }

    /// # Errors
    /// As `rmdir`.
    pub(crate) fn remove_directory(&mut self, dir: Id, name: &str) -> Result<()> {
        let id = self.lookup(dir, name)?.ok_or(Errno::NOENT)?;
        if self.kind(id)? != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        self.changeable(dir)?;
        self.must_be_empty(id)?;
        self.remove(dir, name, id)
    }

    /// # Errors
    /// As `unlink`.
    pub(crate) fn unlink(&mut self, dir: Id, name: &str) -> Result<()> {
        let id = self.lookup(dir, name)?.ok_or(Errno::NOENT)?;
        if self.kind(id)? == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        self.changeable(dir)?;
        self.remove(dir, name, id)
    }

    /// # Errors
    /// As `rename`.
    pub(crate) fn rename(&mut self, from: (Id, &str), to: (Id, &str)) -> Result<()> {
        let id = self.lookup(from.0, from.1)?.ok_or(Errno::NOENT)?;
        let target = self.lookup(to.0, to.1)?;
        if target == Some(id) {
            return Ok(());
        }
        self.same_device(from.0, to.0)?;
        self.changeable(from.0)?;
        self.changeable(to.0)?;
        let directory = self.kind(id)? == FileType::Directory;
        if directory && self.inside(to.0, id)? {
            return Err(Errno::INVAL);
        }
        if let Some(target) = target {
            match (directory, self.kind(target)? == FileType::Directory) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) => self.must_be_empty(target)?,
                (false, false) => {}
            }
            self.remove(to.0, to.1, target)?;
        }
        self.detach(from.0, from.1, id)?;
        self.attach(to.0, to.1, id)
    }

    /// Set the times of a directory or file; `None` keeps one as it is.
    ///
    /// # Errors
    /// As `utimensat`; `NOSPC` when the file cannot be copied first.
    pub(crate) fn set_times(
        &mut self,
        id: Id,
        accessed: Option<Timespec>,
        modified: Option<Timespec>,
    ) -> Result<()> {
        match self.kind(id)? {
            FileType::RegularFile => return self.open(id, true, false)?.set_times(accessed, modified),
            FileType::Directory => {}
            _other => return Err(Errno::PERM),
        }
        self.changeable(id)?;
        let old = self.stat(id)?.times;
        let times = Times {
            accessed: accessed.unwrap_or(old.accessed),
            modified: modified.unwrap_or(old.modified),
            changed: now(),
        };
        self.node_mut(id)?.times = Some(times);
        self.pin(id)
    }

    fn must_be_empty(&self, dir: Id) -> Result<()> {
        if self.list(dir)?.is_empty() { Ok(()) } else { Err(Errno::NOTEMPTY) }
    }

    /// The process must be able to do for real what it does here, and a removed directory takes nothing.
    fn changeable(&self, dir: Id) -> Result<()> {
        self.place(dir).ok_or(Errno::NOENT)?;
        match &self.node(dir)?.origin {
            Some(origin) => self.tree(origin.tree)?.changeable(&origin.path),
            None => Ok(()),
        }
    }

    fn same_device(&self, a: Id, b: Id) -> Result<()> {
        let device = |id| {
            let (tree, _) = self.place(id).ok_or(Errno::NOENT)?;
            self.tree(tree).map(super::lower::Lower::device)
        };
        if device(a)? == device(b)? { Ok(()) } else { Err(Errno::XDEV) }
    }

    /// Whether `inner` is `outer` or anywhere in it.
    fn inside(&self, inner: Id, outer: Id) -> Result<bool> {
        let mut at = inner;
        while at != outer {
            match &self.node(at)?.parent {
                Some((parent, _)) => at = *parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn remove(&mut self, dir: Id, name: &str, id: Id) -> Result<()> {
        self.detach(dir, name, id)?;
        if let Kind::File { own: Some(number), open } = &self.node(id)?.kind {
            self.shelf.take_away(*number, open, &self.room);
        }
        Ok(())
    }

    fn detach(&mut self, dir: Id, name: &str, id: Id) -> Result<()> {
        let vacated = self.node(id)?.origin.as_ref().map(|origin| {
            let directory = matches!(self.kind(id), Ok(FileType::Directory));
            let bytes = if directory { 0 } else { origin.bytes };
            ((origin.tree, origin.path.clone()), Vacated { directory, bytes })
        });
        self.vacated.extend(vacated);
        self.node_mut(id)?.parent = None;
        let merged = self.node(dir)?.origin.is_some();
        let names = self.names_mut(dir)?;
        names.remove(name);
        if merged {
            names.insert(name.to_owned(), Name::Gone);
        }
        self.touch(dir)
    }

    fn attach(&mut self, dir: Id, name: &str, id: Id) -> Result<()> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        self.names_mut(dir)?.insert(name.to_owned(), Name::Placed(id));
        self.node_mut(id)?.parent = Some((dir, name.to_owned()));
        self.touch(dir)
    }

    /// The entries of a directory changed.
    fn touch(&mut self, dir: Id) -> Result<()> {
        let now = now();
        let accessed = self.stat(dir).map_or(now, |stat| stat.times.accessed);
        self.node_mut(dir)?.times = Some(Times { accessed, modified: now, changed: now });
        self.pin(dir)
    }

    /// From here to the root the layer's names hold, whatever becomes of the tree below.
    pub(super) fn pin(&mut self, id: Id) -> Result<()> {
        let mut at = id;
        while let Some((parent, name)) = self.node(at)?.parent.clone() {
            let names = self.names_mut(parent)?;
            if matches!(names.get(&name), Some(Name::Placed(_))) {
                return Ok(());
            }
            names.insert(name, Name::Placed(at));
            at = parent;
        }
        Ok(())
    }
}
