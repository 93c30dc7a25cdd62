//! Conditions: predicates, hours and what is known of the past, put together by `all`, `any` and `not`.

use govrun_verdict::{Call, Past, Timestamp};

use crate::hours::Hours;
use crate::past::PastTest;
use crate::predicate::{Predicate, Truth};
use crate::tool_labels::{ToolEffect, ToolLabels};

/// Deepest nesting of `all`, `any` and `not`.
pub(crate) const MAX_CONDITION_DEPTH: usize = 4;

/// What conditions are held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) call: &'a Call,
    pub(crate) now: Timestamp,
    /// `None` when nothing is known of the past: whatever is asked about it is unknown.
    pub(crate) past: Option<&'a Past>,
    /// What is known of the tool.
    pub(crate) tool: Option<&'a ToolLabels>,
}

impl<'a> View<'a> {
    /// With nothing known but the call itself.
    pub(crate) const fn without_past(call: &'a Call, now: Timestamp) -> Self {
        Self { call, now, past: None, tool: None }
    }
}

/// One condition of `when` or `unless`.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Test(Predicate),
    Time(Box<Hours>),
    Past(Box<PastTest>),
    /// The tool is known to have one of these effects.
    Effect(Vec<ToolEffect>),
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
            Self::Past(test) => test.truth(view.past),
            Self::Effect(effects) => match view.tool.and_then(|labels| labels.effect) {
                Some(effect) => Truth::from(effects.contains(&effect)),
                None => Truth::Unknown,
            },
            Self::All(conditions) => all(conditions, view),
            Self::Any(conditions) => any(conditions, view),
            Self::Not(conditions) => all(conditions, view).not(),
        }
    }

    /// Every condition in it that is about the past.
    pub(crate) fn past<'a>(&'a self, found: &mut impl FnMut(&'a PastTest)) {
        match self {
            Self::Test(_) | Self::Time(_) | Self::Effect(_) => {}
            Self::Past(test) => found(test),
            Self::All(inner) | Self::Any(inner) | Self::Not(inner) => {
                for condition in inner {
                    condition.past(&mut *found);
                }
            }
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
