//! When a log turns over: to the next epoch key, to the next segment, to the next sign of life.

use std::time::Duration;

use super::writer::State;

/// How long things last. The defaults are what a log is made for; tests turn them down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes after which a segment is ended. It may grow by what is written until the next one is there.
    pub segment_bytes: u64,
    /// Time between the first and the last record of a segment after which it is ended.
    pub segment_age: Duration,
    /// Time after the first record of an epoch after which its key is replaced, whether more records come or not.
    pub epoch_age: Duration,
    /// Records after which it is replaced.
    pub epoch_records: u64,
    /// Time after a record until the next sign of life.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_age: Duration::from_secs(24 * 3600),
            epoch_age: Duration::from_secs(15 * 60),
            epoch_records: 1 << 20,
            heartbeat: Duration::from_secs(60),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Limits {
    /// Whether the segment is full or old enough.
    pub(super) fn ends_segment(&self, state: &State) -> bool {
        let at = &state.position;
        at.offset >= self.segment_bytes || state.time.saturating_sub(at.began) >= micros(self.segment_age)
    }

    /// Whether something ends with the record that was just written. What ends by time alone is for the clock of the thread
    /// that keeps watch.
    pub(super) fn is_reached(&self, state: &State) -> bool {
        state.epoch_records >= self.epoch_records || self.ends_segment(state)
    }
}
