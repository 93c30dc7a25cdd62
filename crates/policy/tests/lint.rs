//! Lint against brute force: over every call of a small world, a rule that is reported to have no effect has none, and a
//! rule without effect is reported. `GOVRUN_LINT_CASES` sets the number of random policies (default 300),
//! `GOVRUN_LINT_RULES` the size of the large one (default 2,000).
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use common::*;
use govrun_policy::{ArgumentType, Code, Finding, Lint};
use govrun_verdict::Digest;
use proptest::prelude::*;
use world::*;

fn number_from(name: &str, default: usize) -> usize {
    #[expect(clippy::disallowed_methods, reason = "the size of a test")]
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn findings(rules: &str) -> Vec<Finding> {
    policy(&format!("{AGENTS}{rules}")).lint(&Lint::default())
}

/// Code and rule of every finding about a rule.
fn told(rules: &str) -> Vec<String> {
    let about = |f: &Finding| f.rule.as_ref().map(|rule| format!("{} {rule}", f.code));
    findings(rules).iter().filter_map(about).collect()
}

fn rule(id: &str, scope: &str, rest: &str) -> String {
    format!("[[rule]]\nid = \"{id}\"\nmatch = {{ {scope} }}\n{rest}\n")
}

const PAY: &str = "action = \"tool.call\", tool = \"pay.send\"";
const BLOCK: &str = "verdict = \"block\"\nreason = \"NO-NO\"";
const ALLOW: &str = "verdict = \"allow\"";

#[test]
fn what_is_injected_is_found_with_both_places() {
    let cases = [
        // A condition that nothing satisfies.
        (
            rule("a", PAY, &format!("when = {{ \"args.n\" = {{ gt = 5, lt = 3 }} }}\n{ALLOW}")),
            "never-matches a",
        ),
        (
            rule(
                "a",
                PAY,
                &format!(
                    "when = {{ \"args.n\" = {{ gt = 5 }} }}\nunless = {{ \"args.n\" = {{ gt = 1 }} }}\n{ALLOW}"
                ),
            ),
            "never-matches a",
        ),
        (rule("a", "action = \"tool.call\", agent = \"fim-*\"", ALLOW), "never-matches a"),
        (rule("a", "action = \"tool.call\", agent = \"fim-*\"", ALLOW), "dangling a"),
        // Wholly under a block.
        (rule("a", PAY, ALLOW) + &rule("b", "action = \"tool.call\", tool = \"pay.*\"", BLOCK), "shadowed a"),
        (rule("a", PAY, ALLOW) + &rule("b", PAY, BLOCK), "contradiction a"),
        (
            rule("a", PAY, &format!("when = {{ \"args.n\" = {{ le = 10 }} }}\n{ALLOW}"))
                + &rule("b", PAY, &format!("when = {{ \"args.n\" = {{ lt = 20 }} }}\n{BLOCK}")),
            "shadowed a",
        ),
        // By two together, each of which leaves a part.
        (
            rule("a", PAY, ALLOW)
                + &rule("b", PAY, &format!("when = {{ \"args.n\" = {{ le = 10 }} }}\n{BLOCK}"))
                + &rule("c", PAY, &format!("when = {{ \"args.n\" = {{ gt = 10 }} }}\n{BLOCK}")),
            "shadowed a",
        ),
        (
            rule("p", "action = \"fs.read\", path = \"/data/in/**\"", ALLOW)
                + &rule("q", "action = \"fs.*\", path = \"/data/**\"", BLOCK),
            "shadowed p",
        ),
        // The same opaque condition.
        (
            rule(
                "a",
                PAY,
                &format!(
                    "when = {{ \"args.t\" = {{ regex = \"a+\" }}, \"args.n\" = {{ gt = 1 }} }}\n{ALLOW}"
                ),
            ) + &rule("b", PAY, &format!("when = {{ \"args.t\" = {{ regex = \"a+\" }} }}\n{BLOCK}")),
            "shadowed a",
        ),
        // Says what another says.
        (
            rule("b", PAY, ALLOW) + &rule("a", "action = \"tool.call\", tool = \"pay.*\"", ALLOW),
            "redundant b",
        ),
        (
            rule("a", PAY, "verdict = \"escalate\"\nescalate = { to = [\"role:x\"] }\nreason = \"AA\"")
                + &rule(
                    "b",
                    "action = \"tool.call\"",
                    "verdict = \"escalate\"\nescalate = { to = [\"role:y\"] }\nreason = \"BB\"",
                ),
            "contradiction a",
        ),
        (rule("a", "action = \"tool.call\"", ALLOW), "default-unreachable a"),
    ];
    for (rules, expected) in cases {
        let all = told(&rules);
        assert!(all.contains(&expected.to_owned()), "{expected} is not in {all:?} of\n{rules}");
    }
    let both = findings(&(rule("a", PAY, ALLOW) + &rule("b", "action = \"tool.call\"", BLOCK)));
    let shadowed = both.iter().find(|f| f.code == Code::Shadowed).unwrap();
    assert_ne!(shadowed.at.line, shadowed.others[0].0.line);
}

#[test]
fn what_has_an_effect_is_left_alone() {
    let cases = [
        // An opaque condition might leave something.
        rule("a", PAY, &format!("when = {{ \"args.t\" = {{ prefix = \"a\" }} }}\n{ALLOW}"))
            + &rule("b", PAY, &format!("when = {{ \"args.t\" = {{ regex = \"a.*\" }} }}\n{BLOCK}")),
        // One number is left between the two.
        rule("a", PAY, ALLOW)
            + &rule(
                "b",
                PAY,
                &format!(
                    "when = {{ \"args.n\" = {{ lt = 10 }} }}\nunless = {{ \"args.n\" = {{ has = false }} }}\n{BLOCK}"
                ),
            )
            + &rule("c", PAY, &format!("when = {{ \"args.n\" = {{ gt = 10, has = true }} }}\n{BLOCK}")),
        // Only adds a budget, a page, a limit.
        rule("a", PAY, ALLOW) + &rule("b", PAY, &format!("{ALLOW}\nlimit = [\"b\"]")),
        rule("a", PAY, BLOCK) + &rule("b", PAY, &format!("{BLOCK}\nnotify = [\"n\"]")),
        rule("a", PAY, ALLOW) + &rule("b", PAY, &format!("{ALLOW}\nlimits = {{ fuel = 9 }}")),
        // Shadow rules are there to be watched, and cover nothing.
        rule("a", PAY, &format!("{ALLOW}\nmode = \"shadow\"")) + &rule("b", PAY, ALLOW),
        rule("a", PAY, ALLOW) + &rule("b", PAY, &format!("{BLOCK}\nmode = \"shadow\"")),
        rule("p", "action = \"fs.read\", path = \"/data/**\"", ALLOW)
            + &rule("q", "action = \"fs.read\", path = \"/data/*\"", BLOCK),
    ];
    for rules in cases {
        // Where the other rule does all that `a` does and more, it is `a` that is not needed.
        let all: Vec<String> = told(&rules)
            .into_iter()
            .filter(|t| !t.starts_with("default-unreachable") && t != "redundant a")
            .collect();
        assert!(all.is_empty(), "{all:?} of\n{rules}");
    }
}

#[test]
fn names_that_nothing_defines_and_definitions_that_nothing_uses_are_found() {
    let tool = format!(
        "[[tool]]\nname = \"payments\"\ndigest = \"{}\"\ndatabases = [{{ label = \"ledger\", sqlite = \"l.db\", mode = \"ro\" }}]\n",
        Digest([1; 32])
    );
    let rules = tool
        + "[list.l]\nvalues = [\"x\"]\n"
        + &rule("t", "action = \"tool.call\", tool = \"payment.send\"", ALLOW)
        + &rule("d", "action = \"db.query\", tool = \"payments.*\", db = \"ledgr\"", ALLOW)
        + &rule("u", "action = \"tool.call\", tool = \"unregistered:x.y\"", BLOCK);
    let all: Vec<String> = findings(&rules).iter().map(|f| f.message.clone()).collect();
    for part in [
        "did you mean `payments`?",
        "did you mean `ledger`?",
        "no rule uses the list `l`",
        "no rule uses the budget `b`",
        "no rule uses the sandbox profile `s`",
        "no rule uses the notify target `n`",
    ] {
        assert!(all.iter().any(|message| message.contains(part)), "{part} is not in {all:#?}");
    }
    assert!(!all.iter().any(|message| message.contains("`u`")), "{all:#?}");
}

#[test]
fn arguments_are_held_against_the_function() {
    let signature = vec![
        ("to".to_owned(), ArgumentType::Text),
        ("amount".to_owned(), ArgumentType::Number),
        ("meta".to_owned(), ArgumentType::Record(vec![("urgent".to_owned(), ArgumentType::Bool)])),
    ];
    let lint = Lint { signatures: [("pay.send".to_owned(), signature)].into(), drilled: None };
    let ill = |when: &str| {
        let rules = rule("a", PAY, &format!("when = {{ {when} }}\n{BLOCK}"));
        let all = policy(&format!("{AGENTS}{rules}")).lint(&lint);
        all.into_iter().find(|f| f.code == Code::IllTyped).map(|f| f.message)
    };
    for good in [
        "\"args.amount\" = { gt = 1 }",
        "\"args.to\" = { eq = \"x\" }",
        "\"args.meta.urgent\" = { eq = true }",
        "\"args.nope\" = { has = true }",
    ] {
        assert_eq!(ill(good), None, "{good}");
    }
    for bad in [
        "\"args.amout\" = { gt = 1 }",
        "\"args.to\" = { gt = 1 }",
        "\"args.meta.urgent\" = { eq = 1 }",
        "\"args.to.x\" = { eq = 1 }",
    ] {
        assert!(ill(bad).unwrap().contains("whatever the arguments are"), "{bad}");
    }
}

#[test]
fn a_severe_rule_without_a_drill_is_found() {
    let rules = rule("a", PAY, &format!("{BLOCK}\nseverity = \"critical\""))
        + &rule("b", PAY, &format!("{BLOCK}\nseverity = \"low\""));
    let without = |drilled: &[&str]| {
        let drilled =
            drilled.iter().map(|id| govrun_verdict::RuleId::new(id).unwrap()).collect::<BTreeSet<_>>();
        let all =
            policy(&format!("{AGENTS}{rules}")).lint(&Lint { drilled: Some(drilled), ..Lint::default() });
        all.iter().filter(|f| f.code == Code::NoDrill).count()
    };
    assert_eq!((without(&[]), without(&["a"])), (1, 0));
}

// ---- against brute force ------------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(ProptestConfig { cases: u32::try_from(number_from("GOVRUN_LINT_CASES", 300)).unwrap(),
        failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lint_finds_exactly_the_rules_without_effect(rules in proptest::collection::vec(any_rule(), 1..5)) {
        let whole = numbered(&rules, None);
        let world = world();
        let idle = [Code::NeverMatches, Code::Shadowed, Code::Redundant];
        let contradiction = |f: &Finding| f.code == Code::Contradiction && f.message.contains("permits nothing");
        let reported: BTreeSet<String> = whole
            .lint(&Lint::default())
            .iter()
            .filter(|f| idle.contains(&f.code) || contradiction(f))
            .filter_map(|f| f.rule.as_ref().map(ToString::to_string))
            .collect();
        for at in 0..rules.len() {
            if rules[at].contains("shadow") { continue }
            let without = numbered(&rules, Some(at));
            let differs = world.iter().find(|call| noticed(decide(&whole, call)) != noticed(decide(&without, call)));
            let told = reported.contains(&format!("r{at}"));
            prop_assert_eq!(told, differs.is_none(), "r{} of\n{}\n{:?}", at, rules.join("\n"), differs);
        }
    }
}

#[test]
fn a_large_policy_is_linted_in_time() {
    let count = number_from("GOVRUN_LINT_RULES", 2_000);
    let mut rules = AGENTS.to_owned();
    for at in 0..count {
        let scope = match at % 4 {
            0 => format!("action = \"tool.call\", tool = \"tool-{at}.*\""),
            1 => format!("action = \"http.request\", host = \"*.host-{at}.example\""),
            2 => format!("action = \"fs.read\", path = \"/data/{at}/**\""),
            _ => "action = \"tool.call\", tool = \"pay.send\"".to_owned(),
        };
        let rest = if at % 4 == 3 {
            format!("when = {{ \"args.n\" = {{ between = [{at}, {}] }} }}\nverdict = \"allow\"", at + 2)
        } else {
            "verdict = \"allow\"".to_owned()
        };
        rules.push_str(&rule(&format!("r{at}"), &scope, &rest));
    }
    rules.push_str(&rule("zz", "action = \"fs.read\", path = \"/data/2/x\"", ALLOW));
    let policy = policy(&rules);
    let start = Instant::now();
    let all = policy.lint(&Lint::default());
    let took = start.elapsed();
    println!("{count} rules linted in {took:?}");
    let idle: Vec<String> =
        all.iter().filter_map(|f| f.rule.as_ref().map(|rule| format!("{} {rule}", f.code))).collect();
    assert_eq!(idle, ["redundant zz"]);
    let bound = if cfg!(debug_assertions) { 30 } else { 2 };
    assert!(took.as_secs() < bound, "{took:?}");
}
