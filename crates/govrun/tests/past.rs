//! What an agent did decides what it may do: over processes, on the record.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{call, component, govrun, records, root, text};

/// The shipped tools, under rules of the test.
fn policies(state: &Path, rules: &str) -> PathBuf {
    let shipped = std::fs::read_to_string(root().join("policies/research/search.toml")).unwrap();
    let digest = shipped.lines().find(|line| line.starts_with("digest")).unwrap();
    let folder = state.join("policies");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = format!(
        "schema = 1\n[audit]\nclear = [\"args.*\"]\n[[agent]]\nname = \"r\"\n[[agent]]\nname = \"s\"\n\
         [[tool]]\nname = \"search\"\ncomponent = \"{}\"\n{digest}\n\
         [[rule]]\nid = \"all\"\nmatch = {{ action = \"*\" }}\nverdict = \"allow\"\n{rules}",
        component("search.wasm")
    );
    std::fs::write(folder.join("govrun.toml"), manifest).unwrap();
    folder
}

fn search(state: &Path, policies: &Path, agent: &str, query: &str) -> Option<i32> {
    let out = call(state, policies, agent, "search.wasm", &format!("search(\"{query}\")"));
    out.status.code()
}

#[test]
fn a_label_of_one_call_blocks_the_next_in_whatever_session_and_is_on_record() {
    let state = tempfile::tempdir().unwrap();
    let rules = policies(
        state.path(),
        "[[label]]\non = { action = \"tool.call\", tool = \"search.*\" }\nwhen = { \"args.query\" = { eq = \"web\" } }\n\
         add = [\"web.untrusted\"]\n\
         [[rule]]\nid = \"pay\"\nmatch = { action = \"tool.call\" }\nverdict = \"block\"\nreason = \"PAY-TAINTED\"\n\
         when = { \"args.query\" = { eq = \"pay\" }, labels = { any_in = [\"web.untrusted\"] } }\n",
    );
    assert_eq!(search(state.path(), &rules, "r", "pay"), Some(0));
    assert_eq!(search(state.path(), &rules, "r", "web"), Some(0));
    // Each process is a session of its own, and the agent's past is one.
    assert_eq!(search(state.path(), &rules, "r", "pay"), Some(3));
    assert_eq!(search(state.path(), &rules, "s", "pay"), Some(0), "another agent read nothing");
    let records = records(state.path());
    let blocked = records.iter().find(|r| r["reason"] == "PAY-TAINTED").unwrap();
    assert_eq!(blocked["inputs"]["labels"], serde_json::json!(["web.untrusted"]));
    let verified = govrun(state.path(), &["audit", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
}

#[test]
fn after_three_refusals_everything_of_that_agent_escalates() {
    let state = tempfile::tempdir().unwrap();
    let rules = policies(
        state.path(),
        "[[rule]]\nid = \"no\"\nmatch = { action = \"tool.call\" }\nverdict = \"block\"\nreason = \"NO\"\n\
         when = { \"args.query\" = { eq = \"no\" } }\n\
         [[rule]]\nid = \"breaker\"\nmatch = { action = \"tool.call\" }\nverdict = \"escalate\"\nreason = \"KEEPS-TRYING\"\n\
         escalate = { to = [\"role:ops\"], timeout = \"1s\" }\n\
         when = { count = { action = \"*\", outcome = \"blocked\", within = \"1h\", ge = 3 } }\n",
    );
    for _ in 0..3 {
        assert_eq!(search(state.path(), &rules, "r", "yes"), Some(0));
        assert_eq!(search(state.path(), &rules, "r", "no"), Some(3));
    }
    assert_ne!(search(state.path(), &rules, "r", "yes"), Some(0));
    assert!(
        records(state.path()).iter().any(|r| r["reason"] == "KEEPS-TRYING" && r["verdict"] == "escalate")
    );
    assert_eq!(search(state.path(), &rules, "s", "yes"), Some(0), "another agent is not under it");
}

#[test]
fn a_call_waits_for_its_budget_where_the_policy_lets_it() {
    let state = tempfile::tempdir().unwrap();
    let rules = policies(
        state.path(),
        "[budget.one]\nlimit = 1\nper = \"2s\"\nkey = \"agent\"\non_exceed = { wait = \"5s\" }\n\
         [[rule]]\nid = \"limit\"\nmatch = { action = \"tool.call\" }\nverdict = \"throttle\"\nreason = \"SLOWLY\"\nlimit = \"one\"\n",
    );
    let start = Instant::now();
    for _ in 0..2 {
        assert_eq!(search(state.path(), &rules, "r", "yes"), Some(0));
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    // What waited is on record once, as what it came to.
    let decided = records(state.path()).iter().filter(|r| r["action"] == "tool.call").count();
    assert_eq!(decided, 2);
}
