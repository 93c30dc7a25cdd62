//! Escalation: ask for an approval, wait for it, and use it for exactly the call it was given for, once.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use govrun_audit::{
    Answer, ApprovalEntry, ApprovalEvent, ApprovalStatement, EscalationEntry, SignedApproval, Trust,
};
use govrun_control::{Approval, Choice, NewApproval, Principal, RequestError, State, Ticket, Vote};
use govrun_verdict::{Builtin, Call, Decision, EscalateTo, Operation, Value};

use crate::gate::Gate;

/// How often a waiting call looks whether it was decided.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// Most pending approvals of one agent.
const MAX_PENDING: u64 = 16;
/// Longest shown value, in characters; a person reads no further.
const MAX_SHOWN: usize = 2_000;

/// The bytes that an approval is bound to: everything that says what the call is, each part with its length before it.
pub(crate) fn encode(call: &Call) -> Vec<u8> {
    let mut parts = Parts::default();
    parts
        .text("govrun call v1")
        .text(&call.agent.name)
        .optional(call.agent.tenant.as_deref())
        .text(&call.env)
        .text(&call.session)
        .text(&call.tool.name)
        .bytes(&call.tool.component.0)
        .optional(call.caller.as_ref().map(|tool| &*tool.name))
        .text(call.action().name());
    for (name, value) in fields(&call.operation) {
        parts.text(&name).text(&value);
    }
    if let Operation::ToolCall { args } = &call.operation {
        parts.value(args);
    }
    parts.0
}

#[derive(Default)]
struct Parts(Vec<u8>);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text("some").text(text),
            None => self.text("none"),
        }
    }

    fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Null => self.text("null"),
            Value::Bool(b) => self.text(if *b { "true" } else { "false" }),
            Value::Number(n) => self.text("number").text(&n.to_string()),
            Value::Text(s) => self.text("text").text(s),
            Value::Opaque(s) => self.text("opaque").text(s),
            Value::List(items) => {
                self.text("list").text(&items.len().to_string());
                items.iter().fold(self, |parts, item| parts.value(item))
            }
            Value::Record(fields) => {
                self.text("record").text(&fields.len().to_string());
                fields.iter().fold(self, |parts, (name, item)| parts.text(name).value(item))
            }
        }
    }
}

/// The operation for people, and for the encoding of everything but structured arguments.
fn fields(operation: &Operation) -> Vec<(String, String)> {
    let one = |name: &str, value: String| (name.to_owned(), value);
    match operation {
        Operation::ToolCall { args: Value::Record(args) } => {
            args.iter().map(|(name, value)| (format!("args.{name}"), shown(value))).collect()
        }
        Operation::ToolCall { args } => vec![one("args", shown(args))],
        Operation::Fs { path, .. } => vec![one("path", path.clone())],
        Operation::HttpRequest(target) => {
            let query = target.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
            vec![
                one("method", target.method.clone()),
                one("scheme", target.scheme.name().to_owned()),
                one("host", target.host.clone()),
                one("port", target.port.to_string()),
                one("path", format!("{}{query}", target.path)),
            ]
        }
        Operation::NetConnect { host, ip, port } => {
            vec![one("host", host.clone()), one("ip", ip.to_string()), one("port", port.to_string())]
        }
        Operation::NetDns { host } => vec![one("host", host.clone())],
        Operation::NetSocket { transport, host, ip, port } => vec![
            one("transport", transport.name().to_owned()),
            one("host", host.clone().unwrap_or_default()),
            one("ip", ip.to_string()),
            one("port", port.to_string()),
        ],
        Operation::Kv { store, key, .. } => vec![one("store", store.clone()), one("key", key.clone())],
        Operation::Model { model, tokens } => {
            vec![one("model", model.clone()), one("tokens", tokens.to_string())]
        }
        Operation::Secret { name } => vec![one("name", name.clone())],
        Operation::Db { db, statement, .. } => {
            vec![one("db", db.clone()), one("statement", statement.clone())]
        }
        Operation::EnvRead { name } => vec![one("name", name.clone())],
        Operation::Stdio(stream) => vec![one("stream", format!("{stream:?}"))],
        Operation::ArgsRead | Operation::Clock | Operation::Random => Vec::new(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Text(s) | Value::Opaque(s) => s.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Record(fields) => {
            let fields: Vec<String> = fields.iter().map(|(n, v)| format!("{n}: {}", shown(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// What an approver sees: the fields the policy names first, then the rest.
fn shown_to_approver(call: &Call, escalate: &EscalateTo) -> Vec<(String, String)> {
    let cut = |(name, value): (String, String)| (name, value.chars().take(MAX_SHOWN).collect::<String>());
    let (mut first, rest): (Vec<_>, Vec<_>) = fields(&call.operation)
        .into_iter()
        .map(cut)
        .partition(|(name, _)| escalate.show.iter().any(|shown| **shown == **name));
    first.extend(rest);
    first
}

impl Gate {
    /// Ask for an approval of this call, or attach to the one that was asked for already, also by an earlier process.
    pub(crate) fn ask(
        &self,
        call: &Call,
        decision: &Decision,
        id: govrun_verdict::DecisionId,
        now: govrun_verdict::Timestamp,
    ) -> Result<Ticket, Builtin> {
        let escalate = decision.escalate.as_ref().ok_or(Builtin::ApprovalInvalid)?;
        let wait_us = escalate.timeout_ms.get().saturating_mul(1_000);
        let new = NewApproval {
            principal: Principal {
                agent: Arc::clone(&call.agent.name),
                tenant: call.agent.tenant.clone(),
                session: Arc::clone(&call.session),
            },
            tool: (*call.tool).clone(),
            shown: shown_to_approver(call, escalate),
            epoch: decision.epoch,
            node: "local".into(),
            roles: escalate.roles.clone(),
            need: escalate.need,
            expires_at: govrun_verdict::Timestamp(now.0.saturating_add(wait_us)),
            decision: id,
        };
        let ticket = self.store().request(&new, &encode(call), now, MAX_PENDING).map_err(|error| {
            tracing::warn!(%error, "an approval could not be asked for");
            match error {
                RequestError::Quota { .. } => Builtin::ApprovalQuota,
                RequestError::NoRoles | RequestError::NoTime => Builtin::ApprovalInvalid,
                _ => Builtin::StoreUnavailable,
            }
        })?;
        let approval = &ticket.approval;
        let entry = EscalationEntry {
            decision: id,
            ticket: approval.id.as_str(),
            roles: &approval.roles,
            need: approval.need.get(),
            expires: approval.expires_at,
            binding: approval.commitment(),
        };
        self.log().escalation(&entry).map_err(|_| Builtin::AuditUnavailable)?;
        Ok(ticket)
    }

    /// Record what became of an approval that will not be used.
    pub(crate) fn record_end(&self, approval: &Approval) {
        let answered = match approval.state {
            State::Denied => approval.votes.iter().filter(|v| v.choice == Choice::Deny).collect(),
            State::Expired => {
                self.record_approval(approval, ApprovalEvent::Expired, None, None);
                Vec::new()
            }
            State::Pending | State::Approved | State::Consumed => Vec::new(),
        };
        for vote in answered {
            if let Some(signed) = self.signed(approval, vote) {
                self.record_approval(approval, ApprovalEvent::Denied, Some(&signed), None);
            }
        }
    }

    /// The approvers' answers, each verified against the trust file and recorded. `Err` when they are not enough.
    pub(crate) fn verified(&self, approval: &Approval, need: NonZeroU64) -> Result<(), Builtin> {
        let mut keys = BTreeSet::new();
        for vote in approval.votes.iter().filter(|vote| vote.choice == Choice::Approve) {
            let signed = self.signed(approval, vote).ok_or(Builtin::ApprovalInvalid)?;
            if keys.insert(signed.key.to_string())
                && !self.record_approval(approval, ApprovalEvent::Approved, Some(&signed), None)
            {
                return Err(Builtin::AuditUnavailable);
            }
        }
        let enough = u64::try_from(keys.len()).unwrap_or(0) >= need.get();
        if enough { Ok(()) } else { Err(Builtin::ApprovalInvalid) }
    }

    /// INVARIANT: `Some` only for a listed approver who has one of the roles and really signed this.
    fn signed(&self, approval: &Approval, vote: &Vote) -> Option<SignedApproval> {
        let approver = self.trust().approvers.iter().find(|approver| approver.name == vote.approver)?;
        let entitled = approver.roles.iter().any(|role| {
            let role = role.strip_prefix("role:").unwrap_or(role);
            approval.roles.iter().any(|wanted| **wanted == *role)
        });
        let signed = SignedApproval {
            key: approver.key.clone(),
            statement: statement(self.trust(), approval, vote.choice, vote.at),
            signature: vote.signature,
        };
        (entitled && signed.verifies()).then_some(signed)
    }

    /// False when it could not be recorded.
    pub(crate) fn record_approval(
        &self,
        approval: &Approval,
        event: ApprovalEvent,
        signed: Option<&SignedApproval>,
        used_by: Option<govrun_verdict::DecisionId>,
    ) -> bool {
        let entry = ApprovalEntry {
            decision: approval.decision,
            ticket: approval.id.as_str(),
            event,
            binding: approval.commitment(),
            signed,
            used_by,
        };
        self.log()
            .approval(&entry)
            .inspect_err(|e| tracing::error!(%e, "an approval could not be recorded"))
            .is_ok()
    }
}

/// What an approver signs. The command line and the gate build it here, so they cannot disagree.
#[must_use]
pub fn statement(
    trust: &Trust,
    approval: &Approval,
    choice: Choice,
    at: govrun_verdict::Timestamp,
) -> ApprovalStatement {
    ApprovalStatement {
        origin: trust.origin.clone(),
        ticket: approval.id.to_string(),
        decision: approval.decision,
        answer: match choice {
            Choice::Approve => Answer::Approve,
            Choice::Deny => Answer::Deny,
        },
        binding: approval.commitment(),
        at,
    }
}
