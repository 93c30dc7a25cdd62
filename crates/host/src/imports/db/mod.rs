//! `govrun:host/db`: SQL statements against an offered database, by label.

mod cursor;
mod remote;
mod run;
mod transaction;

use wasmtime::component::Resource;

use super::GuestError;
use super::wit::db;
use crate::runtime::CallState;
use crate::sql::{MAX_STATEMENT_BYTES, SqlOutcome, SqlValue};

#[expect(unreachable_pub, reason = "the generated bindings re-export them")]
pub use self::{cursor::Cursor, transaction::Transaction};

/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 128;

/// A database by its label. Opening has no effect; each statement is decided.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Connection {
    label: String,
}

/// A statement of a database. Making one has no effect; each use is decided.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Statement {
    label: String,
    text: String,
}

impl db::Host for CallState {}

impl db::HostConnection for CallState {
    async fn new(&mut self, label: String) -> wasmtime::Result<Resource<Connection>> {
        let label = label.chars().take(MAX_LABEL_BYTES).collect();
        Ok(self.wasi.table.push(Connection { label })?)
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<db::Rows, GuestError> {
        let label = self.wasi.table.get(&connection)?.label.clone();
        self.read(label, sql, params).await.map(to_rows)
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<u64, GuestError> {
        let label = self.wasi.table.get(&connection)?.label.clone();
        self.write(label, sql, params).await
    }

    async fn open(
        &mut self,
        connection: Resource<Connection>,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<Resource<Cursor>, GuestError> {
        let label = self.wasi.table.get(&connection)?.label.clone();
        let cursor = self.open_cursor(label, sql, params).await?;
        Ok(self.wasi.table.push(cursor)?)
    }

    async fn prepare(
        &mut self,
        connection: Resource<Connection>,
        sql: String,
    ) -> wasmtime::Result<Resource<Statement>> {
        let label = self.wasi.table.get(&connection)?.label.clone();
        // One byte more than may run, so that a longer one is refused when it is used.
        let text = sql.chars().take(MAX_STATEMENT_BYTES.saturating_add(1)).collect();
        Ok(self.wasi.table.push(Statement { label, text })?)
    }

    async fn begin(
        &mut self,
        connection: Resource<Connection>,
        access: db::Access,
    ) -> Result<Resource<Transaction>, GuestError> {
        let label = self.wasi.table.get(&connection)?.label.clone();
        let transaction = self.begin_transaction(label, access).await?;
        Ok(self.wasi.table.push(transaction)?)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.wasi.table.delete(connection)?;
        Ok(())
    }
}

impl db::HostStatement for CallState {
    async fn query(
        &mut self,
        statement: Resource<Statement>,
        params: Vec<db::Value>,
    ) -> Result<db::Rows, GuestError> {
        let (label, text) = self.prepared(&statement)?;
        self.read(label, text, params).await.map(to_rows)
    }

    async fn execute(
        &mut self,
        statement: Resource<Statement>,
        params: Vec<db::Value>,
    ) -> Result<u64, GuestError> {
        let (label, text) = self.prepared(&statement)?;
        self.write(label, text, params).await
    }

    async fn drop(&mut self, statement: Resource<Statement>) -> wasmtime::Result<()> {
        self.wasi.table.delete(statement)?;
        Ok(())
    }
}

impl CallState {
    fn prepared(&self, statement: &Resource<Statement>) -> Result<(String, String), GuestError> {
        let kept = self.wasi.table.get(statement)?;
        Ok((kept.label.clone(), kept.text.clone()))
    }
}

fn to_rows(outcome: SqlOutcome) -> db::Rows {
    db::Rows { columns: outcome.columns, rows: to_guest_rows(outcome.rows) }
}

fn to_guest_rows(rows: Vec<Vec<SqlValue>>) -> Vec<Vec<db::Value>> {
    rows.into_iter().map(|row| row.into_iter().map(to_guest).collect()).collect()
}

fn to_guest(value: SqlValue) -> db::Value {
    match value {
        SqlValue::Null => db::Value::Null,
        SqlValue::Integer(n) => db::Value::Integer(n),
        SqlValue::Real(f) => db::Value::Real(f),
        SqlValue::Text(s) => db::Value::Text(s),
        SqlValue::Blob(b) => db::Value::Blob(b),
    }
}

fn from_guest(params: Vec<db::Value>) -> Vec<SqlValue> {
    let one = |value| match value {
        db::Value::Null => SqlValue::Null,
        db::Value::Integer(n) => SqlValue::Integer(n),
        db::Value::Real(f) => SqlValue::Real(f),
        db::Value::Text(s) => SqlValue::Text(s),
        db::Value::Blob(b) => SqlValue::Blob(b),
    };
    params.into_iter().map(one).collect()
}
