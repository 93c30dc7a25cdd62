//! The body of each record type, one struct per type: the order of the fields is the order in the line. A field that
//! does not apply is absent, never `null` (except `cohort`, which is always there).

use govrun_verdict::{Action, DecisionId, Digest, Durability, LogId, Mode, Severity, Verdict};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::FormError;
use super::frame::Kind;
use super::scalar::{B64, Hex, Int, Text};
use super::value::Json;

macro_rules! bodies {
    ($($kind:ident $type:ident)*) => {
        /// The body of a record.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Body<'a> {
            $(#[doc = concat!("See [`Kind::", stringify!($kind), "`].")] $kind(Box<$type<'a>>),)*
        }

        impl<'a> Body<'a> {
            /// Parse `{…}` as the body of this type. The spelling is not proved here.
            ///
            /// # Errors
            /// When the fields do not fit the type.
            pub fn parse(kind: Kind, json: &'a [u8]) -> Result<Self, FormError> {
                let body = match kind {
                    $(Kind::$kind => serde_json::from_slice(json).map(|b| Self::$kind(Box::new(b))),)*
                };
                let body = body.map_err(|e| FormError::Body(e.to_string()))?;
                body.check()?;
                Ok(body)
            }

            /// Append the body as `{…}`.
            ///
            /// # Errors
            /// When a number is more than 2⁵³ − 1 or a value is nested too deeply.
            pub fn write_to(&self, out: &mut Vec<u8>) -> Result<(), FormError> {
                match self {
                    $(Self::$kind(body) => serde_json::to_writer(out, body),)*
                }
                .map_err(|e| FormError::Body(e.to_string()))
            }

            /// The type of the record.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }
        }
    };
}

bodies! {
    Genesis Genesis
    PolicyLoad PolicyLoad
    Decision Decision
    Outcome Outcome
    Escalation Escalation
    Approval Approval
    Recover Recover
    IoError IoError
    ClockStep ClockStep
    Open Open
    Close Close
}

impl Body<'_> {
    /// What serde cannot say: a field is either in clear or committed to, and a signed answer goes with its event.
    fn check(&self) -> Result<(), FormError> {
        let fields_are_well = match self {
            Self::Decision(d) => d.inputs.fields.iter().all(Field::is_well),
            Self::Outcome(o) => o.absorbed.iter().all(|a| a.subject.is_well()),
            Self::Approval(a) => a.signed.is_some() == a.event.is_signed(),
            Self::Genesis(_)
            | Self::PolicyLoad(_)
            | Self::Escalation(_)
            | Self::Recover(_)
            | Self::IoError(_)
            | Self::ClockStep(_)
            | Self::Open(_)
            | Self::Close(_) => true,
        };
        if fields_are_well {
            Ok(())
        } else {
            Err(FormError::Body(
                "a field is not exactly one of clear and committed, or an answer is unsigned".into(),
            ))
        }
    }
}

/// Whose log this is, signed by the offline root key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis<'a> {
    /// Random id of the log, also the name of its directory.
    pub log: LogId,
    /// Origin of its checkpoints.
    #[serde(borrow)]
    pub origin: Text<'a>,
    /// The genesis certificate: a signed note of the root key over origin, log key and epoch keys.
    pub cert: Text<'a>,
    /// Public key of epoch 0.
    pub epoch_key: Hex<32>,
    /// Inclusion proof of that key in the tree of epoch keys.
    pub epoch_proof: Vec<Hex<32>>,
}

/// A policy came into force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyLoad<'a> {
    /// Its digest.
    pub policy: Digest,
    /// The one it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// Environment it was compiled for.
    #[serde(borrow)]
    pub env: Text<'a>,
}

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
    fn is_well(&self) -> bool {
        self.clear.is_some() != self.commitment.is_some()
    }
}

/// What became of a permitted call. Never content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome<'a> {
    /// The decision.
    pub decision: DecisionId,
    /// How it ended.
    pub status: Status,
    /// Kind of failure, when it failed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Text<'a>>,
    /// Bytes read.
    pub bytes_in: Int,
    /// Bytes written.
    pub bytes_out: Int,
    /// Rows returned.
    pub rows: Int,
    /// Fuel used.
    pub fuel: Int,
    /// Duration in microseconds.
    pub duration_us: Int,
    /// What a sandbox kept from happening.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absorbed: Vec<Absorbed<'a>>,
    /// How many more there were than are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absorbed_omitted: Option<Int>,
    /// A remark of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text<'a>>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It did what was asked.
    Ok,
    /// It failed; `error` says how.
    Failed,
    /// It was refused after the decision.
    Refused,
    /// Its approval or deadline ran out.
    Expired,
    /// The caller gave up.
    Cancelled,
}

/// One effect that landed in a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absorbed<'a> {
    /// What kind.
    pub kind: AbsorbedKind,
    /// On what.
    #[serde(borrow)]
    pub subject: Field<'a>,
    /// Bytes (files) or rows (databases).
    pub size: Int,
}

/// Kinds of effect a sandbox absorbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbsorbedKind {
    /// A file was created or changed.
    FileWritten,
    /// A file or directory was removed.
    FileDeleted,
    /// A file or directory was moved; the subject is its new path.
    FileRenamed,
    /// A directory was made.
    DirCreated,
    /// A database was changed.
    DbChanged,
    /// A request or connection was refused.
    EgressRefused,
}

/// An approval was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escalation<'a> {
    /// The decision that escalated.
    pub decision: DecisionId,
    /// Id of the approval.
    #[serde(borrow)]
    pub ticket: Text<'a>,
    /// Roles that may answer.
    pub roles: Vec<Text<'a>>,
    /// Approvers needed.
    pub need: Int,
    /// When it expires, in microseconds since 1970.
    pub expires: Int,
    /// Salted commitment to exactly the call that was asked for.
    pub binding: Hex<32>,
}

/// Something happened to an approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval<'a> {
    /// The decision that escalated.
    pub decision: DecisionId,
    /// Id of the approval.
    #[serde(borrow)]
    pub ticket: Text<'a>,
    /// What happened.
    pub event: ApprovalEvent,
    /// The commitment it is bound to.
    pub binding: Hex<32>,
    /// The approver's signature; present exactly when approved or denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedBy<'a>>,
    /// The decision that used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<DecisionId>,
}

/// What can happen to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalEvent {
    /// An approver said yes.
    Approved,
    /// An approver said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// It was used.
    Consumed,
    /// It was withdrawn, or a stricter policy voided it.
    Cancelled,
}

impl ApprovalEvent {
    /// Whether a person or agent answered, and signed.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        match self {
            Self::Approved | Self::Denied => true,
            Self::Expired | Self::Consumed | Self::Cancelled => false,
        }
    }
}

/// An approver's signature over the approval statement that the record rebuilds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBy<'a> {
    /// Name of the approver.
    #[serde(borrow)]
    pub approver: Text<'a>,
    /// Verifier key.
    pub key: Text<'a>,
    /// When it was signed, in microseconds since 1970.
    pub at: Int,
    /// The signature.
    pub sig: B64<64>,
}

/// The writer came back after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recover<'a> {
    /// Size of the last seal that was found.
    pub sealed: Int,
    /// Whole records after it that were kept, though no signature had covered them.
    pub recovered: Int,
    /// Bytes that were not whole lines of this log, moved away.
    pub quarantined_bytes: Int,
    /// Name of the file in `quarantine/` that holds them.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Text<'a>>,
}

/// A write or sync failed. The log stops after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoError<'a> {
    /// What failed.
    #[serde(borrow)]
    pub op: Text<'a>,
    /// What the system said.
    pub error: Text<'a>,
}

/// The wall clock stepped back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockStep<'a> {
    /// Time of the record before, in microseconds since 1970.
    pub from: Int,
    /// Time now.
    pub to: Int,
    #[serde(skip)]
    nothing: std::marker::PhantomData<&'a ()>,
}

impl ClockStep<'_> {
    /// From a later to an earlier time.
    #[must_use]
    pub const fn new(from: u64, to: u64) -> Self {
        Self { from: Int(from), to: Int(to), nothing: std::marker::PhantomData }
    }
}

/// A process began to write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open<'a> {
    /// Version of the program.
    #[serde(borrow)]
    pub program: Text<'a>,
    /// Process id.
    pub pid: Int,
}

/// A process stopped writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Close<'a> {
    /// Why.
    #[serde(borrow)]
    pub reason: Text<'a>,
}
