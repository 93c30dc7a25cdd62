//! A transaction of the guest's under one held grant; each statement in it has its own.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use govrun_verdict::{Builtin, DbOp, Operation, SqlFacts};
use wasmtime::component::Resource;

use super::super::GuestError;
use super::super::wit::db;
use super::run::run_granted;
use super::{from_guest, to_rows};
use crate::databases::{DatabaseOffer, SessionKey, blocking};
use crate::effect::sqlite::Session;
use crate::grant::{Grant, Outcome};
use crate::runtime::CallState;
use crate::sql::{SqlError, SqlOutcome};

/// Longest life of a transaction: it holds locks that others wait for.
const MAX_LIFE: Duration = Duration::from_secs(30);

/// The session, as long as the transaction lives.
type Slot = Arc<Mutex<Option<Session>>>;

/// See the module. Dropping it undoes what was not committed.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Transaction {
    label: String,
    write: bool,
    sandboxed: bool,
    slot: Slot,
    grant: Option<Grant>,
    changed: u64,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            grant.finish(&Outcome { note: Some("undone"), ..Outcome::ok() });
        }
    }
}

impl db::HostTransaction for CallState {
    async fn query(
        &mut self,
        transaction: Resource<Transaction>,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<db::Rows, GuestError> {
        self.within(&transaction, DbOp::Query, sql, params).await.map(to_rows)
    }

    async fn execute(
        &mut self,
        transaction: Resource<Transaction>,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<u64, GuestError> {
        self.within(&transaction, DbOp::Execute, sql, params).await.map(|outcome| outcome.changed)
    }

    async fn commit(&mut self, transaction: Resource<Transaction>) -> Result<(), GuestError> {
        self.end(&transaction, true).await
    }

    async fn rollback(&mut self, transaction: Resource<Transaction>) -> Result<(), GuestError> {
        self.end(&transaction, false).await
    }

    async fn drop(&mut self, transaction: Resource<Transaction>) -> wasmtime::Result<()> {
        self.wasi.table.delete(transaction)?;
        Ok(())
    }
}

impl CallState {
    pub(super) async fn begin_transaction(
        &mut self,
        label: String,
        access: db::Access,
    ) -> Result<Transaction, GuestError> {
        let op = match access {
            db::Access::ReadOnly => DbOp::Query,
            db::Access::ReadWrite => DbOp::Execute,
        };
        let scope = Arc::clone(self.scope());
        let facts = Some(Arc::new(SqlFacts { class: "begin".to_owned(), ..SqlFacts::default() }));
        let operation = Operation::Db { op, db: label.clone(), statement: "BEGIN".to_owned(), facts };
        match self.databases.offer(&label) {
            Some(DatabaseOffer::Sqlite(..)) => {}
            Some(DatabaseOffer::Postgres(_)) => {
                return Err(scope.refuse(operation, Builtin::DbStatementRefused).into());
            }
            None => return Err(scope.refuse(operation, Builtin::DbUnknown).into()),
        }
        let grant = scope.admit(operation).await?;
        let key = self.key(&grant)?;
        match self.begun(&key).await {
            Ok(session) => {
                let slot = Arc::new(Mutex::new(Some(session)));
                tokio::spawn(expire(Arc::downgrade(&slot)));
                let SessionKey { label, sandboxed, write } = key;
                Ok(Transaction { label, write, sandboxed, slot, grant: Some(grant), changed: 0 })
            }
            Err(error) => Err(self.failed(grant, error)),
        }
    }

    async fn begun(&mut self, key: &SessionKey) -> Result<Session, SqlError> {
        let mut session = self.databases.new_session(key).await?;
        blocking(move || session.begin().map(|()| session)).await
    }

    async fn within(
        &mut self,
        transaction: &Resource<Transaction>,
        op: DbOp,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<SqlOutcome, GuestError> {
        let scope = Arc::clone(self.scope());
        let held = self.wasi.table.get(transaction)?;
        if let Some(refusal) = held.grant.as_ref().and_then(|grant| scope.still(grant).err()) {
            // Undone now, not when the guest lets go of it.
            drop(take(&held.slot));
            return Err(refusal.into());
        }
        let (label, slot, write, sandboxed) =
            (held.label.clone(), Arc::clone(&held.slot), held.write, held.sandboxed);
        let grant = self.admit_statement(op, label, sql).await?;
        if op == DbOp::Execute && !write {
            return Err(self.failed(grant, SqlError::ReadOnly));
        }
        // A statement that policy sends into the sandbox must not run in a transaction that is real.
        if grant.sandboxed() && !sandboxed {
            return Err(self.failed(grant, SqlError::StatementRefused("the transaction is real".to_owned())));
        }
        let Some(session) = take(&slot) else {
            return Err(self.failed(grant, over()));
        };
        let (session, result) = run_granted(&grant, session, from_guest(params)).await;
        if let Ok(mut place) = slot.lock() {
            *place = session;
        }
        let outcome = self.ended(grant, result, None)?;
        let held = self.wasi.table.get_mut(transaction)?;
        held.changed = held.changed.saturating_add(outcome.changed);
        Ok(outcome)
    }

    async fn end(&mut self, transaction: &Resource<Transaction>, keep: bool) -> Result<(), GuestError> {
        let scope = Arc::clone(self.scope());
        let held = self.wasi.table.get_mut(transaction)?;
        let Some(grant) = held.grant.take() else { return Err(GuestError::failed(over())) };
        let (session, rows) = (take(&held.slot), held.changed);
        if keep && let Some(refusal) = scope.still(&grant).err() {
            drop(session);
            grant.finish(&Outcome { note: Some("undone"), ..Outcome::ok() });
            return Err(refusal.into());
        }
        let ended = match session {
            Some(session) => blocking(move || session.end(keep)).await,
            None => Err(over()),
        };
        match ended {
            Ok(()) if keep => grant.finish(&Outcome { rows, note: Some("committed"), ..Outcome::ok() }),
            Ok(()) => grant.finish(&Outcome { note: Some("undone"), ..Outcome::ok() }),
            Err(error) => return Err(self.failed(grant, error)),
        }
        Ok(())
    }
}

fn take(slot: &Slot) -> Option<Session> {
    slot.lock().ok().and_then(|mut held| held.take())
}

fn over() -> SqlError {
    SqlError::Failed("the transaction is over".to_owned())
}

/// A guest that sleeps must not hold the locks of others: at the end of its life the transaction is undone. A statement
/// that runs at that moment has its own limit, and the next one finds the end.
async fn expire(slot: Weak<Mutex<Option<Session>>>) {
    tokio::time::sleep(MAX_LIFE).await;
    let Some(slot) = slot.upgrade() else { return };
    loop {
        if take(&slot).is_some() || Arc::strong_count(&slot) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
