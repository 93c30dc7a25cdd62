//! The main path through the real binary: real components, real policies, a real log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn component(name: &str) -> String {
    root().join("guest-examples/prebuilt").join(name).display().to_string()
}

fn govrun(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_govrun")).arg("--state").arg(state).args(args).output().unwrap()
}

fn call(state: &Path, policy: &Path, agent: &str, wasm: &str, call: &str) -> Output {
    let policy = policy.display().to_string();
    govrun(state, &["call", "--policy", &policy, "--agent", agent, &component(wasm), call])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn records(state: &Path) -> Vec<serde_json::Value> {
    let shown = govrun(state, &["audit", "show"]);
    text(&shown.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_type(records: &[serde_json::Value], kind: &str) -> usize {
    records.iter().filter(|r| r["t"] == kind).count()
}

/// The shipped policies with the ledger at another port.
fn policies_with_ledger(folder: &Path, port: u16) -> PathBuf {
    let copy = folder.join("policies");
    for file in [
        "govrun.toml",
        "finance/agents.toml",
        "finance/payments.toml",
        "finance/lists/counterparties.txt",
        "research/search.toml",
    ] {
        let content = std::fs::read_to_string(root().join("policies").join(file)).unwrap();
        let content = content.replace("8901", &port.to_string());
        let prebuilt = root().join("guest-examples").canonicalize().unwrap().display().to_string();
        let content = content.replace("../guest-examples", &prebuilt);
        let to = copy.join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, content).unwrap();
    }
    copy
}

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
fn a_large_payment_is_escalated_and_does_not_happen() {
    let state = tempfile::tempdir().unwrap();
    let out = call(
        state.path(),
        &root().join("policies"),
        "finance-1",
        "payments.wasm",
        r#"send("Northwind Supplies", 48000)"#,
    );
    assert_eq!(out.status.code(), Some(5), "{}", text(&out.stderr));
    assert_eq!(of_type(&records(state.path()), "outcome"), 0);
}

#[test]
fn a_permitted_payment_reaches_the_ledger_once_as_it_was_decided() {
    let state = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let policies = policies_with_ledger(state.path(), listener.local_addr().unwrap().port());
    let ledger = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut stream = stream;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nref-77").unwrap();
        (head, text(&body))
    });
    let out =
        call(state.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1200)"#);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("ref-77"));
    let (head, body) = ledger.join().unwrap();
    assert!(head.starts_with("POST /payments HTTP/1.1\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
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
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
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
    let broken = state.path().join("broken");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("govrun.toml"), "schema = 1\npakcs = []\n").unwrap();
    let out = govrun(state.path(), &["policy", "check", &broken.display().to_string()]);
    assert_eq!(out.status.code(), Some(8));
    assert!(text(&out.stderr).contains("govrun.toml:2"), "{}", text(&out.stderr));
}
