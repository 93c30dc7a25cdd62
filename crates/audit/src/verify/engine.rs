//! Many threads look at pieces; whoever finishes the next one in order follows the chain through it. Memory is bounded by
//! the number of pieces that may be ahead.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use super::piece::{Piece, Pieces};
use super::scan::Item;

/// Most threads. With [`AHEAD`] pieces of half a MiB (and at most one longest line) for each, memory stays below 64 MiB.
pub(super) const MAX_THREADS: usize = 8;

/// Pieces that may be ahead of the chain, for each thread.
const AHEAD: u64 = 3;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Stop,
}

struct Order {
    /// Pieces handed out.
    taken: u64,
    /// The piece that the chain waits for.
    next: u64,
    /// Somebody follows the chain right now.
    busy: bool,
    done: BTreeMap<u64, (Piece, Vec<Item>)>,
}

struct Shared<'a, S, F> {
    pieces: Mutex<Pieces>,
    order: Mutex<Order>,
    moved: Condvar,
    stopped: AtomicBool,
    ahead: u64,
    scan: &'a S,
    follow: Mutex<F>,
}

/// Scan all pieces and follow them in order, until one says stop.
pub(super) fn run<S, F>(mut pieces: Pieces, threads: usize, scan: &S, mut follow: F)
where
    S: Fn(&Piece) -> Vec<Item> + Sync,
    F: FnMut(Piece, Vec<Item>) -> Next + Send,
{
    let threads = threads.clamp(1, MAX_THREADS);
    if threads == 1 {
        while let Some(piece) = pieces.next() {
            let items = scan(&piece);
            if follow(piece, items) == Next::Stop {
                return;
            }
        }
        return;
    }
    let shared = Shared {
        pieces: Mutex::new(pieces),
        order: Mutex::new(Order { taken: 0, next: 0, busy: false, done: BTreeMap::new() }),
        moved: Condvar::new(),
        stopped: AtomicBool::new(false),
        ahead: AHEAD * u64::try_from(threads).unwrap_or(1),
        scan,
        follow: Mutex::new(follow),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(&shared));
        }
        work(&shared);
    });
}

/// A lock fails only when another thread panicked, and then the scope passes that panic on.
fn work<S, F>(shared: &Shared<'_, S, F>) -> Option<()>
where
    S: Fn(&Piece) -> Vec<Item> + Sync,
    F: FnMut(Piece, Vec<Item>) -> Next + Send,
{
    // Whoever leaves, by whatever way, wakes those who wait for it.
    let _wake = Wake(&shared.moved, &shared.stopped);
    while !shared.stopped.load(Ordering::Acquire) {
        let (index, piece) = {
            let mut pieces = shared.pieces.lock().ok()?;
            // What was scanned before this end is followed by those who scan the pieces before it.
            let Some(piece) = pieces.next() else { return Some(()) };
            let mut order = shared.order.lock().ok()?;
            order.taken += 1;
            (order.taken - 1, piece)
        };
        let items = (shared.scan)(&piece);
        let mut order = shared.order.lock().ok()?;
        // The piece that the chain waits for never waits here, so this ends.
        while index >= order.next + shared.ahead && !shared.stopped.load(Ordering::Acquire) {
            order = shared.moved.wait(order).ok()?;
        }
        order.done.insert(index, (piece, items));
        drop(order);
        follow_in_order(shared)?;
    }
    Some(())
}

fn follow_in_order<S, F>(shared: &Shared<'_, S, F>) -> Option<()>
where
    F: FnMut(Piece, Vec<Item>) -> Next + Send,
{
    loop {
        let mut order = shared.order.lock().ok()?;
        if order.busy || shared.stopped.load(Ordering::Acquire) {
            return Some(());
        }
        let next = order.next;
        let Some((piece, items)) = order.done.remove(&next) else { return Some(()) };
        order.busy = true;
        drop(order);
        let went = {
            let mut follow = shared.follow.lock().ok()?;
            follow(piece, items)
        };
        let mut order = shared.order.lock().ok()?;
        order.busy = false;
        order.next += 1;
        if went == Next::Stop {
            shared.stopped.store(true, Ordering::Release);
        }
        drop(order);
        shared.moved.notify_all();
    }
}

struct Wake<'a>(&'a Condvar, &'a AtomicBool);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.store(true, Ordering::Release);
        }
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(lines: usize) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.jsonl");
        let text: String = (0..lines).map(|i| format!("{i:0>999}\n")).collect();
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    /// Whatever the number of threads, the chain sees every line once and in order.
    #[test]
    fn pieces_are_followed_in_order_by_any_number_of_threads() {
        let (_dir, path) = numbered(12_000);
        for threads in [1, 2, 3, 8, 100] {
            let mut seen = Vec::new();
            let follow = |piece: Piece, _: Vec<Item>| {
                let lines = piece.bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
                seen.extend(lines.map(|l| std::str::from_utf8(l).unwrap().parse::<usize>().unwrap()));
                Next::Go
            };
            run(Pieces::of(vec![path.clone()]), threads, &|_: &Piece| Vec::new(), follow);
            assert!(seen.iter().copied().eq(0..12_000), "{threads} threads");
        }
    }

    #[test]
    fn nothing_is_followed_after_a_stop() {
        let (_dir, path) = numbered(12_000);
        for threads in [1, 2, 8] {
            let mut pieces = 0;
            let follow = |_: Piece, _: Vec<Item>| {
                pieces += 1;
                if pieces == 3 { Next::Stop } else { Next::Go }
            };
            run(Pieces::of(vec![path.clone()]), threads, &|_: &Piece| Vec::new(), follow);
            assert_eq!(pieces, 3, "{threads} threads");
        }
    }
}
