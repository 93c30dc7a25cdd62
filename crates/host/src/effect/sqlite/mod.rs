//! SQL statements on one SQLite file. The engine enforces what was decided (open flags, authorizer, limits); the
//! text of the statement is only looked at to refuse early.

mod copy;
mod session;
mod watch;

use std::path::Path;

use govrun_verdict::{DbOp, Mask};

pub use self::copy::{COPY_DEADLINE, copy_database};
pub use self::session::Session;
pub(crate) use self::watch::Abandon;
pub use crate::sql::{
    MAX_COLUMNS, MAX_PARAMETERS, MAX_STATEMENT_BYTES, MAX_VALUE_BYTES, SqlError, SqlLimit, SqlLimits,
    SqlOutcome, SqlValue,
};
use crate::sql::{first_word, has_word};

/// Longest wait for a lock of another process, in milliseconds; never longer than the statement's own time.
pub const BUSY_MS: u64 = 250;

/// Runs one statement on the existing database file `source` (an absolute path) in a session of its own. Blocks the
/// thread for at most about `limits.time_ms`.
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
    if op == DbOp::Execute && !writable {
        return Err(SqlError::ReadOnly);
    }
    let mut session = Session::open(source, op == DbOp::Execute)?;
    session.run(op, statement, params, &Mask::default(), limits)
}

/// Names every statement kind that may reach the engine; the engine refuses those that hide behind `WITH`.
fn check_words(op: DbOp, statement: &str, mask: &Mask) -> Result<(), SqlError> {
    match (first_word(statement).as_str(), op) {
        ("SELECT" | "WITH" | "VALUES", _) | ("INSERT" | "UPDATE" | "DELETE" | "REPLACE", DbOp::Execute) => {}
        ("INSERT" | "UPDATE" | "DELETE" | "REPLACE", DbOp::Query) => return Err(SqlError::ReadOnly),
        ("", _) => return Err(SqlError::StatementRefused("there is no statement".to_owned())),
        (other, _) => return Err(SqlError::StatementRefused(format!("`{other}` is not permitted"))),
    }
    // The engine does not ask the authorizer about columns that these compare.
    let unasked = ["natural", "using"].into_iter().find(|word| has_word(statement, word));
    match unasked {
        Some(word) if !mask.is_empty() => {
            Err(SqlError::Masked(format!("`{word}` is not permitted beside a mask")))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_session;
