//! The policy enforcement point: components are loaded only when every import is governed, and every effect takes a
//! grant that exists only for a recorded decision.

pub mod arguments;
pub mod component;
pub mod coverage;
mod engine;
mod gate;
mod grant;
pub mod json;
mod scope;
pub mod value;

pub use engine::engine;
pub use gate::Gate;
pub use grant::{Grant, Outcome};
pub use scope::{MAX_DEPTH, MAX_HOST_CALLS, Scope};
