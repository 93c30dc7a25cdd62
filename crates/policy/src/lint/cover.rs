//! Rules that never match, and rules without which every call would be decided as it is.

use std::collections::BTreeSet;

use govrun_verdict::{Action, Call, Decision, RuleId, RuleVerdict, Timestamp, Verdict};

use super::{Code, Finding};
use crate::condition::View;
use crate::decide::{Context, how_it_matches};
use crate::policy::Policy;
use crate::probe::{Calls, asks_only_the_call};
use crate::rollout::Stage;
use crate::rule::{Effect, Rule};
use crate::scope::ScopeTest;

/// Most calls that are tried to find one in which a rule matters.
const MAX_TRIED: usize = 400;
/// Most calls in a proof that a rule never matters.
const MAX_PROOF: u64 = 30_000;
/// Most rules beside it in such a proof.
const MAX_OTHERS: usize = 8;
/// Most escalations that are compared pair by pair.
const MAX_ESCALATIONS: usize = 200;

const CONTEXT: Context<'static> = Context { now: Timestamp(1_800_000_000_000_000), bounds: None };

/// Whether and how a rule matches, at the one time of all these calls.
fn hit(rule: &Rule, call: &Call) -> Option<bool> {
    rule.scope.actions.contains(&call.action()).then_some(())?;
    how_it_matches(rule, &View::without_past(call, CONTEXT.now))
}

fn enforced(rule: &Rule) -> bool {
    rule.stage == Stage::Enforced
}

pub(super) fn findings(policy: &Policy) -> Vec<Finding> {
    let mut findings: Vec<Finding> = policy.rules.iter().filter_map(|rule| about(policy, rule)).collect();
    findings.extend(nobody_can_approve(policy));
    findings.extend(default_unreachable(policy));
    findings
}

/// What calls of one rule's own say.
#[derive(Default)]
struct Trial {
    matched: bool,
    complete: bool,
    /// Removing the rule would change a decision.
    matters: bool,
    /// Other enforced rules that matched the same calls.
    others: BTreeSet<RuleId>,
    /// Those that matched calls of its scope which its conditions left out.
    near: BTreeSet<RuleId>,
}

fn about(policy: &Policy, rule: &Rule) -> Option<Finding> {
    let trial = tried(policy, rule);
    if !trial.matched {
        return if trial.complete {
            Some(never_matches(policy, rule))
        } else {
            // Which calls it matches is opaque.
            repeats(policy, rule, &trial.near).filter(|_| enforced(rule))
        };
    }
    if trial.matters || !enforced(rule) {
        return None;
    }
    proved(policy, rule, trial.others.clone()).or_else(|| repeats(policy, rule, &trial.others))
}

fn tried(policy: &Policy, rule: &Rule) -> Trial {
    let mut trial = Trial { complete: asks_only_the_call(rule), ..Trial::default() };
    for action in &rule.scope.actions {
        let calls = Calls::new(&[policy], *action, &[rule]);
        trial.complete &= calls.complete() && calls.count() <= MAX_PROOF;
        for call in calls.each().take(MAX_TRIED) {
            if !rule.scope.holds(&call) {
                continue;
            }
            let decision = policy.decide(&call, &CONTEXT);
            let beside = decision.matched.iter().map(|m| m.rule.clone()).filter(|id| *id != rule.id);
            if hit(rule, &call).is_none() {
                trial.near.extend(beside);
                continue;
            }
            trial.matched = true;
            trial.others.extend(beside.filter(|id| by_id(policy, id).is_some_and(enforced)));
            if !enforced(rule) || !same(&decision, &policy.decide_with(&call, &CONTEXT, |r| r.id != rule.id))
            {
                trial.matters = true;
                return trial;
            }
        }
        let all = calls.each().skip(MAX_TRIED).take(usize::try_from(MAX_PROOF).unwrap_or(usize::MAX));
        trial.matched = trial.matched || all.into_iter().any(|call| hit(rule, &call).is_some());
    }
    trial
}

/// The same in everything that anybody would notice.
fn same(a: &Decision, b: &Decision) -> bool {
    let substance = |d: &Decision| {
        (d.verdict, d.reason.clone(), d.message.clone(), d.obligations.clone(), d.escalate.clone())
    };
    let rest = |d: &Decision| {
        let budgets: Vec<_> = d.budgets.iter().map(|b| (b.budget.name.clone(), b.reason.clone())).collect();
        (budgets, d.notify.clone(), d.severity, d.durability)
    };
    substance(a) == substance(b) && rest(a) == rest(b)
}

fn never_matches(policy: &Policy, rule: &Rule) -> Finding {
    finding(policy, Code::NeverMatches, rule, format!("no call can match the rule `{}`", rule.id), &[])
}

fn finding(policy: &Policy, code: Code, rule: &Rule, message: String, others: &[&Rule]) -> Finding {
    let place = |rule: &Rule| policy.rule(&rule.id).map(|info| info.origin.clone());
    let unplaced = crate::error::Origin { file: crate::sources::MANIFEST.into(), line: 1 };
    Finding {
        code,
        at: place(rule).unwrap_or(unplaced),
        rule: Some(rule.id.clone()),
        message,
        others: others
            .iter()
            .filter_map(|other| Some((place(other)?, format!("the rule `{}`", other.id))))
            .collect(),
    }
}

/// A rule whose conditions include all of another that blocks anyway: true whatever the conditions mean.
fn repeats(policy: &Policy, rule: &Rule, others: &BTreeSet<RuleId>) -> Option<Finding> {
    let said = |rule: &Rule| -> BTreeSet<String> {
        let scope = rule.scope.tests.iter().map(|test| format!("{test:?}"));
        scope.chain(rule.when.iter().map(|c| format!("{c:?}"))).collect()
    };
    let mine = said(rule);
    let covers = |other: &&Rule| {
        enforced(other)
            && other.effect.level() == Some(RuleVerdict::Block)
            && rule.effect.level().is_some_and(|level| level < RuleVerdict::Block)
            && other.unless.is_empty()
            && rule.durability <= other.durability
            && rule.scope.actions.iter().all(|a| other.scope.actions.contains(a))
            && said(other).is_subset(&mine)
    };
    let other = others.iter().filter_map(|id| by_id(policy, id)).find(covers)?;
    let message = format!("`{}` never decides: `{}` blocks every call it matches", rule.id, other.id);
    Some(finding(policy, Code::Shadowed, rule, message, &[other]))
}

fn by_id<'p>(policy: &'p Policy, id: &RuleId) -> Option<&'p Rule> {
    let at = policy.rules.binary_search_by(|rule| rule.id.cmp(id)).ok()?;
    policy.rules.get(at)
}

/// What a proof has shown so far.
#[derive(Default)]
struct Proof {
    deciders: BTreeSet<RuleId>,
    /// The rule decided, though another would give the same answer.
    decided_itself: bool,
    /// The default decided some of the calls.
    by_default: bool,
    /// Every call that the deciders match is one that the rule matches.
    mutual: bool,
}

/// Prove over all calls that the rule and the others tell apart that it changes nothing; learn of more others where a
/// call shows them.
fn proved(policy: &Policy, rule: &Rule, mut others: BTreeSet<RuleId>) -> Option<Finding> {
    for _ in 0..3 {
        if others.len() > MAX_OTHERS {
            return None;
        }
        match attempt(policy, rule, &others) {
            Attempt::Proved(proof) => return report(policy, rule, &proof),
            Attempt::Matters => return None,
            Attempt::More(more) => others.extend(more),
        }
    }
    None
}

enum Attempt {
    Proved(Proof),
    Matters,
    More(BTreeSet<RuleId>),
}

fn attempt(policy: &Policy, rule: &Rule, others: &BTreeSet<RuleId>) -> Attempt {
    let beside: Vec<&Rule> = others.iter().filter_map(|id| by_id(policy, id)).collect();
    if !beside.iter().chain([&rule]).all(|r| asks_only_the_call(r)) {
        return Attempt::Matters;
    }
    let mut cluster = vec![rule];
    cluster.extend(&beside);
    let mut proof = Proof { mutual: true, ..Proof::default() };
    for action in &rule.scope.actions {
        let calls = Calls::new(&[policy], *action, &cluster);
        if !calls.complete() || calls.count() > MAX_PROOF {
            return Attempt::Matters;
        }
        for call in calls.each() {
            if hit(rule, &call).is_none() {
                proof.mutual &= !beside
                    .iter()
                    .any(|other| other.scope.actions.contains(action) && hit(other, &call).is_some());
                continue;
            }
            let with = policy.decide_with(&call, &CONTEXT, |r| r.id == rule.id || others.contains(&r.id));
            let without = policy.decide_with(&call, &CONTEXT, |r| others.contains(&r.id));
            if same(&with, &without) {
                proof.decided_itself |= with.rule.as_ref() == Some(&rule.id);
                proof.by_default |= !without.rule.as_ref().is_some_and(|id| others.contains(id));
                proof.deciders.extend(without.rule.clone());
                continue;
            }
            return in_full(policy, rule, &call, others);
        }
    }
    let more = unseen(policy, rule, others, &proof);
    if more.is_empty() { Attempt::Proved(proof) } else { Attempt::More(more) }
}

/// Rules that could still make a difference: the default speaks only where nothing permits, and where the rule speaks
/// first, another one of its level could speak next and with other words.
fn unseen(policy: &Policy, rule: &Rule, others: &BTreeSet<RuleId>, proof: &Proof) -> BTreeSet<RuleId> {
    let level = rule.effect.level();
    let differs = |r: &Rule| {
        let permits = r.effect.level().is_some_and(|level| level < RuleVerdict::Block);
        let speaks = r.effect.level() == level
            && r.id > rule.id
            && (r.reason != rule.reason || r.message != rule.message);
        (proof.by_default && permits) || (proof.decided_itself && speaks)
    };
    let unseen = policy.rules.iter().filter(|r| {
        enforced(r)
            && r.id != rule.id
            && !others.contains(&r.id)
            && r.scope.actions.iter().any(|a| rule.scope.actions.contains(a))
            && differs(r)
    });
    unseen.take(MAX_OTHERS + 1).map(|r| r.id.clone()).collect()
}

/// These others do not cover this call; perhaps all rules of the policy do.
fn in_full(policy: &Policy, rule: &Rule, call: &Call, others: &BTreeSet<RuleId>) -> Attempt {
    let all = policy.decide(call, &CONTEXT);
    if !same(&all, &policy.decide_with(call, &CONTEXT, |r| r.id != rule.id)) {
        return Attempt::Matters;
    }
    let matched = all.matched.iter().map(|m| m.rule.clone());
    let more: BTreeSet<RuleId> = matched.filter(|id| *id != rule.id && !others.contains(id)).collect();
    if more.is_empty() { Attempt::Matters } else { Attempt::More(more) }
}

fn report(policy: &Policy, rule: &Rule, proof: &Proof) -> Option<Finding> {
    let deciders: Vec<&Rule> = proof.deciders.iter().filter_map(|id| by_id(policy, id)).collect();
    let level = rule.effect.level();
    let names: Vec<String> = deciders.iter().map(|r| format!("`{}`", r.id)).collect();
    let names = if names.is_empty() { "the default".to_owned() } else { names.join(", ") };
    let higher = deciders.iter().any(|other| other.effect.level() > level);
    let opposite = level.is_some_and(|l| l < RuleVerdict::Block)
        && deciders.len() == 1
        && deciders.iter().all(|other| other.effect.level() == Some(RuleVerdict::Block));
    let (code, message) = if opposite && proof.mutual {
        (
            Code::Contradiction,
            format!(
                "`{}` permits exactly the calls that {names} blocks, so that it permits nothing",
                rule.id
            ),
        )
    } else if higher {
        (
            Code::Shadowed,
            format!("`{}` never decides: {names} is more restrictive for every call it matches", rule.id),
        )
    } else {
        (
            Code::Redundant,
            format!("`{}` changes nothing: {names} does the same for every call it matches", rule.id),
        )
    };
    Some(finding(policy, code, rule, message, &deciders))
}

/// Escalations that meet in a call and have no approver in common: the call is blocked, which neither of them says.
fn nobody_can_approve(policy: &Policy) -> Vec<Finding> {
    let escalations: Vec<&Rule> = policy
        .rules
        .iter()
        .filter(|rule| enforced(rule) && rule.effect.escalate_to().is_some())
        .take(MAX_ESCALATIONS)
        .collect();
    let mut findings = Vec::new();
    for (at, one) in escalations.iter().enumerate() {
        for other in escalations.iter().skip(at + 1).filter(|other| no_role_in_common(one, other)) {
            if let Some(call) = both_match(policy, one, other)
                && policy.decide_with(&call, &CONTEXT, |r| r.id == one.id || r.id == other.id).verdict
                    == Verdict::Block
            {
                let message = format!(
                    "`{}` and `{}` both ask for approval of the same calls and have no approver role in common, so that nobody can approve",
                    one.id, other.id
                );
                findings.push(finding(policy, Code::Contradiction, one, message, &[other]));
            }
        }
    }
    findings
}

fn no_role_in_common(one: &Rule, other: &Rule) -> bool {
    match (&one.effect, &other.effect) {
        (Effect::Escalate(a), Effect::Escalate(b)) => !a.roles.iter().any(|role| b.roles.contains(role)),
        _ => false,
    }
}

fn both_match(policy: &Policy, one: &Rule, other: &Rule) -> Option<Call> {
    let shared = one.scope.actions.iter().filter(|a| other.scope.actions.contains(a));
    for action in shared {
        let calls = Calls::new(&[policy], *action, &[one, other]);
        let both = |call: &Call| hit(one, call) == Some(false) && hit(other, call) == Some(false);
        let found = calls.each().take(4_000).find(both);
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A rule that permits an action with effects to everybody, always.
fn default_unreachable(policy: &Policy) -> Vec<Finding> {
    let everybody = |rule: &&Rule| {
        let permits = rule.effect.level().is_some_and(|level| level < RuleVerdict::Block);
        let any = |test: &ScopeTest| format!("{test:?}").contains("[Prefix(\"\")]");
        permits
            && enforced(rule)
            && rule.when.is_empty()
            && rule.unless.is_empty()
            && rule.scope.tests.iter().all(any)
            && rule.scope.actions.iter().any(|action| action.is_effectful())
    };
    let about = |rule: &Rule| {
        let effects = rule.scope.actions.iter().filter(|a| a.is_effectful()).copied();
        let names: Vec<&str> = effects.map(Action::name).collect();
        let message = format!(
            "the default never applies to {}: `{}` matches every such call of every agent",
            names.join(", "),
            rule.id
        );
        finding(policy, Code::DefaultUnreachable, rule, message, &[])
    };
    policy.rules.iter().filter(everybody).map(about).collect()
}
