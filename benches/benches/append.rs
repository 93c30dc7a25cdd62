//! What recording and verifying a decision costs: `append` by durability class, `verify` by level.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "criterion's macros make undocumented items; a bench fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use govrun_audit::verify::{Level, verify};
use govrun_audit::{DecisionEntry, Inputs, KeyStore, Log, SystemClock, Trust};
use govrun_verdict::{
    Agent, Call, Decision, Digest, Disclosure, Durability, Matched, Mode, Obligations, Operation, ReasonCode,
    RuleId, Severity, Timestamp, ToolRef, Value, Verdict,
};

fn call() -> Call {
    let tool = ToolRef { name: "payments.send".into(), component: Digest::of(b"component") };
    Call {
        agent: Arc::new(Agent { name: "finance-1".into(), tenant: Some("acme".into()) }),
        env: "prod".into(),
        session: "s-1".into(),
        tool: Arc::new(tool),
        caller: None,
        parent: None,
        operation: Operation::ToolCall {
            args: Value::Record(vec![
                ("amount".into(), Value::number("120")),
                ("to".into(), Value::Text("DE02100100109307118603".into())),
            ]),
        },
    }
}

fn decision(durability: Durability) -> Decision {
    Decision {
        verdict: Verdict::Allow,
        mode: Mode::Enforce,
        reason: ReasonCode::new("PAY-OK").unwrap(),
        message: String::new(),
        rule: Some(RuleId::new("pay").unwrap()),
        matched: vec![Matched { rule: RuleId::new("pay").unwrap(), unknown: false }],
        shadow: None,
        cohort: None,
        obligations: Obligations::default(),
        budgets: Vec::new(),
        escalate: None,
        notify: Vec::new(),
        severity: Severity::Info,
        durability,
        disclosure: Arc::new(Disclosure::default()),
        epoch: Digest::of(b"policy"),
    }
}

fn append(log: &Log, call: &Call, decision: &Decision) {
    let inputs = Inputs {
        now: Timestamp(1_764_000_000_000_000),
        budgets: &[],
        bounds: None,
        cohort: None,
        facts: None,
    };
    let entry = DecisionEntry { call, decision, inputs: &inputs, decide_ns: 140, trace: None };
    let _ = log.decision(&entry).unwrap();
}

fn open(dir: &Path) -> (KeyStore, Log) {
    let keys = KeyStore::init(&dir.join("keys"), "example.org/bench").unwrap();
    let log = Log::open(&dir.join("audit"), &keys, Arc::new(SystemClock)).unwrap();
    (keys, log)
}

/// Percentiles that criterion does not give: the caller's side of one append.
fn percentiles(name: &str, rounds: usize, mut run: impl FnMut()) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1_000];
    println!("{name}: p50 {:?} p90 {:?} p99 {:?} p99.9 {:?}", at(500), at(900), at(990), at(999));
}

fn appends(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (_keys, log) = open(dir.path());
    let call = call();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    for (name, class, rounds) in [
        ("os", Durability::Os, 200_000),
        ("sealed", Durability::Sealed, 20_000),
        ("disk", Durability::Disk, 500),
    ] {
        let decision = decision(class);
        percentiles(&format!("append/{name}"), rounds, || append(&log, &call, &decision));
        group.bench_function(name, |b| b.iter(|| append(&log, &call, &decision)));
    }
    for (name, class) in [("os, 4 threads", Durability::Os), ("sealed, 4 threads", Durability::Sealed)] {
        let decision = decision(class);
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| (0..rounds.div_ceil(4)).for_each(|_| append(&log, &call, &decision)));
                    }
                });
                start.elapsed()
            });
        });
    }
    group.finish();
    log.close().unwrap();
}

const RECORDS: u64 = 200_000;

fn verification(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (_keys, log) = open(dir.path());
    let (call, decision) = (call(), decision(Durability::Os));
    (0..RECORDS).for_each(|_| append(&log, &call, &decision));
    log.close().unwrap();
    let trust = Trust::load(&dir.path().join("keys/trust.toml")).unwrap();
    let audit = dir.path().join("audit");
    let mut group = c.benchmark_group("verify");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10);
    for level in [Level::L0, Level::L1, Level::L2] {
        group.bench_function(format!("{level:?}"), |b| {
            b.iter(|| assert_eq!(verify(&audit, &trust, level).exit_code(), 0));
        });
    }
    group.finish();
}

criterion_group!(benches, appends, verification);
criterion_main!(benches);
