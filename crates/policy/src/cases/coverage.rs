//! Which rules, and which ways through them, the cases exercise.

use govrun_verdict::RuleId;

use super::Case;
use crate::condition::{Condition, View};
use crate::decide::how_it_matches;
use crate::error::Origin;
use crate::policy::Policy;
use crate::predicate::Truth;
use crate::rule::Rule;

/// One way through a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The rule.
    pub rule: RuleId,
    /// Where it is written.
    pub at: Origin,
    /// Which way, such as `matches` or ``condition 1 (`args.amount`) is false``.
    pub way: String,
    /// Whether some case goes it.
    pub covered: bool,
}

/// What the cases exercise.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    /// Rules that some case matches.
    pub rules: usize,
    /// All rules.
    pub of_rules: usize,
    /// Every way through every rule.
    pub branches: Vec<Branch>,
}

impl Coverage {
    /// How many ways are covered.
    #[must_use]
    pub fn covered(&self) -> usize {
        self.branches.iter().filter(|branch| branch.covered).count()
    }
}

impl Policy {
    /// What these cases exercise of the policy.
    #[must_use]
    pub fn coverage(&self, cases: &[Case]) -> Coverage {
        let mut coverage = Coverage { of_rules: self.rules.len(), ..Coverage::default() };
        for (rule, info) in self.rules.iter().zip(self.rules()) {
            let in_scope: Vec<&Case> = cases
                .iter()
                .filter(|case| {
                    rule.scope.actions.contains(&case.call.action()) && rule.scope.holds(&case.call)
                })
                .collect();
            let ways = ways(rule, &in_scope);
            coverage.rules += usize::from(ways.first().is_some_and(|(_, covered)| *covered));
            coverage.branches.extend(ways.into_iter().map(|(way, covered)| Branch {
                rule: rule.id.clone(),
                at: info.origin.clone(),
                way,
                covered,
            }));
        }
        coverage
    }
}

/// The ways through a rule: that it matches, and that each of its conditions holds and does not.
fn ways(rule: &Rule, cases: &[&Case]) -> Vec<(String, bool)> {
    let views: Vec<View<'_>> = cases.iter().map(|case| View::without_past(&case.call, case.at)).collect();
    let matches = views.iter().any(|view| how_it_matches(rule, view).is_some());
    let mut ways = vec![("matches".to_owned(), matches)];
    for (key, conditions) in [("when", rule.when.as_slice()), ("unless", rule.unless.as_slice())] {
        for (condition, number) in conditions.iter().zip(1..) {
            for (truth, word) in [(Truth::True, "true"), (Truth::False, "false")] {
                let covered = views.iter().any(|view| condition.truth(view) == truth);
                ways.push((format!("{key} {number}{} is {word}", about(condition)), covered));
            }
        }
    }
    ways
}

/// What a condition is about, where that is one attribute.
fn about(condition: &Condition) -> String {
    match condition {
        Condition::Test(predicate) => format!(" (`{}`)", predicate.field),
        Condition::Time(_) => " (`time`)".to_owned(),
        Condition::Past(_) => " (about the past)".to_owned(),
        Condition::Effect(_) => " (`effect`)".to_owned(),
        Condition::All(_) | Condition::Any(_) | Condition::Not(_) => String::new(),
    }
}
