//! The body of a decision record.

use govrun_verdict::{Action, DecisionId, Digest, Durability, Mode, Severity, Verdict};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scalar::{Hex, Int, Text};
use super::value::Json;

/// A tool function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool<'a> {
    /// `component.function`.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Digest of the component.
    pub component: Digest,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision<'a> {
    /// Who asked.
    #[serde(borrow)]
    pub agent: Text<'a>,
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Text<'a>>,
    /// The session.
    pub session: Text<'a>,
    /// The tool called, or acting.
    pub tool: Tool<'a>,
    /// The tool that called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Tool<'a>>,
    /// The decision the caller runs under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<DecisionId>,
    /// What was asked for; the resource is in `inputs.fields`.
    pub action: ActionName,
    /// The answer.
    pub verdict: Verdict,
    /// How it counts.
    pub mode: Mode,
    /// Stable reason code.
    pub reason: Text<'a>,
    /// The rule that decided; absent when the default did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text<'a>>,
    /// Every enforced rule that matched.
    pub matched: Vec<Matched<'a>>,
    /// What the shadow rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow<'a>>,
    /// Digest of the policy.
    pub policy: Digest,
    /// Scope of the grant.
    pub obligations: Obligations<'a>,
    /// Whom to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalate: Option<Escalate<'a>>,
    /// Notification targets.
    pub notify: Vec<Text<'a>>,
    /// Severity of a refusal.
    pub severity: Severity,
    /// How safe the record had to be before the effect.
    pub durability: Durability,
    /// Trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Time the decision took, in nanoseconds.
    pub decide_ns: Int,
    /// Everything the verdict was computed from.
    pub inputs: Inputs<'a>,
}

/// An action by its policy name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionName(pub Action);

impl Serialize for ActionName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for ActionName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = Text::deserialize(d)?;
        Action::from_name(&name).map(Self).ok_or_else(|| D::Error::custom(format!("unknown action `{name}`")))
    }
}

/// One rule that matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matched<'a> {
    /// Its id.
    #[serde(borrow)]
    pub rule: Text<'a>,
    /// True when only because an attribute was unknown.
    pub unknown: bool,
}

/// What the shadow rules would have decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Text<'a>>,
    /// The reason.
    pub reason: Text<'a>,
}

/// Scope of a grant. Absent limits are the host's ceilings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obligations<'a> {
    /// Fuel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<Int>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<Int>,
    /// Milliseconds of wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<Int>,
    /// Whether anything may leave the machine.
    pub egress: Egress,
    /// Limits of database statements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<DbLimits>,
    /// Masked columns, sorted; never empty.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Vec<Text<'a>>>,
    /// The sandbox.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox<'a>>,
}

/// See [`govrun_verdict::Egress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Egress {
    /// Nothing leaves.
    None,
    /// As rules decide.
    ByRule,
}

/// See [`govrun_verdict::DbLimits`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DbLimits {
    /// Rows of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Int>,
    /// Bytes of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Int>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<Int>,
    /// Virtual-machine steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_steps: Option<Int>,
}

/// See [`govrun_verdict::Profile`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox<'a> {
    /// Names of the profiles it is the meet of.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Directories it sees; absent: those the tool is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preopens: Option<Vec<Preopen<'a>>>,
    /// Bytes of scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_bytes: Option<Int>,
    /// Whether databases are copies.
    pub db_copy: bool,
}

/// See [`govrun_verdict::Preopen`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preopen<'a> {
    /// Host path.
    #[serde(borrow)]
    pub host: Text<'a>,
    /// Guest path.
    pub guest: Text<'a>,
    /// Access.
    pub mode: FsMode,
}

/// See [`govrun_verdict::FsMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsMode {
    /// Read-only.
    Ro,
    /// Read and write.
    Rw,
}

/// See [`govrun_verdict::EscalateTo`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escalate<'a> {
    /// Roles that may answer.
    #[serde(borrow)]
    pub roles: Vec<Text<'a>>,
    /// Approvers needed.
    pub need: Int,
    /// Wait in milliseconds.
    pub timeout_ms: Int,
    /// What then.
    pub on_timeout: OnTimeout,
    /// Fields shown first.
    pub show: Vec<Text<'a>>,
}

/// See [`govrun_verdict::OnTimeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// Refused.
    Block,
}

/// W3C trace context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Trace id.
    pub trace: Hex<16>,
    /// Span id.
    pub span: Hex<8>,
}

/// Everything a verdict was computed from, besides the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs<'a> {
    /// Decision time in microseconds since 1970.
    pub at: Int,
    /// Environment.
    #[serde(borrow)]
    pub env: Text<'a>,
    /// Session labels.
    pub labels: Vec<Text<'a>>,
    /// What was known of the agent's past, where the policy asks about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past<'a>>,
    /// The past with the shadow rules enforced, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_past: Option<Past<'a>>,
    /// Budget levels just before the call.
    pub budgets: Vec<Budget<'a>>,
    /// Obligations of the running call this one is inside of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Obligations<'a>>,
    /// Rollout cohort.
    pub cohort: Option<Text<'a>>,
    /// Digests of the lists that were consulted.
    pub lists: Vec<List<'a>>,
    /// Resource and arguments, in the order of the operation.
    pub fields: Vec<Field<'a>>,
}

/// See [`govrun_verdict::Past`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past<'a> {
    /// Labels.
    #[serde(borrow)]
    pub labels: Vec<Text<'a>>,
    /// Answers to the policy's questions, by their name.
    pub answers: Vec<Answer<'a>>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer<'a> {
    /// The question.
    #[serde(borrow)]
    pub question: Text<'a>,
    /// An exact decimal.
    pub answer: Text<'a>,
}

/// Level of one budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The key it is counted under: names of the policy only.
    pub key: Text<'a>,
    /// Admissions in the window before this call.
    pub used: Int,
    /// Its limit.
    pub limit: Int,
    /// Number of this admission; absent when refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Int>,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Its digest.
    pub digest: Digest,
}

/// A piece of guest data: its value, or a salted commitment to it, never both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field<'a> {
    /// Name, such as `path` or `args.amount`.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The value.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub clear: Option<Json<'a>>,
    /// The commitment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<Hex<32>>,
}

/// `"clear":null` is a value, not an absent one.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<Json<'a>>, D::Error> {
    Json::deserialize(d).map(Some)
}

impl Field<'_> {
    /// Exactly one of the two is there.
    pub(super) const fn is_well(&self) -> bool {
        self.clear.is_some() != self.commitment.is_some()
    }
}
