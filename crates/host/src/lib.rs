//! The policy enforcement point: components are loaded only when every import is governed, and every effect takes a
//! grant that exists only for a recorded decision.

pub mod arguments;
pub mod component;
pub mod coverage;
mod engine;
pub mod json;
pub mod value;

pub use engine::engine;
