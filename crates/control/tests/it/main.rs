//! The promises of the store, seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "tests fail by panicking"
)]

mod approvals;
mod faults;
mod kinds;
mod model;
mod processes;
mod sessions;
mod support;
