//! Where grants report what became of them.

use std::sync::Arc;

use govrun_audit::{Clock, Log, OutcomeEntry, OutcomeStatus};
use govrun_verdict::{DecisionId, Disclosure};

use crate::grant::Outcome;

/// The log with the clock that stamps it.
pub(crate) struct Ledger {
    pub(crate) log: Log,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What an outcome needs to know of its grant.
pub(crate) struct GrantRef<'a> {
    pub(crate) decision: DecisionId,
    pub(crate) disclosure: &'a Arc<Disclosure>,
    pub(crate) started_us: u64,
}

impl Ledger {
    pub(crate) fn outcome(&self, grant: &GrantRef<'_>, outcome: &Outcome) {
        let status = match &outcome.failed {
            None => OutcomeStatus::Ok,
            Some(kind) => OutcomeStatus::Failed(kind.clone()),
        };
        self.write(grant, status, outcome);
    }

    pub(crate) fn cancelled(&self, grant: &GrantRef<'_>) {
        self.write(grant, OutcomeStatus::Cancelled, &Outcome::default());
    }

    fn write(&self, grant: &GrantRef<'_>, status: OutcomeStatus, outcome: &Outcome) {
        let entry = OutcomeEntry {
            decision: grant.decision,
            status,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            rows: outcome.rows,
            fuel: outcome.fuel,
            duration_us: self.clock.monotonic_us().saturating_sub(grant.started_us),
            absorbed: outcome.absorbed.clone(),
            disclosure: Arc::clone(grant.disclosure),
            note: outcome.note,
        };
        // The effect is over; a log that cannot take its outcome refuses every later call.
        if let Err(error) = self.log.outcome(&entry) {
            tracing::error!(%error, decision = %grant.decision, "an outcome could not be recorded");
        }
    }
}
