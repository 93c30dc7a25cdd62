//! Asking for an approval.

use govrun_verdict::Timestamp;
use rusqlite::params;

use super::binding::{binding, binds};
use super::{Approval, ApprovalId, NewApproval, State, rows};
use crate::budgets::micros;
use crate::error::StoreError;
use crate::pool::{Sql, Then};
use crate::store::Store;

/// Most fields that one approval shows.
pub const MAX_FIELDS: usize = 256;
/// Most bytes of the names and values that one approval shows, together.
pub const MAX_SHOWN_BYTES: usize = 262_144;
/// Most roles of one approval.
pub const MAX_ROLES: usize = 64;

/// What the caller waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The approval. Its `decision` is the one that asked first.
    pub approval: Approval,
    /// True when an earlier, identical call already asked: nobody needs to be notified again.
    pub attached: bool,
}

/// Why no approval was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The agent has as many pending approvals as it may have (`APPROVAL-QUOTA`).
    #[error("the agent already has {pending} pending approvals, of at most {limit}")]
    Quota {
        /// Pending and not expired, now.
        pending: u64,
        /// The most it may have.
        limit: u64,
    },
    /// No role is given, so nobody could ever approve.
    #[error("no role may approve this call")]
    NoRoles,
    /// The approval would expire at once.
    #[error("the approval would have no time to be decided")]
    NoTime,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Ask for an approval of one call, or attach to the one that an identical call asked for.
    ///
    /// `call_encoding` must be an unambiguous encoding of all that the effect depends on; the approval is bound to
    /// exactly these bytes. An earlier approval is attached to when it is of the same agent, tenant, tool, component
    /// and encoding, pending or approved, not expired, and asks for at least these roles and this many approvers
    /// ([`Approval::satisfies`]). Of several attached callers one can consume it; the others see
    /// [`State::Consumed`] and must ask again.
    ///
    /// # Errors
    /// [`RequestError`]; nothing was asked for then.
    pub fn request(
        &self,
        new: &NewApproval,
        call_encoding: &[u8],
        now: Timestamp,
        max_pending_per_agent: u64,
    ) -> Result<Ticket, RequestError> {
        check(new, now)?;
        self.approvals.write(|sql| {
            if let Some(approval) = identical(sql, new, call_encoding, now)? {
                return Ok(Then::Forget(Ticket { approval, attached: true }));
            }
            let pending = pending_of(sql, new, now)?;
            if pending >= max_pending_per_agent {
                return Err(RequestError::Quota { pending, limit: max_pending_per_agent });
            }
            let approval = created(new, call_encoding, now)?;
            rows::insert(sql, &approval)?;
            Ok(Then::Commit(Ticket { approval, attached: false }))
        })
    }
}

fn check(new: &NewApproval, now: Timestamp) -> Result<(), RequestError> {
    let within = |what, size: usize, limit: usize| {
        let limit_shown = u64::try_from(limit).unwrap_or(u64::MAX);
        if size <= limit { Ok(()) } else { Err(StoreError::TooLarge { what, limit: limit_shown }) }
    };
    let bytes = new.shown.iter().map(|(name, value)| name.len().saturating_add(value.len()));
    within("the number of fields shown to the approver", new.shown.len(), MAX_FIELDS)?;
    within("what is shown to the approver, in bytes,", bytes.sum(), MAX_SHOWN_BYTES)?;
    within("the number of approver roles", new.roles.len(), MAX_ROLES)?;
    if new.roles.is_empty() {
        return Err(RequestError::NoRoles);
    }
    if new.expires_at <= now {
        return Err(RequestError::NoTime);
    }
    Ok(())
}

fn identical(
    sql: &Sql<'_>,
    new: &NewApproval,
    call_encoding: &[u8],
    now: Timestamp,
) -> Result<Option<Approval>, StoreError> {
    let open = rows::select(
        sql,
        "agent = ?1 AND state IN ('pending', 'approved') AND expires > ?5
         AND tenant IS ?2 AND tool = ?3 AND component = ?4 ORDER BY created",
        params![
            &*new.principal.agent,
            new.principal.tenant.as_deref(),
            &*new.tool.name,
            new.tool.component.0.as_slice(),
            micros(now)?,
        ],
        now,
    )?;
    Ok(open
        .into_iter()
        .find(|a| a.satisfies(&new.roles, new.need) && binds(&a.nonce, &a.binding, call_encoding)))
}

fn pending_of(sql: &Sql<'_>, new: &NewApproval, now: Timestamp) -> Result<u64, StoreError> {
    let pending: Option<i64> = sql.first(
        "SELECT count(*) FROM approvals WHERE agent = ?1 AND state = 'pending' AND expires > ?2",
        params![&*new.principal.agent, micros(now)?],
        |row| row.get(0),
    )?;
    Ok(pending.unwrap_or(0).unsigned_abs())
}

fn created(new: &NewApproval, call_encoding: &[u8], now: Timestamp) -> Result<Approval, StoreError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(StoreError::Random)?;
    let NewApproval { principal, tool, shown, epoch, node, roles, need, expires_at, decision } = new.clone();
    Ok(Approval {
        id: ApprovalId::random()?,
        principal,
        tool,
        shown,
        binding: binding(&nonce, call_encoding),
        nonce,
        epoch,
        node,
        roles,
        need,
        decision,
        created: now,
        expires_at,
        state: State::Pending,
        votes: Vec::new(),
    })
}
