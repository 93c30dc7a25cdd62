//! The handle on one state directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Bounds of a store.
pub(crate) struct Bounds {
    /// Longest wait for the other threads of this process, and then again for the other processes.
    pub(crate) patience: Duration,
    /// Most keys of one budget.
    pub(crate) max_keys: u64,
}

/// A journal longer than this is written back when the store closes. Whoever opens it first has to read it: 1 MiB
/// takes less than a millisecond.
const LONG_JOURNAL_BYTES: u64 = 1 << 20;

impl Drop for Store {
    fn drop(&mut self) {
        let length = std::fs::metadata(file::journal(&self.path)).map_or(0, |journal| journal.len());
        if length > LONG_JOURNAL_BYTES {
            // Should it fail, the journal stays, is valid, and the next process goes on with it.
            drop(self.budgets.fold_journal());
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { patience: Duration::from_secs(5), max_keys: MAX_KEYS_PER_BUDGET }
    }
}

impl Store {
    /// Open the store in this directory; makes the directory (0700) and `state.db` (0600) when they are not there.
    ///
    /// # Errors
    /// When they cannot be made or used, are exposed to other users, damaged, of a newer schema, or incomplete. A
    /// damaged file is never replaced.
    pub fn open(state_dir: &Path) -> Result<Self> {
        Self::open_within(state_dir, &Bounds::default())
    }

    pub(crate) fn open_within(state_dir: &Path, bounds: &Bounds) -> Result<Self> {
        let path = file::prepare(state_dir)?;
        let turn = |sync| {
            let connection = file::connect(&path, sync, bounds.patience)?;
            Ok(Turn::new(&path, connection, bounds.patience))
        };
        Ok(Self {
            budgets: turn(Sync::System)?,
            approvals: turn(Sync::Disk)?,
            max_keys: bounds.max_keys,
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
