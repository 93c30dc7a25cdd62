//! Bounds that would take too long, or too much disk, to reach from outside.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use govrun_verdict::{Budget, BudgetUse, ReasonCode, RuleId, Timestamp};

use crate::pool::Then;
use crate::store::Bounds;
use crate::{Reserved, Store, StoreError};

const T0: u64 = 1_700_000_000_000_000;

fn open(dir: &Path, max_keys: u64) -> Store {
    Store::open_within(dir, &Bounds { patience: Duration::from_millis(50), max_keys }).unwrap()
}

fn usage(name: &str, key: &str, limit: u64) -> BudgetUse {
    BudgetUse {
        budget: Arc::new(Budget::rolling(
            name.into(),
            NonZeroU64::new(limit).unwrap(),
            NonZeroU64::new(1_000).unwrap(),
        )),
        key: key.into(),
        shown: None,
        rule: RuleId::new("rule").unwrap(),
        reason: ReasonCode::new("BUDGET-EXHAUSTED").unwrap(),
    }
}

fn rows(store: &Store, table: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    store.budgets.read(|sql| sql.first(&query, [], |row| row.get(0))).unwrap().unwrap()
}

fn answer(store: &Store, uses: &[BudgetUse], now: u64) -> &'static str {
    match store.reserve(uses, Timestamp(now)).unwrap() {
        Reserved::Admitted { .. } => "admitted",
        Reserved::Exhausted { .. } => "exhausted",
        Reserved::KeysFull { .. } => "full",
    }
}

#[test]
fn one_key_too_many_is_refused_until_another_was_idle_for_a_window() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 3);
    for key in ["a", "b", "c"] {
        assert_eq!(answer(&store, &[usage("b", key, 2)], T0), "admitted");
    }
    assert_eq!(answer(&store, &[usage("other", "x", 9), usage("b", "d", 2)], T0 + 999_999), "full");
    assert_eq!(
        store.levels(&[usage("other", "x", 9)], Timestamp(T0)).unwrap()[0].used,
        0,
        "nothing was charged"
    );
    assert_eq!(answer(&store, &[usage("b", "a", 2)], T0 + 999_999), "admitted", "known keys still work");
    assert_eq!(answer(&store, &[usage("other", "x", 9)], T0), "admitted", "other budgets still work");
    assert_eq!(answer(&store, &[usage("b", "d", 2)], T0 + 1_000_000), "admitted");
    assert_eq!(rows(&store, "keys WHERE budget = (SELECT id FROM budgets WHERE name = 'b')"), 2);
}

#[test]
fn two_new_keys_of_one_call_count_as_two() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 3);
    assert_eq!(answer(&store, &[usage("b", "a", 2), usage("b", "b", 2)], T0), "admitted");
    assert_eq!(answer(&store, &[usage("b", "c", 2), usage("b", "d", 2)], T0), "full");
    assert_eq!(rows(&store, "keys"), 2);
}

#[test]
fn an_idle_key_of_the_same_call_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 2);
    let both = [usage("b", "a", 1), usage("b", "b", 1)];
    assert_eq!(answer(&store, &both, T0), "admitted");
    assert_eq!(answer(&store, &both, T0 + 5_000_000), "admitted");
    assert_eq!(answer(&store, &both, T0 + 5_000_000), "exhausted");
    assert_eq!(rows(&store, "keys"), 2);
}

#[test]
fn rows_that_no_longer_matter_go_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    for n in 0..300 {
        assert_eq!(answer(&store, &[usage("b", &format!("key {}", n % 60), 100)], T0 + n), "admitted");
    }
    assert_eq!((rows(&store, "admissions"), rows(&store, "keys")), (300, 60));
    // One per window: each retires two keys and sweeps some of their rows.
    for n in 1..150 {
        assert_eq!(answer(&store, &[usage("b", "last", 100)], T0 + n * 1_000_001), "admitted");
    }
    assert_eq!((rows(&store, "admissions"), rows(&store, "keys"), rows(&store, "retired")), (1, 1, 0));
    let counted =
        store.budgets.read(|sql| sql.first("SELECT keys FROM budgets", [], |row| row.get::<_, i64>(0)));
    assert_eq!(counted.unwrap(), Some(1));
}

#[test]
fn keys_that_are_used_once_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    for n in 0..2_000 {
        let session = format!("session {n}");
        let uses = [usage("b", &session, 9), usage("c", &session, 9)];
        assert_eq!(answer(&store, &uses, T0 + n * 50_000), "admitted");
    }
    // 20 keys of each budget lie in a window.
    assert_eq!((rows(&store, "keys"), rows(&store, "retired"), rows(&store, "admissions")), (40, 0, 40));
}

#[test]
fn processes_that_reserve_once_keep_the_journal_short() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("state.db-wal");
    let mut longest = 0;
    for n in 0..250 {
        let store = open(dir.path(), 100_000);
        assert_eq!(answer(&store, &[usage("b", "k", 250)], T0 + n), "admitted");
        drop(store);
        longest = longest.max(std::fs::metadata(&journal).unwrap().len());
    }
    assert!(longest > 500_000, "most processes leave it: {longest}");
    assert!(longest < 1_100_000, "one in a while writes it back: {longest}");
    let store = open(dir.path(), 100_000);
    assert_eq!(answer(&store, &[usage("b", "k", 250)], T0 + 250), "exhausted");
}

#[test]
fn a_clock_that_steps_back_revives_no_retired_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    assert_eq!(answer(&store, &[usage("b", "a", 1)], T0), "admitted");
    // This retires `a`, and puts the budget's time there.
    assert_eq!(answer(&store, &[usage("b", "z", 1)], T0 + 1_000_000), "admitted");
    assert_eq!(answer(&store, &[usage("b", "a", 1)], T0), "admitted");
    assert_eq!(
        answer(&store, &[usage("b", "a", 1)], T0 + 1_999_999),
        "exhausted",
        "counts at the later time"
    );
    assert_eq!(answer(&store, &[usage("b", "a", 1)], T0 + 2_000_000), "admitted");
}

#[test]
fn a_full_disk_refuses_and_charges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    let uses = [usage("b", "k", 1_000_000)];
    assert_eq!(answer(&store, &uses, T0), "admitted");
    // The engine's own bound answers as a full disk does.
    let pages = store.budgets.read(|sql| sql.first("PRAGMA page_count", [], |row| row.get::<_, i64>(0)));
    let bound = format!("PRAGMA max_page_count = {}", pages.unwrap().unwrap());
    let _: Option<i64> = store.budgets.read(|sql| sql.first(&bound, [], |row| row.get(0))).unwrap();
    let mut admitted = 1;
    let error = loop {
        match store.reserve(&uses, Timestamp(T0)) {
            Ok(_) => {
                admitted += 1;
                assert!(admitted < 10_000, "the bound must be met");
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Engine { .. }), "{error:?}");
    assert!(error.to_string().contains("disk space"), "{error}");
    assert_eq!(store.levels(&uses, Timestamp(T0)).unwrap()[0].used, admitted);
    assert!(store.reserve(&uses, Timestamp(T0)).is_err());
}

#[test]
fn a_store_that_others_hold_is_busy_after_a_bounded_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    let uses = [usage("b", "k", 9)];
    let other = rusqlite::Connection::open(store.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    assert!(matches!(store.reserve(&uses, Timestamp(T0)), Err(StoreError::Busy { .. })));
    assert!(store.levels(&uses, Timestamp(T0)).is_ok(), "readers need no lock");
    drop(other);
    assert_eq!(answer(&store, &uses, T0), "admitted");
    let waited = store.budgets.write(|_| {
        // A thread that finds the connection taken.
        let busy = std::thread::scope(|scope| scope.spawn(|| store.levels(&uses, Timestamp(T0))).join());
        Ok::<_, StoreError>(Then::Forget(busy.unwrap()))
    });
    assert!(matches!(waited.unwrap(), Err(StoreError::Busy { .. })));
    // Twice the patience of 50 ms, with room for a loaded machine.
    assert!(start.elapsed() < Duration::from_secs(3), "waited for {:?}", start.elapsed());
}

#[test]
fn a_panic_in_a_transaction_rolls_back_and_leaves_the_store_usable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    let uses = [usage("b", "k", 9)];
    assert_eq!(answer(&store, &uses, T0), "admitted");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.budgets.write(|sql| -> Result<Then<()>, StoreError> {
            sql.run("DELETE FROM admissions", [])?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(store.levels(&uses, Timestamp(T0)).unwrap()[0].used, 1);
    assert_eq!(answer(&store, &uses, T0), "admitted");
}

#[test]
fn commits_are_as_durable_as_the_docs_say() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    let level = |turn: &crate::pool::Turn| -> i64 {
        turn.read(|sql| sql.first("PRAGMA synchronous", [], |row| row.get(0))).unwrap().unwrap()
    };
    // 1 is NORMAL, 2 is FULL: https://www.sqlite.org/pragma.html#pragma_synchronous
    assert_eq!((level(&store.budgets), level(&store.approvals)), (1, 2));
}

#[test]
fn what_goes_over_the_bounds_of_the_interface_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100_000);
    let refused = |uses: &[BudgetUse], now| {
        assert!(matches!(store.reserve(uses, Timestamp(now)), Err(StoreError::TooLarge { .. })));
    };
    refused(&vec![usage("b", "k", 1); 65], T0);
    refused(&[usage("b", &"k".repeat(4_097), 1)], T0);
    for never in [253_402_300_800_000_000, u64::MAX >> 1, u64::MAX] {
        refused(&[usage("b", "k", 1)], never);
    }
    assert_eq!(answer(&store, &[], T0), "admitted");
}
