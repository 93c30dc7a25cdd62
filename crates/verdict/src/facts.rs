//! What is known of an agent's past when a call is decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use crate::value::Value;

/// What the host knows of the agent's past, as far as the policy asks.
///
/// An agent's sessions have one past together: a label that one of them got is on all of them, so that nobody gets rid of
/// it by opening another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// As things happened.
    pub enforced: Past,
    /// As things would have happened with the shadow rules enforced, where that is something else.
    pub shadow: Option<Past>,
}

/// One past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// Labels, sorted, without repetition.
    pub labels: Vec<Arc<str>>,
    /// Answers by the name of the question; a question without one is unknown.
    pub answers: BTreeMap<Arc<str>, Decimal>,
}

/// Where a value comes from, the most trusted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The user's task names it.
    Task,
    /// It was in the output of a tool that outsiders cannot write to.
    Trusted,
    /// It was in text that outsiders can write.
    Untrusted,
}

impl Origin {
    /// As the answer to a question: 0, 1 and 2.
    #[must_use]
    pub const fn answer(self) -> Decimal {
        match self {
            Self::Task => Decimal::ZERO,
            Self::Trusted => Decimal::ONE,
            Self::Untrusted => Decimal::TWO,
        }
    }
}

/// A question of the policy about an agent's past.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The question. It stays the same while what it asks about stays the same, over reloads of the policy.
    pub name: Arc<str>,
    /// What is asked.
    pub what: AskWhat,
}

/// What is asked about an agent's past.
#[derive(Debug, Clone, PartialEq)]
pub enum AskWhat {
    /// How many marks of it were made in the last so many milliseconds.
    Count {
        /// How far back.
        within_ms: u64,
    },
    /// The sum of their amounts.
    Sum {
        /// How far back.
        within_ms: u64,
    },
    /// 1 when none of them has this value, else 0.
    First {
        /// How far back.
        within_ms: u64,
        /// The value; `None` when it is not known, so that there is no answer.
        value: Option<String>,
    },
    /// How much is left of a budget.
    Left(Box<crate::BudgetUse>),
    /// The [`Origin`] of a value.
    Origin(Value),
}

/// Something happened that a question asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The question.
    pub question: Arc<str>,
    /// How long it matters, in milliseconds.
    pub keep_ms: u64,
    /// What it adds to a sum; `None` when that is not known.
    pub amount: Option<Decimal>,
    /// The value that was seen; guest data, of which the store keeps a keyed digest only.
    pub value: Option<String>,
}

/// What a call leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// Marks, when it is permitted.
    pub permitted: Vec<Mark>,
    /// Marks, when it is blocked.
    pub blocked: Vec<Mark>,
    /// Labels that it adds to the agent when it is permitted.
    pub add: Vec<Arc<str>>,
    /// Labels that it takes from the agent when it is permitted.
    pub remove: Vec<Arc<str>>,
}
