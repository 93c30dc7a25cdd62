//! What governing costs: the same component, a fresh instance and one call, governed and under plain wasmtime.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented items; a bench fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store as StateStore;
use govrun_host::arguments::Given;
use govrun_host::component::Inspected;
use govrun_host::wasmtime::component::{Component, Linker, ResourceTable, Val};
use govrun_host::wasmtime::{Engine, Store};
use govrun_host::{Gate, Offers, Parts, Runtime, Tool, Webhooks, Who, engine};
use govrun_policy::{Policy, SourceFile, Sources};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

const COMPONENT: &[u8] = include_bytes!("../../guest-examples/prebuilt/search.wasm");
const QUERY: &str = "certificate of insurance";
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

struct Plain {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

fn plain(engine: &Engine) -> (Linker<Plain>, Component) {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    (linker, Component::from_binary(engine, COMPONENT).unwrap())
}

async fn plain_call(engine: &Engine, linker: &Linker<Plain>, component: &Component) -> Val {
    let mut store =
        Store::new(engine, Plain { ctx: WasiCtx::builder().build(), table: ResourceTable::new() });
    store.set_fuel(u64::MAX / 2).unwrap();
    store.set_epoch_deadline(1_000_000);
    let instance = linker.instantiate_async(&mut store, component).await.unwrap();
    let function = instance.get_func(&mut store, "search").unwrap();
    let mut results = [Val::Bool(false)];
    function.call_async(&mut store, &[Val::String(QUERY.into())], &mut results).await.unwrap();
    let [result] = results;
    result
}

fn governed(root: &Path) -> (Arc<Runtime>, Who, Tool) {
    let keys = KeyStore::init(&root.join("keys"), "bench.govrun.local/log").unwrap();
    let trust = Trust::load(&root.join("keys/trust.toml")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&root.join("audit"), &keys, Arc::clone(&clock)).unwrap();
    let files = vec![SourceFile { path: "govrun.toml".into(), text: POLICY.into() }];
    let policy = Arc::new(Policy::compile(&Sources { files }).unwrap());
    let agent = policy.agent("bench").unwrap();
    let store = StateStore::open(root).unwrap();
    let gate = Gate::open(Parts {
        policy,
        log,
        store,
        clock,
        trust,
        webhooks: Webhooks::new(),
        waits: Box::new(()),
    })
    .unwrap();
    let engine = engine().unwrap();
    let component =
        Inspected::from_bytes(&engine, None, Path::new("search.wasm"), COMPONENT).unwrap().admit().unwrap();
    let tool = Tool { name: "web".into(), component, offers: Offers::default() };
    (
        Runtime::new(engine, gate, Vec::new()).unwrap(),
        Who { agent, session: "bench".into(), hold: None },
        tool,
    )
}

fn calls(c: &mut Criterion) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (runtime, who, tool) = governed(folder.path());
    let engine = engine().unwrap();
    let (linker, component) = plain(&engine);
    let given = format!("search({QUERY:?})");
    let answer = executor.block_on(runtime.call(&who, &tool, "search", Given::Wave(&given))).unwrap();
    let expected = executor.block_on(plain_call(&engine, &linker, &component));
    assert_eq!(answer.value, Some(expected), "both run the same thing");
    let mut group = c.benchmark_group("call");
    group.bench_function("plain", |b| {
        b.iter(|| executor.block_on(plain_call(&engine, &linker, &component)));
    });
    group.bench_function("governed", |b| {
        b.iter(|| executor.block_on(runtime.call(&who, &tool, "search", Given::Wave(&given))).unwrap());
    });
    group.finish();
    ratio(
        || drop(executor.block_on(plain_call(&engine, &linker, &component))),
        || drop(executor.block_on(runtime.call(&who, &tool, "search", Given::Wave(&given))).unwrap()),
    );
}

/// Both in turns, so that whatever else the machine does falls on both.
fn ratio(mut plain: impl FnMut(), mut governed: impl FnMut()) {
    let time = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    let mut pairs: Vec<(Duration, Duration)> =
        (0..2_000).map(|_| (time(&mut plain), time(&mut governed))).collect();
    let middle = pairs.len() / 2;
    pairs.sort_unstable_by_key(|pair| pair.0);
    let floor = pairs.get(middle).unwrap().0;
    pairs.sort_unstable_by_key(|pair| pair.1);
    let ours = pairs.get(middle).unwrap().1;
    println!(
        "call: plain p50 {floor:?}, governed p50 {ours:?}, ratio {:.2}",
        ours.as_secs_f64() / floor.as_secs_f64()
    );
}

criterion_group!(benches, calls);
criterion_main!(benches);
