//! Compiled components are kept between runs, and nothing that somebody put there is ever run.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use common::{call, govrun, root, text};

fn search(state: &Path) -> Output {
    call(state, &root().join("policies"), "research-1", "search.wasm", "search(\"certificate\")")
}

fn installed() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    assert!(govrun(state.path(), &["keys", "init"]).status.success());
    state
}

fn entries(state: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(state.join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_entry_that_somebody_changed_is_reported_and_never_run() {
    let state = installed();
    let first = search(state.path());
    assert!(first.status.success(), "{}", text(&first.stderr));
    let paths = entries(state.path());
    assert_eq!(paths.len(), 1, "one component, one entry");
    let good = std::fs::read(&paths[0]).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&paths[0], &bad).unwrap();
    let second = search(state.path());
    assert!(second.status.success());
    assert_eq!(second.stdout, first.stdout, "the answer is the component's own");
    assert!(text(&second.stderr).contains("its seal does not hold"), "{}", text(&second.stderr));
    assert_ne!(std::fs::read(&paths[0]).unwrap(), bad, "the entry was replaced");
    let third = search(state.path());
    assert!(!text(&third.stderr).contains("cache"), "{}", text(&third.stderr));
}

#[allow(clippy::disallowed_methods, reason = "the number of runs comes from the environment")]
/// The median of some runs; `GOVRUN_CACHE_RUNS` asks for more of them, and a release build says what users see.
#[test]
fn a_cached_component_starts_without_compiling() {
    let runs: usize = std::env::var("GOVRUN_CACHE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(5);
    let state = installed();
    let time = || {
        let begun = Instant::now();
        assert!(search(state.path()).status.success());
        begun.elapsed()
    };
    let compiled = time();
    let mut cached: Vec<Duration> = (0..runs).map(|_| time()).collect();
    cached.sort_unstable();
    let median = cached[runs / 2];
    println!("one call: compiled {compiled:?}, cached {median:?}");
    assert!(median < compiled / 2, "compiled {compiled:?}, cached {median:?}");
}
