//! From a record back to the call that was decided.

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_audit::form::Int;
use govrun_audit::form::body;
use govrun_audit::verify::Case;
use govrun_verdict::{
    Action, Agent, Call, DbLimits, DbOp, Egress, FsMode, FsOp, HttpTarget, KvOp, Mask, Obligations,
    Operation, Preopen, Profile, Scheme, SqlFacts, Stream, ToolRef, Transport, Value,
};

/// The call, or one sentence why the record does not say enough.
pub(super) fn restore(case: &Case<'_>) -> Result<Call, String> {
    let d = case.decision;
    Ok(Call {
        agent: Arc::new(Agent { name: (&*d.agent).into(), tenant: d.tenant.as_deref().map(Into::into) }),
        env: (&*d.inputs.env).into(),
        session: (&*d.session).into(),
        tool: tool(&d.tool),
        caller: d.caller.as_ref().map(tool),
        parent: d.parent,
        operation: operation(&Fields(case), d.action.0)?,
    })
}

fn tool(tool: &body::Tool<'_>) -> Arc<ToolRef> {
    Arc::new(ToolRef { name: (&*tool.name).into(), component: tool.component })
}

struct Fields<'a>(&'a Case<'a>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<String, String> {
        self.optional(name)?.ok_or_else(|| format!("the record has no `{name}`"))
    }

    fn optional(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.value(name)? {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::List(_)
                | Value::Record(_)
                | Value::Opaque(_),
            ) => Err(format!("`{name}` is not a text")),
        }
    }

    fn number<N: TryFrom<i128>>(&self, name: &str) -> Result<N, String> {
        match self.0.value(name)? {
            Some(Value::Number(n)) if n.scale() == 0 => {
                N::try_from(n.mantissa()).map_err(|_| format!("`{name}` is out of bounds"))
            }
            Some(_) | None => Err(format!("`{name}` is not a whole number")),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        self.text(name)?.parse().map_err(|_| format!("`{name}` has another form"))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("`{name}` is not a list of texts");
        let Some(Value::List(items)) = self.0.value(name)? else { return Err(wrong()) };
        items
            .iter()
            .map(|item| match item {
                Value::Text(text) => Ok(text.clone()),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::List(_)
                | Value::Record(_)
                | Value::Opaque(_) => Err(wrong()),
            })
            .collect()
    }

    /// Arguments of a tool: a record of all `args.…`, or the one value `args`.
    fn arguments(&self) -> Result<Value, String> {
        if let Some(value) = self.0.value("args")? {
            return Ok(value.clone());
        }
        let fields = &self.0.decision.inputs.fields;
        let named = fields.iter().filter_map(|field| field.name.strip_prefix("args."));
        let value = |name: &str| {
            let value = self.0.value(&format!("args.{name}"))?;
            value.map(|v| (name.to_owned(), v.clone())).ok_or_else(|| format!("no value of `{name}`"))
        };
        named.map(value).collect::<Result<_, String>>().map(Value::Record)
    }

    fn http(&self) -> Result<HttpTarget, String> {
        let url = self.text("url")?;
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (url, None),
        };
        let scheme = match self.text("scheme")?.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("unknown scheme `{other}`")),
        };
        Ok(HttpTarget {
            method: self.text("method")?,
            scheme,
            host: self.text("host")?,
            port: self.number("port")?,
            path,
            query,
        })
    }

    fn socket(&self) -> Result<Operation, String> {
        let transport = match self.text("transport")?.as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            other => return Err(format!("unknown transport `{other}`")),
        };
        let (host, ip, port) = (self.optional("host")?, self.parsed("ip")?, self.number("port")?);
        Ok(Operation::NetSocket { transport, host, ip, port })
    }

    fn database(&self, op: DbOp) -> Result<Operation, String> {
        let facts = match self.optional("stmt")? {
            None => None,
            Some(class) => Some(Arc::new(SqlFacts {
                class,
                tables: self.texts("tables")?,
                columns: self.texts("columns")?,
                functions: self.texts("functions")?,
            })),
        };
        Ok(Operation::Db { op, db: self.text("db")?, statement: self.text("statement")?, facts })
    }
}

fn operation(fields: &Fields<'_>, action: Action) -> Result<Operation, String> {
    let file = |op| Ok(Operation::Fs { op, path: fields.text("path")? });
    let store = |op| Ok(Operation::Kv { op, store: fields.text("store")?, key: fields.text("key")? });
    match action {
        Action::ToolCall => Ok(Operation::ToolCall { args: fields.arguments()? }),
        Action::FsRead => file(FsOp::Read),
        Action::FsWrite => file(FsOp::Write),
        Action::FsDelete => file(FsOp::Delete),
        Action::FsList => file(FsOp::List),
        Action::FsStat => file(FsOp::Stat),
        Action::HttpRequest => fields.http().map(Operation::HttpRequest),
        Action::NetConnect => Ok(Operation::NetConnect {
            host: fields.text("host")?,
            ip: fields.parsed("ip")?,
            port: fields.number("port")?,
        }),
        Action::NetDns => Ok(Operation::NetDns { host: fields.text("host")? }),
        Action::NetSocket => fields.socket(),
        Action::DbQuery => fields.database(DbOp::Query),
        Action::DbExecute => fields.database(DbOp::Execute),
        Action::KvGet => store(KvOp::Get),
        Action::KvList => store(KvOp::List),
        Action::KvSet => store(KvOp::Set),
        Action::KvDelete => store(KvOp::Delete),
        Action::ModelCall => {
            Ok(Operation::Model { model: fields.text("model")?, tokens: fields.number("tokens")? })
        }
        Action::SecretRead => Ok(Operation::Secret { name: fields.text("name")? }),
        Action::EnvRead => Ok(Operation::EnvRead { name: fields.text("name")? }),
        Action::ArgsRead => Ok(Operation::ArgsRead),
        Action::Stdio => match fields.text("stream")?.as_str() {
            "stdout" => Ok(Operation::Stdio(Stream::Stdout)),
            "stderr" => Ok(Operation::Stdio(Stream::Stderr)),
            other => Err(format!("unknown stream `{other}`")),
        },
        Action::Clock => Ok(Operation::Clock),
        Action::Random => Ok(Operation::Random),
    }
}

/// Recorded obligations, as policy has them.
pub(super) fn obligations(o: &body::Obligations<'_>) -> Result<Obligations, String> {
    let db = match &o.db {
        None => DbLimits::default(),
        Some(db) => DbLimits {
            rows: limit(db.rows)?,
            bytes: limit(db.bytes)?,
            time_ms: limit(db.time_ms)?,
            vm_steps: limit(db.vm_steps)?,
        },
    };
    Ok(Obligations {
        fuel: limit(o.fuel)?,
        memory_bytes: limit(o.memory_bytes)?,
        deadline_ms: limit(o.deadline_ms)?,
        egress: match o.egress {
            body::Egress::None => Egress::None,
            body::Egress::ByRule => Egress::ByRule,
        },
        db,
        mask: Mask::new(o.mask.iter().flatten().map(|column| &**column)),
        sandbox: o.sandbox.as_ref().map(profile).transpose()?.map(Arc::new),
    })
}

fn limit(limit: Option<Int>) -> Result<Option<NonZeroU64>, String> {
    match limit.map(|n| NonZeroU64::new(n.0)) {
        None => Ok(None),
        Some(Some(n)) => Ok(Some(n)),
        Some(None) => Err("a limit of zero in the recorded bounds".to_owned()),
    }
}

fn profile(sandbox: &body::Sandbox<'_>) -> Result<Profile, String> {
    let preopen = |p: &body::Preopen<'_>| Preopen {
        host: (&*p.host).into(),
        guest: (&*p.guest).into(),
        mode: match p.mode {
            body::FsMode::Ro => FsMode::ReadOnly,
            body::FsMode::Rw => FsMode::ReadWrite,
        },
    };
    Ok(Profile {
        name: (&*sandbox.name).into(),
        preopens: sandbox.preopens.as_ref().map(|list| list.iter().map(preopen).collect()),
        scratch_bytes: limit(sandbox.scratch_bytes)?,
        db_copy: sandbox.db_copy,
    })
}
