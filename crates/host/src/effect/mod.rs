//! Effects: what happens after a permit. They take values that were parsed and decided already, know nothing of
//! policy, and bound everything they do by the limits they are given.

pub(crate) mod exchange;
pub mod http;
pub mod sqlite;
mod target;

pub(crate) use self::target::is_host_header;

#[cfg(test)]
mod tests_http;
