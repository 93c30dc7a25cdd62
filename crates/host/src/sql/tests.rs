//! What is said of a statement, and above all what is not.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Dialect, classify};

fn facts(dialect: Dialect, sql: &str) -> String {
    match classify(dialect, sql) {
        None => "unknown".to_owned(),
        Some(f) => format!(
            "{} t={} c={} f={}",
            f.class,
            f.tables.join(","),
            f.columns.join(","),
            f.functions.join(",")
        ),
    }
}

fn both(sql: &str) -> String {
    let (lite, pg) = (facts(Dialect::Sqlite, sql), facts(Dialect::Postgres, sql));
    assert_eq!(lite, pg, "{sql}");
    lite
}

#[test]
fn a_statement_says_what_it_names() {
    for (sql, expected) in [
        ("SELECT 1", "select t= c= f="),
        ("select Name, upper(City) from Users u where u.AGE > 3", "select t=users c=age,city,name f=upper"),
        ("SELECT * FROM a JOIN b ON a.x = b.y", "select t=a,b c=*,x,y f="),
        ("SELECT a.* FROM a, b", "select t=a,b c=* f="),
        ("SELECT x FROM a JOIN b USING (k)", "select t=a,b c=k,x f="),
        ("SELECT x FROM a NATURAL JOIN b", "select t=a,b c=*,x f="),
        ("SELECT count(*) FROM a", "select t=a c= f=count"),
        ("SELECT x FROM a UNION ALL SELECT y FROM b", "select t=a,b c=x,y f="),
        (
            "SELECT x FROM a WHERE EXISTS (SELECT 1 FROM b WHERE k IN (SELECT z FROM c))",
            "select t=a,b,c c=k,x,z f=",
        ),
        ("INSERT INTO a(x, y) VALUES (1, 2)", "insert t=a c=x,y f="),
        ("INSERT INTO a SELECT z FROM b", "insert t=a,b c=*,z f="),
        ("INSERT INTO a(x) VALUES (1) ON CONFLICT (k) DO UPDATE SET v = 2", "insert t=a c=k,v,x f="),
        ("UPDATE a SET x = (SELECT max(y) FROM b) WHERE k = 1", "update t=a,b c=k,x,y f=max"),
        ("DELETE FROM a WHERE x < 1 RETURNING *", "delete t=a c=*,x f="),
        ("SELECT x FROM a -- FROM hidden\n", "select t=a c=x f="),
        ("SELECT /* FROM hidden */ x FROM a;", "select t=a c=x f="),
        ("SELECT 'DELETE FROM b; --' FROM a", "select t=a c= f="),
        ("VALUES (1)", "select t= c= f="),
        ("SELECT x FROM s.a", "select t=s.a c=x f="),
    ] {
        assert_eq!(both(sql), expected, "{sql}");
    }
}

#[test]
fn the_usual_schema_is_no_other_name_for_a_table() {
    assert_eq!(facts(Dialect::Sqlite, "SELECT x FROM main.secret"), "select t=secret c=x f=");
    assert_eq!(facts(Dialect::Postgres, "SELECT x FROM public.secret"), "select t=secret c=x f=");
    assert_eq!(facts(Dialect::Postgres, "SELECT pg_catalog.lower(x) FROM a"), "select t=a c=x f=lower");
}

#[test]
fn a_name_of_with_hides_no_table() {
    for (sql, tables) in [
        ("WITH t AS (SELECT 1 AS x) SELECT x FROM t", ""),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c", ""),
        // Its own definition means the table.
        ("WITH secret AS (SELECT x FROM secret) SELECT x FROM secret", "secret"),
        // Out of its scope, too.
        ("SELECT x FROM secret WHERE EXISTS (WITH secret AS (SELECT 1) SELECT 1 FROM secret)", "secret"),
        ("SELECT x FROM (WITH secret AS (SELECT 1 AS x) SELECT x FROM secret) s, secret", "secret"),
        ("WITH a AS (SELECT x FROM b), b AS (SELECT 1 AS x) SELECT x FROM a", "b"),
        ("WITH b AS (SELECT 1 AS x), a AS (SELECT x FROM b) SELECT x FROM a", ""),
        // What is changed is always a table.
        ("WITH secret AS (SELECT 1) UPDATE secret SET x = 1", "secret"),
        ("WITH secret AS (SELECT 1) DELETE FROM secret", "secret"),
        ("WITH secret AS (SELECT 1 AS x) INSERT INTO secret SELECT x FROM secret", "secret"),
        // A schema makes it a table.
        ("WITH secret AS (SELECT 1 AS x) SELECT x FROM s.secret", "s.secret"),
    ] {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let found = classify(dialect, sql).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!(found.tables.join(","), tables, "{dialect:?}: {sql}");
        }
    }
}

#[test]
fn a_write_is_seen_wherever_it_hides() {
    for (sql, class) in [
        ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x", Some("delete")),
        ("WITH x AS (UPDATE a SET v = 1 RETURNING *) SELECT * FROM x", Some("update")),
        ("WITH x AS (INSERT INTO a VALUES (1) RETURNING *) SELECT * FROM x", Some("insert")),
        ("/* SELECT */ DELETE FROM a -- SELECT", Some("delete")),
        ("SELECT * INTO b FROM a", Some("select-into")),
        ("SELECT * FROM a FOR UPDATE", Some("select-for-update")),
        // Two kinds of change have no one name.
        ("WITH x AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM x", None),
    ] {
        let found = classify(Dialect::Postgres, sql).map(|f| f.class);
        assert_eq!(found.as_deref(), class, "{sql}");
    }
}

#[test]
fn a_whole_row_is_all_columns() {
    for sql in [
        "SELECT u FROM users u",
        "SELECT users FROM users",
        "SELECT row_to_json(u) FROM users AS u",
        "SELECT email(u) FROM users u",
        "SELECT (u).email FROM users u",
        "SELECT b FROM users AS u(a, b)",
        "SELECT to_json(u.*) FROM users u",
        "SELECT id FROM users u WHERE row(u.*)::text LIKE '%x%'",
        "TABLE users",
    ] {
        let found = classify(Dialect::Postgres, sql);
        assert!(found.is_none_or(|f| f.columns.contains(&"*".to_owned())), "{sql}");
    }
}

/// What passed a filter on the first word, and other statements whose effect is not the one they begin with.
const HARMFUL: &[&str] = &[
    "SELECT 1; DROP TABLE a",
    "COMMIT; UPDATE a SET x = 1",
    "SELECT 1;;SELECT 2",
    "BEGIN",
    "COMMIT",
    "ROLLBACK AND CHAIN",
    "SET TRANSACTION READ WRITE",
    "SET statement_timeout = 0",
    "SET SESSION AUTHORIZATION postgres",
    "RESET ROLE",
    "COPY a TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "COPY a FROM '/etc/passwd'",
    "EXPLAIN ANALYZE DELETE FROM a",
    "PREPARE p AS DELETE FROM a",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "DO $$ BEGIN DELETE FROM a; END $$",
    "CALL wipe()",
    "TRUNCATE a",
    "DROP TABLE a",
    "CREATE TABLE b AS SELECT * FROM a",
    "ALTER TABLE a ADD COLUMN z int",
    "GRANT ALL ON a TO public",
    "LISTEN c",
    "NOTIFY c, 'secret'",
    "LOCK TABLE a",
    "VACUUM INTO '/tmp/x'",
    "ATTACH DATABASE '/etc/passwd' AS x",
    "PRAGMA query_only = 0",
    "MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE",
    "DECLARE c CURSOR FOR SELECT 1",
    "SELECT U&\"\\0065mail\" FROM users",
    "SELECT \"a.b\" FROM users",
    "SELECT x FROM a\0 WHERE 1",
    "SELECT\u{a0}x FROM a",
    "SELECT x FROM",
    "",
    ";",
    "-- nothing",
];

#[test]
fn what_is_not_one_plain_statement_is_unknown() {
    for sql in HARMFUL {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            assert_eq!(facts(dialect, sql), "unknown", "{dialect:?}: {sql}");
        }
    }
    assert_eq!(facts(Dialect::Postgres, "SELECT x FROM \"Users\""), "unknown", "another table than users");
    assert_eq!(facts(Dialect::Sqlite, "SELECT x FROM \"Users\""), "select t=users c=x f=");
}

#[test]
fn functions_with_effects_are_named() {
    for function in
        ["lo_export", "dblink", "nextval", "setval", "pg_advisory_lock", "pg_sleep", "pg_read_file"]
    {
        for sql in [
            format!("SELECT {function}('a', 1)"),
            format!("SELECT * FROM {function}('a') AS t(x text)"),
            format!("SELECT x FROM a WHERE pg_catalog.{function}('a') IS NULL"),
            format!("SELECT x FROM a ORDER BY {}('a')", function.to_uppercase()),
        ] {
            let found = classify(Dialect::Postgres, &sql);
            assert!(found.is_none_or(|f| f.functions.contains(&function.to_owned())), "{sql}");
        }
    }
}

#[test]
fn a_deep_statement_ends_and_neither_parser_nor_walk_overflows() {
    let many = |open: &str, inner: &str, close: &str, n: usize| {
        format!("SELECT {}{inner}{}", open.repeat(n), close.repeat(n))
    };
    for n in [10, 40, 300, 900, 5_000, 20_000] {
        for sql in [
            many("(", "1", ")", n),
            many("1+", "1", "", n),
            many("NOT ", "1", "", n),
            many("-", "1", "", n),
            many("(SELECT ", "1", ")", n),
            many("CASE WHEN ", "1", " THEN 1 END", n),
            many("1", "", " IS NULL", n),
            many("f(", "1", ")", n),
            many("SELECT 1 UNION ", "SELECT 1", "", n).replacen("SELECT SELECT", "SELECT", 1),
            many("* FROM (SELECT ", "1", ")", n),
            many("1 AND ", "1", "", n),
            many("x::int", "", "::int", n),
            format!("SELECT 1 FROM a{}", " JOIN a ON 1".repeat(n)),
        ] {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                let _ = classify(dialect, &sql);
            }
        }
    }
    assert!(classify(Dialect::Sqlite, &many("1+", "1", "", 900)).is_some(), "a long sum is understood");
}

proptest! {
    #[test]
    fn any_text_is_classified_without_a_panic(text in ".{0,200}") {
        let _ = (classify(Dialect::Sqlite, &text), classify(Dialect::Postgres, &text));
    }

    #[test]
    fn any_words_are_classified_without_a_panic(words in prop::collection::vec(
        prop::sample::select(vec![
            "SELECT", "FROM", "WHERE", "WITH", "AS", "(", ")", ",", "a", "b", "*", ".", "1", "'x'", "\"q\"", "=", "UNION",
            "INSERT INTO", "VALUES", "UPDATE", "SET", "DELETE", "RETURNING", "CASE", "WHEN", "THEN", "END", "NOT", "IN",
            "BETWEEN", "AND", "::", "[", "]", "$1", "?1", "--", "/*", "*/", ";", "LATERAL", "JOIN", "USING", "ON", "$$",
        ]), 0..40)) {
        let text = words.join(" ");
        let hidden = format!("SELECT x FROM visible WHERE EXISTS ({text}) OR 1 IN (SELECT y FROM secret)");
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let _ = classify(dialect, &text);
            // Whatever stands before it, a table that the engine would read is not overlooked.
            if let Some(found) = classify(dialect, &hidden) {
                let mut said = String::new();
                let _ = write!(said, "{found:?}");
                let inert = text.contains("--") || text.contains("/*") || text.contains('\'') || text.contains("$$")
                    || text.contains('"') || text.contains("WITH");
                prop_assert!(inert || found.tables.contains(&"secret".to_owned()), "{hidden}: {said}");
            }
        }
    }
}
