//! What one decision costs, and what more rules add to it. Run with `cargo bench -- decide`.
//!
//! The policy is a fleet's: agents, each allowed some tools below an amount, with a budget, an approval above it and a
//! block off the list of counterparties; folders, hosts and variables per tool; and a few rules about everybody. All calls
//! are permitted ones, a third of each: a tool call with a budget, a file, a request.
//!
//! `decide` walks over 48 different calls, the working set of a busy host; `decide-cold` over 3,072, so that at 10,000
//! rules nearly every decision waits for memory.
#![expect(clippy::panic, reason = "a benchmark fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use govrun_policy::{Context, Policy, SourceFile, Sources};
use govrun_verdict::{
    Agent, Call, Digest, FsOp, HttpTarget, Operation, Scheme, Timestamp, ToolRef, Value, Verdict,
};

/// Rules that are about every agent.
const GENERAL: usize = 4;
/// Rules that are about one agent and one tool.
const PER_CELL: usize = 6;

const MANIFEST: &str = r#"
schema = 1
packs = ["fleet"]

[env.prod]
default = { verdict = "block", reason = "DEFAULT-DENY" }

[list.counterparties]
values = ["ACME", "Globex", "Initech"]

[budget.hourly]
limit = 600
per = "1h"
key = ["agent", "tool"]

[[rule]]
id = "no-shadow-files"
match = { action = "fs.*", path = "/etc/**" }
verdict = "block"
reason = "NO-SYSTEM-FILES"

[[rule]]
id = "no-paste-sites"
match = { action = "http.request", host = ["*.pastebin.com", "*.transfer.sh"] }
verdict = "block"
reason = "NO-PASTE-SITES"

[[rule]]
id = "clocks"
match = { action = ["clock", "random"] }
verdict = "allow"

[[rule]]
id = "deleting-needs-somebody"
match = { action = "tool.call", tool = "*.delete" }
verdict = "escalate"
escalate = { to = ["role:ops"] }
reason = "DELETE-NEEDS-APPROVAL"
"#;

fn cell_rules(out: &mut String, cell: usize) {
    let (agent, tool) = names(cell);
    let id = format!("c{cell}");
    let _ = write!(
        out,
        r#"
[[rule]]
id = "{id}-pay"
match = {{ agent = "{agent}", action = "tool.call", tool = "{tool}.send" }}
when = {{ "args.amount" = {{ le = 10_000 }} }}
verdict = "allow"
limit = ["hourly"]

[[rule]]
id = "{id}-large"
match = {{ agent = "{agent}", action = "tool.call", tool = "{tool}.send" }}
when = {{ "args.amount" = {{ gt = 10_000 }} }}
verdict = "escalate"
escalate = {{ to = ["role:treasury"] }}
reason = "PAY-OVER-LIMIT"

[[rule]]
id = "{id}-off-list"
match = {{ agent = "{agent}", action = "tool.call", tool = "{tool}.send" }}
when = {{ "args.counterparty" = {{ not_in_list = "counterparties" }} }}
verdict = "block"
reason = "PAY-OFF-LIST"

[[rule]]
id = "{id}-files"
match = {{ action = ["fs.read", "fs.stat", "fs.list"], tool = "{tool}.*", path = "/data/{tool}/**" }}
verdict = "allow"

[[rule]]
id = "{id}-api"
match = {{ action = "http.request", tool = "{tool}.*", host = "*.{tool}.example.com", scheme = "https", method = ["GET", "POST"] }}
verdict = "allow"

[[rule]]
id = "{id}-env"
match = {{ action = "env.read", tool = "{tool}.*", name = "{tool}_*" }}
verdict = "allow"
"#
    );
}

fn names(cell: usize) -> (String, String) {
    (format!("agent-{}", cell % 97), format!("tool{}", cell / 3))
}

/// A policy of exactly `rules` rules.
fn policy(rules: usize) -> Policy {
    let mut files = vec![SourceFile { path: "govrun.toml".into(), text: MANIFEST.into() }];
    let mut text = String::new();
    for cell in 0..(rules - GENERAL) / PER_CELL {
        cell_rules(&mut text, cell);
        if text.len() > 900_000 {
            files.push(SourceFile { path: format!("fleet/{cell}.toml"), text: std::mem::take(&mut text) });
        }
    }
    for filler in 0..(rules - GENERAL) % PER_CELL {
        let _ = write!(
            text,
            "[[rule]]\nid = \"f{filler}\"\nmatch = {{ action = \"db.query\", db = \"d{filler}\" }}\nverdict = \"allow\"\n"
        );
    }
    files.push(SourceFile { path: "fleet/last.toml".into(), text });
    let policy = Policy::compile(&Sources { files }).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(policy.rules().len(), rules);
    policy
}

fn call(cell: usize, function: &str, operation: Operation) -> Call {
    let (agent, tool) = names(cell);
    Call {
        agent: Arc::new(Agent { name: agent.into(), tenant: None }),
        env: "prod".into(),
        session: "session-1".into(),
        tool: Arc::new(ToolRef { name: format!("{tool}.{function}").into(), component: Digest([7; 32]) }),
        caller: None,
        parent: None,
        operation,
    }
}

/// Permitted calls of all kinds, over all cells.
fn calls(rules: usize) -> Vec<Call> {
    let cells = ((rules - GENERAL) / PER_CELL).max(1);
    let of_cell = |i: usize| {
        // A stride that shares no factor with the number of cells visits all of them.
        let cell = (i * 7919) % cells;
        let (_, tool) = names(cell);
        let args = Value::Record(vec![
            ("counterparty".into(), Value::Text("ACME".into())),
            ("amount".into(), Value::Number(500.into())),
            ("note".into(), Value::Text("invoice 17".into())),
        ]);
        let path = format!("/data/{tool}/2026/report.csv");
        let target = HttpTarget {
            method: "GET".into(),
            scheme: Scheme::Https,
            host: format!("api.{tool}.example.com"),
            port: 443,
            path: "/v1/items".into(),
            query: None,
        };
        [
            call(cell, "send", Operation::ToolCall { args }),
            call(cell, "run", Operation::Fs { op: FsOp::Read, path }),
            call(cell, "run", Operation::HttpRequest(target)),
        ]
    };
    (0..1_024).flat_map(of_cell).collect()
}

/// Calls of the working set.
const WORKING_SET: usize = 48;

fn decide(c: &mut Criterion) {
    for (name, most) in [("decide", WORKING_SET), ("decide-cold", usize::MAX)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for rules in [10, 100, 1_000, 10_000] {
            let policy = policy(rules);
            let calls: Vec<Call> = calls(rules).into_iter().take(most).collect();
            let context = Context { now: Timestamp(1_800_000_000_000_000), bounds: None };
            for call in &calls {
                assert_eq!(policy.decide(call, &context).verdict, Verdict::Allow, "{call:?}");
            }
            let mut next = calls.iter().cycle();
            group.bench_with_input(BenchmarkId::from_parameter(rules), &policy, |b, policy| {
                b.iter(|| next.next().map(|call| policy.decide(black_box(call), &context)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
