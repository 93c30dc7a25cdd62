//! Where time comes from. A clock that cannot be read, or reads before 2020, is an error and never 1970.

use govrun_verdict::Timestamp;

/// 2020-01-01T00:00:00Z in microseconds: no honest clock of this program shows less.
pub const EARLIEST: Timestamp = Timestamp(1_577_836_800_000_000);

/// The clock could not be read, or what it shows cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The system refused to tell the time.
    #[error("the clock could not be read")]
    Unreadable,
    /// The time lies before 2020.
    #[error("the clock shows {0} µs after 1970, which is before 2020: set the system clock")]
    TooEarly(u64),
}

/// Time, as an argument: the one source of it for a log.
pub trait Clock: Send + Sync {
    /// Wall-clock time in microseconds since 1970 (UTC).
    ///
    /// # Errors
    /// When the clock cannot be read or shows a time before 2020.
    fn now(&self) -> Result<Timestamp, ClockError>;

    /// Microseconds since an unnamed point of this boot; never steps back.
    fn monotonic_us(&self) -> u64;
}

/// The clocks of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

fn micros(t: rustix::time::Timespec) -> Option<u64> {
    let seconds = u64::try_from(t.tv_sec).ok()?;
    let nanos = u64::try_from(t.tv_nsec).ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000)
}

impl Clock for SystemClock {
    fn now(&self) -> Result<Timestamp, ClockError> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        match micros(time).map(Timestamp).ok_or(ClockError::Unreadable)? {
            early if early < EARLIEST => Err(ClockError::TooEarly(early.0)),
            time => Ok(time),
        }
    }

    fn monotonic_us(&self) -> u64 {
        micros(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic)).unwrap_or(0)
    }
}
