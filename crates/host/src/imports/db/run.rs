//! One statement: decided on what a parser makes of it, run by an engine that does not rely on that.

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_audit::{Absorbed, AbsorbedKind};
use govrun_verdict::{Builtin, DbLimits, DbOp, Operation};

use super::super::GuestError;
use super::super::wit::db;
use super::from_guest;
use crate::databases::{DatabaseOffer, SessionKey, blocking};
use crate::effect::sqlite::Session;
use crate::grant::{Grant, Outcome};
use crate::runtime::CallState;
use crate::sql::{SqlError, SqlLimits, SqlOutcome, SqlValue, classify};

/// Ceilings of every statement, whatever policy says.
const CEILING: SqlLimits =
    SqlLimits { rows: 100_000, bytes: 32 << 20, time_ms: 30_000, vm_steps: 500_000_000 };

impl CallState {
    pub(super) async fn read(
        &mut self,
        label: String,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<SqlOutcome, GuestError> {
        self.statement(DbOp::Query, label, sql, params).await
    }

    pub(super) async fn write(
        &mut self,
        label: String,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<u64, GuestError> {
        self.statement(DbOp::Execute, label, sql, params).await.map(|outcome| outcome.changed)
    }

    async fn statement(
        &mut self,
        op: DbOp,
        label: String,
        sql: String,
        params: Vec<db::Value>,
    ) -> Result<SqlOutcome, GuestError> {
        let grant = self.admit_statement(op, label, sql).await?;
        self.granted(grant, params).await
    }

    /// Run what was granted, where its database is.
    pub(super) async fn granted(
        &mut self,
        grant: Grant,
        params: Vec<db::Value>,
    ) -> Result<SqlOutcome, GuestError> {
        let key = self.key(&grant)?;
        if let Some(DatabaseOffer::Postgres(offer)) = self.databases.offer(&key.label) {
            let offer = Arc::clone(offer);
            return self.remote(grant, &key, &offer, from_guest(params)).await;
        }
        let session = match self.databases.session(&key).await {
            Ok(session) => session,
            Err(error) => return Err(self.failed(grant, error)),
        };
        let (session, result) = run_granted(&grant, session, from_guest(params)).await;
        if let Some(session) = session {
            self.databases.keep(key, session);
        }
        self.ended(grant, result, None)
    }

    /// The decision on a statement, with what it says of itself.
    pub(super) async fn admit_statement(
        &mut self,
        op: DbOp,
        db: String,
        statement: String,
    ) -> Result<Grant, GuestError> {
        let scope = Arc::clone(self.scope());
        let Some(offer) = self.databases.offer(&db) else {
            let operation = Operation::Db { op, db, statement, facts: None };
            return Err(scope.refuse(operation, Builtin::DbUnknown).into());
        };
        let facts = classify(offer.dialect(), &statement).map(Arc::new);
        Ok(scope.admit(Operation::Db { op, db, statement, facts }).await?)
    }

    /// The session that a granted statement runs in.
    pub(super) fn key(&self, grant: &Grant) -> Result<SessionKey, GuestError> {
        let Operation::Db { op, db, .. } = grant.operation() else {
            return Err(GuestError::failed("not a statement"));
        };
        let sandboxed = grant.sandboxed() || self.scope().sandboxed();
        Ok(SessionKey { label: db.clone(), sandboxed, write: *op == DbOp::Execute })
    }

    /// What became of a statement, for the log and for the guest.
    pub(super) fn ended(
        &mut self,
        grant: Grant,
        result: Result<SqlOutcome, SqlError>,
        note: Option<&'static str>,
    ) -> Result<SqlOutcome, GuestError> {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.failed(grant, error)),
        };
        let rows = if outcome.changed > 0 { outcome.changed } else { count(outcome.rows.len()) };
        let sandboxed = grant.sandboxed() || self.scope().sandboxed();
        if sandboxed
            && outcome.changed > 0
            && let Operation::Db { db, .. } = grant.operation()
        {
            let subject = db.clone();
            self.absorb(Absorbed { kind: AbsorbedKind::DbChanged, subject, size: outcome.changed });
        }
        grant.finish(&Outcome { rows, bytes_in: outcome.bytes, note, ..Outcome::ok() });
        Ok(outcome)
    }

    /// The end of a grant whose statement failed; what the engine refused is a refusal of its own in the log.
    pub(super) fn failed(&self, grant: Grant, error: SqlError) -> GuestError {
        let operation = grant.operation().clone();
        let (kind, reason) = failure(&error);
        grant.finish(&Outcome::failed(kind));
        match reason {
            Some(reason) => self.scope().refuse(operation, reason).into(),
            None => GuestError::failed(error),
        }
    }
}

/// INVARIANT: what runs is what the grant was given for, within its obligations. No session comes back when its thread
/// was lost.
pub(super) async fn run_granted(
    grant: &Grant,
    mut session: Session,
    params: Vec<SqlValue>,
) -> (Option<Session>, Result<SqlOutcome, SqlError>) {
    let Operation::Db { op, statement, .. } = grant.operation().clone() else {
        return (Some(session), Err(SqlError::Failed("not a statement".to_owned())));
    };
    let (limits, mask) = (limits(grant.obligations().db), grant.obligations().mask.clone());
    let abandon = session.guard();
    let done = blocking(move || {
        let result = session.run(op, &statement, &params, &mask, &limits);
        Ok((session, result))
    })
    .await;
    abandon.taken();
    match done {
        Ok((session, result)) => (Some(session), result),
        Err(error) => (None, Err(error)),
    }
}

pub(super) fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

const fn failure(error: &SqlError) -> (&'static str, Option<Builtin>) {
    match error {
        SqlError::ReadOnly => ("read-only", Some(Builtin::DbReadOnly)),
        SqlError::StatementRefused(_) => ("statement-refused", Some(Builtin::DbStatementRefused)),
        SqlError::Masked(_) => ("masked", Some(Builtin::DbMasked)),
        SqlError::Limit { .. } => ("limit", Some(Builtin::DbLimit)),
        SqlError::Failed(_) => ("sql-error", None),
    }
}

pub(super) fn limits(granted: DbLimits) -> SqlLimits {
    let within = |limit: Option<NonZeroU64>, ceiling: u64| limit.map_or(ceiling, |l| l.get().min(ceiling));
    SqlLimits {
        rows: within(granted.rows, CEILING.rows),
        bytes: within(granted.bytes, CEILING.bytes),
        time_ms: within(granted.time_ms, CEILING.time_ms),
        vm_steps: within(granted.vm_steps, CEILING.vm_steps),
    }
}
