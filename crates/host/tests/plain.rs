//! A program that knows nothing of govrun behaves under a policy that allows everything as it does under plain wasmtime:
//! the same answers to the same operations, and the same tree afterwards. The differences are listed, and tested as such.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store as State;
use govrun_host::component::Inspected;
use govrun_host::wasmtime::component::{Component, Linker, ResourceTable};
use govrun_host::wasmtime::{Engine, Store};
use govrun_host::{Gate, Offers, Parts, Runtime, Tool, Webhooks, Who, engine};
use govrun_policy::{Policy, SourceFile, Sources};
use govrun_verdict::FsMode;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};

const POLICY: &str = r#"
schema = 1
[env.test]
[[agent]]
name = "a"
[[rule]]
id = "everything"
match = { action = "*" }
verdict = "allow"
"#;

/// What std::fs can do, the errors too.
const OPERATIONS: &[&str] = &[
    "read /data/a.txt",
    "read /data/none",
    "read /data/tree",
    "read /data/a.txt/x",
    "write /data/new.txt text",
    "write /data/a.txt text",
    "write /data/tree text",
    "write /data/none/x text",
    "append /data/a.txt more",
    "append /data/none more",
    "overwrite /data/a.txt AL",
    "overwrite /data/none x",
    "truncate /data/a.txt 2",
    "truncate /data/a.txt 100",
    "truncate /data/none 1",
    "create-new /data/fresh",
    "create-new /data/a.txt",
    "create-new /data/tree",
    "ls /data",
    "ls /data/tree",
    "ls /data/a.txt",
    "ls /data/none",
    "stat /data/a.txt",
    "stat /data/tree",
    "stat /data/none",
    "stat /data/to-file",
    "stat /data/dangling",
    "read /data/to-file",
    "read /data/to-dir/x.txt",
    "read /data/dangling",
    "read /data/loop",
    "write /data/to-file changed",
    "append /data/to-dir/x.txt more",
    "ls /data/to-dir",
    "mkdir /data/made",
    "mkdir /data/tree",
    "mkdir /data/none/x",
    "mkdirs /data/one/two/three",
    "rmdir /data/empty",
    "rmdir /data/tree",
    "rmdir /data/a.txt",
    "rmdir /data/none",
    "rm /data/a.txt",
    "rm /data/tree",
    "rm /data/none",
    "rm /data/to-file",
    "rmall /data/tree",
    "rmall /data/none",
    "rename /data/a.txt /data/b.txt",
    "rename /data/a.txt /data/tree/x.txt",
    "rename /data/a.txt /data/a.txt",
    "rename /data/a.txt /data/tree",
    "rename /data/a.txt /data/none/x",
    "rename /data/none /data/x",
    "rename /data/empty /data/moved",
    "rename /data/empty /data/tree",
    "rename /data/empty /data/a.txt",
    "rename /data/a.txt /other/a.txt",
    "copy /data/a.txt /other/copy.txt",
    "copy /data/none /other/copy.txt",
    "times /data/a.txt 1000000000",
    "times /data/none 1",
    "modified /data/a.txt",
    "hash /data/none",
    "tree /data",
    "read /data/../data/a.txt",
    "read /data/./tree/../a.txt",
    "read /etc/passwd",
];

/// What is refused on purpose, with what plain wasmtime says to it.
const DIFFERENT: &[(&str, &str)] = &[
    ("link /data/a.txt /data/alias", "ok"),
    ("symlink a.txt /data/alias", "ok"),
    ("read /data/twin", "twin"),
    ("rename /data/tree /data/moved", "ok"),
    ("rename /data/to-file /data/moved", "ok"),
];

fn plant(root: &Path) {
    for dir in ["data/tree", "data/empty", "other"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    for (file, contents) in [("data/a.txt", "alpha"), ("data/tree/x.txt", "x"), ("data/twin", "twin")] {
        std::fs::write(root.join(file), contents).unwrap();
    }
    std::fs::hard_link(root.join("data/twin"), root.join("twin")).unwrap();
    for (target, link) in
        [("a.txt", "to-file"), ("tree", "to-dir"), ("nothing", "dangling"), ("loop", "loop")]
    {
        symlink(target, root.join("data").join(link)).unwrap();
    }
    for file in ["data/a.txt", "data/tree/x.txt"] {
        let file = std::fs::File::options().write(true).open(root.join(file)).unwrap();
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890);
        file.set_times(std::fs::FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    }
}

/// Path, kind, contents and whether it was touched.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let contents = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let modified = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let time = if modified < 1_500_000_000 { modified } else { 0 };
            let shown = format!("{:?} {time} {contents:?}", meta.file_type());
            seen.insert(path.strip_prefix(root).unwrap().to_owned(), shown);
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    seen
}

struct Plain {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

fn probe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-examples/prebuilt/probe.wasm")
}

fn words(operation: &str) -> Vec<String> {
    ["probe", "script", operation].map(str::to_owned).to_vec()
}

struct Both {
    executor: tokio::runtime::Runtime,
    engine: Engine,
    component: Component,
    linker: Linker<Plain>,
    runtime: Arc<Runtime>,
    who: Who,
    tool: Tool,
    _state: tempfile::TempDir,
}

impl Both {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let at = |name: &str| state.path().join(name);
        let keys = KeyStore::init(&at("keys"), "test.govrun.local/log").unwrap();
        let trust = Trust::load(&at("keys/trust.toml")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = Log::open(&at("audit"), &keys, Arc::clone(&clock)).unwrap();
        let files = vec![SourceFile { path: "govrun.toml".into(), text: POLICY.into() }];
        let policy = Arc::new(Policy::compile(&Sources { files }).unwrap_or_else(|e| unreachable!("{e}")));
        let who = Who { agent: policy.agent("a").unwrap(), session: "a".into(), hold: None };
        let store = State::open(&at("state")).unwrap();
        let webhooks = Webhooks::new();
        let gate =
            Gate::open(Parts { policy, log, store, clock, trust, webhooks, waits: Box::new(()) }).unwrap();
        let engine = engine().unwrap();
        let admitted = Inspected::load(&engine, None, &probe()).unwrap().admit().unwrap();
        let component = Component::from_file(&engine, probe()).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        let tool = Tool { name: "probe".into(), component: admitted, offers: Offers::default() };
        let runtime = Runtime::new(engine.clone(), gate, Vec::new()).unwrap();
        let executor =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { executor, engine, component, linker, runtime, who, tool, _state: state }
    }

    fn plain(&self, root: &Path, operation: &str) -> String {
        let out = MemoryOutputPipe::new(1 << 20);
        let mut ctx = WasiCtx::builder();
        ctx.args(&words(operation)).stdout(out.clone());
        for name in ["data", "other"] {
            ctx.preopened_dir(root.join(name), format!("/{name}"), FsPerms::ReadWrite).unwrap();
        }
        let mut store = Store::new(&self.engine, Plain { ctx: ctx.build(), table: ResourceTable::new() });
        store.set_fuel(u64::MAX / 2).unwrap();
        store.set_epoch_deadline(1_000_000);
        self.executor.block_on(async {
            let command =
                Command::instantiate_async(&mut store, &self.component, &self.linker).await.unwrap();
            command.wasi_cli_run().call_run(&mut store).await.unwrap().unwrap();
        });
        answer(std::str::from_utf8(&out.contents()).unwrap())
    }

    fn governed(&self, root: &Path, operation: &str) -> String {
        let root = root.canonicalize().unwrap();
        let dirs = ["data", "other"].map(|name| (root.join(name), format!("/{name}"), FsMode::ReadWrite));
        let offers = Offers { args: words(operation), dirs: dirs.to_vec(), ..Offers::default() };
        let tool = Tool { offers, ..self.tool.clone() };
        let ran = self.executor.block_on(self.runtime.command(&self.who, &tool));
        answer(&ran.unwrap_or_else(|error| unreachable!("{operation}: {error}")).stdout)
    }

    fn trees(&self) -> (tempfile::TempDir, tempfile::TempDir) {
        let both = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        plant(both.0.path());
        plant(both.1.path());
        both
    }
}

fn answer(printed: &str) -> String {
    printed.split_once(" => ").map(|(_, answer)| answer.trim().to_owned()).unwrap()
}

#[test]
fn std_fs_behaves_as_under_plain_wasmtime() {
    let both = Both::new();
    let mut fine = 0;
    for operation in OPERATIONS {
        let (plain, governed) = both.trees();
        let expected = both.plain(plain.path(), operation);
        assert_eq!(both.governed(governed.path(), operation), expected, "{operation}");
        assert_eq!(tree(governed.path()), tree(plain.path()), "{operation}");
        fine += usize::from(!expected.starts_with("error"));
    }
    assert!(fine > 30, "only {fine} operations succeed under plain wasmtime");
}

#[test]
fn what_differs_from_plain_wasmtime_is_refused_and_changes_nothing() {
    let both = Both::new();
    for (operation, expected) in DIFFERENT {
        let (plain, governed) = both.trees();
        let before = tree(governed.path());
        assert_eq!(both.plain(plain.path(), operation), *expected, "{operation}");
        let refused = both.governed(governed.path(), operation);
        assert!(refused.starts_with("error"), "{operation}: {refused}");
        assert_eq!(tree(governed.path()), before, "{operation}");
    }
}
