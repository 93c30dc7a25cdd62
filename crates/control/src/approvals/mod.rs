//! Approvals: a call waits for people, and what they approve is that call and nothing else, once.
//!
//! ```text
//! pending ──▶ approved ──▶ consumed
//!    │            │
//!    ├──▶ denied  └──▶ expired
//!    └──▶ expired
//! ```
//!
//! One row per approval, changed only inside a transaction that holds the write lock and is synced to the disk before
//! it returns: of several deciders or consumers, in whatever process, one wins.

mod binding;
mod consume;
mod decide;
mod id;
mod list;
mod request;
mod rows;

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_verdict::{DecisionId, Digest, Timestamp, ToolRef};

pub use consume::{ConsumeError, Consumed};
pub use decide::{Ballot, DecideError, Decided};
pub use id::ApprovalId;
pub use list::Filter;
pub use request::{MAX_FIELDS, MAX_ROLES, MAX_SHOWN_BYTES, RequestError, Ticket};

/// For whom the approval is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The registered name of the agent.
    pub agent: Arc<str>,
    /// Its tenant, if any.
    pub tenant: Option<Arc<str>>,
    /// The session of the call that asked first.
    pub session: Arc<str>,
}

/// A call that needs approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApproval {
    /// Who calls.
    pub principal: Principal,
    /// The tool, by name and by the digest of its component.
    pub tool: ToolRef,
    /// The operation for people to read: field names and values, the most important first. Kept in clear.
    pub shown: Vec<(String, String)>,
    /// The policy that asked for the approval.
    pub epoch: Digest,
    /// The node on which the call waits.
    pub node: Arc<str>,
    /// Roles of which an approver must have one. Not empty.
    pub roles: Vec<Arc<str>>,
    /// How many different people must approve.
    pub need: NonZeroU64,
    /// From this time on it can be neither decided nor used.
    pub expires_at: Timestamp,
    /// The decision that escalated the call.
    pub decision: DecisionId,
}

/// An approval, as it was at the time asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The ticket.
    pub id: ApprovalId,
    /// Who calls.
    pub principal: Principal,
    /// The tool, by name and by the digest of its component.
    pub tool: ToolRef,
    /// The operation for people to read. It may come from an agent: escape it before showing it.
    pub shown: Vec<(String, String)>,
    /// Random key of the binding.
    pub nonce: [u8; 32],
    /// What binds the approval to the call: its encoding, hashed under the nonce.
    pub binding: [u8; 32],
    /// The policy that asked for the approval.
    pub epoch: Digest,
    /// The node on which the call waits.
    pub node: Arc<str>,
    /// Roles of which an approver must have one.
    pub roles: Vec<Arc<str>>,
    /// How many different people must approve.
    pub need: NonZeroU64,
    /// The decision that escalated the call (the first one, if others attached).
    pub decision: DecisionId,
    /// When it was asked for.
    pub created: Timestamp,
    /// From this time on it can be neither decided nor used.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// What approvers decided, in the order of their names.
    pub votes: Vec<Vote>,
}

impl Approval {
    /// Salted commitment to everything of the approval that never changes: what its approvers sign their answer to, and
    /// what the log shows of it. State and votes are not part of it.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        binding::commitment(self)
    }

    /// Whether this approval asks for at least what `roles` and `need` ask for: its approvers are among those, and as
    /// many. A call whose policy changed while it waited may only use an approval that still satisfies it.
    #[must_use]
    pub fn satisfies(&self, roles: &[Arc<str>], need: NonZeroU64) -> bool {
        self.need >= need && self.roles.iter().all(|role| roles.contains(role))
    }
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for approvers.
    Pending,
    /// Enough people approved, and the call has not happened yet.
    Approved,
    /// Somebody denied it.
    Denied,
    /// Nobody decided, or nobody used it, in time.
    Expired,
    /// The call used it.
    Consumed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Denied, Self::Expired, Self::Consumed];

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state at a time: what is still open when it expires is expired, whether or not that was written down.
    fn at(self, expires: Timestamp, now: Timestamp) -> Self {
        match self {
            Self::Pending | Self::Approved if expires <= now => Self::Expired,
            Self::Pending | Self::Approved | Self::Denied | Self::Expired | Self::Consumed => self,
        }
    }
}

/// What one approver decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The call may happen.
    Approve,
    /// The call must not happen.
    Deny,
}

impl Choice {
    /// `approve` or `deny`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Approve, Self::Deny].into_iter().find(|choice| choice.name() == name)
    }
}

/// What one approver decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The approver's name.
    pub approver: String,
    /// What was decided.
    pub choice: Choice,
    /// The role by which the approver could decide.
    pub role: String,
    /// The approver's ed25519 signature. Not verified by the store, which knows no keys.
    pub signature: [u8; 64],
    /// What the approver remarked. Not signed.
    pub comment: String,
    /// When.
    pub at: Timestamp,
}
