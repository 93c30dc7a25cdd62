//! Arguments of a tool call, as policy sees them: no floats, no duplicate fields, bounded depth.

use rust_decimal::Decimal;

/// Deepest nesting of lists and records in an argument. Deeper input is refused where it enters.
pub const MAX_VALUE_DEPTH: usize = 32;

/// One argument value. Numbers are exact decimals; what has no exact decimal (NaN, infinities, more than 28 significant
/// digits) is [`Value::Opaque`], which every predicate treats as unknown.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An absent option or JSON `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// An exact number.
    Number(Decimal),
    /// Text, also for characters, enum cases and flags names.
    Text(String),
    /// Elements in order.
    List(Vec<Value>),
    /// Fields in the order of their declaration; names are unique.
    Record(Vec<(String, Value)>),
    /// A value that policy cannot reason about; its rendering is kept for the record only.
    Opaque(String),
}

impl Value {
    /// A number from its decimal text, or [`Value::Opaque`] when it has no exact representation.
    #[must_use]
    pub fn number(text: &str) -> Self {
        let exact = match text.split_once(['e', 'E']) {
            // `from_scientific` would round a significand that is too long, so that is refused first.
            Some((significand, _)) => {
                Decimal::from_str_exact(significand).and_then(|_| Decimal::from_scientific(text)).ok()
            }
            None => Decimal::from_str_exact(text).ok(),
        };
        exact.map_or_else(|| Self::Opaque(text.to_owned()), Self::Number)
    }

    /// A number from a binary float through its shortest decimal.
    #[must_use]
    pub fn float(f: f64) -> Self {
        if f.is_finite() { Self::number(&format!("{f}")) } else { Self::Opaque(format!("{f}")) }
    }

    /// The value at a dotted path of record fields, or `None` when there is no such field.
    #[must_use]
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |value, name| match value {
            Self::Record(fields) => fields.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::List(_)
            | Self::Opaque(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_or_opaque() {
        assert_eq!(Value::number("0.1"), Value::Number(Decimal::new(1, 1)));
        assert_eq!(Value::number("1e3"), Value::Number(Decimal::from(1000)));
        assert_eq!(Value::float(0.1), Value::Number(Decimal::new(1, 1)));
        assert!(matches!(Value::float(f64::NAN), Value::Opaque(_)));
        assert!(matches!(Value::float(f64::INFINITY), Value::Opaque(_)));
        assert!(matches!(Value::float(1e300), Value::Opaque(_)));
        assert!(matches!(Value::number("0.12345678901234567890123456789012345"), Value::Opaque(_)));
        assert!(matches!(Value::number("1.00000000000000000000000000000001e4"), Value::Opaque(_)));
        assert!(matches!(Value::number("1e-29"), Value::Opaque(_)));
        assert!(matches!(Value::number("ten"), Value::Opaque(_)));
    }

    #[test]
    fn paths_walk_records_only() {
        let v = Value::Record(vec![("a".into(), Value::Record(vec![("b".into(), Value::Bool(true))]))]);
        assert_eq!(v.at(["a", "b"]), Some(&Value::Bool(true)));
        assert_eq!(v.at(["a", "c"]), None);
        assert_eq!(v.at(["a", "b", "c"]), None);
    }
}
