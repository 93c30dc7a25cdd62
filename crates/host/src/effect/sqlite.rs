//! One SQL statement on one SQLite file. The engine enforces what was decided (open flags, authorizer, limits); the
//! text of the statement is only looked at to refuse early.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use govrun_verdict::DbOp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Rows, StatementStatus, ToSql};

/// Longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 64 * 1024;
/// Largest single value or row record, in bytes. One step of the engine handles whole values, and no step can be
/// interrupted, so this also bounds how long a statement can outrun its deadline.
pub const MAX_VALUE_BYTES: u32 = 1024 * 1024;
/// Most parameters of one statement.
pub const MAX_PARAMETERS: u16 = 256;
/// Most columns of one result.
pub const MAX_COLUMNS: u16 = 256;
/// Longest wait for a lock of another process, in milliseconds; never longer than the statement's own time.
pub const BUSY_MS: u64 = 250;
/// Longest time a sandbox copy may take.
pub const COPY_DEADLINE: Duration = Duration::from_secs(10);

const STEP_GRANULARITY: u64 = 1000;

/// A parameter or a column of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

/// Bounds of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlLimits {
    /// Most rows of the result.
    pub rows: u64,
    /// Most bytes of the result: column names, text and blobs by length, numbers as 8, NULL as 1.
    pub bytes: u64,
    /// Longest run, in milliseconds.
    pub time_ms: u64,
    /// Most steps of the engine's virtual machine, checked at least every 1,000 steps.
    pub vm_steps: u64,
}

/// Which limit a statement met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlLimit {
    /// [`SqlLimits::rows`].
    Rows,
    /// [`SqlLimits::bytes`], [`MAX_VALUE_BYTES`], or the size of a copy.
    Bytes,
    /// [`SqlLimits::time_ms`] or [`COPY_DEADLINE`].
    Time,
    /// [`SqlLimits::vm_steps`].
    VmSteps,
    /// [`MAX_STATEMENT_BYTES`] or [`MAX_PARAMETERS`].
    Statement,
}

impl SqlLimit {
    /// A short name for records and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Time => "time",
            Self::VmSteps => "vm-steps",
            Self::Statement => "statement",
        }
    }
}

/// Why a statement had no result. It had no effect either: a writing statement is rolled back as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// A write through a query, or to a database that is not writable.
    #[error("the database is read-only here")]
    ReadOnly,
    /// Not exactly one statement of a permitted kind on permitted objects.
    #[error("the statement is refused: {0}")]
    StatementRefused(String),
    /// A limit was met.
    #[error("the statement met its limit of {}", which.name())]
    Limit {
        /// Which one.
        which: SqlLimit,
    },
    /// The engine failed: no such table, constraint, lock, unreadable file, ….
    #[error("the statement failed: {0}")]
    Failed(String),
}

/// What a statement gave back.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlOutcome {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows in the order of the engine.
    pub rows: Vec<Vec<SqlValue>>,
    /// Rows inserted, updated or deleted, those of triggers included.
    pub changed: u64,
    /// Bytes of the result, counted as [`SqlLimits::bytes`] says.
    pub bytes: u64,
    /// Steps of the virtual machine.
    pub steps: u64,
}

/// Runs one statement on the existing database file `source` (an absolute path). Blocks the thread for at most about
/// `limits.time_ms`.
///
/// # Errors
/// See [`SqlError`].
pub fn run(
    op: DbOp,
    source: &Path,
    statement: &str,
    params: &[SqlValue],
    writable: bool,
    limits: &SqlLimits,
) -> Result<SqlOutcome, SqlError> {
    let write = match op {
        DbOp::Query => false,
        DbOp::Execute if writable => true,
        DbOp::Execute => return Err(SqlError::ReadOnly),
    };
    if statement.len() > MAX_STATEMENT_BYTES || params.len() > usize::from(MAX_PARAMETERS) {
        return Err(SqlError::Limit { which: SqlLimit::Statement });
    }
    check_keyword(op, statement)?;
    let mut connection = open(source, write)?;
    confine(&connection, limits).map_err(plain)?;
    if write {
        // Outside of the authorizer, so that a limit met half way undoes the whole statement.
        connection.execute_batch("BEGIN IMMEDIATE").map_err(plain)?;
    }
    let watch = Watch::new(limits);
    watch.install(&mut connection, op).map_err(plain)?;
    let outcome = execute(&connection, statement, params, limits, &watch)?;
    Watch::remove(&mut connection).map_err(plain)?;
    if write {
        connection.execute_batch("COMMIT").map_err(plain)?;
    }
    Ok(outcome)
}

/// Copies the database `source` to the new file `dest` (mode 0600) and returns its size in bytes. Committed content
/// of a write-ahead log is included; the copy has a rollback journal.
///
/// # Errors
/// [`SqlError::Limit`] when the database is larger than `max_bytes` or the copy takes longer than [`COPY_DEADLINE`],
/// [`SqlError::Failed`] when `dest` exists or either file cannot be used. A copy that failed is removed.
pub fn copy_database(source: &Path, dest: &Path, max_bytes: u64) -> Result<u64, SqlError> {
    let from = open(source, false)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dest)
        .map_err(|e| SqlError::Failed(format!("cannot create the copy: {e}")))?;
    let copied = copy_pages(&from, dest, max_bytes);
    if copied.is_err()
        && let Err(error) = std::fs::remove_file(dest)
    {
        tracing::warn!(%error, "a failed copy of a database could not be removed");
    }
    copied
}

fn copy_pages(from: &Connection, dest: &Path, max_bytes: u64) -> Result<u64, SqlError> {
    let page: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(plain)?;
    let fits = |pages: i64| u64::try_from(page.saturating_mul(pages)).is_ok_and(|bytes| bytes <= max_bytes);
    let pages: i64 = from.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(plain)?;
    if !fits(pages) {
        return Err(SqlError::Limit { which: SqlLimit::Bytes });
    }
    let mut to = open(dest, true)?;
    let started = Instant::now();
    {
        let backup = Backup::new(from, &mut to).map_err(plain)?;
        loop {
            let step = backup.step(256).map_err(plain)?;
            if !fits(backup.progress().pagecount.into()) {
                return Err(SqlError::Limit { which: SqlLimit::Bytes });
            }
            if matches!(step, StepResult::Done) {
                break;
            }
            if started.elapsed() > COPY_DEADLINE {
                return Err(SqlError::Limit { which: SqlLimit::Time });
            }
            if matches!(step, StepResult::Busy | StepResult::Locked) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    to.pragma_update(None, "journal_mode", "DELETE").map_err(plain)?;
    to.close().map_err(|(_, error)| plain(error))?;
    std::fs::metadata(dest).map(|m| m.len()).map_err(|e| SqlError::Failed(e.to_string()))
}

fn plain(error: Error) -> SqlError {
    SqlError::Failed(error.to_string())
}

/// Names every statement kind that may reach the engine; the engine refuses those that hide behind `WITH`.
fn check_keyword(op: DbOp, statement: &str) -> Result<(), SqlError> {
    let word: String = skip_blank(statement).chars().take_while(char::is_ascii_alphabetic).take(16).collect();
    let word = word.to_ascii_uppercase();
    match (word.as_str(), op) {
        ("SELECT" | "WITH" | "VALUES", _) => Ok(()),
        ("INSERT" | "UPDATE" | "DELETE" | "REPLACE", DbOp::Execute) => Ok(()),
        ("INSERT" | "UPDATE" | "DELETE" | "REPLACE", DbOp::Query) => Err(SqlError::ReadOnly),
        ("", _) => Err(SqlError::StatementRefused("there is no statement".to_owned())),
        (other, _) => Err(SqlError::StatementRefused(format!("`{other}` is not permitted"))),
    }
}

fn skip_blank(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else {
            return rest;
        }
    }
}

fn open(source: &Path, write: bool) -> Result<Connection, SqlError> {
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

fn confine(connection: &Connection, limits: &SqlLimits) -> rusqlite::Result<()> {
    let ceiling = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
    connection.busy_timeout(Duration::from_millis(BUSY_MS.min(limits.time_ms)))?;
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

/// What stopped a statement, told by the callbacks to the caller.
#[derive(Clone)]
struct Watch {
    cause: Arc<AtomicU8>,
    started: Instant,
    limits: SqlLimits,
}

const WRITE: u8 = 1;
const REFUSED: u8 = 2;
const TIME: u8 = 3;
const STEPS: u8 = 4;

impl Watch {
    fn new(limits: &SqlLimits) -> Self {
        Self { cause: Arc::default(), started: Instant::now(), limits: *limits }
    }

    fn late(&self) -> bool {
        self.started.elapsed() >= Duration::from_millis(self.limits.time_ms)
    }

    fn install(&self, connection: &mut Connection, op: DbOp) -> rusqlite::Result<()> {
        let cause = Arc::clone(&self.cause);
        connection.authorizer(Some(move |context: AuthContext<'_>| match judge(op, context.action) {
            None => Authorization::Allow,
            Some(why) => {
                cause.store(why, Ordering::Relaxed);
                Authorization::Deny
            }
        }))?;
        let watch = self.clone();
        let stride = self.limits.vm_steps.clamp(1, STEP_GRANULARITY);
        let taken = AtomicU64::new(0);
        let ticking = move || {
            let so_far = taken.fetch_add(stride, Ordering::Relaxed).saturating_add(stride);
            let why = if so_far >= watch.limits.vm_steps {
                STEPS
            } else if watch.late() {
                TIME
            } else {
                return false;
            };
            watch.cause.store(why, Ordering::Relaxed);
            true
        };
        connection.progress_handler(i32::try_from(stride).unwrap_or(1), Some(ticking))
    }

    fn remove(connection: &mut Connection) -> rusqlite::Result<()> {
        connection.progress_handler(0, None::<fn() -> bool>)?;
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other errors differ by their code only")]
    fn explain(&self, error: Error) -> SqlError {
        match self.cause.load(Ordering::Relaxed) {
            WRITE => return SqlError::ReadOnly,
            TIME => return SqlError::Limit { which: SqlLimit::Time },
            STEPS => return SqlError::Limit { which: SqlLimit::VmSteps },
            REFUSED => return SqlError::StatementRefused(error.to_string()),
            _ => {}
        }
        match error {
            Error::MultipleStatement => {
                SqlError::StatementRefused("there is more than one statement".to_owned())
            }
            Error::Empty => SqlError::StatementRefused("there is no statement".to_owned()),
            other => match other.sqlite_error_code() {
                Some(ErrorCode::TooBig) => SqlError::Limit { which: SqlLimit::Bytes },
                Some(ErrorCode::ReadOnly) => SqlError::ReadOnly,
                Some(ErrorCode::AuthorizationForStatementDenied) => {
                    SqlError::StatementRefused(other.to_string())
                }
                Some(_) | None => SqlError::Failed(other.to_string()),
            },
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list refuses everything else")]
/// `None` permits; an allow-list, so what a newer engine adds is refused.
fn judge(op: DbOp, action: AuthAction<'_>) -> Option<u8> {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => None,
        AuthAction::Function { function_name } if is_harmless(function_name) => None,
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => match op {
            DbOp::Query => Some(WRITE),
            DbOp::Execute if table_name.to_ascii_lowercase().starts_with("sqlite_") => Some(REFUSED),
            DbOp::Execute => None,
        },
        _ => Some(REFUSED),
    }
}

/// Functions that compute from their arguments, and the clock. What loads code, registers tokenizers or tells about
/// the build is left out.
const FUNCTIONS: &str = " abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling changes char coalesce concat \
    concat_ws cos cosh count cume_dist current_date current_time current_timestamp date datetime degrees dense_rank exp \
    first_value floor format glob group_concat hex highlight if ifnull iif instr json json_array json_array_length \
    json_each json_error_position json_extract json_group_array json_group_object json_insert json_object json_patch \
    json_pretty json_quote json_remove json_replace json_set json_tree json_type json_valid jsonb jsonb_array \
    jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace \
    jsonb_set julianday lag last_insert_rowid last_value lead length like likelihood likely ln log log10 log2 lower \
    ltrim match max median min mod nth_value ntile nullif octet_length percent_rank percentile percentile_cont \
    percentile_disc pi pow power printf quote radians random randomblob rank replace round row_number rtrim sign sin \
    sinh snippet soundex sqrt strftime string_agg substr substring sum tan tanh time timediff total total_changes trim \
    trunc typeof unhex unicode unistr unistr_quote unixepoch unlikely upper zeroblob -> ->> ";

fn is_harmless(function: &str) -> bool {
    FUNCTIONS.split_ascii_whitespace().any(|known| known.eq_ignore_ascii_case(function))
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

fn execute(
    connection: &Connection,
    statement: &str,
    params: &[SqlValue],
    limits: &SqlLimits,
    watch: &Watch,
) -> Result<SqlOutcome, SqlError> {
    let before = connection.total_changes();
    let mut prepared = connection.prepare(statement).map_err(|e| watch.explain(e))?;
    if prepared.parameter_count() != params.len() {
        let wanted = prepared.parameter_count();
        return Err(SqlError::Failed(format!("{wanted} parameters wanted, {} given", params.len())));
    }
    for (index, value) in params.iter().enumerate() {
        prepared.raw_bind_parameter(index.saturating_add(1), Bound(value)).map_err(|e| watch.explain(e))?;
    }
    let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
    let mut bytes = columns.iter().try_fold(0, |sum, name| charge(sum, name.len(), limits))?;
    let rows = fetch(&mut prepared.raw_query(), columns.len(), &mut bytes, limits, watch)?;
    let steps = u64::try_from(prepared.get_status(StatementStatus::VmStep)).unwrap_or(u64::MAX);
    let changed = connection.total_changes().saturating_sub(before);
    Ok(SqlOutcome { columns, rows, changed, bytes, steps })
}

fn fetch(
    cursor: &mut Rows<'_>,
    columns: usize,
    bytes: &mut u64,
    limits: &SqlLimits,
    watch: &Watch,
) -> Result<Vec<Vec<SqlValue>>, SqlError> {
    let mut rows: Vec<Vec<SqlValue>> = Vec::new();
    while let Some(row) = cursor.next().map_err(|e| watch.explain(e))? {
        if u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limits.rows {
            return Err(SqlError::Limit { which: SqlLimit::Rows });
        }
        if watch.late() {
            return Err(SqlError::Limit { which: SqlLimit::Time });
        }
        let mut values = Vec::with_capacity(columns);
        for index in 0..columns {
            let value = row.get_ref(index).map_err(|e| watch.explain(e))?;
            *bytes = charge(*bytes, weight(value), limits)?;
            values.push(owned(value)?);
        }
        rows.push(values);
    }
    Ok(rows)
}

fn charge(sum: u64, more: usize, limits: &SqlLimits) -> Result<u64, SqlError> {
    let total = sum.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
    if total > limits.bytes { Err(SqlError::Limit { which: SqlLimit::Bytes }) } else { Ok(total) }
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
