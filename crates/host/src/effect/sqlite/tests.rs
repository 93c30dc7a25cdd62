//! Hostile statements against real files.

use std::path::{Path, PathBuf};
use std::time::Instant;

use govrun_verdict::DbOp;
use rusqlite::Connection;

use super::{SqlError, SqlLimit, SqlLimits, SqlOutcome, SqlValue, copy_database, run};

const LIMITS: SqlLimits = SqlLimits { rows: 1000, bytes: 1 << 20, time_ms: 2000, vm_steps: 5_000_000 };

fn database() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t(v) VALUES (1),(2),(3);
         CREATE TABLE log(n); CREATE TRIGGER tr AFTER DELETE ON t BEGIN INSERT INTO log VALUES (old.id); END;",
    )
    .unwrap();
    (dir, path)
}

fn query(path: &Path, sql: &str) -> Result<SqlOutcome, SqlError> {
    run(DbOp::Query, path, sql, &[], false, &LIMITS)
}

fn execute(path: &Path, sql: &str) -> Result<SqlOutcome, SqlError> {
    run(DbOp::Execute, path, sql, &[], true, &LIMITS)
}

fn digest(path: &Path) -> blake3::Hash {
    blake3::hash(&std::fs::read(path).unwrap())
}

const LOOP: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c";

#[test]
fn hostile_queries_are_refused_and_leave_the_file_alone() {
    let (dir, path) = database();
    let before = digest(&path);
    let other = dir.path().join("other.db");
    let refused = [
        format!("ATTACH '{}' AS o", other.display()),
        format!("VACUUM INTO '{}'", other.display()),
        "VACUUM".into(),
        "PRAGMA user_version = 7".into(),
        "PRAGMA query_only = 0".into(),
        "SELECT * FROM pragma_database_list".into(),
        "SELECT load_extension('/tmp/x.so')".into(),
        "SELECT fts3_tokenizer('simple')".into(),
        "SELECT sqlite_version()".into(),
        "SELECT 1; SELECT 2".into(),
        "SELECT 1; ATTACH 'x' AS y".into(),
        "BEGIN".into(),
        "SAVEPOINT s".into(),
        "CREATE TABLE x(y)".into(),
        "CREATE TEMP TABLE x(y)".into(),
        "DROP TABLE t".into(),
        "ALTER TABLE t ADD z".into(),
        "REINDEX".into(),
        "ANALYZE".into(),
        "DETACH main".into(),
        "EXPLAIN SELECT 1".into(),
        "-- nothing".into(),
        " ; ".into(),
    ];
    for sql in &refused {
        for result in [query(&path, sql), execute(&path, sql)] {
            assert!(matches!(result, Err(SqlError::StatementRefused(_))), "{sql}: {result:?}");
        }
    }
    for sql in [
        "UPDATE t SET v = 9",
        "/* x */ -- y\n DELETE FROM t",
        "INSERT INTO t(v) VALUES (1) RETURNING id",
        "WITH a AS (SELECT 1) DELETE FROM t",
        "WITH a AS (SELECT 1) INSERT INTO t(v) SELECT * FROM a",
    ] {
        assert_eq!(query(&path, sql), Err(SqlError::ReadOnly), "{sql}");
        let shut = run(DbOp::Execute, &path, sql, &[], false, &LIMITS);
        assert_eq!(shut, Err(SqlError::ReadOnly), "{sql}");
    }
    assert_eq!(query(&path, "SELECT 1; DELETE FROM t"), Err(SqlError::ReadOnly));
    let two = execute(&path, "SELECT 1; DELETE FROM t");
    assert!(matches!(two, Err(SqlError::StatementRefused(_))), "{two:?}");
    let own = execute(&path, "DELETE FROM sqlite_sequence");
    assert!(matches!(own, Err(SqlError::StatementRefused(_))), "{own:?}");
    assert!(matches!(execute(&path, "UPDATE sqlite_schema SET sql = ''"), Err(SqlError::Failed(_))));
    assert!(matches!(execute(&path, "DELETE FROM SQLITE_master"), Err(SqlError::Failed(_))));
    assert!(!other.exists());
    assert_eq!(digest(&path), before);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["a.db"]);
}

#[test]
fn trailing_blanks_and_comments_are_no_second_statement() {
    let (_dir, path) = database();
    for sql in ["SELECT 1;", " SELECT 1 ; -- done", "/* a */ SELECT 1 /* b */", "VALUES (1)"] {
        assert_eq!(query(&path, sql).unwrap().rows, [[SqlValue::Integer(1)]], "{sql}");
    }
}

fn limit(path: &Path, sql: &str, limits: SqlLimits) -> SqlLimit {
    match run(DbOp::Query, path, sql, &[], false, &limits) {
        Err(SqlError::Limit { which }) => which,
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn every_limit_stops_its_statement() {
    let (_dir, path) = database();
    assert_eq!(limit(&path, LOOP, SqlLimits { vm_steps: 50_000, ..LIMITS }), SqlLimit::VmSteps);
    let started = Instant::now();
    let timed = SqlLimits { time_ms: 50, vm_steps: u64::MAX, ..LIMITS };
    assert_eq!(limit(&path, LOOP, timed), SqlLimit::Time);
    assert!(started.elapsed().as_millis() < 1000);
    assert_eq!(limit(&path, "SELECT zeroblob(1000000000)", LIMITS), SqlLimit::Bytes);
    assert_eq!(limit(&path, "SELECT zeroblob(500000)", SqlLimits { bytes: 1000, ..LIMITS }), SqlLimit::Bytes);
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c";
    assert_eq!(limit(&path, endless, LIMITS), SqlLimit::Rows);
    assert_eq!(limit(&path, endless, SqlLimits { rows: u64::MAX, bytes: 100, ..LIMITS }), SqlLimit::Bytes);
    assert_eq!(limit(&path, "SELECT v FROM t", SqlLimits { rows: 2, ..LIMITS }), SqlLimit::Rows);
    assert_eq!(query(&path, "SELECT v FROM t").unwrap().rows.len(), 3);
    let long = format!("SELECT '{}'", "x".repeat(70_000));
    assert_eq!(limit(&path, &long, LIMITS), SqlLimit::Statement);
}

#[test]
fn the_row_limit_is_exact() {
    let (_dir, path) = database();
    let exact = SqlLimits { rows: 3, bytes: 1 + 3 * 8, ..LIMITS };
    let outcome = run(DbOp::Query, &path, "SELECT v FROM t", &[], false, &exact).unwrap();
    assert_eq!((outcome.rows.len(), outcome.bytes), (3, 25));
    assert!(outcome.steps > 3);
}

#[test]
fn a_write_is_whole_or_nothing() {
    let (_dir, path) = database();
    let outcome = execute(&path, "DELETE FROM t WHERE id = 1").unwrap();
    assert_eq!(outcome.changed, 2, "the trigger's row counts");
    let count = || query(&path, "SELECT count(*) FROM t").unwrap().rows;
    assert_eq!(count(), [[SqlValue::Integer(2)]]);
    let one = SqlLimits { rows: 1, ..LIMITS };
    let result = run(DbOp::Execute, &path, "DELETE FROM t RETURNING id", &[], true, &one);
    assert_eq!(result, Err(SqlError::Limit { which: SqlLimit::Rows }));
    assert_eq!(count(), [[SqlValue::Integer(2)]]);
    let grow =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) INSERT INTO t(v) SELECT x FROM c";
    let steps = SqlLimits { vm_steps: 100_000, ..LIMITS };
    let result = run(DbOp::Execute, &path, grow, &[], true, &steps);
    assert_eq!(result, Err(SqlError::Limit { which: SqlLimit::VmSteps }));
    assert_eq!(count(), [[SqlValue::Integer(2)]]);
}

#[test]
fn values_come_back_as_they_went_in() {
    let (_dir, path) = database();
    let values = [
        SqlValue::Null,
        SqlValue::Integer(i64::MIN),
        SqlValue::Real(-0.1),
        SqlValue::Text("zażółć 🦀 \0 '; --".into()),
        SqlValue::Blob(vec![0, 255, 10]),
    ];
    for value in values {
        let params = [value.clone()];
        let insert = "INSERT INTO t(v) VALUES (?) RETURNING v";
        let put = run(DbOp::Execute, &path, insert, &params, true, &LIMITS).unwrap();
        assert_eq!(put.rows, vec![params.to_vec()]);
        assert_eq!(put.changed, 1);
        let last = query(&path, "SELECT v FROM t ORDER BY id DESC LIMIT 1").unwrap();
        assert_eq!((last.columns, last.rows), (vec!["v".to_owned()], vec![params.to_vec()]));
    }
    let wrong = run(DbOp::Query, &path, "SELECT ?1, ?2", &[SqlValue::Null], false, &LIMITS);
    assert!(matches!(wrong, Err(SqlError::Failed(_))));
}

#[test]
fn a_missing_database_is_never_created() {
    let (dir, _path) = database();
    let none = dir.path().join("none.db");
    for op in [DbOp::Query, DbOp::Execute] {
        let result = run(op, &none, "SELECT 1", &[], true, &LIMITS);
        assert!(matches!(result, Err(SqlError::Failed(_))));
        let relative = Path::new("file:none.db?mode=rwc");
        assert!(matches!(run(op, relative, "SELECT 1", &[], true, &LIMITS), Err(SqlError::Failed(_))));
    }
    assert!(!none.exists());
    assert!(matches!(query(dir.path(), "SELECT 1"), Err(SqlError::Failed(_))));
}

#[test]
fn a_copy_has_the_log_and_shares_nothing() {
    let (dir, path) = database();
    let writer = Connection::open(&path).unwrap();
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    writer.execute("INSERT INTO t(v) VALUES ('in the log')", []).unwrap();
    let copy = dir.path().join("copy.db");
    let size = copy_database(&path, &copy, 1 << 20).unwrap();
    assert_eq!(size, std::fs::metadata(&copy).unwrap().len());
    let before = digest(&path);
    execute(&copy, "DELETE FROM t").unwrap();
    assert_eq!(digest(&path), before);
    assert_eq!(query(&path, "SELECT count(*) FROM t").unwrap().rows, [[SqlValue::Integer(4)]]);
    assert_eq!(query(&copy, "SELECT count(*) FROM t").unwrap().rows, [[SqlValue::Integer(0)]]);
    assert!(matches!(copy_database(&path, &copy, 1 << 20), Err(SqlError::Failed(_))), "never overwrites");
    let small = dir.path().join("small.db");
    assert_eq!(copy_database(&path, &small, 100), Err(SqlError::Limit { which: SqlLimit::Bytes }));
    assert!(!small.exists());
}
