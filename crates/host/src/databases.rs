//! The databases one call is offered, and the copies it gets when it is sandboxed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use govrun_verdict::FsMode;
use tempfile::TempDir;

use crate::effect::sqlite::{SqlError, copy_database};

/// Largest database that is copied for a sandboxed call, in bytes.
const MAX_COPY_BYTES: u64 = 256 << 20;

/// Offered databases by label: file and mode.
pub type DatabaseOffers = BTreeMap<String, (PathBuf, FsMode)>;

/// See the module. Copies are made on first use and thrown away with the call.
#[derive(Debug)]
pub(crate) struct Databases {
    offered: DatabaseOffers,
    copies: BTreeMap<String, PathBuf>,
    folder: Option<TempDir>,
}

impl Databases {
    pub(crate) const fn new(offered: DatabaseOffers) -> Self {
        Self { offered, copies: BTreeMap::new(), folder: None }
    }

    pub(crate) fn offers(&self, label: &str) -> bool {
        self.offered.contains_key(label)
    }

    /// The file to open and whether it may be written: the real one, or the call's own copy.
    pub(crate) fn open(&mut self, label: &str, sandboxed: bool) -> Result<(PathBuf, bool), SqlError> {
        let (path, mode) =
            self.offered.get(label).ok_or_else(|| SqlError::Failed("no such database".into()))?;
        let writable = *mode == FsMode::ReadWrite;
        if !sandboxed {
            return Ok((path.clone(), writable));
        }
        if let Some(copy) = self.copies.get(label) {
            return Ok((copy.clone(), writable));
        }
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => tempfile::tempdir().map_err(|e| SqlError::Failed(format!("cannot make a copy: {e}")))?,
        };
        // Labels come from policy, but a number cannot have a path in it.
        let copy = folder.path().join(format!("{}.db", self.copies.len()));
        let made = copy_database(path, &copy, MAX_COPY_BYTES);
        self.folder = Some(folder);
        made?;
        self.copies.insert(label.to_owned(), copy.clone());
        Ok((copy, writable))
    }
}
