//! A result that the guest reads piece by piece under one held grant.

use std::sync::Arc;

use govrun_verdict::{Builtin, DbOp, Operation};
use wasmtime::component::Resource;

use super::super::GuestError;
use super::super::wit::db;
use super::run::{count, limits};
use super::{from_guest, to_guest_rows};
use crate::databases::DatabaseOffer;
use crate::effect::sqlite::Abandon;
use crate::grant::{Grant, Outcome};
use crate::runtime::CallState;
use crate::sql::{SqlError, SqlValue, cursor};

/// Most results that one call reads at a time: each has a thread.
const MAX_CURSORS: usize = 8;
/// Most rows of one `next`.
const MAX_NEXT: usize = 1_000;

/// See the module. Dropping it ends the engine's work and writes the outcome.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Cursor {
    result: cursor::Cursor,
    grant: Option<Grant>,
    rows: u64,
    bytes: u64,
    _abandon: Option<Abandon>,
    _place: Arc<()>,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            grant.finish(&Outcome { rows: self.rows, bytes_in: self.bytes, ..Outcome::ok() });
        }
    }
}

impl db::HostCursor for CallState {
    async fn columns(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<Vec<String>> {
        Ok(self.wasi.table.get(&cursor)?.result.columns().to_vec())
    }

    async fn next(&mut self, cursor: Resource<Cursor>, max: u32) -> Result<Vec<Vec<db::Value>>, GuestError> {
        let scope = Arc::clone(self.scope());
        let held = self.wasi.table.get_mut(&cursor)?;
        if let Some(refusal) = held.grant.as_ref().and_then(|grant| scope.still(grant).err()) {
            return Err(refusal.into());
        }
        let most = usize::try_from(max).unwrap_or(MAX_NEXT).min(MAX_NEXT);
        match held.result.next(most).await {
            Ok(rows) => {
                held.rows = held.rows.saturating_add(count(rows.len()));
                let bytes = rows.iter().flatten().map(SqlValue::weight).fold(0, usize::saturating_add);
                held.bytes = held.bytes.saturating_add(count(bytes));
                Ok(to_guest_rows(rows))
            }
            Err(error) => match held.grant.take() {
                Some(grant) => Err(self.failed(grant, error)),
                None => Err(GuestError::failed(error)),
            },
        }
    }

    async fn drop(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<()> {
        self.wasi.table.delete(cursor)?;
        Ok(())
    }
}

impl CallState {
    pub(super) async fn open_cursor(
        &mut self,
        label: String,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<Cursor, GuestError> {
        let place = self.cursor_place(&label, &sql)?;
        let grant = self.admit_statement(DbOp::Query, label, sql).await?;
        let key = self.key(&grant)?;
        if let Some(DatabaseOffer::Postgres(_)) = self.databases.offer(&key.label) {
            // The server's answer is whole within its limits before it is read; its grant ends with it.
            let outcome = self.granted(grant, params).await?;
            let result = cursor::Cursor::whole(outcome.columns, outcome.rows);
            return Ok(Cursor { result, grant: None, rows: 0, bytes: 0, _abandon: None, _place: place });
        }
        let session = match self.databases.new_session(&key).await {
            Ok(session) => session,
            Err(error) => return Err(self.failed(grant, error)),
        };
        let abandon = session.guard();
        let (limits, mask) = (limits(grant.obligations().db), grant.obligations().mask.clone());
        let Operation::Db { statement, .. } = grant.operation().clone() else {
            return Err(GuestError::failed("not a statement"));
        };
        let (feed, events) = cursor::feed();
        let params = from_guest(params);
        let work = move || session.stream(&statement, &params, &mask, &limits, feed);
        if let Err(error) = std::thread::Builder::new().name("govrun-cursor".to_owned()).spawn(work) {
            return Err(self.failed(grant, SqlError::Failed(format!("no thread for the result: {error}"))));
        }
        match cursor::Cursor::open(events).await {
            Ok(result) => Ok(Cursor {
                result,
                grant: Some(grant),
                rows: 0,
                bytes: 0,
                _abandon: Some(abandon),
                _place: place,
            }),
            Err(error) => Err(self.failed(grant, error)),
        }
    }

    /// A place among the results that are read at a time.
    fn cursor_place(&mut self, label: &str, sql: &str) -> Result<Arc<()>, GuestError> {
        let places = self.databases.places();
        if Arc::strong_count(places) > MAX_CURSORS {
            let operation = Operation::Db {
                op: DbOp::Query,
                db: label.to_owned(),
                statement: sql.to_owned(),
                facts: None,
            };
            return Err(self.scope().refuse(operation, Builtin::DbLimit).into());
        }
        Ok(Arc::clone(places))
    }
}
