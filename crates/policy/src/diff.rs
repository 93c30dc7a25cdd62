//! What a new policy decides otherwise, with a call for each difference.

use std::collections::{BTreeMap, BTreeSet};

use govrun_verdict::{Action, Call, Decision, RuleId, Timestamp, Verdict};

use crate::condition::View;
use crate::decide::{Context, how_it_matches};
use crate::policy::Policy;
use crate::probe::{Calls, asks_only_the_call};
use crate::rule::Rule;

/// Most calls that are compared for one changed rule and action.
const MAX_CALLS: usize = 20_000;
/// Most rules beside a changed one whose conditions are told apart.
const MAX_BESIDE: usize = 6;

/// Most calls in which two rules are looked for to match both.
const MAX_PAIR: usize = 4_000;

/// The time of the calls that are compared: a Wednesday, 2026-07-01T10:00:00Z.
pub const DIFF_TIME: Timestamp = Timestamp(1_782_900_000_000_000);

/// An answer, as far as a comparison of policies looks at it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The verdict, before any budget.
    pub verdict: &'static str,
    /// The rule that decided; `None` for the default.
    pub rule: Option<RuleId>,
    /// The reason.
    pub reason: String,
}

/// Calls that the new policy answers otherwise, all in the same way.
#[derive(Debug, Clone)]
pub struct Change {
    /// What the old policy answers.
    pub old: Answer,
    /// What the new one answers.
    pub new: Answer,
    /// Whether the new answer is the more permissive one.
    pub permits_more: bool,
    /// One of the calls, which really gets these answers.
    pub witness: Call,
}

/// All differences that were found.
#[derive(Debug, Clone, Default)]
pub struct Diff {
    /// One for each action and pair of answers.
    pub changes: Vec<Change>,
    /// Ids of rules that only one of the policies has, or that say something else in the other.
    pub rules: Vec<RuleId>,
    /// False when there may be differences in calls that were not made: opaque conditions, too many combinations.
    pub complete: bool,
}

impl Answer {
    fn of(decision: &Decision) -> Self {
        Self {
            verdict: decision.verdict.name(),
            rule: decision.rule.clone(),
            reason: decision.reason.to_string(),
        }
    }
}

/// How much a verdict permits; more is more.
const fn permits(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Block => 0,
        Verdict::Escalate => 1,
        Verdict::Throttle => 2,
        Verdict::Sandbox => 3,
        Verdict::Allow => 4,
    }
}

/// Compare two policies.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Diff {
    let mut diff = Diff { complete: true, ..Diff::default() };
    let mut found: BTreeMap<(Action, Answer, Answer), Change> = BTreeMap::new();
    let changed = changed(old, new);
    let by_id: BTreeSet<&RuleId> = changed.iter().map(|rule| &rule.id).collect();
    diff.rules = by_id.into_iter().cloned().collect();
    for rule in &changed {
        diff.complete &= asks_only_the_call(rule);
        for action in &rule.scope.actions {
            diff.complete &= compare(old, new, *action, rule, &changed, &mut found);
        }
    }
    if said(&old.default) != said(&new.default) || old.ceilings != new.ceilings {
        for action in Action::ALL {
            let rules: Vec<&Rule> =
                of_action(old, action).chain(of_action(new, action)).take(MAX_BESIDE).collect();
            diff.complete &= calls(old, new, action, &rules, &mut found);
        }
    }
    let who = |policy: &Policy| -> BTreeSet<_> {
        policy.agents().map(|a| (a.name.clone(), a.tenant.clone())).collect()
    };
    diff.complete &= who(old) == who(new);
    diff.changes = found.into_values().collect();
    diff
}

fn of_action(policy: &Policy, action: Action) -> impl Iterator<Item = &Rule> {
    policy.rules.iter().filter(move |rule| rule.scope.actions.contains(&action))
}

fn said(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// Every rule, old or new, that the other policy does not have just so.
fn changed<'p>(old: &'p Policy, new: &'p Policy) -> Vec<&'p Rule> {
    let texts = |policy: &'p Policy| -> BTreeMap<&'p RuleId, (String, &'p Rule)> {
        policy.rules.iter().map(|rule| (&rule.id, (said(rule), rule))).collect()
    };
    let (old, new) = (texts(old), texts(new));
    let mut changed = Vec::new();
    for (one, other) in [(&old, &new), (&new, &old)] {
        for (id, (text, rule)) in one {
            if other.get(id).is_none_or(|(there, _)| there != text) {
                changed.push(*rule);
            }
        }
    }
    changed
}

/// Compare calls of one action that tell this rule from those that could matter beside it.
fn compare(
    old: &Policy,
    new: &Policy,
    action: Action,
    rule: &Rule,
    changed: &[&Rule],
    found: &mut BTreeMap<(Action, Answer, Answer), Change>,
) -> bool {
    let mut beside: Vec<&Rule> = Vec::new();
    let mut same: Vec<&Rule> =
        changed.iter().copied().filter(|r| r.id == rule.id && !std::ptr::eq(*r, rule)).collect();
    same.insert(0, rule);
    for other in of_action(old, action).chain(of_action(new, action)) {
        if other.id != rule.id
            && !beside.iter().any(|b| said(b) == said(other))
            && overlap(old, new, action, rule, other)
        {
            beside.push(other);
        }
    }
    let together: Vec<&Rule> = same.iter().chain(beside.iter().take(MAX_BESIDE)).copied().collect();
    let mut complete = calls(old, new, action, &together, found);
    for other in beside.iter().skip(MAX_BESIDE) {
        complete = false;
        let pair: Vec<&Rule> = same.iter().chain([other]).copied().collect();
        calls(old, new, action, &pair, found);
    }
    complete
}

/// Whether a call can match both rules.
fn overlap(old: &Policy, new: &Policy, action: Action, one: &Rule, other: &Rule) -> bool {
    let calls = Calls::new(&[old, new], action, &[one, other]);
    let hit = |rule: &Rule, call: &Call| how_it_matches(rule, &View::without_past(call, DIFF_TIME)).is_some();
    let sure = calls.complete() && usize::try_from(calls.count()).is_ok_and(|count| count <= MAX_PAIR);
    !sure || calls.each().any(|call| hit(one, &call) && hit(other, &call))
}

fn calls(
    old: &Policy,
    new: &Policy,
    action: Action,
    rules: &[&Rule],
    found: &mut BTreeMap<(Action, Answer, Answer), Change>,
) -> bool {
    let context = Context { now: DIFF_TIME, bounds: None };
    let calls = Calls::new(&[old, new], action, rules);
    for call in calls.each().take(MAX_CALLS) {
        let (before, after) = (old.decide(&call, &context), new.decide(&call, &context));
        let (a, b) = (Answer::of(&before), Answer::of(&after));
        if a != b {
            found.entry((action, a.clone(), b.clone())).or_insert_with(|| Change {
                old: a,
                new: b,
                permits_more: permits(after.verdict) > permits(before.verdict),
                witness: call,
            });
        }
    }
    calls.complete() && usize::try_from(calls.count()).is_ok_and(|count| count <= MAX_CALLS)
}
