//! What records promise to each other: a permit and its outcome, an escalation and its approvals, a budget and its limit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use govrun_verdict::{Action, DecisionId, LogId, Value, Verdict};

use super::report::{Finding, Outcome, Report, Status};
use super::semantics::{Answer, Case};
use crate::form::body::{self, ApprovalEvent, Body, Decision};
use crate::read::Record;
use crate::trust::Trust;

/// Most open permits, tickets and approved calls that are kept track of, each. A log that needs more is inconclusive.
const MAX_TRACKED: usize = 1 << 18;
/// Most findings that are told one by one.
const MAX_TOLD: usize = 16;

/// Everything that must come out even in the end.
pub(super) struct Ledger<'a> {
    trust: &'a Trust,
    /// Permits without an outcome, by log and number.
    open: BTreeSet<(LogId, u64)>,
    lost_in_crashes: u64,
    tickets: BTreeMap<String, Ticket>,
    /// Calls that asked for an approval.
    asked: HashMap<DecisionId, Asked>,
    /// Calls that were permitted because of one.
    approved: HashMap<DecisionId, Approved>,
    overflow: bool,
    told: Vec<Finding>,
    untold: u64,
}

#[derive(Default)]
struct Ticket {
    binding: [u8; 32],
    roles: Vec<String>,
    need: u64,
    expires: u64,
    /// The decisions that asked; empty while only answers were seen.
    asked_by: Vec<DecisionId>,
    approvers: BTreeSet<String>,
    used: Vec<(Option<DecisionId>, u64)>,
    ended: bool,
    bindings_differ: bool,
}

/// Who asked for what, so that it can be compared.
#[derive(PartialEq)]
struct Asked {
    agent: String,
    tenant: Option<String>,
    session: String,
    env: String,
    tool: (String, [u8; 32]),
    caller: Option<String>,
    action: Action,
    fields: Vec<(String, Option<Value>)>,
}

struct Approved {
    call: Asked,
    roles: Vec<String>,
    need: u64,
    has_outcome: bool,
}

impl Asked {
    fn of(case: &Case<'_>) -> Self {
        let d: &Decision<'_> = case.decision;
        let fields = d.inputs.fields.iter().zip(case.values);
        Self {
            agent: d.agent.to_string(),
            tenant: d.tenant.as_ref().map(ToString::to_string),
            session: d.session.to_string(),
            env: d.inputs.env.to_string(),
            tool: (d.tool.name.to_string(), d.tool.component.0),
            caller: d.caller.as_ref().map(|caller| caller.name.to_string()),
            action: d.action.0,
            fields: fields.map(|(f, v)| (f.name.to_string(), v.as_deref().cloned())).collect(),
        }
    }

    /// `None`: some value is known of neither.
    fn is_the_same(&self, other: &Self) -> Option<bool> {
        let unknown = |call: &Self| call.fields.iter().any(|(_, value)| value.is_none());
        if unknown(self) || unknown(other) { None } else { Some(self == other) }
    }
}

impl<'a> Ledger<'a> {
    pub(super) fn new(trust: &'a Trust) -> Self {
        Self {
            trust,
            open: BTreeSet::new(),
            lost_in_crashes: 0,
            tickets: BTreeMap::new(),
            asked: HashMap::new(),
            approved: HashMap::new(),
            overflow: false,
            told: Vec::new(),
            untold: 0,
        }
    }

    fn wrong(&mut self, what: String) {
        if self.told.len() < MAX_TOLD {
            self.told.push(Finding::of(Outcome::Tampered, what));
        } else {
            self.untold += 1;
        }
    }

    fn has_room(&mut self) -> bool {
        let most = [self.open.len(), self.tickets.len(), self.asked.len(), self.approved.len()];
        self.overflow |= most.into_iter().any(|n| n >= MAX_TRACKED);
        !self.overflow
    }

    pub(super) fn decision(&mut self, case: &Case<'_>, answer: &Answer) {
        if let Some(what) = budgets_are_wrong(case.decision) {
            self.wrong(format!("decision {}: {what}", case.id));
        }
        if !self.has_room() {
            return;
        }
        match case.decision.verdict {
            Verdict::Allow | Verdict::Sandbox if is_enforced(case.decision) => {
                self.open.insert((case.id.log, case.id.seq));
            }
            Verdict::Escalate => {
                self.asked.insert(case.id, Asked::of(case));
            }
            Verdict::Allow | Verdict::Sandbox | Verdict::Throttle | Verdict::Block => {}
        }
        if let Answer::FollowsIfApproved { roles, need } = answer {
            let approved =
                Approved { call: Asked::of(case), roles: roles.clone(), need: *need, has_outcome: false };
            self.approved.insert(case.id, approved);
        }
    }

    pub(super) fn record(&mut self, record: &Record, body: &Body<'_>) {
        match body {
            Body::Outcome(o) => self.outcome(record, o),
            Body::Escalation(e) => self.escalation(e),
            Body::Approval(a) => self.approval(record, a),
            // What was permitted and had no outcome before a process came back, ended with the process before.
            Body::Recover(_) | Body::Open(_) => self.crashed(record.log),
            Body::Genesis(_)
            | Body::PolicyLoad(_)
            | Body::Decision(_)
            | Body::IoError(_)
            | Body::ModeChange(_)
            | Body::Drill(_)
            | Body::KeyEpoch(_)
            | Body::Gap(_)
            | Body::Heartbeat(_)
            | Body::ClockStep(_)
            | Body::Close(_) => {}
        }
    }

    fn crashed(&mut self, log: LogId) {
        let lost: Vec<_> = self.open.range((log, 0)..=(log, u64::MAX)).copied().collect();
        for key in lost {
            self.open.remove(&key);
            self.lost_in_crashes += 1;
        }
    }

    fn outcome(&mut self, record: &Record, outcome: &body::Outcome<'_>) {
        let of = outcome.decision;
        if !self.open.remove(&(of.log, of.seq)) && !self.overflow {
            self.wrong(format!(
                "record {} is the outcome of {of}, which permitted nothing or has an outcome already",
                record.id()
            ));
        }
        if let Some(approved) = self.approved.get_mut(&of) {
            approved.has_outcome = true;
        }
    }

    fn escalation(&mut self, e: &body::Escalation<'_>) {
        if !self.has_room() {
            return;
        }
        let ticket = self.tickets.entry(e.ticket.to_string()).or_default();
        let first = ticket.asked_by.is_empty();
        let answered = !ticket.approvers.is_empty() || !ticket.used.is_empty();
        ticket.bindings_differ |= (!first || answered) && ticket.binding != e.binding.0;
        if first {
            ticket.binding = e.binding.0;
            ticket.roles = e.roles.iter().map(ToString::to_string).collect();
            ticket.need = e.need.0;
            ticket.expires = e.expires.0;
        }
        ticket.asked_by.push(e.decision);
    }

    fn approval(&mut self, record: &Record, a: &body::Approval<'_>) {
        if !self.has_room() {
            return;
        }
        let ticket = self.tickets.entry(a.ticket.to_string()).or_default();
        let nothing_before =
            ticket.asked_by.is_empty() && ticket.approvers.is_empty() && ticket.used.is_empty();
        if nothing_before {
            ticket.binding = a.binding.0;
        }
        ticket.bindings_differ |= ticket.binding != a.binding.0;
        match a.event {
            ApprovalEvent::Approved => {
                if let Some(signed) = &a.signed {
                    ticket.approvers.insert(signed.key.to_string());
                }
            }
            ApprovalEvent::Consumed => ticket.used.push((a.used_by, record.head.time)),
            ApprovalEvent::Denied | ApprovalEvent::Expired | ApprovalEvent::Cancelled => ticket.ended = true,
        }
    }

    pub(super) fn conclude(mut self, report: &mut Report) {
        self.tickets_hold(report);
        self.approvals_were_used(report);
        self.outcomes_are_there(report);
        if self.overflow {
            let what = "more open permits or approvals than this verifier keeps track of";
            report.findings.push(Finding::of(Outcome::Inconclusive, what));
        }
        if self.untold > 0 {
            self.told.push(Finding::of(Outcome::Tampered, format!("{} more of this kind", self.untold)));
        }
        report.findings.append(&mut self.told);
    }

    fn tickets_hold(&mut self, report: &mut Report) {
        let mut waiting = 0_u64;
        for (name, ticket) in std::mem::take(&mut self.tickets) {
            for what in self.wrong_with(&ticket, report) {
                self.wrong(format!("approval {name}: {what}"));
            }
            if ticket.used.is_empty() && !ticket.ended {
                waiting += 1;
            }
            self.tickets.insert(name, ticket);
        }
        if waiting > 0 {
            report
                .not_covered
                .push(format!("{waiting} approvals that nobody used; nothing was permitted by them"));
        }
    }

    fn wrong_with(&self, ticket: &Ticket, report: &mut Report) -> Vec<String> {
        let mut wrong = Vec::new();
        if ticket.bindings_differ {
            wrong.push("its records are bound to different calls".to_owned());
        }
        if ticket.used.len() > 1 {
            wrong.push(format!("it was used {} times", ticket.used.len()));
        }
        let Some((used_by, at)) = ticket.used.first() else { return wrong };
        if ticket.asked_by.is_empty() {
            wrong.push("it was used, and no escalation asked for it".to_owned());
            return wrong;
        }
        let entitled = ticket.approvers.iter().filter(|key| self.is_entitled(key, ticket)).count();
        if u64::try_from(entitled).unwrap_or(0) < ticket.need.max(1) {
            wrong
                .push(format!("{entitled} approvers with a role that was asked for, {} needed", ticket.need));
        }
        if *at > ticket.expires {
            wrong.push("it was used after it had expired".to_owned());
        }
        // A call that was refused in the end, or that needed no approval any more, is not among the approved ones.
        if let Some((id, approved)) = used_by.and_then(|id| self.approved.get(&id).map(|a| (id, a))) {
            wrong.extend(self.not_the_call(ticket, id, approved, report));
        }
        wrong
    }

    fn is_entitled(&self, key: &str, ticket: &Ticket) -> bool {
        self.trust.approvers.iter().any(|approver| {
            approver.key.to_string() == key
                && approver.roles.iter().any(|role| {
                    let role = role.strip_prefix("role:").unwrap_or(role);
                    ticket.roles.iter().any(|wanted| wanted == role)
                })
        })
    }

    fn not_the_call(
        &self,
        ticket: &Ticket,
        id: DecisionId,
        approved: &Approved,
        report: &mut Report,
    ) -> Option<String> {
        if ticket.need < approved.need || !ticket.roles.iter().all(|role| approved.roles.contains(role)) {
            return Some(format!("decision {id} needs more than it was asked for"));
        }
        let same: Vec<Option<bool>> = ticket
            .asked_by
            .iter()
            .filter_map(|asked| self.asked.get(asked))
            .map(|asked| asked.is_the_same(&approved.call))
            .collect();
        if same.contains(&Some(true)) {
            None
        } else if same.contains(&None) {
            let what = format!("whether {id} is the call that was approved: values are committed to");
            report.findings.push(Finding::of(Outcome::Inconclusive, what));
            None
        } else {
            Some(format!("decision {id} is not the call that was approved"))
        }
    }

    fn approvals_were_used(&mut self, report: &mut Report) {
        let used: BTreeSet<DecisionId> =
            self.tickets.values().flat_map(|t| t.used.iter().filter_map(|(by, _)| *by)).collect();
        let without = self.approved.iter().filter(|(id, _)| !used.contains(id));
        let mut without: Vec<(DecisionId, bool)> = without.map(|(id, a)| (*id, a.has_outcome)).collect();
        without.sort_unstable();
        for (id, has_outcome) in without {
            if has_outcome {
                self.wrong(format!("decision {id} needed an approval, and none was used for it"));
            } else {
                report
                    .not_covered
                    .push(format!("{id}: permitted just before a crash, before its approval was recorded"));
            }
        }
    }

    fn outcomes_are_there(&mut self, report: &mut Report) {
        let mut missing: BTreeMap<LogId, (u64, DecisionId)> = BTreeMap::new();
        for (log, seq) in &self.open {
            let id = DecisionId { log: *log, seq: *seq };
            missing.entry(*log).or_insert((0, id)).0 += 1;
        }
        for (log, (count, first)) in missing {
            let status = report.logs.iter().find(|l| l.id == log).map(|l| l.status);
            match status {
                Some(Status::Closed) => {
                    self.wrong(format!("{count} permits of log {log} have no outcome, the first is {first}"));
                }
                Some(Status::InProgress | Status::NotClosed) | None => report
                    .not_covered
                    .push(format!("{log}: what became of {count} permitted calls, from {first} on")),
            }
        }
        if self.lost_in_crashes > 0 {
            report.not_covered.push(format!(
                "what became of {} permitted calls whose process died before their outcome",
                self.lost_in_crashes
            ));
        }
    }
}

/// Shadows and drills have no effect, so they have no outcome either.
const fn is_enforced(d: &Decision<'_>) -> bool {
    match d.mode {
        govrun_verdict::Mode::Enforce | govrun_verdict::Mode::Canary => true,
        govrun_verdict::Mode::Shadow | govrun_verdict::Mode::Drill => false,
    }
}

/// A permit is within each limit; a throttled call met one that was used up.
fn budgets_are_wrong(d: &Decision<'_>) -> Option<String> {
    let budgets = &d.inputs.budgets;
    match d.verdict {
        Verdict::Allow | Verdict::Sandbox => budgets.iter().find_map(|b| {
            let admitted = b.order.is_some() && b.used < b.limit;
            (!admitted).then(|| {
                format!("permitted, and budget `{}` had {} of {} used", &*b.name, b.used.0, b.limit.0)
            })
        }),
        Verdict::Throttle => {
            let exhausted = budgets.iter().any(|b| b.used >= b.limit);
            let charged = budgets.iter().any(|b| b.order.is_some());
            (!exhausted || charged).then(|| "throttled, and no budget was used up".to_owned())
        }
        Verdict::Escalate | Verdict::Block => None,
    }
}
