//! `govrun:host/db`: one SQL statement at a time against an offered database, by label.

use std::sync::Arc;

use govrun_audit::{Absorbed, AbsorbedKind};
use govrun_verdict::{Builtin, DbLimits, DbOp, Operation};
use wasmtime::component::Resource;

use super::GuestError;
use super::wit::db;
use crate::effect::sqlite::{self, SqlError, SqlLimits, SqlOutcome, SqlValue};
use crate::grant::{Grant, Outcome};
use crate::runtime::CallState;

/// Ceilings of every statement, whatever policy says.
const CEILING: SqlLimits =
    SqlLimits { rows: 100_000, bytes: 32 << 20, time_ms: 30_000, vm_steps: 500_000_000 };
/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 128;

/// A database by its label. Opening has no effect; each statement is decided.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Connection {
    label: String,
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
        let outcome = self.statement(DbOp::Query, &connection, sql, params).await?;
        let rows = outcome.rows.into_iter().map(|row| row.into_iter().map(to_guest).collect()).collect();
        Ok(db::Rows { columns: outcome.columns, rows })
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<u64, GuestError> {
        Ok(self.statement(DbOp::Execute, &connection, sql, params).await?.changed)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.wasi.table.delete(connection)?;
        Ok(())
    }
}

impl CallState {
    async fn statement(
        &mut self,
        op: DbOp,
        connection: &Resource<Connection>,
        statement: String,
        params: Vec<db::Value>,
    ) -> Result<SqlOutcome, GuestError> {
        let label = self.wasi.table.get(connection)?.label.clone();
        let operation = Operation::Db { op, db: label.clone(), statement, facts: None };
        if !self.databases.offers(&label) {
            return Err(self.scope().refuse(operation, Builtin::DbUnknown).into());
        }
        let scope = Arc::clone(self.scope());
        let grant = scope.admit(operation).await?;
        let params: Vec<SqlValue> = params.into_iter().map(from_guest).collect();
        self.execute_granted(grant, &label, &params)
    }

    /// INVARIANT: what runs is what the grant was given for.
    fn execute_granted(
        &mut self,
        grant: Grant,
        label: &str,
        params: &[SqlValue],
    ) -> Result<SqlOutcome, GuestError> {
        let Operation::Db { op, statement, .. } = grant.operation().clone() else {
            return Err(GuestError::failed("not a statement"));
        };
        let limits = limits(grant.obligations().db);
        let opened = self.databases.open(label, grant.sandboxed() || self.scope().sandboxed());
        let result =
            opened.and_then(|(path, writable)| sqlite::run(op, &path, &statement, params, writable, &limits));
        match result {
            Ok(outcome) => {
                grant.finish(&Outcome {
                    rows: outcome.rows.len().try_into().unwrap_or(u64::MAX),
                    bytes_in: outcome.bytes,
                    ..Outcome::ok()
                });
                if self.scope().sandboxed() && outcome.changed > 0 {
                    self.absorb(Absorbed {
                        kind: AbsorbedKind::DbChanged,
                        subject: label.to_owned(),
                        size: outcome.changed,
                    });
                }
                Ok(outcome)
            }
            Err(error) => {
                let (kind, reason) = failure(&error);
                grant.finish(&Outcome::failed(kind));
                Err(match reason {
                    Some(reason) => {
                        let operation = Operation::Db { op, db: label.to_owned(), statement, facts: None };
                        self.scope().refuse(operation, reason).into()
                    }
                    None => GuestError::failed(error),
                })
            }
        }
    }
}

fn failure(error: &SqlError) -> (&'static str, Option<Builtin>) {
    match error {
        SqlError::ReadOnly => ("read-only", Some(Builtin::DbReadOnly)),
        SqlError::StatementRefused(_) => ("statement-refused", Some(Builtin::DbStatementRefused)),
        SqlError::Limit { .. } => ("limit", Some(Builtin::DbLimit)),
        SqlError::Failed(_) => ("sql-error", None),
    }
}

fn limits(granted: DbLimits) -> SqlLimits {
    let within =
        |limit: Option<std::num::NonZeroU64>, ceiling: u64| limit.map_or(ceiling, |l| l.get().min(ceiling));
    SqlLimits {
        rows: within(granted.rows, CEILING.rows),
        bytes: within(granted.bytes, CEILING.bytes),
        time_ms: within(granted.time_ms, CEILING.time_ms),
        vm_steps: within(granted.vm_steps, CEILING.vm_steps),
    }
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

fn from_guest(value: db::Value) -> SqlValue {
    match value {
        db::Value::Null => SqlValue::Null,
        db::Value::Integer(n) => SqlValue::Integer(n),
        db::Value::Real(f) => SqlValue::Real(f),
        db::Value::Text(s) => SqlValue::Text(s),
        db::Value::Blob(b) => SqlValue::Blob(b),
    }
}
