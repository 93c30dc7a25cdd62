//! Sessions: masks, transactions, results that are read piece by piece, and callers that go away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use govrun_verdict::{DbOp, Mask};
use rusqlite::Connection;

use super::{Session, SqlError, SqlLimit, SqlLimits, SqlOutcome, SqlValue};
use crate::sql::cursor::{Cursor, feed};

const LIMITS: SqlLimits = SqlLimits { rows: 10_000, bytes: 1 << 20, time_ms: 5_000, vm_steps: 50_000_000 };
const ENDLESS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c";

fn database() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, email TEXT, ssn TEXT UNIQUE);
         CREATE TABLE guesses(email TEXT); INSERT INTO guesses VALUES ('a@x'), ('zz');
         CREATE TABLE notes(body TEXT);
         CREATE VIEW cards AS SELECT name, email AS contact FROM users;
         CREATE INDEX by_email ON users(email);
         INSERT INTO users VALUES (1, 'ann', 'a@x', '111'), (2, 'bob', 'b@x', '222'); ANALYZE;",
    )
    .unwrap();
    (dir, path)
}

fn masked() -> Mask {
    Mask::new(["users.email", "*.SSN"])
}

fn ask(path: &Path, sql: &str, mask: &Mask) -> Result<SqlOutcome, SqlError> {
    Session::open(path, false)?.run(DbOp::Query, sql, &[], mask, &LIMITS)
}

fn shown(outcome: &SqlOutcome) -> String {
    format!("{:?}", outcome.rows)
}

#[test]
fn a_masked_column_is_null_wherever_a_query_uses_it() {
    let (_dir, path) = database();
    for sql in [
        "SELECT * FROM users",
        "SELECT email, ssn FROM users",
        "SELECT u.EMAIL AS harmless FROM users u",
        "SELECT upper(email) || 'x' FROM users",
        "SELECT (SELECT email FROM users LIMIT 1)",
        "SELECT contact FROM cards",
        "WITH x(y) AS (SELECT email FROM users) SELECT y FROM x",
        "SELECT group_concat(email) FROM users",
        "SELECT max(ssn) FROM users",
        "SELECT quote(email), hex(ssn), length(email) FROM users",
        "SELECT json_object('e', email) FROM users",
        "SELECT \"email\" FROM users",
        "SELECT [email] FROM users",
        "SELECT main.users.email FROM main.users",
        "SELECT email FROM (SELECT * FROM users)",
        "SELECT CASE WHEN email = 'a@x' THEN 'a' || '@x' ELSE 'no' END FROM users",
        "SELECT email FROM users UNION SELECT ssn FROM users",
        "SELECT first_value(email) OVER (ORDER BY id) FROM users",
    ] {
        let plain = shown(&ask(&path, sql, &Mask::default()).unwrap());
        let hidden = shown(&ask(&path, sql, &masked()).unwrap());
        assert!(
            ["a@x", "111", "A@X", "222", "363131", "Integer(3)"].iter().any(|v| plain.contains(v)),
            "{sql}: {plain}"
        );
        for value in ["a@x", "b@x", "111", "222", "A@X", "363131", "313131", "Integer(3)"] {
            assert!(!hidden.contains(value), "{sql}: {hidden}");
        }
    }
    let all = ask(&path, "SELECT * FROM users", &masked()).unwrap();
    let ann = [SqlValue::Integer(1), SqlValue::Text("ann".into()), SqlValue::Null, SqlValue::Null];
    assert_eq!(all.rows[0], ann, "the other columns are what they were");
}

#[test]
fn conditions_on_a_masked_column_tell_nothing() {
    let (_dir, path) = database();
    for sql in [
        "SELECT id FROM users WHERE email LIKE 'a%'",
        "SELECT id FROM users WHERE ssn = '111'",
        "SELECT u.id FROM users u JOIN guesses g ON u.email = g.email",
        "SELECT id FROM users WHERE email IN (SELECT email FROM guesses)",
        "SELECT email FROM guesses WHERE EXISTS (SELECT 1 FROM users u WHERE u.email = guesses.email)",
        "SELECT name FROM cards WHERE contact = 'a@x'",
    ] {
        assert_ne!(ask(&path, sql, &Mask::default()).unwrap().rows.len(), 0, "{sql}");
        assert_eq!(ask(&path, sql, &masked()).unwrap().rows.len(), 0, "{sql}");
    }
    let by = |mask| shown(&ask(&path, "SELECT id FROM users ORDER BY email DESC", mask).unwrap());
    assert_ne!(by(&Mask::default()), by(&masked()), "the order tells nothing either");
    for sql in [
        "SELECT id FROM users JOIN guesses USING (email)",
        "SELECT id FROM users NATURAL JOIN guesses",
        "SELECT * FROM sqlite_stat1",
        "SELECT id FROM users JOIN guesses uSiNg/**/(email)",
    ] {
        assert!(ask(&path, sql, &Mask::default()).is_ok(), "{sql}");
        assert!(matches!(ask(&path, sql, &masked()), Err(SqlError::Masked(_))), "{sql}");
    }
}

#[test]
fn a_masked_value_cannot_be_written_elsewhere() {
    let (_dir, path) = database();
    let mut session = Session::open(&path, true).unwrap();
    for sql in [
        "INSERT INTO notes SELECT email FROM users",
        "UPDATE users SET name = email",
        "UPDATE users SET email = email || 'x'",
        "DELETE FROM users WHERE ssn LIKE '1%'",
        "UPDATE users SET name = 'x' RETURNING email",
        "INSERT INTO users(id, ssn) VALUES (3, '333') RETURNING ssn",
    ] {
        let refused = session.run(DbOp::Execute, sql, &[], &masked(), &LIMITS);
        assert!(matches!(refused, Err(SqlError::Masked(_))), "{sql}: {refused:?}");
    }
    let set =
        session.run(DbOp::Execute, "UPDATE users SET email = 'c@x' WHERE id = 1", &[], &masked(), &LIMITS);
    assert_eq!(set.unwrap().changed, 1, "setting it tells nothing");
    let rest = ask(&path, "SELECT count(*) FROM notes", &Mask::default()).unwrap();
    assert_eq!(shown(&rest), "[[Integer(0)]]");
}

#[test]
fn a_mask_holds_for_statements_that_were_compiled_without_it() {
    let (_dir, path) = database();
    let mut session = Session::open(&path, false).unwrap();
    let mut ask = |mask: &Mask| {
        shown(&session.run(DbOp::Query, "SELECT email FROM users", &[], mask, &LIMITS).unwrap())
    };
    assert!(ask(&Mask::default()).contains("a@x"));
    assert!(!ask(&masked()).contains("a@x"));
    assert!(ask(&Mask::default()).contains("a@x"));
}

#[test]
fn a_statement_that_was_compiled_to_write_does_not_run_as_a_query() {
    let (_dir, path) = database();
    let mut session = Session::open(&path, true).unwrap();
    session.begin().unwrap();
    let sql = "INSERT INTO notes VALUES ('x') RETURNING body";
    assert_eq!(session.run(DbOp::Execute, sql, &[], &Mask::default(), &LIMITS).unwrap().changed, 1);
    assert_eq!(session.run(DbOp::Query, sql, &[], &Mask::default(), &LIMITS), Err(SqlError::ReadOnly));
    let hidden = "WITH a AS (SELECT 1) INSERT INTO notes SELECT 'y' FROM a";
    assert_eq!(session.run(DbOp::Execute, hidden, &[], &Mask::default(), &LIMITS).unwrap().changed, 1);
    assert_eq!(session.run(DbOp::Query, hidden, &[], &Mask::default(), &LIMITS), Err(SqlError::ReadOnly));
}

fn count(path: &Path) -> String {
    shown(&ask(path, "SELECT count(*) FROM notes", &Mask::default()).unwrap())
}

fn note(session: &mut Session) -> Result<SqlOutcome, SqlError> {
    session.run(DbOp::Execute, "INSERT INTO notes VALUES ('x')", &[], &Mask::default(), &LIMITS)
}

#[test]
fn a_transaction_is_kept_or_undone_as_a_whole() {
    let (_dir, path) = database();
    let begun = || {
        let mut session = Session::open(&path, true).unwrap();
        session.begin().unwrap();
        note(&mut session).unwrap();
        note(&mut session).unwrap();
        session
    };
    drop(begun());
    begun().end(false).unwrap();
    assert_eq!(count(&path), "[[Integer(0)]]");
    begun().end(true).unwrap();
    assert_eq!(count(&path), "[[Integer(2)]]");
    for sql in
        ["COMMIT", "ROLLBACK", "BEGIN", "SAVEPOINT a", "RELEASE own", "ROLLBACK TO own", "COMMIT; SELECT 1"]
    {
        let mut session = begun();
        for op in [DbOp::Query, DbOp::Execute] {
            let refused = session.run(op, sql, &[], &Mask::default(), &LIMITS);
            assert!(matches!(refused, Err(SqlError::StatementRefused(_))), "{sql}: {refused:?}");
        }
    }
    assert_eq!(count(&path), "[[Integer(2)]]");
}

#[test]
fn what_follows_a_transaction_that_broke_does_not_run_by_itself() {
    let (_dir, path) = database();
    let mut session = Session::open(&path, true).unwrap();
    session.begin().unwrap();
    note(&mut session).unwrap();
    let long =
        "INSERT INTO notes WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c";
    let short = SqlLimits { vm_steps: 50_000, ..LIMITS };
    let cut = session.run(DbOp::Execute, long, &[], &Mask::default(), &short);
    assert_eq!(cut, Err(SqlError::Limit { which: SqlLimit::VmSteps }));
    assert!(matches!(note(&mut session), Err(SqlError::Failed(_))), "the transaction is over");
    assert!(session.end(true).is_err());
    assert_eq!(count(&path), "[[Integer(0)]]");
}

#[test]
fn a_failed_statement_leaves_the_rest_of_its_transaction() {
    let (_dir, path) = database();
    let mut session = Session::open(&path, true).unwrap();
    session.begin().unwrap();
    note(&mut session).unwrap();
    let twice = "INSERT INTO users(id, name) VALUES (7, 'g'), (1, 'again')";
    assert!(session.run(DbOp::Execute, twice, &[], &Mask::default(), &LIMITS).is_err());
    note(&mut session).unwrap();
    session.end(true).unwrap();
    assert_eq!(count(&path), "[[Integer(2)]]");
    let seven = ask(&path, "SELECT * FROM users WHERE id = 7", &Mask::default()).unwrap();
    assert_eq!(seven.rows.len(), 0, "nothing of the failed statement stays");
}

fn stream(path: &Path, sql: &str, limits: SqlLimits) -> Result<Cursor, SqlError> {
    let session = Session::open(path, false).unwrap();
    let (sender, events) = feed();
    let sql = sql.to_owned();
    std::thread::spawn(move || session.stream(&sql, &[], &Mask::default(), &limits, sender));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(Cursor::open(events))
}

fn all(cursor: &mut Cursor, most: usize) -> Result<usize, SqlError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut sum = 0;
    loop {
        let rows = runtime.block_on(cursor.next(most))?;
        if rows.is_empty() {
            return Ok(sum);
        }
        assert!(rows.len() <= most.max(1));
        sum += rows.len();
    }
}

const NUMBERS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 5000) SELECT x AS n FROM c";

#[test]
fn a_result_is_read_piece_by_piece_within_its_limits() {
    let (_dir, path) = database();
    for most in [0, 1, 7, 64, 1000] {
        let mut cursor = stream(&path, NUMBERS, LIMITS).unwrap();
        assert_eq!(cursor.columns(), ["n"]);
        assert_eq!(all(&mut cursor, most), Ok(5000));
        assert_eq!(all(&mut cursor, most), Ok(0), "the end stays the end");
    }
    let mut short = stream(&path, NUMBERS, SqlLimits { rows: 100, ..LIMITS }).unwrap();
    assert_eq!(all(&mut short, 10), Err(SqlError::Limit { which: SqlLimit::Rows }));
    let mut small = stream(&path, NUMBERS, SqlLimits { bytes: 801, ..LIMITS }).unwrap();
    assert_eq!(all(&mut small, 10), Err(SqlError::Limit { which: SqlLimit::Bytes }));
    assert_eq!(stream(&path, "DELETE FROM notes", LIMITS).err(), Some(SqlError::ReadOnly));
    let mut endless = stream(&path, ENDLESS, SqlLimits { time_ms: 100, ..LIMITS }).unwrap();
    assert_eq!(all(&mut endless, 10), Err(SqlError::Limit { which: SqlLimit::Time }));
}

#[test]
fn a_slow_reader_does_not_outlast_the_time_of_the_statement() {
    let (_dir, path) = database();
    let mut cursor = stream(&path, NUMBERS, SqlLimits { time_ms: 100, ..LIMITS }).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(all(&mut cursor, 10), Err(SqlError::Limit { which: SqlLimit::Time }));
}

#[test]
fn a_statement_whose_caller_went_away_ends_and_changes_nothing() {
    let (_dir, path) = database();
    let mut session = Session::open(&path, true).unwrap();
    let guard = session.guard();
    let long =
        "INSERT INTO notes WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c";
    let limits = SqlLimits { time_ms: 60_000, vm_steps: u64::MAX, ..LIMITS };
    let started = Instant::now();
    let work = std::thread::spawn(move || session.run(DbOp::Execute, long, &[], &Mask::default(), &limits));
    std::thread::sleep(Duration::from_millis(50));
    drop(guard);
    assert!(work.join().unwrap().is_err());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(count(&path), "[[Integer(0)]]");
}
