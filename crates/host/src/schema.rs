//! JSON Schema (2020-12) of component functions: what [`crate::json`] reads and writes, said beforehand.
//!
//! Objects are closed, integers have their ranges, and every value that the schema admits is accepted by
//! [`crate::json::arguments`]. Lengths are not bounded here; the host's limits are.

use serde_json::{Map, Value as Json, json};
use wasmtime::component::Type;
use wasmtime::component::types::ComponentFunc;

/// The dialect, as the root of every schema names it.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of the arguments by parameter name.
#[must_use]
pub fn input(function: &ComponentFunc) -> Json {
    rooted(object(function.params()))
}

/// The schema of what a call gives as `{"result": …}`, or `None` where it gives nothing. Of a WIT `result`, its `ok` part:
/// the `err` part is not an answer.
#[must_use]
pub fn output(function: &ComponentFunc) -> Option<Json> {
    let ty = function.results().next()?;
    let given = match &ty {
        Type::Result(result) => result.ok()?,
        _ => ty,
    };
    Some(rooted(object([("result", given)].into_iter())))
}

fn rooted(schema: Json) -> Json {
    let mut root = Map::from_iter([("$schema".to_owned(), Json::from(DIALECT))]);
    if let Json::Object(members) = schema {
        root.extend(members);
    }
    Json::Object(root)
}

/// A closed object; optional members may be left out.
fn object<'a>(members: impl Iterator<Item = (&'a str, Type)>) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, ty) in members {
        if !matches!(ty, Type::Option(_)) {
            required.push(Json::from(name));
        }
        properties.insert(name.to_owned(), schema(&ty));
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn integer(minimum: impl Into<Json>, maximum: impl Into<Json>) -> Json {
    json!({ "type": "integer", "minimum": minimum.into(), "maximum": maximum.into() })
}

/// JSON has no names for what is not finite.
fn float() -> Json {
    json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "inf", "-inf"] }] })
}

fn schema(ty: &Type) -> Json {
    match ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::S8 => integer(i8::MIN, i8::MAX),
        Type::U8 => integer(u8::MIN, u8::MAX),
        Type::S16 => integer(i16::MIN, i16::MAX),
        Type::U16 => integer(u16::MIN, u16::MAX),
        Type::S32 => integer(i32::MIN, i32::MAX),
        Type::U32 => integer(u32::MIN, u32::MAX),
        Type::S64 => integer(i64::MIN, i64::MAX),
        Type::U64 => integer(u64::MIN, u64::MAX),
        Type::Float32 | Type::Float64 => float(),
        Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Type::String => json!({ "type": "string" }),
        Type::Enum(cases) => json!({ "enum": cases.names().collect::<Vec<_>>() }),
        Type::Flags(flags) => json!({
            "type": "array", "uniqueItems": true, "items": { "enum": flags.names().collect::<Vec<_>>() },
        }),
        Type::List(list) => json!({ "type": "array", "items": schema(&list.ty()) }),
        Type::Tuple(tuple) => tuple_of(&tuple.types().map(|t| schema(&t)).collect::<Vec<_>>()),
        Type::Record(record) => object(record.fields().map(|f| (f.name, f.ty))),
        Type::Option(option) => json!({ "anyOf": [schema(&option.ty()), { "type": "null" }] }),
        Type::Variant(variant) => one_of(variant.cases().map(|c| (c.name, c.ty))),
        Type::Result(result) => json!({ "oneOf": [tagged("ok", result.ok()), tagged("err", result.err())] }),
        // Resources and asynchronous types cannot be passed: nothing fits.
        _ => json!({ "not": {} }),
    }
}

fn tuple_of(types: &[Json]) -> Json {
    let length = types.len();
    json!({ "type": "array", "prefixItems": types, "items": false, "minItems": length, "maxItems": length })
}

fn one_of<'a>(cases: impl Iterator<Item = (&'a str, Option<Type>)>) -> Json {
    let case = |(name, ty): (&'a str, Option<Type>)| match ty {
        None => json!({ "const": name }),
        Some(_) => tagged(name, ty),
    };
    json!({ "oneOf": cases.map(case).collect::<Vec<_>>() })
}

/// An object with exactly this member; without a payload it is `null`.
fn tagged(name: &str, ty: Option<Type>) -> Json {
    let payload = ty.map_or_else(|| json!({ "type": "null" }), |ty| schema(&ty));
    json!({
        "type": "object", "properties": { name: payload }, "required": [name], "additionalProperties": false,
    })
}
