//! `govrun audit` and `govrun witness` through the real binary.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{Ledger, call, command, govrun, policies_with_ledger, records, text};
use serde_json::Value;
use tempfile::TempDir;

/// A state directory with a permitted and a blocked payment in its log.
struct Site {
    state: TempDir,
    ledger: Ledger,
    policies: PathBuf,
}

impl Site {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::start();
        let policies = policies_with_ledger(state.path(), ledger.port);
        let site = Self { state, ledger, policies };
        assert_eq!(site.pay("Northwind Supplies", 1_200), 0);
        assert_eq!(site.pay("ACME", 48_000), 3);
        assert_eq!(site.ledger.seen().len(), 1);
        site
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn pay(&self, to: &str, amount: u64) -> i32 {
        let asked = format!(r#"send("{to}", {amount})"#);
        let out = call(self.path(), &self.policies, "finance-1", "payments.wasm", &asked);
        out.status.code().unwrap()
    }

    fn audit(&self, args: &[&str]) -> Output {
        govrun(self.path(), &[&["audit"], args].concat())
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    fn log(&self) -> PathBuf {
        let mut logs = std::fs::read_dir(self.path().join("audit")).unwrap().map(|e| e.unwrap().path());
        logs.find(|path| path.join("lock").exists()).unwrap()
    }

    fn decision(&self) -> String {
        let records = records(self.path());
        let found = records.iter().find(|r| r["t"] == "decision").unwrap();
        format!("{}-{}", self.log().file_name().unwrap().to_str().unwrap(), found["seq"])
    }
}

fn exits(out: &Output, code: i32) -> String {
    let said = format!("{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{said}");
    said
}

#[test]
fn every_verdict_of_a_real_run_is_decided_again() {
    let site = Site::new();
    let pin = site.file("pin.json");
    let verify = ["verify", "--level", "l4", "--pin", &pin];
    let said = exits(&site.audit(&verify), 3);
    assert!(said.contains("completeness cannot be told"), "{said}");
    let said = exits(&site.audit(&verify), 0);
    assert!(said.contains("VERIFIED at level L4") && said.contains("complete up to size"), "{said}");
    assert!(said.contains("NOT COVERED"), "{said}");
    // The archive of another policy is no archive.
    let bundles = site.path().join("audit/policies");
    let bundle = std::fs::read_dir(&bundles).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, [kept.as_slice(), b"# \n"].concat()).unwrap();
    let said = exits(&site.audit(&verify), 3);
    assert!(said.contains("is not the policy"), "{said}");
    std::fs::write(&bundle, kept).unwrap();
    exits(&site.audit(&verify), 0);
    // Without openings the verdicts cannot be told, and that is not success.
    let openings = site.log().join("openings.jsonl");
    if openings.exists() {
        std::fs::remove_file(openings).unwrap();
        let said = exits(&site.audit(&verify), 3);
        assert!(said.contains("is committed to and has no opening"), "{said}");
    }
}

#[test]
fn a_log_that_is_cut_or_deleted_after_it_was_pinned_exits_with_5() {
    let site = Site::new();
    let pin = site.file("pin.json");
    exits(&site.audit(&["verify", "--pin", &pin]), 0);
    let before = std::fs::read(&pin).unwrap();
    let segment = site.log().join("00000001.jsonl");
    let lines = std::fs::read_to_string(&segment).unwrap();
    let seal = lines.match_indices("{\"v\":1,\"t\":\"seal\"").nth(1).unwrap().0;
    let cut = seal + lines[seal..].find('\n').unwrap() + 1;
    std::fs::write(&segment, &lines[..cut]).unwrap();
    let said = exits(&site.audit(&["verify", "--pin", &pin]), 5);
    assert!(said.contains("a rollback: the pin saw"), "{said}");
    exits(&site.audit(&["verify"]), 0);
    std::fs::remove_dir_all(site.log()).unwrap();
    exits(&site.audit(&["verify", "--pin", &pin]), 5);
    assert_eq!(std::fs::read(&pin).unwrap(), before, "the pin moves on success only");
    std::fs::write(&pin, "{}").unwrap();
    exits(&site.audit(&["verify", "--pin", &pin]), 2);
}

/// In a network namespace of its own there is no interface but a loopback that is down: whatever needed a socket would fail.
/// Under `strace` not even a call to make one is seen.
#[test]
fn verification_opens_no_socket() {
    let site = Site::new();
    let program = env!("CARGO_BIN_EXE_govrun");
    let folder = site.file("audit");
    let trust = site.file("keys/trust.toml");
    let args = ["audit", "verify", &folder, "--trust", &trust, "--level", "l2"];
    let alone = Command::new("unshare").args(["-rn", program]).args(args).output();
    match alone {
        Ok(out) if out.status.code() == Some(0) => {}
        Ok(out) if text(&out.stderr).contains("unshare") => {
            println!("SKIPPED: no network namespaces here: {}", text(&out.stderr));
        }
        Ok(out) => {
            exits(&out, 0);
        }
        Err(e) => println!("SKIPPED: unshare: {e}"),
    }
    let trace = site.file("trace");
    let traced = Command::new("strace")
        .args(["-f", "-e", "trace=socket,connect", "-o", &trace, program])
        .args(args)
        .output();
    match traced {
        Ok(out) if out.status.code() == Some(0) => {
            let calls = std::fs::read_to_string(&trace).unwrap();
            let sockets: Vec<&str> = calls.lines().filter(|l| l.contains("socket(")).collect();
            assert!(sockets.is_empty(), "{sockets:?}");
        }
        Ok(out) => println!("SKIPPED: strace: {}", text(&out.stderr)),
        Err(e) => println!("SKIPPED: strace: {e}"),
    }
}

#[test]
fn a_report_for_machines_says_what_the_one_for_people_says() {
    let site = Site::new();
    let out = site.audit(&["verify", "--json"]);
    exits(&out, 0);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&report["schema"], &report["level"]), (&"govrun.audit-verify/v1".into(), &"L2".into()));
    assert!(!report["not_covered"].as_array().unwrap().is_empty());
    let fast = site.audit(&["verify", "--fast"]);
    assert!(exits(&fast, 0).contains("the spelling of decisions and outcomes"));
}

#[test]
fn one_record_is_proved_to_somebody_who_has_the_trust_file_only() {
    let site = Site::new();
    let id = site.decision();
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().display().to_string();
    exits(&site.audit(&["prove", &id, "--out", &dir]), 0);
    let (proof, line) = (format!("{dir}/{id}.tlog-proof"), format!("{dir}/{id}.json"));
    let trust = site.file("keys/trust.toml");
    let nowhere = tempfile::tempdir().unwrap();
    let check = |line: &str, trust: &str| {
        govrun(nowhere.path(), &["audit", "prove", "--check", &proof, "--line", line, "--trust", trust])
    };
    assert!(exits(&check(&line, &trust), 0).contains("PROVED: this is record"));
    let record = std::fs::read_to_string(&line).unwrap();
    let forged = format!("{dir}/forged.json");
    std::fs::write(&forged, record.replacen("allow", "block", 1)).unwrap();
    assert!(exits(&check(&forged, &trust), 1).contains("NOT PROVED"));
    let stranger = Site::new();
    assert!(exits(&check(&line, &stranger.file("keys/trust.toml")), 4).contains("NOT PROVED"));
    exits(&check("/does/not/exist", &trust), 2);
    exits(&site.audit(&["prove", "0000000000000000-1"]), 2);
}

#[test]
fn two_sizes_of_a_log_are_shown_to_be_one_log() {
    let site = Site::new();
    let log = site.log().file_name().unwrap().to_str().unwrap().to_owned();
    let checkpoint = site.file("old.checkpoint");
    std::fs::copy(site.log().join("checkpoint"), &checkpoint).unwrap();
    assert_eq!(site.pay("ACME", 1), 3);
    let newest = site.log().join("checkpoint").display().to_string();
    let said = exits(&site.audit(&["consistency", &checkpoint, &newest]), 0);
    assert!(said.starts_with("CONSISTENT"), "{said}");
    exits(&site.audit(&["consistency", &format!("{log}:2"), &newest]), 0);
    let note = std::fs::read_to_string(&checkpoint).unwrap();
    let root = note.lines().nth(2).unwrap();
    let other = note.replace(root, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    std::fs::write(&checkpoint, other).unwrap();
    assert!(exits(&site.audit(&["consistency", &checkpoint, &newest]), 5).starts_with("FORK"));
    let said = exits(&site.audit(&["consistency", &format!("{log}:2"), &format!("{log}:9999")]), 5);
    assert!(said.starts_with("ROLLBACK"), "{said}");
}

#[test]
fn a_field_is_disclosed_with_what_proves_it() {
    let site = Site::new();
    let id = site.decision();
    let record = records(site.path()).into_iter().find(|r| r["t"] == "decision").unwrap();
    let fields = record["inputs"]["fields"].as_array().unwrap();
    for field in fields {
        let name = field["name"].as_str().unwrap();
        let out = site.audit(&["disclose", &id, name, "--format", "json"]);
        exits(&out, 0);
        let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(shown["salt"].is_null(), field["commitment"].is_null(), "{shown}");
        assert!(!shown["value"].is_null(), "{shown}");
    }
    exits(&site.audit(&["disclose", &id, "args.nothing"]), 2);
}

#[test]
fn records_are_exported_as_other_systems_want_them() {
    let site = Site::new();
    let lines = |shape: &str| -> Vec<Value> {
        let out = site.audit(&["export", "--format", shape]);
        exits(&out, 0);
        text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (stored, events, ocsf) = (lines("jsonl"), lines("cloudevents"), lines("ocsf"));
    assert_eq!(stored.len(), events.len());
    for (record, event) in stored.iter().zip(&events) {
        assert_eq!((&event["specversion"], &event["data"]), (&"1.0".into(), record));
        let kind = format!("dev.govrun.audit.{}", record["t"].as_str().unwrap());
        assert_eq!(event["type"], kind.as_str());
        let id = event["id"].as_str().unwrap();
        assert!(id.ends_with(&format!("-{}", record["seq"])), "{event}");
    }
    let decisions = stored.iter().filter(|r| r["t"] == "decision");
    assert_eq!(ocsf.len(), decisions.clone().count());
    for (record, event) in decisions.zip(&ocsf) {
        assert_eq!(
            event["type_uid"],
            event["class_uid"].as_u64().unwrap() * 100 + event["activity_id"].as_u64().unwrap()
        );
        let blocked = record["verdict"] == "block";
        assert_eq!((event["action_id"] == 2, event["disposition_id"] == 2), (blocked, blocked), "{event}");
        let raw: Value = serde_json::from_str(event["raw_data"].as_str().unwrap()).unwrap();
        assert_eq!(raw, *record);
    }
}

#[test]
fn records_are_filtered_by_time_and_followed() {
    let site = Site::new();
    let all = records(site.path());
    let first = all[0]["time"].as_u64().unwrap();
    let out = site.audit(&["show", "--until", "2020-01-01T00:00:00Z"]);
    assert_eq!(exits(&out, 0), "");
    let out = site.audit(&["show", "--since", "2020-01-01T00:00:00Z"]);
    assert_eq!(exits(&out, 0).lines().count(), all.len());
    assert!(first > 0);
    let out = site.audit(&["tail", "-n", "2", "--format", "jsonl"]);
    let last: Vec<Value> =
        text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(last, all[all.len() - 2..]);
    let tail = ["audit", "tail", "-n", "0", "--follow", "--type", "decision", "--format", "jsonl"];
    let following = command(site.path(), &tail).stdout(Stdio::piped()).spawn().unwrap();
    let mut following = Killed(following);
    let mut lines = BufReader::new(following.0.stdout.take().unwrap()).lines();
    assert_eq!(site.pay("ACME", 7), 3);
    let seen: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&seen["t"], &seen["verdict"]), (&"decision".into(), &"block".into()));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn witness(site: &Site, rest: &[&str]) -> Command {
    let (dir, certificate) = (site.file("witness"), site.file("keys/genesis.cert"));
    let args = ["witness", "--name", "witness.example/w1", "--dir", &dir, "--certificate", &certificate];
    command(site.path(), &[&args, rest].concat())
}

fn witness_key(site: &Site) -> String {
    let out = witness(site, &["--key"]).output().unwrap();
    exits(&out, 0).trim_end().to_owned()
}

/// The trust file with this witness.
fn trust_with(site: &Site, key: &str) -> String {
    let trust = std::fs::read_to_string(site.file("keys/trust.toml")).unwrap();
    let with = site.file("with-witness.toml");
    std::fs::write(&with, format!("{trust}\n[witnesses]\nkeys = [\"{key}\"]\n")).unwrap();
    with
}

#[test]
fn a_witness_over_http_makes_a_log_complete() {
    let site = Site::new();
    let key = witness_key(&site);
    let serving = witness(&site, &["--port", "0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut serving = Killed(serving);
    let mut said = String::new();
    let mut stderr = BufReader::new(serving.0.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    let address = said.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let out = site.file("cosigned");
    let submit = ["submit", "--witness", &key, "--out", &out, "--to", &address];
    exits(&site.audit(&submit), 0);
    exits(&site.audit(&submit), 0);
    assert_eq!(site.pay("ACME", 5), 3);
    // What was cosigned is forgotten here: the witness says where it stands.
    let log = site.log().file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::remove_file(format!("{out}/{log}.checkpoint")).unwrap();
    exits(&site.audit(&submit), 0);
    let (trust, checkpoint) = (trust_with(&site, &key), format!("{out}/{log}.checkpoint"));
    let verify = ["verify", "--level", "l3", "--trust", &trust, "--checkpoint", &checkpoint];
    let report = exits(&site.audit(&verify), 0);
    assert!(report.contains("complete up to size"), "{report}");
    let unwitnessed = site.log().join("checkpoint").display().to_string();
    let verify = ["verify", "--level", "l3", "--trust", &trust, "--checkpoint", &unwitnessed];
    assert!(exits(&site.audit(&verify), 2).contains("0 of the 1 witnesses"));
    let mut rest = String::new();
    drop(serving);
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_witness_over_files_makes_a_log_complete() {
    let site = Site::new();
    let key = witness_key(&site);
    let (drop, out) = (site.file("drop"), site.file("cosigned"));
    std::fs::create_dir(&drop).unwrap();
    let submit = ["submit", "--witness", &key, "--out", &out, "--drop", &drop];
    exits(&site.audit(&submit), 0);
    let answered = witness(&site, &["--drop", &drop]).output().unwrap();
    assert!(exits(&answered, 0).contains("200 cosigned"));
    assert_eq!(site.pay("ACME", 5), 3);
    assert!(exits(&site.audit(&submit), 0).contains("records cosigned by witness.example/w1"));
    let answered = witness(&site, &["--drop", &drop]).output().unwrap();
    assert!(exits(&answered, 0).contains("200 cosigned"), "the log went on, and was proved to");
    let log = site.log().file_name().unwrap().to_str().unwrap().to_owned();
    let (trust, checkpoint) = (trust_with(&site, &key), format!("{out}/{log}.checkpoint"));
    let verify = ["verify", "--level", "l3", "--trust", &trust, "--checkpoint", &checkpoint];
    exits(&site.audit(&verify), 0);
}
