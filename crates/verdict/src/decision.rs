//! What is answered.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{Digest, LogId, NameError, ReasonCode, RuleId};
use crate::obligation::Obligations;

/// The five answers. Closed: every match in the code names all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The effect happens, within the grant.
    Allow,
    /// A limit is used up; nothing happens; the caller learns when to come back.
    Throttle,
    /// The effect happens in a sandbox; nothing real changes.
    Sandbox,
    /// Nothing happens until somebody else approves exactly this call.
    Escalate,
    /// Nothing happens.
    Block,
}

impl Verdict {
    /// All five.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Throttle, Self::Sandbox, Self::Escalate, Self::Block];

    /// Lower-case name, as in policies and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Throttle => "throttle",
            Self::Sandbox => "sandbox",
            Self::Escalate => "escalate",
            Self::Block => "block",
        }
    }

    /// The verdict with this exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a rule can yield, from least to most restrictive. The most restrictive of all matching rules wins; a throttle is
/// not among them because it comes from a limit, after the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleVerdict {
    /// See [`Verdict::Allow`].
    Allow,
    /// See [`Verdict::Sandbox`].
    Sandbox,
    /// See [`Verdict::Escalate`].
    Escalate,
    /// See [`Verdict::Block`].
    Block,
}

impl From<RuleVerdict> for Verdict {
    fn from(rule: RuleVerdict) -> Self {
        match rule {
            RuleVerdict::Allow => Self::Allow,
            RuleVerdict::Sandbox => Self::Sandbox,
            RuleVerdict::Escalate => Self::Escalate,
            RuleVerdict::Block => Self::Block,
        }
    }
}

/// How a decision counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It decides.
    Enforce,
    /// It is only recorded.
    Shadow,
    /// It decides for a percentage.
    Canary,
    /// It is an exercise.
    Drill,
}

/// How bad a refusal is, for whoever is paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Info,
    /// Worth a look.
    Low,
    /// Look today.
    Medium,
    /// Look now.
    High,
    /// Wake somebody.
    Critical,
}

/// When a record must be safe before its effect. Ordered: the meet of two is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written to the operating system; survives SIGKILL; sealed within 10 ms.
    Os,
    /// Written and covered by a signature.
    Sealed,
    /// Written, signed and synced to the disk.
    Disk,
}

/// The id of one decision: which log, and which record in it. Shown as `9f3c21aa04be7710-42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId {
    /// The log that holds the record.
    pub log: LogId,
    /// The record's sequence number.
    pub seq: u64,
}

impl DecisionId {
    /// Parse the shown form.
    ///
    /// # Errors
    /// When the text is not 16 hexadecimal digits, `-` and a decimal number.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            kind: "decision id",
            given: text.to_owned(),
            rule: "16 hexadecimal digits, `-` and a number, such as 9f3c21aa04be7710-42",
        };
        let (log, seq) = text.split_once('-').ok_or_else(wrong)?;
        let digits = !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit());
        let log = LogId::parse(log).map_err(|_| wrong())?;
        let seq = seq.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        Ok(Self { log, seq })
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.seq)
    }
}

impl Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// One rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// Its id.
    pub rule: RuleId,
    /// True when it matched only because an attribute was unknown: it restricts and never permits.
    pub unknown: bool,
}

/// What the shadow rules would have made of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// The verdict that enforcing them would give.
    pub verdict: Verdict,
    /// The rule that would decide.
    pub rule: Option<RuleId>,
    /// The reason that would be given.
    pub reason: ReasonCode,
}

/// A budget of the policy: how many admissions each of its keys gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Name in the policy.
    pub name: Arc<str>,
    /// Most admissions in a window or period; of a rate, admissions added per window.
    pub limit: NonZeroU64,
    /// Length of the window in milliseconds; the usual length of a calendar period.
    pub window_ms: NonZeroU64,
    /// What is counted.
    pub kind: BudgetKind,
    /// How long a call may wait for it, in milliseconds; `None`: it is refused at once.
    pub wait_ms: Option<NonZeroU64>,
}

/// What a budget counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BudgetKind {
    /// At most `limit` in any window of `window_ms`, wherever it starts.
    Rolling,
    /// `limit` per `window_ms`, evenly, and so many at once: never more than `burst + t × limit ÷ window_ms` in any span of
    /// `t` milliseconds.
    Rate {
        /// Most at once.
        burst: NonZeroU64,
    },
    /// At most `limit` in each period on the calendar of a zone.
    Calendar {
        /// Which period.
        period: Period,
        /// Name of the zone in the IANA database.
        zone: Arc<str>,
    },
}

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// From the first of a month to its last day.
    Month,
}

impl Budget {
    /// A rolling budget that refuses at once.
    #[must_use]
    pub const fn rolling(name: Arc<str>, limit: NonZeroU64, window_ms: NonZeroU64) -> Self {
        Self { name, limit, window_ms, kind: BudgetKind::Rolling, wait_ms: None }
    }

    /// The limit that a [`BudgetLevel`] of it has: how many can be in use at once.
    #[must_use]
    pub const fn most(&self) -> u64 {
        match &self.kind {
            BudgetKind::Rate { burst } => burst.get(),
            BudgetKind::Rolling | BudgetKind::Calendar { .. } => self.limit.get(),
        }
    }
}

/// One budget that this call has to be admitted by, with the key it is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BudgetUse {
    /// The budget.
    pub budget: Arc<Budget>,
    /// Length-prefixed key parts, unambiguous; for example agent and tool. It may hold guest data.
    pub key: Arc<str>,
    /// The key as records may show it, where it holds guest data.
    pub shown: Option<Arc<str>>,
    /// The rule that carries the limit (the smallest id, if several do): it decides when the budget is exhausted.
    pub rule: RuleId,
    /// The reason to give then: the rule's own, or `BUDGET-EXHAUSTED` where the rule gives none.
    pub reason: ReasonCode,
}

impl BudgetUse {
    /// The key as records have it.
    #[must_use]
    pub fn recorded_key(&self) -> &Arc<str> {
        self.shown.as_ref().unwrap_or(&self.key)
    }
}

/// The level of one budget just before a call, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLevel {
    /// Name of the budget.
    pub name: Arc<str>,
    /// The key it is counted under, without guest data.
    pub key: Arc<str>,
    /// Admissions in the window or period, before this call; of a rate, how much of its burst is in use.
    pub used: u64,
    /// Its limit; of a rate, its burst.
    pub limit: u64,
    /// Running number of this admission under this key, or `None` when it was refused.
    pub order: Option<u64>,
}

/// What happens to an escalation that nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnTimeout {
    /// It is refused. (There is no way to expire into an allow.)
    Block,
}

/// Whom to ask, and how long to wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EscalateTo {
    /// Approver roles, such as `treasury`; any one of them may decide. Never empty.
    pub roles: Vec<Arc<str>>,
    /// How many different approvers must approve.
    pub need: NonZeroU64,
    /// How long to wait, in milliseconds.
    pub timeout_ms: NonZeroU64,
    /// What then.
    pub on_timeout: OnTimeout,
    /// Fields to show first, such as `args.amount`.
    pub show: Vec<Arc<str>>,
}

impl EscalateTo {
    /// Both demands together: approvers in both role sets (or, where there are none, nobody can approve and the caller
    /// must block), the larger number, the shorter wait, all fields shown.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let mut show: Vec<Arc<str>> = self.show.iter().chain(&other.show).cloned().collect();
        show.sort_unstable();
        show.dedup();
        Self {
            roles: self.roles.iter().filter(|r| other.roles.contains(r)).cloned().collect(),
            need: self.need.max(other.need),
            timeout_ms: self.timeout_ms.min(other.timeout_ms),
            on_timeout: OnTimeout::Block,
            show,
        }
    }
}

/// Which guest data a record shows in clear; everything else is a salted commitment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disclosure {
    /// Field names in clear: `args.amount`, `args.*`, `path`, `host`, `url`, `statement`, `name`.
    pub clear: BTreeSet<Arc<str>>,
    /// Whether salts and values go to the openings store, so that a field can be disclosed later.
    pub openings: bool,
}

impl Disclosure {
    /// Whether the field is recorded in clear.
    #[must_use]
    pub fn is_clear(&self, field: &str) -> bool {
        self.clear.contains(field)
            || field
                .split_once('.')
                .is_some_and(|(family, _)| self.clear.contains(format!("{family}.*").as_str()))
    }
}

/// The answer to one call, made by the policy and completed by the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The enforced verdict.
    pub verdict: Verdict,
    /// How it counts.
    pub mode: Mode,
    /// Stable reason.
    pub reason: ReasonCode,
    /// A sentence for the caller, already filled in; empty when the rule has none.
    pub message: String,
    /// The rule that decided; `None` when the environment's default did.
    pub rule: Option<RuleId>,
    /// Every enforced rule that matched, sorted by id.
    pub matched: Vec<Matched>,
    /// What the shadow rules say, if any matched.
    pub shadow: Option<Shadow>,
    /// Of the matching rules with a rollout, which were enforced for this call: `rule=enforce,other=shadow`.
    pub cohort: Option<Arc<str>>,
    /// Scope of the grant.
    pub obligations: Obligations,
    /// Budgets to reserve, all or none.
    pub budgets: Vec<BudgetUse>,
    /// Whom to ask, when the verdict is escalate.
    pub escalate: Option<EscalateTo>,
    /// Names of `[notify]` targets to tell.
    pub notify: Vec<Arc<str>>,
    /// Severity of a refusal.
    pub severity: Severity,
    /// How safe the record must be before the effect.
    pub durability: Durability,
    /// What the record may show.
    pub disclosure: Arc<Disclosure>,
    /// Digest of the policy that decided.
    pub epoch: Digest,
}

/// What a refused caller is told: enough to act on, nothing about how to get around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Never `allow` or `sandbox`.
    pub verdict: Verdict,
    /// Stable reason code.
    pub reason: ReasonCode,
    /// One sentence.
    pub message: String,
    /// The record, or `None` when not even a record could be written.
    pub decision: Option<DecisionId>,
    /// For a throttle: exactly how long to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For an escalation: the approval's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verdict, self.reason)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(ms) = self.retry_after_ms {
            write!(f, " (retry after {ms} ms)")?;
        }
        if let Some(ticket) = &self.ticket {
            write!(f, " (approval {ticket})")?;
        }
        match &self.decision {
            Some(id) => write!(f, " [{id}]"),
            None => f.write_str(" [not recorded]"),
        }
    }
}
