//! One connection, used by one thread at a time, with a bounded wait for it.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{Result, StoreError};

/// A connection that threads take turns with. `SQLite` has one writer per file, so a second one would gain nothing.
#[derive(Debug)]
pub(crate) struct Turn {
    path: PathBuf,
    patience: Duration,
    idle: Mutex<Option<Connection>>,
    returned: Condvar,
}

/// The connection, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    turn: &'a Turn,
    // `None` only while it is being given back.
    connection: Option<Connection>,
}

impl Turn {
    /// `patience` is the longest wait for the other threads of this process.
    pub(crate) fn new(path: &Path, connection: Connection, patience: Duration) -> Self {
        Self { path: path.to_owned(), patience, idle: Mutex::new(Some(connection)), returned: Condvar::new() }
    }

    fn busy(&self) -> StoreError {
        StoreError::Busy { path: self.path.clone() }
    }

    fn slot(&self) -> Result<MutexGuard<'_, Option<Connection>>> {
        // Nothing that can panic runs under this lock; should it be poisoned all the same, the store stays shut.
        self.idle.lock().map_err(|_| self.busy())
    }

    fn take(&self) -> Result<Held<'_>> {
        let (mut slot, _) = self
            .returned
            .wait_timeout_while(self.slot()?, self.patience, |slot| slot.is_none())
            .map_err(|_| self.busy())?;
        let connection = slot.take().ok_or_else(|| self.busy())?;
        Ok(Held { turn: self, connection: Some(connection) })
    }

    /// Run `work` in a transaction that holds the write lock from its start. It commits only when `work` says
    /// [`Then::Commit`]; an error or a panic rolls back.
    pub(crate) fn write<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Sql<'_>) -> Result<Then<T>, E>,
    ) -> Result<T, E> {
        self.transact(TransactionBehavior::Immediate, work)
    }

    /// Run `work` on one consistent snapshot, without the write lock.
    pub(crate) fn read<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Sql<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(TransactionBehavior::Deferred, |sql| work(sql).map(Then::Forget))
    }

    /// Write the journal back into the file and empty it.
    pub(crate) fn fold_journal(&self) -> Result<()> {
        let mut held = self.take()?;
        held.connection()?
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|e| StoreError::engine(&self.path, e))
    }

    fn transact<T, E: From<StoreError>>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Sql<'_>) -> Result<Then<T>, E>,
    ) -> Result<T, E> {
        let failed = |e| E::from(StoreError::engine(&self.path, e));
        let mut held = self.take()?;
        let transaction = held.connection()?.transaction_with_behavior(behavior).map_err(failed)?;
        match work(&Sql { transaction: &transaction, path: &self.path })? {
            Then::Commit(value) => transaction.commit().map(|()| value).map_err(failed),
            Then::Forget(value) => Ok(value),
        }
    }
}

impl Held<'_> {
    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| self.turn.busy())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A poisoned lock keeps the connection: later callers find none and are refused.
        if let Ok(mut slot) = self.turn.idle.lock() {
            *slot = self.connection.take();
        }
        self.turn.returned.notify_one();
    }
}

/// What becomes of the transaction.
pub(crate) enum Then<T> {
    /// Keep what was written.
    Commit(T),
    /// Nothing was written that should stay.
    Forget(T),
}

/// A running transaction, with the path for its errors.
pub(crate) struct Sql<'a> {
    transaction: &'a Transaction<'a>,
    path: &'a Path,
}

impl Sql<'_> {
    /// Run a statement; the number of rows it changed.
    pub(crate) fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(|e| self.failed(e))
    }

    /// The first row, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        use rusqlite::OptionalExtension as _;
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(params, read).optional())
            .map_err(|e| self.failed(e))
    }

    /// All rows.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.collect())
            .map_err(|e| self.failed(e))
    }

    pub(crate) fn last_id(&self) -> i64 {
        self.transaction.last_insert_rowid()
    }

    pub(crate) fn path(&self) -> &Path {
        self.path
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::engine(self.path, source)
    }
}
