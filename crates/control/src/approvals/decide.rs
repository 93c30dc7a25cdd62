//! Approvers decide.

use std::sync::Arc;

use govrun_verdict::Timestamp;
use rusqlite::params;

use super::{Approval, ApprovalId, Choice, State, Vote, rows};
use crate::budgets::micros;
use crate::error::StoreError;
use crate::pool::{Sql, Then};
use crate::store::Store;

/// What one approver hands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    /// Approve or deny.
    pub choice: Choice,
    /// The approver's name.
    pub approver: String,
    /// The roles that the trust file gives this approver.
    pub roles: Vec<Arc<str>>,
    /// The approver's ed25519 signature of the answer, given at the time of [`Store::decide`]. Kept for the record; the
    /// caller verifies it against the trust file.
    pub signature: [u8; 64],
    /// A remark, or empty. Not signed.
    pub comment: String,
}

/// What became of a ballot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Pending while more approvers are needed, else approved or denied.
    pub state: State,
    /// How many people have approved.
    pub approvals: u64,
}

/// Why a ballot was refused. Nothing changed then, except that an expired approval is marked as such.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such approval.
    #[error("there is no approval `{0}`")]
    Unknown(ApprovalId),
    /// It was decided already.
    #[error("the approval is already {}", .0.name())]
    NotPending(State),
    /// It expired.
    #[error("the approval has expired")]
    Expired,
    /// The approver has none of the roles that may decide.
    #[error("the approver has none of the roles {}", .0.join(", "))]
    RoleMissing(Vec<Arc<str>>),
    /// The approver is the agent whose call it is.
    #[error("an agent may not decide on its own call")]
    SelfApproval,
    /// This approver decided already.
    #[error("this approver has already decided; another person is needed")]
    AlreadyVoted,
    /// The remark is too long.
    #[error("the comment is longer than {MAX_COMMENT_BYTES} bytes")]
    CommentTooLong,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Most bytes of a comment.
const MAX_COMMENT_BYTES: usize = 4_096;

impl Store {
    /// Hand in the ballot of one approver. A denial ends the approval; enough approvals of different people approve it.
    ///
    /// # Errors
    /// [`DecideError`].
    pub fn decide(&self, id: &ApprovalId, ballot: &Ballot, now: Timestamp) -> Result<Decided, DecideError> {
        self.approvals.write(|sql| {
            let approval = rows::one(sql, id, now)?.ok_or_else(|| DecideError::Unknown(id.clone()))?;
            match approval.state {
                State::Pending => {}
                State::Expired => {
                    rows::mark_expired(sql, id, now)?;
                    return Ok(Then::Commit(Err(DecideError::Expired)));
                }
                State::Approved | State::Denied | State::Consumed => {
                    return Err(DecideError::NotPending(approval.state));
                }
            }
            let role = eligible(&approval, ballot)?;
            add_vote(sql, &approval, ballot, &role, now)?;
            let decided = outcome(&approval, ballot.choice);
            rows::set_state(sql, id, decided.state, now)?;
            Ok(Then::Commit(Ok(decided)))
        })?
    }
}

/// The role by which this approver may decide.
fn eligible(approval: &Approval, ballot: &Ballot) -> Result<Arc<str>, DecideError> {
    if ballot.comment.len() > MAX_COMMENT_BYTES {
        return Err(DecideError::CommentTooLong);
    }
    if person(&ballot.approver) == person(&approval.principal.agent) {
        return Err(DecideError::SelfApproval);
    }
    let role = approval
        .roles
        .iter()
        .find(|role| ballot.roles.contains(role))
        .ok_or_else(|| DecideError::RoleMissing(approval.roles.clone()))?;
    if approval.votes.iter().any(|vote| person(&vote.approver) == person(&ballot.approver)) {
        return Err(DecideError::AlreadyVoted);
    }
    Ok(Arc::clone(role))
}

/// Two spellings of a name are one person.
fn person(name: &str) -> String {
    name.trim().to_lowercase()
}

fn outcome(approval: &Approval, choice: Choice) -> Decided {
    let before = u64::try_from(count(&approval.votes)).unwrap_or(0);
    match choice {
        Choice::Deny => Decided { state: State::Denied, approvals: before },
        Choice::Approve => {
            let approvals = before.saturating_add(1);
            let enough = approvals >= approval.need.get();
            Decided { state: if enough { State::Approved } else { State::Pending }, approvals }
        }
    }
}

/// How many approve.
pub(super) fn count(votes: &[Vote]) -> usize {
    votes.iter().filter(|vote| vote.choice == Choice::Approve).count()
}

fn add_vote(
    sql: &Sql<'_>,
    approval: &Approval,
    ballot: &Ballot,
    role: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let values = params![
        approval.id.as_str(),
        person(&ballot.approver),
        ballot.approver,
        ballot.choice.name(),
        role,
        ballot.signature.as_slice(),
        ballot.comment,
        micros(now)?,
    ];
    sql.run(
        "INSERT INTO votes (approval, person, approver, verdict, role, signature, comment, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        values,
    )
    .map(drop)
}
