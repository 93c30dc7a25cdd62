//! Rates and calendar periods in the store: random schedules, exact waits, restarts, old files.

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_control::{Reserved, Store};
use govrun_verdict::{Budget, BudgetKind, BudgetUse, Period, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{T0, admitted, open, usage};

fn with(kind: BudgetKind, limit: u64, window_ms: u64, wait_ms: Option<u64>) -> BudgetUse {
    let plain = usage("b", "k", limit, window_ms);
    let budget = Budget { kind, wait_ms: wait_ms.and_then(NonZeroU64::new), ..(*plain.budget).clone() };
    BudgetUse { budget: Arc::new(budget), ..plain }
}

fn rate(limit: u64, window_ms: u64, burst: u64) -> BudgetUse {
    with(BudgetKind::Rate { burst: NonZeroU64::new(burst).unwrap() }, limit, window_ms, None)
}

fn daily(limit: u64, zone: &str) -> BudgetUse {
    with(BudgetKind::Calendar { period: Period::Day, zone: zone.into() }, limit, 86_400_000, None)
}

fn wait_ms(store: &Store, uses: &[BudgetUse], now: u64) -> u64 {
    match store.reserve(uses, Timestamp(now)).unwrap() {
        Reserved::Exhausted { retry_after_ms, .. } => retry_after_ms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rate_admits_its_burst_and_then_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let uses = [rate(10, 1_000, 3)];
    for _ in 0..3 {
        assert!(admitted(&open(dir.path()), &uses, T0));
    }
    // The state is in the file: another process is another handle.
    assert_eq!(wait_ms(&open(dir.path()), &uses, T0), 100);
    let store = open(dir.path());
    assert!(!admitted(&store, &uses, T0 + 99_999));
    assert!(admitted(&store, &uses, T0 + 100_000));
    assert_eq!(store.levels(&uses, Timestamp(T0 + 100_000)).unwrap()[0].used, 3);
    assert_eq!(store.levels(&uses, Timestamp(T0 + 10_000_000)).unwrap()[0].used, 0);
}

#[test]
fn a_refunded_admission_of_a_rate_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let uses = [rate(1, 1_000, 1)];
    let Reserved::Admitted { reservation, .. } = store.reserve(&uses, Timestamp(T0)).unwrap() else {
        panic!()
    };
    assert!(!admitted(&store, &uses, T0));
    store.refund(&reservation).unwrap();
    assert!(admitted(&store, &uses, T0));
    assert!(!admitted(&store, &uses, T0));
}

#[test]
fn a_calendar_budget_is_full_again_at_midnight_of_its_zone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // 2023-11-14 22:13:20 in UTC, 23:13:20 in Berlin.
    let uses = [daily(2, "Europe/Berlin")];
    assert!(admitted(&store, &uses, T0) && admitted(&store, &uses, T0 + 1));
    let to_midnight = (46 * 60 + 40) * 1_000;
    assert_eq!(wait_ms(&store, &uses, T0), to_midnight);
    assert!(!admitted(&store, &uses, T0 + to_midnight * 1_000 - 1));
    assert!(admitted(&store, &uses, T0 + to_midnight * 1_000));
    assert_eq!(store.levels(&uses, Timestamp(T0 + to_midnight * 1_000)).unwrap()[0].used, 1);
    // A clock that steps back into yesterday does not get yesterday's budget once more.
    assert!(admitted(&store, &uses, T0));
    assert!(!admitted(&store, &uses, T0));
}

#[test]
fn a_call_may_wait_as_long_as_the_most_impatient_budget_lets_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let named = |name: &str, wait| {
        let one = with(BudgetKind::Rolling, 1, 1_000, wait);
        BudgetUse { budget: Arc::new(Budget { name: name.into(), ..(*one.budget).clone() }), ..one }
    };
    let wait = |uses: &[BudgetUse]| match store.reserve(uses, Timestamp(T0)).unwrap() {
        Reserved::Exhausted { wait_ms, .. } => wait_ms,
        other => panic!("{other:?}"),
    };
    let (short, long, never) = (named("s", Some(500)), named("l", Some(2_000)), named("n", None));
    assert!(admitted(&store, &[short.clone(), long.clone(), never.clone()], T0));
    assert_eq!(wait(&[short.clone(), long.clone()]), Some(500));
    assert_eq!(wait(std::slice::from_ref(&long)), Some(2_000));
    assert_eq!(wait(&[short, long, never]), None);
}

#[test]
fn a_state_file_of_the_first_schema_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let uses = [usage("old", "k", 1, 3_600_000)];
    assert!(admitted(&open(dir.path()), &uses, T0));
    let raw = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    let columns = "ALTER TABLE keys DROP COLUMN spread; ALTER TABLE keys DROP COLUMN part;";
    let tables: Vec<String> = ["marks", "subjects", "labels"]
        .iter()
        .map(|table| format!("DROP TABLE IF EXISTS {table};"))
        .collect();
    raw.execute_batch(&format!("{columns}{} PRAGMA user_version = 1;", tables.concat())).unwrap();
    drop(raw);
    let store = open(dir.path());
    assert!(!admitted(&store, &uses, T0), "what was charged stays charged");
    assert!(admitted(&store, &[rate(10, 1_000, 3)], T0));
}

/// `GOVRUN_BUDGET_CASES`: random schedules of 40 calls.
#[expect(clippy::disallowed_methods, reason = "the length of the test run")]
fn config() -> ProptestConfig {
    let long = std::env::var("GOVRUN_BUDGET_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: long.unwrap_or(12), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever the schedule, clocks that step back included: never more than the rate and burst in any span, never more
    /// than the limit on any day, and never refused a millisecond longer than said.
    #[test]
    fn random_schedules_never_over_admit(
        limit in 1u64..6, window_ms in 1u64..40, burst in 1u64..5, daily_limit in 1u64..8,
        steps in vec(-3_000i64..12_000, 40), scale in prop_oneof![Just(1i64), Just(4_000_000)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let spread = rate(limit, window_ms, burst);
        let calendar = daily(daily_limit, "UTC");
        let name = Budget { name: "c".into(), ..(*calendar.budget).clone() };
        let calendar = BudgetUse { budget: Arc::new(name), ..calendar };
        let mut now = T0;
        let (mut rates, mut days) = (Vec::<u64>::new(), Vec::<u64>::new());
        for step in steps {
            now = now.checked_add_signed(step * scale).unwrap();
            for (one, seen) in [(&spread, &mut rates), (&calendar, &mut days)] {
                match store.reserve(std::slice::from_ref(one), Timestamp(now)).unwrap() {
                    // A clock that steps back counts at the latest admission.
                    Reserved::Admitted { .. } => seen.push(seen.last().map_or(now, |last| now.max(*last))),
                    Reserved::Exhausted { retry_after_ms, .. } => {
                        prop_assert!(retry_after_ms > 0);
                        let just_before = now + (retry_after_ms - 1) * 1_000;
                        let level = store.levels(std::slice::from_ref(one), Timestamp(just_before)).unwrap();
                        prop_assert!(level[0].used >= level[0].limit);
                        let then = store.levels(std::slice::from_ref(one), Timestamp(now + retry_after_ms * 1_000)).unwrap();
                        prop_assert!(then[0].used < then[0].limit);
                    }
                    Reserved::KeysFull { .. } => prop_assert!(false, "one key of each budget"),
                }
            }
        }
        for (first, start) in rates.iter().enumerate() {
            for (last, end) in rates.iter().enumerate().skip(first) {
                let most = burst + (end - start) * limit / (window_ms * 1_000);
                prop_assert!((last - first + 1) as u64 <= most);
            }
        }
        for day in days.chunk_by(|a, b| a / 86_400_000_000 == b / 86_400_000_000) {
            prop_assert!(day.len() as u64 <= daily_limit);
        }
    }
}
