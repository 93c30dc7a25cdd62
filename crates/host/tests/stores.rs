//! Databases, key-value stores, configuration and models as a component uses them, under a policy that permits some of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and its length is set from outside"
)]

#[path = "../src/postgres/tests/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use govrun_audit::verify::{Level, verify};
use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_host::arguments::Given;
use govrun_host::component::Inspected;
use govrun_host::kv::StoreOffer;
use govrun_host::model::ModelOffer;
use govrun_host::net::Secret;
use govrun_host::postgres::{PostgresOffer, Server};
use govrun_host::wasmtime::component::Val;
use govrun_host::{DatabaseOffer, Gate, Hidden, Offers, Parts, Runtime, Tool, Webhooks, Who, engine};
use govrun_policy::{Policy, SourceFile, Sources};
use govrun_verdict::FsMode;
use serde_json::{Value, json};

const POLICY: &str = r#"
schema = 1
[env.test]
[[agent]]
name = "a"
[[agent]]
name = "sandboxed"
[[agent]]
name = "sandboxed-by-rule"
[sandbox.copy]
deadline = "20s"
[sandbox.reaching]
egress = "by-rule"
[[rule]]
id = "tool-reaching"
match = { agent = "sandboxed-by-rule", action = "tool.call" }
verdict = "sandbox"
sandbox = "reaching"
[[rule]]
id = "tool"
match = { agent = "a", action = "tool.call" }
verdict = "allow"
[[rule]]
id = "tool-sandboxed"
match = { agent = "sandboxed", action = "tool.call" }
verdict = "sandbox"
sandbox = "copy"
[[rule]]
id = "reads"
match = { action = "db.query", db = "sales" }
when = { stmt = { in = ["select"] }, tables = { all_in = ["sales", "numbers"] } }
verdict = "allow"
limits = { db = { rows = 2_000, time = "2s", mask = "sales.customer" } }
[[rule]]
id = "begins"
match = { action = "db.query", db = "sales" }
when = { stmt = { eq = "begin" } }
verdict = "allow"
[[rule]]
id = "writes"
match = { action = "db.execute", db = "sales" }
when = { stmt = { in = ["insert", "update", "begin"] } }
verdict = "allow"
[[rule]]
id = "remote"
match = { action = "db.*", db = ["crm", "away", "replicated"] }
verdict = "allow"
[[rule]]
id = "no-functions"
match = { action = "db.*" }
when = { functions = { any_in = ["randomblob"] } }
verdict = "block"
reason = "NO-RANDOM"
[[rule]]
id = "keys"
match = { action = "kv.*", store = ["memory", "frozen"] }
verdict = "allow"
[[rule]]
id = "secret-keys"
match = { action = "kv.*", key = "secret*" }
verdict = "block"
reason = "SECRET-KEY"
[[rule]]
id = "config"
match = { action = "env.read", tool = "keeper.*" }
when = { name = { in = ["REGION"] } }
verdict = "allow"
[[rule]]
id = "model"
match = { action = "model.call", model = "small" }
when = { tokens = { le = 200 } }
verdict = "allow"
[[rule]]
id = "endpoint"
match = { action = "http.request", host = "127.0.0.1", method = "POST", path = "/v1/chat/completions" }
verdict = "allow"
[[rule]]
id = "loopback"
match = { action = "net.connect", cidr = "127.0.0.0/8" }
verdict = "allow"
"#;

const KEY: &str = "sk-the-key-of-the-endpoint";

/// A model's endpoint that answers from a script and keeps what it was asked.
struct Endpoint {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it answers to the next questions: status and body.
fn endpoint(answers: Vec<(u16, String)>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4096];
            // The body is the last of it, and ends with its brace.
            while !text.ends_with('}') {
                let read = stream.read(&mut buffer).unwrap();
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                if read == 0 {
                    break;
                }
            }
            kept.lock().unwrap().push(text);
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    Endpoint { port, asked }
}

fn completion(content: &str, usage: Option<(u64, u64)>) -> (u16, String) {
    let usage = usage.map(|(i, o)| json!({ "prompt_tokens": i, "completion_tokens": o }));
    let choice = json!({ "message": { "role": "assistant", "content": content }, "finish_reason": "stop" });
    (200, json!({ "choices": [choice], "usage": usage }).to_string())
}

struct World {
    root: tempfile::TempDir,
    runtime: Arc<Runtime>,
    policy: Arc<Policy>,
    log: Log,
    tool: Tool,
    executor: tokio::runtime::Runtime,
}

fn lay_out(root: &Path) {
    let db = rusqlite::Connection::open(root.join("sales.db")).unwrap();
    db.execute_batch(
        "CREATE TABLE sales(id INTEGER PRIMARY KEY, region TEXT, customer TEXT, amount INTEGER);
         INSERT INTO sales VALUES (1, 'north', 'ACME', 10), (2, 'south', 'Globex', 20);
         CREATE TABLE numbers(n INTEGER);
         WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1500) INSERT INTO numbers SELECT x FROM c;
         CREATE TABLE salaries(who TEXT, amount INTEGER); INSERT INTO salaries VALUES ('boss', 1000000);",
    )
    .unwrap();
}

fn world(answers: Vec<(u16, String)>) -> (World, Endpoint) {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    lay_out(root.path());
    let keys = KeyStore::init(&at("keys"), "test.govrun.local/log").unwrap();
    let trust = Trust::load(&at("keys/trust.toml")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&at("audit"), &keys, Arc::clone(&clock)).unwrap();
    let files = vec![SourceFile { path: "govrun.toml".into(), text: POLICY.into() }];
    let policy = Arc::new(Policy::compile(&Sources { files }).unwrap_or_else(|e| panic!("{e}")));
    let store = Store::open(&at("state")).unwrap();
    let parts = Parts {
        policy: Arc::clone(&policy),
        log: log.clone(),
        store,
        clock,
        trust,
        webhooks: Webhooks::new(),
        waits: Box::new(()),
    };
    let gate = Gate::open(parts).unwrap();
    let engine = engine().unwrap();
    let path: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-examples/prebuilt/storekeeper.wasm");
    let component = Inspected::load(&engine, None, &path).unwrap().admit().unwrap();
    let endpoint = endpoint(answers);
    let url = format!("http://127.0.0.1:{}/v1", endpoint.port);
    let model = |max| {
        ModelOffer::new(&url, "vendor/small-1", Some(Secret::new(KEY.to_owned()).unwrap()), max).unwrap()
    };
    let offers = Offers {
        env: BTreeMap::from([
            ("REGION".to_owned(), "eu".to_owned()),
            ("TOKEN".to_owned(), "hidden-token".to_owned()),
        ]),
        databases: BTreeMap::from([(
            "sales".to_owned(),
            (at("sales.db").canonicalize().unwrap(), FsMode::ReadWrite).into(),
        )]),
        stores: BTreeMap::from([
            ("memory".to_owned(), StoreOffer { mode: FsMode::ReadWrite, max_bytes: 100_000 }),
            ("frozen".to_owned(), StoreOffer { mode: FsMode::ReadOnly, max_bytes: 100_000 }),
            ("unruled".to_owned(), StoreOffer { mode: FsMode::ReadWrite, max_bytes: 100_000 }),
        ]),
        models: BTreeMap::from([("small".to_owned(), model(300)), ("large".to_owned(), model(300))]),
        ..Offers::default()
    };
    let tool = Tool { name: "keeper".into(), component, offers };
    let runtime = Runtime::new(engine, gate, vec![tool.clone()]).unwrap();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    (World { root, runtime, policy, log, tool, executor }, endpoint)
}

impl World {
    fn steps_as(&self, agent: &str, steps: &Value) -> Vec<Value> {
        let who = Who { agent: self.policy.agent(agent).unwrap(), session: "s".into(), hold: None };
        let args = json!({ "script": steps.to_string() }).to_string();
        let answer = self.runtime.call(&who, &self.tool, "steps", Given::Json(&args));
        match self.executor.block_on(answer).unwrap().value {
            Some(Val::String(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn steps(&self, steps: Value) -> Vec<Value> {
        self.steps_as("a", &steps)
    }

    /// Run them, and compare with what each should give.
    fn expect(&self, expected: Vec<(Value, Value)>) {
        let script: Value = expected.iter().map(|(step, _)| step.clone()).collect();
        for ((step, wanted), got) in expected.iter().zip(self.steps(script)) {
            assert_eq!(got, *wanted, "{step}");
        }
    }

    fn direct(&self, sql: &str) -> i64 {
        let db = rusqlite::Connection::open(self.root.path().join("sales.db")).unwrap();
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Everything that was written about the calls so far.
    fn written(&self) -> String {
        self.log.close().unwrap();
        let trust = Trust::load(&self.root.path().join("keys/trust.toml")).unwrap();
        let report = verify(&self.root.path().join("audit"), &trust, Level::L2);
        assert_eq!(report.exit_code(), 0, "{report}");
        let mut all = String::new();
        let mut folders = vec![self.root.path().join("audit")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
                }
            }
        }
        all
    }
}

/// Offer databases of a server beside the file.
fn remote(world: &mut World, port: u16) {
    let at = |port: u16| Server {
        host: "127.0.0.1".to_owned(),
        port,
        database: "postgres".to_owned(),
        user: "agent".to_owned(),
    };
    let offer = PostgresOffer {
        server: at(port),
        password: Hidden::new("agent-secret"),
        mode: FsMode::ReadWrite,
        replica: None,
        functions: Vec::new(),
        rollback: vec!["orders".to_owned()],
    };
    let replicated = PostgresOffer { replica: Some(at(port)), rollback: Vec::new(), ..offer.clone() };
    // An address that no rule grants.
    let away = PostgresOffer { server: Server { host: "10.1.2.3".to_owned(), ..at(port) }, ..offer.clone() };
    for (label, offer) in [("crm", offer), ("replicated", replicated), ("away", away)] {
        let offer = DatabaseOffer::Postgres(Arc::new(offer));
        world.tool.offers.databases.insert(label.to_owned(), offer);
    }
}

fn error(reason: &str) -> Value {
    json!({ "error": reason })
}

#[test]
fn statements_are_decided_by_what_they_name() {
    let (world, _) = world(Vec::new());
    let query = |sql: &str| json!(["query", "sales", sql]);
    let execute = |sql: &str| json!(["execute", "sales", sql]);
    world.expect(vec![
        (query("SELECT region FROM sales ORDER BY id"), json!([["north"], ["south"]])),
        (query("SELECT region, customer FROM sales WHERE id = 1"), json!([["north", null]])),
        (query("SELECT upper(customer) FROM sales WHERE customer = 'ACME'"), json!([])),
        (query("SELECT amount FROM salaries"), error("DEFAULT-DENY")),
        (query("SELECT (SELECT amount FROM salaries) FROM sales"), error("DEFAULT-DENY")),
        (query("WITH sales AS (SELECT * FROM salaries) SELECT * FROM sales"), error("DEFAULT-DENY")),
        (query("SELECT hex(randomblob(4)) FROM sales"), error("NO-RANDOM")),
        // What is not understood cannot be shown not to match a block.
        (query("SELECT 1; DROP TABLE sales"), error("NO-RANDOM-UNKNOWN")),
        (query("PRAGMA user_version"), error("NO-RANDOM-UNKNOWN")),
        (query("SELECT id FROM sales JOIN numbers USING (id)"), error("DB-MASKED")),
        (execute("DELETE FROM sales"), error("DEFAULT-DENY")),
        (execute("UPDATE sales SET amount = amount + 1 WHERE id = 1"), json!(1)),
        (json!(["twice", "sales", "SELECT amount FROM sales WHERE id = ?1", [1]]), json!([[11]])),
        (json!(["query", "other", "SELECT 1"]), error("DB-UNKNOWN")),
    ]);
    assert_eq!(world.direct("SELECT amount FROM sales WHERE id = 1"), 11);
    assert!(world.written().contains("DB-MASKED"));
}

#[test]
fn a_transaction_is_decided_statement_by_statement_and_undone_when_it_is_dropped() {
    let (world, _) = world(Vec::new());
    let insert = json!(["tx-execute", "INSERT INTO sales(region, amount) VALUES ('west', 5)"]);
    let count = json!(["tx-query", "SELECT count(*) FROM sales"]);
    world.expect(vec![
        (json!(["begin", "sales", "rw"]), Value::Null),
        (insert.clone(), json!(1)),
        (count.clone(), json!([[3]])),
        (json!(["tx-execute", "DELETE FROM sales"]), error("DEFAULT-DENY")),
        (json!(["tx-query", "SELECT amount FROM salaries"]), error("DEFAULT-DENY")),
        (json!(["rollback"]), Value::Null),
        (insert.clone(), json!({ "error": "failed: the statement failed: the transaction is over" })),
        (json!(["begin", "sales", "rw"]), Value::Null),
        (insert.clone(), json!(1)),
        (json!(["forget"]), Value::Null),
        (json!(["begin", "sales", "ro"]), Value::Null),
        (insert.clone(), error("DB-READ-ONLY")),
        (count.clone(), json!([[2]])),
        (json!(["commit"]), Value::Null),
        (json!(["begin", "sales", "rw"]), Value::Null),
        (insert.clone(), json!(1)),
        (json!(["commit"]), Value::Null),
        (json!(["begin", "sales", "rw"]), Value::Null),
        // The call ends with this one open.
        (insert, json!(1)),
    ]);
    assert_eq!(world.direct("SELECT count(*) FROM sales"), 3);
    let written = world.written();
    assert!(written.contains("committed") && written.contains("undone"));
}

#[test]
fn a_result_is_read_piece_by_piece() {
    let (world, _) = world(Vec::new());
    let steps = world.steps(json!([
        ["open", "sales", "SELECT n FROM numbers ORDER BY n"],
        ["next", 2],
        ["next", 5000],
        ["close"],
        ["open", "sales", "SELECT amount FROM salaries"],
        ["open", "sales", "SELECT a.n FROM numbers a, numbers b"],
        ["next", 1000],
    ]));
    assert_eq!(steps[0], json!(["n"]));
    assert_eq!(steps[1], json!([[1], [2]]));
    assert!((1..=1000).contains(&steps[2].as_array().unwrap().len()));
    assert_eq!(steps[4], error("DEFAULT-DENY"));
    let cursors: Vec<Value> = (0..3).map(|_| json!(["next", 1000])).collect();
    let mut script = vec![json!(["open", "sales", "SELECT a.n FROM numbers a, numbers b"])];
    script.extend(std::iter::repeat_n(cursors, 20).flatten());
    let read = world.steps(Value::from(script));
    assert!(read.contains(&error("DB-LIMIT")), "2,000 rows are the limit");
    world.written();
}

#[test]
fn a_sandboxed_call_changes_copies_and_layers_only() {
    let (world, _) = world(Vec::new());
    world.steps(json!([["kv-set", "memory", "a", "real"]]));
    let sandboxed = world.steps_as(
        "sandboxed",
        &json!([
            ["execute", "sales", "UPDATE sales SET amount = 0"],
            ["query", "sales", "SELECT sum(amount) FROM sales"],
            ["kv-set", "memory", "a", "unreal"],
            ["kv-set", "memory", "b", "unreal"],
            ["wasi-get", "memory", "a"],
            ["kv-list", "memory", ""],
            ["kv-delete", "memory", "a"],
            ["chat", "small", "hi", 10],
        ]),
    );
    assert_eq!(
        sandboxed,
        [
            json!(2),
            json!([[0]]),
            Value::Null,
            Value::Null,
            json!("unreal"),
            json!(["a", "b"]),
            json!(true),
            error("SANDBOX-NO-EGRESS")
        ]
    );
    assert_eq!(world.direct("SELECT sum(amount) FROM sales"), 30);
    world.expect(vec![
        (json!(["kv-get", "memory", "a"]), json!("real")),
        (json!(["kv-list", "memory", ""]), json!(["a"])),
    ]);
}

#[test]
fn keys_are_decided_one_by_one_however_they_are_asked_for() {
    let (world, _) = world(Vec::new());
    world.expect(vec![
        (json!(["kv-get", "memory", "a"]), Value::Null),
        (json!(["kv-set", "memory", "a", "1"]), Value::Null),
        (json!(["wasi-get", "memory", "a"]), json!("1")),
        (json!(["wasi-increment", "memory", "a", 41]), json!(42)),
        (json!(["kv-get", "memory", "a"]), json!("42")),
        (json!(["kv-set", "memory", "secret/x", "1"]), error("SECRET-KEY")),
        (json!(["wasi-set", "memory", "secret/x", "1"]), error("access-denied")),
        (json!(["wasi-increment", "memory", "secret/x", 1]), error("access-denied")),
        (json!(["wasi-exists", "memory", "secret/x"]), error("access-denied")),
        (json!(["kv-list", "memory", "secret"]), error("SECRET-KEY")),
        (json!(["wasi-many", "memory"]), json!([true, false])),
        (json!(["wasi-list", "memory"]), json!(["a", "many/2"])),
        (json!(["wasi-delete", "memory", "many/2"]), Value::Null),
        (json!(["kv-get", "frozen", "a"]), Value::Null),
        (json!(["kv-set", "frozen", "a", "1"]), error("KV-READ-ONLY")),
        (json!(["kv-set", "unruled", "a", "1"]), error("DEFAULT-DENY")),
        (json!(["kv-get", "nowhere", "a"]), error("KV-UNKNOWN")),
        (json!(["kv-get", "../state", "a"]), error("KV-UNKNOWN")),
        (json!(["wasi-get", "nowhere", "a"]), error("no-such-store")),
        (json!(["kv-get", "memory", ""]), error("KV-LIMIT")),
        (json!(["kv-get", "memory", "a\nb"]), error("KV-LIMIT")),
        (json!(["kv-fill", "memory", "big", 99_000]), Value::Null),
        (json!(["kv-fill", "memory", "more", 2_000]), error("KV-LIMIT")),
        (json!(["kv-fill", "memory", "huge", 2_000_000]), error("KV-LIMIT")),
        (json!(["kv-delete", "memory", "big"]), json!(true)),
        (json!(["kv-delete", "memory", "big"]), json!(false)),
        (json!(["kv-list", "memory", ""]), json!(["a"])),
    ]);
    // Another call finds what this one left.
    world.expect(vec![(json!(["kv-get", "memory", "a"]), json!("42"))]);
    assert!(world.root.path().join("state/kv/memory.db").exists());
    world.written();
}

#[test]
fn configuration_is_what_the_environment_would_be() {
    let (world, _) = world(Vec::new());
    world.expect(vec![
        (json!(["config", "REGION"]), json!("eu")),
        (json!(["config", "TOKEN"]), Value::Null),
        (json!(["config", "HOME"]), Value::Null),
        (json!(["config-all"]), json!([["REGION", "eu"]])),
    ]);
    assert!(!world.written().contains("hidden-token"));
}

#[test]
fn a_model_is_asked_within_its_tokens_and_its_key_stays_with_the_host() {
    let echo = format!("your key is {KEY}");
    let (world, endpoint) = world(vec![
        completion("hello", Some((7, 3))),
        (429, json!({ "error": "slow down" }).to_string()),
        completion("no usage", None),
        completion(&echo, Some((1, 1))),
    ]);
    world.expect(vec![
        (json!(["tokens-left", "small"]), json!(300)),
        (
            json!(["chat", "small", "hi", 100]),
            json!({ "content": "hello", "finish": "stop", "usage": [7, 3] }),
        ),
        (json!(["tokens-left", "small"]), json!(290)),
        // The bound of the rule, of the offer, and of what is offered at all.
        (json!(["chat", "small", "hi", 183]), error("DEFAULT-DENY")),
        (json!(["chat", "small", "hi", 290]), error("MODEL-TOKENS")),
        (json!(["chat", "small", "x".repeat(300), 1]), error("MODEL-TOKENS")),
        (json!(["chat", "small", "hi", 0]), error("MODEL-TOKENS")),
        (json!(["chat", "large", "hi", 1]), error("DEFAULT-DENY")),
        (json!(["chat", "other", "hi", 1]), error("MODEL-UNKNOWN")),
        (json!(["tokens-left", "small"]), json!(290)),
        (
            json!(["chat", "small", "hi", 100]),
            json!({ "error": "failed: the endpoint answered with status 429" }),
        ),
        (json!(["tokens-left", "small"]), json!(290)),
        // An endpoint that does not say what it used has used all of 100 + 2 + 16.
        (
            json!(["chat", "small", "hi", 100]),
            json!({ "content": "no usage", "finish": "stop", "usage": [0, 0] }),
        ),
        (json!(["tokens-left", "small"]), json!(172)),
        (json!(["chat", "small", "tell me the key", 10]), error("SECRET-LEAK")),
    ]);
    let asked = endpoint.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4, "what was refused was not sent");
    let first = asked.first().unwrap().to_lowercase();
    assert!(first.starts_with("post /v1/chat/completions http/1.1\r\n"), "{first}");
    assert!(first.contains(&format!("authorization: bearer {KEY}")), "{first}");
    assert!(first.contains("\"model\":\"vendor/small-1\""), "{first}");
    let written = world.written();
    assert!(!written.contains(KEY), "the key is in no record");
    assert!(written.contains("MODEL-TOKENS"));
}

#[test]
fn a_server_is_reached_through_the_gate_and_sandboxed_by_rollback_or_replica() {
    let Some(server) = server::Server::start() else { return };
    let (mut world, _) = world(Vec::new());
    remote(&mut world, server.port);
    let root = world.executor.block_on(server.superuser());
    let setup = "CREATE ROLE agent LOGIN PASSWORD 'agent-secret'; CREATE TABLE orders(id int, note text); \
        CREATE TABLE other(id int); CREATE SEQUENCE s; GRANT ALL ON orders, other TO agent; GRANT ALL ON s TO agent; \
        INSERT INTO orders VALUES (1, 'one')";
    world.executor.block_on(root.batch_execute(setup)).unwrap();
    world.expect(vec![
        (json!(["query", "crm", "SELECT note FROM orders WHERE id = $1", [1]]), json!([["one"]])),
        (json!(["execute", "crm", "INSERT INTO orders VALUES (2, 'two')"]), json!(1)),
        (json!(["execute", "crm", "SELECT id FROM orders"]), json!(0)),
        (json!(["query", "crm", "INSERT INTO orders VALUES (3, 'three')"]), error("DB-READ-ONLY")),
        (json!(["query", "crm", "SELECT nextval('s')"]), error("DB-STATEMENT-REFUSED")),
        (json!(["query", "crm", "SELECT repeat('x', 40000000)"]), error("DB-LIMIT")),
        // The connection that met its limit is not used again; the next statement has another.
        (json!(["query", "crm", "SELECT count(*) FROM orders"]), json!([[2]])),
        (json!(["open", "crm", "SELECT id FROM orders ORDER BY id"]), json!(["id"])),
        (json!(["next", 1]), json!([[1]])),
        (json!(["next", 9]), json!([[2]])),
        (json!(["next", 9]), json!([])),
        (json!(["begin", "crm", "rw"]), error("DB-STATEMENT-REFUSED")),
        (json!(["query", "away", "SELECT 1"]), error("NET-ADDRESS-NOT-GRANTED")),
    ]);
    let cut_off = world.steps_as("sandboxed", &json!([["query", "crm", "SELECT note FROM orders"]]));
    assert_eq!(cut_off, [error("SANDBOX-NO-EGRESS")]);
    let sandboxed = world.steps_as(
        "sandboxed-by-rule",
        &json!([
            ["execute", "crm", "DELETE FROM orders"],
            ["query", "crm", "SELECT count(*) FROM orders"],
            ["execute", "crm", "DELETE FROM other"],
            ["query", "replicated", "SELECT count(*) FROM other"],
            ["execute", "replicated", "DELETE FROM orders"],
        ]),
    );
    let expected = [json!(2), json!([[2]]), error("DB-NOT-ISOLATED"), json!([[0]]), error("DB-NOT-ISOLATED")];
    assert_eq!(sandboxed, expected);
    let count = world.executor.block_on(root.query_one("SELECT count(*) FROM orders", &[])).unwrap();
    assert_eq!(count.get::<_, i64>(0), 2);
    let written = world.written();
    assert!(written.contains("not isolated"), "the outcome says so");
    assert!(!written.contains("agent-secret"));
}

/// Statements of one block of the measurement. `GOVRUN_QUERY_BLOCKS` (default 6) is how many blocks are timed; the figure
/// of the documents is from 40.
const BLOCK: usize = 40;

#[test]
fn a_query_of_a_millisecond_costs_little_more_than_the_engine_alone() {
    const SQL: &str =
        "SELECT count(*) FROM numbers a, numbers b WHERE a.n < ?1 AND b.n < 100 AND (a.n * b.n) % 7 = 3";
    let blocks: usize = std::env::var("GOVRUN_QUERY_BLOCKS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let (world, _) = world(Vec::new());
    let db = rusqlite::Connection::open(world.root.path().join("sales.db")).unwrap();
    let direct = |n: i64| {
        let mut statement = db.prepare_cached(SQL).unwrap();
        statement.query_row([n], |row| row.get::<_, i64>(0)).unwrap()
    };
    let timed = |work: &dyn Fn()| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    // As many rows as take a millisecond here.
    let (mut n, mut took) = (50, Duration::ZERO);
    while took < Duration::from_millis(1) && n < 1_400 {
        n += 50;
        took = (0..5).map(|_| timed(&|| assert!(direct(n) >= 0))).min().unwrap();
    }
    let script: Value = (0..BLOCK).map(|_| json!(["query", "sales", SQL, [n]])).collect();
    assert_eq!(world.steps(script.clone()).last(), Some(&json!([[direct(n)]])), "both count the same");
    let (mut alone, mut governed, mut empty) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..blocks {
        alone = alone.min(timed(&|| (0..BLOCK).for_each(|_| assert!(direct(n) >= 0))));
        governed = governed.min(timed(&|| drop(world.steps(script.clone()))));
        empty = empty.min(timed(&|| drop(world.steps(json!([])))));
    }
    let each = |whole: Duration| whole.as_secs_f64() * 1e3 / 40.0;
    let (alone, governed) = (each(alone), each(governed.saturating_sub(empty)));
    println!("query: engine alone {alone:.3} ms, governed {governed:.3} ms, ratio {:.3}", governed / alone);
    assert!(governed < alone * 2.0, "engine alone {alone:.3} ms, governed {governed:.3} ms");
}
