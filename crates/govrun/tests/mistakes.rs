//! Mistakes people make: one sentence, the documented exit code, no record lost and no door opened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{component, govrun, records, root, text};

const ASKED: &str = r#"search("supplier")"#;

fn search(state: &Path) -> (i32, String) {
    let policy = root().join("policies").display().to_string();
    let wasm = component("search.wasm");
    said(govrun(state, &["call", "--policy", &policy, "--agent", "research-1", &wasm, ASKED]))
}

fn said(out: std::process::Output) -> (i32, String) {
    let said = text(&out.stderr);
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
    (out.status.code().unwrap(), said)
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(search(state.path()).0, 0);
    let key = state.path().join("keys/logs.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = search(state.path());
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("chmod") && said.contains("logs.key"), "{said}");
}

#[test]
fn a_log_is_never_continued_with_another_key_or_without_one() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(search(state.path()).0, 0);
    let before = records(state.path()).len();
    let keys = state.path().join("keys");
    std::fs::rename(&keys, state.path().join("old")).unwrap();
    let (code, said) = search(state.path());
    assert_eq!(code, 8, "no new keys beside an old log: {said}");
    assert_eq!(govrun(state.path(), &["keys", "init"]).status.code(), Some(0));
    let (code, said) = search(state.path());
    assert!(code == 9 || code == 8, "{code} {said}");
    assert_eq!(records(state.path()).len(), before, "nothing was added");
}

#[test]
fn a_state_directory_that_is_a_file_is_said_to_be() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("state");
    std::fs::write(&file, "x").unwrap();
    let (code, said) = search(&file);
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("state"), "{said}");
}

#[test]
fn what_is_not_a_component_is_told_apart() {
    let state = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("module.wasm", b"\0asm\x01\0\0\0", "core WebAssembly module"),
        ("garbage.wasm", b"not wasm at all", "not a valid WebAssembly component"),
        ("empty.wasm", b"", "not a valid WebAssembly component"),
    ];
    for (name, bytes, told) in cases {
        let file = state.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let (code, said) = said(govrun(state.path(), &["inspect", &file.display().to_string()]));
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(told), "{name}: {said}");
    }
}

#[test]
fn a_truncated_component_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let whole = std::fs::read(component("search.wasm")).unwrap();
    let file = state.path().join("half.wasm");
    std::fs::write(&file, whole.get(..whole.len() / 2).unwrap()).unwrap();
    let (code, said) = said(govrun(state.path(), &["inspect", &file.display().to_string()]));
    assert_eq!(code, 2, "{said}");
}

#[test]
fn a_store_that_is_damaged_is_never_made_anew() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(search(state.path()).0, 0);
    std::fs::write(
        state.path().join("state.db"),
        "not a database, and long enough to be taken for one".repeat(100),
    )
    .unwrap();
    let (code, said) = search(state.path());
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("state.db"), "{said}");
}

#[test]
fn a_policy_folder_that_is_not_there_runs_nothing() {
    let state = tempfile::tempdir().unwrap();
    let wasm = component("search.wasm");
    let (code, said) =
        said(govrun(state.path(), &["call", "--policy", "nowhere", "--agent", "research-1", &wasm, ASKED]));
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("nowhere"), "{said}");
    assert!(!state.path().join("audit").exists(), "nothing was begun");
}
