//! What holds a statement to its decision while the engine prepares and runs it: the authorizer and the progress
//! handler, and what they tell of why they stopped it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use govrun_verdict::{DbOp, Mask};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, Error, ErrorCode};

use crate::sql::{SqlError, SqlLimit, SqlLimits};

/// The engine asks whether to go on at least this often, in steps of its virtual machine.
const STEP_GRANULARITY: u64 = 1000;

const WRITE: u8 = 1;
const REFUSED: u8 = 2;
const TIME: u8 = 3;
const STEPS: u8 = 4;
const MASKED: u8 = 5;

/// Shared by a session and the callbacks of its connection.
#[derive(Debug)]
pub(super) struct Watch {
    cause: AtomicU8,
    /// The host's own statement runs: `BEGIN`, `COMMIT`, a savepoint.
    own: AtomicBool,
    /// The statement that runs may write.
    writes: AtomicBool,
    /// Nobody waits for the result any more.
    abandoned: AtomicBool,
    born: Instant,
    late_at_us: AtomicU64,
    steps: AtomicU64,
    max_steps: AtomicU64,
}

/// Ends the session's statement soon when it is dropped, unless somebody took the result: a caller that went away must
/// not leave an engine at work.
pub(crate) struct Abandon(Option<Arc<Watch>>);

impl Abandon {
    pub(crate) fn taken(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(watch) = &self.0 {
            watch.abandoned.store(true, Ordering::Relaxed);
        }
    }
}

impl Watch {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            cause: AtomicU8::new(0),
            own: AtomicBool::new(false),
            writes: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            born: Instant::now(),
            late_at_us: AtomicU64::new(u64::MAX),
            steps: AtomicU64::new(0),
            max_steps: AtomicU64::new(u64::MAX),
        })
    }

    pub(super) fn guard(self: &Arc<Self>) -> Abandon {
        Abandon(Some(Arc::clone(self)))
    }

    /// A statement starts now, with these limits.
    pub(super) fn start(&self, op: DbOp, limits: &SqlLimits) {
        self.cause.store(0, Ordering::Relaxed);
        self.steps.store(0, Ordering::Relaxed);
        self.max_steps.store(limits.vm_steps, Ordering::Relaxed);
        self.writes.store(op == DbOp::Execute, Ordering::Relaxed);
        let end = self.born.elapsed().saturating_add(Duration::from_millis(limits.time_ms));
        self.late_at_us.store(u64::try_from(end.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn late(&self) -> bool {
        let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.abandoned.load(Ordering::Relaxed) || now >= self.late_at_us.load(Ordering::Relaxed)
    }

    /// Run one of the host's own statements.
    pub(super) fn own(&self, connection: &Connection, sql: &str) -> rusqlite::Result<()> {
        self.own.store(true, Ordering::Relaxed);
        let done = connection.execute_batch(sql);
        self.own.store(false, Ordering::Relaxed);
        done
    }

    /// Install the authorizer. Statements that were prepared under another one are prepared anew by the engine.
    pub(super) fn authorize(
        self: &Arc<Self>,
        connection: &mut Connection,
        mask: &Mask,
    ) -> rusqlite::Result<()> {
        let (watch, mask) = (Arc::clone(self), mask.clone());
        connection.authorizer(Some(move |context: AuthContext<'_>| watch.judge(context.action, &mask)))
    }

    /// Install the progress handler for a statement with this many steps; returns how many are between two calls.
    pub(super) fn count(self: &Arc<Self>, connection: &mut Connection, steps: u64) -> rusqlite::Result<u64> {
        let stride = steps.clamp(1, STEP_GRANULARITY);
        let watch = Arc::clone(self);
        connection
            .progress_handler(i32::try_from(stride).unwrap_or(1), Some(move || watch.stops(stride)))
            .map(|()| stride)
    }

    fn stops(&self, stride: u64) -> bool {
        let so_far = self.steps.fetch_add(stride, Ordering::Relaxed).saturating_add(stride);
        let why = if so_far >= self.max_steps.load(Ordering::Relaxed) {
            STEPS
        } else if self.late() {
            TIME
        } else {
            return false;
        };
        // The host's own statement is not stopped half way: it ends what the other one began.
        if self.own.load(Ordering::Relaxed) {
            return false;
        }
        self.cause.store(why, Ordering::Relaxed);
        true
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an allow-list refuses everything else")]
    /// An allow-list, so what a newer engine adds is refused.
    fn judge(&self, action: AuthAction<'_>, mask: &Mask) -> Authorization {
        let writes = self.writes.load(Ordering::Relaxed);
        match action {
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. }
                if self.own.load(Ordering::Relaxed) =>
            {
                Authorization::Allow
            }
            AuthAction::Read { table_name, column_name } => self.read(table_name, column_name, writes, mask),
            AuthAction::Select | AuthAction::Recursive => Authorization::Allow,
            AuthAction::Function { function_name } if is_harmless(function_name) => Authorization::Allow,
            AuthAction::Insert { table_name }
            | AuthAction::Delete { table_name }
            | AuthAction::Update { table_name, .. } => {
                if !writes {
                    self.deny(WRITE)
                } else if table_name.to_ascii_lowercase().starts_with("sqlite_") {
                    self.deny(REFUSED)
                } else {
                    Authorization::Allow
                }
            }
            _ => self.deny(REFUSED),
        }
    }

    /// A masked column is NULL wherever a query uses it: in the result, in conditions, in what is computed from it. A
    /// writing statement would store that NULL somewhere, so it is refused.
    fn read(&self, table: &str, column: &str, writes: bool, mask: &Mask) -> Authorization {
        if mask.is_empty() {
            return Authorization::Allow;
        }
        // The engine's own statistics hold samples of values.
        let statistics = table.to_ascii_lowercase().starts_with("sqlite_stat");
        if !statistics && !mask.hides(table, column) {
            return Authorization::Allow;
        }
        if writes || statistics { self.deny(MASKED) } else { Authorization::Ignore }
    }

    fn deny(&self, why: u8) -> Authorization {
        self.cause.store(why, Ordering::Relaxed);
        Authorization::Deny
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other errors differ by their code only")]
    pub(super) fn explain(&self, error: Error) -> SqlError {
        match self.cause.load(Ordering::Relaxed) {
            WRITE => return SqlError::ReadOnly,
            TIME => return SqlError::Limit { which: SqlLimit::Time },
            STEPS => return SqlError::Limit { which: SqlLimit::VmSteps },
            REFUSED => return SqlError::StatementRefused(error.to_string()),
            MASKED => return SqlError::Masked(error.to_string()),
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
