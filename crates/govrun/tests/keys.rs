//! `govrun keys` through the real binary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{call, govrun, records, root, text};

fn said(state: &Path, args: &[&str]) -> (i32, String) {
    let out = govrun(state, args);
    (out.status.code().unwrap(), text(&out.stdout) + &text(&out.stderr))
}

fn search(state: &Path) {
    let out = call(state, &root().join("policies"), "research-1", "search.wasm", r#"search("x")"#);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
}

fn log_of(state: &Path) -> String {
    records(state)[0]["log"].as_str().unwrap().to_owned()
}

#[test]
fn keys_are_shown_rotated_and_revoked() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let (code, told) = said(state, &["keys", "show"]);
    assert!(code == 8 && told.contains("keys init"), "{told}");
    assert!(!state.join("keys").exists(), "showing makes nothing");
    search(state);
    let log = log_of(state);
    let (code, told) = said(state, &["keys", "show"]);
    assert!(code == 0 && told.contains("1 of 128 begun"), "{told}");
    assert!(told.contains(&format!("{log}  epoch 1, 31 left")), "stopping ended the first epoch: {told}");
    for file in ["root.key", "log.key", "logs.key", &format!("epochs/{log}.seed")] {
        let secret = std::fs::read_to_string(state.join("keys").join(file)).unwrap();
        let secret = secret.lines().next_back().unwrap().trim_start_matches("seed ");
        assert!(secret.len() == 64 && !told.contains(secret), "{file} is shown");
    }
    let (code, told) = said(state, &["keys", "rotate"]);
    assert!(code == 0 && told.contains("is erased"), "{told}");
    assert!(said(state, &["keys", "show"]).1.contains(&format!("{log}  epoch 3,")));
    assert_eq!(said(state, &["audit", "verify"]).0, 0);

    let size = records(state).len();
    let revoke = |at: usize| said(state, &["keys", "revoke", "--log", &log, "--at", &at.to_string()]);
    assert_eq!(revoke(size).0, 0);
    assert_eq!(said(state, &["audit", "verify"]).0, 0, "everything lies before it");
    let (code, told) = revoke(size - 1);
    assert!(code == 0 && told.contains("pass it on"), "{told}");
    let (code, told) = said(state, &["audit", "verify"]);
    assert!(code == 4 && told.contains("revoked"), "{told}");
    assert_eq!(said(state, &["keys", "revoke", "--log", "nonsense", "--at", "1"]).0, 2);
}

#[test]
fn renewed_keys_begin_another_log_under_the_same_trust_file() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    search(state);
    let (before, trust) = (log_of(state), std::fs::read(state.join("keys/trust.toml")).unwrap());
    let offline = tempfile::tempdir().unwrap();
    let root_key = offline.path().join("root.key");
    std::fs::rename(state.join("keys/root.key"), &root_key).unwrap();
    let (code, told) =
        said(state, &["keys", "renew", "--root", &state.join("keys/log.key").display().to_string()]);
    assert!(code == 8, "another key is not the root: {told}");
    let (code, told) = said(state, &["keys", "renew", "--root", &root_key.display().to_string()]);
    assert_eq!(code, 0, "{told}");
    search(state);
    assert_eq!(std::fs::read(state.join("keys/trust.toml")).unwrap(), trust);
    let logs: Vec<_> = records(state).iter().filter_map(|r| r["log"].as_str().map(str::to_owned)).collect();
    assert!(logs.len() == 2 && logs.contains(&before), "{logs:?}");
    let (code, told) = said(state, &["audit", "verify"]);
    assert_eq!(code, 0, "{told}");
}
