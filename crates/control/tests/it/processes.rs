//! Threads, processes and kills: however many there are, `limit` are admitted.
//!
//! The test binary runs itself: `child` is a test that does nothing unless the variable below says what to do.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use govrun_control::{Reserved, Store};
use govrun_verdict::Timestamp;

use crate::support::{T0, admitted, open, usage};

const TASK: &str = "GOVRUN_CONTROL_TEST_CHILD";
const DIR: &str = "GOVRUN_CONTROL_TEST_DIR";
const LIMIT: u64 = 600;

fn spawn(task: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a child does: one `+` on standard error for each admission that it was told of.
#[test]
fn child() {
    let (Some(task), Some(dir)) = (std::env::var_os(TASK), std::env::var_os(DIR)) else { return };
    let tries: u64 = task.to_str().unwrap().parse().unwrap();
    let store = Store::open(Path::new(&dir)).unwrap();
    let uses = [usage("search", "alice", LIMIT, 3_600_000), usage("all", "", 10 * LIMIT, 3_600_000)];
    for _ in 0..tries {
        if admitted(&store, &uses, T0) {
            std::io::stderr().write_all(b"+").unwrap();
        }
    }
}

fn acknowledged(mut child: Child) -> (u64, bool) {
    let mut text = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut text).unwrap();
    let well = child.wait().unwrap().success();
    let other: Vec<u8> = text.iter().copied().filter(|b| *b != b'+').collect();
    assert!(other.is_empty(), "{}", String::from_utf8_lossy(&other));
    (text.len() as u64, well)
}

#[test]
fn eight_processes_that_race_from_the_creation_on_get_exactly_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("not/there/yet");
    let children: Vec<Child> = (0..8).map(|_| spawn("150", &state)).collect();
    let total: u64 = children
        .into_iter()
        .map(|child| {
            let (count, well) = acknowledged(child);
            assert!(well, "a child failed");
            count
        })
        .sum();
    assert_eq!(total, LIMIT);
    // After a restart, still nothing is left.
    assert!(!admitted(&open(&state), &[usage("search", "alice", LIMIT, 3_600_000)], T0));
    let files: Vec<_> = std::fs::read_dir(&state).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(files.iter().all(|f| !f.to_string_lossy().ends_with(".new")), "{files:?}");
}

#[test]
fn eight_threads_on_eight_stores_get_exactly_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let uses = [usage("search", "alice", LIMIT, 3_600_000)];
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = open(dir.path());
                std::thread::scope(|inner| {
                    for _ in 0..8 {
                        inner.spawn(|| {
                            let count = (0..15).filter(|_| admitted(&store, &uses, T0)).count();
                            total.fetch_add(count as u64, Ordering::Relaxed);
                        });
                    }
                });
            });
        }
    });
    assert_eq!(total.into_inner(), LIMIT);
}

#[test]
fn a_killed_process_loses_no_admission_and_gives_none_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = 0;
    let mut kills = 0;
    while kills < 200 {
        let (mut one, two) = (spawn("10000", dir.path()), spawn("40", dir.path()));
        std::thread::sleep(Duration::from_millis(15 + 7 * (kills % 5)));
        one.kill().unwrap();
        kills += 1;
        let before = told;
        told += acknowledged(one).0;
        told += acknowledged(two).0;
        if told == before && kills > 4 {
            break;
        }
    }
    let store = open(dir.path());
    store.check().unwrap();
    let uses = [usage("search", "alice", LIMIT, 3_600_000)];
    assert!(told <= LIMIT, "{told} admissions of {LIMIT}");
    assert!(told + kills >= LIMIT, "each kill may hide one admission: {told} told, {kills} kills");
    assert_eq!(store.levels(&uses, Timestamp(T0)).unwrap()[0].used, LIMIT);
    assert!(matches!(store.reserve(&uses, Timestamp(T0)).unwrap(), Reserved::Exhausted { .. }));
}
