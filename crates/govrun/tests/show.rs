//! `govrun audit show` and `audit verify --format json` through the real binary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{call, govrun, root, text};
use serde_json::Value;

fn used() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let policies = root().join("policies");
    call(state.path(), &policies, "research-1", "search.wasm", r#"search("supplier")"#);
    call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    state
}

fn lines(state: &Path, more: &[&str]) -> Vec<String> {
    let args: Vec<&str> = ["audit", "show"].iter().chain(more).copied().collect();
    let out = govrun(state, &args);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    text(&out.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn filters_keep_exactly_what_they_name() {
    let state = used();
    let all: Vec<Value> =
        lines(state.path(), &[]).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    type Holds = fn(&Value) -> bool;
    let cases: [(&[&str], Holds); 9] = [
        (&["--type", "decision"], |r| r["t"] == "decision"),
        (&["--type", "outcome"], |r| r["t"] == "outcome"),
        (&["--agent", "finance-1"], |r| r["agent"] == "finance-1"),
        (&["--tool", "web.search"], |r| r["tool"]["name"] == "web.search"),
        (&["--tool", "payments"], |r| r["tool"]["name"] == "payments.send"),
        (&["--verdict", "block"], |r| r["verdict"] == "block"),
        (&["--reason", "PAY-OFFLIST-COUNTERPARTY"], |r| r["reason"] == "PAY-OFFLIST-COUNTERPARTY"),
        // It matched, though another rule decided.
        (&["--rule", "pay-large"], |r| {
            r["matched"].as_array().is_some_and(|m| m.iter().any(|m| m["rule"] == "pay-large"))
        }),
        (&["--agent", "finance-1", "--verdict", "block"], |r| {
            r["agent"] == "finance-1" && r["verdict"] == "block"
        }),
    ];
    for (filter, holds) in cases {
        let expected = all.iter().filter(|r| holds(r)).count();
        assert!(expected > 0 && expected < all.len(), "{filter:?} says nothing here");
        assert_eq!(lines(state.path(), filter).len(), expected, "{filter:?}");
    }
    for none in [["--agent", "finance"], ["--tool", "pay"], ["--verdict", "escalate"]] {
        assert_eq!(lines(state.path(), &none), [""; 0], "{none:?}");
    }
    for wrong in [["--verdict", "maybe"], ["--type", "decisions"]] {
        let out = govrun(state.path(), &["audit", "show", wrong[0], wrong[1]]);
        assert_eq!(out.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_line_for_people_has_everything_in_its_place() {
    let state = used();
    let shown = lines(state.path(), &["--format", "human", "--agent", "finance-1"]);
    assert_eq!(shown.len(), 1);
    let words: Vec<&str> = shown[0].split_whitespace().collect();
    assert!(words[0].ends_with('Z') && words[0].contains('T') && words[0].len() == 27, "{shown:?}");
    assert!(words[1].len() > 17 && words[1].as_bytes()[16] == b'-', "{shown:?}");
    assert_eq!(
        words[2..],
        [
            "block",
            "PAY-OFFLIST-COUNTERPARTY",
            "finance-1",
            "payments.send",
            "tool.call",
            "args.counterparty=\"ACME\"",
            "args.amount=48000"
        ]
    );
    assert_eq!(lines(state.path(), &["--format", "human"]).len(), lines(state.path(), &[]).len());
}

#[test]
fn a_verification_for_machines_says_what_the_one_for_people_does() {
    let state = used();
    let verify = || {
        let out = govrun(state.path(), &["audit", "verify", "--format", "json"]);
        let json: Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code().unwrap(), json)
    };
    let (code, report) = verify();
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["schema"], "govrun.audit-verify/v1");
    assert_eq!((&report["outcome"], &report["level"]), (&"VERIFIED".into(), &"L2".into()));
    let log = &report["logs"][0];
    assert_eq!(log["status"], "closed");
    assert_eq!(log["records"], lines(state.path(), &[]).len());
    assert_eq!(log["last_seal"]["size"], log["records"]);
    assert!(!report["not_covered"].as_array().unwrap().is_empty());
    let path = state.path().join("audit").join(log["log"].as_str().unwrap()).join("00000001.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, report) = verify();
    assert_eq!((code, &report["exit_code"], &report["outcome"]), (1, &1.into(), &"TAMPERED".into()));
    let finding = &report["logs"][0]["findings"][0];
    assert!(finding["what"].is_string() && finding["place"]["line"].as_u64().unwrap() > 0, "{report:#}");
}
