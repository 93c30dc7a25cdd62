//! Calls as the log has them, to decide them again.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_audit::Opening;
use govrun_audit::form::body::{self, Field};
use govrun_policy::Policy;
use govrun_verdict::{
    Action, Agent, Call, DbOp, Digest, Egress, FsOp, HttpTarget, KvOp, LogId, Obligations, Operation,
    Profile, Scheme, SqlFacts, Stream, ToolRef, Transport, Value,
};

use crate::explain::archive;

/// Most openings of one log that are held at a time.
const MAX_OPENINGS: usize = 4_000_000;

/// What commitments of a folder of logs open to. Each log's file is read once, when it is first needed.
pub(crate) struct Opened {
    folder: PathBuf,
    logs: HashMap<LogId, HashMap<(u64, String), Value>>,
}

impl Opened {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), logs: HashMap::new() }
    }

    /// The value of a field: in clear, or opened by something that really opens it.
    pub(crate) fn value(&mut self, log: LogId, seq: u64, field: &Field<'_>) -> Option<Value> {
        if let Some(clear) = &field.clear {
            return Some(clear.0.clone().into_owned());
        }
        let commitment = field.commitment.as_ref()?;
        let folder = &self.folder;
        let log = self.logs.entry(log).or_insert_with(|| read(folder, log));
        let found = log.get(&(seq, field.name.to_string()))?;
        let Value::Record(parts) = found else { return None };
        let [(_, Value::Text(salt)), (_, value)] = parts.as_slice() else { return None };
        opens(salt, &field.name, value, &commitment.0).then(|| value.clone())
    }
}

/// Whether salt and value are what the record committed to.
fn opens(salt: &str, name: &str, value: &Value, commitment: &[u8; 32]) -> bool {
    let mut bytes = [0; 32];
    let digits: Vec<char> = salt.chars().collect();
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let Ok(parsed) = u8::from_str_radix(&pair.iter().collect::<String>(), 16) else { return false };
        *byte = parsed;
    }
    let json = serde_json::to_vec(&govrun_audit::form::Json::from(value));
    json.is_ok_and(|json| govrun_audit::commitment(&bytes, name, &json) == *commitment)
}

/// The openings of a log, each as salt and value; a line that is none ends the file.
fn read(folder: &Path, log: LogId) -> HashMap<(u64, String), Value> {
    let mut found = HashMap::new();
    let path = folder.join(log.to_string()).join("openings.jsonl");
    let Ok(file) = std::fs::File::open(path) else { return found };
    for line in std::io::BufReader::new(file).split(b'\n').take(MAX_OPENINGS) {
        let Ok(line) = line else { break };
        let Ok(opening) = serde_json::from_slice::<Opening<'_>>(&line) else { break };
        let both = vec![
            ("salt".to_owned(), Value::Text(opening.salt.to_string())),
            ("value".to_owned(), opening.value.0.clone().into_owned()),
        ];
        found.insert((opening.seq.0, opening.field.to_string()), Value::Record(both));
    }
    found
}

/// The archived policies by epoch, each loaded once; `None` for one that is not there.
pub(crate) struct Archive {
    folder: PathBuf,
    policies: HashMap<Digest, Option<Arc<Policy>>>,
}

impl Archive {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), policies: HashMap::new() }
    }

    pub(crate) fn policy(&mut self, epoch: Digest) -> Option<Arc<Policy>> {
        let folder = &self.folder;
        let entry = self.policies.entry(epoch);
        entry.or_insert_with(|| archive::load(folder, epoch).ok().map(Arc::new)).clone()
    }
}

/// A call that was rebuilt from its record.
pub(crate) struct Rebuilt {
    pub(crate) call: Call,
    /// False when an argument is only committed to, so that conditions about it are unknown.
    pub(crate) whole: bool,
}

/// The call of a decision. `None` when the thing it was about is only committed to. `value` opens a field.
pub(crate) fn call(
    d: &body::Decision<'_>,
    mut value: impl FnMut(&Field<'_>) -> Option<Value>,
) -> Option<Rebuilt> {
    let mut fields: HashMap<&str, Option<Value>> = HashMap::new();
    let mut args = Vec::new();
    let mut whole = true;
    for field in &d.inputs.fields {
        let found = value(field);
        match field.name.strip_prefix("args.") {
            Some(name) => {
                whole &= found.is_some();
                args.push((name.to_owned(), found.unwrap_or_else(|| Value::Opaque("committed".to_owned()))));
            }
            None => {
                fields.insert(&field.name, found);
            }
        }
    }
    let tool = |t: &body::Tool<'_>| Arc::new(ToolRef { name: (&*t.name).into(), component: t.component });
    let operation = operation(d.action.0, args, &Fields(fields))?;
    let call = Call {
        agent: Arc::new(Agent { name: (&*d.agent).into(), tenant: d.tenant.as_deref().map(Arc::from) }),
        env: (&*d.inputs.env).into(),
        session: (&*d.session).into(),
        tool: tool(&d.tool),
        caller: d.caller.as_ref().map(tool),
        parent: d.parent,
        operation,
    };
    Some(Rebuilt { call, whole })
}

struct Fields<'f>(HashMap<&'f str, Option<Value>>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        match self.0.get(name)? {
            Some(Value::Number(n)) => n.to_string().parse().ok(),
            _ => None,
        }
    }

    fn names(&self, name: &str) -> Option<Vec<String>> {
        let Some(Value::List(all)) = self.0.get(name)? else { return None };
        let text = |value: &Value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        all.iter().map(text).collect()
    }

    /// What a parser made of the statement; nothing where that is only committed to.
    fn facts(&self) -> Option<Arc<SqlFacts>> {
        Some(Arc::new(SqlFacts {
            class: self.text("stmt")?,
            tables: self.names("tables")?,
            columns: self.names("columns")?,
            functions: self.names("functions")?,
        }))
    }
}

fn operation(action: Action, args: Vec<(String, Value)>, fields: &Fields<'_>) -> Option<Operation> {
    let fs = |op| Some(Operation::Fs { op, path: fields.text("path")? });
    let db = |op| {
        Some(Operation::Db {
            op,
            db: fields.text("db")?,
            statement: fields.text("statement")?,
            facts: fields.facts(),
        })
    };
    let kv = |op| Some(Operation::Kv { op, store: fields.text("store")?, key: fields.text("key")? });
    match action {
        Action::ToolCall => Some(Operation::ToolCall { args: Value::Record(args) }),
        Action::FsRead => fs(FsOp::Read),
        Action::FsWrite => fs(FsOp::Write),
        Action::FsDelete => fs(FsOp::Delete),
        Action::FsList => fs(FsOp::List),
        Action::FsStat => fs(FsOp::Stat),
        Action::HttpRequest => http(fields),
        Action::NetConnect => Some(Operation::NetConnect {
            host: fields.text("host")?,
            ip: fields.text("ip")?.parse().ok()?,
            port: fields.number("port")?,
        }),
        Action::NetDns => Some(Operation::NetDns { host: fields.text("host")? }),
        Action::NetSocket => Some(Operation::NetSocket {
            transport: if fields.text("transport")? == "udp" { Transport::Udp } else { Transport::Tcp },
            host: fields.text("host"),
            ip: fields.text("ip")?.parse().ok()?,
            port: fields.number("port")?,
        }),
        Action::DbQuery => db(DbOp::Query),
        Action::DbExecute => db(DbOp::Execute),
        Action::KvGet => kv(KvOp::Get),
        Action::KvList => kv(KvOp::List),
        Action::KvSet => kv(KvOp::Set),
        Action::KvDelete => kv(KvOp::Delete),
        Action::ModelCall => {
            Some(Operation::Model { model: fields.text("model")?, tokens: fields.number("tokens")? })
        }
        Action::SecretRead => Some(Operation::Secret { name: fields.text("name")? }),
        Action::EnvRead => Some(Operation::EnvRead { name: fields.text("name")? }),
        Action::ArgsRead => Some(Operation::ArgsRead),
        Action::Stdio => {
            let stderr = fields.text("stream")? == "stderr";
            Some(Operation::Stdio(if stderr { Stream::Stderr } else { Stream::Stdout }))
        }
        Action::Clock => Some(Operation::Clock),
        Action::Random => Some(Operation::Random),
    }
}

fn http(fields: &Fields<'_>) -> Option<Operation> {
    let url = fields.text("url")?;
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (url, None),
    };
    Some(Operation::HttpRequest(HttpTarget {
        method: fields.text("method")?,
        scheme: if fields.text("scheme")? == "http" { Scheme::Http } else { Scheme::Https },
        host: fields.text("host")?,
        port: fields.number("port")?,
        path,
        query,
    }))
}

/// As much of the recorded bounds as a verdict can depend on.
pub(crate) fn bounds(bounds: &body::Obligations<'_>) -> Obligations {
    Obligations {
        egress: match bounds.egress {
            body::Egress::None => Egress::None,
            body::Egress::ByRule => Egress::ByRule,
        },
        sandbox: bounds.sandbox.as_ref().map(|sandbox| {
            Arc::new(Profile {
                name: (&*sandbox.name).into(),
                preopens: None,
                scratch_bytes: None,
                db_copy: sandbox.db_copy,
            })
        }),
        ..Obligations::default()
    }
}
