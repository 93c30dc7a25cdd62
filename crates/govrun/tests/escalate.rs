//! Escalation through real processes: one waits, another decides, and the payment happens at most once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ledger, command, component, govrun, policies_with_ledger, records, text};
use tempfile::TempDir;

const LARGE: &str = r#"send("Northwind Supplies", 12000)"#;
const OTHER: &str = r#"send("Northwind Supplies", 12001)"#;

struct Site {
    state: TempDir,
    ledger: Ledger,
    policies: String,
}

impl Site {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::start();
        let policies = policies_with_ledger(state.path(), ledger.port).display().to_string();
        for (name, role) in [("erin", "treasury"), ("mallory", "intern")] {
            let made = govrun(state.path(), &["keys", "approver", name, "--role", role]);
            assert!(made.status.success(), "{}", text(&made.stderr));
        }
        Self { state, ledger, policies }
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn start(&self, asked: &str) -> Child {
        let wasm = component("payments.wasm");
        let args = ["call", "--policy", &self.policies, "--agent", "finance-1", &wasm, asked];
        command(self.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The ids of what waits, once there are that many.
    fn waiting(&self, count: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let out = govrun(self.path(), &["approvals", "list", "--format", "json"]);
            if out.status.success() {
                let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
                let ids: Vec<String> = list["approvals"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|a| a["id"].as_str().unwrap().to_owned())
                    .collect();
                if ids.len() == count {
                    return ids;
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing waits");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answer(&self, how: &str, id: &str, who: &str) -> (i32, String) {
        let out = govrun(self.path(), &["approvals", how, id, "--as", who]);
        (out.status.code().unwrap(), text(&out.stderr))
    }
}

fn finish(child: Child) -> (i32, String) {
    let out = child.wait_with_output().unwrap();
    (out.status.code().unwrap_or(-1), format!("{}{}", text(&out.stdout), text(&out.stderr)))
}

#[test]
fn an_approved_payment_happens_once_and_the_approval_is_used_up() {
    let site = Site::new();
    let waiting = site.start(LARGE);
    let ids = site.waiting(1);
    assert!(site.ledger.seen().is_empty(), "nothing happens before the approval");
    assert_eq!(site.answer("approve", &ids[0], "mallory").0, 6, "an intern is not the treasury");
    assert_eq!(site.answer("approve", &ids[0], "erin").0, 0);
    let (code, said) = finish(waiting);
    assert_eq!(code, 0, "{said}");
    assert_eq!(site.ledger.seen().len(), 1);
    let again = site.start(LARGE);
    let next = site.waiting(1);
    assert_ne!(next, ids, "the same call asks anew");
    assert_eq!(site.answer("deny", &next[0], "erin").0, 0);
    let (code, said) = finish(again);
    assert_eq!((code, said.contains("APPROVAL-DENIED")), (3, true), "{said}");
    assert_eq!(site.ledger.seen().len(), 1);
    let events: Vec<String> = records(site.path())
        .iter()
        .filter(|r| r["t"] == "approval")
        .map(|r| r["event"].as_str().unwrap_or("?").to_owned())
        .collect();
    assert_eq!(events, ["approved", "consumed", "denied"]);
    let verified = govrun(site.path(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
}

#[test]
fn an_approval_is_for_exactly_the_call_it_was_given_for() {
    let site = Site::new();
    let first = site.start(LARGE);
    let id = site.waiting(1).remove(0);
    let other = site.start(OTHER);
    site.waiting(2);
    assert_eq!(site.answer("approve", &id, "erin").0, 0);
    assert_eq!(finish(first).0, 0);
    let second = site.waiting(1).remove(0);
    assert_eq!(site.answer("deny", &second, "erin").0, 0);
    assert_eq!(finish(other).0, 3);
    let seen = site.ledger.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].1.contains("12000"), "{seen:?}");
}

#[test]
fn a_killed_caller_leaves_its_approval_for_the_same_call_of_a_new_process() {
    let site = Site::new();
    let mut killed = site.start(LARGE);
    let ids = site.waiting(1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(site.answer("approve", &ids[0], "erin").0, 0);
    assert!(site.ledger.seen().is_empty());
    let (code, said) = finish(site.start(LARGE));
    assert_eq!(code, 0, "{said}");
    assert_eq!(site.ledger.seen().len(), 1);
    let verified = govrun(site.path(), &["audit", "verify"]);
    assert_ne!(verified.status.code(), Some(1), "{}", text(&verified.stdout));
}

#[test]
fn an_interrupt_while_waiting_says_what_stays_and_the_log_is_closed() {
    let site = Site::new();
    let waiting = site.start(LARGE);
    let id = site.waiting(1).remove(0);
    let pid = waiting.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (code, said) = finish(waiting);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(&format!("waits for treasury; see `govrun approvals show {id}`")), "{said}");
    assert!(said.contains(&format!("interrupted; approval {id} stays")), "{said}");
    assert_eq!(govrun(site.path(), &["audit", "verify"]).status.code(), Some(0), "the log was closed");
    assert_eq!(site.answer("approve", &id, "erin").0, 0);
    assert!(site.ledger.seen().is_empty(), "nobody calls");
    let (code, said) = finish(site.start(LARGE));
    assert_eq!(code, 0, "{said}");
    assert_eq!(site.ledger.seen().len(), 1);
}

#[test]
fn a_forged_approval_is_not_believed() {
    let site = Site::new();
    let waiting = site.start(LARGE);
    let id = site.waiting(1).remove(0);
    // Another key under the approver's name: what somebody with the store but without the key could hand in.
    let trust = site.path().join("keys/trust.toml");
    let listed = std::fs::read_to_string(&trust).unwrap();
    std::fs::remove_file(site.path().join("keys/erin.approver.key")).unwrap();
    let mut lines: Vec<&str> = listed.lines().collect();
    let at = lines.iter().position(|l| l.contains("erin")).unwrap_or_else(|| panic!("{listed}"));
    let from = lines[..at].iter().rposition(|l| l.contains("[[approver]]")).unwrap();
    let to = lines[at..].iter().position(|l| l.contains("[[approver]]")).map_or(lines.len(), |n| at + n);
    lines.drain(from..to);
    std::fs::write(&trust, lines.join("\n") + "\n").unwrap();
    assert!(govrun(site.path(), &["keys", "approver", "erin", "--role", "treasury"]).status.success());
    assert_eq!(site.answer("approve", &id, "erin").0, 0);
    let (code, said) = finish(waiting);
    assert_eq!((code, said.contains("APPROVAL-INVALID")), (3, true), "{said}");
    assert!(site.ledger.seen().is_empty());
}
