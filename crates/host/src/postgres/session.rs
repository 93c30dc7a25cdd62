//! One connection of one call: each statement in a transaction of its own, and nothing of it left for the next.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_core::Stream as _;
use govrun_verdict::{DbOp, Mask};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls, RowStream, Statement};

use super::Server;
use super::value::{Cell, Param};
use super::wire::{Allowance, Bounded};
use crate::grant::{Grant, Outcome};
use crate::hidden::Hidden;
use crate::sql::{MAX_COLUMNS, Meter, SqlError, SqlLimit, SqlLimits, SqlOutcome, SqlValue, check_size};

/// Longest handshake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for what the host itself runs around a statement.
const OWN_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes a handshake, a notice or an error may have, beside rows.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// What becomes of a writing statement that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Keep,
    Undo,
}

/// One statement that may run.
pub(crate) struct Ask<'a> {
    pub(crate) op: DbOp,
    pub(crate) statement: &'a str,
    /// What a parser says it names, for the mask.
    pub(crate) tables: &'a [String],
    pub(crate) params: Vec<SqlValue>,
    pub(crate) mask: &'a Mask,
    pub(crate) limits: SqlLimits,
    pub(crate) ending: Ending,
}

/// See the module. It holds the grant of its connection.
pub(crate) struct Session {
    client: Client,
    peer: SocketAddr,
    left: Allowance,
    driver: AbortHandle,
    grant: Option<Grant>,
    sound: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
        if let Some(grant) = self.grant.take() {
            grant.finish(&Outcome::ok());
        }
    }
}

/// Cancels the statement on the server when its caller stops waiting: the server would go on with it.
struct Cancel(Option<(CancelToken, SocketAddr)>);

impl Drop for Cancel {
    fn drop(&mut self) {
        let (Some((token, peer)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // To the very address that was decided, for the connection that was granted.
        runtime.spawn(timeout(CONNECT_DEADLINE, async move {
            if let Ok(stream) = TcpStream::connect(peer).await {
                let _ = token.cancel_query_raw(stream, NoTls).await;
            }
        }));
    }
}

impl Session {
    /// Log in on a connection that was granted.
    ///
    /// # Errors
    /// [`SqlError::Failed`], without a word of the password.
    pub(crate) async fn login<S>(
        server: &Server,
        password: &Hidden,
        stream: S,
        peer: SocketAddr,
        grant: Option<Grant>,
    ) -> Result<Self, SqlError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let left: Allowance = Arc::new(AtomicU64::new(OVERHEAD_BYTES));
        let mut config = Config::new();
        config
            .user(&server.user)
            .password(password.reveal())
            .dbname(&server.database)
            .application_name("govrun")
            // What an unqualified name means is not for a role's settings to say.
            .options("-c search_path=public -c standard_conforming_strings=on");
        let login = config.connect_raw(Bounded::new(stream, Arc::clone(&left)), NoTls);
        let (client, connection) = timeout(CONNECT_DEADLINE, login)
            .await
            .map_err(|_| SqlError::Limit { which: SqlLimit::Time })?
            .map_err(|e| explain(&e))?;
        let driver = tokio::spawn(async move {
            // Its end shows at the client.
            let _ = connection.await;
        })
        .abort_handle();
        Ok(Self { client, peer, left, driver, grant, sound: true })
    }

    /// False after something that leaves the state of the connection open.
    pub(crate) const fn is_sound(&self) -> bool {
        self.sound
    }

    /// Run one statement in a transaction of its own.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub(crate) async fn run(&mut self, ask: Ask<'_>) -> Result<SqlOutcome, SqlError> {
        check_size(ask.statement, &ask.params)?;
        self.sound = false;
        self.left.store(ask.limits.bytes.saturating_mul(2).saturating_add(OVERHEAD_BYTES), Ordering::Relaxed);
        let mut cancel = Cancel(Some((self.client.cancel_token(), self.peer)));
        let deadline = Duration::from_millis(ask.limits.time_ms);
        let (op, ending) = (ask.op, ask.ending);
        let done = match timeout(deadline, self.transaction(ask)).await {
            Ok(done) => done,
            // The guard cancels the statement, and the connection is not used again: the server undoes it.
            Err(_) => return Err(SqlError::Limit { which: SqlLimit::Time }),
        };
        let keep = done.is_ok() && op == DbOp::Execute && ending == Ending::Keep;
        let ended = self.own(if keep { "COMMIT" } else { "ROLLBACK" }).await;
        // What a transaction does not take back with it.
        let cleaned = self.own("SELECT pg_catalog.pg_advisory_unlock_all(); UNLISTEN *; RESET ALL").await;
        cancel.0 = None;
        self.sound = ended.is_ok() && cleaned.is_ok();
        match (done, ended) {
            (Ok(outcome), Ok(())) => Ok(outcome),
            (Ok(_), Err(error)) => Err(error),
            (Err(error), _) => Err(self.bounded(error)),
        }
    }

    /// A connection that ended since too much came is a limit, not a failure.
    fn bounded(&self, error: SqlError) -> SqlError {
        if self.left.load(Ordering::Relaxed) == 0 {
            SqlError::Limit { which: SqlLimit::Bytes }
        } else {
            error
        }
    }

    async fn own(&self, sql: &str) -> Result<(), SqlError> {
        timeout(OWN_DEADLINE, self.client.batch_execute(sql))
            .await
            .map_err(|_| SqlError::Limit { which: SqlLimit::Time })?
            .map_err(|e| explain(&e))
    }

    async fn transaction(&self, ask: Ask<'_>) -> Result<SqlOutcome, SqlError> {
        let access = if ask.op == DbOp::Query { "READ ONLY" } else { "READ WRITE" };
        // After its first query a transaction's access can no longer be changed. The server's own timeout is for a host
        // that is gone; this host's comes first.
        let begin = format!(
            "BEGIN {access}; SET LOCAL statement_timeout = {}; SELECT 1",
            ask.limits.time_ms.saturating_add(1_000)
        );
        self.own(&begin).await?;
        let statement = self.client.prepare(ask.statement).await.map_err(|e| explain(&e))?;
        if statement.columns().len() > usize::from(MAX_COLUMNS) {
            return Err(SqlError::StatementRefused("it has too many columns".to_owned()));
        }
        if statement.params().len() != ask.params.len() {
            let wanted = statement.params().len();
            return Err(SqlError::Failed(format!("{wanted} parameters wanted, {} given", ask.params.len())));
        }
        if !ask.mask.is_empty() {
            self.check_tables(ask.tables).await?;
            self.check_origins(&statement, ask.mask).await?;
        }
        let params = ask.params.into_iter().map(Param);
        let rows = self.client.query_raw(&statement, params).await.map_err(|e| explain(&e))?;
        collect(&statement, rows, &ask.limits).await
    }

    /// Beside a mask only tables are read: a view, a partition or the server's statistics hold the values by other names.
    async fn check_tables(&self, tables: &[String]) -> Result<(), SqlError> {
        const PLAIN: &str = "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
            ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') \
            AND NOT c.relispartition";
        for table in tables {
            let (schema, name) = table.split_once('.').unwrap_or(("public", table));
            let found = self.client.query_one(PLAIN, &[&schema, &name]).await.map_err(|e| explain(&e))?;
            if found.try_get::<_, i64>(0).map_err(|e| explain(&e))? != 1 {
                return Err(SqlError::Masked(format!("`{table}` is not a plain table")));
            }
        }
        Ok(())
    }

    /// No column of the result may be a masked one, whatever the statement says of itself.
    async fn check_origins(&self, statement: &Statement, mask: &Mask) -> Result<(), SqlError> {
        const ORIGIN: &str = "SELECT CASE WHEN n.nspname = 'public' THEN '' ELSE n.nspname || '.' END || c.relname, \
            a.attname::text, c.relkind IN ('r', 'p') AND NOT c.relispartition \
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE a.attrelid = $1 AND a.attnum = $2";
        for column in statement.columns() {
            let (Some(table), Some(number)) = (column.table_oid(), column.column_id()) else { continue };
            let origin = self.client.query_one(ORIGIN, &[&table, &number]).await.map_err(|e| explain(&e))?;
            let read = |e: tokio_postgres::Error| explain(&e);
            let (name, attribute): (String, String) =
                (origin.try_get(0).map_err(read)?, origin.try_get(1).map_err(read)?);
            let plain: bool = origin.try_get(2).map_err(read)?;
            if !plain || mask.hides(&name, &attribute) {
                return Err(SqlError::Masked(format!("`{name}.{attribute}`")));
            }
        }
        Ok(())
    }
}

async fn collect(statement: &Statement, rows: RowStream, limits: &SqlLimits) -> Result<SqlOutcome, SqlError> {
    let mut meter = Meter::new(limits);
    let columns: Vec<String> = statement.columns().iter().map(|c| c.name().to_owned()).collect();
    columns.iter().try_for_each(|name| meter.charge(name.len()))?;
    let mut rows = pin!(rows);
    let mut outcome = SqlOutcome { columns, ..SqlOutcome::default() };
    while let Some(row) = std::future::poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
        let row = row.map_err(|e| explain(&e))?;
        meter.row()?;
        let mut values = Vec::with_capacity(row.len());
        for index in 0..row.len() {
            let Cell(value) = row.try_get(index).map_err(|e| explain(&e))?;
            let value = value.ok_or(SqlError::Limit { which: SqlLimit::Bytes })?;
            meter.charge(value.weight())?;
            values.push(value);
        }
        outcome.rows.push(values);
    }
    outcome.bytes = meter.bytes();
    outcome.changed = rows.rows_affected().unwrap_or(0);
    Ok(outcome)
}

fn explain(error: &tokio_postgres::Error) -> SqlError {
    let Some(db) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
        return SqlError::Failed(format!("{error}{source}"));
    };
    match *db.code() {
        SqlState::READ_ONLY_SQL_TRANSACTION => SqlError::ReadOnly,
        SqlState::QUERY_CANCELED => SqlError::Limit { which: SqlLimit::Time },
        SqlState::INSUFFICIENT_PRIVILEGE => SqlError::StatementRefused(db.message().to_owned()),
        _ => SqlError::Failed(db.message().to_owned()),
    }
}
