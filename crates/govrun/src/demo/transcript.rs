//! Lines of the demo, each rendered from the log record whose id it prints.

use std::collections::BTreeMap;
use std::path::Path;

use govrun_audit::read::Records;
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// The records of one scene.
pub(super) struct Scene {
    records: Vec<Entry>,
}

/// One record with its id.
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) body: Value,
}

impl Entry {
    fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or("-")
    }

    fn number(&self, field: &str) -> u64 {
        self.body.get(field).and_then(Value::as_u64).unwrap_or(0)
    }

    fn is(&self, kind: &str) -> bool {
        self.text("t") == kind
    }

    /// True for a decision of this action.
    pub(super) fn decided(&self, action: &str) -> bool {
        self.is("decision") && self.text("action") == action
    }

    /// True when nothing happened.
    pub(super) fn refused(&self) -> bool {
        self.is("decision") && !matches!(self.text("verdict"), "allow" | "sandbox")
    }

    pub(super) fn verdict(&self) -> &str {
        self.text("verdict")
    }

    pub(super) fn tool(&self) -> &str {
        self.body.get("tool").and_then(|t| t.get("name")).and_then(Value::as_str).unwrap_or("-")
    }

    /// When it was decided, in microseconds.
    pub(super) fn at(&self) -> u64 {
        self.body.get("inputs").and_then(|i| i.get("at")).and_then(Value::as_u64).unwrap_or(0)
    }

    /// What is in clear of the arguments and the resource.
    fn fields(&self) -> String {
        let fields = self.body.get("inputs").and_then(|i| i.get("fields")).and_then(Value::as_array);
        let shown = fields.into_iter().flatten().filter_map(|field| {
            let name = field.get("name")?.as_str()?;
            let name = name.strip_prefix("args.").unwrap_or(name);
            match field.get("clear")? {
                Value::String(s) => Some(format!("{name}={s}")),
                other => Some(format!("{name}={other}")),
            }
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

impl Scene {
    /// The records under `folder` from number `from` on, and the number after them.
    pub(super) fn read(folder: &Path, from: u64) -> Result<(Self, u64), Failure> {
        let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
        let mut records = Vec::new();
        let mut next = from;
        for record in Records::open(folder).map_err(|e| unreadable(&e))? {
            let record = record.map_err(|e| unreadable(&e))?;
            if record.head.seq < from {
                continue;
            }
            next = record.head.seq.saturating_add(1);
            let body = serde_json::from_slice(&record.line).map_err(|e| unreadable(&e))?;
            records.push(Entry { id: record.id().to_string(), body });
        }
        Ok((Self { records }, next))
    }

    pub(super) fn all(&self) -> &[Entry] {
        &self.records
    }

    /// A line for each decision that `pick` takes, in the order of the log.
    pub(super) fn lines(&self, pick: impl Fn(&Entry) -> bool) -> Vec<String> {
        let ends: BTreeMap<&str, &Entry> =
            self.records.iter().filter(|r| r.is("outcome")).map(|r| (r.text("decision"), r)).collect();
        let picked = self.records.iter().filter(|r| r.is("decision") && pick(r));
        picked.flat_map(|r| decision(r, ends.get(r.id.as_str()).copied())).collect()
    }

    /// A line for each record of an approval.
    pub(super) fn approvals(&self) -> Vec<String> {
        let of = |r: &&Entry| r.is("escalation") || r.is("approval");
        self.records.iter().filter(of).map(approval).collect()
    }
}

fn decision(entry: &Entry, end: Option<&Entry>) -> Vec<String> {
    let by = if entry.decided("tool.call") { String::new() } else { format!("{} by ", entry.text("action")) };
    let took = match end {
        Some(end) => micros(end.number("duration_us")),
        None => format!("decided in {}", micros(entry.number("decide_ns") / 1_000)),
    };
    let what = format!("{by}{} {}", entry.tool(), entry.fields());
    let mut lines = vec![format!(
        "  {:<8} {}\n           {} · rule {} · record {} · {took}",
        entry.verdict(),
        what.trim_end(),
        entry.text("reason"),
        entry.text("rule"),
        entry.id,
    )];
    let absorbed = end.and_then(|e| e.body.get("absorbed")).and_then(Value::as_array);
    for effect in absorbed.into_iter().flatten() {
        let subject = effect.get("subject").unwrap_or(&Value::Null);
        let subject = subject.get("clear").and_then(Value::as_str).unwrap_or("(committed)");
        let kind = effect.get("kind").and_then(Value::as_str).unwrap_or("-");
        lines.push(format!(
            "           absorbed: {kind} {subject} · record {}",
            end.map_or("-", |e| e.id.as_str())
        ));
    }
    lines
}

fn approval(entry: &Entry) -> String {
    let event = if entry.is("escalation") { "asked for" } else { entry.text("event") };
    let who = entry.body.get("signed").and_then(|b| b.get("approver")).and_then(Value::as_str);
    let who = who.map(|w| format!(" by {w}")).unwrap_or_default();
    format!("           approval {} {event}{who} · record {}", entry.text("ticket"), entry.id)
}

/// Microseconds in the unit a person reads.
pub(super) fn micros(us: u64) -> String {
    if us < 1_000 { format!("{us} µs") } else { format!("{}.{} ms", us / 1_000, us % 1_000 / 100) }
}
