//! Argument values as JSON without floats: integers up to 2⁵³ − 1 are numbers, other decimals are `{"$dec":"1.50"}`, values
//! policy cannot reason about are `{"$opaque":"NaN"}`, and a record with a field that begins with `$` is wrapped as
//! `{"$record":{…}}`, so that every value has exactly one spelling and no record can pass for a number.

use std::borrow::Cow;
use std::fmt;

use govrun_verdict::{MAX_VALUE_DEPTH, Value};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scalar::MAX_INT;

const DEC: &str = "$dec";
const OPAQUE: &str = "$opaque";
const RECORD: &str = "$record";

/// One value in the JSON of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Json<'a>(pub Cow<'a, Value>);

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Self {
        Self(Cow::Borrowed(value))
    }
}

impl From<Value> for Json<'_> {
    fn from(value: Value) -> Self {
        Self(Cow::Owned(value))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Part { value: &self.0, depth: 0 }.serialize(s)
    }
}

struct Part<'v> {
    value: &'v Value,
    depth: usize,
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let depth = self.depth + 1;
        if depth > MAX_VALUE_DEPTH + 1 {
            return Err(S::Error::custom("a value is nested too deeply"));
        }
        match self.value {
            Value::Null => s.serialize_unit(),
            Value::Bool(b) => s.serialize_bool(*b),
            Value::Number(n) => {
                let whole = i64::try_from(n.mantissa()).ok().filter(|m| m.unsigned_abs() <= MAX_INT);
                match whole.filter(|_| n.scale() == 0) {
                    Some(whole) => s.serialize_i64(whole),
                    None => tagged(s, DEC, &n.to_string()),
                }
            }
            Value::Text(text) => s.serialize_str(text),
            Value::List(items) => s.collect_seq(items.iter().map(|value| Part { value, depth })),
            Value::Record(fields) if fields.iter().any(|(name, _)| name.starts_with('$')) => {
                tagged(s, RECORD, &Fields { fields, depth })
            }
            Value::Record(fields) => Fields { fields, depth }.serialize(s),
            Value::Opaque(text) => tagged(s, OPAQUE, text),
        }
    }
}

fn tagged<S: Serializer>(s: S, tag: &str, value: &(impl Serialize + ?Sized)) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(Some(1))?;
    map.serialize_entry(tag, value)?;
    map.end()
}

struct Fields<'v> {
    fields: &'v [(String, Value)],
    depth: usize,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.fields.iter().map(|(name, value)| (name, Part { value, depth: self.depth })))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Seed { depth: 0, literal: false }.deserialize(d).map(Self::from)
    }
}

/// `literal`: inside `$record`, where names that begin with `$` are names.
#[derive(Clone, Copy)]
struct Seed {
    depth: usize,
    literal: bool,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        if self.depth > MAX_VALUE_DEPTH {
            return Err(D::Error::custom("a value is nested too deeply"));
        }
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without floats")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Value, E> {
        if n > MAX_INT {
            Err(E::custom("an integer above 2^53 - 1"))
        } else {
            Ok(Value::number(&n.to_string()))
        }
    }

    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Value, E> {
        if n.unsigned_abs() > MAX_INT {
            Err(E::custom("an integer below -(2^53 - 1)"))
        } else {
            Ok(Value::number(&n.to_string()))
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Self { depth: self.depth + 1, literal: false })? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !self.literal && name.starts_with('$') {
                if !fields.is_empty() {
                    return Err(A::Error::custom("a field name begins with `$`"));
                }
                return special(&name, self.depth, map);
            }
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
            let value = map.next_value_seed(Self { depth: self.depth + 1, literal: false })?;
            fields.push((name, value));
        }
        Ok(Value::Record(fields))
    }
}

fn special<'de, A: MapAccess<'de>>(tag: &str, depth: usize, mut map: A) -> Result<Value, A::Error> {
    let value = match tag {
        DEC => match Value::number(&map.next_value::<String>()?) {
            Value::Number(n) => Value::Number(n),
            Value::Null
            | Value::Bool(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Record(_)
            | Value::Opaque(_) => return Err(A::Error::custom("not an exact decimal")),
        },
        OPAQUE => Value::Opaque(map.next_value()?),
        RECORD => map.next_value_seed(Seed { depth, literal: true })?,
        other => return Err(A::Error::custom(format!("unknown value tag `{other}`"))),
    };
    match map.next_key::<String>()? {
        None => Ok(value),
        Some(extra) => Err(A::Error::custom(format!("unexpected `{extra}`"))),
    }
}
