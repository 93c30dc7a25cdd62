//! Making and opening `state.db`.
//!
//! INVARIANT: the file appears under its name complete or not at all, and is never made anew while anything of an
//! older one is there: losing it silently would reset every budget.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Result, StoreError};
use crate::schema::{APPLICATION, FROM_1_TO_2, SCHEMA, TABLES};

/// Name of the state file in its directory.
const FILE: &str = "state.db";

/// How safe a commit is when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Written to the operating system: survives the death of every process. A power cut may take the last commits.
    System,
    /// Synced to the disk before the commit returns: survives a power cut.
    Disk,
}

/// Make the directory and the file where they are not there yet; the path of the file.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| StoreError::io(dir, e))?;
    refuse_if(dir, 0o022, "replace budgets and approvals", "go-w")?;
    let path = dir.join(FILE);
    if !exists(&path)? {
        refuse_half(&path)?;
        create(dir, &path)?;
    }
    refuse_if(&path, 0o077, "read or change budgets and approvals", "600")?;
    Ok(path)
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| StoreError::io(path, e))
}

fn refuse_if(path: &Path, bits: u32, risk: &'static str, fix: &'static str) -> Result<()> {
    let mode = fs::metadata(path).map_err(|e| StoreError::io(path, e))?.permissions().mode() & 0o777;
    if mode & bits == 0 {
        return Ok(());
    }
    Err(StoreError::Exposed { path: path.to_owned(), mode, risk, fix })
}

/// The write-ahead log of the state file.
pub(crate) fn journal(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// A journal without its file would be replayed into the new file.
fn refuse_half(path: &Path) -> Result<()> {
    let wal = journal(path);
    // Another process may have made both since we looked: the file is made before its journal, so look again.
    if exists(&wal)? && !exists(path)? {
        return Err(StoreError::Incomplete { path: path.to_owned() });
    }
    Ok(())
}

/// Build the file under a name of its own, then link it to its place. Of several processes one link wins, and all use
/// that one.
fn create(dir: &Path, path: &Path) -> Result<()> {
    let mut tag = [0; 8];
    getrandom::fill(&mut tag).map_err(StoreError::Random)?;
    let draft = dir.join(format!("{FILE}.{}.new", hex::encode(tag)));
    let built = build(&draft).and_then(|()| match fs::hard_link(&draft, path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(StoreError::io(path, e)),
        Ok(()) | Err(_) => Ok(()),
    });
    // The draft is of no use whatever happened; the error that counts is the one of building it.
    let removed = fs::remove_file(&draft).map_err(|e| StoreError::io(&draft, e));
    built.and(removed)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::io(dir, e))
}

fn build(draft: &Path) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)
        .map_err(|e| StoreError::io(draft, e))?;
    let failed = |e| StoreError::engine(draft, e);
    let connection = Connection::open_with_flags(draft, flags()).map_err(failed)?;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN; {TABLES} {FROM_1_TO_2} \
             PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT;"
        ))
        .map_err(failed)?;
    // Closing writes the journal back into the file, so that the draft is one file.
    connection.close().map_err(|(_, e)| failed(e))
}

/// Never `CREATE`: a file that is not there is made by [`create`] only.
fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// A connection to the prepared file. `patience` is the longest wait for other processes.
pub(crate) fn connect(path: &Path, sync: Sync, patience: Duration) -> Result<Connection> {
    let failed = |e| StoreError::engine(path, e);
    let mut connection = Connection::open_with_flags(path, flags()).map_err(failed)?;
    wait_in_small_steps(&mut connection, patience).map_err(failed)?;
    // Two disk syncs at the end of every process would cost more than all it did: see `Store::drop`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&mut connection, path)?;
    recognise(&connection, path)?;
    let level = match sync {
        Sync::System => "NORMAL",
        Sync::Disk => "FULL",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {level}; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; \
             PRAGMA cell_size_check = ON; PRAGMA secure_delete = {};",
            // Rows of approvals hold arguments in clear: what is purged is overwritten.
            if sync == Sync::Disk { "ON" } else { "OFF" }
        ))
        .map_err(failed)?;
    Ok(connection)
}

/// Reservations take microseconds, so the engine's own waits (up to 100 ms each) would starve a waiting process.
fn wait_in_small_steps(connection: &mut Connection, patience: Duration) -> rusqlite::Result<()> {
    let mut since = None;
    connection.busy_handler(Some(move |tries: i32| {
        let now = Instant::now();
        if tries == 0 {
            since = Some(now);
        }
        let waited = since.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        std::thread::sleep(Duration::from_micros(if tries < 20 { 50 } else { 500 }));
        waited < patience
    }))
}

/// Bring a file of the first schema up to this one. Of several processes one does it, and the others find it done.
fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let failed = |e| StoreError::engine(path, e);
    let version = |connection: &Connection, pragma| {
        connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(failed)
    };
    // Whatever else the file is, `recognise` says so.
    if version(connection, "user_version")? != 1 || version(connection, "application_id")? != APPLICATION {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    if version(&transaction, "user_version")? == 1 {
        transaction
            .execute_batch(&format!("{FROM_1_TO_2} PRAGMA user_version = {SCHEMA};"))
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// The file must be ours, of our schema, and in the journal mode that several processes need.
fn recognise(connection: &Connection, path: &Path) -> Result<()> {
    let failed = |e| StoreError::engine(path, e);
    let read =
        |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(failed);
    if fs::metadata(path).map_err(|e| StoreError::io(path, e))?.len() == 0 {
        return Err(StoreError::corrupt(path, "it is empty"));
    }
    if read("application_id")? != APPLICATION {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let found = read("user_version")?;
    if found > SCHEMA {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    if found < SCHEMA {
        return Err(StoreError::corrupt(path, format!("schema {found} never existed")));
    }
    let mode: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::corrupt(path, format!("journal mode `{mode}` instead of `wal`")));
    }
    Ok(())
}
