//! `govrun serve`: agents at the door, over a pipe and over HTTP, with what is on the wire seen as it is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/mcp.rs"]
mod mcp;

mod common;

use std::path::{Path, PathBuf};

use common::{Ledger, govrun, policies_with_ledger, records, text};
use mcp::{Pipe, Site};
use serde_json::{Value, json};

const FINANCE: &str = "finance-token-0123456789abcdef";
const RESEARCH: &str = "research-token-0123456789abcde";

fn config(folder: &Path, policies: &Path) -> PathBuf {
    let file = folder.join("serve.toml");
    let text = format!(
        "policy = '{}'\nhold_s = 1\n\n[stdio]\nagent = 'finance-1'\n\n[http]\nlisten = '127.0.0.1:0'\n\n\
         [[http.agent]]\nname = 'finance-1'\ntoken = 'env:FINANCE'\n\n\
         [[http.agent]]\nname = 'research-1'\ntoken = 'env:RESEARCH'\n",
        policies.display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// What it is, its headers, and the status it gets.
type Attempt<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

fn names(tools: &[Value]) -> Vec<&str> {
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

/// The result's decision as `_meta` tells it, checked against the record it names.
fn recorded(state: &Path, result: &Value) -> Value {
    let told = &result["_meta"]["dev.govrun/decision"];
    let id = told["decision"].as_str().unwrap_or_else(|| panic!("no decision in {result}"));
    let seq: u64 = id.rsplit_once('-').unwrap().1.parse().unwrap();
    let record = records(state)
        .into_iter()
        .find(|r| r["t"] == "decision" && r["seq"] == seq && id.starts_with(r["log"].as_str().unwrap_or("")))
        .unwrap_or_else(|| panic!("no record {id}"));
    assert_eq!(record["verdict"], told["verdict"], "{record}");
    record
}

#[test]
fn an_agent_on_the_pipe_sees_its_tools_and_every_verdict() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let config = config(state.path(), &policies_with_ledger(state.path(), ledger.port));
    let made = govrun(state.path(), &["keys", "approver", "erin", "--role", "treasury"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut pipe = Pipe::open(state.path(), &config);

    let tools = pipe.tools();
    assert_eq!(names(&tools), ["payments.send"], "what policy can never permit is not shown");
    let schema = &tools[0]["inputSchema"];
    assert_eq!(schema["additionalProperties"], false, "{schema}");
    assert_eq!(schema["properties"]["amount"]["maximum"], json!(u64::MAX), "64 bits are exact: {schema}");
    assert_eq!(tools[0]["annotations"]["readOnlyHint"], false);

    let paid = pipe.call("payments.send", &json!({ "counterparty": "Contoso Freight", "amount": 640 }));
    assert_eq!(paid["isError"], false, "{paid}");
    assert_eq!(paid["structuredContent"]["result"], "ref-77", "{paid}");
    assert_eq!(recorded(state.path(), &paid)["verdict"], "allow");

    let blocked =
        pipe.call("payments.send", &json!({ "counterparty": "Helix Offshore Ltd", "amount": 48_000 }));
    assert_eq!(blocked["isError"], true);
    let said = blocked["content"][0]["text"].as_str().unwrap();
    assert!(said.starts_with("blocked, block PAY-OFFLIST-COUNTERPARTY"), "{said}");
    assert_eq!(recorded(state.path(), &blocked)["reason"], "PAY-OFFLIST-COUNTERPARTY");

    let large = json!({ "counterparty": "Northwind Supplies", "amount": 12_000 });
    let pending = pipe.call("payments.send", &large);
    let ticket = pending["_meta"]["dev.govrun/decision"]["ticket"].as_str().unwrap().to_owned();
    let said = pending["content"][0]["text"].as_str().unwrap();
    assert!(said.contains(&format!("pending approval {ticket}")), "{said}");
    assert_eq!(ledger.seen().len(), 1, "nothing happens before the approval");
    let approved = govrun(state.path(), &["approvals", "approve", &ticket, "--as", "erin"]);
    assert!(approved.status.success(), "{}", text(&approved.stderr));
    let paid = pipe.call("payments.send", &large);
    assert_eq!(paid["isError"], false, "the same call attaches: {paid}");
    assert_eq!(ledger.seen().len(), 2);

    let wrong = pipe.call("payments.send", &json!({ "counterparty": "ACME", "amount": -1 }));
    assert!(wrong["content"][0]["text"].as_str().unwrap().contains("expected u64"), "{wrong}");
    let unknown = pipe.ask("tools/call", &json!({ "name": "web.search", "arguments": {} }));
    assert!(unknown["result"]["isError"] == true || unknown["error"]["code"] == -32602, "{unknown}");

    assert_eq!(pipe.close(), 0);
    let verified = govrun(state.path(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
}

#[test]
fn over_http_a_token_says_who_asks_and_nothing_else_does() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let config = config(state.path(), &policies_with_ledger(state.path(), ledger.port));
    let site = Site::open(state.path(), &config, &[("FINANCE", FINANCE), ("RESEARCH", RESEARCH)]);

    let listed = |token: &str| site.ask(token, "tools/list", json!({}));
    assert_eq!(names(listed(FINANCE)["result"]["tools"].as_array().unwrap()), ["payments.send"]);
    let shown = listed(RESEARCH);
    let shown = names(shown["result"]["tools"].as_array().unwrap());
    assert!(shown.contains(&"web.search") && shown.is_sorted(), "{shown:?}");

    let call = json!({ "name": "web.search", "arguments": { "query": "supplier" } });
    let found = site.ask(RESEARCH, "tools/call", call.clone());
    assert_eq!(found["result"]["isError"], false, "{found}");
    assert_eq!(recorded(state.path(), &found["result"])["agent"], "research-1");
    let refused = site.ask(FINANCE, "tools/call", call);
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert_eq!(recorded(state.path(), &refused["result"])["agent"], "finance-1");

    let before = records(state.path()).len();
    let body =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": mcp::initialize() }).to_string();
    let right = format!("Bearer {FINANCE}");
    let attempts: [Attempt<'_>; 6] = [
        ("no token", &[], 401),
        ("another token", &[("authorization", "Bearer finance-token-0123456789abcdee")], 401),
        ("a token without its scheme", &[("authorization", FINANCE)], 401),
        ("a page of another site", &[("authorization", &right), ("origin", "http://evil.example")], 403),
        ("a name that was rebound", &[("authorization", &right), ("host", "evil.example")], 403),
        ("everything right", &[("authorization", &right)], 200),
    ];
    for (what, headers, status) in attempts {
        assert_eq!(site.post(headers, &body).0, status, "{what}");
    }
    let huge = format!("{}{}", body, " ".repeat(3 << 20));
    assert_eq!(site.post(&[("authorization", &right)], &huge).0, 413);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, _) = site.post(&[("authorization", &right)], &deep);
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(records(state.path()).len(), before, "none of them reached a tool");
    assert_eq!(site.close(), 0);
    assert_eq!(govrun(state.path(), &["audit", "verify"]).status.code(), Some(0));
}

#[test]
fn a_configuration_that_is_not_right_serves_nothing_and_repeats_no_secret() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("serve.toml");
    let policies = common::root().join("policies").display().to_string();
    let secret = "hunter2-hunter2-hunter2-hunter2";
    let http = |more: &str| format!("policy = '{policies}'\n[http]\n{more}");
    let cases = [
        ("polcy = 'x'\n".to_owned(), "serve.toml:1"),
        (http("listen = '0.0.0.0:0'\nagent = []\n"), "expose = true"),
        (
            http(&format!(
                "listen = '127.0.0.1:0'\n[[http.agent]]\nname = 'finance-1'\ntoken = '{secret}'\n"
            )),
            "by reference",
        ),
        (
            http("listen = '127.0.0.1:0'\n[[http.agent]]\nname = 'nobody'\ntoken = 'env:PATH'\n"),
            "`nobody` of the configuration is not in the registry",
        ),
        (
            http("listen = '127.0.0.1:0'\n[[http.agent]]\nname = 'finance-1'\ntoken = 'env:SHORT'\n"),
            "fewer than 24 bytes",
        ),
        (format!("policy = '{policies}'\n"), "no `[http]`"),
    ];
    for (text_of, told) in cases {
        std::fs::write(&file, &text_of).unwrap();
        let out = common::command(state.path(), &["serve", "--mcp", "http", "--config"])
            .arg(&file)
            .env("SHORT", "short")
            .output()
            .unwrap();
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(8), "{text_of}: {said}");
        assert!(said.contains(told) && !said.contains(secret), "{text_of}: {said}");
    }
}

/// The Python that has the official SDK: `GOVRUN_PYTHON`, or `python3`; `None`, and said so, where it does not.
#[expect(clippy::disallowed_methods, reason = "where the machine that runs the tests keeps its packages")]
fn python_with_sdk() -> Option<String> {
    let python = std::env::var("GOVRUN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let there = std::process::Command::new(&python).args(["-c", "import mcp"]).output();
    if there.is_ok_and(|out| out.status.success()) {
        return Some(python);
    }
    eprintln!("SKIPPED: `{python}` has no package `mcp`; install it, or name another with GOVRUN_PYTHON");
    None
}

#[test]
fn the_official_python_client_lists_and_calls_over_both_transports() {
    let Some(python) = python_with_sdk() else { return };
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let config = config(state.path(), &policies_with_ledger(state.path(), ledger.port));
    let client = common::root().join("tests/clients/mcp_sdk.py");
    let look = |more: &[&str]| -> Value {
        let out = std::process::Command::new(&python)
            .arg(&client)
            .arg(env!("CARGO_BIN_EXE_govrun"))
            .arg(state.path())
            .arg(&config)
            .args(more)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out.stdout)))
    };
    let site = Site::open(state.path(), &config, &[("FINANCE", FINANCE), ("RESEARCH", RESEARCH)]);
    let url = format!("http://{}/mcp", site.address);
    for (seen, payments) in [(look(&[]), 1), (look(&[&url, FINANCE]), 2)] {
        assert!(seen["version"].as_str().is_some_and(|v| v >= "2025-11-25"), "{seen}");
        assert_eq!(seen["tools"], json!(["payments.send"]), "{seen}");
        assert_eq!(seen["allowed"], json!([false, { "result": "ref-77" }]), "{seen}");
        assert!(seen["blocked"][1].as_str().unwrap().contains("PAY-OFFLIST-COUNTERPARTY"), "{seen}");
        assert!(ledger.seen().len() >= payments, "{seen}");
    }
    assert_eq!(ledger.seen().len(), 2);
    assert_eq!(site.close(), 0);
    assert_eq!(govrun(state.path(), &["audit", "verify"]).status.code(), Some(0));
}
