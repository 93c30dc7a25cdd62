//! The policy enforcement point: components are loaded only when every import is governed, and every effect takes a
//! grant that exists only for a recorded decision.

mod approval;
pub mod arguments;
mod cache;
pub mod component;
pub mod coverage;
mod databases;
pub mod effect;
mod engine;
mod folders;
mod gate;
mod grant;
mod hidden;
mod imports;
pub mod json;
pub mod kv;
mod ledger;
mod limiter;
pub mod model;
pub mod net;
mod notify;
mod overlay;
mod past;
mod pause;
pub mod postgres;
mod runtime;
pub mod schema;
mod scope;
pub mod sql;
mod standing;
pub mod value;
mod wasi;

pub use approval::statement as approval_statement;
pub use cache::{CompileCache, Compiled, MAX_CACHE_BYTES, MAX_CACHE_ENTRIES, MAX_ENTRY_BYTES};
pub use databases::{DatabaseOffer, DatabaseOffers};
pub use engine::engine;
pub use gate::{Gate, GateError, Parts, ReloadError, Waits};
pub use grant::{Grant, Live, Outcome};
pub use hidden::Hidden;
pub use notify::{WebhookError, Webhooks, webhook};
pub use runtime::{
    Answer, CallError, DEFAULT_DEADLINE, DEFAULT_FUEL, MAX_CALLS, MAX_CALLS_PER_AGENT, MAX_RESULT_BYTES,
    Offers, Runtime, Tool, Who,
};
pub use scope::{MAX_DEPTH, MAX_HOST_CALLS, Scope};
pub use standing::MAX_STOP_ORDERS;
/// The engine's crate, so that users of this one name the same version.
pub use wasmtime;
