//! The demo does what it says, and says what the log says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{govrun, text};
use serde_json::Value;

/// The records under a folder by their id, read with `audit show`.
fn by_id(folder: &std::path::Path) -> BTreeMap<String, Value> {
    let shown = govrun(folder, &["audit", "show"]);
    let mut log = String::new();
    let mut all = BTreeMap::new();
    for line in text(&shown.stdout).lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["t"] == "genesis" {
            log = record["log"].as_str().unwrap().to_owned();
        }
        all.insert(format!("{log}-{}", record["seq"]), record);
    }
    all
}

#[test]
fn every_line_is_what_the_log_says_and_every_scene_holds() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("d");
    let dir = folder.display().to_string();
    let out = govrun(parent.path(), &["demo", "--dir", &dir]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    assert!(!said.contains('✘'), "{said}");
    let records = by_id(&folder);
    let lines: Vec<&str> = said.lines().collect();
    let mut verdicts = BTreeMap::new();
    for (i, line) in lines.iter().enumerate() {
        let Some((before, rest)) = line.split_once("· record ") else { continue };
        let record = &records[rest.split_whitespace().next().unwrap()];
        match record["t"].as_str().unwrap() {
            "decision" => {
                let verdict = record["verdict"].as_str().unwrap();
                assert!(lines[i - 1].starts_with(&format!("  {verdict} ")), "{}", lines[i - 1]);
                assert!(lines[i - 1].contains(record["tool"]["name"].as_str().unwrap()), "{}", lines[i - 1]);
                let (reason, rule) = (record["reason"].as_str().unwrap(), record["rule"].as_str().unwrap());
                assert_eq!(before.trim(), format!("{reason} · rule {rule}"));
                *verdicts.entry(verdict.to_owned()).or_insert(0) += 1;
            }
            "outcome" => assert!(before.contains("absorbed: ")),
            "escalation" | "approval" => assert!(before.contains(record["ticket"].as_str().unwrap())),
            other => assert_eq!(other, "a record that the transcript shows", "{line}"),
        }
    }
    let kinds: Vec<&str> = verdicts.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["allow", "block", "escalate", "sandbox", "throttle"]);
    let trust = folder.join("trust.toml").display().to_string();
    let audit = folder.join("audit").display().to_string();
    let verified = govrun(parent.path(), &["audit", "verify", &audit, "--trust", &trust]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    let again = govrun(parent.path(), &["demo", "--dir", &dir]);
    assert_eq!(again.status.code(), Some(2), "a demo is never written over another");
}
