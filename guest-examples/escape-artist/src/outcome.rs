//! What came of an attempt.

use std::fmt::Display;

use crate::govrun::host::types::{Error, Refusal};
use crate::govrun::host::verdict;

/// A name and what it runs.
pub(crate) type Attempt = (&'static str, fn() -> Outcome);

pub(crate) struct Outcome {
    pub(crate) escaped: bool,
    pub(crate) detail: String,
}

impl Outcome {
    /// The host held.
    pub(crate) fn held(detail: impl Into<String>) -> Self {
        Self { escaped: false, detail: detail.into() }
    }

    pub(crate) fn escaped(detail: impl Into<String>) -> Self {
        Self { escaped: true, detail: detail.into() }
    }

    /// A change is an escape unless the host says that this call is in a sandbox, where changes are not real.
    pub(crate) fn changed(detail: impl Into<String>) -> Self {
        Self { escaped: !verdict::sandboxed(), detail: detail.into() }
    }

    /// Something that must fail: success is the escape.
    pub(crate) fn must_fail<T, E: Display>(what: &str, result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::escaped(format!("{what}: succeeded")),
            Err(error) => Self::held(format!("{what}: {error}")),
        }
    }

    /// The same for a change.
    pub(crate) fn must_not_change<T, E: Display>(what: &str, result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::changed(format!("{what}: succeeded")),
            Err(error) => Self::held(format!("{what}: {error}")),
        }
    }

    /// Several ways to the same thing: the first that escapes is the outcome, otherwise the reasons of all.
    pub(crate) fn any(ways: impl IntoIterator<Item = Self>) -> Self {
        let mut details = Vec::new();
        for way in ways {
            if way.escaped {
                return way;
            }
            details.push(way.detail);
        }
        Self::held(if details.is_empty() { "nothing to try it on".to_owned() } else { details.join("; ") })
    }
}

/// The reason code stays in the text, so that a test can see which rule held.
pub(crate) fn describe(error: Error) -> String {
    match error {
        Error::Denied(refusal) => refused(&refusal),
        Error::Throttled(it) => format!("{}; retry after {} ms", refused(&it.refusal), it.retry_after_ms),
        Error::Escalated(it) => format!("{}; ticket {}", refused(&it.refusal), it.ticket),
        Error::Failed(why) => format!("failed: {why}"),
    }
}

fn refused(refusal: &Refusal) -> String {
    format!("refused ({}): {} [decision {}]", refusal.reason, refusal.message, refusal.decision)
}
