//! Cases, coverage, mutants and differences. `GOVRUN_DIFF_CASES` sets the number of random pairs of policies (default 150).
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;

use common::*;
use govrun_policy::{Case, Context, DIFF_TIME, Policy, SourceFile, call_to_toml, diff, read_cases};
use govrun_verdict::Call;
use proptest::prelude::*;
use world::*;

const RULES: &str = r#"
[[agent]]
name = "fin-1"
tenant = "acme"
[budget.hourly]
limit = 3
per = "1h"
key = ["agent"]
[[rule]]
id = "pay"
match = { agent = "fin-*", action = "tool.call", tool = "pay.send" }
when = { "args.amount" = { le = 100 } }
verdict = "allow"
limit = ["hourly"]
reason = "PAY-OFTEN"
[[rule]]
id = "pay-large"
match = { action = "tool.call", tool = "pay.send" }
when = { "args.amount" = { gt = 100 } }
unless = { "args.to" = { eq = "ACME" } }
verdict = "block"
reason = "PAY-LARGE"
"#;

const CASES: &str = r#"
[[case]]
title = "a small payment"
agent = "fin-1"
tool = "pay.send"
args = { amount = 100, to = "x" }
expect = { verdict = "allow", rule = "pay" }
[[case]]
title = "a large one"
agent = "fin-1"
tool = "pay.send"
args = { amount = 101, to = "x" }
expect = { verdict = "block", rule = "pay-large", reason = "PAY-LARGE" }
[[case]]
title = "a large one to ACME is not blocked by the rule"
agent = "fin-1"
tool = "pay.send"
args = { amount = 101, to = "ACME" }
expect = { verdict = "block", rule = "default" }
[[case]]
title = "no amount"
agent = "fin-1"
tool = "pay.send"
args = { to = "x" }
expect = { verdict = "block", reason = "PAY-LARGE-UNKNOWN" }
[[case]]
title = "somebody else"
agent = "other"
tool = "pay.send"
args = { amount = 1 }
expect = { verdict = "block", rule = "default", reason = "DEFAULT-DENY" }
[[case]]
title = "another tool"
agent = "fin-1"
tool = "pay.list"
args = { amount = 200 }
expect = { verdict = "block", rule = "default" }
[[case]]
title = "another tool, a small amount"
agent = "fin-1"
tool = "pay.list"
args = { amount = 20 }
expect = { verdict = "block", rule = "default" }
[[case]]
title = "the fourth in an hour waits"
agent = "fin-1"
tool = "pay.send"
args = { amount = 1 }
repeat = 4
every = "1m"
expect = { verdict = "throttle", reason = "PAY-OFTEN", rule = "pay" }
[[case]]
title = "the fourth in two hours does not"
agent = "fin-1"
tool = "pay.send"
args = { amount = 1 }
repeat = 4
every = "30m"
expect = { verdict = "allow" }
"#;

fn cases(policy: &Policy, text: &str) -> Vec<Case> {
    let files = [SourceFile { path: "tests/pay.toml".into(), text: text.into() }];
    read_cases(&files, policy).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn cases_pass_where_the_engine_and_the_budgets_say_so_and_fail_with_what_was_found() {
    let policy = policy(RULES);
    let all = cases(&policy, CASES);
    assert_eq!(all.len(), 9);
    assert_eq!(policy.test(&all).len(), 0, "{:?}", policy.test(&all));
    let wrong = cases(
        &policy,
        &CASES.replace("verdict = \"allow\", rule = \"pay\"", "verdict = \"block\", rule = \"default\""),
    );
    let failed = policy.test(&wrong);
    assert_eq!(failed.len(), 1);
    assert_eq!(
        failed[0].differences,
        ["verdict: block expected, allow found", "rule: default expected, pay found"]
    );
}

#[test]
fn a_mistake_in_a_case_is_an_error_with_its_place() {
    let policy = policy(RULES);
    for (from, to, said) in [
        ("title = \"a small payment\"", "titel = \"a small payment\"", "did you mean `title`?"),
        ("rule = \"pay\" }", "rule = \"pai\" }", "did you mean `pay`?"),
        (
            "tool = \"pay.send\"\nargs",
            "tool = \"pay.send\"\npath = \"/x\"\nargs",
            "is nothing that `tool.call` has",
        ),
        ("repeat = 4", "repeat = 0", "a number from 1"),
        ("verdict = \"allow\", rule", "verdict = \"alow\", rule", "did you mean `allow`?"),
    ] {
        let files = [SourceFile { path: "tests/pay.toml".into(), text: CASES.replacen(from, to, 1) }];
        let errors = read_cases(&files, &policy).unwrap_err().to_string();
        assert!(errors.contains(said) && errors.contains("tests/pay.toml:"), "{errors}");
    }
    let empty = [SourceFile { path: "tests/none.toml".into(), text: "# nothing".into() }];
    assert!(read_cases(&empty, &policy).is_err(), "a file without cases tests nothing");
}

#[test]
fn good_cases_kill_every_mutant_and_cover_every_way() {
    let policy = policy(RULES);
    let all = cases(&policy, CASES);
    let mutation = policy.mutate(&all);
    let survivors: Vec<String> =
        mutation.mutants.iter().filter(|m| !m.killed).map(|m| format!("{} {}", m.rule, m.what)).collect();
    assert!(
        survivors.is_empty() && mutation.mutants.len() > 15,
        "{survivors:?} of {}",
        mutation.mutants.len()
    );
    let coverage = policy.coverage(&all);
    assert_eq!((coverage.rules, coverage.of_rules), (2, 2));
    assert_eq!(coverage.covered(), coverage.branches.len());
}

#[test]
fn each_case_left_out_lets_a_mutant_or_a_way_go_unnoticed() {
    let policy = policy(RULES);
    let all = cases(&policy, CASES);
    let score = |cases: &[Case]| (policy.mutate(cases).killed(), policy.coverage(cases).covered());
    let whole = score(&all);
    // Without the boundary of 100, and without the exception.
    for needed in [0, 2] {
        let mut fewer = all.clone();
        fewer.remove(needed);
        assert!(score(&fewer) < whole, "case {needed} was not missed");
    }
    assert_eq!(score(&[]), (0, 0));
}

#[test]
fn a_call_comes_back_from_its_toml_as_it_was() {
    let policy = numbered(&["match = { action = \"clock\" }\nverdict = \"allow\"\n".to_owned()], None);
    for call in world().iter().step_by(7).chain([
        &connect("10.0.0.1"),
        &request("api.example.com"),
        &query("select \"x\" -- \u{7}"),
    ]) {
        let text =
            format!("[[case]]\ntitle = \"x\"\nexpect = {{ verdict = \"block\" }}\n{}", call_to_toml(call));
        let back = cases(&policy, &text).remove(0).call;
        let plain = |call: &Call| (call.agent.clone(), call.tool.clone(), without_null(call));
        assert_eq!(plain(&back), plain(call), "{text}");
    }
}

fn without_null(call: &Call) -> String {
    format!("{:?}", call.operation)
        .replace("(\"n\", Null), ", "")
        .replace(", (\"t\", Null)", "")
        .replace("(\"t\", Null)", "")
}

#[test]
fn a_change_comes_with_a_call_that_shows_it() {
    let new = RULES.replace("gt = 100", "gt = 1000").replace("le = 100", "le = 1000");
    let (old, new) = (policy(RULES), policy(&new));
    let found = diff(&old, &new);
    assert!(found.complete);
    let said: BTreeSet<String> = found
        .changes
        .iter()
        .map(|c| format!("{} {} {}", c.old.verdict, c.new.verdict, c.permits_more))
        .collect();
    // To ACME the default blocked before; to others the rule did.
    assert_eq!(said, BTreeSet::from(["block allow true".to_owned()]));
    assert!(diff(&old, &old).changes.is_empty());
    let stricter = policy(&RULES.replace(
        "verdict = \"allow\"\nlimit",
        "verdict = \"escalate\"\nescalate = { to = [\"role:x\"] }\nlimit",
    ));
    assert!(diff(&old, &stricter).changes.iter().all(|c| !c.permits_more && c.new.verdict == "escalate"));
}

fn number_from(name: &str, default: u32) -> u32 {
    #[expect(clippy::disallowed_methods, reason = "the size of a test")]
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn answers(policy: &Policy, call: &Call) -> (&'static str, String, String) {
    let decision = policy.decide(call, &Context { now: DIFF_TIME, bounds: None });
    (
        decision.verdict.name(),
        decision.reason.to_string(),
        decision.rule.map_or_else(|| "-".into(), |r| r.to_string()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: number_from("GOVRUN_DIFF_CASES", 150), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_difference_of_the_small_world_is_found_and_every_witness_replays(
        rules in proptest::collection::vec(any_rule(), 1..4), changed in any_rule(), at in 0usize..4, removed in any::<bool>(),
    ) {
        let old = numbered(&rules, None);
        let mut after = rules.clone();
        let at = at % rules.len();
        after[at] = changed;
        let new = numbered(&after, removed.then_some(at));
        let found = diff(&old, &new);
        let mut cells = BTreeSet::new();
        for change in &found.changes {
            let (a, b) = (answers(&old, &change.witness), answers(&new, &change.witness));
            prop_assert_ne!(&a, &b);
            prop_assert_eq!((a.0, &a.1), (change.old.verdict, &change.old.reason));
            prop_assert_eq!((b.0, &b.1), (change.new.verdict, &change.new.reason));
            cells.insert((change.witness.action(), a, b));
        }
        for call in world() {
            let (a, b) = (answers(&old, &call), answers(&new, &call));
            if a != b {
                prop_assert!(!found.complete || cells.contains(&(call.action(), a.clone(), b.clone())), "{:?} {:?} {:?}", call, a, b);
            }
        }
        prop_assert!(found.complete);
    }
}
