//! TOML values with their place, read strictly: what is not expected is an error where it stands.
//!
//! A reading function that reports a mistake returns `None` or a harmless value; nothing is built from a policy with
//! any mistake, so that one pass can report all of them.

use std::cell::{Cell, RefCell};
use std::ops::{Range, RangeInclusive};

use govrun_verdict::Value;
use rust_decimal::Decimal;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{LoadError, Located, Origin, did_you_mean};

/// One file under reading, and the mistakes found in it.
#[derive(Debug)]
pub(crate) struct File<'t> {
    pub(crate) text: Located<'t>,
    errors: RefCell<Vec<LoadError>>,
    broken: Cell<bool>,
}

impl<'t> File<'t> {
    pub(crate) fn new(path: &str, text: &'t str) -> Self {
        Self { text: Located::new(path, text), errors: RefCell::default(), broken: Cell::new(false) }
    }

    /// Parse the file; syntax errors are reported, and what could be read is returned with them.
    pub(crate) fn parse(&self, text: &'t str) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(text);
        self.broken.set(!errors.is_empty());
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            self.report(self.text.error(&span, error.message()));
        }
        table.into_inner()
    }

    /// True when the file is not TOML, so that parts of it are missing.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    pub(crate) fn report(&self, error: LoadError) {
        self.errors.borrow_mut().push(error);
    }

    pub(crate) fn take_errors(&self) -> Vec<LoadError> {
        self.errors.take()
    }
}

/// A value and its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'t> {
    pub(crate) file: &'t File<'t>,
    value: &'t Spanned<DeValue<'t>>,
}

/// A table and its place.
#[derive(Clone, Debug)]
pub(crate) struct Table<'t> {
    pub(crate) file: &'t File<'t>,
    map: &'t DeTable<'t>,
    span: Range<usize>,
    /// What it is, for messages: `a rule`.
    what: &'static str,
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'t> {
    pub(crate) key: &'t str,
    pub(crate) key_span: Range<usize>,
    pub(crate) item: Item<'t>,
}

impl Entry<'_> {
    /// Report a mistake at the key.
    pub(crate) fn fail(&self, message: impl Into<String>, help: Option<String>) {
        let error = self.item.file.text.error(&self.key_span, message);
        self.item.file.report(match help {
            Some(help) => error.with_help(help),
            None => error,
        });
    }

    pub(crate) fn origin(&self) -> Origin {
        self.item.file.text.origin(&self.key_span)
    }
}

impl<'t> Item<'t> {
    pub(crate) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    pub(crate) fn fail(&self, message: impl Into<String>) {
        self.file.report(self.file.text.error(&self.span(), message));
    }

    pub(crate) fn fail_with(&self, message: impl Into<String>, help: impl Into<String>) {
        self.file.report(self.file.text.error(&self.span(), message).with_help(help));
    }

    /// `Ok`, or the error reported here.
    pub(crate) fn checked<T, E: Into<String>>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|why| self.fail(why)).ok()
    }

    fn is_not(&self, wanted: &str) {
        let is = self.value.get_ref().type_str();
        let article = if is.starts_with(['a', 'i']) { "an" } else { "a" };
        self.fail(format!("{wanted} is needed here, and this is {article} {is}"));
    }

    pub(crate) fn value(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    pub(crate) fn text(&self) -> Option<&'t str> {
        let text = self.value().as_str();
        if text.is_none() {
            self.is_not("a string");
        }
        text
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.value().as_bool();
        if value.is_none() {
            self.is_not("true or false");
        }
        value
    }

    pub(crate) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let Some(literal) = self.value().as_integer() else {
            self.is_not("a whole number");
            return None;
        };
        let number =
            u64::from_str_radix(literal.as_str(), literal.radix()).ok().filter(|n| range.contains(n));
        if number.is_none() {
            self.fail(format!("a number from {} to {} is needed here", range.start(), range.end()));
        }
        number
    }

    /// An exact number, from the text of the literal.
    pub(crate) fn decimal(&self) -> Option<Decimal> {
        let exact = match self.value() {
            DeValue::Integer(i) if i.radix() == 10 => exact(i.as_str()),
            DeValue::Integer(i) => {
                let whole = i128::from_str_radix(i.as_str(), i.radix()).ok();
                whole.and_then(|n| Decimal::try_from_i128_with_scale(n, 0).ok())
            }
            DeValue::Float(f) => exact(f.as_str()),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                self.is_not("a number");
                return None;
            }
        };
        if exact.is_none() {
            self.fail("this has no exact decimal value of at most 28 digits");
        }
        exact
    }

    pub(crate) fn one_of<T: Copy>(&self, known: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message = format!("`{text}` is none of {}", names.join(", "));
            self.fail_near(message, text, known.iter().map(|(name, _)| *name));
        }
        found
    }

    /// Report `message`, with the nearest of `known` to `given` where there is one.
    pub(crate) fn fail_near<'k>(
        &self,
        message: String,
        given: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        match did_you_mean(given, known) {
            Some(help) => self.fail_with(message, help),
            None => self.fail(message),
        }
    }

    pub(crate) fn table(&self, what: &'static str) -> Option<Table<'t>> {
        let Some(map) = self.value().as_table() else {
            self.is_not("a table");
            return None;
        };
        Some(Table { file: self.file, map, span: self.span(), what })
    }

    /// The elements of an array that is not empty.
    pub(crate) fn elements(&self) -> Option<Vec<Item<'t>>> {
        let Some(array) = self.value().as_array() else {
            self.is_not("an array");
            return None;
        };
        if array.is_empty() {
            self.fail("an empty list is refused: leave the key out, or list what is meant");
            return None;
        }
        Some(array.iter().map(|value| Item { file: self.file, value }).collect())
    }

    /// The elements of an array that may be empty.
    pub(crate) fn any_elements(&self) -> Option<Vec<Item<'t>>> {
        match self.value().as_array() {
            Some(array) if array.is_empty() => Some(Vec::new()),
            Some(_) | None => self.elements(),
        }
    }

    /// The value itself, or the elements of an array of values.
    pub(crate) fn one_or_more(&self) -> Option<Vec<Item<'t>>> {
        if self.value().is_array() { self.elements() } else { Some(vec![*self]) }
    }

    /// Distinct texts, at least one.
    pub(crate) fn texts(&self) -> Option<Vec<(Item<'t>, &'t str)>> {
        let mut texts: Vec<(Item<'t>, &'t str)> = Vec::new();
        for item in self.one_or_more()? {
            let Some(text) = item.text() else { continue };
            if texts.iter().any(|(_, t)| *t == text) {
                item.fail(format!("`{text}` is listed twice"));
            }
            texts.push((item, text));
        }
        Some(texts)
    }
}

fn exact(literal: &str) -> Option<Decimal> {
    let plain = literal.replace('_', "");
    match Value::number(plain.strip_prefix('+').unwrap_or(&plain)) {
        Value::Number(n) => Some(n),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Record(_)
        | Value::Opaque(_) => None,
    }
}

impl<'t> Table<'t> {
    pub(crate) fn root(file: &'t File<'t>, map: &'t DeTable<'t>) -> Self {
        Self { file, map, span: 0..0, what: "this file" }
    }

    pub(crate) fn fail(&self, message: impl Into<String>) {
        self.file.report(self.file.text.error(&self.span, message));
    }

    pub(crate) fn origin(&self) -> Origin {
        self.file.text.origin(&self.span)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The lines from the table's header to the end of its last value.
    pub(crate) fn source(&self) -> &'t str {
        let end = end_of(self.map).max(self.span.end);
        self.file.text.lines(&(self.span.start..end))
    }

    /// Report every key that is not among these.
    pub(crate) fn only(&self, keys: &[&str]) {
        for entry in self.entries() {
            if !keys.contains(&entry.key) {
                let near = did_you_mean(entry.key, keys.iter().copied());
                let help = near.unwrap_or_else(|| format!("known keys: {}", keys.join(", ")));
                entry.fail(format!("unknown key `{}` in {}", entry.key, self.what), Some(help));
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Item<'t>> {
        self.map.get(key).map(|value| Item { file: self.file, value })
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&self, key: &str) -> Option<Item<'t>> {
        let item = self.get(key);
        if item.is_none() {
            self.fail(format!("{} needs the key `{key}`", self.what));
        }
        item
    }

    /// The keys in the order in which they are written.
    pub(crate) fn entries(&self) -> Vec<Entry<'t>> {
        let file = self.file;
        let mut entries: Vec<Entry<'t>> = self
            .map
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref(),
                key_span: key.span(),
                item: Item { file, value },
            })
            .collect();
        entries.sort_by_key(|e| e.key_span.start);
        entries
    }

    /// The named tables under `key`: `[key.NAME]`.
    pub(crate) fn named(&self, key: &'static str, what: &'static str) -> Vec<(Entry<'t>, Table<'t>)> {
        let Some(tables) = self.get(key).and_then(|item| item.table(key)) else { return Vec::new() };
        tables.entries().into_iter().filter_map(|e| e.item.table(what).map(|t| (e, t))).collect()
    }

    /// The tables of an array: `[[key]]`.
    pub(crate) fn array(&self, key: &str, what: &'static str) -> Vec<Table<'t>> {
        let elements = self.get(key).and_then(|item| item.elements()).unwrap_or_default();
        elements.into_iter().filter_map(|item| item.table(what)).collect()
    }
}

/// Where the last value of a table ends. Depth is bounded by the TOML parser.
fn end_of(map: &DeTable<'_>) -> usize {
    let ends =
        map.iter().map(|(key, value)| key.span().end.max(value.span().end).max(end_within(value.get_ref())));
    ends.max().unwrap_or(0)
}

fn end_within(value: &DeValue<'_>) -> usize {
    match value {
        DeValue::Table(map) => end_of(map),
        DeValue::Array(items) => {
            items.iter().map(|i| i.span().end.max(end_within(i.get_ref()))).max().unwrap_or(0)
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => 0,
    }
}
