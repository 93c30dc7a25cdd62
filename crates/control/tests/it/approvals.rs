//! An approval is for one call, by the right people, once.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ed25519_dalek::{Signer as _, SigningKey};
use govrun_control::{
    Approval, ApprovalId, Ballot, Choice, ConsumeError, DecideError, Decided, Filter, MAX_SHOWN_BYTES,
    NewApproval, Principal, RequestError, State, Store, StoreError, Ticket,
};
use govrun_verdict::{DecisionId, Digest, LogId, Timestamp, ToolRef};

use crate::support::{T0, open};

const NOW: Timestamp = Timestamp(T0);
const EXPIRY: Timestamp = Timestamp(T0 + 900_000_000);
const QUOTA: u64 = 3;
const CALL: &[u8] = b"payments.send amount=48000 to=acme";

fn new() -> NewApproval {
    NewApproval {
        principal: Principal {
            agent: "finance-1".into(),
            tenant: Some("acme".into()),
            session: "session-1".into(),
        },
        tool: ToolRef { name: "payments.send".into(), component: Digest::of(b"payments") },
        shown: vec![
            ("args.amount".into(), "48000".into()),
            ("args.counterparty".into(), "Zoë \"&\" Co".into()),
        ],
        epoch: Digest::of(b"policy"),
        node: "node-1".into(),
        roles: vec!["treasury".into(), "cfo".into()],
        need: NonZeroU64::MIN,
        expires_at: EXPIRY,
        decision: DecisionId { log: LogId([1; 8]), seq: 42 },
    }
}

fn needing(need: u64) -> NewApproval {
    NewApproval { need: NonZeroU64::new(need).unwrap(), ..new() }
}

fn asked(store: &Store, new: &NewApproval, call: &[u8]) -> Ticket {
    store.request(new, call, NOW, QUOTA).unwrap()
}

fn key(approver: &str) -> SigningKey {
    SigningKey::from_bytes(Digest::of(approver.as_bytes()).0.as_slice().try_into().unwrap())
}

/// What a caller of the store might sign: the choice and the commitment.
fn signature(approval: &Approval, approver: &str, choice: Choice) -> [u8; 64] {
    let mut text = choice.name().as_bytes().to_vec();
    text.extend_from_slice(&approval.commitment());
    key(approver).sign(&text).to_bytes()
}

fn ballot(approval: &Approval, approver: &str, choice: Choice) -> Ballot {
    Ballot {
        choice,
        approver: approver.into(),
        roles: vec!["oncall".into(), "treasury".into()],
        signature: signature(approval, approver, choice),
        comment: "looked at it".into(),
    }
}

fn approve(store: &Store, approval: &Approval, approver: &str) -> Result<Decided, DecideError> {
    store.decide(&approval.id, &ballot(approval, approver, Choice::Approve), NOW)
}

fn with_store(test: impl FnOnce(&Store, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    test(&open(dir.path()), dir.path());
}

#[test]
fn an_approved_call_happens_once_with_the_proof_of_who_approved() {
    with_store(|store, _| {
        let ticket = asked(store, &new(), CALL);
        assert!(!ticket.attached);
        let approval = ticket.approval;
        assert_eq!(
            store.get(&approval.id, NOW).unwrap(),
            Some(approval.clone()),
            "comes back as it was asked"
        );
        assert_eq!(store.status(&approval.id, NOW).unwrap(), Some(State::Pending));
        assert!(matches!(store.consume(&approval.id, CALL, NOW), Err(ConsumeError::Pending)));

        let decided = approve(store, &approval, "erin").unwrap();
        assert_eq!(decided, Decided { state: State::Approved, approvals: 1 });
        let consumed = store.consume(&approval.id, CALL, NOW).unwrap();
        let vote = &consumed.approval().votes[0];
        assert_eq!((vote.approver.as_str(), vote.role.as_str()), ("erin", "treasury"));
        assert_eq!(vote.signature, signature(&approval, "erin", Choice::Approve));
        assert_eq!(
            consumed.approval().commitment(),
            approval.commitment(),
            "votes and state are not part of it"
        );

        assert!(matches!(store.consume(&approval.id, CALL, NOW), Err(ConsumeError::AlreadyConsumed)));
        assert_eq!(store.status(&approval.id, NOW).unwrap(), Some(State::Consumed));
    });
}

#[test]
fn other_arguments_are_another_call() {
    with_store(|store, _| {
        let approval = asked(store, &new(), CALL).approval;
        approve(store, &approval, "erin").unwrap();
        for other in [&b"payments.send amount=48001 to=acme"[..], b"", &CALL[1..], &[CALL, b"\0"].concat()] {
            assert!(matches!(store.consume(&approval.id, other, NOW), Err(ConsumeError::OtherCall)));
        }
        assert!(store.consume(&approval.id, CALL, NOW).is_ok(), "a wrong try does not use it up");
        assert!(matches!(store.consume(&approval.id, b"other", NOW), Err(ConsumeError::OtherCall)));
    });
}

#[test]
fn the_binding_is_keyed_by_a_nonce_of_its_own() {
    with_store(|store, _| {
        let first = asked(store, &new(), CALL).approval;
        approve(store, &first, "erin").unwrap();
        store.consume(&first.id, CALL, NOW).unwrap();
        let second = asked(store, &new(), CALL).approval;
        assert_ne!(first.id, second.id);
        assert_ne!(first.nonce, second.nonce);
        assert_ne!(first.binding, second.binding);
    });
}

#[test]
fn of_many_consumers_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    for round in 0..10_u8 {
        let call = [CALL, &[round]].concat();
        let approval = asked(&first, &new(), &call).approval;
        approve(&first, &approval, "erin").unwrap();
        let won = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = open(dir.path());
                    match store.consume(&approval.id, &call, NOW) {
                        Ok(_) => drop(won.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => assert!(matches!(error, ConsumeError::AlreadyConsumed), "{error}"),
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
    }
}

#[test]
fn nothing_happens_after_the_expiry() {
    with_store(|store, _| {
        let last = Timestamp(EXPIRY.0 - 1);
        let (pending, approved) = (asked(store, &new(), b"1").approval, asked(store, &new(), b"2").approval);
        approve(store, &approved, "erin").unwrap();
        assert_eq!(store.status(&pending.id, last).unwrap(), Some(State::Pending));
        assert_eq!(store.status(&pending.id, EXPIRY).unwrap(), Some(State::Expired));
        assert_eq!(store.get(&approved.id, EXPIRY).unwrap().unwrap().state, State::Expired);
        assert!(store.list(Filter::Pending, EXPIRY, 9).unwrap().is_empty());

        let late = store.decide(&pending.id, &ballot(&pending, "erin", Choice::Approve), EXPIRY);
        assert!(matches!(late, Err(DecideError::Expired)));
        assert!(matches!(store.consume(&approved.id, b"2", EXPIRY), Err(ConsumeError::Expired)));
        // A clock that steps back revives neither.
        assert!(matches!(approve(store, &pending, "erin"), Err(DecideError::Expired)));
        assert!(matches!(store.consume(&approved.id, b"2", NOW), Err(ConsumeError::Expired)));
    });
}

#[test]
fn an_approval_in_its_last_microsecond_still_counts() {
    with_store(|store, _| {
        let last = Timestamp(EXPIRY.0 - 1);
        let approval = asked(store, &new(), CALL).approval;
        store.decide(&approval.id, &ballot(&approval, "erin", Choice::Approve), last).unwrap();
        assert!(store.consume(&approval.id, CALL, last).is_ok());
    });
}

#[test]
fn expired_approvals_are_reported_once() {
    with_store(|store, dir| {
        let first = asked(store, &new(), b"1").approval;
        let second = asked(store, &new(), b"2").approval;
        let denied = asked(store, &new(), b"3").approval;
        store.decide(&denied.id, &ballot(&denied, "erin", Choice::Deny), NOW).unwrap();
        assert!(store.expire_due(Timestamp(EXPIRY.0 - 1)).unwrap().is_empty());
        // Somebody else noticing the expiry does not swallow the report.
        let late = store.decide(&first.id, &ballot(&first, "erin", Choice::Approve), EXPIRY);
        assert!(matches!(late, Err(DecideError::Expired)));
        let mut told: Vec<ApprovalId> = store.expire_due(EXPIRY).unwrap().into_iter().map(|a| a.id).collect();
        told.sort();
        let mut expected = vec![first.id, second.id];
        expected.sort();
        assert_eq!(told, expected);
        assert!(store.expire_due(EXPIRY).unwrap().is_empty());
        assert!(open(dir).expire_due(EXPIRY).unwrap().is_empty());
    });
}

#[test]
fn one_denial_ends_it() {
    with_store(|store, _| {
        let approval = asked(store, &needing(2), CALL).approval;
        assert_eq!(approve(store, &approval, "erin").unwrap().state, State::Pending);
        let denied = store.decide(&approval.id, &ballot(&approval, "frank", Choice::Deny), NOW).unwrap();
        assert_eq!(denied.state, State::Denied);
        assert!(matches!(approve(store, &approval, "grace"), Err(DecideError::NotPending(State::Denied))));
        assert!(matches!(store.consume(&approval.id, CALL, NOW), Err(ConsumeError::Denied)));
    });
}

#[test]
fn two_approvals_need_two_people() {
    with_store(|store, dir| {
        let approval = asked(store, &needing(2), CALL).approval;
        assert_eq!(
            approve(store, &approval, "erin").unwrap(),
            Decided { state: State::Pending, approvals: 1 }
        );
        for again in ["erin", "Erin", " ERIN "] {
            assert!(matches!(approve(store, &approval, again), Err(DecideError::AlreadyVoted)), "{again:?}");
        }
        assert!(matches!(store.consume(&approval.id, CALL, NOW), Err(ConsumeError::Pending)));
        let other = open(dir);
        assert_eq!(
            approve(&other, &approval, "frank").unwrap(),
            Decided { state: State::Approved, approvals: 2 }
        );
        assert_eq!(store.consume(&approval.id, CALL, NOW).unwrap().approval().votes.len(), 2);
    });
}

#[test]
fn a_state_that_no_votes_bear_out_is_not_believed() {
    with_store(|store, _| {
        let approval = asked(store, &needing(2), CALL).approval;
        approve(store, &approval, "erin").unwrap();
        let edited = rusqlite::Connection::open(store.path()).unwrap();
        edited.execute("UPDATE approvals SET state = 'approved'", []).unwrap();
        let consumed = store.consume(&approval.id, CALL, NOW);
        assert!(matches!(consumed, Err(ConsumeError::Store(StoreError::Corrupt { .. }))), "{consumed:?}");
        edited.execute("UPDATE approvals SET roles = '{'", []).unwrap();
        assert!(matches!(store.get(&approval.id, NOW), Err(StoreError::Corrupt { .. })));
    });
}

#[test]
fn an_agent_does_not_decide_on_its_own_call() {
    with_store(|store, _| {
        let approval = asked(store, &new(), CALL).approval;
        for own in ["finance-1", "Finance-1", "finance-1 "] {
            for choice in [Choice::Approve, Choice::Deny] {
                let decided = store.decide(&approval.id, &ballot(&approval, own, choice), NOW);
                assert!(matches!(decided, Err(DecideError::SelfApproval)), "{own:?}");
            }
        }
        assert_eq!(store.status(&approval.id, NOW).unwrap(), Some(State::Pending));
    });
}

#[test]
fn only_the_roles_that_were_asked_decide() {
    with_store(|store, _| {
        let approval = asked(store, &new(), CALL).approval;
        for roles in [vec![], vec!["oncall".into()], vec![Arc::from("Treasury")]] {
            let ballot = Ballot { roles, ..ballot(&approval, "erin", Choice::Approve) };
            assert!(matches!(store.decide(&approval.id, &ballot, NOW), Err(DecideError::RoleMissing(_))));
        }
    });
}

#[test]
fn every_lasting_part_of_an_approval_is_in_the_commitment() {
    with_store(|store, _| {
        let base = asked(store, &new(), CALL).approval;
        let other_id = asked(store, &new(), b"2").approval.id;
        let changed = |change: &dyn Fn(&mut Approval)| {
            let mut approval = base.clone();
            change(&mut approval);
            approval.commitment()
        };
        let changes: Vec<[u8; 32]> = vec![
            changed(&|_| ()),
            changed(&|a| a.id = other_id.clone()),
            changed(&|a| a.nonce[31] ^= 1),
            changed(&|a| a.binding[31] ^= 1),
            changed(&|a| a.principal.agent = "finance-2".into()),
            changed(&|a| a.principal.tenant = None),
            changed(&|a| a.principal.tenant = Some("".into())),
            changed(&|a| a.principal.session = "session-2".into()),
            changed(&|a| a.tool.name = "payments.refund".into()),
            changed(&|a| a.tool.component = Digest([0; 32])),
            changed(&|a| a.epoch = Digest([0; 32])),
            changed(&|a| a.node = "node-2".into()),
            changed(&|a| a.need = NonZeroU64::new(2).unwrap()),
            changed(&|a| a.roles = vec!["treasury".into()]),
            changed(&|a| a.roles = vec!["treasurycfo".into(), "".into()]),
            changed(&|a| a.decision.seq += 1),
            changed(&|a| a.created.0 += 1),
            changed(&|a| a.expires_at.0 += 1),
            changed(&|a| a.shown[0].1 = "4".into()),
            changed(&|a| {
                let moved = std::mem::take(&mut a.shown[1].0);
                a.shown[0].1.push_str(&moved);
            }),
            changed(&|a| a.shown.truncate(1)),
        ];
        for (i, one) in changes.iter().enumerate() {
            assert!(changes[..i].iter().all(|other| other != one), "change {i} makes no difference");
        }
        // What may change while it waits is not in it.
        assert_eq!(changes[0], changed(&|a| a.state = State::Approved));
    });
}

#[test]
fn identical_calls_share_one_approval() {
    with_store(|store, dir| {
        let first = asked(store, &new(), CALL).approval;
        let later = NewApproval {
            decision: DecisionId { log: LogId([2; 8]), seq: 7 },
            principal: Principal { session: "session-2".into(), ..new().principal },
            epoch: Digest::of(b"another policy"),
            ..new()
        };
        // Also from another process, and once it is approved.
        let ticket = asked(&open(dir), &later, CALL);
        assert!(ticket.attached);
        assert_eq!(ticket.approval, first, "names the first waiter's decision");
        approve(store, &first, "erin").unwrap();
        let ticket = asked(store, &later, CALL);
        assert!(ticket.attached);
        assert_eq!((ticket.approval.state, ticket.approval.votes.len()), (State::Approved, 1));
        store.consume(&first.id, CALL, NOW).unwrap();
        assert!(!asked(store, &later, CALL).attached, "a used one is not for the next call");
    });
}

#[test]
fn other_calls_do_not_attach() {
    with_store(|store, _| {
        let first = asked(store, &new(), CALL).approval;
        let tool = |name: &str, bytes| ToolRef { name: name.into(), component: Digest::of(bytes) };
        let principal =
            |agent: &str, tenant| Principal { agent: agent.into(), tenant, session: "session-1".into() };
        let others = [
            NewApproval { tool: tool("payments.refund", b"payments"), ..new() },
            NewApproval { tool: tool("payments.send", b"patched"), ..new() },
            NewApproval { principal: principal("finance-2", Some("acme".into())), ..new() },
            NewApproval { principal: principal("finance-1", None), ..new() },
            // A stricter policy is not satisfied by what an older one asked for.
            needing(2),
            NewApproval { roles: vec!["cfo".into()], ..new() },
        ];
        for other in &others {
            let ticket = store.request(other, CALL, NOW, 99).unwrap();
            assert!(!ticket.attached, "{other:?}");
            assert_ne!(ticket.approval.id, first.id);
        }
        assert!(!store.request(&new(), b"other arguments", NOW, 99).unwrap().attached);
        let later = NewApproval { expires_at: Timestamp(EXPIRY.0 + 1), ..new() };
        assert!(
            !store.request(&later, CALL, EXPIRY, 99).unwrap().attached,
            "an expired one is not attached to"
        );
        let mine = [NewApproval { roles: vec!["treasury".into(), "cfo".into(), "ceo".into()], ..new() }];
        assert!(store.request(&mine[0], CALL, NOW, 99).unwrap().attached, "a laxer policy is satisfied");
    });
}

#[test]
fn a_denied_call_may_ask_again_and_is_a_new_approval() {
    with_store(|store, _| {
        let first = asked(store, &new(), CALL).approval;
        store.decide(&first.id, &ballot(&first, "erin", Choice::Deny), NOW).unwrap();
        let again = asked(store, &new(), CALL);
        assert!(!again.attached);
        assert_ne!(
            first.commitment(),
            again.approval.commitment(),
            "no signature of the one is one of the other"
        );
    });
}

#[test]
fn pending_approvals_of_an_agent_are_bounded() {
    with_store(|store, _| {
        for n in 0..QUOTA {
            asked(store, &new(), &n.to_le_bytes());
        }
        let over = store.request(&new(), b"one more", NOW, QUOTA);
        assert!(matches!(over, Err(RequestError::Quota { pending: QUOTA, limit: QUOTA })));
        assert!(asked(store, &new(), &0_u64.to_le_bytes()).attached, "attaching takes no room");
        let other =
            NewApproval { principal: Principal { agent: "finance-2".into(), ..new().principal }, ..new() };
        assert!(!asked(store, &other, b"one more").attached, "another agent has room of its own");
        // Decided ones make room, and so do expired ones, marked or not.
        let first = asked(store, &new(), &0_u64.to_le_bytes()).approval;
        approve(store, &first, "erin").unwrap();
        asked(store, &new(), b"one more");
        let later = NewApproval { expires_at: Timestamp(EXPIRY.0 + 1), ..new() };
        assert!(store.request(&later, b"after", EXPIRY, 1).is_ok());
    });
}

#[test]
fn impossible_requests_are_refused() {
    with_store(|store, _| {
        let request = |new: &NewApproval| store.request(new, CALL, NOW, QUOTA);
        let no_roles = NewApproval { roles: Vec::new(), ..new() };
        assert!(matches!(request(&no_roles), Err(RequestError::NoRoles)));
        let no_time = NewApproval { expires_at: NOW, ..new() };
        assert!(matches!(request(&no_time), Err(RequestError::NoTime)));
        let long = NewApproval { shown: vec![("statement".into(), "x".repeat(MAX_SHOWN_BYTES))], ..new() };
        assert!(matches!(request(&long), Err(RequestError::Store(StoreError::TooLarge { .. }))));
        let many = NewApproval { shown: vec![Default::default(); 257], ..new() };
        assert!(matches!(request(&many), Err(RequestError::Store(StoreError::TooLarge { .. }))));
    });
}

#[test]
fn a_restart_keeps_what_is_pending_and_what_is_approved() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, approved) = {
        let store = open(dir.path());
        let (pending, approved) =
            (asked(&store, &needing(2), b"1").approval, asked(&store, &new(), b"2").approval);
        approve(&store, &pending, "erin").unwrap();
        approve(&store, &approved, "erin").unwrap();
        (pending, approved)
    };
    let store = open(dir.path());
    let listed: Vec<ApprovalId> =
        store.list(Filter::Pending, NOW, 9).unwrap().into_iter().map(|a| a.id).collect();
    assert_eq!(listed, std::slice::from_ref(&pending.id));
    assert_eq!(approve(&store, &pending, "frank").unwrap().state, State::Approved);
    assert!(store.consume(&pending.id, b"1", NOW).is_ok());
    assert!(store.consume(&approved.id, b"2", NOW).is_ok());
}

#[test]
fn unknown_ids_are_unknown() {
    with_store(|store, _| {
        let id = ApprovalId::parse("apr-0000000000000").unwrap();
        let approval = asked(store, &new(), CALL).approval;
        assert_eq!(store.get(&id, NOW).unwrap(), None);
        assert_eq!(store.status(&id, NOW).unwrap(), None);
        assert!(matches!(store.consume(&id, CALL, NOW), Err(ConsumeError::Unknown(_))));
        let decided = store.decide(&id, &ballot(&approval, "erin", Choice::Approve), NOW);
        assert!(matches!(decided, Err(DecideError::Unknown(_))));
    });
}

#[test]
fn purging_removes_what_is_finished_and_overwrites_what_it_showed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let secret = NewApproval { shown: vec![("args.note".into(), "a-very-private-remark".into())], ..new() };
    let used = asked(&store, &secret, b"1").approval;
    approve(&store, &used, "erin").unwrap();
    store.consume(&used.id, b"1", NOW).unwrap();
    let kept = asked(&store, &new(), b"2").approval;
    assert_eq!(store.list(Filter::All, NOW, 9).unwrap().len(), 2);
    assert_eq!(store.list(Filter::All, NOW, 1).unwrap().len(), 1);
    assert_eq!(store.purge(NOW).unwrap(), 0, "not before its end");
    assert_eq!(store.purge(Timestamp(NOW.0 + 1)).unwrap(), 1);
    assert_eq!(store.get(&used.id, NOW).unwrap(), None);
    assert!(store.get(&kept.id, NOW).unwrap().is_some(), "pending ones stay");
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(21).any(|w| w == b"a-very-private-remark"));
    }
}
