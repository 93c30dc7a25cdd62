//! What governing a file costs: the same guest program, timed by itself, governed and under plain wasmtime, in turns.
//!
//! `stat` and `open and read` are a decision with its record and its outcome each; `held read` is 64 KiB through a file
//! that is open already, which one grant covers.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented items; a bench fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
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

const PROBE: &[u8] = include_bytes!("../../guest-examples/prebuilt/probe.wasm");
const POLICY: &str = r#"
schema = 1
[env.bench]
[[agent]]
name = "bench"
[[rule]]
id = "all"
match = { action = "*" }
verdict = "allow"
"#;
/// Operations of one run of the guest.
const TURNS: u64 = 1_000;

struct Plain {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

struct Both {
    executor: tokio::runtime::Runtime,
    engine: Engine,
    component: Component,
    linker: Linker<Plain>,
    runtime: Arc<Runtime>,
    who: Who,
    tool: Tool,
    data: PathBuf,
}

fn words(operation: &str) -> Vec<String> {
    let mut words = vec!["probe".to_owned(), "repeat".to_owned(), TURNS.to_string()];
    words.extend(operation.split(' ').map(str::to_owned));
    words
}

impl Both {
    fn new(root: &Path) -> Self {
        let data = root.join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), vec![7; 64 << 10]).unwrap();
        let keys = KeyStore::init(&root.join("keys"), "bench.govrun.local/log").unwrap();
        let trust = Trust::load(&root.join("keys/trust.toml")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = Log::open(&root.join("audit"), &keys, Arc::clone(&clock)).unwrap();
        let files = vec![SourceFile { path: "govrun.toml".into(), text: POLICY.into() }];
        let policy = Arc::new(Policy::compile(&Sources { files }).unwrap());
        let who = Who { agent: policy.agent("bench").unwrap(), session: "bench".into(), hold: None };
        let store = State::open(root).unwrap();
        let webhooks = Webhooks::new();
        let gate =
            Gate::open(Parts { policy, log, store, clock, trust, webhooks, waits: Box::new(()) }).unwrap();
        let engine = engine().unwrap();
        let admitted =
            Inspected::from_bytes(&engine, None, Path::new("probe.wasm"), PROBE).unwrap().admit().unwrap();
        let component = Component::from_binary(&engine, PROBE).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        let tool = Tool { name: "probe".into(), component: admitted, offers: Offers::default() };
        let runtime = Runtime::new(engine.clone(), gate, Vec::new()).unwrap();
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { executor, engine, component, linker, runtime, who, tool, data: data.canonicalize().unwrap() }
    }

    /// Nanoseconds for each operation, as the guest saw it.
    fn plain(&self, operation: &str) -> u64 {
        let out = MemoryOutputPipe::new(1 << 16);
        let mut ctx = WasiCtx::builder();
        ctx.args(&words(operation)).stdout(out.clone()).allow_blocking_current_thread(true);
        ctx.preopened_dir(&self.data, "/data", FsPerms::ReadWrite).unwrap();
        let mut store = Store::new(&self.engine, Plain { ctx: ctx.build(), table: ResourceTable::new() });
        store.set_fuel(u64::MAX / 2).unwrap();
        store.set_epoch_deadline(1_000_000);
        self.executor.block_on(async {
            let command =
                Command::instantiate_async(&mut store, &self.component, &self.linker).await.unwrap();
            command.wasi_cli_run().call_run(&mut store).await.unwrap().unwrap();
        });
        std::str::from_utf8(&out.contents()).unwrap().trim().parse().unwrap()
    }

    fn governed(&self, operation: &str) -> u64 {
        let dirs = vec![(self.data.clone(), "/data".to_owned(), FsMode::ReadWrite)];
        let tool = Tool {
            offers: Offers { args: words(operation), dirs, ..Offers::default() },
            ..self.tool.clone()
        };
        let answer = self.executor.block_on(self.runtime.command(&self.who, &tool)).unwrap();
        answer.stdout.trim().parse().unwrap()
    }
}

fn files(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let both = Both::new(folder.path());
    let mut group = c.benchmark_group("files");
    for (name, operation) in
        [("stat", "stat /data/file"), ("open and read", "read /data/file"), ("held read", "held /data/file")]
    {
        let (mut plain, mut governed): (Vec<u64>, Vec<u64>) =
            (0..15).map(|_| (both.plain(operation), both.governed(operation))).unzip();
        plain.sort_unstable();
        governed.sort_unstable();
        let (floor, ours) = (plain.get(7).copied().unwrap(), governed.get(7).copied().unwrap());
        let ratio = Duration::from_nanos(ours).as_secs_f64() / Duration::from_nanos(floor).as_secs_f64();
        println!("{name}: plain p50 {floor} ns, governed p50 {ours} ns, ratio {ratio:.2}");
        group.bench_function(format!("governed {name}"), |b| {
            b.iter_custom(|turns| {
                Duration::from_nanos(both.governed(operation)).saturating_mul(turns.try_into().unwrap())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, files);
criterion_main!(benches);
