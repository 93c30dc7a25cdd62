//! `govrun audit show`: the records, all or those asked for.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use clap::{Args, ValueEnum};
use govrun_audit::form::Kind;
use govrun_audit::form::body::{Body, Decision, Field};
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

/// Which records. All that are given must hold; all but the type hold for decisions only.
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
        let Self { agent, tool, verdict, reason, rule, kind: _ } = self;
        agent.is_some() || tool.is_some() || verdict.is_some() || reason.is_some() || rule.is_some()
    }

    fn wants(&self, kind: Kind, body: &Body<'_>) -> bool {
        if self.kind.is_some_and(|wanted| wanted != kind) {
            return false;
        }
        match body {
            Body::Decision(d) => self.wants_decision(d),
            Body::Genesis(_)
            | Body::PolicyLoad(_)
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
    let mut out = std::io::stdout().lock();
    let terminal = out.is_terminal();
    for record in Records::open(folder).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        let mut scratch = Vec::new();
        let body = record.body(&mut scratch).map_err(|e| unreadable(&e))?;
        if !filter.wants(record.head.kind, &body) {
            continue;
        }
        let mut line = match lines {
            Lines::Human => human(&record, &body).into_bytes(),
            // Byte for byte for a program; for a terminal, with the same meaning and nothing it would obey.
            Lines::Jsonl if terminal => plain_json(&String::from_utf8_lossy(&record.line)).into_bytes(),
            Lines::Jsonl => record.line.clone(),
        };
        line.push(b'\n');
        match out.write_all(&line) {
            Ok(()) => {}
            // Whoever read it has seen enough, as with `| head`.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(e) => return Err(Failure::new(Exit::Runtime, e)),
        }
    }
    Ok(Exit::Ok)
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
