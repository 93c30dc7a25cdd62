//! The copy that a sandboxed call gets.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::session::{open, plain};
use crate::sql::{SqlError, SqlLimit};

/// Longest time a sandbox copy may take.
pub const COPY_DEADLINE: Duration = Duration::from_secs(10);

/// Copies the database `source` to the new file `dest` (mode 0600) and returns its size in bytes. Committed content
/// of a write-ahead log is included; the copy has a rollback journal.
///
/// # Errors
/// [`SqlError::Limit`] when the database is larger than `max_bytes` or the copy takes longer than [`COPY_DEADLINE`],
/// [`SqlError::Failed`] when `dest` exists or either file cannot be used. A copy that failed is removed.
pub fn copy_database(source: &Path, dest: &Path, max_bytes: u64) -> Result<u64, SqlError> {
    let from = open(source, false)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dest)
        .map_err(|e| SqlError::Failed(format!("cannot create the copy: {e}")))?;
    let copied = copy_pages(&from, dest, max_bytes);
    if copied.is_err()
        && let Err(error) = std::fs::remove_file(dest)
    {
        tracing::warn!(%error, "a failed copy of a database could not be removed");
    }
    copied
}

fn copy_pages(from: &Connection, dest: &Path, max_bytes: u64) -> Result<u64, SqlError> {
    let page: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(plain)?;
    let fits = |pages: i64| u64::try_from(page.saturating_mul(pages)).is_ok_and(|bytes| bytes <= max_bytes);
    let pages: i64 = from.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(plain)?;
    if !fits(pages) {
        return Err(SqlError::Limit { which: SqlLimit::Bytes });
    }
    let mut to = open(dest, true)?;
    let started = Instant::now();
    {
        let backup = Backup::new(from, &mut to).map_err(plain)?;
        loop {
            let step = backup.step(256).map_err(plain)?;
            if !fits(backup.progress().pagecount.into()) {
                return Err(SqlError::Limit { which: SqlLimit::Bytes });
            }
            if matches!(step, StepResult::Done) {
                break;
            }
            if started.elapsed() > COPY_DEADLINE {
                return Err(SqlError::Limit { which: SqlLimit::Time });
            }
            if matches!(step, StepResult::Busy | StepResult::Locked) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    to.pragma_update(None, "journal_mode", "DELETE").map_err(plain)?;
    to.close().map_err(|(_, error)| plain(error))?;
    std::fs::metadata(dest).map(|m| m.len()).map_err(|e| SqlError::Failed(e.to_string()))
}
