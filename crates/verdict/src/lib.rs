//! The words govrun is spoken in: what is asked ([`Call`]), what is answered ([`Decision`], [`Verdict`]), what an
//! answer binds the effect to ([`Obligations`]) and what a refused caller is told ([`Refusal`]).
//!
//! This crate does no I/O, reads no clock and holds no state, so that every other crate can depend on it and a decision
//! can be re-derived offline from the recorded words alone.

mod call;
mod decision;
mod facts;
mod name;
mod obligation;
mod reason;
mod value;

pub use call::{
    Action, Agent, Attr, Call, DbOp, FsOp, HttpTarget, KvOp, Operation, Scheme, SqlFacts, Stream, ToolRef,
    Transport,
};
pub use decision::{
    Budget, BudgetKind, BudgetLevel, BudgetUse, Decision, DecisionId, Disclosure, Durability, EscalateTo,
    Matched, Mode, OnTimeout, Period, Refusal, RuleVerdict, Severity, Shadow, Verdict,
};
pub use facts::{Ask, AskWhat, Facts, Mark, Origin, Past, Traces};
pub use name::{Digest, LogId, NameError, ReasonCode, RuleId, Timestamp};
pub use obligation::{DbLimits, Egress, FsMode, Mask, Obligations, Preopen, Profile};
pub use reason::{BUILTIN_REASONS, Builtin, ReasonInfo};
pub use value::{MAX_VALUE_DEPTH, Value};
