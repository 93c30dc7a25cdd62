//! Secrets by reference: where the host reads them, and which requests of a tool carry them. Their values are never part
//! of a policy.

use std::path::PathBuf;
use std::sync::Arc;

use crate::names::Names;
use crate::toml_item::{Item, Table};

/// Where the host reads a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// From this environment variable of its own.
    Env(String),
    /// From this file, white space at its end removed; as written: absolute, or relative to the policy folder.
    File(PathBuf),
}

/// A `[secret.NAME]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEntry {
    /// Its name, which rules about `secret.read` match.
    pub name: Arc<str>,
    /// Where it is read.
    pub source: SecretSource,
}

/// A secret that a tool's requests to one origin carry. Offered, not permitted: `secret.read` is decided for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// The secret.
    pub secret: SecretEntry,
    /// Origin as written, such as `https://api.example.com`.
    pub to: String,
    /// Header it goes into.
    pub header: String,
    /// Value of the header, with `{}` for the secret.
    pub value: String,
}

/// `[secret.NAME]`.
fn source(table: &Table<'_>) -> Option<SecretSource> {
    table.only(&["env", "file"]);
    match (table.get("env"), table.get("file")) {
        (Some(item), None) => {
            let name = item.text()?;
            let sound = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !sound {
                item.fail("`env` is the name of an environment variable");
            }
            Some(SecretSource::Env(name.to_owned()))
        }
        (None, Some(item)) => {
            let path = item.text()?;
            if path.is_empty() || path.chars().any(char::is_control) {
                item.fail("a host path is not empty and has no control characters");
            }
            Some(SecretSource::File(path.into()))
        }
        (Some(_), Some(_)) | (None, None) => {
            table.fail("a secret has either `env` or `file`: where the host reads it");
            None
        }
    }
}

/// A tool's list of `{ secret, to, header, value }`.
pub(crate) fn uses(item: &Item<'_>, secrets: &Names<SecretEntry>, complete: bool) -> Vec<SecretUse> {
    let mut all: Vec<SecretUse> = Vec::new();
    for item in item.elements().unwrap_or_default() {
        let Some(one) = secret_use(&item, secrets, complete) else { continue };
        let same = |other: &SecretUse| {
            other.to.eq_ignore_ascii_case(&one.to) && other.header.eq_ignore_ascii_case(&one.header)
        };
        if all.iter().any(same) {
            item.fail(format!("requests to `{}` have `{}` already", one.to, one.header));
        }
        all.push(one);
    }
    all
}

fn secret_use(item: &Item<'_>, secrets: &Names<SecretEntry>, complete: bool) -> Option<SecretUse> {
    let table = item.table("a secret of a tool")?;
    table.only(&["secret", "to", "header", "value"]);
    let secret = table.need("secret").and_then(|item| secrets.find(&item, complete).map(|(_, s)| s.clone()));
    let to = table.need("to").and_then(|item| {
        let text = item.text()?;
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*'])) {
            item.fail_with("a secret goes to one origin, without path", "such as `https://api.example.com`");
        }
        Some(text.to_owned())
    });
    let header = table.need("header").and_then(|item| {
        let text = item.text()?;
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            item.fail_with("this is not the name of a header", "such as `authorization`");
        }
        Some(text.to_owned())
    });
    let value = table.need("value").and_then(|item| {
        let text = item.text()?;
        if text.matches("{}").count() != 1 || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            item.fail_with("the header's value names the secret's place once", "such as `Bearer {}`");
        }
        Some(text.to_owned())
    });
    Some(SecretUse { secret: secret?, to: to?, header: header?, value: value? })
}

/// The name of a secret, which rules match and records show.
pub(crate) fn define(secrets: &mut Names<SecretEntry>, root: &Table<'_>) {
    for (entry, table) in root.named("secret", "a secret") {
        match source(&table) {
            Some(source) => secrets.define_at(&entry, SecretEntry { name: entry.key.into(), source }),
            None => secrets.mark_broken(entry.key),
        }
    }
}
