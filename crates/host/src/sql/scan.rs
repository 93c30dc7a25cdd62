//! What can be said of a statement without parsing it.

/// Whether every engine separates the same words: no control characters but blanks and line ends, no blank that only
/// some take for one.
pub(super) fn is_plain(statement: &str) -> bool {
    statement.chars().all(|c| match c {
        '\t' | '\n' | '\r' | ' ' => true,
        other => !other.is_control() && !other.is_whitespace() && other != '\u{feff}',
    })
}

/// The first word of a statement in upper case, behind blanks and comments; empty when it does not start with one.
///
/// Comments that nest are closed where the first `*/` stands: the word found is then not one that a statement may start
/// with, or the engine refuses the rest.
#[must_use]
pub fn first_word(statement: &str) -> String {
    let word = skip_blank(statement).chars().take_while(char::is_ascii_alphabetic).take(16);
    word.map(|c| c.to_ascii_uppercase()).collect()
}

fn skip_blank(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else {
            return rest;
        }
    }
}

/// Whether the word stands anywhere in the text by itself, in any case: in literals and comments too, so that this can
/// only say yes too often.
#[must_use]
pub fn has_word(statement: &str, word: &str) -> bool {
    statement
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .any(|found| found.eq_ignore_ascii_case(word))
}
