//! Level L2: who signed, and whether the trust file knows them.

use govrun_verdict::{LogId, Timestamp};

use super::report::{Finding, Outcome};
use crate::form::SealLine;
use crate::form::body::{Approval, ApprovalEvent, Body, Genesis, KeyEpoch, SignedBy};
use crate::keys::{Answer, ApprovalStatement, Certificate, EpochTree, SignedApproval, log_origin};
use crate::note::VerifierKey;
use crate::trust::Trust;

/// The keys that seals must be signed with, once the genesis record named them.
pub(super) struct Authority<'a> {
    trust: &'a Trust,
    log: LogId,
    known: Option<Known>,
}

/// What follows from a trusted genesis record.
struct Known {
    origin: String,
    log_key: VerifierKey,
    tree: EpochTree,
    /// The epoch that signs, and the one before.
    sealers: Vec<(u64, VerifierKey)>,
}

type Checked = Result<(), Box<Finding>>;

fn fail(outcome: Outcome, what: &str, expected: impl ToString, found: impl ToString) -> Checked {
    let mut finding = Finding::of(outcome, what);
    finding.expected = Some(expected.to_string());
    finding.found = Some(found.to_string());
    Err(Box::new(finding))
}

impl<'a> Authority<'a> {
    pub(super) const fn new(trust: &'a Trust, log: LogId) -> Self {
        Self { trust, log, known: None }
    }

    pub(super) fn record(&mut self, body: &Body<'_>) -> Checked {
        match body {
            Body::Genesis(genesis) => self.genesis(genesis),
            Body::Approval(approval) => match &approval.signed {
                Some(signed) => self.approval(approval, signed),
                None => Ok(()),
            },
            Body::KeyEpoch(record) => self.key_epoch(record),
            Body::PolicyLoad(_)
            | Body::ModeChange(_)
            | Body::Drill(_)
            | Body::Gap(_)
            | Body::Heartbeat(_)
            | Body::Decision(_)
            | Body::Outcome(_)
            | Body::Escalation(_)
            | Body::Recover(_)
            | Body::IoError(_)
            | Body::ClockStep(_)
            | Body::Open(_)
            | Body::Close(_) => Ok(()),
        }
    }

    fn genesis(&mut self, genesis: &Genesis<'_>) -> Checked {
        let certificate = match Certificate::parse(&genesis.cert) {
            Ok(certificate) => certificate,
            Err(e) => {
                return fail(
                    Outcome::Tampered,
                    "the certificate in the genesis record does not hold",
                    "a certificate",
                    e,
                );
            }
        };
        let origin = log_origin(certificate.origin(), self.log);
        if *genesis.origin != *origin {
            return fail(
                Outcome::Tampered,
                "the log's origin is not that of its certificate",
                origin,
                &genesis.origin,
            );
        }
        if certificate.root() != &self.trust.root {
            let what = "the log was begun under another root key than the trust file names";
            return fail(Outcome::Untrusted, what, &self.trust.root, certificate.root());
        }
        if certificate.origin() != self.trust.origin {
            let what = "the log is of another origin than the trust file names";
            return fail(Outcome::Untrusted, what, &self.trust.origin, certificate.origin());
        }
        let tree = EpochTree { first: 0, count: genesis.epochs.0, root: genesis.epoch_root.0 };
        let proof: Vec<_> = genesis.slot_proof.iter().map(|h| h.0).collect();
        if certificate.log_of(genesis.slot.0, &tree, &proof) != Some(self.log) {
            let what = "the log with these epoch keys is not one that the root certified under this id";
            return fail(Outcome::Untrusted, what, "a certified log", genesis.epoch_root);
        }
        let proof: Vec<_> = genesis.epoch_proof.iter().map(|h| h.0).collect();
        if !tree.has(0, &genesis.epoch_key.0, &proof) {
            let what = "the epoch key is not one that the root certified";
            return fail(Outcome::Untrusted, what, "a certified key", genesis.epoch_key);
        }
        if let Ok(key) = VerifierKey::new(&origin, genesis.epoch_key.0) {
            let log_key = certificate.log().clone();
            self.known = Some(Known { origin, log_key, tree, sealers: vec![(0, key)] });
        }
        Ok(())
    }

    /// The next key was announced: by the tree in force, or by a new one that the log key signed.
    fn key_epoch(&mut self, record: &KeyEpoch<'_>) -> Checked {
        let Some(known) = &mut self.known else { return Ok(()) };
        let epoch = record.epoch.0;
        if let Some(next) = &record.tree {
            let tree = EpochTree { first: epoch, count: next.count.0, root: next.root.0 };
            if !known.log_key.verifies(tree.statement(&known.origin).as_bytes(), &next.sig.0) {
                let what = "the next tree of epoch keys is not signed by the log key";
                return fail(Outcome::Untrusted, what, &known.log_key, next.sig);
            }
            known.tree = tree;
        }
        let proof: Vec<_> = record.proof.iter().map(|h| h.0).collect();
        if !known.tree.has(epoch, &record.key.0, &proof) {
            let what = "the key of the next epoch is not the one that was announced";
            return fail(Outcome::Untrusted, what, "an announced key", record.key);
        }
        if let Ok(key) = VerifierKey::new(&known.origin, record.key.0) {
            known.sealers.push((epoch, key));
            let old = known.sealers.len().saturating_sub(2);
            known.sealers.drain(..old);
        }
        Ok(())
    }

    /// Whether a trusted genesis record named the key of the seals.
    pub(super) const fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// The key that the next seals are signed with.
    pub(super) fn key(&self) -> Option<&VerifierKey> {
        self.known.as_ref().and_then(|known| known.sealers.last()).map(|(_, key)| key)
    }

    /// Without a trusted genesis record there is no key to hold a seal against; that was reported already.
    ///
    /// `signed_by`: a key under which the signature is known to hold already.
    pub(super) fn seal(&self, seal: &SealLine, signed_by: Option<[u8; 32]>) -> Checked {
        let Some(known) = &self.known else { return Ok(()) };
        let sealer = known.sealers.iter().find(|(epoch, _)| *epoch == seal.epoch.0);
        let Some((_, key)) = sealer else {
            return fail(
                Outcome::Tampered,
                "the seal names an epoch that never began",
                "an epoch",
                seal.epoch.0,
            );
        };
        if let Some(at) = self.trust.revoked_at(self.log).filter(|at| seal.size.0 > *at) {
            let what = "the trust file does not believe this log beyond a size: its keys were revoked";
            return fail(Outcome::Untrusted, what, format!("at most {at} records"), seal.size.0);
        }
        if seal.origin != key.name() {
            return fail(Outcome::Tampered, "the seal is of another log", key.name(), &seal.origin);
        }
        if seal.key.0 != key.id() {
            let (ours, found) = (crate::form::Hex(key.id()), seal.key);
            return fail(
                Outcome::Untrusted,
                "the seal is signed with another key than the log's",
                ours,
                found,
            );
        }
        if signed_by.as_ref() != Some(key.public()) && !seal.verifies(key) {
            return fail(
                Outcome::Tampered,
                "the seal's signature does not fit its checkpoint",
                key,
                seal.sig,
            );
        }
        Ok(())
    }

    fn approval(&self, approval: &Approval<'_>, signed: &SignedBy<'_>) -> Checked {
        let answer = match approval.event {
            ApprovalEvent::Approved => Answer::Approve,
            ApprovalEvent::Denied => Answer::Deny,
            ApprovalEvent::Expired | ApprovalEvent::Consumed | ApprovalEvent::Cancelled => return Ok(()),
        };
        let key = match VerifierKey::parse(&signed.key) {
            Ok(key) => key,
            Err(e) => return fail(Outcome::Tampered, "the approver's key is malformed", "a verifier key", e),
        };
        let statement = ApprovalStatement {
            origin: self.trust.origin.clone(),
            ticket: approval.ticket.to_string(),
            decision: approval.decision,
            answer,
            binding: approval.binding.0,
            at: Timestamp(signed.at.0),
        };
        let signed_approval = SignedApproval { key, statement, signature: signed.sig.0 };
        if !signed_approval.verifies() {
            let what = "the approver's signature does not fit what the record says was approved";
            return fail(Outcome::Tampered, what, signed.key.to_string(), signed.sig);
        }
        match self.trust.approver(&signed_approval.key) {
            Some(approver) if approver.name == *signed.approver => Ok(()),
            Some(approver) => fail(
                Outcome::Tampered,
                "the approver's name is not the key's",
                &approver.name,
                &signed.approver,
            ),
            None => {
                let what = "the approver is not in the trust file";
                fail(Outcome::Untrusted, what, "a listed approver", signed_approval.key)
            }
        }
    }
}
