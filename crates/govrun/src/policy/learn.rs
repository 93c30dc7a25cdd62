//! `govrun policy learn`: shadow rules from what the log shows was permitted.
//!
//! What is learned is never wider than what was seen: every attribute that a call had is bound to exactly the value it had,
//! combinations included. A call that cannot be described exactly (a value that is only committed to, a list, a path that
//! would be a glob) is not learned from, and neither is a call that was refused, sandboxed or drilled, one whose effect was
//! refused after the decision, or any call of a session that ever carried a label.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use govrun_audit::form::Kind;
use govrun_audit::form::body::{Body, Status};
use govrun_audit::read::{Record, Records};
use govrun_verdict::{Call, DecisionId, Mode, Operation, Value, Verdict};

use crate::exit::{Exit, Failure};
use crate::recorded::{self, Opened};

/// Most different combinations of one rule; a rule with more would be a log, not a policy.
const MAX_COMBINATIONS: usize = 200;

/// What a rule is about: agent, action, tool and caller.
type Group = (String, &'static str, String, Option<String>);

#[derive(Default)]
struct Learned {
    groups: BTreeMap<Group, BTreeSet<String>>,
    seen: u64,
    refused: u64,
    tainted: u64,
    vague: u64,
}

/// Print the rules.
pub(super) fn run(logs: &Path, agent: Option<&str>) -> Result<Exit, Failure> {
    let (tainted, withdrawn) = not_to_be_trusted(logs)?;
    let mut learned = Learned::default();
    let mut opened = Opened::new(logs);
    each(logs, |record, body| {
        let Body::Decision(d) = body else { return };
        if agent.is_some_and(|agent| *d.agent != *agent) {
            return;
        }
        learned.seen += 1;
        let id = record.id();
        if d.verdict != Verdict::Allow || d.mode == Mode::Drill || withdrawn.contains(&id) {
            learned.refused += 1;
        } else if tainted.contains(&(d.agent.to_string(), d.session.to_string())) {
            learned.tainted += 1;
        } else {
            let rebuilt = recorded::call(d, |field| opened.value(id.log, id.seq, field));
            match rebuilt.filter(|r| r.whole).and_then(|r| described(&r.call).map(|c| (r.call, c))) {
                Some((call, conditions)) => {
                    learned.groups.entry(group(&call)).or_default().insert(conditions);
                }
                None => learned.vague += 1,
            }
        }
    })?;
    print!("{}", written(&learned));
    Ok(Exit::Ok)
}

fn each(logs: &Path, mut what: impl FnMut(&Record, &Body<'_>)) -> Result<(), Failure> {
    let unreadable =
        |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, format!("{e}; run `govrun audit verify`"));
    for record in Records::open(logs).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        if matches!(record.head.kind, Kind::Decision | Kind::Outcome) {
            let mut scratch = Vec::new();
            let body = record.body(&mut scratch).map_err(|e| unreadable(&e))?;
            what(&record, &body);
        }
    }
    Ok(())
}

/// Sessions that carried a label at any time, and decisions whose effect was refused after all.
#[expect(clippy::type_complexity, reason = "two sets")]
fn not_to_be_trusted(logs: &Path) -> Result<(BTreeSet<(String, String)>, BTreeSet<DecisionId>), Failure> {
    let (mut tainted, mut withdrawn) = (BTreeSet::new(), BTreeSet::new());
    each(logs, |_, body| match body {
        Body::Decision(d) if !d.inputs.labels.is_empty() => {
            tainted.insert((d.agent.to_string(), d.session.to_string()));
        }
        Body::Outcome(o) if o.status == Status::Refused => {
            withdrawn.insert(o.decision);
        }
        _ => {}
    })?;
    Ok((tainted, withdrawn))
}

fn group(call: &Call) -> Group {
    (
        call.agent.name.to_string(),
        call.action().name(),
        call.tool.name.to_string(),
        call.caller.as_ref().map(|caller| caller.name.to_string()),
    )
}

/// The conditions that hold for this call and no other of its group; `None` when there are none that say so exactly.
fn described(call: &Call) -> Option<String> {
    let names = [Some(&call.tool.name), Some(&call.agent.name), call.caller.as_ref().map(|c| &c.name)];
    if names.into_iter().flatten().any(|name| name.contains(['*', '?', '[', ']', '{', '}', '\\'])) {
        return None;
    }
    let eq = |name: &str, text: &str| format!("{name} = {{ eq = {} }}", quoted(text));
    let number = |name: &str, n: u64| format!("{name} = {{ eq = {n} }}");
    let mut all: Vec<String> = Vec::new();
    match &call.operation {
        Operation::ToolCall { args } => arguments("args", args, &mut all)?,
        Operation::Fs { path, .. } => all.push(eq("path", path)),
        Operation::HttpRequest(target) => {
            // Rules do not look at queries, so that one with a query would be learned as all.
            if target.query.is_some() {
                return None;
            }
            all.extend([
                eq("host", &target.host),
                number("port", target.port.into()),
                eq("scheme", target.scheme.name()),
                eq("method", &target.method),
                eq("path", &target.path),
            ]);
        }
        Operation::NetConnect { host, ip, port } => {
            all.extend([
                eq("host", host),
                format!("ip = {{ cidr = \"{ip}\" }}"),
                number("port", (*port).into()),
            ]);
        }
        Operation::NetDns { host } => all.push(eq("host", host)),
        Operation::NetSocket { transport, host, ip, port } => {
            all.push(eq("transport", transport.name()));
            all.push(host.as_ref().map_or("host = { has = false }".to_owned(), |host| eq("host", host)));
            all.extend([format!("ip = {{ cidr = \"{ip}\" }}"), number("port", (*port).into())]);
        }
        Operation::Db { db, statement, .. } => all.extend([eq("db", db), eq("statement", statement)]),
        Operation::Kv { store, key, .. } => all.extend([eq("store", store), eq("key", key)]),
        Operation::Model { model, tokens } => all.extend([eq("model", model), number("tokens", *tokens)]),
        Operation::Secret { name } | Operation::EnvRead { name } => all.push(eq("name", name)),
        // There is no condition about streams; `match` has one, and a group would need it too.
        Operation::Stdio(_) => return None,
        Operation::ArgsRead | Operation::Clock | Operation::Random => {}
    }
    if call.caller.is_none() {
        all.push("caller = { has = false }".to_owned());
    }
    Some(all.join(", "))
}

fn arguments(name: &str, value: &Value, into: &mut Vec<String>) -> Option<()> {
    let condition = match value {
        Value::Record(fields) => {
            for (field, value) in fields {
                if field.contains('.') || field.is_empty() {
                    return None;
                }
                arguments(&format!("{name}.{field}"), value, into)?;
            }
            return Some(());
        }
        Value::Null => "has = false".to_owned(),
        Value::Bool(b) => format!("eq = {b}"),
        Value::Number(n) => format!("eq = {n}"),
        Value::Text(text) => format!("eq = {}", quoted(text)),
        Value::List(_) | Value::Opaque(_) => return None,
    };
    into.push(format!("{} = {{ {condition} }}", quoted(name)));
    Some(())
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn written(learned: &Learned) -> String {
    let mut out = format!(
        "# Learned from {} decisions: {} were refused, sandboxed or drilled, {} of labelled sessions, {} cannot be said exactly.\n\
         # Every rule is in shadow: read it, then `govrun policy promote`.\n",
        learned.seen, learned.refused, learned.tainted, learned.vague
    );
    for ((group, combinations), number) in learned.groups.iter().zip(1..) {
        let (agent, action, tool, caller) = group;
        let caller =
            caller.as_ref().map(|caller| format!(", caller = {}", quoted(caller))).unwrap_or_default();
        if combinations.len() > MAX_COMBINATIONS {
            let _ = writeln!(
                out,
                "\n# {agent} {action} {tool}: {} different calls, too many for a rule",
                combinations.len()
            );
            continue;
        }
        let _ = write!(
            out,
            "\n[[rule]]\nid = \"learned-{number}\"\nmatch = {{ agent = {}, action = \"{action}\", tool = {}{caller} }}\n",
            quoted(agent),
            quoted(tool)
        );
        let _ = match combinations.iter().collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            [one] if one.is_empty() => Ok(()),
            [one] => writeln!(out, "when = {{ {one} }}"),
            many => {
                let lines: Vec<String> = many.iter().map(|c| format!("  {{ {c} }},\n")).collect();
                writeln!(out, "when = {{ any = [\n{}] }}", lines.concat())
            }
        };
        let _ = writeln!(out, "verdict = \"allow\"\nreason = \"LEARNED\"\nmode = \"shadow\"");
    }
    out
}
