//! Sentences for callers, filled in with attributes of the call.

use std::fmt::Write as _;

use govrun_verdict::Call;

use crate::error::is_hidden;
use crate::field::{Field, Known};

/// Most characters of one filled-in value.
pub(crate) const MAX_VALUE_CHARS: usize = 64;
/// Most bytes of a message before filling in.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024;

/// A message with its placeholders parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Field),
}

impl Message {
    /// Parse `{name}` placeholders; `{{` and `}}` stand for braces. `field` says what a name means.
    pub(crate) fn parse(text: &str, field: impl Fn(&str) -> Result<Field, String>) -> Result<Self, String> {
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(format!("a message has at most {MAX_MESSAGE_BYTES} bytes"));
        }
        if text.chars().any(is_hidden) {
            return Err("a message is one line without control characters".to_owned());
        }
        let mut parts = vec![Part::Text(String::new())];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(['{', '}']) {
            push(&mut parts, before);
            let opening = rest.as_bytes().get(before.len()) == Some(&b'{');
            let brace = if opening { '{' } else { '}' };
            if let Some(after) = after.strip_prefix(brace) {
                push(&mut parts, brace.encode_utf8(&mut [0; 4]));
                rest = after;
            } else if let (true, Some((name, after))) = (opening, after.split_once('}')) {
                parts.push(Part::Value(field(name)?));
                rest = after;
            } else {
                return Err(format!("a single `{brace}`; write `{brace}{brace}` for the character itself"));
            }
        }
        push(&mut parts, rest);
        Ok(Self(parts))
    }

    /// The sentence for this call. Values are cut at 64 characters, and control characters in them escaped.
    pub(crate) fn fill(&self, call: &Call) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(field) => write_value(&mut out, &field.read(call)),
            }
        }
        out
    }
}

fn push(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        Some(Part::Value(_)) | None => parts.push(Part::Text(text.to_owned())),
    }
}

fn write_value(out: &mut String, known: &Known<'_>) {
    // Writing to a string does not fail.
    let _ = match known {
        Known::Text(text) => {
            write_text(out, text);
            Ok(())
        }
        Known::Number(n) => write!(out, "{n}"),
        Known::Bool(b) => write!(out, "{b}"),
        Known::Ip(ip) => write!(out, "{ip}"),
        Known::List(list) => write!(out, "(a list of {})", list.len()),
        Known::Record => write!(out, "(a record)"),
        Known::Opaque | Known::Absent | Known::Unknowable => write!(out, "(unknown)"),
    };
}

fn write_text(out: &mut String, text: &str) {
    let mut chars = text.chars();
    for c in chars.by_ref().take(MAX_VALUE_CHARS) {
        if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    if chars.next().is_some() {
        out.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message, String> {
        Message::parse(text, |name| Field::parse(name).ok_or_else(|| format!("unknown placeholder `{name}`")))
    }

    #[test]
    fn braces_are_placeholders_or_doubled() {
        assert_eq!(
            parse("a {tool} {{b}} {args.x}").unwrap().0,
            vec![
                Part::Text("a ".into()),
                Part::Value(Field::Tool),
                Part::Text(" {b} ".into()),
                Part::Value(Field::parse("args.x").unwrap()),
                Part::Text(String::new()),
            ]
        );
        for bad in ["{", "}", "a {tool", "tool}", "{nope}", "{}", "a\nb"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_cut_and_escaped() {
        let mut out = String::new();
        write_value(&mut out, &Known::Text("a\u{1b}[2Jb\u{202e}".into()));
        assert_eq!(out, "a\\u{1b}[2Jb\\u{202e}");
        let mut out = String::new();
        write_value(&mut out, &Known::Text("é".repeat(65).into()));
        assert_eq!(out, format!("{}…", "é".repeat(64)));
    }
}
