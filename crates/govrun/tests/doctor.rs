//! `govrun doctor` through the real binary: it finds what is wrong, says the next step, and changes nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::{call, govrun, policies_with_ledger, root, text};
use serde_json::Value;

fn doctor(state: &Path, more: &[&str]) -> (i32, String) {
    let args: Vec<&str> = ["doctor"].iter().chain(more).copied().collect();
    let out = govrun(state, &args);
    (out.status.code().unwrap(), format!("{}{}", text(&out.stdout), text(&out.stderr)))
}

/// A state directory that a call made, in a folder that goes away with it.
struct Used {
    _folder: tempfile::TempDir,
    state: PathBuf,
}

impl Used {
    fn path(&self) -> &Path {
        &self.state
    }
}

fn used() -> Used {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    call(&state, &root().join("policies"), "research-1", "search.wasm", r#"search("supplier")"#);
    Used { _folder: folder, state }
}

/// Every file below, with its content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(tree(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// The lines that begin with this grade and name.
fn has(report: &str, grade: &str, name: &str) -> bool {
    report.lines().any(|line| line.starts_with(&format!("{grade:<4}  {name}")))
}

#[test]
fn nothing_is_made_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("none");
    let (code, report) = doctor(&state, &[]);
    assert_eq!(code, 0, "{report}");
    assert!(has(&report, "warn", "state") && report.contains("made on first use"), "{report}");
    assert!(!state.exists());
}

#[test]
fn a_used_installation_is_well_and_left_as_it_was() {
    let state = used();
    let before = tree(state.path());
    let policies = root().join("policies").display().to_string();
    let (code, report) = doctor(state.path(), &["--policy", &policies]);
    assert_eq!(code, 0, "{report}");
    for name in ["state", "keys", "trust", "store", "log", "clock", "policy", "tool"] {
        assert!(has(&report, "ok", name), "{name}:\n{report}");
    }
    assert!(report.contains("VERIFIED at level L2") && report.contains("closed"), "{report}");
    assert!(has(&report, "warn", "root key") && report.contains("move it offline"), "{report}");
    let after = tree(state.path());
    let same = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
        files.keys().filter(|path| !path.to_string_lossy().contains("state.db-")).cloned().collect()
    };
    assert_eq!(same(&before), same(&after));
    assert!(before.iter().all(|(p, c)| p.to_string_lossy().contains("state.db") || after[p] == *c));
    std::fs::remove_file(state.path().join("keys/root.key")).unwrap();
    let (_, report) = doctor(state.path(), &[]);
    assert!(has(&report, "ok", "root key"), "{report}");
    let json = govrun(state.path(), &["doctor", "--format", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["schema"], &json["healthy"]), (&"govrun.doctor/v1".into(), &true.into()));
}

#[test]
fn exposed_or_missing_keys_are_a_failure_of_configuration() {
    let state = used();
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(state.path(), 0o755);
    let (code, report) = doctor(state.path(), &[]);
    assert!(code == 0 && has(&report, "warn", "state") && report.contains("chmod 700"), "{report}");
    chmod(state.path(), 0o777);
    let (code, report) = doctor(state.path(), &[]);
    assert!(code == 8 && has(&report, "FAIL", "state") && report.contains("chmod 700"), "{report}");
    chmod(state.path(), 0o700);
    let key = state.path().join("keys/log.key");
    chmod(&key, 0o644);
    let (code, report) = doctor(state.path(), &[]);
    assert!(code == 8 && has(&report, "FAIL", "keys") && report.contains("chmod 600"), "{report}");
    std::fs::remove_dir_all(state.path().join("keys")).unwrap();
    let (code, report) = doctor(state.path(), &[]);
    assert!(code == 8 && has(&report, "FAIL", "keys"), "{report}");
    assert!(!state.path().join("keys").exists());
}

#[test]
fn a_changed_log_and_a_damaged_store_are_failures_of_dependencies() {
    let state = used();
    let log = tree(state.path()).into_keys().find(|path| path.ends_with("00000001.jsonl")).unwrap();
    let good = std::fs::read(&log).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (code, report) = doctor(state.path(), &[]);
    assert!(code == 9 && has(&report, "FAIL", "log") && report.contains("TAMPERED"), "{report}");
    std::fs::write(&log, good).unwrap();
    std::fs::write(state.path().join("state.db"), "this is no database, and never was one").unwrap();
    let (code, report) = doctor(state.path(), &[]);
    assert!(code == 9 && has(&report, "FAIL", "store"), "{report}");
}

#[test]
fn a_policy_with_another_component_is_a_failure_of_configuration() {
    let state = tempfile::tempdir().unwrap();
    let policies = policies_with_ledger(state.path(), 8901);
    let folder = policies.display().to_string();
    let file = policies.join("finance/payments.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (other, said) in [("search.wasm", "has the digest"), ("missing.wasm", "missing.wasm")] {
        std::fs::write(&file, good.replace("payments.wasm", other)).unwrap();
        let (code, report) = doctor(state.path(), &["--policy", &folder]);
        assert!(code == 8 && has(&report, "FAIL", "tool") && report.contains(said), "{report}");
    }
    std::fs::write(&file, "[[rule]]\nid = 7\n").unwrap();
    let (code, report) = doctor(state.path(), &["--policy", &folder]);
    assert!(code == 8 && has(&report, "FAIL", "policy"), "{report}");
}
