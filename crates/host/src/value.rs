//! Component values in the forms the outside uses: WIT text for people, policy values for decisions.

use govrun_verdict::{MAX_VALUE_DEPTH, Value};
use wasmtime::component::{Type, Val};

/// The WIT spelling of a type; records, variants and the like are spelled out in place, since components do not keep
/// their names.
#[must_use]
pub fn wit_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::S8 => "s8".into(),
        Type::U8 => "u8".into(),
        Type::S16 => "s16".into(),
        Type::U16 => "u16".into(),
        Type::S32 => "s32".into(),
        Type::U32 => "u32".into(),
        Type::S64 => "s64".into(),
        Type::U64 => "u64".into(),
        Type::Float32 => "f32".into(),
        Type::Float64 => "f64".into(),
        Type::Char => "char".into(),
        Type::String => "string".into(),
        Type::List(list) => format!("list<{}>", wit_type(&list.ty())),
        Type::Record(record) => {
            braced("record", record.fields().map(|f| format!("{}: {}", f.name, wit_type(&f.ty))))
        }
        Type::Tuple(tuple) => {
            let types: Vec<String> = tuple.types().map(|t| wit_type(&t)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        Type::Variant(variant) => braced(
            "variant",
            variant.cases().map(|c| match c.ty {
                Some(ty) => format!("{}({})", c.name, wit_type(&ty)),
                None => c.name.to_owned(),
            }),
        ),
        Type::Enum(cases) => braced("enum", cases.names().map(str::to_owned)),
        Type::Flags(flags) => braced("flags", flags.names().map(str::to_owned)),
        Type::Option(option) => format!("option<{}>", wit_type(&option.ty())),
        Type::Result(result) => match (result.ok(), result.err()) {
            (None, None) => "result".into(),
            (Some(ok), None) => format!("result<{}>", wit_type(&ok)),
            (None, Some(err)) => format!("result<_, {}>", wit_type(&err)),
            (Some(ok), Some(err)) => format!("result<{}, {}>", wit_type(&ok), wit_type(&err)),
        },
        Type::Own(_) => "own<resource>".into(),
        Type::Borrow(_) => "borrow<resource>".into(),
        // Asynchronous types of later component-model versions; such components import what is not governed.
        _ => "unsupported".into(),
    }
}

fn braced(kind: &str, members: impl Iterator<Item = String>) -> String {
    format!("{kind} {{ {} }}", members.collect::<Vec<_>>().join(", "))
}

/// An argument as policy sees it. What has no exact policy value becomes [`Value::Opaque`], which is never permitted by
/// a condition on it.
#[must_use]
pub fn to_policy(val: &Val) -> Value {
    convert(val, 0)
}

fn convert(val: &Val, depth: usize) -> Value {
    if depth > MAX_VALUE_DEPTH {
        return Value::Opaque("nested too deeply".into());
    }
    let inner = |v: &Val| convert(v, depth.saturating_add(1));
    let optional = |v: &Option<Box<Val>>| v.as_deref().map_or(Value::Null, inner);
    match val {
        Val::Bool(b) => Value::Bool(*b),
        Val::S8(n) => Value::Number((*n).into()),
        Val::U8(n) => Value::Number((*n).into()),
        Val::S16(n) => Value::Number((*n).into()),
        Val::U16(n) => Value::Number((*n).into()),
        Val::S32(n) => Value::Number((*n).into()),
        Val::U32(n) => Value::Number((*n).into()),
        Val::S64(n) => Value::Number((*n).into()),
        Val::U64(n) => Value::Number((*n).into()),
        // Through the shortest decimal of the narrower type: 0.1f32 is 0.1 to its author, not 0.10000000149.
        Val::Float32(f) if f.is_finite() => Value::number(&format!("{f}")),
        Val::Float32(f) => Value::Opaque(format!("{f}")),
        Val::Float64(f) => Value::float(*f),
        Val::Char(c) => Value::Text(c.to_string()),
        Val::String(s) => Value::Text(s.clone()),
        Val::List(items) | Val::Tuple(items) => Value::List(items.iter().map(inner).collect()),
        Val::Record(fields) => {
            Value::Record(fields.iter().map(|(name, v)| (name.clone(), inner(v))).collect())
        }
        Val::Enum(case) => Value::Text(case.clone()),
        Val::Flags(names) => Value::List(names.iter().cloned().map(Value::Text).collect()),
        Val::Variant(case, payload) => Value::Record(vec![(case.clone(), optional(payload))]),
        Val::Option(v) => optional(v),
        Val::Result(Ok(v)) => Value::Record(vec![("ok".into(), optional(v))]),
        Val::Result(Err(v)) => Value::Record(vec![("err".into(), optional(v))]),
        _ => Value::Opaque("not a plain value".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_reach_policy_exactly() {
        assert_eq!(to_policy(&Val::U64(u64::MAX)), Value::number("18446744073709551615"));
        assert_eq!(to_policy(&Val::Float32(0.1)), Value::number("0.1"));
        assert!(matches!(to_policy(&Val::Float64(f64::NAN)), Value::Opaque(_)));
        assert!(matches!(to_policy(&Val::Float32(f32::INFINITY)), Value::Opaque(_)));
    }

    #[test]
    fn deep_values_become_opaque_instead_of_overflowing() {
        let mut val = Val::Bool(true);
        for _ in 0..100 {
            val = Val::Option(Some(Box::new(val)));
        }
        let mut policy = to_policy(&Val::List(vec![val]));
        while let Value::List(mut items) = policy {
            policy = items.remove(0);
        }
        assert!(matches!(policy, Value::Opaque(_)));
    }
}
