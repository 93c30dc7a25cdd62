//! `govrun explain` through the real binary: one decision, told from its record and the archived policy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{Ledger, call, govrun, policies_with_ledger, records, root, text};
use serde_json::Value;

/// The ids of all decisions, oldest first.
fn decisions(state: &Path) -> Vec<String> {
    let shown = govrun(state, &["audit", "show", "--type", "decision", "--format", "human"]);
    text(&shown.stdout).lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
}

fn explain(state: &Path, id: &str) -> (String, Value) {
    let human = govrun(state, &["explain", id]);
    assert_eq!(human.status.code(), Some(0), "{}", text(&human.stderr));
    let json = govrun(state, &["explain", id, "--format", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["schema"], "govrun.explain/v1");
    (text(&human.stdout), json)
}

#[test]
fn a_block_is_explained_from_the_policy_of_then() {
    let state = tempfile::tempdir().unwrap();
    let policies = policies_with_ledger(state.path(), 8901);
    call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    // What stands in the folder today is of no interest.
    std::fs::remove_dir_all(&policies).unwrap();
    let (human, json) = explain(state.path(), &decisions(state.path())[0]);
    for part in [
        "verdict      block",
        "PAY-OFFLIST-COUNTERPARTY",
        "Counterparty ACME is not on the approved list.",
        "args.counterparty = \"ACME\"",
        "args.amount = 48000",
        "pay-offlist at finance/payments.toml:",
        ", decided",
        "| verdict = \"block\"",
        "pay-large at finance/payments.toml:",
    ] {
        assert!(human.contains(part), "{part} is not in:\n{human}");
    }
    assert!(!human.contains("MISSING") && !human.contains("outcome"), "{human}");
    assert!(human.contains("when 1 args.counterparty = \"ACME\": true"), "{human}");
    assert_eq!(json["rule"], "pay-offlist");
    let matched = json["matched"].as_array().unwrap();
    let deciding: Vec<&Value> = matched.iter().filter(|m| m["decided"] == true).collect();
    assert_eq!(deciding.len(), 1);
    assert!(deciding[0]["source"].as_str().unwrap().contains("id = \"pay-offlist\""));
}

#[test]
fn an_allowed_call_shows_its_outcome_and_what_was_decided_inside() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let policies = policies_with_ledger(state.path(), ledger.port);
    call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1200)"#);
    let ids = decisions(state.path());
    let (human, json) = explain(state.path(), &ids[0]);
    assert_eq!(json["outcome"]["status"], "ok", "{human}");
    assert!(json["outcome"]["fuel"].as_u64().unwrap() > 0);
    let inside = json["decided_inside"].as_array().unwrap();
    assert!(inside.iter().any(|d| d["action"] == "http.request"), "{human}");
    let inner = inside.iter().find(|d| d["action"] == "http.request").unwrap()["decision"].as_str().unwrap();
    let (human, json) = explain(state.path(), inner);
    assert_eq!(json["parent"], ids[0].as_str());
    assert!(human.contains(&format!("inside of    {}", ids[0])), "{human}");
    // The host is in clear, the address it led to is shown under the same name's disclosure.
    let connect = inside.iter().find(|d| d["action"] == "net.connect").unwrap()["decision"].as_str().unwrap();
    let (human, _) = explain(state.path(), connect);
    assert!(human.contains("payments-ledger-address at finance/payments.toml:"), "{human}");
}

#[test]
fn budgets_and_committed_fields_are_shown_as_recorded() {
    let state = tempfile::tempdir().unwrap();
    call(state.path(), &root().join("policies"), "research-1", "search.wasm", r#"search("supplier")"#);
    let id = &decisions(state.path())[0];
    let (human, json) = explain(state.path(), id);
    assert!(human.contains("budget       search-hourly"), "{human}");
    assert!(human.contains("0 of 600 used before, admitted as number 1"), "{human}");
    let field = &json["resource"][0];
    assert_ne!(field["how"], "clear");
    // Without openings nothing is left of the value.
    let log = state.path().join("audit").join(id.split('-').next().unwrap()).join("openings.jsonl");
    if log.exists() {
        assert_eq!(field["value"], "supplier");
        std::fs::remove_file(log).unwrap();
    }
    let (human, json) = explain(state.path(), id);
    assert_eq!(json["resource"][0]["how"], "committed");
    assert!(human.contains(" = committed") && !human.contains("\"supplier\""), "{human}");
}

#[test]
fn a_missing_or_changed_archive_is_said_and_the_record_still_shown() {
    let state = tempfile::tempdir().unwrap();
    call(state.path(), &root().join("policies"), "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    let id = &decisions(state.path())[0];
    let archive = state.path().join("audit/policies");
    let bundle = std::fs::read_dir(&archive).unwrap().next().unwrap().unwrap().path();
    let content = std::fs::read(&bundle).unwrap();
    let other = text(&content).replacen("critical", "low     ", 1);
    assert_ne!(other.as_bytes(), content);
    std::fs::write(&bundle, other).unwrap();
    let (human, _) = explain(state.path(), id);
    assert!(human.contains("MISSING") && human.contains("changed or damaged"), "{human}");
    std::fs::remove_file(&bundle).unwrap();
    let (human, json) = explain(state.path(), id);
    assert!(human.contains("PAY-OFFLIST-COUNTERPARTY") && human.contains("is not archived here"), "{human}");
    assert_eq!(json["matched"][0]["source"], Value::Null);
}

#[test]
fn mistakes_have_their_exit_codes() {
    let state = tempfile::tempdir().unwrap();
    call(state.path(), &root().join("policies"), "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    let known = decisions(state.path())[0].clone();
    let outcome = known.replace(known.split('-').nth(1).unwrap(), "0");
    for (id, code) in
        [("nonsense", 2), ("\u{1b}[2J", 2), ("0123456789abcdef-7", 2), (&*outcome, 2), (&*known, 0)]
    {
        let out = govrun(state.path(), &["explain", id]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{id}: {said}");
        assert!(!said.contains('\u{1b}') && !said.contains("panicked"), "{said:?}");
    }
    let out = govrun(state.path(), &["explain", &known, "--audit", "/nonexistent/audit"]);
    assert_eq!(out.status.code(), Some(9), "{}", text(&out.stderr));
}

#[test]
fn what_an_agent_wrote_never_steers_the_terminal() {
    let state = tempfile::tempdir().unwrap();
    let evil = r#"send("\u{1b}[2J\u{9b}31m\u{202e}evil", 1)"#;
    call(state.path(), &root().join("policies"), "finance-1", "payments.wasm", evil);
    let id = decisions(state.path())[0].clone();
    for args in [
        &["explain", &id][..],
        &["explain", &id, "--format", "json"],
        &["audit", "show", "--format", "human"],
        &["audit", "verify", "--format", "json"],
    ] {
        let out = text(&govrun(state.path(), args).stdout);
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!out.chars().any(steers), "{args:?}: {out:?}");
        assert!(out.contains("evil") || args[0] == "audit" && args[1] == "verify", "{out}");
    }
    assert!(!records(state.path()).is_empty());
}

#[test]
fn the_nearest_allowed_call_is_named_and_really_is_allowed() {
    let state = tempfile::tempdir().unwrap();
    let policies = policies_with_ledger(state.path(), 8901);
    call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("ACME", 700)"#);
    let (human, json) = explain(state.path(), &decisions(state.path())[0]);
    // One attribute is enough here, and it is the one that the list is about.
    let changes = json["nearest"]["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{human}");
    let value = changes[0].as_str().unwrap().strip_prefix("args.counterparty = ").unwrap().to_owned();
    assert_eq!(json["nearest"]["rule"], "pay-known");
    let listed = std::fs::read_to_string(policies.join("finance/lists/counterparties.txt")).unwrap();
    assert!(listed.contains(value.trim_matches('"')), "{value}");
    assert!(human.contains("would be allowed by pay-known"), "{human}");
}
