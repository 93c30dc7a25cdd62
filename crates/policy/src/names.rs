//! Names of things in a policy, and the tables of what is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::Origin;
use crate::toml_item::{Entry, Item};

/// Longest name of an agent, tool, list, budget, profile, role or target.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// Check a name: 1 to 64 characters of letters, digits, `-`, `_`, `.` and `@`, starting with a letter or digit.
pub(crate) fn check(name: &str, what: &str) -> Result<(), String> {
    let sound = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
    if sound {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not {what}: 1 to {MAX_NAME_BYTES} characters of letters, digits, `-`, `_`, `.` and `@`, starting \
         with a letter or digit"
    ))
}

/// A name that is compared exactly.
pub(crate) fn plain(item: &Item<'_>, what: &str) -> Option<Arc<str>> {
    let text = item.text()?;
    item.checked(check(text, what))?;
    Some(text.into())
}

/// What is defined under one kind of name.
#[derive(Debug)]
pub(crate) struct Names<T> {
    kind: &'static str,
    map: BTreeMap<Arc<str>, (T, Origin)>,
    /// Names whose definition has a mistake, which is reported there and not again where they are used.
    broken: BTreeSet<String>,
}

impl<T> Names<T> {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, map: BTreeMap::new(), broken: BTreeSet::new() }
    }

    /// Define; `fail` gets the message when the name is taken.
    pub(crate) fn define(&mut self, name: &str, value: T, origin: Origin, fail: impl FnOnce(String)) {
        if let Some((_, first)) = self.map.get(name) {
            return fail(format!("{} `{name}` is already defined at {first}", self.kind));
        }
        self.map.insert(name.into(), (value, origin));
    }

    pub(crate) fn define_at(&mut self, entry: &Entry<'_>, value: T) {
        if let Err(why) = check(entry.key, "a name") {
            entry.fail(why, None);
        }
        self.define(entry.key, value, entry.origin(), |message| entry.fail(message, None));
    }

    pub(crate) fn mark_broken(&mut self, name: &str) {
        self.broken.insert(name.to_owned());
    }

    /// The one that `item` names. With `complete` false some file could not be read, and a missing name is no news.
    pub(crate) fn find(&self, item: &Item<'_>, complete: bool) -> Option<(Arc<str>, &T)> {
        let name = item.text()?;
        if let Some((name, (value, _))) = self.map.get_key_value(name) {
            return Some((Arc::clone(name), value));
        }
        if complete && !self.broken.contains(name) {
            let message = format!("there is no {} `{name}`", self.kind);
            item.fail_near(message, name, self.map.keys().map(|k| &**k));
        }
        None
    }

    pub(crate) fn into_map(self) -> BTreeMap<Arc<str>, T> {
        self.map.into_iter().map(|(name, (value, _))| (name, value)).collect()
    }
}
