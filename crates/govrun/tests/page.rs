//! A refusal that policy wants people to know of reaches them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Ledger, call, policies_with_ledger, text};

fn with_page(folder: &std::path::Path, ledger: u16, webhook: &str) -> std::path::PathBuf {
    let policies = policies_with_ledger(folder, ledger);
    let file = policies.join("finance/payments.toml");
    let rules = std::fs::read_to_string(&file).unwrap();
    let rules =
        rules.replace("severity = \"critical\"", "severity = \"critical\"\nnotify = [\"security-oncall\"]");
    let rules = format!("{rules}\n[notify.security-oncall]\nwebhook = \"{webhook}\"\n");
    std::fs::write(&file, rules).unwrap();
    policies
}

#[test]
fn a_blocked_payment_pages_once_with_its_reason_and_record() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let oncall = Ledger::start();
    let webhook = format!("http://127.0.0.1:{}/page", oncall.port);
    let policies = with_page(state.path(), ledger.port, &webhook);
    let out = call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    assert!(ledger.seen().is_empty(), "the ledger saw nothing");
    let pages = oncall.seen();
    assert_eq!(pages.len(), 1);
    assert!(pages[0].0.starts_with("POST /page HTTP/1.1\r\n"), "{}", pages[0].0);
    let page: serde_json::Value = serde_json::from_str(&pages[0].1).unwrap();
    assert_eq!(page["data"]["reason"], "PAY-OFFLIST-COUNTERPARTY");
    let decision = page["data"]["decision"].as_str().unwrap();
    assert!(text(&out.stderr).contains(decision), "the page names the record: {decision}");
}

#[test]
fn a_receiver_that_is_down_changes_nothing_about_the_refusal() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policies = with_page(state.path(), ledger.port, &format!("http://127.0.0.1:{nobody}/page"));
    let out = call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
}

#[test]
fn a_webhook_that_cannot_be_used_is_a_configuration_error() {
    let state = tempfile::tempdir().unwrap();
    let policies = with_page(state.path(), 1, "env:GOVRUN_TEST_NO_SUCH_VARIABLE");
    let out = call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    assert_eq!(out.status.code(), Some(8), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("GOVRUN_TEST_NO_SUCH_VARIABLE"));
}
