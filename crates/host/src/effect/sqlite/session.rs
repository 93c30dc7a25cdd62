//! A connection to one database file, confined before the first statement, used for one at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use govrun_verdict::{DbOp, Mask};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Error, OpenFlags, Row, StatementStatus, ToSql};

use super::watch::{Abandon, Watch};
use super::{BUSY_MS, check_words};
use crate::sql::cursor::{Event, Feed};
use crate::sql::{
    MAX_COLUMNS, MAX_PARAMETERS, MAX_STATEMENT_BYTES, MAX_VALUE_BYTES, Meter, SqlError, SqlLimit, SqlLimits,
    SqlOutcome, SqlValue, check_size,
};

/// See the module. What a statement compiled to is kept for the next one with the same text.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    watch: Arc<Watch>,
    mask: Mask,
    write: bool,
    stride: u64,
    transaction: bool,
}

impl Session {
    /// Opens the existing database file `source` (an absolute path), for writing statements or for none.
    ///
    /// # Errors
    /// [`SqlError::Failed`] when there is no such regular file or it cannot be opened.
    pub fn open(source: &Path, write: bool) -> Result<Self, SqlError> {
        let mut connection = open(source, write)?;
        confine(&connection).map_err(plain)?;
        let (watch, mask) = (Watch::new(), Mask::default());
        watch.authorize(&mut connection, &mask).map_err(plain)?;
        let stride = watch.count(&mut connection, u64::MAX).map_err(plain)?;
        Ok(Self { connection, watch, mask, write, stride, transaction: false })
    }

    /// What ends the running statement when its caller goes away.
    pub(crate) fn guard(&self) -> Abandon {
        self.watch.guard()
    }

    /// Runs one statement as a whole: what meets a limit half way has changed nothing. Blocks the thread for at most
    /// about `limits.time_ms`.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub fn run(
        &mut self,
        op: DbOp,
        statement: &str,
        params: &[SqlValue],
        mask: &Mask,
        limits: &SqlLimits,
    ) -> Result<SqlOutcome, SqlError> {
        self.prepare_for(op, statement, params, mask, limits)?;
        if op == DbOp::Query {
            return self.collect(op, statement, params, limits);
        }
        // Outside of what the authorizer permits to guests, so that a limit met half way undoes the whole statement.
        let (begin, keep, undo) = if self.transaction {
            ("SAVEPOINT own", "RELEASE own", "ROLLBACK TO own; RELEASE own")
        } else {
            ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
        };
        self.watch.own(&self.connection, begin).map_err(plain)?;
        let done = self.collect(op, statement, params, limits);
        let ending = if done.is_ok() { keep } else { undo };
        let ended = self.watch.own(&self.connection, ending);
        match (done, ended) {
            (Ok(outcome), Ok(())) => Ok(outcome),
            (Ok(_), Err(error)) => {
                let _ = self.watch.own(&self.connection, undo);
                Err(plain(error))
            }
            // Some failures have undone everything already, so that there is nothing left to roll back.
            (Err(error), _) => Err(error),
        }
    }

    /// Runs one query and gives its rows away as they come. Blocks the thread while the reader is slow.
    pub(crate) fn stream(
        mut self,
        statement: &str,
        params: &[SqlValue],
        mask: &Mask,
        limits: &SqlLimits,
        mut feed: Feed,
    ) {
        let ended = self
            .prepare_for(DbOp::Query, statement, params, mask, limits)
            .and_then(|()| self.each_row(statement, params, limits, &mut feed));
        feed.end_blocking(ended);
    }

    /// Starts a transaction of the guest's; it ends with [`Self::end`], or undone when the session is dropped.
    ///
    /// # Errors
    /// When the database is locked by another one.
    pub fn begin(&mut self) -> Result<(), SqlError> {
        let sql = if self.write { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.watch.own(&self.connection, sql).map_err(plain)?;
        self.transaction = true;
        Ok(())
    }

    /// Ends the transaction: what it did stays, or nothing of it.
    ///
    /// # Errors
    /// When it could not be committed: then nothing of it stays.
    pub fn end(self, keep: bool) -> Result<(), SqlError> {
        if self.connection.is_autocommit() {
            return if keep { Err(gone()) } else { Ok(()) };
        }
        let sql = if keep { "COMMIT" } else { "ROLLBACK" };
        self.watch.own(&self.connection, sql).map_err(plain)
    }

    fn prepare_for(
        &mut self,
        op: DbOp,
        statement: &str,
        params: &[SqlValue],
        mask: &Mask,
        limits: &SqlLimits,
    ) -> Result<(), SqlError> {
        if op == DbOp::Execute && !self.write {
            return Err(SqlError::ReadOnly);
        }
        // A write that is stopped half way takes the whole transaction with it; what follows must not run by itself.
        if self.transaction && self.connection.is_autocommit() {
            return Err(gone());
        }
        check_size(statement, params)?;
        check_words(op, statement, mask)?;
        if *mask != self.mask {
            self.watch.authorize(&mut self.connection, mask).map_err(plain)?;
            self.mask = mask.clone();
        }
        if limits.vm_steps < self.stride {
            self.stride = self.watch.count(&mut self.connection, limits.vm_steps).map_err(plain)?;
        }
        let wait = Duration::from_millis(BUSY_MS.min(limits.time_ms));
        self.connection.busy_timeout(wait).map_err(plain)?;
        self.watch.start(op, limits);
        Ok(())
    }

    /// The compiled statement with its parameters.
    fn bound(&self, op: DbOp, statement: &str, params: &[SqlValue]) -> Result<CachedStatement<'_>, SqlError> {
        let explain = |error| self.watch.explain(error);
        let mut prepared = self.connection.prepare_cached(statement).map_err(explain)?;
        // One that was compiled when writing was permitted would not ask the authorizer again.
        if op == DbOp::Query && !prepared.readonly() {
            prepared.discard();
            return Err(SqlError::ReadOnly);
        }
        if prepared.parameter_count() != params.len() {
            let wanted = prepared.parameter_count();
            return Err(SqlError::Failed(format!("{wanted} parameters wanted, {} given", params.len())));
        }
        for (index, value) in params.iter().enumerate() {
            prepared.raw_bind_parameter(index.saturating_add(1), Bound(value)).map_err(explain)?;
        }
        Ok(prepared)
    }

    fn collect(
        &self,
        op: DbOp,
        statement: &str,
        params: &[SqlValue],
        limits: &SqlLimits,
    ) -> Result<SqlOutcome, SqlError> {
        let before = self.connection.total_changes();
        let mut prepared = self.bound(op, statement, params)?;
        prepared.reset_status(StatementStatus::VmStep);
        let mut meter = Meter::new(limits);
        let columns = names(&prepared, &mut meter)?;
        let mut rows = Vec::new();
        {
            let mut cursor = prepared.raw_query();
            while let Some(row) = cursor.next().map_err(|e| self.watch.explain(e))? {
                rows.push(self.row(row, columns.len(), &mut meter)?);
            }
        }
        let steps = u64::try_from(prepared.reset_status(StatementStatus::VmStep)).unwrap_or(u64::MAX);
        let changed = self.connection.total_changes().saturating_sub(before);
        Ok(SqlOutcome { columns, rows, changed, bytes: meter.bytes(), steps })
    }

    fn each_row(
        &self,
        statement: &str,
        params: &[SqlValue],
        limits: &SqlLimits,
        feed: &mut Feed,
    ) -> Result<(), SqlError> {
        let mut prepared = self.bound(DbOp::Query, statement, params)?;
        let mut meter = Meter::new(limits);
        let columns = names(&prepared, &mut meter)?;
        let width = columns.len();
        let gone = |_| SqlError::Failed("nobody reads the result".to_owned());
        feed.tell_blocking(Event::Columns(columns)).map_err(gone)?;
        let mut cursor = prepared.raw_query();
        while let Some(row) = cursor.next().map_err(|e| self.watch.explain(e))? {
            let row = self.row(row, width, &mut meter)?;
            feed.row_blocking(row).map_err(gone)?;
        }
        Ok(())
    }

    fn row(&self, row: &Row<'_>, width: usize, meter: &mut Meter) -> Result<Vec<SqlValue>, SqlError> {
        meter.row()?;
        if self.watch.late() {
            return Err(SqlError::Limit { which: SqlLimit::Time });
        }
        let mut values = Vec::with_capacity(width);
        for index in 0..width {
            let value = row.get_ref(index).map_err(|e| self.watch.explain(e))?;
            meter.charge(weight(value))?;
            values.push(owned(value)?);
        }
        Ok(values)
    }
}

fn names(prepared: &CachedStatement<'_>, meter: &mut Meter) -> Result<Vec<String>, SqlError> {
    let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
    columns.iter().try_for_each(|name| meter.charge(name.len()))?;
    Ok(columns)
}

fn gone() -> SqlError {
    SqlError::Failed("the transaction is over: a statement that failed has undone it".to_owned())
}

pub(super) fn plain(error: Error) -> SqlError {
    SqlError::Failed(error.to_string())
}

pub(super) fn open(source: &Path, write: bool) -> Result<Connection, SqlError> {
    let failed = |text: &str| SqlError::Failed(text.to_owned());
    // The engine may be built to read `file:` names as URIs whatever the flags say; absolute paths never look like one.
    if !source.is_absolute() {
        return Err(failed("the path of the database is not absolute"));
    }
    let kind = std::fs::metadata(source).map_err(|_| failed("there is no database file"))?;
    if !kind.is_file() {
        return Err(failed("the database is not a regular file"));
    }
    let access = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let connection =
        Connection::open_with_flags(source, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(plain)?;
    connection.pragma_update(None, "query_only", !write).map_err(plain)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS)).map_err(plain)?;
    Ok(connection)
}

fn confine(connection: &Connection) -> rusqlite::Result<()> {
    let ceiling = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
    ] {
        connection.set_db_config(config, value)?;
    }
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES.into()),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, u64::try_from(MAX_STATEMENT_BYTES).unwrap_or(0)),
        (Limit::SQLITE_LIMIT_COLUMN, MAX_COLUMNS.into()),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 32),
        (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 32),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, MAX_PARAMETERS.into()),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 16),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, ceiling(value))?;
    }
    Ok(())
}

struct Bound<'a>(&'a SqlValue);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            SqlValue::Null => ValueRef::Null,
            SqlValue::Integer(i) => ValueRef::Integer(*i),
            SqlValue::Real(r) => ValueRef::Real(*r),
            SqlValue::Text(t) => ValueRef::Text(t.as_bytes()),
            SqlValue::Blob(b) => ValueRef::Blob(b),
        }))
    }
}

const fn weight(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

fn owned(value: ValueRef<'_>) -> Result<SqlValue, SqlError> {
    Ok(match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(i) => SqlValue::Integer(i),
        ValueRef::Real(r) => SqlValue::Real(r),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => SqlValue::Text(text.to_owned()),
            Err(_) => return Err(SqlError::Failed("a text value is not UTF-8".to_owned())),
        },
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_owned()),
    })
}
