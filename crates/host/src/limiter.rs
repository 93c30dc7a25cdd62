//! Bounds on what one instance may hold: bytes and counts, since counts alone exhaust a host too.

use govrun_verdict::Builtin;
use wasmtime::ResourceLimiter;

/// Linear memory of a call whose obligations name no limit, in bytes.
pub(crate) const DEFAULT_MEMORY_BYTES: usize = 256 * 1024 * 1024;
/// Elements of all tables together.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Core instances, memories and tables of one component.
pub(crate) const MAX_INSTANCES: usize = 64;
pub(crate) const MAX_MEMORIES: usize = 8;
pub(crate) const MAX_TABLES: usize = 32;

/// A limit that ended a call. The host raises it as the guest's trap, and the outcome has its reason.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Limit {
    /// The limit.
    pub(crate) reason: Builtin,
    /// One line.
    pub(crate) detail: String,
}

/// The limiter of one call's store.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes: usize,
    used_bytes: usize,
    refused: Option<Builtin>,
}

impl Limiter {
    /// At most `memory_bytes` over all memories of the store.
    #[must_use]
    pub(crate) const fn new(memory_bytes: usize) -> Self {
        Self { memory_bytes, used_bytes: 0, refused: None }
    }

    /// The limit that refused some growth last.
    #[must_use]
    pub(crate) const fn refused(&self) -> Option<Builtin> {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.used_bytes.saturating_sub(current).saturating_add(desired);
        if total > self.memory_bytes {
            self.refused = Some(Builtin::LimitMemory);
            return Ok(false);
        }
        self.used_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= MAX_TABLE_ELEMENTS;
        if !fits {
            self.refused = Some(Builtin::LimitTables);
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_budget() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert_eq!(limiter.refused(), Some(Builtin::LimitMemory));
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.memory_growing(60, 61, None).unwrap());
    }
}
