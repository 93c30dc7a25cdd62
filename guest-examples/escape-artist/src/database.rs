//! Statements that leave the database, change it through a query, or never end.

use crate::govrun::host::db::{Connection, Rows, Value};
use crate::govrun::host::types::Error;
use crate::outcome::{Attempt, Outcome, describe};

pub(crate) const ATTEMPTS: &[Attempt] = &[
    ("db-attach", attach),
    ("db-vacuum-into", || either("VACUUM INTO '/tmp/copy.db'")),
    ("db-writable-schema", || either("PRAGMA writable_schema=1")),
    ("db-schema-write", || either("DELETE FROM sqlite_master")),
    ("db-load-extension", load_extension),
    ("db-two-statements", two_statements),
    ("db-update-in-query", || query("UPDATE sales SET amount = 0")),
    ("db-update-in-cte", || query("WITH x AS (SELECT 1) UPDATE sales SET amount = 0 RETURNING amount")),
    ("db-update-behind-comment", || query("/* SELECT */ DELETE FROM sales -- SELECT")),
    ("db-transaction", || either("BEGIN EXCLUSIVE")),
    ("db-read-file", || either("SELECT readfile('/etc/passwd')")),
    ("db-endless", endless),
    ("db-huge-blob", huge_blob),
    ("db-many-rows", many_rows),
    ("db-label-path", label_path),
];

fn query(sql: &str) -> Outcome {
    refused(sql, Connection::new("sales").query(sql, &[]))
}

fn execute(sql: &str) -> Outcome {
    refused(sql, Connection::new("sales").execute(sql, &[]))
}

fn either(sql: &str) -> Outcome {
    Outcome::any([query(sql), execute(sql)])
}

fn refused<T>(what: &str, result: Result<T, Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::escaped(format!("{what}: succeeded")),
        Err(error) => Outcome::held(format!("{what}: {}", describe(error))),
    }
}

/// That the file is no database is known only to a host that opened it.
fn attach() -> Outcome {
    betrayed_by(&["not a database"], either("ATTACH DATABASE '/etc/passwd' AS x"))
}

/// An error of the dynamic loader means that the host looked for the file.
fn load_extension() -> Outcome {
    let signs = ["cannot open shared object", "No such file"];
    betrayed_by(&signs, either("SELECT load_extension('/tmp/extension.so')"))
}

/// A failure whose words show that the host went further than it should.
fn betrayed_by(signs: &[&str], outcome: Outcome) -> Outcome {
    let betrayed = signs.iter().any(|sign| outcome.detail.contains(sign));
    Outcome { escaped: outcome.escaped || betrayed, detail: outcome.detail }
}

/// The answer to the first statement alone is no escape; a table that is gone is.
fn two_statements() -> Outcome {
    let there = || Connection::new("sales").query("SELECT count(*) FROM sales", &[]).is_ok();
    let before = there();
    let both = "SELECT 1; DROP TABLE sales";
    let tried = [
        Connection::new("sales").query(both, &[]).map(|_| "answered").map_err(describe),
        Connection::new("sales").execute(both, &[]).map(|_| "answered").map_err(describe),
    ];
    let detail = format!("{tried:?}");
    if before && !there() {
        Outcome::changed(format!("the table is gone: {detail}"))
    } else {
        Outcome::held(detail)
    }
}

fn endless() -> Outcome {
    query("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c")
}

/// The most bytes or rows that an honest cap lets through.
const CAP: usize = 64 << 20;

fn huge_blob() -> Outcome {
    bounded("SELECT zeroblob(1000000000)", |rows| match rows.rows.first().map(Vec::as_slice) {
        Some([Value::Blob(bytes)]) => bytes.len(),
        _ => 0,
    })
}

fn many_rows() -> Outcome {
    let sql =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100000000) SELECT x FROM c";
    bounded(sql, |rows| rows.rows.len())
}

fn bounded(sql: &str, measure: impl FnOnce(&Rows) -> usize) -> Outcome {
    match Connection::new("sales").query(sql, &[]) {
        Ok(rows) => {
            let got = measure(&rows);
            let detail = format!("got {got}");
            if got > CAP { Outcome::escaped(detail) } else { Outcome::held(detail) }
        }
        Err(error) => Outcome::held(describe(error)),
    }
}

/// A label is a name of an offer, never a path.
fn label_path() -> Outcome {
    Outcome::any(
        ["../../etc/passwd", "/etc/passwd", "file:sales?mode=rw", ":memory:", "", "sales\0x"]
            .map(|label| refused(&format!("label {label:?}"), Connection::new(label).query("SELECT 1", &[]))),
    )
}
