//! Compiled `when` and `unless` predicates: true, false or unknown.

use std::net::IpAddr;
use std::sync::Arc;

use govrun_verdict::Call;
use regex::Regex;
use rust_decimal::Decimal;

use crate::cidr::Cidr;
use crate::field::{Field, Known, List};
use crate::glob::Glob;

/// What a predicate says about a call. Unknown is its own answer and never a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    False,
    Unknown,
    True,
}

impl Truth {
    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::True, Self::True) => Self::True,
        }
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::True, _) | (_, Self::True) => Self::True,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::False, Self::False) => Self::False,
        }
    }

    pub(crate) const fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }
}

impl From<bool> for Truth {
    fn from(b: bool) -> Self {
        if b { Self::True } else { Self::False }
    }
}

/// One attribute and one thing asked about it.
#[derive(Debug, Clone)]
pub(crate) struct Predicate {
    pub(crate) field: Field,
    pub(crate) test: Test,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Has(bool),
    /// Is one of these (or, negated, none of them).
    OneOf {
        values: Values,
        negated: bool,
    },
    Number(NumberTest),
    Prefix(Vec<Box<str>>),
    Suffix(Vec<Box<str>>),
    Glob(Vec<Glob>),
    /// Each anchored at both ends.
    Regex(Vec<Regex>),
    /// The number of characters of a text or elements of a list.
    Length(Vec<NumberTest>),
    Cidr(Vec<Cidr>),
    /// About the elements of a list.
    Elements(Quantifier, ElementTest),
}

/// How many elements must pass. About an empty list `All` is unknown: nothing may pass because nothing was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    Any,
    All,
    None,
}

/// What is asked of one element.
#[derive(Debug, Clone)]
pub(crate) enum ElementTest {
    OneOf(Values),
    Glob(Vec<Glob>),
}

/// Operands of one type, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Values {
    Text(Arc<[Box<str>]>),
    Number(Box<[Decimal]>),
    Bool(Box<[bool]>),
}

/// A comparison of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NumberTest {
    Eq(Decimal),
    Ne(Decimal),
    Lt(Decimal),
    Le(Decimal),
    Gt(Decimal),
    Ge(Decimal),
    /// From the first to the second, both included.
    Between(Decimal, Decimal),
}

impl Predicate {
    pub(crate) fn truth(&self, call: &Call) -> Truth {
        let known = self.field.read(call);
        match &self.test {
            Test::Has(wanted) => match known {
                Known::Unknowable => Truth::Unknown,
                Known::Absent => Truth::from(!wanted),
                Known::Text(_)
                | Known::Number(_)
                | Known::Bool(_)
                | Known::Ip(_)
                | Known::List(_)
                | Known::Record
                | Known::Opaque => Truth::from(*wanted),
            },
            Test::OneOf { values, negated } => values
                .contain(&known)
                .map_or(Truth::Unknown, |is| if *negated { Truth::from(is).not() } else { is.into() }),
            Test::Number(test) => on_number(&known, |n| test.holds(n)),
            Test::Prefix(texts) => on_text(&known, |t| texts.iter().any(|p| t.starts_with(&**p))),
            Test::Suffix(texts) => on_text(&known, |t| texts.iter().any(|p| t.ends_with(&**p))),
            Test::Glob(globs) => on_text(&known, |t| globs.iter().any(|g| g.matches(t))),
            Test::Regex(regexes) => on_text(&known, |t| regexes.iter().any(|r| r.is_match(t))),
            Test::Length(tests) => {
                length(&known).map_or(Truth::Unknown, |n| tests.iter().all(|t| t.holds(n)).into())
            }
            Test::Cidr(ranges) => {
                address(&known).map_or(Truth::Unknown, |ip| ranges.iter().any(|r| r.contains(ip)).into())
            }
            Test::Elements(quantifier, test) => {
                let Known::List(list) = known else { return Truth::Unknown };
                quantifier.over(list, |element| test.holds(&self.field, element))
            }
        }
    }
}

fn on_text(known: &Known<'_>, holds: impl FnOnce(&str) -> bool) -> Truth {
    if let Known::Text(text) = known { holds(text).into() } else { Truth::Unknown }
}

fn on_number(known: &Known<'_>, holds: impl FnOnce(Decimal) -> bool) -> Truth {
    if let Known::Number(number) = known { holds(*number).into() } else { Truth::Unknown }
}

fn length(known: &Known<'_>) -> Option<Decimal> {
    match known {
        Known::Text(text) => Some(text.chars().count().into()),
        Known::List(list) => Some(list.len().into()),
        Known::Number(_)
        | Known::Bool(_)
        | Known::Ip(_)
        | Known::Record
        | Known::Opaque
        | Known::Absent
        | Known::Unknowable => None,
    }
}

fn address(known: &Known<'_>) -> Option<IpAddr> {
    match known {
        Known::Ip(ip) => Some(*ip),
        Known::Text(text) => text.parse().ok(),
        Known::Number(_)
        | Known::Bool(_)
        | Known::List(_)
        | Known::Record
        | Known::Opaque
        | Known::Absent
        | Known::Unknowable => None,
    }
}

impl Quantifier {
    fn over<'a>(self, list: List<'a>, holds: impl Fn(Known<'a>) -> Truth) -> Truth {
        let truths = list.elements().map(holds);
        match self {
            Self::Any => truths.fold(Truth::False, Truth::or),
            Self::None => truths.fold(Truth::False, Truth::or).not(),
            Self::All if list.len() == 0 => Truth::Unknown,
            Self::All => truths.fold(Truth::True, Truth::and),
        }
    }
}

impl ElementTest {
    /// Whether a text passes.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::OneOf(Values::Text(all)) => all.binary_search_by(|v| (**v).cmp(text)).is_ok(),
            Self::OneOf(Values::Number(_) | Values::Bool(_)) => false,
            Self::Glob(globs) => globs.iter().any(|g| g.matches(text)),
        }
    }

    fn holds(&self, field: &Field, element: Known<'_>) -> Truth {
        let is = |known: &Known<'_>| match self {
            Self::OneOf(values) => values.contain(known).map_or(Truth::Unknown, Truth::from),
            Self::Glob(globs) => on_text(known, |t| globs.iter().any(|g| g.matches(t))),
        };
        let truth = is(&element);
        // `users` may or may not be the table that a statement calls `main.users`.
        match (field, &element) {
            (Field::Tables, Known::Text(text)) if truth == Truth::False => match text.rsplit_once('.') {
                Some((_, table)) if is(&Known::Text(table.into())) == Truth::True => Truth::Unknown,
                Some(_) | None => truth,
            },
            _ => truth,
        }
    }
}

impl Values {
    /// `None` when the attribute has another type than the operands.
    fn contain(&self, known: &Known<'_>) -> Option<bool> {
        match (self, known) {
            (Self::Text(all), Known::Text(text)) => {
                Some(all.binary_search_by(|v| (**v).cmp(text.as_ref())).is_ok())
            }
            (Self::Number(all), Known::Number(number)) => Some(all.binary_search(number).is_ok()),
            (Self::Bool(all), Known::Bool(b)) => Some(all.contains(b)),
            _ => None,
        }
    }
}

impl NumberTest {
    /// The largest number it compares with.
    pub(crate) fn largest(&self) -> Decimal {
        match self {
            Self::Eq(x) | Self::Ne(x) | Self::Lt(x) | Self::Le(x) | Self::Gt(x) | Self::Ge(x) => *x,
            Self::Between(_, high) => *high,
        }
    }

    pub(crate) fn holds(&self, n: Decimal) -> bool {
        match self {
            Self::Eq(x) => n == *x,
            Self::Ne(x) => n != *x,
            Self::Lt(x) => n < *x,
            Self::Le(x) => n <= *x,
            Self::Gt(x) => n > *x,
            Self::Ge(x) => n >= *x,
            Self::Between(low, high) => *low <= n && n <= *high,
        }
    }
}
