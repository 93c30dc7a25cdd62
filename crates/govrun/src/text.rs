//! Text on its way to a terminal. What a guest or an agent wrote must not steer it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// Characters that a terminal obeys instead of showing: controls, and those that change the direction of writing.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// Whatever an agent put into a field, on one line and without anything a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if steers(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
        out
    })
}

/// The same, and at most `most` characters of it.
pub(crate) fn short(text: &str, most: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// JSON with the same meaning and nothing that steers a terminal; line breaks between its tokens stay.
pub(crate) fn plain_json(json: &str) -> String {
    json.chars().fold(String::new(), |mut out, c| {
        // In JSON all of these but the line break stand inside strings, and all have four hexadecimal digits.
        if steers(c) && c != '\n' {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

/// Print a value as JSON for machines, safe on a terminal too.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::Runtime, e))?;
    println!("{}", plain_json(&text));
    Ok(())
}

/// A time in microseconds since 1970, as RFC 3339 in UTC with microseconds.
pub(crate) fn time(us: u64) -> String {
    let time = i64::try_from(us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    time.map_or_else(|| format!("{us} us"), |time| format!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        let evil = "a\u{1b}[2Jb\u{9b}1mc\u{202e}d\u{7f}e\nf\u{2066}g";
        let shown = plain(evil);
        assert!(!shown.chars().any(steers), "{shown:?}");
        let json = serde_json::to_string_pretty(&[evil]).unwrap();
        let safe = plain_json(&json);
        assert!(!safe.chars().any(|c| steers(c) && c != '\n'), "{safe:?}");
        let back: Vec<String> = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, [evil]);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(1_700_000_000_000_000), "2023-11-14T22:13:20.000000Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 us");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(short("äöü", 2), "äö…");
        assert_eq!(short("äöü", 3), "äöü");
    }
}
