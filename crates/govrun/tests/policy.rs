//! `govrun policy …` and `govrun replay` through the real binary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{Ledger, call, govrun, policies_with_ledger, text};
use serde_json::Value;

const SMALL: &str = r#"schema = 1
[[agent]]
name = "fin-1"
[[rule]]
id = "pay"
match = { agent = "fin-*", action = "tool.call", tool = "pay.send" }
when = { "args.amount" = { le = 100 } }
verdict = "allow"
[[rule]]
id = "pay-large"
match = { action = "tool.call", tool = "pay.send" }
when = { "args.amount" = { gt = 100 } }
verdict = "block"
reason = "PAY-LARGE"
severity = "critical"
"#;

const CASE: &str = r#"[[case]]
title = "large"
agent = "fin-1"
tool = "pay.send"
args = { amount = 101 }
expect = { verdict = "block", rule = "pay-large" }
"#;

/// A policy folder with these files.
fn folder(at: &Path, name: &str, files: &[(&str, &str)]) -> String {
    for (path, content) in files {
        let path = at.join(name).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    at.join(name).display().to_string()
}

fn run(state: &Path, args: &[&str]) -> (i32, String, String) {
    let out = govrun(state, args);
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn check_finds_and_fails_only_when_findings_are_denied() {
    let dir = tempfile::tempdir().unwrap();
    let policy = folder(dir.path(), "p", &[("govrun.toml", SMALL)]);
    let (code, out, _) = run(dir.path(), &["policy", "check", &policy]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("warning[no-drill]") && out.contains("--> govrun.toml:9"), "{out}");
    assert_eq!(run(dir.path(), &["policy", "check", &policy, "--deny", "warnings"]).0, 6);
    let (_, json, _) = run(dir.path(), &["policy", "check", &policy, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["schema"], &json["loads"]), (&"govrun.policy-check/v1".into(), &true.into()));
    assert_eq!(json["findings"][0]["code"], "no-drill");
    let (_, sarif, _) = run(dir.path(), &["policy", "check", &policy, "--format", "sarif"]);
    let sarif: Value = serde_json::from_str(&sarif).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&sarif["version"], &result["ruleId"]), (&"2.1.0".into(), &"no-drill".into()));
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 9);
    // A drill for it, and nothing is left.
    let drill = "[[drill]]\nid = \"d\"\nrule = \"pay-large\"\nagent = \"fin-1\"\ntool = \"pay\"\ncall = \"send(101)\"\nexpect = { verdict = \"block\" }\n";
    folder(dir.path(), "p", &[("drills/d.toml", drill)]);
    assert_eq!(run(dir.path(), &["policy", "check", &policy, "--deny", "warnings"]).0, 0);
    // What does not load says so in every format.
    folder(dir.path(), "p", &[("govrun.toml", &SMALL.replace("verdict = \"block\"", "verdict = \"blok\""))]);
    for format in ["human", "json", "sarif"] {
        let (code, out, err) = run(dir.path(), &["policy", "check", &policy, "--format", format]);
        assert_eq!(code, 8);
        assert!(
            err.contains("did you mean `block`?") && (format == "human" || out.contains("blok")),
            "{out}{err}"
        );
    }
}

#[test]
fn cases_run_with_coverage_and_mutants() {
    let dir = tempfile::tempdir().unwrap();
    let policy = folder(dir.path(), "p", &[("govrun.toml", SMALL)]);
    assert_eq!(run(dir.path(), &["policy", "test", &policy]).0, 2, "no cases is a mistake, not a success");
    folder(dir.path(), "p", &[("tests/pay.toml", CASE)]);
    let (code, out, _) = run(dir.path(), &["policy", "test", &policy]);
    assert_eq!(code, 0);
    assert!(out.contains("1 cases, 0 failed; 1 of 2 rules"), "{out}");
    assert_eq!(run(dir.path(), &["policy", "test", &policy, "--min-coverage", "90"]).0, 6);
    let (code, out, _) = run(dir.path(), &["policy", "test", &policy, "--mutate", "--min-kill", "90"]);
    assert!(code == 6 && out.contains("not noticed") && out.contains("`pay`: the rule is removed"), "{out}");
    folder(dir.path(), "p", &[("tests/pay.toml", &CASE.replace("block", "allow"))]);
    let (code, xml, _) = run(dir.path(), &["policy", "test", &policy, "--format", "junit"]);
    assert!(
        code == 6 && xml.contains("failures=\"1\"") && xml.contains("allow expected, block found"),
        "{xml}"
    );
}

#[test]
fn every_witness_of_a_difference_is_a_case_that_the_new_policy_passes_and_the_old_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let old = folder(dir.path(), "old", &[("govrun.toml", SMALL)]);
    let new = SMALL.replace("100", "1000");
    let new = folder(dir.path(), "new", &[("govrun.toml", &new)]);
    assert_eq!(run(dir.path(), &["policy", "diff", &old, &old]).0, 0);
    let (code, json, _) = run(dir.path(), &["policy", "diff", &old, &new, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let changes = json["changes"].as_array().unwrap();
    assert!(code == 6 && !changes.is_empty() && json["complete"] == true, "{json}");
    for change in changes {
        let witness = change["witness"].as_str().unwrap();
        for (which, expected) in [("old", 6), ("new", 0)] {
            let folder = folder(dir.path(), which, &[("tests/witness.toml", witness)]);
            assert_eq!(run(dir.path(), &["policy", "test", &folder]).0, expected, "{which}: {witness}");
        }
    }
    assert!(changes.iter().any(|c| c["permits_more"] == true));
}

/// A state directory with calls in its log, and the policy they were made under.
fn with_calls(dir: &Path) -> PathBuf {
    let ledger = Ledger::start();
    let policies = policies_with_ledger(dir, ledger.port);
    call(dir, &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1200)"#);
    call(dir, &policies, "finance-1", "payments.wasm", r#"send("Contoso Freight", 700)"#);
    call(dir, &policies, "finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    policies
}

#[test]
fn replay_says_what_would_have_changed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let policies = with_calls(dir.path());
    let policy = policies.display().to_string();
    let (code, out, err) = run(dir.path(), &["replay", "--policy", &policy]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("decisions, ") && !out.contains("->"), "{out}");
    let rules = policies.join("finance/payments.toml");
    let changed = std::fs::read_to_string(&rules).unwrap().replace("gt = 10000", "gt = 1000");
    std::fs::write(&rules, changed).unwrap();
    let (code, json, _) = run(dir.path(), &["replay", "--policy", &policy, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, 6);
    let changes = json["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{json}");
    assert_eq!(
        (&changes[0]["is"], &changes[0]["count"]),
        (&"escalate PAY-OVER-LIMIT pay-large".into(), &1.into())
    );
}

#[test]
fn what_is_learned_permits_what_was_permitted_and_no_other_value() {
    let dir = tempfile::tempdir().unwrap();
    let policies = with_calls(dir.path());
    let (code, learned, err) = run(dir.path(), &["policy", "learn"]);
    assert_eq!(code, 0, "{err}");
    assert!(learned.contains("mode = \"shadow\"") && learned.contains("Northwind Supplies"), "{learned}");
    assert!(
        !learned.contains("ACME") && !learned.contains("48000"),
        "a refused call was learned:\n{learned}"
    );
    // Enforced beside the same tools, the calls of then are allowed and their neighbours are not.
    let registry: String = std::fs::read_to_string(policies.join("finance/payments.toml"))
        .unwrap()
        .split("[list.counterparties]")
        .next()
        .unwrap()
        .to_owned();
    let agents = "[[agent]]\nname = \"finance-1\"\ntenant = \"acme\"\n";
    let enforced = learned.replace("mode = \"shadow\"\n", "");
    let case = |to: &str, amount: u32, verdict: &str| {
        format!(
            "[[case]]\ntitle = \"{to} {amount}\"\nagent = \"finance-1\"\ntool = \"payments.send\"\nargs = {{ counterparty = \"{to}\", amount = {amount} }}\nexpect = {{ verdict = \"{verdict}\" }}\n"
        )
    };
    let cases = [
        case("Northwind Supplies", 1200, "allow"),
        case("Contoso Freight", 700, "allow"),
        case("Northwind Supplies", 700, "block"),
        case("Contoso Freight", 1200, "block"),
        case("Northwind Supplies", 1199, "block"),
        case("Northwind", 1200, "block"),
    ]
    .concat();
    let learned = folder(
        dir.path(),
        "learned",
        &[("govrun.toml", &format!("schema = 1\n{agents}{registry}{enforced}")), ("tests/t.toml", &cases)],
    );
    let (code, out, err) = run(dir.path(), &["policy", "test", &learned]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_rule_is_promoted_on_evidence_only() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let policies = policies_with_ledger(dir.path(), ledger.port);
    let rules = policies.join("finance/payments.toml");
    let shadowed = std::fs::read_to_string(&rules).unwrap()
        + "\n[[rule]]\nid = \"pay-big\"\nmatch = { action = \"tool.call\", tool = \"payments.send\" }\nwhen = { \"args.amount\" = { gt = 1000 } }\nverdict = \"block\"\nreason = \"PAY-BIG\"\npromote_if = { calls = 2, changed = 2 }\nmode = \"shadow\"\n";
    std::fs::write(&rules, &shadowed).unwrap();
    let policy = policies.display().to_string();
    let promote =
        |more: &[&str]| run(dir.path(), &[&["policy", "promote", &policy, "pay-big"], more].concat());
    call(dir.path(), &policies, "finance-1", "payments.wasm", r#"send("Contoso Freight", 700)"#);
    let (code, _, err) = promote(&[]);
    assert!(code == 6 && err.contains("it matched 0 calls in shadow, 2 are needed"), "{err}");
    call(dir.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1200)"#);
    call(dir.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1300)"#);
    let (code, out, err) = promote(&[]);
    assert!(
        code == 0 && out.contains("2 calls from") && out.contains("2 of them decided otherwise"),
        "{out}{err}"
    );
    // With the promotion it may be enforced where the manifest asks for one, unless it is changed.
    let manifest = policies.join("govrun.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("require_shadow = true\n{text}")).unwrap();
    let enforced = shadowed.replace("\nmode = \"shadow\"", "");
    std::fs::write(&rules, &enforced).unwrap();
    let said = run(dir.path(), &["policy", "check", &policy]).2;
    assert!(!said.contains("pay-big") && said.contains("never promoted"), "{said}");
    std::fs::write(&rules, enforced.replace("gt = 1000 }", "gt = 900 }")).unwrap();
    let said = run(dir.path(), &["policy", "check", &policy]).2;
    assert!(said.contains("`pay-big` was changed after it was promoted"), "{said}");
    // Evidence that speaks against it.
    std::fs::write(&manifest, text).unwrap();
    std::fs::write(&rules, shadowed.replace("changed = 2", "changed = 1")).unwrap();
    call(dir.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1200)"#);
    call(dir.path(), &policies, "finance-1", "payments.wasm", r#"send("Northwind Supplies", 1300)"#);
    let (code, _, err) = promote(&[]);
    assert!(code == 6 && err.contains("at most 1 may be changed"), "{err}");
    let (code, _, _) = promote(&["--break-glass", "erin: attack in progress"]);
    assert_eq!(code, 0);
    assert!(
        std::fs::read_to_string(policies.join("promotions.toml")).unwrap().contains("break_glass = \"erin")
    );
}

#[test]
fn an_unsigned_or_altered_policy_does_not_run_where_signatures_are_required() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::start();
    let policies = policies_with_ledger(dir.path(), ledger.port);
    let policy = policies.display().to_string();
    let manifest = policies.join("govrun.toml");
    let plain = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("require_signatures = 2\n{plain}")).unwrap();
    assert_eq!(run(dir.path(), &["keys", "init"]).0, 0);
    for (name, role) in [("erin", "policy"), ("frank", "policy"), ("grace", "treasury")] {
        assert_eq!(run(dir.path(), &["keys", "approver", name, "--role", role]).0, 0);
    }
    let pay = || {
        let out =
            call(dir.path(), &policies, "finance-1", "payments.wasm", r#"send("Contoso Freight", 700)"#);
        (out.status.code().unwrap(), text(&out.stderr))
    };
    let sign = |who| run(dir.path(), &["policy", "sign", &policy, "--as", who]).0;
    assert!(pay().0 == 8 && pay().1.contains("signed by 0 of the 2"), "{:?}", pay());
    assert_eq!(sign("erin"), 0);
    assert_eq!(sign("erin"), 0, "signing twice is signing once");
    assert!(pay().1.contains("signed by 1 of the 2"), "{:?}", pay());
    assert_eq!(sign("grace"), 8, "only the role `policy` signs policies");
    assert_eq!(sign("frank"), 0);
    assert_eq!(run(dir.path(), &["policy", "verify", &policy]).0, 0);
    assert_eq!(pay().0, 0, "{:?}", pay());
    // One letter in a list, and none of the signatures fits.
    let list = policies.join("finance/lists/counterparties.txt");
    let before = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, before.replace("Contoso", "Contosa")).unwrap();
    assert!(pay().0 == 8 && pay().1.contains("signed by 0 of the 2"), "{:?}", pay());
    std::fs::write(&list, before).unwrap();
    assert_eq!(pay().0, 0);
    // A manifest that no longer asks for signatures is one more alteration.
    std::fs::write(&manifest, &plain).unwrap();
    assert!(pay().0 == 8 && pay().1.contains("signed by 0 of the 2"), "{:?}", pay());
}

#[test]
fn a_lock_pins_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let policies = policies_with_ledger(dir.path(), 8901);
    let policy = policies.display().to_string();
    assert_eq!(run(dir.path(), &["policy", "lock", &policy]).0, 0);
    assert_eq!(run(dir.path(), &["policy", "check", &policy]).0, 0);
    let list = policies.join("finance/lists/counterparties.txt");
    std::fs::write(&list, "Mallory\n").unwrap();
    let (code, _, err) = run(dir.path(), &["policy", "check", &policy]);
    assert!(code == 8 && err.contains("its digest differs"), "{err}");
}
