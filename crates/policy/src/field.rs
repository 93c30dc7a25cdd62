//! The attributes of a call that rules can ask about, and how each is read from a call.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use govrun_verdict::{Action, Call, Operation, SqlFacts, Value};
use rust_decimal::Decimal;

/// Deepest dotted argument name.
pub(crate) const MAX_ARG_DEPTH: usize = govrun_verdict::MAX_VALUE_DEPTH;

/// An attribute, as named in `when`, `unless`, messages and `show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Agent,
    Tenant,
    Tool,
    Caller,
    Path,
    Host,
    Port,
    Scheme,
    Method,
    Db,
    Statement,
    Name,
    Ip,
    Transport,
    Store,
    Key,
    Model,
    Tokens,
    Stmt,
    Tables,
    Columns,
    Functions,
    /// An argument of a tool call, by its dotted name without `args.`.
    Arg(Box<str>),
}

/// What an attribute turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known<'a> {
    Text(Cow<'a, str>),
    Number(Decimal),
    Bool(bool),
    Ip(IpAddr),
    List(List<'a>),
    Record,
    /// It is there, and nothing can be said about it.
    Opaque,
    /// It is certain that there is none.
    Absent,
    /// Not even its presence can be known.
    Unknowable,
}

/// The elements of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum List<'a> {
    Values(&'a [Value]),
    Names(&'a [String]),
}

impl<'a> List<'a> {
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Names(names) => names.len(),
        }
    }

    pub(crate) fn elements(self) -> impl Iterator<Item = Known<'a>> {
        let (values, names): (&[Value], &[String]) = match self {
            Self::Values(values) => (values, &[]),
            Self::Names(names) => (&[], names),
        };
        values.iter().map(known).chain(names.iter().map(|name| Known::Text(Cow::Borrowed(name))))
    }
}

/// What can be asked about an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Address,
    List,
    /// An argument: whatever the caller makes of it.
    Any,
}

/// Names of all attributes but arguments.
pub(crate) const FIELD_NAMES: [&str; 22] = [
    "agent",
    "tenant",
    "tool",
    "caller",
    "path",
    "host",
    "port",
    "scheme",
    "method",
    "db",
    "statement",
    "name",
    "ip",
    "transport",
    "store",
    "key",
    "model",
    "tokens",
    "stmt",
    "tables",
    "columns",
    "functions",
];

impl Field {
    /// The attribute with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(dotted) = name.strip_prefix("args.") {
            let sound =
                dotted.split('.').count() <= MAX_ARG_DEPTH && dotted.split('.').all(|part| !part.is_empty());
            return sound.then(|| Self::Arg(dotted.into()));
        }
        Some(match name {
            "agent" => Self::Agent,
            "tenant" => Self::Tenant,
            "tool" => Self::Tool,
            "caller" => Self::Caller,
            "path" => Self::Path,
            "host" => Self::Host,
            "port" => Self::Port,
            "scheme" => Self::Scheme,
            "method" => Self::Method,
            "db" => Self::Db,
            "statement" => Self::Statement,
            "name" => Self::Name,
            "ip" => Self::Ip,
            "transport" => Self::Transport,
            "store" => Self::Store,
            "key" => Self::Key,
            "model" => Self::Model,
            "tokens" => Self::Tokens,
            "stmt" => Self::Stmt,
            "tables" => Self::Tables,
            "columns" => Self::Columns,
            "functions" => Self::Functions,
            _ => return None,
        })
    }

    /// Whether calls of this action can have the attribute.
    pub(crate) const fn is_of(&self, action: Action) -> bool {
        match self {
            Self::Agent | Self::Tenant | Self::Tool | Self::Caller => true,
            Self::Path => matches!(
                action,
                Action::FsRead
                    | Action::FsWrite
                    | Action::FsDelete
                    | Action::FsList
                    | Action::FsStat
                    | Action::HttpRequest
            ),
            Self::Host => matches!(
                action,
                Action::HttpRequest | Action::NetConnect | Action::NetDns | Action::NetSocket
            ),
            Self::Port => {
                matches!(action, Action::HttpRequest | Action::NetConnect | Action::NetSocket)
            }
            Self::Transport => matches!(action, Action::NetSocket),
            Self::Store | Self::Key => {
                matches!(action, Action::KvGet | Action::KvList | Action::KvSet | Action::KvDelete)
            }
            Self::Model | Self::Tokens => matches!(action, Action::ModelCall),
            Self::Scheme | Self::Method => matches!(action, Action::HttpRequest),
            Self::Db | Self::Statement | Self::Stmt | Self::Tables | Self::Columns | Self::Functions => {
                matches!(action, Action::DbQuery | Action::DbExecute)
            }
            Self::Name => matches!(action, Action::EnvRead | Action::SecretRead),
            Self::Ip => matches!(action, Action::NetConnect | Action::NetSocket),
            Self::Arg(_) => matches!(action, Action::ToolCall),
        }
    }

    /// What its values are.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Agent
            | Self::Tenant
            | Self::Tool
            | Self::Caller
            | Self::Path
            | Self::Host
            | Self::Scheme
            | Self::Method
            | Self::Db
            | Self::Statement
            | Self::Name
            | Self::Transport
            | Self::Store
            | Self::Key
            | Self::Model
            | Self::Stmt => Kind::Text,
            Self::Port | Self::Tokens => Kind::Number,
            Self::Ip => Kind::Address,
            Self::Tables | Self::Columns | Self::Functions => Kind::List,
            Self::Arg(_) => Kind::Any,
        }
    }

    /// A text in the spelling in which this attribute is compared.
    pub(crate) fn fold<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self {
            Self::Host | Self::Scheme | Self::Stmt | Self::Tables | Self::Columns | Self::Functions
                if text.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                Cow::Owned(text.to_ascii_lowercase())
            }
            Self::Method if text.bytes().any(|b| b.is_ascii_lowercase()) => {
                Cow::Owned(text.to_ascii_uppercase())
            }
            Self::Agent
            | Self::Tenant
            | Self::Tool
            | Self::Caller
            | Self::Path
            | Self::Host
            | Self::Port
            | Self::Scheme
            | Self::Method
            | Self::Db
            | Self::Statement
            | Self::Name
            | Self::Ip
            | Self::Transport
            | Self::Store
            | Self::Key
            | Self::Model
            | Self::Tokens
            | Self::Stmt
            | Self::Tables
            | Self::Columns
            | Self::Functions
            | Self::Arg(_) => Cow::Borrowed(text),
        }
    }

    /// The attribute of this call.
    pub(crate) fn read<'a>(&self, call: &'a Call) -> Known<'a> {
        match self {
            Self::Agent => self.text(&call.agent.name),
            Self::Tenant => call.agent.tenant.as_deref().map_or(Known::Absent, |t| self.text(t)),
            Self::Tool => self.text(&call.tool.name),
            Self::Caller => call.caller.as_ref().map_or(Known::Absent, |c| self.text(&c.name)),
            Self::Arg(dotted) => {
                if let Operation::ToolCall { args } = &call.operation {
                    argument(args, dotted)
                } else {
                    Known::Absent
                }
            }
            Self::Path
            | Self::Host
            | Self::Port
            | Self::Scheme
            | Self::Method
            | Self::Db
            | Self::Statement
            | Self::Name
            | Self::Ip
            | Self::Transport
            | Self::Store
            | Self::Key
            | Self::Model
            | Self::Tokens
            | Self::Stmt
            | Self::Tables
            | Self::Columns
            | Self::Functions => self.read_resource(&call.operation),
        }
    }

    /// An argument as a value; what cannot be reached in it is opaque.
    pub(crate) fn value(&self, call: &Call) -> Value {
        let unknown = || Value::Opaque("an attribute that is not there".to_owned());
        match (self, &call.operation) {
            (Self::Arg(dotted), Operation::ToolCall { args }) => {
                args.at(dotted.split('.')).cloned().unwrap_or_else(unknown)
            }
            _ => unknown(),
        }
    }

    fn text<'a>(&self, text: &'a str) -> Known<'a> {
        Known::Text(self.fold(text))
    }

    fn of_statement<'a>(&self, facts: &'a SqlFacts) -> Known<'a> {
        match self {
            Self::Stmt => self.text(&facts.class),
            Self::Tables => Known::List(List::Names(&facts.tables)),
            Self::Columns => Known::List(List::Names(&facts.columns)),
            Self::Functions => Known::List(List::Names(&facts.functions)),
            _ => Known::Absent,
        }
    }

    fn read_resource<'a>(&self, operation: &'a Operation) -> Known<'a> {
        match (self, operation) {
            (Self::Path, Operation::Fs { path, .. }) => self.text(path),
            (Self::Path, Operation::HttpRequest(target)) => self.text(&target.path),
            (Self::Host, Operation::HttpRequest(target)) => self.text(&target.host),
            (Self::Host, Operation::NetConnect { host, .. } | Operation::NetDns { host }) => self.text(host),
            (Self::Host, Operation::NetSocket { host, .. }) => {
                host.as_deref().map_or(Known::Absent, |host| self.text(host))
            }
            (Self::Port, Operation::HttpRequest(target)) => Known::Number(target.port.into()),
            (Self::Port, Operation::NetConnect { port, .. } | Operation::NetSocket { port, .. }) => {
                Known::Number((*port).into())
            }
            (Self::Scheme, Operation::HttpRequest(target)) => self.text(target.scheme.name()),
            (Self::Method, Operation::HttpRequest(target)) => self.text(&target.method),
            (Self::Db, Operation::Db { db, .. }) => self.text(db),
            (Self::Statement, Operation::Db { statement, .. }) => self.text(statement),
            (Self::Name, Operation::EnvRead { name } | Operation::Secret { name }) => self.text(name),
            (Self::Ip, Operation::NetConnect { ip, .. } | Operation::NetSocket { ip, .. }) => Known::Ip(*ip),
            (Self::Transport, Operation::NetSocket { transport, .. }) => self.text(transport.name()),
            (Self::Store, Operation::Kv { store, .. }) => self.text(store),
            (Self::Key, Operation::Kv { key, .. }) => self.text(key),
            (Self::Model, Operation::Model { model, .. }) => self.text(model),
            (Self::Tokens, Operation::Model { tokens, .. }) => Known::Number((*tokens).into()),
            (Self::Stmt | Self::Tables | Self::Columns | Self::Functions, Operation::Db { facts, .. }) => {
                facts.as_deref().map_or(Known::Unknowable, |facts| self.of_statement(facts))
            }
            _ => Known::Absent,
        }
    }
}

/// The argument at a dotted name. What lies inside an opaque value may or may not exist.
fn argument<'a>(args: &'a Value, dotted: &str) -> Known<'a> {
    let mut value = args;
    for part in dotted.split('.') {
        value = match value {
            Value::Record(fields) => match fields.iter().find(|(name, _)| name == part) {
                Some((_, inner)) => inner,
                None => return Known::Absent,
            },
            Value::Opaque(_) => return Known::Unknowable,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                return Known::Absent;
            }
        };
    }
    known(value)
}

fn known(value: &Value) -> Known<'_> {
    match value {
        Value::Null => Known::Absent,
        Value::Bool(b) => Known::Bool(*b),
        Value::Number(n) => Known::Number(*n),
        Value::Text(t) => Known::Text(Cow::Borrowed(t)),
        Value::List(elements) => Known::List(List::Values(elements)),
        Value::Record(_) => Known::Record,
        Value::Opaque(_) => Known::Opaque,
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Agent => "agent",
            Self::Tenant => "tenant",
            Self::Tool => "tool",
            Self::Caller => "caller",
            Self::Path => "path",
            Self::Host => "host",
            Self::Port => "port",
            Self::Scheme => "scheme",
            Self::Method => "method",
            Self::Db => "db",
            Self::Statement => "statement",
            Self::Name => "name",
            Self::Ip => "ip",
            Self::Transport => "transport",
            Self::Store => "store",
            Self::Key => "key",
            Self::Model => "model",
            Self::Tokens => "tokens",
            Self::Stmt => "stmt",
            Self::Tables => "tables",
            Self::Columns => "columns",
            Self::Functions => "functions",
            Self::Arg(dotted) => return write!(f, "args.{dotted}"),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_the_field_of_that_name() {
        for name in FIELD_NAMES.into_iter().chain(["args.a", "args.a.b-c"]) {
            assert_eq!(Field::parse(name).map(|f| f.to_string()).as_deref(), Some(name));
        }
        for bad in ["args", "args.", "args.a.", "args..a", "amount", ""] {
            assert_eq!(Field::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_inside_an_opaque_value_is_unknowable_and_not_absent() {
        let args = Value::Record(vec![
            ("o".into(), Value::Opaque("NaN".into())),
            ("n".into(), Value::Null),
            ("t".into(), Value::Text("x".into())),
        ]);
        let read = |name: &str| match Field::parse(name) {
            Some(Field::Arg(dotted)) => argument(&args, &dotted),
            _ => Known::Absent,
        };
        assert_eq!(read("args.o"), Known::Opaque);
        assert_eq!(read("args.o.inner"), Known::Unknowable);
        assert_eq!(read("args.n"), Known::Absent);
        assert_eq!(read("args.t.inner"), Known::Absent);
        assert_eq!(read("args.missing"), Known::Absent);
    }
}
