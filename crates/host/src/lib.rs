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
mod imports;
pub mod json;
pub mod kv;
mod ledger;
mod limiter;
pub mod net;
mod notify;
mod overlay;
mod pause;
pub mod postgres;
mod runtime;
pub mod schema;
mod scope;
pub mod sql;
pub mod value;
mod wasi;

pub use approval::statement as approval_statement;
pub use cache::{CompileCache, Compiled, MAX_CACHE_BYTES, MAX_CACHE_ENTRIES, MAX_ENTRY_BYTES};
pub use databases::{DatabaseOffer, DatabaseOffers};
pub use engine::engine;
pub use gate::{Gate, GateError, Parts, Waits};
pub use grant::{Grant, Outcome};
pub use notify::{WebhookError, Webhooks, webhook};
pub use runtime::{Answer, CallError, DEFAULT_DEADLINE, DEFAULT_FUEL, Offers, Runtime, Tool, Who};
pub use scope::{MAX_DEPTH, MAX_HOST_CALLS, Scope};
/// The engine's crate, so that users of this one name the same version.
pub use wasmtime;
