//! A thread for each call: what blocks there, a slow disk or a guest that computes, stalls no other call.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::Engine;

/// How often a running guest lets its own cancellation be seen; also the resolution of its deadline.
pub(super) const EPOCH_TICK: Duration = Duration::from_millis(5);
/// A ticker that has not ticked for so long has died or starves: deadlines would not hold.
const TICKER_SILENT: Duration = Duration::from_secs(5);

/// The thread is gone without an answer.
#[derive(Debug)]
pub(super) struct Lost;

/// Run `work` on a thread that has nothing else to do. When the caller gives up, the work is dropped at its next wait, which
/// for a computing guest is the next tick.
pub(super) async fn on_own_thread<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Lost> {
    let handle = Handle::current();
    let (alive, gone) = oneshot::channel::<Infallible>();
    let thread = tokio::task::spawn_blocking(move || {
        handle.block_on(async {
            tokio::select! {
                done = work => Some(done),
                _ = gone => None,
            }
        })
    });
    let ended = thread.await;
    drop(alive);
    ended.ok().flatten().ok_or(Lost)
}

/// Advances the engine's epoch from a thread of its own, and shows that it does.
pub(super) struct Ticker {
    begun: Instant,
    // Milliseconds since `begun` at the last tick.
    last: Arc<AtomicU64>,
}

impl Ticker {
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let (begun, last) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let (ticking, seen) = (engine.weak(), Arc::clone(&last));
        std::thread::Builder::new().name("govrun-ticker".into()).spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                seen.store(millis(begun.elapsed()), Ordering::Relaxed);
                std::thread::sleep(EPOCH_TICK);
            }
        })?;
        Ok(Self { begun, last })
    }

    /// True when it ticked a short time ago: without it no guest could be interrupted.
    pub(super) fn ticks(&self) -> bool {
        let silent = millis(self.begun.elapsed()).saturating_sub(self.last.load(Ordering::Relaxed));
        silent < millis(TICKER_SILENT)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticker_that_died_is_noticed() {
        let dead = Ticker { begun: Instant::now(), last: Arc::default() };
        assert!(dead.ticks(), "it may just have begun");
        let long_ago = Instant::now().checked_sub(TICKER_SILENT).unwrap();
        assert!(!Ticker { begun: long_ago, last: Arc::default() }.ticks());
        let engine = crate::engine().unwrap();
        let ticker = Ticker::start(&engine).unwrap();
        std::thread::sleep(EPOCH_TICK * 4);
        assert!(ticker.ticks() && ticker.last.load(Ordering::Relaxed) > 0);
    }

    #[tokio::test]
    async fn work_is_dropped_when_its_caller_gives_up_and_a_panic_is_only_its_own() {
        let (held, dropped) = oneshot::channel::<()>();
        let forever = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        let gave_up = tokio::time::timeout(Duration::from_millis(20), on_own_thread(forever)).await;
        assert!(gave_up.is_err());
        let freed = tokio::time::timeout(Duration::from_secs(5), dropped).await;
        assert!(freed.is_ok(), "the thread was freed");
        assert!(on_own_thread(async { panic!("of the host") }).await.map(|(): ()| ()).is_err());
        assert_eq!(on_own_thread(async { 7 }).await.unwrap(), 7);
    }
}
