//! Conditions: predicates, hours and what is known of the past, put together by `all`, `any` and `not`.

use govrun_verdict::{Call, Timestamp};

use crate::hours::Hours;
use crate::predicate::{Predicate, Truth};

/// Deepest nesting of `all`, `any` and `not`.
pub(crate) const MAX_CONDITION_DEPTH: usize = 4;

/// What conditions are held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) call: &'a Call,
    pub(crate) now: Timestamp,
}

/// One condition of `when` or `unless`.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Test(Predicate),
    Time(Box<Hours>),
    /// Each of them.
    All(Vec<Condition>),
    /// At least one of them.
    Any(Vec<Condition>),
    /// Not all of them.
    Not(Vec<Condition>),
}

/// All of them hold: false as soon as one is false, unknown when none is and one is unknown.
pub(crate) fn all(conditions: &[Condition], view: &View<'_>) -> Truth {
    let mut truth = Truth::True;
    for condition in conditions {
        truth = truth.and(condition.truth(view));
        if truth == Truth::False {
            break;
        }
    }
    truth
}

impl Condition {
    pub(crate) fn truth(&self, view: &View<'_>) -> Truth {
        match self {
            Self::Test(predicate) => predicate.truth(view.call),
            Self::Time(hours) => hours.truth(view.now),
            Self::All(conditions) => all(conditions, view),
            Self::Any(conditions) => any(conditions, view),
            Self::Not(conditions) => all(conditions, view).not(),
        }
    }
}

/// True as soon as one is true, unknown when none is and one is unknown.
fn any(conditions: &[Condition], view: &View<'_>) -> Truth {
    let mut truth = Truth::False;
    for condition in conditions {
        truth = truth.or(condition.truth(view));
        if truth == Truth::True {
            break;
        }
    }
    truth
}
