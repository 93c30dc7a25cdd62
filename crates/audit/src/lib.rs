//! The memory of govrun: an append-only log of every decision, signed, that anybody can verify offline with a trust file.
//!
//! - [`Log`] writes. A [`Receipt`] exists only for a decision that was recorded as safely as its rule asks.
//! - [`verify`] proves, [`read`] shows.
//! - [`KeyStore`], [`ApproverKey`] and [`Trust`] are the keys and who to believe.
//!
//! The format is in `docs/formats/audit-log.md`, the trust file in `docs/formats/trust.md`.

pub mod certified;
mod chain;
mod clock;
mod commit;
pub mod cosign;
mod encode;
mod entry;
pub mod form;
pub mod hash;
mod keys;
mod lines;
mod log;
pub mod note;
pub mod pin;
pub mod prove;
pub mod read;
pub mod storage;
pub mod submit;
mod trust;
pub mod verify;
pub mod witness;

pub use chain::Break;
pub use clock::{Clock, ClockError, EARLIEST, SystemClock};
pub use commit::{Opening, commitment};
pub use encode::{MAX_CLEAR, escalate as recorded_escalate, obligations as recorded_obligations};
pub use entry::{
    Absorbed, AbsorbedKind, ApprovalEntry, ApprovalEvent, DecisionEntry, DrillEntry, DrillEvent,
    EscalationEntry, GapEntry, Inputs, MAX_ABSORBED, ModeChangeEntry, OutcomeEntry, OutcomeStatus,
    PolicyLoadEntry, Receipt, TraceIds,
};
pub use keys::{
    Answer, ApprovalStatement, ApproverKey, CertError, Certificate, EpochStatus, EpochTree, KeyError,
    KeyStore, SignedApproval, WitnessSecret, log_origin,
};
pub use log::{AppendError, Damage, Limits, Log, OpenError, RecoverError};
pub use trust::{Approver, Revoked, Trust, TrustError};
