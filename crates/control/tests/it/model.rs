//! Rolling windows against a naive model that keeps every admission for ever and counts.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use govrun_control::{Reservation, Reserved, Store};
use govrun_verdict::{BudgetUse, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::support::{T0, admitted, open, usage};

const BUDGETS: [&str; 3] = ["hourly", "daily", "burst"];

/// One admission: when it counts, its order, and the call it belongs to.
#[derive(Debug, Clone, Copy)]
struct Admission {
    at: u64,
    order: u64,
    call: usize,
    /// False as soon as the store may have forgotten it.
    known: bool,
}

#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<(String, String), Vec<Admission>>,
    latest: BTreeMap<String, u64>,
}

fn slot(usage: &BudgetUse) -> (String, String) {
    (usage.budget.name.to_string(), usage.key.to_string())
}

fn window(usage: &BudgetUse) -> u64 {
    usage.budget.window_ms.get() * 1_000
}

impl Model {
    fn time(&self, usage: &BudgetUse, now: u64) -> u64 {
        self.latest.get(&*usage.budget.name).map_or(now, |latest| now.max(*latest))
    }

    fn live(&self, usage: &BudgetUse, now: u64) -> Vec<Admission> {
        let at = self.time(usage, now);
        let all = self.keys.get(&slot(usage)).cloned().unwrap_or_default();
        all.into_iter().filter(|a| a.at + window(usage) > at).collect()
    }

    fn used(&self, usage: &BudgetUse, now: u64) -> u64 {
        self.live(usage, now).len() as u64
    }

    fn admits(&self, usage: &BudgetUse, now: u64) -> bool {
        self.used(usage, now) < usage.budget.limit.get()
    }

    fn wait_ms(&self, usage: &BudgetUse, now: u64) -> u64 {
        (0..).find(|ms| self.admits(usage, now + ms * 1_000)).unwrap()
    }

    fn admit(&mut self, uses: &[BudgetUse], orders: &[u64], now: u64, call: usize) {
        let mut done = Vec::new();
        for (usage, order) in uses.iter().zip(orders) {
            if done.contains(&slot(usage)) {
                continue;
            }
            done.push(slot(usage));
            let at = self.time(usage, now);
            self.forget(usage, at);
            self.keys.entry(slot(usage)).or_default().push(Admission {
                at,
                order: *order,
                call,
                known: true,
            });
        }
        for usage in uses {
            let at = self.time(usage, now);
            self.latest.insert(usage.budget.name.to_string(), at);
        }
    }

    /// The store may now forget what is out of the present window.
    fn forget(&mut self, usage: &BudgetUse, at: u64) {
        let same = self.keys.iter_mut().filter(|((name, _), _)| **name == *usage.budget.name);
        for admission in same.flat_map(|(_, all)| all) {
            admission.known &= admission.at + window(usage) > at;
        }
    }

    fn refund(&mut self, call: usize) {
        self.keys.values_mut().for_each(|all| all.retain(|a| a.call != call));
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Reserve these (budget, key) pairs.
    Reserve(Vec<(usize, usize)>),
    /// Let time pass, or step back.
    Time(i64),
    /// Refund the call so many calls ago, perhaps again.
    Refund(usize),
    /// Load another policy: limits, and windows in ms.
    Policy([u64; 3], [u64; 3]),
    /// Close the store and open it again.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => vec((0..3_usize, 0..2_usize), 1..4).prop_map(Step::Reserve),
        36 => (-2_000_i64..9_000).prop_map(Step::Time),
        6 => (-30_000_i64..60_000).prop_map(Step::Time),
        24 => (0..6_usize).prop_map(Step::Refund),
        6 => ([1..7_u64, 1..7, 1..7], [1..40_u64, 1..40, 1..40]).prop_map(|(l, w)| Step::Policy(l, w)),
        1 => Just(Step::Reopen),
    ]
}

/// The store and the model side by side.
struct Pair<'a> {
    dir: &'a Path,
    case: u32,
    store: Option<Store>,
    model: Model,
    calls: Vec<Reservation>,
    now: u64,
    limits: [u64; 3],
    windows: [u64; 3],
}

impl<'a> Pair<'a> {
    fn new(dir: &'a Path, case: u32) -> Self {
        let store = Some(open(dir));
        let (limits, windows) = ([3, 5, 1], [20, 35, 4]);
        Self { dir, case, store, model: Model::default(), calls: Vec::new(), now: T0, limits, windows }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn uses(&self, pairs: &[(usize, usize)]) -> Vec<BudgetUse> {
        let one = |(b, k): &(usize, usize)| {
            let name = format!("{}-{}", BUDGETS[*b], self.case);
            usage(&name, ["alice", "bob"][*k], self.limits[*b], self.windows[*b])
        };
        pairs.iter().map(one).collect()
    }

    fn run(&mut self, step: &Step, change_windows: bool) {
        match step {
            Step::Reserve(pairs) => self.reserve(&self.uses(pairs), change_windows),
            Step::Time(us) => self.now = self.now.saturating_add_signed(*us),
            Step::Refund(ago) => {
                let Some(call) = self.calls.len().checked_sub(ago + 1) else { return };
                self.store().refund(&self.calls[call]).unwrap();
                self.model.refund(call);
            }
            Step::Policy(limits, windows) => {
                self.limits = *limits;
                if change_windows {
                    self.windows = *windows;
                }
            }
            Step::Reopen => {
                self.store = None;
                self.store = Some(open(self.dir));
            }
        }
    }

    fn reserve(&mut self, uses: &[BudgetUse], change_windows: bool) {
        let levels = self.store().levels(uses, Timestamp(self.now)).unwrap();
        let answer = self.store().reserve(uses, Timestamp(self.now)).unwrap();
        if change_windows {
            self.bracket(uses, &answer);
        } else {
            let used: Vec<u64> = uses.iter().map(|u| self.model.used(u, self.now)).collect();
            assert_eq!(levels.iter().map(|l| l.used).collect::<Vec<_>>(), used);
            self.compare(uses, &answer, &used);
        }
        if let Reserved::Admitted { levels, reservation } = answer {
            let orders: Vec<u64> = levels.iter().map(|l| l.order.unwrap()).collect();
            for (usage, order) in uses.iter().zip(&orders) {
                let live = self.model.live(usage, self.now);
                assert!(change_windows || live.iter().all(|a| a.order < *order), "orders never repeat");
            }
            self.model.admit(uses, &orders, self.now, self.calls.len());
            self.calls.push(reservation);
        }
    }

    /// With windows that stay, the model says exactly what must happen.
    fn compare(&self, uses: &[BudgetUse], answer: &Reserved, used: &[u64]) {
        let refusing = uses.iter().filter(|u| !self.model.admits(u, self.now));
        let waits: Vec<(u64, &Arc<str>)> =
            refusing.map(|u| (self.model.wait_ms(u, self.now), &u.budget.name)).collect();
        let longest = waits.iter().map(|(ms, _)| *ms).max();
        match (answer, longest) {
            (Reserved::Admitted { levels, .. }, None) => {
                assert_eq!(levels.iter().map(|l| l.used).collect::<Vec<_>>(), used);
            }
            (Reserved::Exhausted { budget, retry_after_ms, levels, wait_ms: None }, Some(longest)) => {
                assert_eq!(*retry_after_ms, longest);
                assert_eq!(Some(budget), waits.iter().find(|(ms, _)| *ms == longest).map(|(_, name)| *name));
                assert_eq!(levels.iter().map(|l| l.used).collect::<Vec<_>>(), used);
                assert!(levels.iter().all(|l| l.order.is_none()));
            }
            (answer, longest) => panic!("store says {answer:?}, model says wait {longest:?}"),
        }
    }

    /// With windows that change, what is surely still known must count, and nothing else than what happened may.
    fn bracket(&self, uses: &[BudgetUse], answer: &Reserved) {
        let admits = |usage: &BudgetUse, known_only: bool| {
            let live = self.model.live(usage, self.now);
            let count = live.iter().filter(|a| a.known || !known_only).count() as u64;
            count < usage.budget.limit.get()
        };
        let admitted = matches!(answer, Reserved::Admitted { .. });
        if !uses.iter().all(|u| admits(u, true)) {
            assert!(!admitted, "over-admitted within what is known");
        }
        if uses.iter().all(|u| admits(u, false)) {
            assert!(admitted, "refused although no window is full");
        }
    }
}

/// Random steps against one store; every case has budgets of its own.
fn play(change_windows: bool) {
    let dir = tempfile::tempdir().unwrap();
    let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
    let case = Cell::new(0);
    let played = TestRunner::new(config).run(&vec(step(), 1..160), |steps| {
        case.set(case.get() + 1);
        let mut pair = Pair::new(dir.path(), case.get());
        steps.iter().for_each(|step| pair.run(step, change_windows));
        Ok(())
    });
    played.unwrap();
    open(dir.path()).check().unwrap();
}

#[test]
fn windows_are_those_of_a_naive_model() {
    play(false);
}

#[test]
fn changed_windows_never_over_admit_within_what_is_known() {
    play(true);
}

#[test]
fn retry_after_is_exact_to_the_millisecond() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let search = [usage("search", "alice", 600, 3_600_000)];
    for n in 0..600 {
        assert!(admitted(&store, &search, T0 + n * 750_000));
    }
    let now = T0 + 600 * 750_000 + 1;
    let Reserved::Exhausted { retry_after_ms, budget, .. } = store.reserve(&search, Timestamp(now)).unwrap()
    else {
        panic!("the 601st must be refused");
    };
    assert_eq!((&*budget, retry_after_ms), ("search", 3_150_000));
    assert!(!admitted(&store, &search, now + (retry_after_ms - 1) * 1_000));
    assert!(admitted(&store, &search, now + retry_after_ms * 1_000));
}

#[test]
fn one_refusing_budget_charges_none_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (wide, narrow) = (usage("wide", "k", 100, 1_000), usage("narrow", "k", 1, 1_000));
    let both = [wide.clone(), narrow];
    assert!(admitted(&store, &both, T0));
    for _ in 0..50 {
        assert!(!admitted(&store, &both, T0));
    }
    assert_eq!(store.levels(&[wide], Timestamp(T0)).unwrap()[0].used, 1);
}

#[test]
fn a_budget_asked_for_twice_is_charged_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let one = usage("b", "k", 2, 1_000);
    let Reserved::Admitted { levels, reservation } =
        store.reserve(&[one.clone(), one.clone()], Timestamp(T0)).unwrap()
    else {
        panic!("there is room for it");
    };
    assert_eq!(levels[0], levels[1]);
    assert_eq!(store.levels(std::slice::from_ref(&one), Timestamp(T0)).unwrap()[0].used, 1);
    store.refund(&reservation).unwrap();
    assert_eq!(store.levels(&[one], Timestamp(T0)).unwrap()[0].used, 0);
}
