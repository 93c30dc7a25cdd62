//! Shorthand for tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use govrun_policy::{Context, LoadErrors, Policy, SourceFile, Sources};
use govrun_verdict::{
    Agent, Call, DbOp, Decision, Digest, FsOp, HttpTarget, Obligations, Operation, Scheme, Timestamp,
    ToolRef, Value,
};

pub(crate) fn sources(files: &[(&str, &str)]) -> Sources {
    let file = |(path, text): &(&str, &str)| SourceFile { path: (*path).into(), text: (*text).into() };
    Sources { files: files.iter().map(file).collect() }
}

pub(crate) fn try_policy(rules: &str) -> Result<Policy, LoadErrors> {
    Policy::compile(&sources(&[("govrun.toml", &format!("schema = 1\n{rules}"))]))
}

pub(crate) fn policy(rules: &str) -> Policy {
    try_policy(rules).unwrap_or_else(|errors| panic!("{errors}\nin:\n{rules}"))
}

/// The errors of a policy that must not load.
pub(crate) fn refused(rules: &str) -> String {
    match try_policy(rules) {
        Ok(_) => panic!("this must be refused:\n{rules}"),
        Err(errors) => errors.to_string(),
    }
}

pub(crate) fn call(operation: Operation) -> Call {
    Call {
        agent: Arc::new(Agent { name: "finance-1".into(), tenant: Some("acme".into()) }),
        env: "prod".into(),
        session: "s1".into(),
        tool: Arc::new(ToolRef { name: "payments.send".into(), component: Digest([7; 32]) }),
        caller: None,
        parent: None,
        operation,
    }
}

pub(crate) fn tool_call(args: &[(&str, Value)]) -> Call {
    let fields = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    call(Operation::ToolCall { args: Value::Record(fields) })
}

pub(crate) fn fs(op: FsOp, path: &str) -> Call {
    call(Operation::Fs { op, path: path.into() })
}

pub(crate) fn connect(ip: &str) -> Call {
    call(Operation::NetConnect { host: "api.example.com".into(), ip: ip.parse().unwrap(), port: 443 })
}

pub(crate) fn request(host: &str) -> Call {
    call(Operation::HttpRequest(HttpTarget {
        method: "GET".into(),
        scheme: Scheme::Https,
        host: host.into(),
        port: 443,
        path: "/v1/x".into(),
        query: None,
    }))
}

pub(crate) fn query(statement: &str) -> Call {
    call(Operation::Db { op: DbOp::Query, db: "ledger".into(), statement: statement.into(), facts: None })
}

pub(crate) fn text(t: &str) -> Value {
    Value::Text(t.into())
}

pub(crate) fn number(n: i64) -> Value {
    Value::Number(n.into())
}

pub(crate) fn decide(policy: &Policy, call: &Call) -> Decision {
    policy.decide(call, &Context { now: Timestamp(1_800_000_000_000_000), bounds: None })
}

pub(crate) fn decide_within(policy: &Policy, call: &Call, bounds: &Obligations) -> Decision {
    policy.decide(call, &Context { now: Timestamp(1_800_000_000_000_000), bounds: Some(bounds) })
}

/// Verdict, reason and deciding rule as one text.
pub(crate) fn said(decision: &Decision) -> String {
    let rule = decision.rule.as_ref().map_or("-", |r| r.as_str());
    format!("{} {} {rule}", decision.verdict, decision.reason)
}
