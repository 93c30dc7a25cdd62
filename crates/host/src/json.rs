//! JSON forms of component values, for tools that call tools.
//!
//! 64-bit integers stay exact; options are the value or `null`; results are `{"ok": …}` or `{"err": …}`; variants are
//! `{"case": payload}`, or the bare case name when there is no payload.

use serde_json::{Map, Number, Value as Json};
use wasmtime::component::{Type, Val};

/// Why some JSON is not a value of the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct JsonError {
    /// Where, as a dotted path such as `amount` or `items[2].name`.
    pub place: String,
    /// What was expected and what was found.
    pub what: String,
}

/// The arguments of a call from a JSON object by parameter name.
///
/// # Errors
/// When the object misses a parameter, has one too many, or a value has another type.
pub fn arguments<'a>(
    params: impl Iterator<Item = (&'a str, Type)>,
    given: &Map<String, Json>,
) -> Result<Vec<(String, Val)>, JsonError> {
    let mut values = Vec::new();
    for (name, ty) in params {
        let value = match given.get(name) {
            Some(json) => from_json(&ty, json, name)?,
            None if matches!(ty, Type::Option(_)) => Val::Option(None),
            None => return Err(wrong(name, &ty, "nothing")),
        };
        values.push((name.to_owned(), value));
    }
    match given.keys().find(|key| !values.iter().any(|(name, _)| name == *key)) {
        Some(extra) => Err(JsonError { place: extra.clone(), what: "there is no such parameter".into() }),
        None => Ok(values),
    }
}

fn wrong(place: &str, ty: &Type, found: &str) -> JsonError {
    JsonError {
        place: place.to_owned(),
        what: format!("expected {}, found {found}", crate::value::wit_type(ty)),
    }
}

fn kind(json: &Json) -> String {
    match json {
        Json::Null => "null".into(),
        Json::Bool(b) => b.to_string(),
        Json::Number(n) => format!("number {n}"),
        Json::String(_) => "a string".into(),
        Json::Array(_) => "an array".into(),
        Json::Object(_) => "an object".into(),
    }
}

fn integer<T: TryFrom<i64> + TryFrom<u64>>(json: &Json) -> Option<T> {
    let n = json.as_number()?;
    n.as_u64().and_then(|n| T::try_from(n).ok()).or_else(|| n.as_i64().and_then(|n| T::try_from(n).ok()))
}

/// A value of type `ty`; `place` names it in errors.
fn from_json(ty: &Type, json: &Json, place: &str) -> Result<Val, JsonError> {
    let fail = || wrong(place, ty, &kind(json));
    let plain = match ty {
        Type::Bool => json.as_bool().map(Val::Bool),
        Type::S8 => integer(json).map(Val::S8),
        Type::U8 => integer(json).map(Val::U8),
        Type::S16 => integer(json).map(Val::S16),
        Type::U16 => integer(json).map(Val::U16),
        Type::S32 => integer(json).map(Val::S32),
        Type::U32 => integer(json).map(Val::U32),
        Type::S64 => integer(json).map(Val::S64),
        Type::U64 => integer(json).map(Val::U64),
        Type::Float32 => float(json).map(Val::Float32),
        Type::Float64 => float(json).map(Val::Float64),
        Type::Char => json.as_str().and_then(single_char).map(Val::Char),
        Type::String => json.as_str().map(|s| Val::String(s.to_owned())),
        Type::Enum(cases) => {
            json.as_str().filter(|s| cases.names().any(|c| c == *s)).map(|s| Val::Enum(s.to_owned()))
        }
        _ => return structured(ty, json, place),
    };
    plain.ok_or_else(fail)
}

/// A number, or the name of one that JSON does not have.
fn float<T: std::str::FromStr>(json: &Json) -> Option<T> {
    match json {
        Json::Number(n) => n.to_string().parse().ok(),
        Json::String(name) if matches!(name.as_str(), "NaN" | "inf" | "-inf") => name.parse().ok(),
        _ => None,
    }
}

fn single_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

fn structured(ty: &Type, json: &Json, place: &str) -> Result<Val, JsonError> {
    let fail = || wrong(place, ty, &kind(json));
    match ty {
        Type::Option(_) if json.is_null() => Ok(Val::Option(None)),
        Type::Option(option) => Ok(Val::Option(Some(Box::new(from_json(&option.ty(), json, place)?)))),
        Type::List(list) => {
            elements(json.as_array().ok_or_else(fail)?, place, |_| Some(list.ty())).map(Val::List)
        }
        Type::Tuple(tuple) => {
            let types: Vec<Type> = tuple.types().collect();
            let items = json.as_array().filter(|items| items.len() == types.len()).ok_or_else(fail)?;
            elements(items, place, |i| types.get(i).cloned()).map(Val::Tuple)
        }
        Type::Record(record) => {
            let fields = record.fields().map(|f| (f.name, f.ty));
            let values = arguments(fields, json.as_object().ok_or_else(fail)?)
                .map_err(|e| JsonError { place: format!("{place}.{}", e.place), what: e.what })?;
            Ok(Val::Record(values))
        }
        Type::Flags(flags) => {
            let names: Option<Vec<String>> = json
                .as_array()
                .ok_or_else(fail)?
                .iter()
                .map(|n| n.as_str().filter(|s| flags.names().any(|f| f == *s)).map(str::to_owned))
                .collect();
            names.map(Val::Flags).ok_or_else(fail)
        }
        Type::Variant(variant) => {
            let (case, payload) = tagged(json).ok_or_else(fail)?;
            let known = variant.cases().find(|c| c.name == case).ok_or_else(fail)?;
            Ok(Val::Variant(case.to_owned(), payload_of(known.ty, payload, place).ok_or_else(fail)??))
        }
        Type::Result(result) => {
            let (case, payload) = tagged(json).ok_or_else(fail)?;
            match case {
                "ok" => Ok(Val::Result(Ok(payload_of(result.ok(), payload, place).ok_or_else(fail)??))),
                "err" => Ok(Val::Result(Err(payload_of(result.err(), payload, place).ok_or_else(fail)??))),
                _ => Err(fail()),
            }
        }
        _ => Err(JsonError { place: place.to_owned(), what: "this type cannot be passed".into() }),
    }
}

fn elements(items: &[Json], place: &str, ty: impl Fn(usize) -> Option<Type>) -> Result<Vec<Val>, JsonError> {
    let one = |(i, item): (usize, &Json)| {
        let place = format!("{place}[{i}]");
        match ty(i) {
            Some(ty) => from_json(&ty, item, &place),
            None => Err(JsonError { place, what: "one element too many".into() }),
        }
    };
    items.iter().enumerate().map(one).collect()
}

fn tagged(json: &Json) -> Option<(&str, Option<&Json>)> {
    match json {
        Json::String(case) => Some((case, None)),
        Json::Object(fields) if fields.len() == 1 => {
            fields.iter().next().map(|(case, payload)| (case.as_str(), Some(payload)))
        }
        _ => None,
    }
}

/// `None` when a payload is there that should not be, or the other way round.
fn payload_of(
    ty: Option<Type>,
    json: Option<&Json>,
    place: &str,
) -> Option<Result<Option<Box<Val>>, JsonError>> {
    match (ty, json) {
        (None, None | Some(Json::Null)) => Some(Ok(None)),
        (Some(ty), Some(json)) => Some(from_json(&ty, json, place).map(|v| Some(Box::new(v)))),
        (None, Some(_)) | (Some(_), None) => None,
    }
}

/// The JSON form of a value.
#[must_use]
pub fn to_json(val: &Val) -> Json {
    let boxed = |v: &Option<Box<Val>>| v.as_deref().map_or(Json::Null, to_json);
    match val {
        Val::Bool(b) => Json::Bool(*b),
        Val::S8(n) => Json::from(*n),
        Val::U8(n) => Json::from(*n),
        Val::S16(n) => Json::from(*n),
        Val::U16(n) => Json::from(*n),
        Val::S32(n) => Json::from(*n),
        Val::U32(n) => Json::from(*n),
        Val::S64(n) => Json::from(*n),
        Val::U64(n) => Json::from(*n),
        Val::Float32(f) => shortest(f64::from(*f), &format!("{f}")),
        Val::Float64(f) => shortest(*f, &format!("{f}")),
        Val::Char(c) => Json::String(c.to_string()),
        Val::String(s) | Val::Enum(s) => Json::String(s.clone()),
        Val::List(items) | Val::Tuple(items) => Json::Array(items.iter().map(to_json).collect()),
        Val::Record(fields) => {
            Json::Object(fields.iter().map(|(name, v)| (name.clone(), to_json(v))).collect())
        }
        Val::Flags(names) => Json::Array(names.iter().cloned().map(Json::String).collect()),
        Val::Variant(case, None) => Json::String(case.clone()),
        Val::Variant(case, Some(payload)) => single(case, to_json(payload)),
        Val::Option(v) => boxed(v),
        Val::Result(Ok(v)) => single("ok", boxed(v)),
        Val::Result(Err(v)) => single("err", boxed(v)),
        _ => Json::Null,
    }
}

fn single(key: &str, value: Json) -> Json {
    Json::Object(Map::from_iter([(key.to_owned(), value)]))
}

/// A finite number; NaN and infinities, which JSON does not have, are their names.
fn shortest(exact: f64, text: &str) -> Json {
    let narrow: Option<f64> = text.parse().ok();
    narrow
        .and_then(Number::from_f64)
        .or_else(|| Number::from_f64(exact))
        .map_or_else(|| Json::String(text.to_owned()), Json::Number)
}
