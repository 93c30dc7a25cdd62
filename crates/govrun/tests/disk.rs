//! A disk that is full or read-only, for real: the state directory is a file system of its own, in a mount namespace.
//! Where namespaces are not permitted, the tests say that they are skipped.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Ledger, component, policies_with_ledger, text};

/// Functions of the scripts: `govrun` with the state of the test, and what it said and exited with as lines of output.
const PRELUDE: &str = r#"
set -u
mount -t tmpfs -o size=6m,mode=700 none "$STATE" || exit 77
run() { "$GOVRUN" --state "$STATE" "$@" 2>&1; code=$?; echo; echo "exit $code"; }
pay() { run call --policy "$POLICIES" --agent finance-1 "$PAYMENTS" 'send("Contoso Freight", 640)'; }
"#;

/// The lines a script prints, or `None` where no mount namespace can be had.
fn lines(state: &Path, policies: &Path, script: &str) -> Option<Vec<String>> {
    let script = format!("{PRELUDE}{script}");
    for unshare in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let out = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", &script])
            .env("STATE", state)
            .env("POLICIES", policies)
            .env("GOVRUN", env!("CARGO_BIN_EXE_govrun"))
            .env("PAYMENTS", component("payments.wasm"))
            .output();
        match out {
            Ok(out) if out.status.success() => {
                return Some(text(&out.stdout).lines().map(str::to_owned).collect());
            }
            Ok(_) | Err(_) => {}
        }
    }
    eprintln!("SKIPPED: this machine permits no mount namespaces");
    None
}

fn exits(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.strip_prefix("exit ")).collect()
}

#[test]
fn a_full_disk_pays_nothing_loses_no_record_and_works_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let policies = policies_with_ledger(folder.path(), ledger.port);
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let script = r#"
pay
run audit show --format human | grep -c ALLOWED
head -c 16m /dev/zero >"$STATE/filler" 2>/dev/null
pay
pay
rm "$STATE/filler"
pay
run audit show --format human | grep -c ALLOWED
run audit verify
"#;
    let Some(said) = lines(&state, &policies, script) else { return };
    let all = said.join("\n");
    assert_eq!(exits(&said), ["0", "9", "9", "0", "0"], "{all}");
    let last = all.rsplit("exit 9").next().unwrap();
    assert!(!last.contains("compiled each time"), "the cache is whole again: {all}");
    assert!(all.contains("No space left"), "{all}");
    assert!(!all.contains("panicked"), "{all}");
    assert_eq!(ledger.seen().len(), 2, "one payment before, one after: {all}");
    let counts: Vec<u32> = said.iter().filter_map(|line| line.parse().ok()).collect();
    assert!(counts.len() == 2 && counts[1] > counts[0], "{all}");
}

#[test]
fn a_read_only_state_directory_runs_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let policies = policies_with_ledger(folder.path(), ledger.port);
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let script = r#"
pay
mount -o remount,ro "$STATE" || exit 77
pay
run audit verify
"#;
    let Some(said) = lines(&state, &policies, script) else { return };
    let all = said.join("\n");
    assert_eq!(exits(&said), ["0", "9", "0"], "{all}");
    assert!(all.contains("Read-only file system"), "{all}");
    assert_eq!(ledger.seen().len(), 1, "{all}");
}
