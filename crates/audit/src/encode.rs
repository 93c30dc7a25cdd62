//! From an entry to the body of its record. Everything that does not depend on the place in the log happens here, outside
//! the writer's lock.

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_verdict::{
    Call, DbLimits, Decision, Disclosure, EscalateTo, FsMode, HttpTarget, LogId, Obligations, OnTimeout,
    Operation, Past, Profile, SqlFacts, ToolRef, Transport, Value,
};

use crate::commit::{Opening, Salts, commitment};
use crate::entry::{
    AbsorbedKind, ApprovalEntry, DecisionEntry, DrillEntry, EscalationEntry, GapEntry, Inputs, MAX_ABSORBED,
    ModeChangeEntry, OutcomeEntry, OutcomeStatus, PolicyLoadEntry,
};
use crate::form::body::{self, Body, Field};
use crate::form::{B64, FormError, Hex, Int, Json, Text};

/// Longest JSON of a value that is recorded in clear; longer ones are committed to whatever the policy says.
pub const MAX_CLEAR: usize = 4_096;

/// A body ready to be framed, and the openings that go with it.
pub(crate) struct Encoded {
    pub(crate) json: Vec<u8>,
    pub(crate) openings: Vec<Unplaced>,
}

/// An opening that does not know its record's number yet.
pub(crate) struct Unplaced {
    field: String,
    salt: [u8; 32],
    value: Value,
}

impl Unplaced {
    pub(crate) fn line(&self, log: LogId, seq: u64) -> Result<Vec<u8>, FormError> {
        let opening = Opening {
            log,
            seq: Int(seq),
            field: Text::from(self.field.as_str()),
            salt: Hex(self.salt),
            value: Json::from(&self.value),
        };
        let mut line = serde_json::to_vec(&opening).map_err(|e| FormError::Body(e.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Draws a line between what a record shows and what it commits to.
pub(crate) struct Discloser<'a> {
    disclosure: &'a Disclosure,
    salts: &'a mut Salts,
    openings: Vec<Unplaced>,
}

/// Why a body could not be made.
#[derive(Debug)]
pub(crate) enum EncodeError {
    Random,
    Form(FormError),
}

impl From<FormError> for EncodeError {
    fn from(e: FormError) -> Self {
        Self::Form(e)
    }
}

impl<'a> Discloser<'a> {
    pub(crate) const fn new(disclosure: &'a Disclosure, salts: &'a mut Salts) -> Self {
        Self { disclosure, salts, openings: Vec::new() }
    }

    /// `asked`: the name that the disclosure knows the field by; `name`: the one it has in the record.
    fn field(&mut self, asked: &str, name: String, value: Value) -> Result<Field<'static>, EncodeError> {
        let json = serde_json::to_vec(&Json::from(&value)).map_err(|e| FormError::Body(e.to_string()))?;
        if self.disclosure.is_clear(asked) && json.len() <= MAX_CLEAR {
            return Ok(Field { name: name.into(), clear: Some(Json::from(value)), commitment: None });
        }
        let salt = self.salts.draw().map_err(|_| EncodeError::Random)?;
        let sealed = commitment(&salt, &name, &json);
        if self.disclosure.openings {
            self.openings.push(Unplaced { field: name.clone(), salt, value });
        }
        Ok(Field { name: name.into(), clear: None, commitment: Some(Hex(sealed)) })
    }

    fn named(&mut self, name: &str, value: Value) -> Result<Field<'static>, EncodeError> {
        self.field(name, name.to_owned(), value)
    }

    fn text(&mut self, name: &str, text: &str) -> Result<Field<'static>, EncodeError> {
        self.named(name, Value::Text(text.to_owned()))
    }

    fn operation(&mut self, operation: &Operation) -> Result<Vec<Field<'static>>, EncodeError> {
        match operation {
            Operation::ToolCall { args: Value::Record(fields) } => fields
                .iter()
                .map(|(name, value)| self.named(&format!("args.{name}"), value.clone()))
                .collect(),
            Operation::ToolCall { args } => Ok(vec![self.named("args", args.clone())?]),
            Operation::Fs { path, .. } => Ok(vec![self.text("path", path)?]),
            Operation::HttpRequest(target) => self.http(target),
            Operation::NetConnect { host, ip, port } => {
                let ip = Value::Text(ip.to_string());
                // The address says as much as the name it came from.
                let ip = self.field("host", "ip".to_owned(), ip)?;
                Ok(vec![self.text("host", host)?, ip, plain("port", number(*port))])
            }
            Operation::NetDns { host } => Ok(vec![self.text("host", host)?]),
            Operation::NetSocket { transport, host, ip, port } => {
                self.socket(*transport, host.as_deref(), ip.to_string(), *port)
            }
            Operation::Db { db, statement, facts, .. } => self.database(db, statement, facts.as_deref()),
            Operation::Kv { store, key, .. } => Ok(vec![self.label("store", store)?, self.text("key", key)?]),
            Operation::Model { model, tokens } => {
                Ok(vec![self.text("model", model)?, plain("tokens", number(*tokens))])
            }
            Operation::Secret { name } => Ok(vec![self.text("name", name)?]),
            Operation::EnvRead { name } => Ok(vec![self.text("name", name)?]),
            Operation::Stdio(stream) => {
                let name = match stream {
                    govrun_verdict::Stream::Stdout => "stdout",
                    govrun_verdict::Stream::Stderr => "stderr",
                };
                Ok(vec![plain("stream", Value::Text(name.to_owned()))])
            }
            Operation::ArgsRead | Operation::Clock | Operation::Random => Ok(Vec::new()),
        }
    }

    fn http(&mut self, target: &HttpTarget) -> Result<Vec<Field<'static>>, EncodeError> {
        const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let HttpTarget { method, scheme, host, port, path, query } = target;
        let method = if METHODS.contains(&method.as_str()) {
            plain("method", Value::Text(method.clone()))
        } else {
            self.text("method", method)?
        };
        let url = query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        Ok(vec![
            method,
            plain("scheme", Value::Text(scheme.name().to_owned())),
            self.text("host", host)?,
            plain("port", number(*port)),
            self.text("url", &url)?,
        ])
    }

    fn socket(
        &mut self,
        transport: Transport,
        host: Option<&str>,
        ip: String,
        port: u16,
    ) -> Result<Vec<Field<'static>>, EncodeError> {
        let mut fields = vec![plain("transport", Value::Text(transport.name().to_owned()))];
        if let Some(host) = host {
            fields.push(self.text("host", host)?);
        }
        // The address says as much as the name it came from.
        fields.push(self.field("host", "ip".to_owned(), Value::Text(ip))?);
        fields.push(plain("port", number(port)));
        Ok(fields)
    }

    fn database(
        &mut self,
        db: &str,
        statement: &str,
        facts: Option<&SqlFacts>,
    ) -> Result<Vec<Field<'static>>, EncodeError> {
        let mut fields = vec![self.label("db", db)?, self.text("statement", statement)?];
        let Some(SqlFacts { class, tables, columns, functions }) = facts else { return Ok(fields) };
        let list = |names: &[String]| Value::List(names.iter().cloned().map(Value::Text).collect());
        // The names are the guest's words, as the statement is.
        for (name, value) in [
            ("stmt", Value::Text(class.clone())),
            ("tables", list(tables)),
            ("columns", list(columns)),
            ("functions", list(functions)),
        ] {
            fields.push(self.field("statement", name.to_owned(), value)?);
        }
        Ok(fields)
    }

    /// Labels of databases and stores are names of the policy; text that cannot be one came from the guest.
    fn label(&mut self, name: &'static str, label: &str) -> Result<Field<'static>, EncodeError> {
        let sound = (1..=64).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
        if sound { Ok(plain(name, Value::Text(label.to_owned()))) } else { self.text(name, label) }
    }
}

fn number(number: impl Into<u64>) -> Value {
    Value::number(&number.into().to_string())
}

fn plain(name: &'static str, value: Value) -> Field<'static> {
    Field { name: name.into(), clear: Some(Json::from(value)), commitment: None }
}

fn encoded(body: &Body<'_>, openings: Vec<Unplaced>) -> Result<Encoded, EncodeError> {
    let mut json = Vec::with_capacity(1024);
    body.write_to(&mut json)?;
    Ok(Encoded { json, openings })
}

/// Encode a body without guest data.
pub(crate) fn plain_body(body: &Body<'_>) -> Result<Encoded, EncodeError> {
    encoded(body, Vec::new())
}

pub(crate) fn decision(entry: &DecisionEntry<'_>, salts: &mut Salts) -> Result<Encoded, EncodeError> {
    let DecisionEntry { call, decision, inputs, decide_ns, trace } = entry;
    let mut discloser = Discloser::new(&decision.disclosure, salts);
    let fields = discloser.operation(&call.operation)?;
    let openings = discloser.openings;
    let Decision { verdict, mode, rule, matched, shadow, obligations, escalate, notify, .. } = decision;
    let body = body::Decision {
        agent: Text::from(&*call.agent.name),
        tenant: call.agent.tenant.as_deref().map(Text::from),
        session: Text::from(&*call.session),
        tool: tool(&call.tool),
        caller: call.caller.as_deref().map(tool),
        parent: call.parent,
        action: body::ActionName(call.action()),
        verdict: *verdict,
        mode: *mode,
        reason: Text::from(decision.reason.as_str()),
        rule: rule.as_ref().map(|r| Text::from(r.as_str())),
        matched: matched
            .iter()
            .map(|m| body::Matched { rule: Text::from(m.rule.as_str()), unknown: m.unknown })
            .collect(),
        shadow: shadow.as_ref().map(|s| body::Shadow {
            verdict: s.verdict,
            rule: s.rule.as_ref().map(|r| Text::from(r.as_str())),
            reason: Text::from(s.reason.as_str()),
        }),
        policy: decision.epoch,
        obligations: self::obligations(obligations),
        escalate: escalate.as_ref().map(self::escalate),
        notify: notify.iter().map(|n| Text::from(&**n)).collect(),
        severity: decision.severity,
        durability: decision.durability,
        trace: trace.map(|t| body::Trace { trace: Hex(t.trace), span: Hex(t.span) }),
        decide_ns: Int(*decide_ns),
        inputs: self::inputs(call, inputs, fields),
    };
    encoded(&Body::Decision(Box::new(body)), openings)
}

fn tool(tool: &ToolRef) -> body::Tool<'_> {
    body::Tool { name: Text::from(&*tool.name), component: tool.component }
}

fn texts(texts: &[Arc<str>]) -> Vec<Text<'_>> {
    texts.iter().map(|text| Text::from(&**text)).collect()
}

fn past(past: &Past) -> body::Past<'_> {
    let answers = past.answers.iter();
    body::Past {
        labels: texts(&past.labels),
        answers: answers
            .map(|(question, answer)| body::Answer {
                question: Text::from(&**question),
                answer: answer.to_string().into(),
            })
            .collect(),
    }
}

fn inputs<'a>(call: &'a Call, inputs: &'a Inputs<'a>, fields: Vec<Field<'a>>) -> body::Inputs<'a> {
    body::Inputs {
        at: Int(inputs.now.0),
        env: Text::from(&*call.env),
        labels: inputs.facts.map(|facts| texts(&facts.enforced.labels)).unwrap_or_default(),
        past: inputs.facts.map(|facts| past(&facts.enforced)),
        shadow_past: inputs.facts.and_then(|facts| facts.shadow.as_ref()).map(past),
        budgets: inputs
            .budgets
            .iter()
            .map(|b| body::Budget {
                name: Text::from(&*b.name),
                key: Text::from(&*b.key),
                used: Int(b.used),
                limit: Int(b.limit),
                order: b.order.map(Int),
            })
            .collect(),
        bounds: inputs.bounds.map(obligations),
        cohort: inputs.cohort.map(Text::from),
        lists: Vec::new(),
        fields,
    }
}

fn limit(limit: Option<NonZeroU64>) -> Option<Int> {
    limit.map(|n| Int(n.get()))
}

/// Obligations as a record has them.
#[must_use]
pub fn obligations(o: &Obligations) -> body::Obligations<'_> {
    let DbLimits { rows, bytes, time_ms, vm_steps } = o.db;
    let db = body::DbLimits {
        rows: limit(rows),
        bytes: limit(bytes),
        time_ms: limit(time_ms),
        vm_steps: limit(vm_steps),
    };
    body::Obligations {
        fuel: limit(o.fuel),
        memory_bytes: limit(o.memory_bytes),
        deadline_ms: limit(o.deadline_ms),
        egress: match o.egress {
            govrun_verdict::Egress::None => body::Egress::None,
            govrun_verdict::Egress::ByRule => body::Egress::ByRule,
        },
        db: (o.db != DbLimits::default()).then_some(db),
        mask: (!o.mask.is_empty()).then(|| o.mask.columns().map(|c| Text::from(c.to_owned())).collect()),
        sandbox: o.sandbox.as_deref().map(sandbox),
    }
}

fn sandbox(profile: &Profile) -> body::Sandbox<'_> {
    let preopen = |p: &govrun_verdict::Preopen| body::Preopen {
        host: Text::from(p.host.to_string()),
        guest: Text::from(p.guest.to_string()),
        mode: match p.mode {
            FsMode::ReadOnly => body::FsMode::Ro,
            FsMode::ReadWrite => body::FsMode::Rw,
        },
    };
    body::Sandbox {
        name: Text::from(&*profile.name),
        preopens: profile.preopens.as_ref().map(|list| list.iter().map(preopen).collect()),
        scratch_bytes: limit(profile.scratch_bytes),
        db_copy: profile.db_copy,
    }
}

/// Whom to ask, as a record has it.
#[must_use]
pub fn escalate(to: &EscalateTo) -> body::Escalate<'_> {
    body::Escalate {
        roles: to.roles.iter().map(|r| Text::from(&**r)).collect(),
        need: Int(to.need.get()),
        timeout_ms: Int(to.timeout_ms.get()),
        on_timeout: match to.on_timeout {
            OnTimeout::Block => body::OnTimeout::Block,
        },
        show: to.show.iter().map(|s| Text::from(&**s)).collect(),
    }
}

pub(crate) fn outcome(entry: &OutcomeEntry, salts: &mut Salts) -> Result<Encoded, EncodeError> {
    let mut discloser = Discloser::new(&entry.disclosure, salts);
    let mut absorbed = Vec::new();
    for (i, effect) in entry.absorbed.iter().take(MAX_ABSORBED).enumerate() {
        let asked = match effect.kind {
            AbsorbedKind::FileWritten
            | AbsorbedKind::FileDeleted
            | AbsorbedKind::FileRenamed
            | AbsorbedKind::DirCreated => "path",
            AbsorbedKind::DbChanged => "db",
            AbsorbedKind::EgressRefused => "host",
        };
        let subject = Value::Text(effect.subject.clone());
        let subject = discloser.field(asked, format!("absorbed.{i}.{asked}"), subject)?;
        absorbed.push(body::Absorbed { kind: effect.kind, subject, size: Int(effect.size) });
    }
    let openings = discloser.openings;
    let omitted = entry.absorbed.len().saturating_sub(MAX_ABSORBED);
    let omitted = u64::try_from(omitted).ok().filter(|n| *n > 0).map(Int);
    let (status, error) = status(&entry.status);
    let body = body::Outcome {
        decision: entry.decision,
        status,
        error: error.map(Text::from),
        bytes_in: Int(entry.bytes_in),
        bytes_out: Int(entry.bytes_out),
        rows: Int(entry.rows),
        fuel: Int(entry.fuel),
        duration_us: Int(entry.duration_us),
        absorbed,
        absorbed_omitted: omitted,
        note: entry.note.map(Text::from),
    };
    encoded(&Body::Outcome(Box::new(body)), openings)
}

fn status(status: &OutcomeStatus) -> (body::Status, Option<&str>) {
    match status {
        OutcomeStatus::Ok => (body::Status::Ok, None),
        OutcomeStatus::Failed(kind) => {
            (body::Status::Failed, Some(if is_kind(kind) { kind } else { "other" }))
        }
        OutcomeStatus::Refused => (body::Status::Refused, None),
        OutcomeStatus::Expired => (body::Status::Expired, None),
        OutcomeStatus::Cancelled => (body::Status::Cancelled, None),
    }
}

fn is_kind(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.')
}

pub(crate) fn escalation(entry: &EscalationEntry<'_>) -> Result<Encoded, EncodeError> {
    plain_body(&Body::Escalation(Box::new(body::Escalation {
        decision: entry.decision,
        ticket: Text::from(entry.ticket),
        roles: entry.roles.iter().map(|r| Text::from(&**r)).collect(),
        need: Int(entry.need),
        expires: Int(entry.expires.0),
        binding: Hex(entry.binding),
    })))
}

pub(crate) fn approval(entry: &ApprovalEntry<'_>) -> Result<Encoded, EncodeError> {
    let signed = entry.signed.map(|s| body::SignedBy {
        approver: Text::from(s.key.name()),
        key: Text::from(s.key.to_string()),
        at: Int(s.statement.at.0),
        sig: B64(s.signature),
    });
    plain_body(&Body::Approval(Box::new(body::Approval {
        decision: entry.decision,
        ticket: Text::from(entry.ticket),
        event: entry.event,
        binding: Hex(entry.binding),
        signed,
        used_by: entry.used_by,
    })))
}

pub(crate) fn policy_load(entry: &PolicyLoadEntry<'_>) -> Result<Encoded, EncodeError> {
    plain_body(&Body::PolicyLoad(Box::new(body::PolicyLoad {
        policy: entry.epoch,
        previous: entry.previous,
        env: Text::from(entry.env),
    })))
}

pub(crate) fn mode_change(entry: &ModeChangeEntry<'_>) -> Result<Encoded, EncodeError> {
    plain_body(&Body::ModeChange(Box::new(body::ModeChange {
        scope: Text::from(entry.scope),
        from: Text::from(entry.from),
        to: Text::from(entry.to),
        by: Text::from(entry.by),
    })))
}

pub(crate) fn drill(entry: &DrillEntry<'_>) -> Result<Encoded, EncodeError> {
    plain_body(&Body::Drill(Box::new(body::Drill {
        name: Text::from(entry.name),
        event: entry.event,
        by: Text::from(entry.by),
    })))
}

pub(crate) fn gap(entry: &GapEntry<'_>) -> Result<Encoded, EncodeError> {
    plain_body(&Body::Gap(Box::new(body::Gap {
        from: Int(entry.from.0),
        to: Int(entry.to.0),
        calls: Int(entry.calls),
        why: Text::from(entry.why),
    })))
}
