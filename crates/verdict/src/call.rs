//! What is asked: one [`Call`] is one attempt to do one thing, parsed at the boundary and never trusted after.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rust_decimal::Decimal;

use crate::decision::DecisionId;
use crate::name::Digest;
use crate::value::Value;

/// Every kind of thing a component can ask for. Closed: a new action must be handled everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Run one exported function of a tool component.
    ToolCall,
    /// Open a file for reading, read it.
    FsRead,
    /// Create, open for writing, truncate, rename onto, make a directory, set times.
    FsWrite,
    /// Unlink, remove a directory, rename away.
    FsDelete,
    /// Read a directory.
    FsList,
    /// Metadata of a path.
    FsStat,
    /// Send an HTTP request to a named host.
    HttpRequest,
    /// Connect to the address a request resolved to.
    NetConnect,
    /// Resolve a name on behalf of the guest: the name itself tells somebody something.
    NetDns,
    /// Connect or send from a socket that the guest opened itself.
    NetSocket,
    /// Run one read-only SQL statement.
    DbQuery,
    /// Run one writing SQL statement.
    DbExecute,
    /// Read one key of a key-value store.
    KvGet,
    /// List keys of a key-value store.
    KvList,
    /// Set one key of a key-value store.
    KvSet,
    /// Delete one key of a key-value store.
    KvDelete,
    /// Ask a model.
    ModelCall,
    /// Have the host put a secret where the guest asked for it; the guest never sees it.
    SecretRead,
    /// See one environment variable or configuration value.
    EnvRead,
    /// See the program arguments.
    ArgsRead,
    /// Write to standard output or standard error (bounded, escaped, per call).
    Stdio,
    /// Read the wall or monotonic clock, sleep within the deadline.
    Clock,
    /// Draw random bytes.
    Random,
}

impl Action {
    /// All actions, in the order of their declaration.
    pub const ALL: [Self; 23] = [
        Self::ToolCall,
        Self::FsRead,
        Self::FsWrite,
        Self::FsDelete,
        Self::FsList,
        Self::FsStat,
        Self::HttpRequest,
        Self::NetConnect,
        Self::NetDns,
        Self::NetSocket,
        Self::DbQuery,
        Self::DbExecute,
        Self::KvGet,
        Self::KvList,
        Self::KvSet,
        Self::KvDelete,
        Self::ModelCall,
        Self::SecretRead,
        Self::EnvRead,
        Self::ArgsRead,
        Self::Stdio,
        Self::Clock,
        Self::Random,
    ];

    /// The name policies and records use, such as `fs.read`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToolCall => "tool.call",
            Self::FsRead => "fs.read",
            Self::FsWrite => "fs.write",
            Self::FsDelete => "fs.delete",
            Self::FsList => "fs.list",
            Self::FsStat => "fs.stat",
            Self::HttpRequest => "http.request",
            Self::NetConnect => "net.connect",
            Self::NetDns => "net.dns",
            Self::NetSocket => "net.socket",
            Self::DbQuery => "db.query",
            Self::DbExecute => "db.execute",
            Self::KvGet => "kv.get",
            Self::KvList => "kv.list",
            Self::KvSet => "kv.set",
            Self::KvDelete => "kv.delete",
            Self::ModelCall => "model.call",
            Self::SecretRead => "secret.read",
            Self::EnvRead => "env.read",
            Self::ArgsRead => "args.read",
            Self::Stdio => "stdio.write",
            Self::Clock => "clock",
            Self::Random => "random",
        }
    }

    /// The action with this exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// True for actions that leave the machine (policy may cut all of them with `egress = "none"`).
    #[must_use]
    pub const fn is_egress(self) -> bool {
        matches!(
            self,
            Self::HttpRequest | Self::NetConnect | Self::NetDns | Self::NetSocket | Self::ModelCall
        )
    }

    /// True for actions that change something or leave the machine; their records are `sealed` by default.
    #[must_use]
    pub const fn is_effectful(self) -> bool {
        match self {
            Self::ToolCall
            | Self::FsWrite
            | Self::FsDelete
            | Self::HttpRequest
            | Self::NetConnect
            | Self::NetDns
            | Self::NetSocket
            | Self::DbExecute
            | Self::KvSet
            | Self::KvDelete
            | Self::ModelCall
            | Self::SecretRead => true,
            Self::FsRead
            | Self::FsList
            | Self::FsStat
            | Self::DbQuery
            | Self::KvGet
            | Self::KvList
            | Self::EnvRead
            | Self::ArgsRead
            | Self::Stdio
            | Self::Clock
            | Self::Random => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An agent of the registry: who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The registered name, such as `finance-1`.
    pub name: Arc<str>,
    /// The tenant it belongs to, if any.
    pub tenant: Option<Arc<str>>,
}

/// A tool function of a component: `component.function` and the digest of the component's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ToolRef {
    /// `payments.send`; `unregistered:<file stem>.<function>` when the registry does not know the component;
    /// `<component>.run` for a WASI command.
    pub name: Arc<str>,
    /// BLAKE3 of the component's bytes.
    pub component: Digest,
}

/// Which file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FsOp {
    /// See [`Action::FsRead`].
    Read,
    /// See [`Action::FsWrite`].
    Write,
    /// See [`Action::FsDelete`].
    Delete,
    /// See [`Action::FsList`].
    List,
    /// See [`Action::FsStat`].
    Stat,
}

/// Which kind of SQL statement the guest asked to run; the engine enforces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DbOp {
    /// See [`Action::DbQuery`].
    Query,
    /// See [`Action::DbExecute`].
    Execute,
}

/// Which key-value operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvOp {
    /// See [`Action::KvGet`].
    Get,
    /// See [`Action::KvList`].
    List,
    /// See [`Action::KvSet`].
    Set,
    /// See [`Action::KvDelete`].
    Delete,
}

/// Transport of a guest's own socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What a parser makes of a SQL statement: for policy to judge by, never what enforcement relies on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SqlFacts {
    /// Lower-case kind of the statement, such as `select`, `insert`, `update`, `delete`, `create-table`.
    pub class: String,
    /// Lower-case names of the tables it names, sorted, without repetition; `schema.table` where it says so.
    pub tables: Vec<String>,
    /// Lower-case names of the columns it names, sorted, without repetition; `*` for all of a table.
    pub columns: Vec<String>,
    /// Lower-case names of the functions it calls, sorted, without repetition.
    pub functions: Vec<String>,
}

/// URL scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where an HTTP request goes, parsed and normalised: the request is built from these fields, never from the guest's text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpTarget {
    /// Upper-case method.
    pub method: String,
    /// Scheme of the URL.
    pub scheme: Scheme,
    /// Lower-case host name without trailing dot, or an IP literal in its canonical form without brackets.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// Absolute path, normalised (no `.` or `..` segments), without query.
    pub path: String,
    /// Query without `?`, if any.
    pub query: Option<String>,
}

/// One of the two output streams of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The thing asked for, with its resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Run `Call::tool` with these arguments (a [`Value::Record`] by parameter name).
    ToolCall {
        /// Arguments by parameter name.
        args: Value,
    },
    /// A file operation on a guest path (absolute, lexically normalised, as the guest sees it).
    Fs {
        /// What is done.
        op: FsOp,
        /// Absolute guest path such as `/data/report.csv`.
        path: String,
    },
    /// Send a request.
    HttpRequest(HttpTarget),
    /// Connect to one resolved address on behalf of a decided request.
    NetConnect {
        /// The name that was resolved.
        host: String,
        /// The address that will be connected to.
        ip: IpAddr,
        /// TCP port.
        port: u16,
    },
    /// Resolve a name.
    NetDns {
        /// Lower-case name without trailing dot.
        host: String,
    },
    /// Connect, or send a datagram, from a guest's own socket.
    NetSocket {
        /// Which kind of socket.
        transport: Transport,
        /// The name that resolved to the address in this call, if one did.
        host: Option<String>,
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// Run a SQL statement.
    Db {
        /// Reading or writing.
        op: DbOp,
        /// Label of the database, as offered by the tool's registration.
        db: String,
        /// The statement as given.
        statement: String,
        /// What a parser makes of it; `None` when it cannot be parsed, so that nothing is known of it.
        facts: Option<Arc<SqlFacts>>,
    },
    /// Use a key-value store.
    Kv {
        /// What is done.
        op: KvOp,
        /// Label of the store, as offered by the tool's registration.
        store: String,
        /// The key; for a listing, the cursor's text or nothing.
        key: String,
    },
    /// Ask a model.
    Model {
        /// Name of the model, as the guest asks for it.
        model: String,
        /// Most tokens that question and answer may have together.
        tokens: u64,
    },
    /// Have a secret put somewhere.
    Secret {
        /// Its name in the policy.
        name: String,
    },
    /// See one environment variable by name.
    EnvRead {
        /// Name of the variable.
        name: String,
    },
    /// See the program arguments.
    ArgsRead,
    /// Open an output stream.
    Stdio(Stream),
    /// Use the clocks.
    Clock,
    /// Use the random generator.
    Random,
}

impl Operation {
    /// The action this operation is an instance of.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Self::ToolCall { .. } => Action::ToolCall,
            Self::Fs { op, .. } => match op {
                FsOp::Read => Action::FsRead,
                FsOp::Write => Action::FsWrite,
                FsOp::Delete => Action::FsDelete,
                FsOp::List => Action::FsList,
                FsOp::Stat => Action::FsStat,
            },
            Self::HttpRequest(_) => Action::HttpRequest,
            Self::NetConnect { .. } => Action::NetConnect,
            Self::NetDns { .. } => Action::NetDns,
            Self::NetSocket { .. } => Action::NetSocket,
            Self::Kv { op, .. } => match op {
                KvOp::Get => Action::KvGet,
                KvOp::List => Action::KvList,
                KvOp::Set => Action::KvSet,
                KvOp::Delete => Action::KvDelete,
            },
            Self::Model { .. } => Action::ModelCall,
            Self::Secret { .. } => Action::SecretRead,
            Self::Db { op, .. } => match op {
                DbOp::Query => Action::DbQuery,
                DbOp::Execute => Action::DbExecute,
            },
            Self::EnvRead { .. } => Action::EnvRead,
            Self::ArgsRead => Action::ArgsRead,
            Self::Stdio(_) => Action::Stdio,
            Self::Clock => Action::Clock,
            Self::Random => Action::Random,
        }
    }
}

/// The value of one attribute of a call, for a predicate to look at.
#[derive(Debug, Clone, PartialEq)]
pub enum Attr<'a> {
    /// Text.
    Text(&'a str),
    /// An exact number.
    Number(Decimal),
    /// An address.
    Ip(IpAddr),
    /// A structured argument.
    Value(&'a Value),
    /// Absent, or not representable: predicates are neither true nor false.
    Unknown,
}

/// One attempt by one agent to do one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Who asks.
    pub agent: Arc<Agent>,
    /// Name of the environment (`prod`).
    pub env: Arc<str>,
    /// Session, derived by the host from the principal.
    pub session: Arc<str>,
    /// The tool this is about: the target of a `tool.call`, the acting tool of every other action.
    pub tool: Arc<ToolRef>,
    /// The tool (or agent component) whose running call made this one, if any.
    pub caller: Option<Arc<ToolRef>>,
    /// The decision under which the caller runs, if any.
    pub parent: Option<DecisionId>,
    /// What is asked.
    pub operation: Operation,
}

impl Call {
    /// The action of the operation.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.operation.action()
    }
}
