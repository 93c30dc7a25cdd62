//! What a tool's registration offers it by label: databases, key-value stores and models.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use govrun_verdict::FsMode;

use crate::limits::{self, MODES};
use crate::names;
use crate::toml_item::{Item, Table};

/// Most tokens that one model call may be bound to.
const MAX_TOKENS: u64 = 10_000_000;
/// Room of a key-value store that names none.
const STORE_BYTES: u64 = 16 << 20;

/// Where a secret is: never in the policy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In this environment variable of the host.
    Env(Arc<str>),
    /// In this file, absolute or relative to the policy folder; the line end at its end does not count.
    File(Arc<str>),
}

/// A PostgreSQL server, and as whom the host connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresServer {
    /// Lower-case host name or address.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// Name of the database.
    pub database: Arc<str>,
    /// The dedicated role.
    pub user: Arc<str>,
}

/// What a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseSource {
    /// Host path of a SQLite file, as written: absolute, or relative to the policy folder.
    Sqlite(Arc<str>),
    /// A database on a server.
    Postgres {
        /// The server.
        server: PostgresServer,
        /// The role's password; none for a server that asks for none.
        password: Option<SecretRef>,
        /// What sandboxed statements read from instead.
        replica: Option<PostgresServer>,
        /// Functions that statements may call beside those without effect.
        functions: Vec<String>,
        /// Tables that sandboxed statements may use on the server itself, rolled back.
        rollback: Vec<String>,
    },
}

/// A database that a tool is offered under a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseOffer {
    /// The label guests use.
    pub label: Arc<str>,
    /// What it is.
    pub source: DatabaseSource,
    /// Whether statements may write.
    pub mode: FsMode,
}

/// A key-value store that a tool is offered under a label. Tools that are offered the same label share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOffer {
    /// The label guests use.
    pub label: Arc<str>,
    /// Whether keys may be set and deleted.
    pub mode: FsMode,
    /// Most bytes of all keys and values.
    pub max_bytes: NonZeroU64,
}

/// A model that a tool is offered under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOffer {
    /// The name guests and rules use.
    pub name: Arc<str>,
    /// Base URL of an OpenAI-compatible endpoint, such as `https://api.example.com/v1`.
    pub url: Arc<str>,
    /// The name the endpoint knows it by.
    pub model: Arc<str>,
    /// The key that the host sends; none for an endpoint that asks for none.
    pub key: Option<SecretRef>,
    /// Most tokens of all its calls within one tool call.
    pub max_tokens: NonZeroU64,
}

impl DatabaseOffer {
    /// The offer with relative host paths taken from `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        match &mut self.source {
            DatabaseSource::Sqlite(path) => *path = under(base, path),
            DatabaseSource::Postgres { password, .. } => resolve_secret(password, base),
        }
    }
}

impl ModelOffer {
    /// The offer with relative host paths taken from `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        resolve_secret(&mut self.key, base);
    }
}

fn under(base: &Path, path: &str) -> Arc<str> {
    base.join(path).to_string_lossy().into()
}

fn resolve_secret(secret: &mut Option<SecretRef>, base: &Path) {
    if let Some(SecretRef::File(path)) = secret {
        *path = under(base, path);
    }
}

/// A list of `{ label, sqlite, mode }` and `{ label, postgres, password, mode, replica, functions, rollback }`.
pub(crate) fn databases(item: Item<'_>) -> Vec<DatabaseOffer> {
    labelled(item, database, |offer| &offer.label)
}

/// A list of `{ label, mode, max }`.
pub(crate) fn stores(item: Item<'_>) -> Vec<StoreOffer> {
    labelled(item, store, |offer| &offer.label)
}

/// A list of `{ name, url, model, key, max_tokens }`.
pub(crate) fn models(item: Item<'_>) -> Vec<ModelOffer> {
    labelled(item, model, |offer| &offer.name)
}

fn labelled<T>(
    item: Item<'_>,
    read: impl Fn(&Item<'_>) -> Option<T>,
    label: impl Fn(&T) -> &Arc<str>,
) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    for item in item.elements().unwrap_or_default() {
        let Some(offer) = read(&item) else { continue };
        if all.iter().any(|o| label(o) == label(&offer)) {
            item.fail(format!("the label `{}` is offered twice", label(&offer)));
        }
        all.push(offer);
    }
    all
}

fn database(item: &Item<'_>) -> Option<DatabaseOffer> {
    let table = item.table("a database")?;
    let postgres = table.get("postgres");
    if postgres.is_some() {
        table.only(&["label", "postgres", "password", "mode", "replica", "functions", "rollback"]);
    } else {
        table.only(&["label", "sqlite", "mode"]);
    }
    let label = table.need("label").and_then(|item| names::plain(&item, "a database label"));
    let mode = table.need("mode").and_then(|item| item.one_of(&MODES));
    let source = match postgres {
        None => table.need("sqlite").and_then(limits::host_path).map(DatabaseSource::Sqlite),
        Some(item) => {
            let password = table.get("password").and_then(|item| secret(&item));
            let replica = table.get("replica").and_then(|item| server(&item));
            let (functions, rollback) = (identifiers(&table, "functions"), identifiers(&table, "rollback"));
            server(&item).map(|server| DatabaseSource::Postgres {
                server,
                password,
                replica,
                functions,
                rollback,
            })
        }
    };
    Some(DatabaseOffer { label: label?, source: source?, mode: mode? })
}

fn server(item: &Item<'_>) -> Option<PostgresServer> {
    let table = item.table("a server")?;
    table.only(&["host", "port", "database", "user"]);
    let host = table.need("host").and_then(|item| host_name(&item));
    let port = table.get("port").map_or(Some(5432), |item| item.integer(1..=65_535));
    let database = table.need("database").and_then(|item| plain_text(&item));
    let user = table.need("user").and_then(|item| plain_text(&item));
    Some(PostgresServer { host: host?, port: u16::try_from(port?).ok()?, database: database?, user: user? })
}

/// A name or address in the one spelling that rules are compared with.
fn host_name(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.text()?;
    let name = !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
        && !text.split('.').all(|label| label.bytes().all(|b| b.is_ascii_digit()));
    let address = text.parse::<IpAddr>().is_ok_and(|ip| ip.to_string() == text);
    if !name && !address {
        item.fail_with(
            "a host is a lower-case name without trailing dot, or an address",
            "such as `db.internal` or `10.0.0.7`",
        );
    }
    Some(text.into())
}

fn plain_text(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.text()?;
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        item.fail("between 1 and 128 bytes without control characters");
    }
    Some(text.into())
}

fn identifiers(table: &Table<'_>, key: &'static str) -> Vec<String> {
    let given = table.get(key).and_then(|item| item.texts()).unwrap_or_default();
    for (item, text) in &given {
        let sound = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'));
        if !sound {
            item.fail("a name of the database in lower case, with its schema unless that is `public`");
        }
    }
    given.into_iter().map(|(_, text)| text.to_owned()).collect()
}

fn secret(item: &Item<'_>) -> Option<SecretRef> {
    let text = item.text()?;
    if let Some(name) = text.strip_prefix("env:") {
        let sound = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if sound {
            return Some(SecretRef::Env(name.into()));
        }
    } else if let Some(path) = text.strip_prefix("file:")
        && !path.is_empty()
        && !path.chars().any(char::is_control)
    {
        return Some(SecretRef::File(path.into()));
    }
    item.fail_with(
        "a secret is named, not written down: `env:NAME` or `file:PATH`",
        "the host reads it from its environment or from that file",
    );
    None
}

fn store(item: &Item<'_>) -> Option<StoreOffer> {
    let table = item.table("a store")?;
    table.only(&["label", "mode", "max"]);
    let label = table.need("label").and_then(|item| names::plain(&item, "a store's label"));
    let mode = table.need("mode").and_then(|item| item.one_of(&MODES));
    let max = match table.get("max") {
        Some(item) => limits::size(&item),
        None => NonZeroU64::new(STORE_BYTES),
    };
    Some(StoreOffer { label: label?, mode: mode?, max_bytes: max? })
}

fn model(item: &Item<'_>) -> Option<ModelOffer> {
    let table = item.table("a model")?;
    table.only(&["name", "url", "model", "key", "max_tokens"]);
    let name = table.need("name").and_then(|item| names::plain(&item, "a model's name"));
    let url = table.need("url").and_then(|item| base_url(&item));
    let known_as = match table.get("model") {
        Some(item) => plain_text(&item),
        None => name.clone(),
    };
    let key = table.get("key").and_then(|item| secret(&item));
    let max_tokens =
        table.need("max_tokens").and_then(|item| item.integer(1..=MAX_TOKENS)).and_then(NonZeroU64::new);
    Some(ModelOffer { name: name?, url: url?, model: known_as?, key, max_tokens: max_tokens? })
}

fn base_url(item: &Item<'_>) -> Option<Arc<str>> {
    let text = item.text()?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sound = rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['@', '?', '#', '\\'])
    });
    if !sound || !text.bytes().all(|b| b.is_ascii_graphic()) || text.ends_with('/') {
        item.fail_with(
            "a base URL is `https://HOST/PATH` or `http://HOST/PATH`, without user, query and trailing `/`",
            "such as `https://api.example.com/v1`",
        );
    }
    Some(text.into())
}
