//! What is wrong with a policy, where exactly, and what was probably meant.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

/// Most columns of a source line that are shown around a mistake.
const SHOWN_COLUMNS: usize = 120;

/// Most errors that are reported at once; the rest is counted.
pub const MAX_REPORTED_ERRORS: usize = 200;

/// Where something is written: a file of the policy and its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Path relative to the policy folder, with `/`.
    pub file: Arc<str>,
    /// Line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", visible(&self.file), self.line)
    }
}

/// The place of a mistake, with the source line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    source_line: String,
    /// Characters under the caret, at least one.
    width: usize,
}

/// One mistake in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    file: String,
    place: Option<Place>,
    message: String,
    help: Option<String>,
}

impl LoadError {
    /// A mistake that is about a whole file or folder.
    pub(crate) fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), place: None, message: message.into(), help: None }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The file it is in, relative to the policy folder.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Line and column, counted from 1 (columns in characters), unless the mistake is about the whole file.
    #[must_use]
    pub fn position(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|p| (p.line, p.column))
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What was probably meant, or how to write it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", visible(&self.message))?;
        let Some(place) = &self.place else {
            write!(f, "  --> {}", visible(&self.file))?;
            return self.help.iter().try_for_each(|h| write!(f, "\n  = help: {}", visible(h)));
        };
        let (shown, lead) = excerpt(&place.source_line, place.column);
        let gutter = " ".repeat(place.line.to_string().len());
        writeln!(f, "{gutter}--> {}:{}:{}", visible(&self.file), place.line, place.column)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{} | {shown}", place.line)?;
        let room = shown.chars().count().saturating_sub(lead).max(1);
        write!(f, "{gutter} | {}{}", " ".repeat(lead), "^".repeat(place.width.min(room)))?;
        self.help.iter().try_for_each(|h| write!(f, " {}", visible(h)))
    }
}

/// The part of a line around `column`, and how many characters stand before the column in it.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let before = column.saturating_sub(1);
    let start = before.saturating_sub(SHOWN_COLUMNS / 2);
    let shown: String = line.chars().skip(start).take(SHOWN_COLUMNS).map(plain).collect();
    (shown, before - start)
}

/// A character that moves nothing on a terminal and takes one column.
fn plain(c: char) -> char {
    if c == '\t' {
        ' '
    } else if is_hidden(c) {
        '\u{fffd}'
    } else {
        c
    }
}

/// Control characters, and those that reorder or hide the text around them.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` with everything that could disturb a terminal escaped.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Everything that is wrong with a policy: never empty, sorted by file and position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors {
    errors: Vec<LoadError>,
}

impl LoadErrors {
    /// `Ok` when there are none.
    pub(crate) fn check(mut errors: Vec<LoadError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by(|a, b| (&a.file, a.position(), &a.message).cmp(&(&b.file, b.position(), &b.message)));
        errors.dedup();
        Err(Self { errors })
    }

    /// Each of them.
    #[must_use]
    pub fn errors(&self) -> &[LoadError] {
        &self.errors
    }

    pub(crate) fn into_vec(self) -> Vec<LoadError> {
        self.errors
    }
}

impl From<LoadError> for LoadErrors {
    fn from(error: LoadError) -> Self {
        Self { errors: vec![error] }
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in self.errors.iter().take(MAX_REPORTED_ERRORS) {
            writeln!(f, "{error}\n")?;
        }
        let more = self.errors.len().saturating_sub(MAX_REPORTED_ERRORS);
        if more > 0 {
            writeln!(f, "and {more} more\n")?;
        }
        let count = self.errors.len();
        write!(f, "{count} error{} in the policy; nothing was loaded", if count == 1 { "" } else { "s" })
    }
}

impl std::error::Error for LoadErrors {}

/// A text with its line starts, to turn byte offsets into lines and columns.
#[derive(Debug)]
pub(crate) struct Located<'a> {
    pub(crate) file: Arc<str>,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Located<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.into(), text, line_starts }
    }

    /// Index of the line that holds byte `at`, counted from 0.
    fn line_index(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at).saturating_sub(1)
    }

    fn line_text(&self, index: usize) -> &'a str {
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }

    pub(crate) fn origin(&self, span: &Range<usize>) -> Origin {
        Origin { file: Arc::clone(&self.file), line: self.line_index(span.start) + 1 }
    }

    /// The whole lines that `span` touches.
    pub(crate) fn lines(&self, span: &Range<usize>) -> &'a str {
        let start = self.line_starts.get(self.line_index(span.start)).copied().unwrap_or(0);
        let last = self.line_index(span.end.saturating_sub(1).max(span.start));
        let end = self.line_starts.get(last + 1).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end()
    }

    pub(crate) fn error(&self, span: &Range<usize>, message: impl Into<String>) -> LoadError {
        let index = self.line_index(span.start);
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let count = |range: Range<usize>| self.text.get(range).map_or(1, |t| t.chars().count());
        let source_line = self.line_text(index);
        let end = span.end.min(start + source_line.len()).max(span.start);
        LoadError {
            file: self.file.to_string(),
            place: Some(Place {
                line: index + 1,
                column: count(start..span.start) + 1,
                source_line: source_line.to_owned(),
                width: count(span.start..end).max(1),
            }),
            message: message.into(),
            help: None,
        }
    }
}

/// ``did you mean `x`?`` for the nearest of `known`, where one is near.
pub(crate) fn did_you_mean<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let lower = given.to_lowercase();
    let distance = |k: &str| strsim::damerau_levenshtein(&lower, &k.to_lowercase());
    let most = (given.chars().count() / 3).clamp(1, 4);
    let nearest = known.into_iter().map(|k| (distance(k), k)).min()?;
    let mut text = String::new();
    (nearest.0 <= most).then(|| write!(text, "did you mean `{}`?", nearest.1)).map(|_| text)
}
