//! The attributes of a call that can be varied by themselves, and how each is set.

use std::net::IpAddr;
use std::sync::Arc;

use govrun_verdict::{
    Action, Agent, Call, DbOp, Digest, FsOp, HttpTarget, KvOp, Operation, Scheme, SqlFacts, Stream, ToolRef,
    Transport, Value,
};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use crate::field::Field;
use crate::policy::Policy;
use crate::scope::ScopeTest;

/// An attribute. Those that come as one (agent and tenant, a statement's facts) are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attr {
    Agent,
    Tool,
    Caller,
    Component,
    Path,
    Host,
    Port,
    Scheme,
    Method,
    Ip,
    Transport,
    Db,
    Statement,
    Facts,
    Name,
    Stream,
    Store,
    Key,
    Model,
    Tokens,
    Arg(Box<str>),
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Val {
    Agent(Arc<Agent>),
    Text(String),
    Number(Decimal),
    Bool(bool),
    /// A list of so many elements.
    List(usize),
    Record,
    Opaque,
    Absent,
    Ip(IpAddr),
    Component(Digest),
    Facts(Arc<SqlFacts>),
    Stream(Stream),
    Transport(Transport),
    Scheme(Scheme),
}

impl Attr {
    pub(crate) fn of_scope(test: &ScopeTest) -> Self {
        match test {
            ScopeTest::Agent(_) | ScopeTest::Tenant(_) => Self::Agent,
            ScopeTest::Tool(_) => Self::Tool,
            ScopeTest::Caller(_) => Self::Caller,
            ScopeTest::Digest(_) => Self::Component,
            ScopeTest::Path(_) => Self::Path,
            ScopeTest::Host(_) => Self::Host,
            ScopeTest::Port(_) => Self::Port,
            ScopeTest::Scheme(_) => Self::Scheme,
            ScopeTest::Method(_) => Self::Method,
            ScopeTest::Cidr(_) => Self::Ip,
            ScopeTest::Db(_) => Self::Db,
            ScopeTest::Name(_) => Self::Name,
            ScopeTest::Stream(_) => Self::Stream,
            ScopeTest::Transport(_) => Self::Transport,
            ScopeTest::Store(_) => Self::Store,
            ScopeTest::Key(_) => Self::Key,
            ScopeTest::Model(_) => Self::Model,
        }
    }

    pub(crate) fn of_field(field: &Field) -> Self {
        match field {
            Field::Agent | Field::Tenant => Self::Agent,
            Field::Tool => Self::Tool,
            Field::Caller => Self::Caller,
            Field::Path => Self::Path,
            Field::Host => Self::Host,
            Field::Port => Self::Port,
            Field::Scheme => Self::Scheme,
            Field::Method => Self::Method,
            Field::Db => Self::Db,
            Field::Statement => Self::Statement,
            Field::Name => Self::Name,
            Field::Ip => Self::Ip,
            Field::Transport => Self::Transport,
            Field::Store => Self::Store,
            Field::Key => Self::Key,
            Field::Model => Self::Model,
            Field::Tokens => Self::Tokens,
            Field::Stmt | Field::Tables | Field::Columns | Field::Functions => Self::Facts,
            Field::Arg(dotted) => Self::Arg(dotted.clone()),
        }
    }
}

impl Attr {
    /// The name that policies use.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Arg(dotted) => format!("args.{dotted}"),
            Self::Component => "digest".to_owned(),
            Self::Facts => "the statement".to_owned(),
            Self::Agent
            | Self::Tool
            | Self::Caller
            | Self::Path
            | Self::Host
            | Self::Port
            | Self::Scheme
            | Self::Method
            | Self::Ip
            | Self::Transport
            | Self::Db
            | Self::Statement
            | Self::Name
            | Self::Stream
            | Self::Store
            | Self::Key
            | Self::Model
            | Self::Tokens => format!("{self:?}").to_lowercase(),
        }
    }
}

impl Val {
    /// The value for people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Agent(agent) => agent.name.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Number(n) => n.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::List(elements) => format!("a list of {elements}"),
            Self::Record => "a record".to_owned(),
            Self::Opaque => "unknown".to_owned(),
            Self::Absent => "absent".to_owned(),
            Self::Ip(ip) => ip.to_string(),
            Self::Component(digest) => digest.to_string(),
            Self::Facts(facts) => format!("a {} statement", facts.class),
            Self::Stream(stream) => format!("{stream:?}").to_lowercase(),
            Self::Transport(transport) => transport.name().to_owned(),
            Self::Scheme(scheme) => scheme.name().to_owned(),
        }
    }
}

/// A plain call of the action: by the first registered agent, with the first registered tool.
pub(crate) fn base(policies: &[&Policy], action: Action) -> Call {
    let agent = policies.iter().find_map(|p| p.agents().next().cloned());
    let agent = agent.unwrap_or_else(|| Arc::new(Agent { name: "agent-1".into(), tenant: None }));
    let tool = policies.iter().find_map(|p| p.tools().next());
    let (name, component) = tool.map_or_else(
        || ("tool.run".to_owned(), Digest::of(b"")),
        |entry| (format!("{}.run", entry.name), entry.digest),
    );
    Call {
        agent,
        env: policies.first().map_or_else(|| "default".into(), |p| Arc::clone(p.env())),
        session: "session-1".into(),
        tool: Arc::new(ToolRef { name: name.into(), component }),
        caller: None,
        parent: None,
        operation: operation(action),
    }
}

/// A plain operation of the action.
pub(crate) fn operation(action: Action) -> Operation {
    let fs = |op| Operation::Fs { op, path: "/x".to_owned() };
    let db = |op| Operation::Db { op, db: "main".to_owned(), statement: String::new(), facts: None };
    let kv = |op| Operation::Kv { op, store: "main".to_owned(), key: "x".to_owned() };
    let (host, ip) = ("host.example".to_owned(), IpAddr::from([9, 9, 9, 9]));
    match action {
        Action::ToolCall => Operation::ToolCall { args: Value::Record(Vec::new()) },
        Action::FsRead => fs(FsOp::Read),
        Action::FsWrite => fs(FsOp::Write),
        Action::FsDelete => fs(FsOp::Delete),
        Action::FsList => fs(FsOp::List),
        Action::FsStat => fs(FsOp::Stat),
        Action::HttpRequest => Operation::HttpRequest(HttpTarget {
            method: "GET".to_owned(),
            scheme: Scheme::Https,
            host,
            port: 443,
            path: "/".to_owned(),
            query: None,
        }),
        Action::NetConnect => Operation::NetConnect { host, ip, port: 443 },
        Action::NetDns => Operation::NetDns { host },
        Action::NetSocket => {
            Operation::NetSocket { transport: Transport::Tcp, host: Some(host), ip, port: 443 }
        }
        Action::DbQuery => db(DbOp::Query),
        Action::DbExecute => db(DbOp::Execute),
        Action::KvGet => kv(KvOp::Get),
        Action::KvList => kv(KvOp::List),
        Action::KvSet => kv(KvOp::Set),
        Action::KvDelete => kv(KvOp::Delete),
        Action::ModelCall => Operation::Model { model: "model".to_owned(), tokens: 1 },
        Action::SecretRead => Operation::Secret { name: "NAME".to_owned() },
        Action::EnvRead => Operation::EnvRead { name: "NAME".to_owned() },
        Action::ArgsRead => Operation::ArgsRead,
        Action::Stdio => Operation::Stdio(Stream::Stdout),
        Action::Clock => Operation::Clock,
        Action::Random => Operation::Random,
    }
}

/// Give the call this value; false when no call of the action can have it (beside what the call has already).
pub(crate) fn set(call: &mut Call, attr: &Attr, value: &Val) -> bool {
    match (attr, value) {
        (Attr::Agent, Val::Agent(agent)) => call.agent = Arc::clone(agent),
        (Attr::Tool, Val::Text(name)) => {
            call.tool = Arc::new(ToolRef { name: name.as_str().into(), component: call.tool.component });
        }
        (Attr::Component, Val::Component(digest)) => {
            call.tool = Arc::new(ToolRef { name: Arc::clone(&call.tool.name), component: *digest });
        }
        (Attr::Caller, Val::Absent) => call.caller = None,
        (Attr::Caller, Val::Text(name)) => {
            call.caller =
                Some(Arc::new(ToolRef { name: name.as_str().into(), component: call.tool.component }));
        }
        (Attr::Arg(dotted), value) => return set_argument(&mut call.operation, dotted, value),
        (attr, value) => return set_resource(&mut call.operation, attr, value),
    }
    true
}

fn set_resource(operation: &mut Operation, attr: &Attr, value: &Val) -> bool {
    match (attr, value, operation) {
        (Attr::Path, Val::Text(text), Operation::Fs { path, .. }) => path.clone_from(text),
        (Attr::Path, Val::Text(text), Operation::HttpRequest(t)) => t.path.clone_from(text),
        (Attr::Host, Val::Text(text), Operation::HttpRequest(t)) => t.host.clone_from(text),
        (Attr::Host, Val::Text(text), Operation::NetConnect { host, .. } | Operation::NetDns { host }) => {
            host.clone_from(text);
        }
        (Attr::Host, Val::Text(text), Operation::NetSocket { host, .. }) => *host = Some(text.clone()),
        (Attr::Host, Val::Absent, Operation::NetSocket { host, .. }) => *host = None,
        (Attr::Port, Val::Number(n), operation) => {
            let Some(number) = n.to_u16() else { return false };
            match operation {
                Operation::HttpRequest(target) => target.port = number,
                Operation::NetConnect { port, .. } | Operation::NetSocket { port, .. } => *port = number,
                _ => return false,
            }
        }
        (Attr::Scheme, Val::Scheme(scheme), Operation::HttpRequest(t)) => t.scheme = *scheme,
        (Attr::Method, Val::Text(text), Operation::HttpRequest(t)) => t.method.clone_from(text),
        (Attr::Ip, Val::Ip(address), Operation::NetConnect { ip, .. } | Operation::NetSocket { ip, .. }) => {
            *ip = *address
        }
        (Attr::Transport, Val::Transport(kind), Operation::NetSocket { transport, .. }) => *transport = *kind,
        (Attr::Db, Val::Text(text), Operation::Db { db, .. }) => db.clone_from(text),
        (Attr::Statement, Val::Text(text), Operation::Db { statement, .. }) => statement.clone_from(text),
        (Attr::Facts, Val::Facts(known), Operation::Db { facts, .. }) => *facts = Some(Arc::clone(known)),
        (Attr::Facts, Val::Absent, Operation::Db { facts, .. }) => *facts = None,
        (Attr::Name, Val::Text(text), Operation::EnvRead { name } | Operation::Secret { name }) => {
            name.clone_from(text);
        }
        (Attr::Stream, Val::Stream(stream), Operation::Stdio(s)) => *s = *stream,
        (Attr::Store, Val::Text(text), Operation::Kv { store, .. }) => store.clone_from(text),
        (Attr::Key, Val::Text(text), Operation::Kv { key, .. }) => key.clone_from(text),
        (Attr::Model, Val::Text(text), Operation::Model { model, .. }) => model.clone_from(text),
        (Attr::Tokens, Val::Number(n), Operation::Model { tokens, .. }) => {
            let Some(number) = n.to_u64() else { return false };
            *tokens = number;
        }
        _ => return false,
    }
    true
}

fn set_argument(operation: &mut Operation, dotted: &str, value: &Val) -> bool {
    let Operation::ToolCall { args } = operation else { return false };
    let leaf = match value {
        Val::Text(text) => Value::Text(text.clone()),
        Val::Number(n) => Value::Number(*n),
        Val::Bool(b) => Value::Bool(*b),
        Val::List(elements) => Value::List(vec![Value::Text("x".to_owned()); *elements]),
        Val::Record => Value::Record(Vec::new()),
        Val::Opaque => Value::Opaque("NaN".to_owned()),
        Val::Absent => return true,
        Val::Agent(_)
        | Val::Ip(_)
        | Val::Component(_)
        | Val::Facts(_)
        | Val::Stream(_)
        | Val::Transport(_)
        | Val::Scheme(_) => return false,
    };
    let mut at = args;
    for part in dotted.split('.') {
        let Value::Record(fields) = at else { return false };
        let place = fields.iter().position(|(name, _)| name == part).unwrap_or_else(|| {
            fields.push((part.to_owned(), Value::Record(Vec::new())));
            fields.len() - 1
        });
        let Some((_, inner)) = fields.get_mut(place) else { return false };
        at = inner;
    }
    // A record that another argument already stands in stays one.
    let stands = matches!(at, Value::Record(fields) if !fields.is_empty());
    if stands {
        return matches!(value, Val::Record);
    }
    *at = leaf;
    true
}
