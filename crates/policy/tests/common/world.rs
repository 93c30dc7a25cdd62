//! A small world: random rules about it, and every kind of call in it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fmt::Write as _;
use std::sync::Arc;

use govrun_policy::Policy;
use govrun_verdict::{Agent, Call, Decision, Digest, FsOp, Operation, ToolRef, Value};
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::*;

pub(crate) const AGENTS: &str = "[[agent]]\nname = \"fin-1\"\n[[agent]]\nname = \"fin-2\"\n[[agent]]\nname = \"res-1\"\n\
    [sandbox.s]\nfuel = 5\n[budget.b]\nlimit = 3\nper = \"1h\"\nkey = [\"agent\"]\n[notify.n]\nwebhook = \"env:N\"\n";

/// A rule of the small world, as text.
pub(crate) fn any_rule() -> impl Strategy<Value = String> {
    let agents = select(&["", "agent = \"fin-*\", ", "agent = \"fin-1\", ", "agent = \"*-1\", "][..]);
    let call = (select(&["*", "pay.send", "pay.*", "*.send"][..]), conditions())
        .prop_map(|(tool, when)| (format!("action = \"tool.call\", tool = \"{tool}\""), when));
    let path = select(&["/**", "/data/**", "/data/*", "/data", "/*/a"][..])
        .prop_map(|path| (format!("action = [\"fs.read\", \"fs.write\"], path = \"{path}\""), String::new()));
    let verdict = select(
        &[
            "verdict = \"allow\"",
            "verdict = \"allow\"",
            "verdict = \"allow\"\nlimits = { fuel = 7 }",
            "verdict = \"allow\"\nlimit = [\"b\"]",
            "verdict = \"sandbox\"\nsandbox = \"s\"",
            "verdict = \"escalate\"\nescalate = { to = [\"role:x\"] }\nreason = \"ESC\"",
            "verdict = \"escalate\"\nescalate = { to = [\"role:y\"] }\nreason = \"ESC\"",
            "verdict = \"block\"\nreason = \"BLK\"",
            "verdict = \"block\"\nreason = \"OTHER\"",
            "verdict = \"block\"\nreason = \"BLK\"\nseverity = \"critical\"",
            "verdict = \"block\"\nreason = \"BLK\"\nmode = \"shadow\"",
        ][..],
    );
    (agents, prop_oneof![3 => call, 1 => path], verdict).prop_map(|(agent, (scope, when), verdict)| {
        format!("match = {{ {agent}{scope} }}\n{when}{verdict}\n")
    })
}

pub(crate) fn conditions() -> impl Strategy<Value = String> {
    let number = (select(&["gt", "le", "eq", "ne"][..]), 0..3)
        .prop_map(|(op, n)| format!("\"args.n\" = {{ {op} = {n} }}"));
    let text =
        select(&["in = [\"a\", \"b\"]", "prefix = \"a\"", "eq = \"ab\"", "glob = \"*b\"", "has = true"][..])
            .prop_map(|test| format!("\"args.t\" = {{ {test} }}"));
    let one =
        prop_oneof![number.clone(), text.clone(), (number, text).prop_map(|(n, t)| format!("{n}, {t}"))];
    let table = |key: &'static str| move |c: String| format!("{key} = {{ {c} }}\n");
    prop_oneof![
        2 => Just(String::new()),
        3 => one.clone().prop_map(table("when")),
        1 => one.clone().prop_map(table("unless")),
        1 => (one.clone(), one).prop_map(|(w, u)| format!("when = {{ {w} }}\nunless = {{ {u} }}\n")),
    ]
}

/// Every kind of call of the small world.
pub(crate) fn world() -> Vec<Call> {
    let mut calls = Vec::new();
    for agent in ["fin-1", "fin-2", "res-1"] {
        let by = |operation, tool: &str| Call {
            agent: Arc::new(Agent { name: agent.into(), tenant: None }),
            tool: Arc::new(ToolRef { name: tool.into(), component: Digest([7; 32]) }),
            ..call(operation)
        };
        for path in ["/", "/data", "/data/a", "/data/b", "/data/a/b", "/x", "/x/a"] {
            for op in [FsOp::Read, FsOp::Write] {
                calls.push(by(Operation::Fs { op, path: path.into() }, "x.y"));
            }
        }
        let numbers: Vec<Value> = ["-1", "0", "0.5", "1", "1.5", "2", "3"].map(Value::number).to_vec();
        let unknown = [Value::Null, text("q"), Value::Opaque("NaN".into()), Value::Bool(true)];
        let texts: Vec<Value> = ["", "a", "ac", "ab", "b", "cb", "c", "acb"].map(text).to_vec();
        let not_text = [Value::Null, number(1), Value::Opaque("NaN".into())];
        for tool in ["pay.send", "pay.list", "web.send", "web.get"] {
            for n in numbers.iter().chain(&unknown) {
                for t in texts.iter().chain(&not_text) {
                    let args = vec![("n".to_owned(), n.clone()), ("t".to_owned(), t.clone())];
                    calls.push(by(Operation::ToolCall { args: Value::Record(args) }, tool));
                }
            }
        }
    }
    calls
}

pub(crate) fn numbered(rules: &[String], without: Option<usize>) -> Policy {
    let mut out = AGENTS.to_owned();
    for (at, rule) in rules.iter().enumerate().filter(|(at, _)| Some(*at) != without) {
        write!(out, "[[rule]]\nid = \"r{at}\"\n{rule}").unwrap();
    }
    if rules.len() == 1 && without.is_some() {
        // A policy needs a rule; this one is about nothing in the world.
        out.push_str("[[rule]]\nid = \"z\"\nmatch = { action = \"clock\" }\nverdict = \"allow\"\n");
    }
    policy(&out)
}

/// What anybody would notice of a decision.
pub(crate) fn noticed(d: Decision) -> impl PartialEq + std::fmt::Debug {
    let budgets: Vec<String> = d.budgets.iter().map(|b| format!("{} {}", b.budget.name, b.reason)).collect();
    (d.verdict, d.reason, d.message, d.obligations, d.escalate, (budgets, d.notify, d.severity, d.durability))
}
