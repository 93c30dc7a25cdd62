//! The state that the govrun processes of one machine share: [budgets](Store::reserve), [approvals](Store::request) and
//! what is remembered [of agents](Store::facts), in one `SQLite` file of the state directory.
//!
//! - A budget never admits more than it says, over all threads, processes, crashes and restarts: see
//!   [`govrun_verdict::BudgetKind`].
//! - An approval is for exactly one call, is decided by the people the policy asks for, and is used at most once.
//! - Whatever goes wrong is a [`StoreError`], never an admission: callers refuse the call.
//!
//! The file holds the arguments of calls that wait for an approval in clear, because a person has to read them. It is
//! private to its owner (0600 in a directory of 0700), and [`Store::purge`] removes what is finished.
//!
//! `state.db`, `state.db-wal` and `state.db-shm` belong together: copy or move all of them, with no process running.
//!
//! Time comes from the caller; nothing here reads the wall clock.

mod approvals;
mod budgets;
mod calendar;
mod error;
mod file;
mod pool;
mod rate;
mod schema;
mod sessions;
mod store;
#[cfg(test)]
mod tests;

pub use approvals::{
    Approval, ApprovalId, Ballot, Choice, ConsumeError, Consumed, DecideError, Decided, Filter, MAX_FIELDS,
    MAX_ROLES, MAX_SHOWN_BYTES, NewApproval, Principal, RequestError, State, Ticket, Vote,
};
pub use budgets::{MAX_BUDGETS_PER_CALL, MAX_KEY_BYTES, MAX_KEYS_PER_BUDGET, Reservation, Reserved};
pub use error::StoreError;
pub use sessions::{MAX_LABELS, MAX_MARKS, MAX_SUBJECTS, Worlds};
pub use store::Store;
