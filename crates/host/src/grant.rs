//! The right to cause one effect.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use govrun_audit::Receipt;
use govrun_control::Approval;
use govrun_verdict::{Call, Decision, DecisionId, Disclosure, Obligations, Operation, Refusal, Verdict};

use crate::gate::Gate;
use crate::ledger::GrantRef;

/// What an effect reports when it is over: counts, never content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why the permitted effect failed, as a short kind such as `not-found`; `None` when it succeeded.
    pub failed: Option<String>,
    /// Bytes read: they came from the world to the guest.
    pub bytes_in: u64,
    /// Bytes written: they went from the guest to the world.
    pub bytes_out: u64,
    /// Rows read or changed.
    pub rows: u64,
    /// WebAssembly fuel used.
    pub fuel: u64,
    /// What a sandbox absorbed.
    pub absorbed: Vec<govrun_audit::Absorbed>,
    /// One short sentence of the host's for whoever reads the log; never guest data.
    pub note: Option<&'static str>,
}

impl Outcome {
    /// A success without counts.
    #[must_use]
    pub fn ok() -> Self {
        Self::default()
    }

    /// A failure of this kind.
    #[must_use]
    pub fn failed(kind: impl Into<String>) -> Self {
        Self { failed: Some(kind.into()), ..Self::default() }
    }
}

/// The right to cause exactly one effect, or to hold the one resource it opened. It can be neither copied nor made by
/// hand: the gate mints it from the receipt of a recorded, permitting decision, and the effect takes it by value.
///
/// Whoever holds one for longer asks [`Grant::live`] before each use: another policy, a stop order or the end of the
/// process may have taken it away.
///
/// ```compile_fail
/// fn twice(grant: govrun_host::Grant) { drop(grant.clone()); }
/// ```
/// ```compile_fail
/// let forged = govrun_host::Grant { };
/// ```
pub struct Grant {
    receipt: Receipt,
    call: Call,
    obligations: Obligations,
    sandboxed: bool,
    disclosure: Arc<Disclosure>,
    approval: Option<Box<Approval>>,
    started_us: u64,
    // The last change that was looked at and did not take it away.
    seen: AtomicU64,
    revoked: OnceLock<Refusal>,
    gate: Arc<Gate>,
    finished: bool,
}

/// Proof that a held grant stood a moment ago: good for the next operation, not for keeping.
#[derive(Debug)]
pub struct Live<'a>(PhantomData<&'a Grant>);

/// What a grant is minted of.
pub(crate) struct Minted<'a> {
    pub(crate) receipt: Receipt,
    pub(crate) call: &'a Call,
    pub(crate) decision: &'a Decision,
    pub(crate) approval: Option<&'a Approval>,
    pub(crate) started_us: u64,
    /// Counted before the policy was read, so that no change falls between.
    pub(crate) generation: u64,
}

impl Grant {
    /// INVARIANT: called by the gate only, after the decision was recorded.
    pub(crate) fn mint(gate: &Arc<Gate>, minted: Minted<'_>) -> Self {
        Self {
            receipt: minted.receipt,
            call: minted.call.clone(),
            obligations: minted.decision.obligations.clone(),
            sandboxed: minted.decision.verdict == Verdict::Sandbox,
            disclosure: Arc::clone(&minted.decision.disclosure),
            approval: minted.approval.cloned().map(Box::new),
            started_us: minted.started_us,
            seen: AtomicU64::new(minted.generation),
            revoked: OnceLock::new(),
            gate: Arc::clone(gate),
            finished: false,
        }
    }

    /// Whether the grant still stands. Usually one atomic load; after a change the call is decided again, without a charge,
    /// and a grant that would not be given today, or only with tighter obligations, is gone for good.
    ///
    /// # Errors
    /// The recorded refusal, the same one each time.
    pub fn live(&self) -> Result<Live<'_>, Refusal> {
        let now = self.gate.standing().generation();
        if now == self.seen.load(Ordering::Acquire) {
            return Ok(Live(PhantomData));
        }
        if let Some(refusal) = self.revoked.get() {
            return Err(refusal.clone());
        }
        match self.gate.reconsider(&self.call, &self.obligations, self.sandboxed, self.approval.as_deref()) {
            Ok(()) => {
                self.seen.store(now, Ordering::Release);
                Ok(Live(PhantomData))
            }
            Err(refusal) => Err(self.revoked.get_or_init(|| refusal).clone()),
        }
    }

    /// What was decided on. Effects act on this, never on the guest's own words.
    #[must_use]
    pub const fn operation(&self) -> &Operation {
        &self.call.operation
    }

    /// What the effect is bound to.
    #[must_use]
    pub const fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    /// True when nothing real may change.
    #[must_use]
    pub const fn sandboxed(&self) -> bool {
        self.sandboxed
    }

    /// The id of the decision's record.
    #[must_use]
    pub const fn id(&self) -> DecisionId {
        self.receipt.id()
    }

    const fn reference(&self) -> GrantRef<'_> {
        GrantRef { decision: self.receipt.id(), disclosure: &self.disclosure, started_us: self.started_us }
    }

    /// End the effect: writes its outcome record.
    pub fn finish(mut self, outcome: &Outcome) {
        self.finished = true;
        // A permission that was withdrawn while it was used is why it ended, whatever else failed then.
        let told = match (self.revoked.get(), &outcome.failed) {
            (Some(refusal), None) => &Outcome { failed: Some(refusal.reason.to_string()), ..outcome.clone() },
            _ => outcome,
        };
        self.gate.ledger().outcome(&self.reference(), told);
    }
}

impl Drop for Grant {
    /// A grant that is dropped unfinished was cancelled or crashed: the log says so.
    fn drop(&mut self) {
        if !self.finished {
            self.gate.ledger().cancelled(&self.reference());
        }
    }
}
