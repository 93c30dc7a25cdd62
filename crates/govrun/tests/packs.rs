//! The shipped packs: no findings, complete cases, drills that hold against the real components.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{govrun, records, root, text};
use serde_json::Value;

const PACKS: [&str; 5] =
    ["default-deny", "finance-payments", "research-browsing", "reporting-readonly", "coding-agent"];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            let guests = root().join("guest-examples").canonicalize().unwrap().display().to_string();
            let content = std::fs::read_to_string(entry.path()).unwrap();
            std::fs::write(to, content.replace("../../../guest-examples", &guests)).unwrap();
        }
    }
}

/// A copy of the pack with the folders and the database that its tools are offered.
fn pack(at: &Path, name: &str) -> PathBuf {
    let to = at.join(name);
    copy(&root().join("policies/packs").join(name), &to);
    for folder in ["data", "work/.ssh", "work/.git/hooks"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
    }
    std::fs::write(to.join("data/north.csv"), "region,amount\nnorth,7\n").unwrap();
    let db = rusqlite::Connection::open(to.join("data/sales.db")).unwrap();
    db.execute_batch("CREATE TABLE sales (region TEXT, month TEXT, amount INTEGER); INSERT INTO sales VALUES ('north', '2026-03', 7);")
        .unwrap();
    to
}

fn run(state: &Path, args: &[&str]) -> (i32, String) {
    let out = govrun(state, args);
    (out.status.code().unwrap_or(-1), format!("{}{}", text(&out.stdout), text(&out.stderr)))
}

#[test]
fn every_pack_is_without_findings_and_its_cases_notice_every_mistake() {
    let dir = tempfile::tempdir().unwrap();
    for name in PACKS {
        let folder = pack(dir.path(), name).display().to_string();
        let (code, said) = run(dir.path(), &["policy", "check", &folder, "--deny", "warnings"]);
        assert_eq!(code, 0, "{name}: {said}");
        let (code, said) = run(
            dir.path(),
            &["policy", "test", &folder, "--mutate", "--min-kill", "95", "--min-coverage", "95"],
        );
        assert_eq!(code, 0, "{name}: {said}");
    }
}

#[test]
fn every_drill_is_stopped_by_its_rule_and_recorded_as_a_drill() {
    for name in PACKS {
        let dir = tempfile::tempdir().unwrap();
        let folder = pack(dir.path(), name).display().to_string();
        let (code, said) = run(dir.path(), &["drill", "--policy", &folder]);
        assert_eq!(code, 0, "{name}: {said}");
        let decisions: Vec<Value> =
            records(dir.path()).into_iter().filter(|r| r["t"] == "decision").collect();
        assert!(
            !decisions.is_empty() && decisions.iter().all(|d| d["mode"] == "drill"),
            "{name}: {decisions:?}"
        );
        let verified = govrun(dir.path(), &["audit", "verify"]);
        assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    }
}

#[test]
fn a_drill_fails_when_its_rule_is_in_shadow_gone_or_weaker() {
    let dir = tempfile::tempdir().unwrap();
    let pack = pack(dir.path(), "finance-payments");
    let folder = pack.display().to_string();
    let rules = pack.join("rules/payments.toml");
    let before = std::fs::read_to_string(&rules).unwrap();
    let with = |from: &str, to: &str| {
        assert!(before.contains(from));
        std::fs::write(&rules, before.replacen(from, to, 1)).unwrap();
        run(dir.path(), &["drill", "--policy", &folder, "--id", "pay-an-unknown-counterparty"])
    };
    let reason = "reason = \"PAY-OFFLIST-COUNTERPARTY\"";
    let (code, said) = with(reason, &format!("{reason}\nmode = \"shadow\""));
    assert!(
        code == 6
            && said.contains("`pay-offlist` at rules/payments.toml:")
            && said.contains("is not enforced"),
        "{said}"
    );
    let (code, said) = with("id = \"pay-offlist\"", "id = \"pay-off-list\"");
    assert!(code == 6 && said.contains("the policy has no rule `pay-offlist`"), "{said}");
    let (code, said) =
        with("values = [\"Northwind Supplies\"", "values = [\"Mallory Ltd\", \"Northwind Supplies\"");
    assert!(code == 6 && said.contains("block PAY-OFFLIST-COUNTERPARTY by pay-offlist expected"), "{said}");
    // What was let through changed nothing, used up no budget and asked nobody.
    let waiting = govrun(dir.path(), &["approvals", "list", "--all", "--format", "json"]);
    assert!(!text(&waiting.stdout).contains("apr-"), "{}", text(&waiting.stdout));
    std::fs::write(&rules, before).unwrap();
    let (code, junit) = run(dir.path(), &["drill", "--policy", &folder, "--format", "junit"]);
    assert!(code == 0 && junit.contains("failures=\"0\""), "{junit}");
}
