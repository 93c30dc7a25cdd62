//! Calls that tell rules apart. For a few rules and one action this builds, attribute by attribute, values of which each
//! answers the rules' questions in another way; the product of them is a small set of calls in which every answer that
//! any call can get occurs. Lint, diff and explanations ask the real engine about these calls, so they cannot disagree
//! with it.
//!
//! Where the values of an attribute may not be all there are (regular expressions, long lists beside patterns), the set
//! says that it is not complete: what is found in it is then still true, what is not found proves nothing.

mod attr;
mod nfa;
mod values;

use govrun_verdict::{Action, Call};

pub(crate) use attr::{Attr, Val, operation, set};

use crate::condition::Condition;
use crate::policy::Policy;
use crate::predicate::Predicate;
use crate::rule::Rule;
use crate::scope::ScopeTest;

/// What rules ask about one attribute.
#[derive(Debug, Default)]
pub(crate) struct Asked<'p> {
    pub(crate) scope: Vec<&'p ScopeTest>,
    pub(crate) predicates: Vec<&'p Predicate>,
}

/// One attribute with values that answer all questions about it in every possible way.
#[derive(Debug)]
pub(crate) struct Dimension {
    pub(crate) attr: Attr,
    pub(crate) values: Vec<Val>,
    pub(crate) complete: bool,
}

/// A set of calls of one action.
#[derive(Debug)]
pub(crate) struct Calls {
    base: Call,
    pub(crate) dimensions: Vec<Dimension>,
}

/// What the conditions of a rule ask of a call, its exceptions included.
pub(crate) fn predicates(rule: &Rule) -> Vec<&Predicate> {
    let mut all = Vec::new();
    rule.when.iter().chain(&rule.unless).for_each(|condition| tests(condition, &mut all));
    all
}

/// Whether all that a rule asks is asked of the call alone, and not of the hour or of what happened before.
pub(crate) fn asks_only_the_call(rule: &Rule) -> bool {
    fn only(condition: &Condition) -> bool {
        match condition {
            Condition::Test(_) => true,
            Condition::Time(_) | Condition::Past(_) | Condition::Effect(_) => false,
            Condition::All(inner) | Condition::Any(inner) | Condition::Not(inner) => inner.iter().all(only),
        }
    }
    rule.when.iter().chain(&rule.unless).all(only)
}

fn tests<'p>(condition: &'p Condition, into: &mut Vec<&'p Predicate>) {
    match condition {
        Condition::Test(predicate) => into.push(predicate),
        Condition::Time(_) | Condition::Past(_) | Condition::Effect(_) => {}
        Condition::All(inner) | Condition::Any(inner) | Condition::Not(inner) => {
            inner.iter().for_each(|condition| tests(condition, into));
        }
    }
}

impl Calls {
    /// Calls of `action` that tell `rules` apart. Agents are those of the policies' registries.
    pub(crate) fn new<'p>(policies: &[&Policy], action: Action, rules: &[&'p Rule]) -> Self {
        let base = attr::base(policies, action);
        let mut asked: Vec<(Attr, Asked<'p>)> = Vec::new();
        let mut at = |attr: Attr| {
            let found = asked.iter().position(|(a, _)| *a == attr);
            found.unwrap_or_else(|| {
                asked.push((attr, Asked::default()));
                asked.len() - 1
            })
        };
        let mut places: Vec<(usize, Result<&ScopeTest, &Predicate>)> = Vec::new();
        // Rules of other actions ask nothing of these calls.
        for rule in rules.iter().filter(|rule| rule.scope.actions.contains(&action)) {
            places.extend(rule.scope.tests.iter().map(|test| (at(Attr::of_scope(test)), Ok(test))));
            places.extend(predicates(rule).into_iter().map(|p| (at(Attr::of_field(&p.field)), Err(p))));
        }
        if matches!(action, Action::NetConnect | Action::NetSocket) {
            at(Attr::Ip);
        }
        for (place, test) in places {
            let Some((_, asked)) = asked.get_mut(place) else { continue };
            match test {
                Ok(test) => asked.scope.push(test),
                Err(predicate) => asked.predicates.push(predicate),
            }
        }
        let dimensions =
            asked.into_iter().map(|(attr, asked)| values::dimension(policies, &base, attr, &asked)).collect();
        Self { base, dimensions }
    }

    /// How many calls there are.
    pub(crate) fn count(&self) -> u64 {
        let sizes = self.dimensions.iter().map(|d| u64::try_from(d.values.len()).unwrap_or(u64::MAX));
        sizes.fold(1, u64::saturating_mul)
    }

    /// Whether every answer that any call can get occurs in them.
    pub(crate) fn complete(&self) -> bool {
        self.dimensions.iter().all(|d| d.complete)
    }

    /// Each call. Combinations that no real call has are passed over.
    pub(crate) fn each(&self) -> impl Iterator<Item = Call> + '_ {
        let mut digits: Option<Vec<usize>> =
            self.dimensions.iter().all(|d| !d.values.is_empty()).then(|| vec![0; self.dimensions.len()]);
        std::iter::from_fn(move || {
            let now = digits.clone()?;
            digits = self.next(now.clone());
            Some(self.call(&now))
        })
        .flatten()
    }

    fn call(&self, digits: &[usize]) -> Option<Call> {
        let mut call = self.base.clone();
        for (dimension, digit) in self.dimensions.iter().zip(digits) {
            attr::set(&mut call, &dimension.attr, dimension.values.get(*digit)?).then_some(())?;
        }
        Some(call)
    }

    fn next(&self, mut digits: Vec<usize>) -> Option<Vec<usize>> {
        for (digit, dimension) in digits.iter_mut().zip(&self.dimensions) {
            *digit += 1;
            if *digit < dimension.values.len() {
                return Some(digits);
            }
            *digit = 0;
        }
        None
    }
}
