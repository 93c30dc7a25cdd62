//! What a policy defines by name: agents, tools, lists, notification targets, budgets and sandbox profiles.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_verdict::{Agent, Digest, Obligations, Preopen};

use crate::budget::{self, BudgetSpec};
use crate::error::Origin;
use crate::limits;
use crate::names::{self, Names};
use crate::offers::{self, DatabaseOffer, ModelOffer, StoreOffer};
use crate::secrets::{self, SecretEntry, SecretSource, SecretUse};
use crate::sources::{self, Sources};
use crate::toml_item::{Entry, Item, Table};
use crate::tool_labels::{self, AllLabels};

/// Most entries of one list.
pub const MAX_LIST_ENTRIES: usize = 200_000;

/// A registered tool component: what it is and what it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolEntry {
    /// Name of the component; its functions are `name.function`.
    pub name: Arc<str>,
    /// Digest of the component's bytes.
    pub digest: Digest,
    /// The component file as written: absolute, or relative to the policy folder.
    pub component: Option<PathBuf>,
    /// Directories it is offered; host paths as written.
    pub dirs: Vec<Preopen>,
    /// Environment variables it is offered.
    pub env: BTreeMap<String, String>,
    /// Databases it is offered; host paths as written.
    pub databases: Vec<DatabaseOffer>,
    /// Key-value stores it is offered.
    pub stores: Vec<StoreOffer>,
    /// Models it is offered.
    pub models: Vec<ModelOffer>,
    /// Secrets that its requests carry.
    pub secrets: Vec<SecretUse>,
    /// A file of certificates to believe beside the platform's, as written.
    pub ca: Option<PathBuf>,
    /// Where it is registered.
    pub origin: Origin,
}

impl ToolEntry {
    /// The entry with every relative host path taken from `base`, the (absolute) policy folder.
    #[must_use]
    pub fn resolve(&self, base: &Path) -> Self {
        let under = |path: &str| base.join(path).to_string_lossy().into();
        let mut entry = self.clone();
        entry.component = self.component.as_ref().map(|path| base.join(path));
        for dir in &mut entry.dirs {
            dir.host = under(&dir.host);
        }
        for database in &mut entry.databases {
            database.resolve(base);
        }
        for model in &mut entry.models {
            model.resolve(base);
        }
        entry.ca = self.ca.as_ref().map(|path| base.join(path));
        for secret in &mut entry.secrets {
            if let SecretSource::File(path) = &mut secret.secret.source {
                *path = base.join(&*path);
            }
        }
        entry
    }
}

/// Where a notification goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Webhook {
    /// The URL is in this environment variable of the host.
    Env(String),
    /// The URL itself: `https`, or `http` to a loopback address with an explicit port.
    Url(String),
}

/// A `[notify.NAME]` target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyTarget {
    /// Its name.
    pub name: Arc<str>,
    /// Where it goes.
    pub webhook: Webhook,
}

/// Everything that is defined by name.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) agents: Names<Arc<Agent>>,
    pub(crate) tools: Names<ToolEntry>,
    pub(crate) digests: BTreeMap<Digest, Arc<str>>,
    pub(crate) lists: Names<Arc<[Box<str>]>>,
    pub(crate) notify: Names<NotifyTarget>,
    pub(crate) secrets: Names<SecretEntry>,
    pub(crate) budgets: Names<Arc<BudgetSpec>>,
    pub(crate) sandboxes: Names<Obligations>,
    pub(crate) tool_labels: AllLabels,
    /// False when some file is not TOML, so that names may be missing here that are defined there.
    pub(crate) complete: bool,
}

impl Registry {
    pub(crate) fn new(complete: bool) -> Self {
        Self {
            agents: Names::new("agent"),
            tools: Names::new("tool"),
            digests: BTreeMap::new(),
            lists: Names::new("list"),
            notify: Names::new("notify target"),
            secrets: Names::new("secret"),
            budgets: Names::new("budget"),
            sandboxes: Names::new("sandbox profile"),
            tool_labels: AllLabels::new(),
            complete,
        }
    }

    /// Take in the definitions of one file; returns the list files it names.
    pub(crate) fn read(&mut self, root: &Table<'_>, sources: &Sources) -> Vec<String> {
        for table in root.array("agent", "an agent") {
            self.agent(&table);
        }
        for table in root.array("tool", "a tool") {
            self.tool(&table);
        }
        for table in root.array("tool_labels", "labels of a tool") {
            tool_labels::read(&table, &mut self.tool_labels);
        }
        for (entry, table) in root.named("notify", "a notify target") {
            let webhook = webhook(&table).unwrap_or(Webhook::Url(String::new()));
            self.notify.define_at(&entry, NotifyTarget { name: entry.key.into(), webhook });
        }
        for (entry, table) in root.named("budget", "a budget") {
            match budget::read(entry.key, &table) {
                Some(spec) => self.budgets.define_at(&entry, Arc::new(spec)),
                None => self.budgets.mark_broken(entry.key),
            }
        }
        for (entry, table) in root.named("sandbox", "a sandbox profile") {
            self.sandboxes.define_at(&entry, limits::sandbox(entry.key, &table));
        }
        let lists = root.named("list", "a list");
        lists.into_iter().filter_map(|(entry, table)| self.list(&entry, &table, sources)).collect()
    }

    fn agent(&mut self, table: &Table<'_>) {
        table.only(&["name", "tenant"]);
        let tenant = table.get("tenant").and_then(|item| names::plain(&item, "a tenant's name"));
        let Some(item) = table.need("name") else { return };
        let Some(name) = names::plain(&item, "an agent's name (globs belong into rules)") else { return };
        let agent = Arc::new(Agent { name: Arc::clone(&name), tenant });
        self.agents.define(&name, agent, table.origin(), |message| item.fail(message));
    }

    fn tool(&mut self, table: &Table<'_>) {
        table.only(&[
            "name",
            "digest",
            "component",
            "dirs",
            "env",
            "databases",
            "stores",
            "models",
            "secrets",
            "ca",
        ]);
        let digest = table.need("digest").and_then(|item| digest(&item));
        let component = table.get("component").and_then(|item| item.text()).map(PathBuf::from);
        let dirs = table.get("dirs").map(limits::preopens).unwrap_or_default();
        let env = table.get("env").map(|item| variables(&item)).unwrap_or_default();
        let databases = table.get("databases").map(offers::databases).unwrap_or_default();
        let stores = table.get("stores").map(offers::stores).unwrap_or_default();
        let models = table.get("models").map(offers::models).unwrap_or_default();
        let secrets = table.get("secrets").map(|item| secrets::uses(&item, &self.secrets, self.complete));
        let ca = table.get("ca").and_then(|item| item.text()).map(PathBuf::from);
        let Some(item) = table.need("name") else { return };
        let (Some(name), Some(digest)) = (tool_name(&item), digest) else { return };
        let origin = table.origin();
        if let Some(other) = self.digests.insert(digest, Arc::clone(&name)) {
            table.fail(format!("the component with this digest is already registered, as `{other}`"));
        }
        let entry = ToolEntry {
            name: Arc::clone(&name),
            digest,
            component,
            dirs,
            env,
            databases,
            stores,
            models,
            secrets: secrets.unwrap_or_default(),
            ca,
            origin,
        };
        self.tools.define(&name, entry, table.origin(), |message| item.fail(message));
    }

    /// Read a list; returns the file it names.
    fn list(&mut self, entry: &Entry<'_>, table: &Table<'_>, sources: &Sources) -> Option<String> {
        table.only(&["file", "values"]);
        let (file, values) = (table.get("file"), table.get("values"));
        let mut path = None;
        let lines = match (&file, &values) {
            (Some(item), None) => {
                path = list_path(item);
                path.as_ref().map(|path| list_file(item, path, sources)).unwrap_or_default()
            }
            (None, Some(item)) => {
                item.texts().unwrap_or_default().iter().map(|(_, t)| Box::from(*t)).collect()
            }
            (Some(_), Some(_)) | (None, None) => {
                entry.fail("a list has either `file` or `values`", None);
                Vec::new()
            }
        };
        if lines.len() > MAX_LIST_ENTRIES {
            entry.fail(format!("a list has at most {MAX_LIST_ENTRIES} entries"), None);
        }
        let mut lines = lines;
        lines.sort_unstable();
        lines.dedup();
        self.lists.define_at(entry, lines.into());
        path
    }
}

fn digest(item: &Item<'_>) -> Option<Digest> {
    item.text().and_then(|text| item.checked(Digest::parse(text).map_err(|e| e.to_string())))
}

/// A component's name has no dot, so that `component.function` reads in one way only.
fn tool_name(item: &Item<'_>) -> Option<Arc<str>> {
    let name = names::plain(item, "a tool's name (globs belong into rules)")?;
    if name.contains('.') {
        item.fail("a tool is named as its component, without a dot: its functions are `name.function`");
    }
    Some(name)
}

fn variables(item: &Item<'_>) -> BTreeMap<String, String> {
    let Some(table) = item.table("`env`") else { return BTreeMap::new() };
    let mut variables = BTreeMap::new();
    for entry in table.entries() {
        let Some(value) = entry.item.text() else { continue };
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) || value.contains('\0') {
            entry.fail("a variable has a name without `=`, and no NUL", None);
        }
        variables.insert(entry.key.to_owned(), value.to_owned());
    }
    variables
}

fn list_path(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !sources::is_plain_path(text) {
        item.fail("a list file is beside or beneath the policy file: a relative path without `..`");
        return None;
    }
    Some(sources::beside(&item.file.text.file, text))
}

/// The entries of a list file: trimmed lines, without empty ones and `#` comments.
fn list_file(item: &Item<'_>, path: &str, sources: &Sources) -> Vec<Box<str>> {
    let Some(source) = sources.files.iter().find(|f| f.path == path) else {
        item.fail(format!("there is no file `{path}` in the policy folder"));
        return Vec::new();
    };
    let lines = source.text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let lines: Vec<Box<str>> = lines.map(Box::from).collect();
    if lines.is_empty() {
        item.fail(format!("`{path}` lists nothing: an empty list is refused"));
    }
    lines
}

fn webhook(table: &Table<'_>) -> Option<Webhook> {
    table.only(&["webhook"]);
    let item = table.need("webhook")?;
    let text = item.text()?;
    if let Some(name) = text.strip_prefix("env:") {
        let sound = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !sound {
            item.fail("`env:` is followed by the name of an environment variable");
        }
        return Some(Webhook::Env(name.to_owned()));
    }
    if !is_webhook_url(text) {
        item.fail_with(
            "a webhook is `env:NAME`, an `https://` URL, or `http://` to a loopback address with a port",
            "such as `http://127.0.0.1:9000/hook`",
        );
    }
    Some(Webhook::Url(text.to_owned()))
}

fn is_webhook_url(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>'));
    let authority = |rest: &str| rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned();
    if let Some(rest) = text.strip_prefix("https://") {
        let authority = authority(rest);
        return plain && !authority.is_empty() && !authority.contains('@');
    }
    let Some(rest) = text.strip_prefix("http://") else { return false };
    let loopback = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    plain && authority(rest).parse::<SocketAddr>().is_ok_and(|a| loopback(a) && a.port() != 0)
}

/// A key that has one value only in this version of the grammar.
pub(crate) fn only_value(table: &Table<'_>, key: &'static str, value: &'static str) {
    if let Some(item) = table.get(key)
        && item.text().is_some_and(|given| given != value)
    {
        item.fail(format!("in this version `{key}` can only be `{value}`"));
    }
}
