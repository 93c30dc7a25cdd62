//! A deadline that stands still while a call waits for a person.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a call has waited for approvals so far. Shared by the call and everything that runs inside it.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Waited>);

#[derive(Debug, Default)]
struct Waited {
    over: Duration,
    since: Option<Instant>,
    waiters: u32,
}

/// While it lives, the clocks of its calls stand still.
pub(crate) struct Waiting(Vec<Arc<Pause>>);

impl Pause {
    fn total(&self) -> Duration {
        let waited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waited.over.saturating_add(waited.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    fn begin(&self) {
        let mut waited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waited.waiters == 0 {
            waited.since = Some(Instant::now());
        }
        waited.waiters = waited.waiters.saturating_add(1);
    }

    fn end(&self) {
        let mut waited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waited.waiters = waited.waiters.saturating_sub(1);
        if waited.waiters == 0
            && let Some(since) = waited.since.take()
        {
            waited.over = waited.over.saturating_add(since.elapsed());
        }
    }
}

impl Waiting {
    pub(crate) fn begin(pauses: &[Arc<Pause>]) -> Self {
        pauses.iter().for_each(|pause| pause.begin());
        Self(pauses.to_vec())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.iter().for_each(|pause| pause.end());
    }
}

/// Run `work` for at most `deadline`, not counting what it waited; `None` when the deadline passed. The work is dropped
/// then.
pub(crate) async fn within<T>(deadline: Duration, pause: &Pause, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = deadline;
    loop {
        let before = pause.total();
        if let Ok(done) = tokio::time::timeout(left, &mut work).await {
            return Some(done);
        }
        // Give back exactly what was waited in this round.
        left = pause.total().saturating_sub(before);
        if left.is_zero() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn waiting_does_not_count() {
        runtime().block_on(async {
            let pause = Arc::new(Pause::default());
            let work = async {
                tokio::time::sleep(Duration::from_millis(900)).await;
                {
                    let _waiting = Waiting::begin(std::slice::from_ref(&pause));
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                tokio::time::sleep(Duration::from_millis(90)).await;
            };
            assert_eq!(within(Duration::from_secs(1), &pause, work).await, Some(()));
        });
    }

    #[test]
    fn work_counts_also_after_a_wait() {
        runtime().block_on(async {
            let pause = Arc::new(Pause::default());
            let work = async {
                tokio::time::sleep(Duration::from_millis(900)).await;
                {
                    let _waiting = Waiting::begin(std::slice::from_ref(&pause));
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                tokio::time::sleep(Duration::from_millis(110)).await;
            };
            assert_eq!(within(Duration::from_secs(1), &pause, work).await, None);
        });
    }
}
