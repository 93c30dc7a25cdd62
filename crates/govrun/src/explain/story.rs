//! What is known about one decision, in the shape `govrun.explain/v1`.

use std::path::Path;

use govrun_audit::Opening;
use govrun_audit::form::FormError;
use govrun_audit::form::body::{self, Body, Field};
use govrun_audit::read::{self, Record, Story};
use govrun_policy::Policy;
use govrun_verdict::{BUILTIN_REASONS, Call, RuleId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::archive;
use crate::recorded;
use crate::text::time;

#[derive(Serialize)]
pub(super) struct Explained {
    schema: &'static str,
    pub(super) decision: String,
    pub(super) time: String,
    pub(super) verdict: &'static str,
    pub(super) mode: String,
    pub(super) reason: Reason,
    pub(super) agent: String,
    pub(super) tenant: Option<String>,
    pub(super) session: String,
    pub(super) tool: String,
    pub(super) component: String,
    pub(super) caller: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) action: &'static str,
    pub(super) resource: Vec<Shown>,
    pub(super) policy: String,
    pub(super) env: String,
    /// The rule that decided; absent when the default did.
    pub(super) rule: Option<String>,
    pub(super) matched: Vec<Matched>,
    /// What would have to be otherwise for the call to be allowed.
    pub(super) nearest: Option<Nearest>,
    pub(super) shadow: Option<Shadow>,
    pub(super) budgets: Vec<Value>,
    pub(super) obligations: Value,
    pub(super) bounds: Option<Value>,
    pub(super) escalate: Option<Value>,
    pub(super) notify: Vec<String>,
    pub(super) severity: String,
    pub(super) decide_ns: u64,
    pub(super) outcome: Option<Outcome>,
    pub(super) approvals: Vec<Approval>,
    pub(super) decided_inside: Vec<Inside>,
    /// What could not be shown, and why.
    pub(super) missing: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Reason {
    pub(super) code: String,
    pub(super) sentence: Option<String>,
    pub(super) next: Option<&'static str>,
}

/// A piece of guest data: clear, opened, or only committed to.
#[derive(Serialize)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) how: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Value>,
}

#[derive(Serialize)]
pub(super) struct Matched {
    pub(super) rule: String,
    pub(super) decided: bool,
    /// Only because an attribute was unknown.
    pub(super) unknown: bool,
    pub(super) at: Option<String>,
    pub(super) source: Option<String>,
    /// Its conditions, held against what was recorded.
    pub(super) conditions: Vec<Condition>,
}

#[derive(Serialize)]
pub(super) struct Condition {
    pub(super) place: String,
    pub(super) about: Option<String>,
    pub(super) actual: Option<String>,
    pub(super) truth: &'static str,
}

#[derive(Serialize)]
pub(super) struct Nearest {
    pub(super) changes: Vec<String>,
    pub(super) rule: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Shadow {
    pub(super) verdict: &'static str,
    pub(super) reason: String,
    pub(super) rule: Option<String>,
    pub(super) at: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) status: Value,
    pub(super) error: Option<String>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) rows: u64,
    pub(super) fuel: u64,
    pub(super) duration_us: u64,
    pub(super) absorbed: Vec<Absorbed>,
    pub(super) absorbed_omitted: u64,
    pub(super) note: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Absorbed {
    pub(super) kind: Value,
    pub(super) subject: Shown,
    pub(super) size: u64,
}

#[derive(Serialize)]
pub(super) struct Approval {
    pub(super) time: String,
    pub(super) ticket: String,
    pub(super) event: String,
    pub(super) by: Option<String>,
    pub(super) used_by: Option<String>,
    pub(super) detail: Option<String>,
}

/// A decision that was made while this one's call was running.
#[derive(Serialize)]
pub(super) struct Inside {
    pub(super) decision: String,
    pub(super) verdict: &'static str,
    pub(super) action: &'static str,
    pub(super) reason: String,
}

/// Why the record itself could not be told.
#[derive(Debug)]
pub(super) struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<FormError> for Unreadable {
    fn from(e: FormError) -> Self {
        Self(e.to_string())
    }
}

/// Everything that the records, the openings and the archived policy say.
pub(super) fn tell(folder: &Path, story: &Story) -> Result<Explained, Unreadable> {
    let mut scratch = Vec::new();
    let Body::Decision(d) = story.decision.body(&mut scratch)? else {
        return Err(Unreadable(format!("record {} is not a decision", story.decision.id())));
    };
    let mut missing = Vec::new();
    let policy = archive::load(folder, d.policy).map_err(|why| missing.push(why)).ok();
    let mut openings = Openings { folder, missing: Vec::new() };
    let opened = openings.of(&story.decision);
    let resource: Vec<Shown> = d.inputs.fields.iter().map(|f| shown(f, &opened)).collect();
    let rebuilt = recorded::call(&d, |field| value(field, &opened));
    let call = rebuilt.as_ref().map(|rebuilt| (&rebuilt.call, Timestamp(d.inputs.at.0)));
    let mut told = Explained {
        schema: "govrun.explain/v1",
        decision: story.decision.id().to_string(),
        time: time(story.decision.head.time),
        verdict: d.verdict.name(),
        mode: name(&d.mode),
        reason: reason(&d, policy.as_ref(), &resource),
        agent: d.agent.to_string(),
        tenant: d.tenant.as_ref().map(ToString::to_string),
        session: d.session.to_string(),
        tool: d.tool.name.to_string(),
        component: d.tool.component.to_string(),
        caller: d.caller.as_ref().map(|c| c.name.to_string()),
        parent: d.parent.map(|id| id.to_string()),
        action: d.action.0.name(),
        policy: d.policy.to_string(),
        env: d.inputs.env.to_string(),
        rule: d.rule.as_ref().map(ToString::to_string),
        matched: matched(&d, policy.as_ref(), call),
        nearest: policy
            .as_ref()
            .zip(call)
            .and_then(|(policy, (call, now))| nearest(policy.nearest(call, now)?)),
        shadow: d.shadow.as_ref().map(|s| shadow(s, policy.as_ref())),
        budgets: d.inputs.budgets.iter().map(|b| json!(b)).collect(),
        obligations: json!(d.obligations),
        bounds: d.inputs.bounds.as_ref().map(|b| json!(b)),
        escalate: d.escalate.as_ref().map(|e| json!(e)),
        notify: d.notify.iter().map(ToString::to_string).collect(),
        severity: name(&d.severity),
        decide_ns: d.decide_ns.0,
        resource,
        outcome: None,
        approvals: Vec::new(),
        decided_inside: Vec::new(),
        missing,
    };
    for record in &story.about {
        told.add(record, &mut openings)?;
    }
    told.missing.append(&mut openings.missing);
    Ok(told)
}

impl Explained {
    fn add(&mut self, record: &Record, openings: &mut Openings<'_>) -> Result<(), Unreadable> {
        let mut scratch = Vec::new();
        match record.body(&mut scratch)? {
            Body::Outcome(o) => self.outcome = Some(outcome(&o, &openings.of(record))),
            Body::Escalation(e) => self.approvals.push(Approval {
                time: time(record.head.time),
                ticket: e.ticket.to_string(),
                event: "requested".to_owned(),
                by: None,
                used_by: None,
                detail: Some(format!(
                    "needs {} of {}, until {}",
                    e.need.0,
                    e.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
                    time(e.expires.0)
                )),
            }),
            Body::Approval(a) => self.approvals.push(Approval {
                time: time(record.head.time),
                ticket: a.ticket.to_string(),
                event: name(&a.event),
                by: a.signed.as_ref().map(|s| s.approver.to_string()),
                used_by: a.used_by.map(|id| id.to_string()),
                detail: (a.decision.to_string() != self.decision)
                    .then(|| format!("asked for by {}", a.decision)),
            }),
            Body::Decision(inner) => self.decided_inside.push(Inside {
                decision: record.id().to_string(),
                verdict: inner.verdict.name(),
                action: inner.action.0.name(),
                reason: inner.reason.to_string(),
            }),
            Body::Genesis(_)
            | Body::PolicyLoad(_)
            | Body::ModeChange(_)
            | Body::Drill(_)
            | Body::KeyEpoch(_)
            | Body::Gap(_)
            | Body::Heartbeat(_)
            | Body::Recover(_)
            | Body::IoError(_)
            | Body::ClockStep(_)
            | Body::Open(_)
            | Body::Close(_) => {}
        }
        Ok(())
    }
}

/// The openings of records, and what went wrong in reading them.
struct Openings<'a> {
    folder: &'a Path,
    missing: Vec<String>,
}

impl Openings<'_> {
    fn of(&mut self, record: &Record) -> Vec<Opening<'static>> {
        read::openings(self.folder, record.id()).unwrap_or_else(|e| {
            self.missing.push(format!("openings cannot be read: {e}"));
            Vec::new()
        })
    }
}

fn shown(field: &Field<'_>, openings: &[Opening<'_>]) -> Shown {
    let name = field.name.to_string();
    if let Some(clear) = &field.clear {
        return Shown { name, how: "clear", value: Some(json!(clear)) };
    }
    // An opening is believed when it opens the commitment, whatever file it came from.
    let opens = |o: &&Opening<'_>| {
        *o.field == *name && field.commitment.as_ref().is_some_and(|commitment| o.opens(&commitment.0))
    };
    match openings.iter().find(opens) {
        Some(opening) => Shown { name, how: "opened", value: Some(json!(opening.value)) },
        None => Shown { name, how: "committed", value: None },
    }
}

/// The sentence of the rule that decided, or of the registry.
fn reason(d: &body::Decision<'_>, policy: Option<&Policy>, resource: &[Shown]) -> Reason {
    let builtin = BUILTIN_REASONS.iter().find(|info| info.code == &*d.reason);
    let rule = d.rule.as_ref().and_then(|id| archive::rule(policy, id));
    let message = rule.and_then(|rule| rule.message.as_ref()).map(|message| {
        archive::fill(message, |name| match resource.iter().find(|s| s.name == name) {
            Some(Shown { value: Some(Value::String(text)), .. }) => text.clone(),
            Some(Shown { value: Some(value), .. }) => value.to_string(),
            Some(Shown { value: None, .. }) => "(committed)".to_owned(),
            None => format!("{{{name}}}"),
        })
    });
    Reason {
        code: d.reason.to_string(),
        sentence: message.or_else(|| builtin.map(|info| info.sentence.to_owned())),
        next: builtin.map(|info| info.next),
    }
}

/// The value of a field: in clear, or opened by something that really opens it.
fn value(field: &Field<'_>, openings: &[Opening<'_>]) -> Option<govrun_verdict::Value> {
    if let Some(clear) = &field.clear {
        return Some(clear.0.clone().into_owned());
    }
    let commitment = field.commitment.as_ref()?;
    let opening = openings.iter().find(|o| *o.field == *field.name && o.opens(&commitment.0))?;
    Some(opening.value.0.clone().into_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "it ends a chain of options")]
fn nearest(found: govrun_policy::Nearest) -> Option<Nearest> {
    Some(Nearest {
        changes: found.changes.into_iter().map(|(name, value)| format!("{name} = {value}")).collect(),
        rule: found.rule.map(|rule| rule.to_string()),
    })
}

fn conditions(rule: &str, policy: Option<&Policy>, call: Option<(&Call, Timestamp)>) -> Vec<Condition> {
    let (Some(policy), Some((call, now)), Ok(id)) = (policy, call, RuleId::new(rule)) else {
        return Vec::new();
    };
    let held = policy.held(&id, call, now).into_iter();
    held.map(|h| Condition { place: h.place, about: h.about, actual: h.actual, truth: h.truth }).collect()
}

fn matched(
    d: &body::Decision<'_>,
    policy: Option<&Policy>,
    call: Option<(&Call, Timestamp)>,
) -> Vec<Matched> {
    let decided = d.rule.as_deref();
    d.matched
        .iter()
        .map(|m| {
            let written = archive::rule(policy, &m.rule);
            Matched {
                rule: m.rule.to_string(),
                decided: decided == Some(&*m.rule),
                unknown: m.unknown,
                at: written.map(|rule| rule.origin.to_string()),
                source: written.map(|rule| rule.source.clone()),
                conditions: conditions(&m.rule, policy, call),
            }
        })
        .collect()
}

fn shadow(s: &body::Shadow<'_>, policy: Option<&Policy>) -> Shadow {
    let written = s.rule.as_ref().and_then(|id| archive::rule(policy, id));
    Shadow {
        verdict: s.verdict.name(),
        reason: s.reason.to_string(),
        rule: s.rule.as_ref().map(ToString::to_string),
        at: written.map(|rule| rule.origin.to_string()),
    }
}

fn outcome(o: &body::Outcome<'_>, openings: &[Opening<'_>]) -> Outcome {
    let absorbed = |a: &body::Absorbed<'_>| Absorbed {
        kind: json!(a.kind),
        subject: shown(&a.subject, openings),
        size: a.size.0,
    };
    Outcome {
        status: json!(o.status),
        error: o.error.as_ref().map(ToString::to_string),
        bytes_in: o.bytes_in.0,
        bytes_out: o.bytes_out.0,
        rows: o.rows.0,
        fuel: o.fuel.0,
        duration_us: o.duration_us.0,
        absorbed: o.absorbed.iter().map(absorbed).collect(),
        absorbed_omitted: o.absorbed_omitted.map_or(0, |n| n.0),
        note: o.note.as_ref().map(ToString::to_string),
    }
}

/// The one word that stands for a value in the record.
fn name(value: &impl Serialize) -> String {
    match json!(value) {
        Value::String(name) => name,
        other => other.to_string(),
    }
}
