//! A granted statement on a PostgreSQL server, on a connection that passed the egress gate.

use std::sync::Arc;

use govrun_verdict::{Builtin, DbOp, FsMode, Operation};

use super::super::GuestError;
use super::run::limits;
use crate::databases::SessionKey;
use crate::grant::Grant;
use crate::postgres::{Ask, Ending, Isolation, PostgresOffer, Session, admit, isolate};
use crate::runtime::CallState;
use crate::sql::{SqlError, SqlOutcome, SqlValue};

/// What the outcome of a sandboxed statement says that ran on the server itself.
const NOT_ISOLATED: &str = "rolled back on the server itself: not isolated";

impl CallState {
    pub(super) async fn remote(
        &mut self,
        grant: Grant,
        key: &SessionKey,
        offer: &Arc<PostgresOffer>,
        params: Vec<SqlValue>,
    ) -> Result<SqlOutcome, GuestError> {
        let Operation::Db { op, statement, facts, .. } = grant.operation().clone() else {
            return Err(GuestError::failed("not a statement"));
        };
        let (limits, mask) = (limits(grant.obligations().db), grant.obligations().mask.clone());
        if let Err(error) = admit(offer, facts.as_deref(), &statement, &mask) {
            return Err(self.failed(grant, error));
        }
        if op == DbOp::Execute && offer.mode == FsMode::ReadOnly {
            return Err(self.failed(grant, SqlError::ReadOnly));
        }
        let isolation = if key.sandboxed {
            let Some(isolation) = isolate(offer, facts.as_deref()) else {
                grant.finish(&crate::grant::Outcome::failed("not-isolated"));
                let operation = Operation::Db { op, db: key.label.clone(), statement, facts };
                return Err(self.scope().refuse(operation, Builtin::DbNotIsolated).into());
            };
            Some(isolation)
        } else {
            None
        };
        let replica = isolation == Some(Isolation::Replica);
        let mut session = match self.connected(key, offer, replica).await {
            Ok(session) => session,
            Err(error) => {
                grant.finish(&crate::grant::Outcome::failed("not-connected"));
                return Err(error);
            }
        };
        let tables = facts.as_deref().map(|f| f.tables.clone()).unwrap_or_default();
        let ending = if isolation.is_some() { Ending::Undo } else { Ending::Keep };
        let ask = Ask { op, statement: &statement, tables: &tables, params, mask: &mask, limits, ending };
        let result = session.run(ask).await.map(|outcome| {
            // A writing grant may read: then nothing was changed.
            let reads = facts.as_deref().is_none_or(|f| f.class == "select");
            SqlOutcome { changed: if reads { 0 } else { outcome.changed }, ..outcome }
        });
        self.databases.keep_remote(&key.label, replica, session);
        let note = (isolation == Some(Isolation::RolledBack)).then_some(NOT_ISOLATED);
        self.ended(grant, result, note)
    }

    async fn connected(
        &mut self,
        key: &SessionKey,
        offer: &PostgresOffer,
        replica: bool,
    ) -> Result<Session, GuestError> {
        if let Some(session) = self.databases.take_remote(&key.label, replica) {
            return Ok(session);
        }
        let server = match (&offer.replica, replica) {
            (Some(server), true) => server,
            (_, false) | (None, true) => &offer.server,
        };
        let scope = Arc::clone(self.scope());
        let egress = Arc::clone(self.wasi.net.client().egress());
        let dialed = egress.dial(&scope, &server.host, server.port).await?;
        let Some(peer) = dialed.peer else {
            dialed.grant.finish(&crate::grant::Outcome::failed("not-connected"));
            return Err(GuestError::failed("the server hung up"));
        };
        let login = Session::login(server, &offer.password, dialed.stream, peer, Some(dialed.grant));
        login.await.map_err(GuestError::failed)
    }
}
