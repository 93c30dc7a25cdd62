//! Do the cases notice when a rule is wrong? Each mutant is the policy with one mistake; a good set of cases fails for
//! every one of them.

use govrun_verdict::RuleId;
use rust_decimal::Decimal;

use super::{Case, run};
use crate::condition::Condition;
use crate::error::Origin;
use crate::index::Index;
use crate::policy::Policy;
use crate::predicate::{NumberTest, Predicate, Test};
use crate::rollout::Stage;
use crate::rule::{Effect, Rule};

/// Most mutants of one run.
pub const MAX_MUTANTS: usize = 20_000;

/// One mistake that was made on purpose.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// The rule it was made in.
    pub rule: RuleId,
    /// Where the rule is written.
    pub at: Origin,
    /// What was done, such as ``condition 1 of `when` removed``.
    pub what: String,
    /// Whether some case noticed.
    pub killed: bool,
}

/// What the cases notice.
#[derive(Debug, Clone, Default)]
pub struct Mutation {
    /// Every mutant that was tried.
    pub mutants: Vec<Mutant>,
    /// How many were not tried because there were too many.
    pub omitted: usize,
}

impl Mutation {
    /// How many mutants some case noticed.
    #[must_use]
    pub fn killed(&self) -> usize {
        self.mutants.iter().filter(|m| m.killed).count()
    }
}

impl Policy {
    /// Run the cases (which pass) against every mutant of the policy.
    #[must_use]
    pub fn mutate(&self, cases: &[Case]) -> Mutation {
        let mut mutation = Mutation::default();
        let mut mutant = self.clone();
        for (at, rule) in self.rules.iter().enumerate() {
            let of_action: Vec<&Case> =
                cases.iter().filter(|case| rule.scope.actions.contains(&case.call.action())).collect();
            let Some(origin) = self.rule(&rule.id).map(|info| info.origin.clone()) else { continue };
            for (what, changed) in changes(rule) {
                if mutation.mutants.len() >= MAX_MUTANTS {
                    mutation.omitted += 1;
                    continue;
                }
                mutant.rules.clone_from(&self.rules);
                replace(&mut mutant.rules, at, changed);
                mutant.index = Index::new(&mutant.rules);
                let killed = of_action.iter().any(|case| !run::passes(&mutant, case));
                mutation.mutants.push(Mutant { rule: rule.id.clone(), at: origin.clone(), what, killed });
            }
        }
        mutation
    }
}

fn replace(rules: &mut Vec<Rule>, at: usize, changed: Option<Rule>) {
    match (changed, rules.get_mut(at)) {
        (Some(changed), Some(rule)) => *rule = changed,
        (None, Some(_)) => {
            rules.remove(at);
        }
        (_, None) => {}
    }
}

/// Every single mistake in a rule; `None` is a rule that is gone.
fn changes(rule: &Rule) -> Vec<(String, Option<Rule>)> {
    let mut all = vec![("the rule is removed".to_owned(), None)];
    let mut change = |what: String, edit: &dyn Fn(&mut Rule)| {
        let mut changed = rule.clone();
        edit(&mut changed);
        all.push((what, Some(changed)));
    };
    if rule.stage == Stage::Enforced {
        change("the rule is in shadow".to_owned(), &|r| r.stage = Stage::Shadow);
    }
    match rule.effect {
        Effect::Block => {
            change("it allows instead of blocking".to_owned(), &|r| {
                r.effect = Effect::Allow { limits: None }
            });
        }
        Effect::Allow { .. } | Effect::Sandbox(_) | Effect::Escalate(_) => {
            change("it blocks instead".to_owned(), &|r| r.effect = Effect::Block);
        }
        Effect::Throttle => {}
    }
    if !rule.budgets.is_empty() {
        change("its budgets are removed".to_owned(), &|r| r.budgets.clear());
    }
    for (at, number) in (0..rule.scope.tests.len()).zip(1..) {
        change(format!("key {number} of `match` is removed"), &|r| {
            r.scope.tests.remove(at);
        });
    }
    for (at, number) in (0..rule.when.len()).zip(1..) {
        change(format!("condition {number} of `when` is removed"), &|r| {
            r.when.remove(at);
        });
        for (what, predicate) in rule.when.get(at).map(off_by_one).unwrap_or_default() {
            change(format!("condition {number} of `when` {what}"), &|r| {
                r.when.get_mut(at).into_iter().for_each(|p| p.clone_from(&predicate));
            });
        }
    }
    for (at, number) in (0..rule.unless.len()).zip(1..) {
        change(format!("condition {number} of `unless` is removed"), &|r| {
            r.unless.remove(at);
        });
        for (what, predicate) in rule.unless.get(at).map(off_by_one).unwrap_or_default() {
            change(format!("condition {number} of `unless` {what}"), &|r| {
                r.unless.get_mut(at).into_iter().for_each(|p| p.clone_from(&predicate));
            });
        }
    }
    all
}

/// The mistakes that are easily made in one condition.
fn off_by_one(condition: &Condition) -> Vec<(&'static str, Condition)> {
    let Condition::Test(predicate) = condition else {
        return vec![("is negated", Condition::Not(vec![condition.clone()]))];
    };
    let with = |test: Test| Condition::Test(Predicate { field: predicate.field.clone(), test });
    match &predicate.test {
        Test::OneOf { values, negated } => {
            vec![("is negated", with(Test::OneOf { values: values.clone(), negated: !negated }))]
        }
        Test::Has(wanted) => vec![("is negated", with(Test::Has(!wanted)))],
        Test::Number(test) => {
            numbers(test).into_iter().map(|(what, t)| (what, with(Test::Number(t)))).collect()
        }
        Test::Prefix(_)
        | Test::Suffix(_)
        | Test::Glob(_)
        | Test::Regex(_)
        | Test::Length(_)
        | Test::Cidr(_)
        | Test::Elements(..) => vec![("is negated", Condition::Not(vec![condition.clone()]))],
    }
}

fn numbers(test: &NumberTest) -> Vec<(&'static str, NumberTest)> {
    let (shift, more) = ("has another bound", |n: &Decimal| n.checked_add(Decimal::ONE).unwrap_or(*n));
    match test {
        NumberTest::Eq(n) => vec![("is negated", NumberTest::Ne(*n))],
        NumberTest::Ne(n) => vec![("is negated", NumberTest::Eq(*n))],
        NumberTest::Lt(n) => {
            vec![("includes its bound", NumberTest::Le(*n)), (shift, NumberTest::Lt(more(n)))]
        }
        NumberTest::Le(n) => {
            vec![("excludes its bound", NumberTest::Lt(*n)), (shift, NumberTest::Le(more(n)))]
        }
        NumberTest::Gt(n) => {
            vec![("includes its bound", NumberTest::Ge(*n)), (shift, NumberTest::Gt(more(n)))]
        }
        NumberTest::Ge(n) => {
            vec![("excludes its bound", NumberTest::Gt(*n)), (shift, NumberTest::Ge(more(n)))]
        }
        NumberTest::Between(low, high) => vec![
            ("has another upper bound", NumberTest::Between(*low, more(high))),
            ("has another lower bound", NumberTest::Between(more(low).min(*high), *high)),
        ],
    }
}
