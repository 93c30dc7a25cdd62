//! `govrun audit export`: the records for other systems. Guest data goes out only as the record shows it.

use std::path::Path;

use clap::ValueEnum;
use govrun_audit::form::Hex;
use govrun_audit::form::body::{Body, Decision};
use govrun_audit::hash::leaf;
use govrun_audit::read::{Record, Records};
use govrun_verdict::{Action, Severity, Verdict};
use serde_json::{Value, json};

use super::show::{Filter, Lines, Printer};
use crate::exit::{Exit, Failure};
use crate::text::time;

/// Version of OCSF that the events follow.
const OCSF: &str = "1.6.0";

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// The records as they are stored.
    Jsonl,
    /// Decisions as OCSF API activity (class 6003); the record is in `raw_data`.
    Ocsf,
    /// Every record as a CloudEvent 1.0, the record in `data`.
    Cloudevents,
}

/// Print the records that pass the filter.
pub(crate) fn run(folder: &Path, filter: &Filter, shape: Shape) -> Result<Exit, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
    let mut printer = Printer::new(Lines::Jsonl);
    for record in Records::open(folder).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        let line = match shape {
            Shape::Jsonl => printer.line(&record, filter).map_err(|e| unreadable(&e))?,
            Shape::Ocsf | Shape::Cloudevents => {
                let mut scratch = Vec::new();
                let body = record.body(&mut scratch).map_err(|e| unreadable(&e))?;
                let event = filter.wants(&record.head, &body).then(|| event(&record, &body, shape)).flatten();
                event.map(|event| format!("{event}\n").into_bytes())
            }
        };
        if let Some(line) = line
            && !printer.print(&line)?
        {
            break;
        }
    }
    Ok(Exit::Ok)
}

fn event(record: &Record, body: &Body<'_>, shape: Shape) -> Option<Value> {
    match (shape, body) {
        (Shape::Ocsf, Body::Decision(d)) => Some(ocsf(record, d)),
        (Shape::Ocsf | Shape::Jsonl, _) => None,
        (Shape::Cloudevents, _) => cloud_event(record),
    }
}

fn cloud_event(record: &Record) -> Option<Value> {
    let data: Value = serde_json::from_slice(&record.line).ok()?;
    Some(json!({
        "specversion": "1.0",
        "id": record.id().to_string(),
        "source": format!("urn:govrun:log:{}", record.log),
        "type": format!("dev.govrun.audit.{}", record.head.kind.name()),
        "time": time(record.head.time),
        "datacontenttype": "application/json",
        "dataschema": "urn:govrun:audit-log:v1",
        // Ties the event to the signed log: the leaf hash of the record.
        "leafhash": Hex(leaf(&record.line)).to_string(),
        "data": data,
    }))
}

fn ocsf(record: &Record, d: &Decision<'_>) -> Value {
    let activity = activity(d.action.0);
    let (status, status_id) = match d.verdict {
        Verdict::Allow | Verdict::Sandbox => ("Success", 1),
        Verdict::Throttle | Verdict::Escalate | Verdict::Block => ("Failure", 2),
    };
    let disposition = match d.verdict {
        Verdict::Allow => 1,
        Verdict::Block => 2,
        Verdict::Sandbox => 4,
        // Isolated, challenge, delayed.
        Verdict::Escalate => 23,
        Verdict::Throttle => 14,
    };
    let mut event = json!({
        "metadata": {
            "version": OCSF,
            "product": { "name": "govrun", "vendor_name": "govrun", "version": env!("CARGO_PKG_VERSION") },
            "uid": record.id().to_string(),
            "log_name": record.log.to_string(),
            "sequence": record.head.seq,
            "profiles": ["security_control"],
        },
        "category_uid": 6,
        "class_uid": 6003,
        "activity_id": activity,
        "type_uid": 6003 * 100 + activity,
        "time": record.head.time / 1_000,
        "severity_id": severity(d.severity),
        "status": status,
        "status_id": status_id,
        "status_code": &*d.reason,
        "action_id": if status_id == 1 { 1 } else { 2 },
        "disposition_id": disposition,
        "actor": {
            "user": { "name": &*d.agent, "type_id": 3 },
            "session": { "uid": &*d.session },
            "app_name": &*d.tool.name,
        },
        "api": { "operation": d.action.0.name(), "service": { "name": &*d.tool.name } },
        "src_endpoint": { "name": &*d.agent },
        "policy": { "uid": d.policy.to_string(), "name": &*d.inputs.env },
        "raw_data": String::from_utf8_lossy(&record.line),
        "unmapped": {
            "verdict": d.verdict.name(),
            "mode": &d.mode,
            "component": d.tool.component.to_string(),
            "leaf_hash": Hex(leaf(&record.line)).to_string(),
        },
    });
    if let (Some(object), Some(rule)) = (event.as_object_mut(), &d.rule) {
        object.insert("firewall_rule".to_owned(), json!({ "name": &**rule }));
    }
    event
}

/// The activities of OCSF's API activity: 1 create, 2 read, 3 update, 4 delete, 99 other.
const fn activity(action: Action) -> u64 {
    match action {
        Action::FsRead
        | Action::FsList
        | Action::FsStat
        | Action::DbQuery
        | Action::KvGet
        | Action::KvList
        | Action::SecretRead
        | Action::EnvRead
        | Action::ArgsRead => 2,
        Action::FsWrite | Action::DbExecute | Action::KvSet => 3,
        Action::FsDelete | Action::KvDelete => 4,
        Action::ToolCall
        | Action::HttpRequest
        | Action::NetConnect
        | Action::NetDns
        | Action::NetSocket
        | Action::ModelCall
        | Action::Stdio
        | Action::Clock
        | Action::Random => 99,
    }
}

const fn severity(severity: Severity) -> u64 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}
