//! The policy decision point: TOML files are compiled once into a [`Policy`], and [`Policy::decide`] answers every
//! [`Call`](govrun_verdict::Call) with a [`Decision`](govrun_verdict::Decision). Deciding is pure and infallible: no I/O, no
//! clock, no state; whatever cannot be known restricts.
//!
//! # The language
//! A policy is a folder with the manifest `govrun.toml` and the packs it lists. The grammar is closed: an unknown key, a
//! wrong type, a dangling name, an empty list or a zero limit is an error with its place, and a policy with any error
//! does not load. The full reference is `docs/formats/policy.md`.
//!
//! ```
//! # use govrun_policy::{Policy, Sources, SourceFile};
//! let manifest = r#"
//! schema = 1
//!
//! [env.prod]
//! default = { verdict = "block", reason = "DEFAULT-DENY" }
//!
//! [[agent]]
//! name = "finance-1"
//!
//! [list.counterparties]
//! values = ["ACME", "Globex"]
//!
//! [budget.payments-hourly]
//! limit = 20
//! per = "1h"
//! key = ["agent", "tool"]
//!
//! [sandbox.reporting]
//! fuel = 2_000_000_000
//! memory = "64MiB"
//! fs = { scratch = "32MiB" }
//!
//! [[rule]]
//! id = "pay"
//! match = { agent = "finance-*", action = "tool.call", tool = "payments.send" }
//! when = { "args.amount" = { le = 10_000 } }
//! verdict = "allow"
//! limit = ["payments-hourly"]
//!
//! [[rule]]
//! id = "pay-large"
//! match = { action = "tool.call", tool = "payments.send" }
//! when = { "args.amount" = { gt = 10_000 } }
//! verdict = "escalate"
//! escalate = { to = ["role:treasury"], timeout = "15m", show = ["args.amount"] }
//! reason = "PAY-OVER-LIMIT"
//!
//! [[rule]]
//! id = "pay-off-list"
//! match = { action = "tool.call", tool = "payments.send" }
//! when = { "args.counterparty" = { not_in_list = "counterparties" } }
//! verdict = "block"
//! reason = "PAY-OFF-LIST"
//! message = "Counterparty {args.counterparty} is not on the approved list."
//!
//! [[rule]]
//! id = "reporting"
//! match = { action = ["tool.call", "fs.*", "db.*"], tool = "reporting.*" }
//! verdict = "sandbox"
//! sandbox = "reporting"
//! "#;
//! let files = vec![SourceFile { path: "govrun.toml".into(), text: manifest.into() }];
//! let policy = Policy::compile(&Sources { files })?;
//! assert_eq!(&**policy.env(), "prod");
//! assert_eq!(policy.rules().len(), 4);
//! # Ok::<(), govrun_policy::LoadErrors>(())
//! ```
//!
//! # What rules come to
//! - Every matching rule counts, in any order: block > escalate > sandbox > allow, and the most restrictive wins. Their
//!   obligations are met: the tighter of every limit, the intersection of every capability.
//! - A condition about something missing, opaque or of another type is *unknown*: a restriction then matches (its reason
//!   ends in `-UNKNOWN`), an `allow` does not. An unknown `unless` does not exempt from a restriction, and does exempt from
//!   an `allow`.
//! - Without a definite match of an enforced allow, sandbox or escalate rule, the environment's default joins in.
//! - Shadow rules change nothing; the decision carries what enforcing them would give.
//! - The smallest id among the rules of the winning verdict decides, definite matches before unknown ones, so that the
//!   order of rules and files never matters.
//! - An address that is not public is reached only through a rule whose `match` names its range.
//!
//! # Code
//! [`Sources`] → `toml_item` (values with their place) → `manifest`, `registry`, `limits`, `rule`, `scope`, `when` (the
//! grammar) → `index`, `predicate`, `glob`, `cidr`, `address` (what a call is held against) → `decide`.

mod address;
mod budget;
mod cases;
mod cidr;
mod condition;
mod decide;
mod diff;
mod drill;
mod error;
mod field;
mod glob;
mod hours;
mod index;
mod layers;
mod limits;
mod lint;
mod lock;
mod manifest;
mod message;
mod names;
mod nearest;
mod offers;
mod past;
mod policy;
mod predicate;
mod probe;
mod promotion;
mod provenance;
mod reach;
mod registry;
mod rollout;
mod rule;
mod schema;
mod scope;
mod secrets;
mod sources;
mod toml_item;
mod tool_labels;
mod units;
mod when;

pub use budget::{MAX_BUDGET_LIMIT, MAX_BUDGET_WAIT_MS};
pub use cases::{
    Branch, Case, Coverage, Expect, Failed, MAX_CASES, MAX_MUTANTS, MAX_REPEAT, Mutant, Mutation,
    call_to_toml, read_cases,
};
pub use decide::Context;
pub use diff::{Answer, Change, DIFF_TIME, Diff, diff};
pub use drill::{DEFAULT_DRILL_EVERY_MS, Drill, MAX_DRILLS, drilled_rules, read_drills};
pub use error::{LoadError, LoadErrors, MAX_REPORTED_ERRORS, Origin};
pub use layers::MAX_LAYERS;
pub use lint::{ArgumentType, Code, Finding, Lint, Signature, Signatures};
pub use lock::LOCK;
pub use manifest::SCHEMA;
pub use nearest::{Held, Nearest};
pub use offers::{DatabaseOffer, DatabaseSource, ModelOffer, PostgresServer, SecretRef, StoreOffer};
pub use past::{MAX_COUNT, MAX_QUESTIONS};
pub use policy::{MAX_RULES, Policy};
pub use promotion::{PROMOTIONS, PromoteIf, Promotion};
pub use provenance::{MAX_REMEMBERED_BYTES, Provenance};
pub use registry::{MAX_LIST_ENTRIES, NotifyTarget, ToolEntry, Webhook};
pub use rollout::{CohortBy, Rollout};
pub use rule::{DEFAULT_APPROVAL_MS, MAX_APPROVALS, MAX_REASON_BYTES, RuleInfo};
pub use schema::json_schema;
pub use secrets::{SecretEntry, SecretSource, SecretUse};
pub use sources::{
    MANIFEST, MAX_FILE_BYTES, MAX_FILES, MAX_FOLDER_DEPTH, MAX_TOTAL_BYTES, SourceFile, Sources,
};
pub use tool_labels::{ToolEffect, ToolLabels};
