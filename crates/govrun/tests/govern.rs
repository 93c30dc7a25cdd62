//! The main path through the real binary: real components, real policies, a real log.

mod common;

use common::{Ledger, call, govrun, of_type, policies_with_ledger, records, root, text};

#[test]
fn a_payment_to_an_unknown_counterparty_is_blocked_before_the_tool_runs() {
    let state = tempfile::tempdir().unwrap();
    let out =
        call(state.path(), &root().join("policies"), "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("PAY-OFFLIST-COUNTERPARTY"));
    let records = records(state.path());
    assert_eq!((of_type(&records, "decision"), of_type(&records, "outcome")), (1, 0));
}

#[test]
fn a_permitted_payment_reaches_the_ledger_once_as_it_was_decided() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let policies = policies_with_ledger(state.path(), ledger.port);
    let out =
        call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1200)"#);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("ref-77"));
    let seen = ledger.seen();
    assert_eq!(seen.len(), 1);
    let (head, body) = &seen[0];
    assert!(head.starts_with("POST /payments HTTP/1.1\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["counterparty"], &body["amount"]), (&"Northwind Supplies".into(), &1200.into()));
}

#[test]
fn the_six_hundred_and_first_search_is_throttled_also_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let policies = root().join("policies");
    let out = call(
        state.path(),
        &policies,
        "research-1",
        "research-agent.wasm",
        r#"run("search 650 times for supplier risk")"#,
    );
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report = text(&out.stdout).replace('\\', "");
    assert!(
        report.contains("\"answered\":600") && report.contains("\"first_throttled_call\":601"),
        "{report}"
    );
    let out = call(state.path(), &policies, "research-1", "search.wasm", r#"search("x")"#);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("retry after"));
}

#[test]
fn the_log_verifies_until_one_byte_is_flipped() {
    let state = tempfile::tempdir().unwrap();
    let policies = root().join("policies");
    call(state.path(), &policies, "research-1", "search.wasm", r#"search("supplier")"#);
    let verified = govrun(state.path(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    let log = std::fs::read_dir(state.path().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("00000001.jsonl"))
        .find(|path| path.exists())
        .unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let verdict = b"\"verdict\":\"";
    let at = bytes.windows(verdict.len()).position(|window| window == verdict).unwrap() + verdict.len();
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let tampered = govrun(state.path(), &["audit", "verify"]);
    assert_eq!(tampered.status.code(), Some(1), "{}", text(&tampered.stdout));
}

#[test]
fn mistakes_get_one_sentence_and_their_exit_code() {
    let state = tempfile::tempdir().unwrap();
    let policies = root().join("policies");
    let cases: [(&str, &str, &str, i32); 5] = [
        ("nobody", "payments.wasm", r#"send("ACME", 1)"#, 3),
        ("finance-1", "payments.wasm", r#"sendd("ACME", 1)"#, 2),
        ("finance-1", "payments.wasm", r#"send("ACME")"#, 2),
        ("finance-1", "payments.wasm", "send(", 2),
        ("finance-1", "missing.wasm", r#"send("ACME", 1)"#, 2),
    ];
    for (agent, wasm, asked, code) in cases {
        let out = call(state.path(), &policies, agent, wasm, asked);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{agent} {wasm} {asked}: {said}");
        assert!(said.contains("govrun: ") && !said.contains("panicked"), "{said}");
    }
    let unknown: Vec<_> =
        records(state.path()).into_iter().filter(|r| r["reason"] == "AGENT-UNKNOWN").collect();
    assert_eq!(unknown.len(), 1, "who is not registered is refused on the record");
    assert_eq!(unknown[0]["agent"], "unknown:nobody");
    let broken = state.path().join("broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("govrun.toml"), "schema = 1\npakcs = []\n").unwrap();
    let out = govrun(state.path(), &["policy", "check", &broken.display().to_string()]);
    assert_eq!(out.status.code(), Some(8));
    assert!(text(&out.stderr).contains("govrun.toml:2"), "{}", text(&out.stderr));
}
