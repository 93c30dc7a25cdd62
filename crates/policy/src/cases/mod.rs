//! Unit tests of policies: calls with the answers they must get, written as TOML beside the policy.
//!
//! ```toml
//! [[case]]
//! title  = "an unknown counterparty is blocked"
//! agent  = "finance-1"
//! action = "tool.call"
//! tool   = "payments.send"
//! args   = { counterparty = "ACME", amount = 48000 }
//! expect = { verdict = "block", rule = "pay-offlist", reason = "PAY-OFFLIST-COUNTERPARTY" }
//! ```
//! `docs/formats/policy-tests.md` has every key.

mod coverage;
mod mutate;
mod read;
mod run;
mod spec;

pub use coverage::{Branch, Coverage};
pub use mutate::{MAX_MUTANTS, Mutant, Mutation};
pub use read::{MAX_CASES, MAX_REPEAT, read_cases};
pub use run::Failed;
pub use spec::call_to_toml;

pub(crate) use spec::{CALL_KEYS, call};

use govrun_verdict::{Call, ReasonCode, RuleId, Timestamp, Verdict};

use crate::error::Origin;

/// One call with the answer it must get.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is about.
    pub title: String,
    /// Where it is written.
    pub origin: Origin,
    /// The call.
    pub call: Call,
    /// When it is made.
    pub at: Timestamp,
    /// How often it is made, `every_us` apart; the expectation is about the last time.
    pub repeat: u32,
    /// Time between two of them in microseconds.
    pub every_us: u64,
    /// The answer.
    pub expect: Expect,
}

/// What a case demands. What is left out may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The verdict, budgets included.
    pub verdict: Verdict,
    /// The rule that decides; `Some(None)` for the default.
    pub rule: Option<Option<RuleId>>,
    /// The reason.
    pub reason: Option<ReasonCode>,
    /// The verdict that the shadow rules would give.
    pub shadow: Option<Verdict>,
}
