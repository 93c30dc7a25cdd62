//! Every attempt of the escape artist, under a policy that allows everything it can: the floors hold all the same, and the
//! host goes on working after each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_audit::verify::{Level, verify};
use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_host::arguments::Given;
use govrun_host::component::Inspected;
use govrun_host::wasmtime::component::Val;
use govrun_host::{CallError, Gate, Offers, Parts, Runtime, Tool, Webhooks, Who, engine};
use govrun_policy::{Policy, SourceFile, Sources};
use govrun_verdict::FsMode;

const POLICY: &str = r#"
schema = 1
[env.test]
[[agent]]
name = "a"
[[rule]]
id = "everything"
match = { action = "*" }
verdict = "allow"
limits = { fuel = 3_000_000_000, memory = "64MiB", deadline = "5s" }
[[rule]]
id = "secret"
match = { action = "fs.*", path = "/data/secret.txt" }
verdict = "block"
reason = "SECRET"
"#;

struct World {
    root: tempfile::TempDir,
    runtime: Arc<Runtime>,
    log: Log,
    who: Who,
    tool: Tool,
    executor: tokio::runtime::Runtime,
}

fn lay_out(root: &Path) {
    for folder in ["data", "scratch"] {
        std::fs::create_dir(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("outside.txt"), "outside").unwrap();
    std::fs::write(root.join("data/public.txt"), "public").unwrap();
    std::fs::write(root.join("data/secret.txt"), "secret").unwrap();
    symlink("../outside.txt", root.join("data/link")).unwrap();
    let db = rusqlite::Connection::open(root.join("sales.db")).unwrap();
    db.execute_batch("CREATE TABLE sales (region TEXT, month TEXT, amount INTEGER);").unwrap();
    db.execute_batch("INSERT INTO sales VALUES ('n', 'm', 1);").unwrap();
}

fn offers(root: &Path) -> Offers {
    Offers {
        dirs: vec![
            (root.join("data"), "/data".to_owned(), FsMode::ReadOnly),
            (root.join("scratch"), "/scratch".to_owned(), FsMode::ReadWrite),
        ],
        env: BTreeMap::from([("LEDGER_URL".to_owned(), "http://127.0.0.1:9/".to_owned())]),
        args: Vec::new(),
        databases: BTreeMap::from([("sales".to_owned(), (root.join("sales.db"), FsMode::ReadOnly).into())]),
        ..Offers::default()
    }
}

fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    lay_out(root.path());
    let keys = KeyStore::init(&at("keys"), "test.govrun.local/log").unwrap();
    let trust = Trust::load(&at("keys/trust.toml")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&at("audit"), &keys, Arc::clone(&clock)).unwrap();
    let files = vec![SourceFile { path: "govrun.toml".into(), text: POLICY.into() }];
    let policy = Arc::new(Policy::compile(&Sources { files }).unwrap_or_else(|e| unreachable!("{e}")));
    let agent = policy.agent("a").unwrap();
    let store = Store::open(&at("state")).unwrap();
    let parts = Parts {
        policy,
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
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-examples/prebuilt/escape-artist.wasm");
    let component = Inspected::load(&engine, None, &path).unwrap().admit().unwrap();
    let tool =
        Tool { name: "escape".into(), component, offers: offers(&root.path().canonicalize().unwrap()) };
    let runtime = Runtime::new(engine, gate, vec![tool.clone()]).unwrap();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    World { root, runtime, log, who: Who { agent, session: "a".into(), hold: None }, tool, executor }
}

impl World {
    fn call(&self, function: &str, call: &str) -> Result<Option<Val>, CallError> {
        self.executor
            .block_on(self.runtime.call(&self.who, &self.tool, function, Given::Wave(call)))
            .map(|answer| answer.value)
    }
}

fn names(value: Option<Val>) -> Vec<String> {
    let Some(Val::List(items)) = value else { unreachable!("attempts() gives a list") };
    items
        .into_iter()
        .map(|item| match item {
            Val::String(name) => name,
            other => unreachable!("{other:?}"),
        })
        .collect()
}

#[test]
fn no_attempt_escapes_and_the_log_of_all_of_them_verifies() {
    let world = world();
    let attempts = names(world.call("attempts", "attempts()").unwrap());
    assert!(attempts.len() > 90, "{} attempts", attempts.len());
    let sales = std::fs::read(world.root.path().join("sales.db")).unwrap();
    let mut escaped = Vec::new();
    for name in &attempts {
        let begun = std::time::Instant::now();
        let answer = world.call("attempt", &format!("attempt({name:?})"));
        // A trap, a limit or a refusal is the host's answer; a value is the guest's own account.
        let told = match answer {
            Ok(Some(Val::String(report))) => {
                let json: serde_json::Value = serde_json::from_str(&report).unwrap();
                if json.get("escaped").and_then(serde_json::Value::as_bool) != Some(false) {
                    escaped.push(report.clone());
                }
                report
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        println!("{name} ({:?}): {}", begun.elapsed(), told.chars().take(200).collect::<String>());
    }
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
    assert_eq!(names(world.call("attempts", "attempts()").unwrap()), attempts, "the host works as before");
    assert_eq!(
        std::fs::read(world.root.path().join("sales.db")).unwrap(),
        sales,
        "the database is what it was"
    );
    for (file, content) in
        [("data/public.txt", "public"), ("data/secret.txt", "secret"), ("outside.txt", "outside")]
    {
        assert_eq!(std::fs::read_to_string(world.root.path().join(file)).unwrap(), content, "{file}");
    }
    world.log.close().unwrap();
    let trust = Trust::load(&world.root.path().join("keys/trust.toml")).unwrap();
    let report = verify(&world.root.path().join("audit"), &trust, Level::L2);
    assert_eq!(report.exit_code(), 0, "{report}");
}
