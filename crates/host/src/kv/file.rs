//! One store in one SQLite file. Every change is a transaction that keeps count of what the store holds, so that two
//! processes cannot fill it over its bound together.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Gave, KvError, MAX_KEYS, MAX_PAGE, MAX_VALUE_BYTES, Page, Use, check_key, incremented};

/// Longest wait for other processes.
const BUSY: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS kv(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE IF NOT EXISTS held(one INTEGER PRIMARY KEY CHECK (one = 1), keys INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    INSERT OR IGNORE INTO held VALUES (1, 0, 0);";

/// See the module.
#[derive(Debug)]
pub(super) struct File(Connection);

impl File {
    /// Open the store, and make it (0600, in a folder 0700) when it is not there.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Self, KvError> {
        let failed = |e: &dyn std::fmt::Display| KvError::Failed(e.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
        let path = folder.join(name);
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(|e| failed(&e))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    pub(super) fn run(&mut self, what: Use, max_bytes: u64) -> Result<Gave, KvError> {
        match what {
            Use::Get(key) => self.get(&key).map(Gave::Value),
            Use::Set(key, value) => {
                let transaction = self.change()?;
                set(&transaction, &key, &value, max_bytes)?;
                transaction.commit()?;
                Ok(Gave::Done)
            }
            Use::Delete(key) => {
                let transaction = self.change()?;
                let was = delete(&transaction, &key)?;
                transaction.commit()?;
                Ok(Gave::Was(was))
            }
            Use::Increment(key, delta) => {
                let transaction = self.change()?;
                let sum = incremented(value(&transaction, &key)?.as_deref(), delta)?;
                set(&transaction, &key, sum.to_string().as_bytes(), max_bytes)?;
                transaction.commit()?;
                Ok(Gave::Number(sum))
            }
            Use::List { prefix, after } => self.page(&prefix, after.as_deref(), MAX_PAGE).map(Gave::Page),
            Use::Skip { count } => self.skip(count).map(Gave::Page),
        }
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        check_key(key)?;
        value(&self.0, key)
    }

    /// Keys after `after` that start with `prefix`, at most `most`.
    pub(super) fn page(&self, prefix: &str, after: Option<&str>, most: usize) -> Result<Page, KvError> {
        let mut keys = self.keys(prefix, after, most.saturating_add(1))?;
        let more = keys.len() > most;
        keys.truncate(most);
        let next = if more { keys.last().cloned() } else { None };
        Ok(Page { keys, next })
    }

    fn keys(&self, prefix: &str, after: Option<&str>, most: usize) -> Result<Vec<String>, KvError> {
        // Text is compared as bytes, so the keys with a prefix follow each other, from the prefix itself on.
        let sql = "SELECT key FROM kv WHERE key >= ?1 AND key > ?2 AND substr(key, 1, length(?1)) = ?1 ORDER BY key LIMIT ?3";
        let mut statement = self.0.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let found =
            statement.query_map(params![prefix, after.unwrap_or_default(), most], |row| row.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn skip(&self, count: u64) -> Result<Page, KvError> {
        let mut statement = self.0.prepare_cached("SELECT key FROM kv ORDER BY key LIMIT ?1 OFFSET ?2")?;
        let most = i64::try_from(MAX_PAGE).unwrap_or(i64::MAX).saturating_add(1);
        let skip = i64::try_from(count).unwrap_or(i64::MAX);
        let found = statement.query_map(params![most, skip], |row| row.get(0))?;
        let mut keys = found.collect::<Result<Vec<String>, _>>()?;
        let more = keys.len() > MAX_PAGE;
        keys.truncate(MAX_PAGE);
        let next = if more { keys.last().cloned() } else { None };
        Ok(Page { keys, next })
    }

    fn change(&mut self) -> Result<Transaction<'_>, KvError> {
        Ok(self.0.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

impl From<rusqlite::Error> for KvError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn value(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, KvError> {
    let mut statement = connection.prepare_cached("SELECT value FROM kv WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

fn weight(key: &str, value: &[u8]) -> i64 {
    i64::try_from(key.len().saturating_add(value.len())).unwrap_or(i64::MAX)
}

fn set(transaction: &Transaction<'_>, key: &str, new: &[u8], max_bytes: u64) -> Result<(), KvError> {
    check_key(key)?;
    if new.len() > MAX_VALUE_BYTES {
        return Err(KvError::Value);
    }
    let old = value(transaction, key)?;
    let (more_keys, freed) = old.map_or((1, 0), |old| (0, weight(key, &old)));
    let (keys, bytes): (i64, i64) =
        transaction.query_row("SELECT keys, bytes FROM held", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (keys, bytes) =
        (keys.saturating_add(more_keys), bytes.saturating_sub(freed).saturating_add(weight(key, new)));
    let over = |value: i64, bound: u64| u64::try_from(value).is_ok_and(|value| value > bound);
    if over(keys, MAX_KEYS) || over(bytes, max_bytes) {
        return Err(KvError::Full);
    }
    transaction.execute("INSERT OR REPLACE INTO kv VALUES (?1, ?2)", params![key, new])?;
    transaction.execute("UPDATE held SET keys = ?1, bytes = ?2", [keys, bytes])?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, key: &str) -> Result<bool, KvError> {
    check_key(key)?;
    let Some(old) = value(transaction, key)? else { return Ok(false) };
    transaction.execute("DELETE FROM kv WHERE key = ?1", [key])?;
    transaction.execute("UPDATE held SET keys = keys - 1, bytes = bytes - ?1", [weight(key, &old)])?;
    Ok(true)
}
