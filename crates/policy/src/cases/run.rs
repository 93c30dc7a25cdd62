//! Running cases: the engine's decision, and the budgets in memory.

use std::collections::{BTreeMap, VecDeque};

use govrun_verdict::{Budget, BudgetKind, Decision, Period, ReasonCode, RuleId, Timestamp, Verdict};

use super::Case;
use crate::decide::Context;
use crate::policy::Policy;

/// A case that got another answer.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Which, by its position.
    pub case: usize,
    /// What differs, as `verdict: block expected, allow found`.
    pub differences: Vec<String>,
}

/// An answer after the limits.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) verdict: Verdict,
    pub(crate) reason: ReasonCode,
    pub(crate) rule: Option<RuleId>,
    pub(crate) shadow: Option<Verdict>,
}

impl Policy {
    /// Run the cases, each with budgets of its own, and return those that got another answer than they demand.
    #[must_use]
    pub fn test(&self, cases: &[Case]) -> Vec<Failed> {
        let run = |(at, case): (usize, &Case)| {
            let differences = differences(case, &answer(self, case));
            (!differences.is_empty()).then_some(Failed { case: at, differences })
        };
        cases.iter().enumerate().filter_map(run).collect()
    }
}

/// Whether the case gets the answer that it demands.
pub(crate) fn passes(policy: &Policy, case: &Case) -> bool {
    differences(case, &answer(policy, case)).is_empty()
}

/// The answer to the last of the case's calls.
pub(crate) fn answer(policy: &Policy, case: &Case) -> Answered {
    let mut windows = Windows::default();
    let mut now = case.at;
    for _ in 1..case.repeat {
        let decision = policy.decide(&case.call, &Context { now, bounds: None });
        windows.admit(decision, now);
        now = Timestamp(now.0.saturating_add(case.every_us));
    }
    windows.admit(policy.decide(&case.call, &Context { now, bounds: None }), now)
}

/// Whether the budget has no room now; forgets what no longer counts.
fn is_full(budget: &Budget, admitted: &mut VecDeque<Timestamp>, now: Timestamp) -> bool {
    let window_us = budget.window_ms.get().saturating_mul(1_000);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    match &budget.kind {
        BudgetKind::Rolling => {
            while admitted.front().is_some_and(|t| t.0.saturating_add(window_us) <= now.0) {
                admitted.pop_front();
            }
            count(admitted.len()) >= budget.limit.get()
        }
        BudgetKind::Rate { burst } => {
            let interval = window_us.div_ceil(budget.limit.get());
            let free_at = admitted.iter().fold(0, |free: u64, at| free.max(at.0).saturating_add(interval));
            free_at.saturating_sub(now.0) > (burst.get().saturating_sub(1)).saturating_mul(interval)
        }
        BudgetKind::Calendar { period, zone } => {
            let now = period_of(now, *period, zone);
            admitted.retain(|at| period_of(*at, *period, zone) == now);
            count(admitted.len()) >= budget.limit.get()
        }
    }
}

/// The first day of the period that holds the time; a zone that is not known has one endless period.
fn period_of(at: Timestamp, period: Period, zone: &str) -> Option<jiff::civil::Date> {
    let at = jiff::Timestamp::from_microsecond(i64::try_from(at.0).ok()?).ok()?;
    let date = at.in_tz(zone).ok()?.date();
    match period {
        Period::Day => Some(date),
        Period::Week => {
            let days = i64::from(date.weekday().to_monday_zero_offset());
            date.checked_sub(jiff::Span::new().days(days)).ok()
        }
        Period::Month => Some(date.first_of_month()),
    }
}

/// Admissions by budget and key.
#[derive(Default)]
struct Windows(BTreeMap<(String, String), VecDeque<Timestamp>>);

impl Windows {
    /// All budgets of the decision or none, as the store has it: an exhausted one throttles, and what is blocked or waits
    /// for an approval charges nothing.
    fn admit(&mut self, decision: Decision, now: Timestamp) -> Answered {
        let shadow = decision.shadow.as_ref().map(|s| s.verdict);
        let charged = matches!(decision.verdict, Verdict::Allow | Verdict::Sandbox);
        let uses = if charged { decision.budgets.as_slice() } else { &[] };
        let key = |budget: &str, key: &str| (budget.to_owned(), key.to_owned());
        for used in uses {
            let admitted = self.0.entry(key(&used.budget.name, &used.key)).or_default();
            if is_full(&used.budget, admitted, now) {
                let (reason, rule) = (used.reason.clone(), Some(used.rule.clone()));
                return Answered { verdict: Verdict::Throttle, reason, rule, shadow };
            }
        }
        for used in uses {
            self.0.entry(key(&used.budget.name, &used.key)).or_default().push_back(now);
        }
        Answered { verdict: decision.verdict, reason: decision.reason, rule: decision.rule, shadow }
    }
}

fn differences(case: &Case, found: &Answered) -> Vec<String> {
    let mut all = Vec::new();
    let mut compare = |what: &str, expected: String, found: String| {
        if expected != found {
            all.push(format!("{what}: {expected} expected, {found} found"));
        }
    };
    let name = |rule: &Option<RuleId>| rule.as_ref().map_or("default".to_owned(), ToString::to_string);
    let expect = &case.expect;
    compare("verdict", expect.verdict.to_string(), found.verdict.to_string());
    if let Some(rule) = &expect.rule {
        compare("rule", name(rule), name(&found.rule));
    }
    if let Some(reason) = &expect.reason {
        compare("reason", reason.to_string(), found.reason.to_string());
    }
    if let Some(shadow) = expect.shadow {
        let none = "no shadow".to_owned();
        compare("shadow", shadow.to_string(), found.shadow.map_or(none, |v| v.to_string()));
    }
    all
}
