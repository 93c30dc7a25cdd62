//! The handle on one state directory.

use std::path::{Path, PathBuf};

use crate::budgets::MAX_KEYS_PER_BUDGET;
use crate::error::{Result, StoreError};
use crate::file::{self, Sync};
use crate::pool::Turn;

/// The budgets and approvals of one state directory, shared by all threads and processes that open it.
///
/// Budgets commit to the operating system: they survive the death of any process, and a power cut may give back the
/// last few admissions. Approvals go over a connection of their own that syncs every commit to the disk, so that a
/// consumed approval stays consumed.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    pub(crate) budgets: Turn,
    pub(crate) approvals: Turn,
    pub(crate) max_keys: u64,
}

impl Store {
    /// Open the store in this directory; makes the directory (0700) and `state.db` (0600) when they are not there.
    ///
    /// # Errors
    /// When they cannot be made or used, are exposed to other users, damaged, of a newer schema, or incomplete. A
    /// damaged file is never replaced.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let path = file::prepare(state_dir)?;
        Ok(Self {
            budgets: Turn::new(&path, file::connect(&path, Sync::System)?),
            approvals: Turn::new(&path, file::connect(&path, Sync::Disk)?),
            max_keys: MAX_KEYS_PER_BUDGET,
            path,
        })
    }

    /// The state file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Read the whole file and check its structure. Takes time proportional to its size.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first damage found, or why it could not be read.
    pub fn check(&self) -> Result<()> {
        let found: Vec<String> =
            self.budgets.read(|sql| sql.all("PRAGMA integrity_check(1)", [], |row| row.get(0)))?;
        match found.first() {
            Some(line) if line == "ok" => Ok(()),
            Some(line) => Err(StoreError::corrupt(&self.path, line.as_str())),
            None => Err(StoreError::corrupt(&self.path, "the check gave no answer")),
        }
    }
}
