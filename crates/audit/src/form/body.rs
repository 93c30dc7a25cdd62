//! The body of each record type, one struct per type: the order of the fields is the order in the line. A field that
//! does not apply is absent, never `null` (except `cohort`, which is always there).

use govrun_verdict::{DecisionId, Digest, LogId};
use serde::{Deserialize, Serialize};

pub use super::decision::{
    ActionName, Answer, Budget, DbLimits, Decision, Egress, Escalate, Field, FsMode, Inputs, List, Matched,
    Obligations, OnTimeout, Past, Preopen, Sandbox, Shadow, Tool, Trace,
};
use super::error::FormError;
use super::frame::Kind;
pub use super::keeping::{
    Drill, DrillEvent, EpochEnd, Gap, Heartbeat, KeyEpoch, ModeChange, NextTree, Sibling,
};
use super::scalar::{B64, Hex, Int, Text};

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
                // UTF-8 is checked for the whole body at once, not for each string.
                let json = std::str::from_utf8(json).map_err(|e| FormError::Body(e.to_string()))?;
                let body = match kind {
                    $(Kind::$kind => serde_json::from_str(json).map(|b| Self::$kind(Box::new(b))),)*
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
    ModeChange ModeChange
    Decision Decision
    Outcome Outcome
    Escalation Escalation
    Approval Approval
    Drill Drill
    KeyEpoch KeyEpoch
    Gap Gap
    Heartbeat Heartbeat
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
            | Self::ModeChange(_)
            | Self::Escalation(_)
            | Self::Drill(_)
            | Self::KeyEpoch(_)
            | Self::Gap(_)
            | Self::Heartbeat(_)
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
    /// The genesis certificate: a signed note of the root key over origin, log key and the epoch keys of its logs.
    pub cert: Text<'a>,
    /// Number of this log in the certificate.
    pub slot: Int,
    /// Number of epoch keys in the log's first tree of them.
    pub epochs: Int,
    /// Root of that tree.
    pub epoch_root: Hex<32>,
    /// Inclusion proof of the log in the certificate.
    pub slot_proof: Vec<Hex<32>>,
    /// Public key of epoch 0.
    pub epoch_key: Hex<32>,
    /// Inclusion proof of that key in the first tree of epoch keys.
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
