//! Using an approval.

use govrun_verdict::Timestamp;

use super::binding::binds;
use super::decide::count;
use super::{Approval, ApprovalId, State, rows};
use crate::error::StoreError;
use crate::pool::Then;
use crate::store::Store;

/// Proof that an approval was used, for this one call. There is no other way to get one.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumed {
    approval: Approval,
}

impl Consumed {
    /// The approval, consumed, with the votes and signatures of its approvers.
    #[must_use]
    pub fn approval(&self) -> &Approval {
        &self.approval
    }
}

/// Why an approval cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// There is no such approval.
    #[error("there is no approval `{0}`")]
    Unknown(ApprovalId),
    /// It is for another call, or for other arguments. Reported before anything else about the approval.
    #[error("the approval is for another call")]
    OtherCall,
    /// It still waits for approvers.
    #[error("the approval is still pending")]
    Pending,
    /// It was denied.
    #[error("the approval was denied")]
    Denied,
    /// It expired before it was used.
    #[error("the approval has expired")]
    Expired,
    /// It was used before.
    #[error("the approval was already used")]
    AlreadyConsumed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Use an approved approval for the call it is bound to: once, over all processes, and synced to the disk before
    /// this returns. The caller has verified the signatures of its approvers before ([`Store::get`]).
    ///
    /// # Errors
    /// [`ConsumeError`]; the effect must not happen then. After [`ConsumeError::Store`] the approval may be used up.
    pub fn consume(
        &self,
        id: &ApprovalId,
        call_encoding: &[u8],
        now: Timestamp,
    ) -> Result<Consumed, ConsumeError> {
        self.approvals.write(|sql| {
            let approval = rows::one(sql, id, now)?.ok_or_else(|| ConsumeError::Unknown(id.clone()))?;
            if !binds(&approval.nonce, &approval.binding, call_encoding) {
                return Err(ConsumeError::OtherCall);
            }
            match approval.state {
                State::Approved => {}
                State::Pending => return Err(ConsumeError::Pending),
                State::Denied => return Err(ConsumeError::Denied),
                State::Consumed => return Err(ConsumeError::AlreadyConsumed),
                State::Expired => {
                    rows::mark_expired(sql, id, now)?;
                    return Ok(Then::Commit(Err(ConsumeError::Expired)));
                }
            }
            // The state was set from the votes; should they not bear it out, somebody edited the file.
            if u64::try_from(count(&approval.votes)).unwrap_or(0) < approval.need.get() {
                let detail = format!("approval {id} is approved by fewer people than it needs");
                return Err(StoreError::corrupt(sql.path(), detail).into());
            }
            rows::set_state(sql, id, State::Consumed, now)?;
            Ok(Then::Commit(Ok(Consumed { approval: Approval { state: State::Consumed, ..approval } })))
        })?
    }
}
