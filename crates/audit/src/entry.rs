//! What a host hands over to be recorded.

use std::fmt;
use std::sync::Arc;

use govrun_verdict::{
    BudgetLevel, Call, Decision, DecisionId, Digest, Disclosure, Facts, Obligations, Timestamp,
};

pub use crate::form::body::{AbsorbedKind, ApprovalEvent, DrillEvent};
use crate::keys::SignedApproval;

/// Most absorbed effects that one outcome lists; the rest are counted.
pub const MAX_ABSORBED: usize = 256;

/// One decision, with everything it was computed from.
#[derive(Debug, Clone, Copy)]
pub struct DecisionEntry<'a> {
    /// The call.
    pub call: &'a Call,
    /// The answer.
    pub decision: &'a Decision,
    /// What the answer was computed from, besides call and policy.
    pub inputs: &'a Inputs<'a>,
    /// Time the decision took, in nanoseconds.
    pub decide_ns: u64,
    /// Trace context, if the caller sent one.
    pub trace: Option<TraceIds>,
}

/// What a decision was computed from, besides call and policy.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The decision's time.
    pub now: Timestamp,
    /// Levels of the budgets just before the call.
    pub budgets: &'a [BudgetLevel],
    /// Obligations of the running call this one is inside of.
    pub bounds: Option<&'a Obligations>,
    /// Rollout cohort.
    pub cohort: Option<&'a str>,
    /// What was known of the agent's past, where the policy asks about it.
    pub facts: Option<&'a Facts>,
}

/// W3C trace context ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIds {
    /// Trace id.
    pub trace: [u8; 16],
    /// Span id.
    pub span: [u8; 8],
}

/// Proof that a decision was recorded, at the durability its rule asks for. Only [`crate::Log::decision`] makes one, and it
/// cannot be copied: an effect that takes a receipt by value happens for a recorded decision, once.
#[derive(PartialEq, Eq)]
#[must_use = "a receipt is what an effect is granted for"]
pub struct Receipt {
    id: DecisionId,
}

impl Receipt {
    pub(crate) const fn new(id: DecisionId) -> Self {
        Self { id }
    }

    /// The recorded decision.
    #[must_use]
    pub const fn id(&self) -> DecisionId {
        self.id
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({})", self.id)
    }
}

/// What became of a permitted call. There is no place for content.
#[derive(Debug, Clone)]
pub struct OutcomeEntry {
    /// The decision.
    pub decision: DecisionId,
    /// How it ended.
    pub status: OutcomeStatus,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Rows returned.
    pub rows: u64,
    /// Fuel used.
    pub fuel: u64,
    /// Duration in microseconds.
    pub duration_us: u64,
    /// Effects that landed in a sandbox; at most [`MAX_ABSORBED`] are listed, the rest counted.
    pub absorbed: Vec<Absorbed>,
    /// What the record may show of their subjects; the decision's own.
    pub disclosure: Arc<Disclosure>,
    /// A remark written by the host's author, never made of guest data.
    pub note: Option<&'static str>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutcomeStatus {
    /// It did what was asked.
    Ok,
    /// It failed. The kind is 1 to 64 characters of `a-z A-Z 0-9 . _ -`; any other text is recorded as `other`, because an
    /// error text may hold content.
    Failed(String),
    /// It was refused after the decision.
    Refused,
    /// Its approval or deadline ran out.
    Expired,
    /// The caller gave up.
    Cancelled,
}

/// One effect that landed in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absorbed {
    /// What kind.
    pub kind: AbsorbedKind,
    /// On what: a guest path, a database label, a host name. Clear or committed to, as the disclosure says for `path`, `db` or
    /// `host`.
    pub subject: String,
    /// Bytes of a file, rows of a database.
    pub size: u64,
}

/// An approval was asked for.
#[derive(Debug, Clone, Copy)]
pub struct EscalationEntry<'a> {
    /// The decision that escalated.
    pub decision: DecisionId,
    /// Id of the approval.
    pub ticket: &'a str,
    /// Roles that may answer.
    pub roles: &'a [Arc<str>],
    /// Approvers needed.
    pub need: u64,
    /// When it expires.
    pub expires: Timestamp,
    /// Salted commitment to exactly the call that was asked for.
    pub binding: [u8; 32],
}

/// Something happened to an approval.
#[derive(Debug, Clone, Copy)]
pub struct ApprovalEntry<'a> {
    /// The decision that escalated.
    pub decision: DecisionId,
    /// Id of the approval.
    pub ticket: &'a str,
    /// What happened.
    pub event: ApprovalEvent,
    /// The commitment it is bound to, as the escalation has it.
    pub binding: [u8; 32],
    /// The approver's answer: there exactly when the event is approved or denied.
    pub signed: Option<&'a SignedApproval>,
    /// The decision that used it, when consumed.
    pub used_by: Option<DecisionId>,
}

/// A policy came into force.
#[derive(Debug, Clone, Copy)]
pub struct PolicyLoadEntry<'a> {
    /// Its digest.
    pub epoch: Digest,
    /// The one it replaces.
    pub previous: Option<Digest>,
    /// Environment it was compiled for.
    pub env: &'a str,
}

/// A policy, rule or environment counts in another way from here on.
#[derive(Debug, Clone, Copy)]
pub struct ModeChangeEntry<'a> {
    /// What changed: `env prod`, `rule pay-limit`, `stop agent finance-1`.
    pub scope: &'a str,
    /// How it counted before.
    pub from: &'a str,
    /// How it counts from here on.
    pub to: &'a str,
    /// Who changed it.
    pub by: &'a str,
}

/// An exercise began or ended.
#[derive(Debug, Clone, Copy)]
pub struct DrillEntry<'a> {
    /// Its name.
    pub name: &'a str,
    /// What happened.
    pub event: DrillEvent,
    /// Who runs it.
    pub by: &'a str,
}

/// For a while calls were refused because nothing could be recorded.
#[derive(Debug, Clone, Copy)]
pub struct GapEntry<'a> {
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// How many calls were refused.
    pub calls: u64,
    /// Reason code of the refusals.
    pub why: &'a str,
}
