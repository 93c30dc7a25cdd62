//! The right to cause one effect.

use std::sync::Arc;

use govrun_audit::Receipt;
use govrun_verdict::{DecisionId, Disclosure, Obligations, Operation};

use crate::ledger::{GrantRef, Ledger};

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
/// ```compile_fail
/// fn twice(grant: govrun_host::Grant) { drop(grant.clone()); }
/// ```
/// ```compile_fail
/// let forged = govrun_host::Grant { };
/// ```
pub struct Grant {
    receipt: Receipt,
    operation: Operation,
    obligations: Obligations,
    sandboxed: bool,
    disclosure: Arc<Disclosure>,
    started_us: u64,
    ledger: Option<Arc<Ledger>>,
}

impl Grant {
    /// INVARIANT: called by the gate only, after the decision was recorded.
    pub(crate) const fn mint(
        receipt: Receipt,
        operation: Operation,
        obligations: Obligations,
        sandboxed: bool,
        disclosure: Arc<Disclosure>,
        started_us: u64,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { receipt, operation, obligations, sandboxed, disclosure, started_us, ledger: Some(ledger) }
    }

    /// What was decided on. Effects act on this, never on the guest's own words.
    #[must_use]
    pub const fn operation(&self) -> &Operation {
        &self.operation
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
        if let Some(ledger) = self.ledger.take() {
            ledger.outcome(&self.reference(), outcome);
        }
    }
}

impl Drop for Grant {
    /// A grant that is dropped unfinished was cancelled or crashed: the log says so.
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.cancelled(&self.reference());
        }
    }
}
