//! Why a rule matches a call or does not, condition by condition, and what would have to be otherwise for the call to be
//! allowed.

use govrun_verdict::{Call, RuleId, Timestamp, Verdict};

use crate::condition::{Condition, View};
use crate::decide::{Context, how_it_matches};
use crate::field::Known;
use crate::policy::Policy;
use crate::predicate::{Predicate, Truth};
use crate::probe::{Attr, Calls, Dimension, Val, set};
use crate::rule::Rule;

/// Most rules whose conditions are looked at.
const MAX_RULES_LOOKED_AT: usize = 16;
/// Most calls that are tried.
const MAX_TRIED: usize = 20_000;
/// Longest value that is shown, in characters.
const MAX_SHOWN: usize = 80;

/// One condition of a rule, held against a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// `when` or `unless`, and which of them, such as `when 1`.
    pub place: String,
    /// What it asks about, where that is one attribute.
    pub about: Option<String>,
    /// What the attribute is, where it can be shown.
    pub actual: Option<String>,
    /// `true`, `false` or `unknown`.
    pub truth: &'static str,
}

/// The smallest change that would have let the call through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// Attributes and the values that they would need.
    pub changes: Vec<(String, String)>,
    /// The verdict that the changed call gets.
    pub verdict: Verdict,
    /// The rule that would decide.
    pub rule: Option<RuleId>,
}

impl Policy {
    /// The conditions of a rule, each held against the call. Empty for a rule without conditions, and for no rule.
    #[must_use]
    pub fn held(&self, id: &RuleId, call: &Call, now: Timestamp) -> Vec<Held> {
        let at = self.rules.binary_search_by(|rule| rule.id.cmp(id));
        let Some(rule) = at.ok().and_then(|at| self.rules.get(at)) else { return Vec::new() };
        let view = View::without_past(call, now);
        let conditions = [("when", rule.when.as_slice()), ("unless", rule.unless.as_slice())];
        let each = conditions.into_iter().flat_map(|(key, all)| {
            all.iter().zip(1..).map(move |(condition, number)| (format!("{key} {number}"), condition))
        });
        each.map(|(place, condition)| {
            let predicate = one_test(condition);
            Held {
                place,
                about: predicate.map(|p| p.field.to_string()),
                actual: predicate.and_then(|p| shown(&p.field.read(call))),
                truth: match condition.truth(&view) {
                    Truth::True => "true",
                    Truth::False => "false",
                    Truth::Unknown => "unknown",
                },
            }
        })
        .collect()
    }

    /// What would have to be otherwise: one attribute if one is enough, else two. Who calls and which tool are left as they
    /// are. `None` when the call is allowed, or nothing small helps.
    #[must_use]
    pub fn nearest(&self, call: &Call, now: Timestamp) -> Option<Nearest> {
        let context = Context { now, bounds: None };
        if self.decide(call, &context).verdict == Verdict::Allow {
            return None;
        }
        let action = call.action();
        let view = View::without_past(call, now);
        let of_action = || self.rules.iter().filter(|rule| rule.scope.actions.contains(&action));
        let matching = of_action().filter(|rule| how_it_matches(rule, &view).is_some());
        let could = of_action().filter(|rule| is_about(rule, call));
        let rules: Vec<&Rule> = matching.chain(could).take(MAX_RULES_LOOKED_AT).collect();
        let calls = Calls::new(&[self], action, &rules);
        let free: Vec<&Dimension> = calls.dimensions.iter().filter(|d| may_change(&d.attr)).collect();
        let single = free.iter().map(|dimension| vec![*dimension]);
        let pairs = free
            .iter()
            .enumerate()
            .flat_map(|(at, one)| free.iter().skip(at + 1).map(move |other| vec![*one, *other]));
        for changed in [single.collect::<Vec<_>>(), pairs.collect()] {
            let tried = changed.iter().flat_map(|dimensions| variants(call, dimensions)).take(MAX_TRIED);
            let allowed = tried.filter(|(varied, _)| self.decide(varied, &context).verdict == Verdict::Allow);
            let nearest = allowed.min_by_key(|(varied, _)| distance(call, varied));
            if let Some((varied, changes)) = nearest {
                let decision = self.decide(&varied, &context);
                return Some(Nearest { changes, verdict: decision.verdict, rule: decision.rule });
            }
        }
        None
    }
}

/// Whether the rule is about this agent and tool, whatever it says of the rest.
fn is_about(rule: &Rule, call: &Call) -> bool {
    use crate::scope::ScopeTest;
    rule.scope.tests.iter().all(|test| match test {
        ScopeTest::Agent(_)
        | ScopeTest::Tenant(_)
        | ScopeTest::Tool(_)
        | ScopeTest::Caller(_)
        | ScopeTest::Digest(_) => test.holds(call),
        ScopeTest::Path(_)
        | ScopeTest::Host(_)
        | ScopeTest::Port(_)
        | ScopeTest::Scheme(_)
        | ScopeTest::Method(_)
        | ScopeTest::Cidr(_)
        | ScopeTest::Db(_)
        | ScopeTest::Name(_)
        | ScopeTest::Stream(_)
        | ScopeTest::Transport(_)
        | ScopeTest::Store(_)
        | ScopeTest::Key(_)
        | ScopeTest::Model(_) => true,
    })
}

const fn may_change(attr: &Attr) -> bool {
    !matches!(attr, Attr::Agent | Attr::Tool | Attr::Caller | Attr::Component)
}

/// The call with every combination of values of these attributes, and what was changed.
fn variants(call: &Call, dimensions: &[&Dimension]) -> Vec<(Call, Vec<(String, String)>)> {
    let mut all = vec![(call.clone(), Vec::new())];
    for dimension in dimensions {
        let mut next = Vec::new();
        for (base, changes) in &all {
            for value in &dimension.values {
                let mut varied = base.clone();
                if replace(&mut varied, &dimension.attr, value) {
                    let mut changes: Vec<(String, String)> = changes.clone();
                    changes.push((dimension.attr.name(), value.shown()));
                    next.push((varied, changes));
                }
            }
        }
        all = next;
    }
    all
}

/// Set the attribute; an argument that is there is taken away first.
fn replace(call: &mut Call, attr: &Attr, value: &Val) -> bool {
    use govrun_verdict::{Operation, Value};
    if let (Attr::Arg(name), Operation::ToolCall { args: Value::Record(fields) }) =
        (attr, &mut call.operation)
    {
        fields.retain(|(field, _)| *field != **name);
    }
    set(call, attr, value)
}

/// How far a number was moved; a change of anything else counts as far.
fn distance(was: &Call, is: &Call) -> u64 {
    use govrun_verdict::{Operation, Value};
    let numbers = |call: &Call| match &call.operation {
        Operation::ToolCall { args: Value::Record(fields) } => fields
            .iter()
            .filter_map(|(name, value)| match value {
                Value::Number(n) => Some((name.clone(), *n)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let before = numbers(was);
    let moved = numbers(is).into_iter().filter_map(|(name, n)| {
        let (_, old) = before.iter().find(|(other, _)| *other == name)?;
        u64::try_from((n - *old).abs().ceil()).ok()
    });
    moved.max().unwrap_or(u64::MAX)
}

fn one_test(condition: &Condition) -> Option<&Predicate> {
    match condition {
        Condition::Test(predicate) => Some(predicate),
        _ => None,
    }
}

fn shown(known: &Known<'_>) -> Option<String> {
    let text = match known {
        Known::Text(text) => format!("{text:?}"),
        Known::Number(n) => n.to_string(),
        Known::Bool(b) => b.to_string(),
        Known::Ip(ip) => ip.to_string(),
        Known::List(list) => format!("a list of {}", list.len()),
        Known::Record => "a record".to_owned(),
        Known::Absent => "absent".to_owned(),
        Known::Opaque | Known::Unknowable => return None,
    };
    Some(text.chars().take(MAX_SHOWN).collect())
}
