//! The escapes of read-only sessions, each against a real server: as a guest would send them, and once more behind the
//! host's look at the text, where only the server and the deadline hold.

mod server;

use std::time::{Duration, Instant};

use govrun_verdict::{DbOp, FsMode, Mask};
use tokio::net::TcpStream;

use self::server::Server;
use super::{Ask, Ending, Isolation, PostgresOffer, Session, admit, isolate};
use crate::hidden::Hidden;
use crate::sql::{Dialect, SqlError, SqlLimit, SqlLimits, SqlOutcome, SqlValue, classify};

const LIMITS: SqlLimits = SqlLimits { rows: 1_000, bytes: 1 << 20, time_ms: 5_000, vm_steps: u64::MAX };

const SETUP: &str = "
    CREATE ROLE agent LOGIN PASSWORD 'agent-secret';
    CREATE TABLE orders(id int PRIMARY KEY, note text, total numeric(16,4));
    INSERT INTO orders VALUES (1, 'one', 12345.6700), (2, 'two', -0.05), (3, NULL, 100000000);
    CREATE TABLE users(id int PRIMARY KEY, name text, email text);
    INSERT INTO users VALUES (1, 'ann', 'a@x'), (2, 'bob', 'b@x');
    CREATE VIEW cards AS SELECT id, email AS contact FROM users;
    CREATE TABLE hidden(secret text); INSERT INTO hidden VALUES ('hidden-value');
    CREATE SEQUENCE numbers;
    CREATE EXTENSION dblink;
    CREATE FUNCTION wipe() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM orders; SELECT 1';
    CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS 'SELECT 7';
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders, users TO agent; GRANT SELECT ON cards TO agent;
    GRANT USAGE ON SEQUENCE numbers TO agent;";

struct World {
    server: Server,
    root: tokio_postgres::Client,
    offer: PostgresOffer,
}

impl World {
    async fn new(server: Server) -> Self {
        let root = server.superuser().await;
        root.batch_execute(SETUP).await.unwrap();
        let offer = PostgresOffer {
            server: super::Server {
                host: "127.0.0.1".to_owned(),
                port: server.port,
                database: "postgres".to_owned(),
                user: "agent".to_owned(),
            },
            password: Hidden::new("agent-secret"),
            mode: FsMode::ReadWrite,
            replica: None,
            functions: vec!["touch".to_owned()],
            rollback: Vec::new(),
        };
        Self { server, root, offer }
    }

    fn peer(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.server.port).into()
    }

    async fn session(&self) -> Session {
        let stream = TcpStream::connect(self.peer()).await.unwrap();
        let (server, password) = (&self.offer.server, &self.offer.password);
        Session::login(server, password, stream, self.peer(), None).await.unwrap()
    }

    /// As a guest: what the text says is looked at first.
    async fn ask(&self, op: DbOp, sql: &str, mask: &Mask) -> Result<SqlOutcome, SqlError> {
        let facts = classify(Dialect::Postgres, sql);
        admit(&self.offer, facts.as_ref(), sql, mask)?;
        let tables = facts.map(|f| f.tables).unwrap_or_default();
        let ask = Ask {
            op,
            statement: sql,
            tables: &tables,
            params: vec![],
            mask,
            limits: LIMITS,
            ending: Ending::Keep,
        };
        self.session().await.run(ask).await
    }

    async fn query(&self, sql: &str) -> Result<SqlOutcome, SqlError> {
        self.ask(DbOp::Query, sql, &Mask::default()).await
    }

    async fn raw(
        &self,
        session: &mut Session,
        op: DbOp,
        sql: &str,
        time_ms: u64,
    ) -> Result<SqlOutcome, SqlError> {
        let limits = SqlLimits { time_ms, ..LIMITS };
        let mask = Mask::default();
        let ask = Ask {
            op,
            statement: sql,
            tables: &[],
            params: vec![],
            mask: &mask,
            limits,
            ending: Ending::Keep,
        };
        session.run(ask).await
    }

    /// Everything that a statement could have changed.
    async fn state(&self) -> String {
        const STATE: &str = "SELECT concat_ws('|',
            (SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o),
            (SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM users u),
            (SELECT count(*) FROM hidden), (SELECT last_value::text || is_called::text FROM numbers),
            (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
            (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_prepared_xacts),
            (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
            (SELECT string_agg(rolname || coalesce(array_to_string(rolconfig, ','), ''), ',' ORDER BY 1) FROM pg_roles))";
        self.root.query_one(STATE, &[]).await.unwrap().get(0)
    }

    async fn no_locks(&self) {
        for _ in 0..100 {
            let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
            if self.root.query_one(held, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("an advisory lock stays");
    }
}

/// Statements that a read-only session lets through, or that end it, or that reach out of the database.
const ESCAPES: &[&str] = &[
    "COMMIT; UPDATE orders SET note = 'x'",
    "COMMIT; BEGIN; UPDATE orders SET note = 'x'; COMMIT",
    "COMMIT",
    "ROLLBACK",
    "ROLLBACK AND CHAIN",
    "PREPARE TRANSACTION 'p'",
    "SET TRANSACTION READ WRITE",
    "SET transaction_read_only = off",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "SET statement_timeout = 0",
    "SET search_path = pg_catalog",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "RESET ALL",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('search_path', 'other', false)",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/govrun-escaped'",
    "COPY orders TO '/tmp/govrun-escaped'",
    "COPY orders FROM PROGRAM 'id'",
    "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/govrun-escaped')",
    "SELECT lo_create(4711)",
    "SELECT lo_import('/etc/passwd')",
    "SELECT dblink_exec('host=127.0.0.1 user=postgres password=x', 'UPDATE orders SET note = ''x''')",
    "SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t(x int)",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 99)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(2)",
    "SELECT pg_advisory_xact_lock(3)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_notify('c', 'secret')",
    "SELECT pg_sleep(30)",
    "SELECT query_to_xml('DELETE FROM orders RETURNING 1', true, true, '')",
    "SELECT wipe()",
    "SELECT * FROM wipe()",
    "SELECT id FROM orders WHERE wipe() = 1",
    "SELECT * FROM orders FOR UPDATE",
    "SELECT * INTO copy FROM orders",
    "CREATE TABLE copy AS SELECT * FROM orders",
    "CREATE TEMP TABLE copy(x int)",
    "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x",
    "DO $$ BEGIN DELETE FROM orders; END $$",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "CALL wipe()",
    "LISTEN c",
    "NOTIFY c, 'secret'",
    "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE",
    "ALTER ROLE agent SET search_path = other",
    "TRUNCATE orders",
    "VACUUM",
    "DISCARD ALL",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
];

async fn escapes_are_refused_and_leave_nothing(world: &World) {
    let before = world.state().await;
    for sql in ESCAPES {
        let refused = world.query(sql).await;
        let expected = matches!(refused, Err(SqlError::StatementRefused(_) | SqlError::ReadOnly));
        assert!(expected, "{sql}: {refused:?}");
    }
    assert_eq!(world.state().await, before);
}

/// Where only the server holds: in one session after the other, and all of them in one.
async fn the_server_holds_by_itself(world: &World) {
    let before = world.state().await;
    // A function of the owner's that deletes is stopped by the read-only transaction too.
    for sql in ESCAPES {
        let mut session = world.session().await;
        let answer = world.raw(&mut session, DbOp::Query, sql, 500).await;
        if session.is_sound() {
            let wrote = world.raw(&mut session, DbOp::Query, "UPDATE orders SET note = 'later'", 500).await;
            assert_eq!(wrote, Err(SqlError::ReadOnly), "after {sql}: {answer:?}");
            let path =
                world.raw(&mut session, DbOp::Query, "SELECT current_setting('search_path')", 500).await;
            assert_eq!(path.unwrap().rows, [[SqlValue::Text("public".to_owned())]], "after {sql}");
        }
        drop(session);
        world.no_locks().await;
        assert_eq!(world.state().await, before, "{sql}: {answer:?}");
    }
    let mut session = world.session().await;
    for sql in ESCAPES {
        if !session.is_sound() {
            session = world.session().await;
        }
        let _ = world.raw(&mut session, DbOp::Query, sql, 500).await;
    }
    drop(session);
    world.no_locks().await;
    assert_eq!(world.state().await, before);
    assert!(!std::path::Path::new("/tmp/govrun-escaped").exists());
}

async fn a_statement_that_runs_too_long_ends_on_the_server_too(world: &World) {
    let mut session = world.session().await;
    let _ = world.raw(&mut session, DbOp::Query, "SET statement_timeout = 0", 500).await;
    let started = Instant::now();
    let late = world.raw(&mut session, DbOp::Query, "SELECT pg_sleep(60)", 300).await;
    assert_eq!(late, Err(SqlError::Limit { which: SqlLimit::Time }));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!session.is_sound());
    for _ in 0..100 {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'agent' AND query LIKE '%pg_sleep(60)%' \
            AND state = 'active'";
        if world.root.query_one(active, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server goes on with it");
}

async fn a_caller_that_goes_away_ends_its_statement(world: &World) {
    let mut session = world.session().await;
    let gone = tokio::time::timeout(
        Duration::from_millis(200),
        world.raw(&mut session, DbOp::Execute, "UPDATE orders SET note = pg_sleep(50)::text", 60_000),
    )
    .await;
    assert!(gone.is_err());
    drop(session);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let active = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'agent' AND state = 'active'";
    assert_eq!(world.root.query_one(active, &[]).await.unwrap().get::<_, i64>(0), 0);
}

async fn results_are_typed_and_metered(world: &World) {
    let text = |t: &str| SqlValue::Text(t.to_owned());
    let rows = world.query("SELECT id, note, total FROM orders ORDER BY id").await.unwrap();
    assert_eq!(rows.columns, ["id", "note", "total"]);
    assert_eq!(
        rows.rows,
        [
            [SqlValue::Integer(1), text("one"), text("12345.6700")],
            [SqlValue::Integer(2), text("two"), text("-0.0500")],
            [SqlValue::Integer(3), SqlValue::Null, text("100000000.0000")],
        ]
    );
    let one = |sql: &'static str| async move { world.query(sql).await.map(|o| o.rows.concat()) };
    assert_eq!(
        one("SELECT 1.5::float8, true, 'x'::bytea").await.unwrap(),
        [SqlValue::Real(1.5), SqlValue::Integer(1), SqlValue::Blob(b"x".to_vec())]
    );
    assert_eq!(one("SELECT '{\"a\": 1}'::jsonb").await.unwrap(), [text("{\"a\": 1}")]);
    assert!(matches!(one("SELECT now()").await, Err(SqlError::Failed(why)) if why.contains("text")));
    let limit = |which| Err(SqlError::Limit { which });
    assert_eq!(one("SELECT generate_series(1, 100000)").await, limit(SqlLimit::Rows));
    assert_eq!(one("SELECT repeat('x', 900000), repeat('y', 900000)").await, limit(SqlLimit::Bytes));
    // One value of half a gigabyte is not read to its end.
    assert_eq!(one("SELECT repeat('x', 500000000)").await, limit(SqlLimit::Bytes));
    let mut session = world.session().await;
    let mask = Mask::default();
    let ask = |params| Ask {
        op: DbOp::Query,
        statement: "SELECT note FROM orders WHERE id = $1 AND total > $2",
        tables: &[],
        params,
        mask: &mask,
        limits: LIMITS,
        ending: Ending::Keep,
    };
    let found = session.run(ask(vec![SqlValue::Integer(1), text("12000.5")])).await.unwrap();
    assert_eq!(found.rows, [[text("one")]]);
    assert!(session.run(ask(vec![SqlValue::Integer(1)])).await.is_err());
    let hostile = text("0 OR 1=1; DROP TABLE orders");
    assert!(session.run(ask(vec![SqlValue::Integer(1), hostile])).await.is_err(), "a parameter is a value");
    assert!(world.query("SELECT secret FROM hidden").await.is_err(), "the role may not");
}

async fn masked_columns_are_not_read(world: &World) {
    let mask = Mask::new(["users.email"]);
    for sql in [
        "SELECT email FROM users",
        "SELECT * FROM users",
        "SELECT u FROM users u",
        "SELECT row_to_json(u) FROM users u",
        "SELECT to_json(u.*) FROM users u",
        "SELECT id FROM users WHERE email LIKE 'a%'",
        "SELECT id FROM users u WHERE u::text LIKE '%a@x%'",
        "SELECT id FROM users ORDER BY email",
        "SELECT email(u) FROM users u",
        "SELECT b FROM users AS u(x, a, b)",
        "SELECT (SELECT max(email) FROM users)",
        "SELECT id FROM users NATURAL JOIN (SELECT 'a@x' AS email) g",
        "SELECT id FROM users JOIN (SELECT 'a@x' AS mail) g USING (id)",
        "TABLE users",
    ] {
        let refused = world.ask(DbOp::Query, sql, &mask).await;
        assert!(
            matches!(refused, Err(SqlError::Masked(_) | SqlError::StatementRefused(_))),
            "{sql}: {refused:?}"
        );
    }
    for sql in [
        "SELECT contact FROM cards",
        "SELECT 1 FROM cards WHERE contact = 'a@x'",
        "SELECT attname FROM pg_stats",
    ] {
        let refused = world.ask(DbOp::Query, sql, &mask).await;
        assert!(matches!(refused, Err(SqlError::Masked(_))), "{sql}: {refused:?}");
    }
    let plain = world.ask(DbOp::Query, "SELECT id, name FROM users ORDER BY id", &mask).await.unwrap();
    assert_eq!(plain.rows.len(), 2);
    // Behind the look at the text, the origin of a result's column still tells.
    let mut session = world.session().await;
    for sql in ["SELECT email AS harmless FROM users", "SELECT x FROM (SELECT email AS x FROM users) s"] {
        let ask = Ask {
            op: DbOp::Query,
            statement: sql,
            tables: &[],
            params: vec![],
            mask: &mask,
            limits: LIMITS,
            ending: Ending::Keep,
        };
        assert!(matches!(session.run(ask).await, Err(SqlError::Masked(_))), "{sql}");
    }
}

async fn writes_are_kept_or_undone(world: &World) {
    let write = "UPDATE orders SET note = 'kept' WHERE id = 1";
    let mut session = world.session().await;
    let mask = Mask::default();
    for (ending, after) in [(Ending::Undo, "one"), (Ending::Keep, "kept")] {
        let ask = Ask {
            op: DbOp::Execute,
            statement: write,
            tables: &[],
            params: vec![],
            mask: &mask,
            limits: LIMITS,
            ending,
        };
        assert_eq!(session.run(ask).await.unwrap().changed, 1);
        let note = world.query("SELECT note FROM orders WHERE id = 1").await.unwrap();
        assert_eq!(note.rows, [[SqlValue::Text(after.to_owned())]]);
    }
    assert_eq!(
        world.query("SELECT touch()").await.unwrap().rows,
        [[SqlValue::Integer(7)]],
        "a permitted function"
    );
}

#[test]
fn a_real_server_is_held_to_what_was_decided() {
    let Some(server) = Server::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(server).await;
        escapes_are_refused_and_leave_nothing(&world).await;
        the_server_holds_by_itself(&world).await;
        a_statement_that_runs_too_long_ends_on_the_server_too(&world).await;
        a_caller_that_goes_away_ends_its_statement(&world).await;
        results_are_typed_and_metered(&world).await;
        masked_columns_are_not_read(&world).await;
        writes_are_kept_or_undone(&world).await;
        let wrong = PostgresOffer { password: Hidden::new("wrong-secret"), ..world.offer.clone() };
        let stream = TcpStream::connect(world.peer()).await.unwrap();
        let login = Session::login(&wrong.server, &wrong.password, stream, world.peer(), None).await;
        let said = format!("{:?} {wrong:?}", login.err().unwrap());
        assert!(!said.contains("wrong-secret"), "{said}");
    });
}

fn isolation(offer: &PostgresOffer, sql: &str) -> Option<Isolation> {
    isolate(offer, classify(Dialect::Postgres, sql).as_ref())
}

#[test]
fn a_sandboxed_statement_is_isolated_or_refused() {
    let server = |host: &str| super::Server {
        host: host.to_owned(),
        port: 5432,
        database: "d".to_owned(),
        user: "u".to_owned(),
    };
    let offer = PostgresOffer {
        server: server("primary"),
        password: Hidden::new(""),
        mode: FsMode::ReadWrite,
        replica: None,
        functions: vec!["touch".to_owned()],
        rollback: Vec::new(),
    };
    assert_eq!(isolation(&offer, "SELECT 1"), None, "nothing was offered for it");
    let with_replica = PostgresOffer { replica: Some(server("replica")), ..offer.clone() };
    assert_eq!(isolation(&with_replica, "SELECT x FROM a"), Some(Isolation::Replica));
    assert_eq!(isolation(&with_replica, "UPDATE a SET x = 1"), None);
    let rollback = PostgresOffer { rollback: vec!["a".to_owned()], ..offer };
    assert_eq!(isolation(&rollback, "UPDATE a SET x = 1"), Some(Isolation::RolledBack));
    assert_eq!(isolation(&rollback, "SELECT upper(x) FROM a"), Some(Isolation::RolledBack));
    for sql in [
        "UPDATE b SET x = 1",
        "UPDATE a SET x = (SELECT y FROM b)",
        "SELECT touch() FROM a",
        "SELECT nextval('s') FROM a",
        "SELECT setval('s', 1) FROM a",
        "SELECT * FROM dblink('h', 'q') AS t(x int), a",
        "SELECT lo_export(1, '/x') FROM a",
        "SELECT pg_advisory_lock(1) FROM a",
        "COPY a TO PROGRAM 'id'",
    ] {
        assert_eq!(isolation(&rollback, sql), None, "{sql}");
    }
}
