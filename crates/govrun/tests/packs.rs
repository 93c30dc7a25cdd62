//! The shipped packs: no findings, complete cases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{govrun, root, text};

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
