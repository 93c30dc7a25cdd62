//! A call as TOML, in both directions.

use std::fmt::Write as _;
use std::sync::Arc;

use govrun_verdict::{
    Action, Agent, Call, Digest, Operation, Scheme, SqlFacts, Stream, ToolRef, Transport, Value,
};
use toml::de::DeValue;

use crate::policy::Policy;
use crate::probe::{Attr, Val, operation, set};
use crate::toml_item::{Entry, Item, Table};

/// Keys that describe a call.
pub(crate) const CALL_KEYS: [&str; 25] = [
    "agent",
    "tenant",
    "session",
    "action",
    "tool",
    "digest",
    "caller",
    "args",
    "path",
    "host",
    "port",
    "scheme",
    "method",
    "ip",
    "transport",
    "db",
    "statement",
    "facts",
    "name",
    "stream",
    "store",
    "key",
    "model",
    "tokens",
    "query",
];

/// Read a call. An agent that is not registered, and a tool of no registered component, are taken as they are named: a
/// case may be about them.
pub(crate) fn call(table: &Table<'_>, policy: &Policy) -> Option<Call> {
    let text = |key| table.get(key).and_then(|item: Item<'_>| item.text());
    let actions: Vec<(&'static str, Action)> = Action::ALL.into_iter().map(|a| (a.name(), a)).collect();
    let action = match table.get("action") {
        Some(item) => item.one_of(&actions)?,
        None => Action::ToolCall,
    };
    let agent = table.need("agent").and_then(|item| item.text())?;
    let registered = policy.agent(agent);
    let tenant = text("tenant").map(Arc::from).or_else(|| registered.and_then(|a| a.tenant.clone()));
    let tool = table.need("tool").and_then(|item| item.text())?;
    let digest = match table.get("digest") {
        Some(item) => item.checked(Digest::parse(item.text()?).map_err(|e| e.to_string()))?,
        None => component(policy, tool),
    };
    let caller = text("caller")
        .map(|name| Arc::new(ToolRef { name: name.into(), component: component(policy, name) }));
    let mut call = Call {
        agent: Arc::new(Agent { name: agent.into(), tenant }),
        env: Arc::clone(policy.env()),
        session: text("session").unwrap_or("session-1").into(),
        tool: Arc::new(ToolRef { name: tool.into(), component: digest }),
        caller,
        parent: None,
        operation: operation(action),
    };
    if let (Some(item), Operation::ToolCall { args }) = (table.get("args"), &mut call.operation) {
        item.table("`args`")?;
        *args = value(&item);
    }
    for entry in table.entries() {
        resource(&mut call, &entry);
    }
    Some(call)
}

fn component(policy: &Policy, tool: &str) -> Digest {
    let name = tool.split('.').next().unwrap_or(tool);
    policy.tool(name).map_or_else(|| Digest::of(tool.as_bytes()), |entry| entry.digest)
}

/// Set what one key says about the resource; a key that the action does not have is reported.
fn resource(call: &mut Call, entry: &Entry<'_>) {
    let item = &entry.item;
    let text = || item.text().map(|t| Val::Text(t.to_owned()));
    let (attr, value) = match entry.key {
        "path" => (Attr::Path, text()),
        "host" => (Attr::Host, text()),
        "port" => (Attr::Port, item.decimal().map(Val::Number)),
        "scheme" => {
            let known = [("http", Scheme::Http), ("https", Scheme::Https)];
            (Attr::Scheme, item.one_of(&known).map(Val::Scheme))
        }
        "method" => (Attr::Method, text()),
        "ip" => {
            let parsed =
                item.text().and_then(|t| item.checked(t.parse().map_err(|_| format!("`{t}` is no address"))));
            (Attr::Ip, parsed.map(Val::Ip))
        }
        "transport" => {
            let known = [("tcp", Transport::Tcp), ("udp", Transport::Udp)];
            (Attr::Transport, item.one_of(&known).map(Val::Transport))
        }
        "db" => (Attr::Db, text()),
        "statement" => (Attr::Statement, text()),
        "facts" => (Attr::Facts, facts(item)),
        "name" => (Attr::Name, text()),
        "stream" => {
            let known = [("stdout", Stream::Stdout), ("stderr", Stream::Stderr)];
            (Attr::Stream, item.one_of(&known).map(Val::Stream))
        }
        "store" => (Attr::Store, text()),
        "key" => (Attr::Key, text()),
        "model" => (Attr::Model, text()),
        "tokens" => (Attr::Tokens, item.decimal().map(Val::Number)),
        "query" => {
            if let (Operation::HttpRequest(target), Some(query)) = (&mut call.operation, item.text()) {
                target.query = Some(query.to_owned());
            }
            return;
        }
        "args" if matches!(call.operation, Operation::ToolCall { .. }) => return,
        "args" => (Attr::Arg("".into()), Some(Val::Record)),
        _ => return,
    };
    let Some(value) = value else { return };
    if !set(call, &attr, &value) {
        entry.fail(
            format!("`{}` is nothing that `{}` has, or not such a value", entry.key, call.action()),
            None,
        );
    }
}

fn facts(item: &Item<'_>) -> Option<Val> {
    let table = item.table("`facts`")?;
    table.only(&["class", "tables", "columns", "functions"]);
    let names = |key| -> Vec<String> {
        let all = table.get(key).and_then(|item: Item<'_>| item.texts()).unwrap_or_default();
        all.into_iter().map(|(_, text)| text.to_owned()).collect()
    };
    let class = table.need("class").and_then(|item| item.text())?.to_owned();
    let (tables, columns, functions) = (names("tables"), names("columns"), names("functions"));
    Some(Val::Facts(Arc::new(SqlFacts { class, tables, columns, functions })))
}

/// An argument as TOML has it: `nan` and `inf` are values that policy cannot reason about.
fn value(item: &Item<'_>) -> Value {
    match item.value() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Integer(_) => item.decimal().map_or(Value::Null, Value::Number),
        DeValue::Float(f) => match f.as_str().trim_start_matches(['+', '-']) {
            "nan" => Value::Opaque("NaN".to_owned()),
            "inf" => Value::Opaque("inf".to_owned()),
            _ => item.decimal().map_or(Value::Null, Value::Number),
        },
        DeValue::Array(_) => Value::List(item.any_elements().unwrap_or_default().iter().map(value).collect()),
        DeValue::Table(_) => {
            let entries = item.table("an argument").map(|table| table.entries()).unwrap_or_default();
            Value::Record(entries.iter().map(|e| (e.key.to_owned(), value(&e.item))).collect())
        }
        DeValue::Datetime(_) => {
            item.fail("arguments have no dates: write a string");
            Value::Null
        }
    }
}

/// The call as the keys of a `[[case]]`, one a line.
#[must_use]
pub fn call_to_toml(call: &Call) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{key} = {value}");
    };
    line("agent", quoted(&call.agent.name));
    if let Some(tenant) = &call.agent.tenant {
        line("tenant", quoted(tenant));
    }
    line("action", quoted(call.action().name()));
    line("tool", quoted(&call.tool.name));
    line("digest", quoted(&call.tool.component.to_string()));
    if let Some(caller) = &call.caller {
        line("caller", quoted(&caller.name));
    }
    match &call.operation {
        Operation::ToolCall { args } => line("args", written(args)),
        Operation::Fs { path, .. } => line("path", quoted(path)),
        Operation::HttpRequest(target) => {
            line("host", quoted(&target.host));
            line("port", target.port.to_string());
            line("scheme", quoted(target.scheme.name()));
            line("method", quoted(&target.method));
            line("path", quoted(&target.path));
            target.query.iter().for_each(|query| line("query", quoted(query)));
        }
        Operation::NetConnect { host, ip, port } => {
            line("host", quoted(host));
            line("ip", quoted(&ip.to_string()));
            line("port", port.to_string());
        }
        Operation::NetDns { host } => line("host", quoted(host)),
        Operation::NetSocket { transport, host, ip, port } => {
            line("transport", quoted(transport.name()));
            host.iter().for_each(|host| line("host", quoted(host)));
            line("ip", quoted(&ip.to_string()));
            line("port", port.to_string());
        }
        Operation::Db { db, statement, facts, .. } => {
            line("db", quoted(db));
            line("statement", quoted(statement));
            facts.iter().for_each(|facts| line("facts", facts_written(facts)));
        }
        Operation::Kv { store, key, .. } => {
            line("store", quoted(store));
            line("key", quoted(key));
        }
        Operation::Model { model, tokens } => {
            line("model", quoted(model));
            line("tokens", tokens.to_string());
        }
        Operation::Secret { name } | Operation::EnvRead { name } => line("name", quoted(name)),
        Operation::Stdio(stream) => {
            line("stream", quoted(if *stream == Stream::Stdout { "stdout" } else { "stderr" }));
        }
        Operation::ArgsRead | Operation::Clock | Operation::Random => {}
    }
    out
}

fn facts_written(facts: &SqlFacts) -> String {
    let mut out = format!("{{ class = {}", quoted(&facts.class));
    for (key, names) in
        [("tables", &facts.tables), ("columns", &facts.columns), ("functions", &facts.functions)]
    {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|n| quoted(n)).collect();
            let _ = write!(out, ", {key} = [{}]", names.join(", "));
        }
    }
    out + " }"
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if crate::error::is_hidden(c) => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn written(value: &Value) -> String {
    match value {
        // TOML has no null; the fields that are null are left out.
        Value::Null => "{}".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Text(text) => quoted(text),
        Value::List(all) => format!("[{}]", all.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Record(fields) => {
            let known = fields.iter().filter(|(_, value)| *value != Value::Null);
            let inner: Vec<String> =
                known.map(|(name, value)| format!("{} = {}", quoted(name), written(value))).collect();
            if inner.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", inner.join(", ")) }
        }
        Value::Opaque(_) => "nan".to_owned(),
    }
}
