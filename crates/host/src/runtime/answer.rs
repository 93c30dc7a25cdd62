//! What callers give to a runtime and get from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use govrun_verdict::{FsMode, Refusal};
use wasmtime::component::Val;

use crate::arguments::ArgumentError;
use crate::component::Admitted;
use crate::databases::DatabaseOffers;
use crate::kv::StoreOffers;
use crate::model::ModelOffers;
use crate::net::{Egress, SecretOffer};

/// A tool component with what it is offered. Offers never widen what policy grants.
#[derive(Clone)]
pub struct Tool {
    /// Name of the component in the registry, or `unregistered:<file stem>`.
    pub name: Arc<str>,
    /// The component.
    pub component: Admitted,
    /// What it is offered.
    pub offers: Offers,
}

/// What a component can ask for. Each use is decided by policy.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Program arguments.
    pub args: Vec<String>,
    /// Databases by label.
    pub databases: DatabaseOffers,
    /// Key-value stores by label.
    pub stores: StoreOffers,
    /// Models by name.
    pub models: ModelOffers,
    /// Directories: canonical host path, absolute guest path, mode.
    pub dirs: Vec<(PathBuf, String, FsMode)>,
    /// How it reaches the network.
    pub egress: Arc<Egress>,
    /// Secrets that its requests carry.
    pub secrets: Arc<[SecretOffer]>,
}

/// What a permitted call gave.
#[derive(Debug)]
pub struct Answer {
    /// The function's result, if it has one.
    pub value: Option<Val>,
    /// True when its effects were not real, or some of them were not.
    pub sandboxed: bool,
    /// The record.
    pub decision: govrun_verdict::DecisionId,
    /// What the guest printed, control characters escaped.
    pub stdout: String,
    /// What the guest printed to standard error, control characters escaped.
    pub stderr: String,
    /// Fuel used.
    pub fuel: u64,
    /// The last host call that was refused inside, if any.
    pub last_refusal: Option<Refusal>,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Policy, or a limit, or the path itself refused it.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The component has no such function.
    #[error("`{component}` exports no function `{function}`; it exports: {known}")]
    NoFunction {
        /// The component.
        component: String,
        /// What was asked for.
        function: String,
        /// What there is.
        known: String,
    },
    /// The arguments do not fit.
    #[error("{0}")]
    Arguments(#[from] ArgumentError),
    /// The call was permitted and the guest failed.
    #[error("{reason}: {detail} [{decision}]")]
    Failed {
        /// The kind of failure.
        reason: govrun_verdict::ReasonCode,
        /// One line.
        detail: String,
        /// The record.
        decision: govrun_verdict::DecisionId,
        /// The last host call that was refused inside, if any: often the cause.
        last_refusal: Option<Box<Refusal>>,
    },
}

impl CallError {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// What the tool exports, for messages.
pub(super) fn exports(tool: &Tool) -> String {
    let names: Vec<&str> = tool.component.inspected().functions.iter().map(|f| f.name.as_str()).collect();
    if names.is_empty() { "no functions".into() } else { names.join(", ") }
}
