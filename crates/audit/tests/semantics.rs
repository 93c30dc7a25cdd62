//! Level L4, the part that needs no policy: outcomes, approvals and budgets. The evaluator here says what it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "tests fail by panicking"
)]

mod support;

use govrun_audit::verify::{Answer, Ask, Case, Difference, Evaluator, Level, Report, verify_asked};
use govrun_audit::{
    ApprovalEntry, ApprovalEvent, ApprovalStatement, Approver, ApproverKey, DecisionEntry, EscalationEntry,
    Inputs, Log, SignedApproval,
};
use govrun_verdict::*;
use std::sync::Arc;
use support::*;

/// Escalated calls need one approval of the treasury to be permitted; everything else follows.
struct Told;

impl Evaluator for Told {
    fn evaluate(&self, case: &Case<'_>) -> Answer {
        match (&*case.decision.reason, case.value("args.amount")) {
            ("PAY-APPROVED", _) => Answer::FollowsIfApproved { roles: vec!["treasury".into()], need: 1 },
            ("PAY-WRONG", _) => Answer::Differs(Difference {
                what: "the verdict",
                expected: "block".into(),
                found: "allow".into(),
            }),
            ("PAY-HOST", _) => Answer::HostRefusal,
            (_, Err(why)) => Answer::Cannot(why),
            (_, Ok(_)) => Answer::Follows,
        }
    }
}

fn judged(site: &Site) -> Report {
    let pin = govrun_audit::pin::Pin::default().moved_on(&check(site, Level::L2)).unwrap();
    let anchors = pin.anchors();
    let ask = Ask { anchors: &anchors, evaluator: Some(&Told), ..Ask::level(Level::L4) };
    verify_asked(&site.logs(), &site.trust, &ask)
}

fn says(report: &Report, code: u8, what: &str) {
    assert_eq!(report.exit_code(), code, "{report}");
    assert!(report.to_string().contains(what), "`{what}` is not in:\n{report}");
}

fn reason(code: &str) -> Decision {
    Decision { reason: ReasonCode::new(code).unwrap(), ..allow(Durability::Os) }
}

fn with_budget(verdict: Verdict, used: u64, order: Option<u64>) -> Report {
    let site = Site::new();
    let log = site.open();
    let decision = Decision { verdict, ..allow(Durability::Os) };
    let levels = [BudgetLevel { name: "b".into(), key: "k".into(), used, limit: 3, order }];
    let inputs = Inputs { now: Timestamp(T0), budgets: &levels, bounds: None, cohort: None, facts: None };
    let call = call(payment("1"));
    let entry =
        DecisionEntry { call: &call, decision: &decision, inputs: &inputs, decide_ns: 1, trace: None };
    let id = log.decision(&entry).unwrap().id();
    if verdict == Verdict::Allow {
        log.outcome(&outcome(id)).unwrap();
    }
    log.close().unwrap();
    judged(&site)
}

#[test]
fn budgets_are_never_above_their_limit_and_throttle_only_when_used_up() {
    says(&with_budget(Verdict::Allow, 2, Some(3)), 0, "VERIFIED at level L4");
    says(&with_budget(Verdict::Allow, 3, Some(4)), 1, "budget `b` had 3 of 3 used");
    says(&with_budget(Verdict::Allow, 1, None), 1, "budget `b` had 1 of 3 used");
    says(&with_budget(Verdict::Throttle, 3, None), 0, "VERIFIED at level L4");
    says(&with_budget(Verdict::Throttle, 2, None), 1, "throttled, and no budget was used up");
    says(&with_budget(Verdict::Throttle, 3, Some(4)), 1, "throttled, and no budget was used up");
}

#[test]
fn every_permit_has_one_outcome() {
    let site = Site::new();
    let log = site.open();
    let ids = record_n(&log, 3, Durability::Os);
    for id in &ids[..2] {
        log.outcome(&outcome(*id)).unwrap();
    }
    log.close().unwrap();
    says(&judged(&site), 1, "1 permits of log");
}

#[test]
fn an_outcome_of_nothing_and_a_second_outcome_are_seen() {
    for twice in [false, true] {
        let site = Site::new();
        let log = site.open();
        let permit = record_n(&log, 1, Durability::Os)[0];
        let blocked = Decision { verdict: Verdict::Block, ..allow(Durability::Os) };
        let blocked = record(&log, &call(payment("1")), &blocked).unwrap();
        log.outcome(&outcome(permit)).unwrap();
        log.outcome(&outcome(if twice { permit } else { blocked })).unwrap();
        log.close().unwrap();
        says(&judged(&site), 1, "which permitted nothing or has an outcome already");
    }
}

#[test]
fn permits_of_a_process_that_died_are_said_not_to_be_covered() {
    let site = Site::new();
    let log = site.open();
    record_n(&log, 2, Durability::Disk);
    let killed = site.snapshot();
    drop(log);
    let log = killed.open();
    log.close().unwrap();
    let report = judged(&killed);
    says(&report, 0, "what became of 2 permitted calls whose process died");
}

#[test]
fn what_does_not_follow_is_tampering_and_what_cannot_be_told_is_inconclusive() {
    let site = Site::new();
    let log = site.open();
    let id = record(&log, &call(payment("1")), &reason("PAY-WRONG")).unwrap();
    log.outcome(&outcome(id)).unwrap();
    log.close().unwrap();
    says(
        &judged(&site),
        1,
        &format!("decision {id} does not follow from its inputs and policy: the verdict"),
    );
    let site = Site::new();
    let log = site.open();
    let hidden = Decision { disclosure: disclosure(&[], true), ..allow(Durability::Os) };
    let id = record(&log, &call(payment("1")), &hidden).unwrap();
    log.outcome(&outcome(id)).unwrap();
    let openings = site.logs().join(log.id().to_string()).join("openings.jsonl");
    log.close().unwrap();
    says(&judged(&site), 0, "VERIFIED at level L4");
    let kept = std::fs::read(&openings).unwrap();
    std::fs::remove_file(&openings).unwrap();
    says(&judged(&site), 3, "`args.amount` is committed to and has no opening");
    // An opening that says something else opens nothing.
    let text = String::from_utf8(kept).unwrap();
    std::fs::write(&openings, text.replace("\"value\":1", "\"value\":2")).unwrap();
    says(&judged(&site), 3, "`args.amount` is committed to and has no opening");
}

#[test]
fn without_an_evaluator_nothing_is_said_of_verdicts() {
    let site = Site::new();
    site.open().close().unwrap();
    let report = verify_asked(&site.logs(), &site.trust, &Ask::level(Level::L4));
    says(&report, 3, "no evaluator");
}

#[test]
fn the_hosts_own_refusals_are_said_not_to_be_covered() {
    let site = Site::new();
    let log = site.open();
    let refused = Decision { verdict: Verdict::Block, ..reason("PAY-HOST") };
    record(&log, &call(payment("1")), &refused).unwrap();
    log.close().unwrap();
    says(&judged(&site), 0, "whether the host's own 1 refusals");
}

/// A payment that is escalated, approved and done; each test breaks one thing of it.
struct Story {
    site: Site,
    log: Log,
    alice: ApproverKey,
    asked: DecisionId,
}

const TICKET: &str = "ap-1";
const BINDING: [u8; 32] = [5; 32];

impl Story {
    fn new() -> Self {
        let mut site = Site::new();
        let alice = ApproverKey::generate(site.root.path(), "alice").unwrap();
        let (name, key) = ("alice".to_owned(), alice.verifier().clone());
        site.trust.approvers.push(Approver { name, key, roles: vec!["role:treasury".into()] });
        let log = site.open();
        let escalated = Decision { verdict: Verdict::Escalate, ..full(Durability::Os) };
        let escalated = Decision { disclosure: disclosure(&["args.*"], false), ..escalated };
        let asked = record(&log, &call(payment("12000")), &escalated).unwrap();
        Self { site, log, alice, asked }
    }

    fn escalate(&self, need: u64, expires: u64) -> &Self {
        let roles = [Arc::from("treasury")];
        let expires = Timestamp(expires);
        let entry = EscalationEntry {
            decision: self.asked,
            ticket: TICKET,
            roles: &roles,
            need,
            expires,
            binding: BINDING,
        };
        self.log.escalation(&entry).unwrap();
        self
    }

    fn approve(&self) -> &Self {
        let signed = self.alice.sign(ApprovalStatement {
            origin: self.site.trust.origin.clone(),
            ticket: TICKET.into(),
            decision: self.asked,
            answer: govrun_audit::Answer::Approve,
            binding: BINDING,
            at: Timestamp(T0 + 1),
        });
        self.event(ApprovalEvent::Approved, Some(&signed), None)
    }

    fn event(
        &self,
        event: ApprovalEvent,
        signed: Option<&SignedApproval>,
        used_by: Option<DecisionId>,
    ) -> &Self {
        let entry =
            ApprovalEntry { decision: self.asked, ticket: TICKET, event, binding: BINDING, signed, used_by };
        self.log.approval(&entry).unwrap();
        self
    }

    fn pay(&self, amount: &str) -> DecisionId {
        let approved = Decision { disclosure: disclosure(&["args.*"], false), ..reason("PAY-APPROVED") };
        record(&self.log, &call(payment(amount)), &approved).unwrap()
    }

    fn done(&self, id: DecisionId) -> Report {
        self.log.outcome(&outcome(id)).unwrap();
        self.end()
    }

    fn end(&self) -> Report {
        self.log.close().unwrap();
        judged(&self.site)
    }
}

const LATER: u64 = T0 + 900_000_000;

#[test]
fn an_approved_call_holds() {
    let story = Story::new();
    let id = story.escalate(1, LATER).approve().pay("12000");
    says(&story.event(ApprovalEvent::Consumed, None, Some(id)).done(id), 0, "VERIFIED at level L4");
}

#[test]
fn a_permit_that_needed_an_approval_and_used_none_is_seen() {
    let story = Story::new();
    let id = story.escalate(1, LATER).approve().pay("12000");
    says(&story.done(id), 1, "needed an approval, and none was used for it");
}

#[test]
fn an_approval_of_another_call_is_seen() {
    let story = Story::new();
    let id = story.escalate(1, LATER).approve().pay("12001");
    let report = story.event(ApprovalEvent::Consumed, None, Some(id)).done(id);
    says(&report, 1, "is not the call that was approved");
}

#[test]
fn an_approval_that_is_used_twice_is_seen() {
    let story = Story::new();
    let id = story.escalate(1, LATER).approve().pay("12000");
    story.event(ApprovalEvent::Consumed, None, Some(id));
    story.log.outcome(&outcome(id)).unwrap();
    let again = story.pay("12000");
    says(&story.event(ApprovalEvent::Consumed, None, Some(again)).done(again), 1, "it was used 2 times");
}

#[test]
fn an_approval_that_nobody_asked_for_or_gave_is_seen() {
    let story = Story::new();
    let id = story.approve().pay("12000");
    let report = story.event(ApprovalEvent::Consumed, None, Some(id)).done(id);
    says(&report, 1, "no escalation asked for it");
    let story = Story::new();
    let id = story.escalate(1, LATER).pay("12000");
    let report = story.event(ApprovalEvent::Consumed, None, Some(id)).done(id);
    says(&report, 1, "0 approvers with a role that was asked for, 1 needed");
}

#[test]
fn too_few_approvers_and_approvers_without_the_role_are_seen() {
    let story = Story::new();
    let id = story.escalate(2, LATER).approve().approve().pay("12000");
    let report = story.event(ApprovalEvent::Consumed, None, Some(id)).done(id);
    says(&report, 1, "1 approvers with a role that was asked for, 2 needed");
    let mut story = Story::new();
    story.site.trust.approvers[0].roles = vec!["intern".into()];
    let id = story.escalate(1, LATER).approve().pay("12000");
    let report = story.event(ApprovalEvent::Consumed, None, Some(id)).done(id);
    says(&report, 1, "0 approvers with a role that was asked for, 1 needed");
}

#[test]
fn an_expired_approval_is_seen() {
    let story = Story::new();
    let id = story.escalate(1, T0 + 1).approve().pay("12000");
    let report = story.event(ApprovalEvent::Consumed, None, Some(id)).done(id);
    says(&report, 1, "it was used after it had expired");
}
