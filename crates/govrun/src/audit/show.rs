//! `govrun audit show`: the records, all or those asked for.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use clap::{Args, ValueEnum};
use govrun_audit::form::body::{Body, Decision, Field};
use govrun_audit::form::{FormError, FrameHead, Kind};
use govrun_audit::read::{Record, Records};
use govrun_verdict::Verdict;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::text::{plain, plain_json, short, time};

/// Most characters of the resource in a line.
const MAX_RESOURCE: usize = 160;

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lines {
    /// One line a record, for people.
    Human,
    /// The records as they are stored.
    Jsonl,
}

/// Which records. All that are given must hold; all but type and times hold for decisions only.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// Decisions about this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Decisions about this tool function, such as `payments.send`, or all of a component, such as `payments`.
    #[arg(long)]
    tool: Option<String>,
    /// Decisions with this verdict: allow, throttle, sandbox, escalate or block.
    #[arg(long, value_parser = verdict)]
    verdict: Option<Verdict>,
    /// Decisions with this reason code.
    #[arg(long)]
    reason: Option<String>,
    /// Decisions that this rule made or matched.
    #[arg(long)]
    rule: Option<String>,
    /// Records of this type, such as `decision` or `outcome`.
    #[arg(long = "type", value_parser = kind)]
    kind: Option<Kind>,
    /// Records from this time on, such as `2026-11-25T17:00:00Z`.
    #[arg(long, value_parser = instant)]
    since: Option<u64>,
    /// Records before this time.
    #[arg(long, value_parser = instant)]
    until: Option<u64>,
}

fn instant(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "a time such as 2026-11-25T17:00:00Z".to_owned())?;
    u64::try_from(time.as_microsecond()).map_err(|_| "a time after 1970".to_owned())
}

fn verdict(name: &str) -> Result<Verdict, String> {
    Verdict::from_name(name).ok_or_else(|| "one of allow, throttle, sandbox, escalate, block".to_owned())
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    Kind::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| format!("one of {}", names()))
}

impl Filter {
    fn looks_inside(&self) -> bool {
        let Self { agent, tool, verdict, reason, rule, kind: _, since: _, until: _ } = self;
        agent.is_some() || tool.is_some() || verdict.is_some() || reason.is_some() || rule.is_some()
    }

    pub(super) fn wants(&self, head: &FrameHead, body: &Body<'_>) -> bool {
        let in_time = self.since.is_none_or(|since| head.time >= since)
            && self.until.is_none_or(|until| head.time < until);
        if !in_time || self.kind.is_some_and(|wanted| wanted != head.kind) {
            return false;
        }
        match body {
            Body::Decision(d) => self.wants_decision(d),
            Body::Genesis(_)
            | Body::PolicyLoad(_)
            | Body::ModeChange(_)
            | Body::Drill(_)
            | Body::KeyEpoch(_)
            | Body::Gap(_)
            | Body::Heartbeat(_)
            | Body::Outcome(_)
            | Body::Escalation(_)
            | Body::Approval(_)
            | Body::Recover(_)
            | Body::IoError(_)
            | Body::ClockStep(_)
            | Body::Open(_)
            | Body::Close(_) => !self.looks_inside(),
        }
    }

    fn wants_decision(&self, d: &Decision<'_>) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|w| w == found);
        let tool = self.tool.as_ref().is_none_or(|wanted| {
            d.tool
                .name
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let rule = self.rule.as_ref().is_none_or(|wanted| {
            d.rule.as_deref() == Some(wanted) || d.matched.iter().any(|m| *m.rule == **wanted)
        });
        let verdict = self.verdict.is_none_or(|wanted| wanted == d.verdict);
        is(&self.agent, &d.agent) && is(&self.reason, &d.reason) && tool && rule && verdict
    }
}

/// Print the records of every log under `folder`, oldest first.
pub(crate) fn run(folder: &Path, filter: &Filter, lines: Lines) -> Result<Exit, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
    let mut printer = Printer::new(lines);
    for record in Records::open(folder).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        let line = printer.line(&record, filter).map_err(|e| unreadable(&e))?;
        if let Some(line) = line
            && !printer.print(&line)?
        {
            break;
        }
    }
    Ok(Exit::Ok)
}

/// Prints records on standard output.
pub(super) struct Printer {
    out: std::io::StdoutLock<'static>,
    lines: Lines,
    terminal: bool,
    scratch: Vec<u8>,
}

impl Printer {
    pub(super) fn new(lines: Lines) -> Self {
        let out = std::io::stdout().lock();
        Self { terminal: out.is_terminal(), out, lines, scratch: Vec::new() }
    }

    /// The line of a record that passes the filter.
    pub(super) fn line(&mut self, record: &Record, filter: &Filter) -> Result<Option<Vec<u8>>, FormError> {
        let body = record.body(&mut self.scratch)?;
        if !filter.wants(&record.head, &body) {
            return Ok(None);
        }
        let mut line = match self.lines {
            Lines::Human => human(record, &body).into_bytes(),
            // Byte for byte for a program; for a terminal, with the same meaning and nothing it would obey.
            Lines::Jsonl if self.terminal => plain_json(&String::from_utf8_lossy(&record.line)).into_bytes(),
            Lines::Jsonl => record.line.clone(),
        };
        line.push(b'\n');
        Ok(Some(line))
    }

    /// False when whoever read it has seen enough, as with `| head`.
    pub(super) fn print(&mut self, line: &[u8]) -> Result<bool, Failure> {
        match self.out.write_all(line).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(Failure::new(Exit::Runtime, e)),
        }
    }
}

/// Time, id, and what the record says, in one line.
fn human(record: &Record, body: &Body<'_>) -> String {
    let what = match body {
        Body::Decision(d) => format!(
            "{:<8} {}  {} {} {}  {}",
            d.verdict.name(),
            plain(&d.reason),
            plain(&d.agent),
            plain(&d.tool.name),
            d.action.0.name(),
            resource(&d.inputs.fields)
        ),
        Body::Outcome(o) => format!("outcome  {} of {}", word(&json!(o.status)), o.decision),
        Body::Escalation(e) => format!("escalation  {} for {}", plain(&e.ticket), e.decision),
        Body::Approval(a) => {
            format!("approval  {} {} for {}", plain(&a.ticket), word(&json!(a.event)), a.decision)
        }
        Body::PolicyLoad(p) => format!("policy_load  {} env {}", p.policy, plain(&p.env)),
        Body::ModeChange(m) => format!(
            "mode_change  {} from {} to {} by {}",
            plain(&m.scope),
            plain(&m.from),
            plain(&m.to),
            plain(&m.by)
        ),
        Body::Drill(d) => format!("drill  {} {} by {}", plain(&d.name), word(&json!(d.event)), plain(&d.by)),
        Body::KeyEpoch(e) => format!("key_epoch  {} begins ({})", e.epoch.0, word(&json!(e.reason))),
        Body::Gap(g) => format!(
            "gap  {} calls refused from {} to {}: {}",
            g.calls.0,
            time(g.from.0),
            time(g.to.0),
            plain(&g.why)
        ),
        Body::Heartbeat(h) => format!("heartbeat  {} logs beside this one", h.siblings.len()),
        Body::IoError(e) => format!("io_error  {}: {}", plain(&e.op), plain(&e.error)),
        Body::Close(c) => format!("close  {}", plain(&c.reason)),
        Body::Open(o) => format!("open  {} pid {}", plain(&o.program), o.pid.0),
        Body::Genesis(g) => format!("genesis  {}", plain(&g.origin)),
        Body::Recover(r) => format!("recover  {} records kept", r.recovered.0),
        Body::ClockStep(c) => format!("clock_step  from {} to {}", time(c.from.0), time(c.to.0)),
    };
    format!("{}  {}  {what}", time(record.head.time), record.id())
}

fn word(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn resource(fields: &[Field<'_>]) -> String {
    let shown: Vec<String> = fields
        .iter()
        .map(|field| match &field.clear {
            Some(value) => format!("{}={}", &*field.name, json!(value)),
            None => format!("{}=committed", &*field.name),
        })
        .collect();
    short(&shown.join(" "), MAX_RESOURCE)
}
