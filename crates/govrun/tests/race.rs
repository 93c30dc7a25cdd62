//! One budget, many processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use common::{call, root, text};

/// Eight processes at a time make 40 calls against a budget of 30: the same code as 600 of them against 600.
#[test]
fn never_one_call_more_than_the_budget_over_concurrent_processes() {
    let state = tempfile::tempdir().unwrap();
    let policies = state.path().join("policies");
    copy(&root().join("policies"), &policies);
    let file = policies.join("research/search.toml");
    let rules = std::fs::read_to_string(&file).unwrap();
    let prebuilt = root().join("guest-examples").canonicalize().unwrap().display().to_string();
    std::fs::write(&file, rules.replace("limit = 600", "limit = 30").replace("../guest-examples", &prebuilt))
        .unwrap();
    // One call first, so that the keys exist before the race.
    let first = call(state.path(), &policies, "research-1", "search.wasm", r#"search("x")"#);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let (allowed, throttled) = (AtomicU32::new(1), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let out = call(state.path(), &policies, "research-1", "search.wasm", r#"search("x")"#);
                    match out.status.code() {
                        Some(0) => allowed.fetch_add(1, Ordering::SeqCst),
                        Some(4) => throttled.fetch_add(1, Ordering::SeqCst),
                        other => unreachable!("{other:?} {}", text(&out.stderr)),
                    };
                }
            });
        }
    });
    assert_eq!((allowed.into_inner(), throttled.into_inner()), (30, 11));
    let again = call(state.path(), &policies, "research-1", "search.wasm", r#"search("x")"#);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));
    let verified = common::govrun(state.path(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
