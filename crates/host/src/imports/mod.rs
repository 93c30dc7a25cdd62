//! `govrun:host` as guests see it. Every function parses its input, asks the gate, and hands the grant to the effect.

mod db;
mod fs;
pub(crate) mod kv;
mod model;
mod net;
mod tools;
mod verdict;

use govrun_verdict::{Refusal, Verdict};
use wasmtime::component::{HasSelf, Linker, ResourceTableError};

use crate::runtime::CallState;

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "govrun:host/tool",
        imports: { default: async | trappable },
        trappable_error_type: { "govrun:host/types.error" => super::GuestError },
        with: {
            "govrun:host/db.connection": super::db::Connection,
            "govrun:host/db.cursor": super::db::Cursor,
            "govrun:host/db.statement": super::db::Statement,
            "govrun:host/db.transaction": super::db::Transaction,
            "govrun:host/kv.store": super::kv::Store,
            "govrun:host/net.exchange": super::net::Exchange,
        },
        require_store_data_send: true,
    });
}

pub(crate) use generated::govrun::host as wit;

pub(crate) use self::net::nowhere;

/// What a guest is answered instead of a result, or a trap for a bug of the host's.
#[derive(Debug)]
pub(crate) enum GuestError {
    Typed(wit::types::Error),
    Trap(wasmtime::Error),
}

impl GuestError {
    /// The effect was permitted and failed; `detail` must be fit for the guest's eyes.
    pub(crate) fn failed(detail: impl ToString) -> Self {
        Self::Typed(wit::types::Error::Failed(detail.to_string()))
    }
}

impl From<ResourceTableError> for GuestError {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

impl From<Refusal> for GuestError {
    fn from(refusal: Refusal) -> Self {
        use wit::types::{Error, Escalated, Throttled};
        let told = tell(&refusal);
        Self::Typed(match refusal.verdict {
            Verdict::Throttle => Error::Throttled(Throttled {
                refusal: told,
                retry_after_ms: refusal.retry_after_ms.unwrap_or(u64::MAX),
            }),
            Verdict::Escalate => {
                Error::Escalated(Escalated { refusal: told, ticket: refusal.ticket.unwrap_or_default() })
            }
            Verdict::Block | Verdict::Allow | Verdict::Sandbox => Error::Denied(told),
        })
    }
}

/// A refusal in the guest's words.
fn tell(refusal: &Refusal) -> wit::types::Refusal {
    wit::types::Refusal {
        reason: refusal.reason.to_string(),
        message: refusal.message.clone(),
        decision: refusal.decision.map(|id| id.to_string()).unwrap_or_default(),
    }
}

impl wit::types::Host for CallState {
    fn convert_error(&mut self, error: GuestError) -> wasmtime::Result<wit::types::Error> {
        match error {
            GuestError::Typed(error) => Ok(error),
            GuestError::Trap(trap) => Err(trap),
        }
    }
}

/// Link the interfaces one by one: exactly those of the coverage manifest.
pub(crate) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wit::types::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::fs::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::net::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::db::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::kv::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::model::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::tools::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)?;
    wit::verdict::add_to_linker::<_, HasSelf<CallState>>(linker, |s| s)
}
