//! What verifying costs: levels with and without looking into bodies, on one thread and on two, beside the SHA-256 floor of the
//! same bytes; and the check of one proof. The log is written as a busy writer writes it: a seal for every 256 records.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "criterion's macros make undocumented items; a bench fails by panicking"
)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use govrun_audit::prove::{Proof, Prover, leaves};
use govrun_audit::verify::{Ask, Form, Level, verify_asked};
use govrun_audit::{DecisionEntry, Inputs, KeyStore, Log, SystemClock, Trust, certified, hash, read, submit};
use govrun_verdict::{
    Agent, Call, Decision, Digest, Disclosure, Durability, LogId, Matched, Mode, Obligations, Operation,
    ReasonCode, RuleId, Severity, Timestamp, ToolRef, Value, Verdict,
};

const RECORDS: u64 = 300_000;

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

fn decision() -> Decision {
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
        durability: Durability::Os,
        disclosure: Arc::new(Disclosure::default()),
        epoch: Digest::of(b"policy"),
    }
}

fn write(dir: &Path) -> (KeyStore, Trust, LogId) {
    let keys = KeyStore::init(&dir.join("keys"), "example.org/bench").unwrap();
    let log = Log::open(&dir.join("audit"), &keys, Arc::new(SystemClock)).unwrap();
    let (call, decision, id) = (call(), decision(), log.id());
    let inputs = Inputs {
        now: Timestamp(1_764_000_000_000_000),
        budgets: &[],
        bounds: None,
        cohort: None,
        facts: None,
    };
    for _ in 0..RECORDS {
        let entry =
            DecisionEntry { call: &call, decision: &decision, inputs: &inputs, decide_ns: 140, trace: None };
        let _ = log.decision(&entry).unwrap();
    }
    log.close().unwrap();
    let trust = Trust::load(&dir.join("keys/trust.toml")).unwrap();
    (keys, trust, id)
}

fn verification(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (keys, trust, id) = write(dir.path());
    let audit = dir.path().join("audit");
    let mut group = c.benchmark_group("verify");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10);
    let mut lines = Vec::new();
    leaves(&audit, id, |_, record| {
        lines.push(record.line.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    let bytes: usize = lines.iter().map(Vec::len).sum();
    println!("verify: {RECORDS} records of {} bytes", bytes / lines.len());
    group.bench_function("floor, SHA-256 of each line", |b| {
        b.iter(|| lines.iter().map(|line| hash::leaf(line)[0]).fold(0, |a, b| a ^ b));
    });
    for (level, form) in
        [(Level::L1, Form::Relied), (Level::L2, Form::Relied), (Level::L0, Form::All), (Level::L2, Form::All)]
    {
        for threads in [1, 2] {
            let ask = Ask { form, threads, ..Ask::level(level) };
            group.bench_function(format!("{level:?} {form:?}, {threads} threads"), |b| {
                b.iter(|| assert_eq!(verify_asked(&audit, &trust, &ask).exit_code(), 0));
            });
        }
    }
    group.finish();
    proofs(c, &audit, &keys, &trust, id);
}

fn proofs(c: &mut Criterion, audit: &Path, keys: &KeyStore, trust: &Trust, id: LogId) {
    let (note, head) = submit::published(audit, id).unwrap();
    let index = head.size / 3;
    let mut prover = Prover::inclusion(index, head.size).unwrap();
    leaves(audit, id, |leaf, _| {
        prover.push(leaf);
        ControlFlow::Continue(())
    })
    .unwrap();
    let extra = certified::condense(keys.certificate()).unwrap();
    let checkpoint = certified::without_epoch_signature(&note);
    let text = Proof { extra, index, hashes: prover.finish().unwrap(), checkpoint }.text();
    let record = govrun_verdict::DecisionId { log: id, seq: index };
    let line = read::record(audit, record).unwrap().unwrap().line;
    println!("proof: {} bytes, of {} records", text.len(), head.size);
    c.bench_function("check one proof, certificate and signatures included", |b| {
        b.iter(|| certified::check(&text, &line, trust).unwrap());
    });
}

criterion_group!(benches, verification);
criterion_main!(benches);
