//! `match`: which calls a rule is about. Everything in it is known of every call, so it is true or false, never unknown.

use std::sync::Arc;

use govrun_verdict::{Action, Call, Digest, Operation, Scheme, Stream, Transport};
use smallvec::SmallVec;

use crate::cidr::Cidr;
use crate::field::Field;
use crate::glob::{Glob, GlobKind};
use crate::names;
use crate::toml_item::{Entry, Item, Table};

/// Position of an action in [`Action::ALL`].
pub(crate) const fn slot(action: Action) -> usize {
    match action {
        Action::ToolCall => 0,
        Action::FsRead => 1,
        Action::FsWrite => 2,
        Action::FsDelete => 3,
        Action::FsList => 4,
        Action::FsStat => 5,
        Action::HttpRequest => 6,
        Action::NetConnect => 7,
        Action::NetDns => 8,
        Action::NetSocket => 9,
        Action::DbQuery => 10,
        Action::DbExecute => 11,
        Action::KvGet => 12,
        Action::KvList => 13,
        Action::KvSet => 14,
        Action::KvDelete => 15,
        Action::ModelCall => 16,
        Action::SecretRead => 17,
        Action::EnvRead => 18,
        Action::ArgsRead => 19,
        Action::Stdio => 20,
        Action::Clock => 21,
        Action::Random => 22,
    }
}

/// Nearly always one; kept beside the rule so that a decision touches few cache lines.
pub(crate) type Globs = SmallVec<[Glob; 1]>;

/// Which calls a rule is about.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// In the order of [`Action::ALL`], without repetition.
    pub(crate) actions: Vec<Action>,
    /// All of them must hold.
    pub(crate) tests: SmallVec<[ScopeTest; 3]>,
}

/// One key of `match`: one of its values must fit.
#[derive(Debug, Clone)]
pub(crate) enum ScopeTest {
    Agent(Globs),
    Tenant(Vec<Arc<str>>),
    Tool(Globs),
    Caller(Globs),
    Digest(Vec<Digest>),
    Path(Globs),
    Host(Globs),
    Port(Vec<u16>),
    Scheme(Vec<Scheme>),
    Method(Vec<Box<str>>),
    Cidr(Vec<Cidr>),
    Db(Vec<Arc<str>>),
    Name(Globs),
    Stream(Vec<Stream>),
    Transport(Vec<Transport>),
    Store(Vec<Arc<str>>),
    Key(Globs),
    Model(Globs),
}

impl Scope {
    /// Whether the call, of one of the scope's actions, is in it.
    pub(crate) fn holds(&self, call: &Call) -> bool {
        self.tests.iter().all(|test| test.holds(call))
    }

    /// Whether the rule names the addresses it is about: only then may it permit special ones.
    pub(crate) fn names_cidr(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, ScopeTest::Cidr(_)))
    }
}

impl ScopeTest {
    pub(crate) fn holds(&self, call: &Call) -> bool {
        let any = |globs: &[Glob], text: &str| globs.iter().any(|g| g.matches(text));
        match self {
            Self::Agent(globs) => any(globs, &call.agent.name),
            Self::Tool(globs) => any(globs, &call.tool.name),
            Self::Caller(globs) => call.caller.as_ref().is_some_and(|c| any(globs, &c.name)),
            Self::Tenant(names) => call.agent.tenant.as_ref().is_some_and(|t| names.contains(t)),
            Self::Digest(digests) => digests.contains(&call.tool.component),
            Self::Path(_)
            | Self::Host(_)
            | Self::Port(_)
            | Self::Scheme(_)
            | Self::Method(_)
            | Self::Cidr(_)
            | Self::Db(_)
            | Self::Name(_)
            | Self::Stream(_)
            | Self::Transport(_)
            | Self::Store(_)
            | Self::Key(_)
            | Self::Model(_) => self.holds_resource(&call.operation),
        }
    }

    fn holds_resource(&self, operation: &Operation) -> bool {
        let any = |globs: &[Glob], text: &str| globs.iter().any(|g| g.matches(text));
        match (self, operation) {
            (Self::Path(globs), Operation::Fs { path, .. }) => any(globs, path),
            (Self::Path(globs), Operation::HttpRequest(target)) => any(globs, &target.path),
            (Self::Host(globs), Operation::HttpRequest(target)) => any(globs, &target.host),
            (Self::Host(globs), Operation::NetConnect { host, .. } | Operation::NetDns { host }) => {
                any(globs, host)
            }
            (Self::Host(globs), Operation::NetSocket { host, .. }) => {
                host.as_ref().is_some_and(|host| any(globs, host))
            }
            (Self::Port(ports), Operation::HttpRequest(target)) => ports.contains(&target.port),
            (Self::Port(ports), Operation::NetConnect { port, .. } | Operation::NetSocket { port, .. }) => {
                ports.contains(port)
            }
            (Self::Scheme(schemes), Operation::HttpRequest(target)) => schemes.contains(&target.scheme),
            (Self::Method(methods), Operation::HttpRequest(target)) => {
                methods.iter().any(|m| m.eq_ignore_ascii_case(&target.method))
            }
            (Self::Cidr(ranges), Operation::NetConnect { ip, .. } | Operation::NetSocket { ip, .. }) => {
                ranges.iter().any(|r| r.contains(*ip))
            }
            (Self::Transport(transports), Operation::NetSocket { transport, .. }) => {
                transports.contains(transport)
            }
            (Self::Store(labels), Operation::Kv { store, .. }) => labels.iter().any(|l| **l == **store),
            (Self::Key(globs), Operation::Kv { key, .. }) => any(globs, key),
            (Self::Model(globs), Operation::Model { model, .. }) => any(globs, model),
            (Self::Db(labels), Operation::Db { db, .. }) => labels.iter().any(|l| **l == **db),
            (Self::Name(globs), Operation::EnvRead { name } | Operation::Secret { name }) => any(globs, name),
            (Self::Stream(streams), Operation::Stdio(stream)) => streams.contains(stream),
            _ => false,
        }
    }
}

/// Keys of `match`; [`is_of`] says for which actions each is valid.
const KEYS: [&str; 19] = [
    "action",
    "agent",
    "tenant",
    "tool",
    "caller",
    "digest",
    "path",
    "host",
    "port",
    "scheme",
    "method",
    "cidr",
    "db",
    "name",
    "stream",
    "transport",
    "store",
    "key",
    "model",
];

fn is_of(key: &str, action: Action) -> bool {
    match key {
        "action" | "digest" => true,
        "stream" => matches!(action, Action::Stdio),
        "cidr" => Field::Ip.is_of(action),
        other => Field::parse(other).is_some_and(|field| field.is_of(action)),
    }
}

/// Read `match = {…}`.
pub(crate) fn read(item: &Item<'_>) -> Option<Scope> {
    read_table(&item.table("`match`")?, &[])
}

/// Read the keys of `match` out of a table that may also have these others.
pub(crate) fn read_table(table: &Table<'_>, others: &[&str]) -> Option<Scope> {
    let known: Vec<&str> = KEYS.iter().chain(others).copied().collect();
    table.only(&known);
    let actions = table.need("action").map(|item| actions(&item)).unwrap_or_default();
    let mut tests = SmallVec::new();
    for entry in table.entries().iter().filter(|e| e.key != "action" && KEYS.contains(&e.key)) {
        valid_for_all(entry, &actions, |action| is_of(entry.key, action));
        tests.extend(test(entry));
    }
    Some(Scope { actions, tests })
}

/// Report a key that some of the selected actions do not have: it would never match there.
pub(crate) fn valid_for_all(entry: &Entry<'_>, actions: &[Action], is_of: impl Fn(Action) -> bool) {
    if let Some(other) = actions.iter().find(|a| !is_of(**a)) {
        let valid: Vec<&str> = Action::ALL.into_iter().filter(|a| is_of(*a)).map(Action::name).collect();
        let help = format!("`{}` goes with {}", entry.key, valid.join(", "));
        entry.fail(
            format!("`{}` is not an attribute of `{other}`, which this rule selects", entry.key),
            Some(help),
        );
    }
}

/// The actions that the globs select together.
fn actions(item: &Item<'_>) -> Vec<Action> {
    let mut selected = [false; Action::ALL.len()];
    for (item, text) in item.texts().unwrap_or_default() {
        let Some(glob) = item.checked(Glob::new(text, GlobKind::Name)) else { continue };
        let mut none = true;
        for (action, chosen) in Action::ALL.into_iter().zip(&mut selected) {
            if glob.matches(action.name()) {
                (*chosen, none) = (true, false);
            }
        }
        if none {
            let names = Action::ALL.into_iter().map(Action::name);
            item.fail_near(
                format!("`{text}` selects no action"),
                text,
                names.chain(["fs.*", "net.*", "db.*"]),
            );
        }
    }
    Action::ALL.into_iter().zip(selected).filter(|(_, chosen)| *chosen).map(|(action, _)| action).collect()
}

fn test(entry: &Entry<'_>) -> Option<ScopeTest> {
    let item = &entry.item;
    Some(match entry.key {
        "agent" => ScopeTest::Agent(globs(item, GlobKind::Name)?),
        "tool" => ScopeTest::Tool(globs(item, GlobKind::Name)?),
        "caller" => ScopeTest::Caller(globs(item, GlobKind::Name)?),
        "name" => ScopeTest::Name(globs(item, GlobKind::Name)?),
        "path" => ScopeTest::Path(globs(item, GlobKind::Path)?),
        "host" => ScopeTest::Host(globs(item, GlobKind::Host)?),
        "tenant" => ScopeTest::Tenant(each(item, |i, _| names::plain(i, "a tenant's name"))?),
        "db" => ScopeTest::Db(each(item, |i, _| names::plain(i, "a database label"))?),
        "digest" => {
            ScopeTest::Digest(each(item, |i, t| i.checked(Digest::parse(t).map_err(|e| e.to_string())))?)
        }
        "cidr" => ScopeTest::Cidr(each(item, |i, t| i.checked(Cidr::parse(t)))?),
        "scheme" => {
            let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
            ScopeTest::Scheme(each(item, |i, _| i.one_of(&schemes))?)
        }
        "stream" => {
            let streams = [("stdout", Stream::Stdout), ("stderr", Stream::Stderr)];
            ScopeTest::Stream(each(item, |i, _| i.one_of(&streams))?)
        }
        "transport" => {
            let transports = [("tcp", Transport::Tcp), ("udp", Transport::Udp)];
            ScopeTest::Transport(each(item, |i, _| i.one_of(&transports))?)
        }
        "store" => ScopeTest::Store(each(item, |i, _| names::plain(i, "a store's label"))?),
        "key" => ScopeTest::Key(globs(item, GlobKind::Name)?),
        "model" => ScopeTest::Model(globs(item, GlobKind::Name)?),
        "method" => ScopeTest::Method(each(item, method)?),
        "port" => ScopeTest::Port(ports(item)?),
        _ => return None,
    })
}

/// Every text of a string or list of strings, checked; at least one.
fn each<'t, T>(item: &Item<'t>, check: impl Fn(&Item<'t>, &'t str) -> Option<T>) -> Option<Vec<T>> {
    let checked: Vec<T> = item.texts()?.iter().filter_map(|(item, text)| check(item, text)).collect();
    (!checked.is_empty()).then_some(checked)
}

fn globs(item: &Item<'_>, kind: GlobKind) -> Option<Globs> {
    each(item, |item, text| item.checked(Glob::new(text, kind))).map(|globs| globs.into_iter().collect())
}

fn method(item: &Item<'_>, text: &str) -> Option<Box<str>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphabetic()) {
        item.fail("a method is a word such as `GET`; globs are not known here");
        return None;
    }
    Some(text.to_ascii_uppercase().into())
}

fn ports(item: &Item<'_>) -> Option<Vec<u16>> {
    let numbers = item.one_or_more()?.into_iter().filter_map(|item| item.integer(1..=65_535));
    let ports: Vec<u16> = numbers.filter_map(|n| u16::try_from(n).ok()).collect();
    (!ports.is_empty()).then_some(ports)
}
