//! The parameters of the registered components' functions, for the lint.

use std::path::Path;

use govrun_host::component::Inspected;
use govrun_policy::{ArgumentType, Policy, Signature, Signatures};

/// The functions of every registered component whose file is there and is the registered one. What cannot be read is for
/// `doctor` to say.
pub(super) fn of(policy: &Policy, folder: &Path) -> Signatures {
    let mut signatures = Signatures::new();
    let (Ok(base), Ok(engine)) = (folder.canonicalize(), govrun_host::engine()) else { return signatures };
    for entry in policy.tools() {
        let Some(path) = entry.resolve(&base).component else { continue };
        let Ok(inspected) = Inspected::load(&engine, None, &path) else { continue };
        if inspected.digest != entry.digest {
            continue;
        }
        for function in &inspected.functions {
            if let Some(signature) = parameters(&function.signature) {
                signatures.insert(format!("{}.{}", entry.name, function.name), signature);
            }
        }
    }
    signatures
}

/// The parameters in `(name: type, …) -> …`.
fn parameters(text: &str) -> Option<Signature> {
    let inner = text.strip_prefix('(')?;
    let end = closing(inner)?;
    let list = inner.get(..end)?;
    if list.trim().is_empty() {
        return Some(Vec::new());
    }
    split(list).into_iter().map(named).collect()
}

fn named(parameter: &str) -> Option<(String, ArgumentType)> {
    let (name, is) = parameter.split_once(':')?;
    Some((name.trim().to_owned(), of_type(is.trim())))
}

/// Where the bracket that is open before the text is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '<' | '{' => depth += 1,
            // The arrow before a result closes nothing.
            '>' if text.get(..at).is_some_and(|before| before.ends_with('-')) => {}
            ')' | '>' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The parts between commas that are in no bracket.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' | '<' | '{' => depth += 1,
            ')' | '>' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.extend(list.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(list.get(start..));
    parts
}

fn of_type(text: &str) -> ArgumentType {
    let inside = |name: &str| {
        let inner = text.strip_prefix(name)?.trim_start();
        inner.strip_prefix(['<', '{'])?.strip_suffix(['>', '}']).map(str::trim)
    };
    match text {
        "string" | "char" => return ArgumentType::Text,
        "bool" => return ArgumentType::Bool,
        "u8" | "u16" | "u32" | "u64" | "s8" | "s16" | "s32" | "s64" | "f32" | "f64" => {
            return ArgumentType::Number;
        }
        _ => {}
    }
    if let Some(inner) = inside("option") {
        return of_type(inner);
    }
    if inside("enum").is_some() {
        return ArgumentType::Text;
    }
    if let Some(inner) = inside("record") {
        let fields: Option<Vec<_>> = split(inner).into_iter().map(named).collect();
        return fields.map_or(ArgumentType::Other, ArgumentType::Record);
    }
    if inside("list").is_some() { ArgumentType::List } else { ArgumentType::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_from_their_text() {
        let read = parameters("(to: string, n: option<u64>, tags: list<tuple<string, u8>>, r: record { a: bool, b: list<u8> }, v: variant { x, y(string) }) -> result<string, string>").unwrap();
        let types: Vec<(&str, ArgumentType)> = read.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        assert_eq!(
            types,
            [
                ("to", ArgumentType::Text),
                ("n", ArgumentType::Number),
                ("tags", ArgumentType::List),
                (
                    "r",
                    ArgumentType::Record(vec![
                        ("a".into(), ArgumentType::Bool),
                        ("b".into(), ArgumentType::List)
                    ])
                ),
                ("v", ArgumentType::Other),
            ]
        );
        assert_eq!(parameters("() -> u64"), Some(vec![]));
        assert_eq!(parameters("(a: string"), None);
    }
}
