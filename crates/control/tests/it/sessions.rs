//! What is remembered of agents: windows, values, labels, two worlds, restarts, bounds.

use std::sync::Arc;

use govrun_control::{MAX_LABELS, MAX_MARKS, Store, Worlds};
use govrun_verdict::{Ask, AskWhat, Mark, Timestamp};

use crate::support::{T0, admitted, open, usage};

const BOTH: Worlds = Worlds { enforced: true, shadow: true };
const IN_FACT: Worlds = Worlds { enforced: true, shadow: false };
const IN_SHADOW: Worlds = Worlds { enforced: false, shadow: true };
const IDLE_MS: u64 = 60_000;
const SECOND: u64 = 1_000_000;

fn mark(question: &str, amount: Option<i64>, value: Option<&str>) -> Mark {
    Mark {
        question: question.into(),
        keep_ms: 10_000,
        amount: amount.map(Into::into),
        value: value.map(str::to_owned),
    }
}

fn add(store: &Store, mark: Mark, worlds: Worlds, now: u64) {
    assert!(store.remember("a", &[(mark, worlds)], &[], Timestamp(now)).unwrap());
}

fn ask(store: &Store, what: AskWhat, now: u64) -> Option<i64> {
    let asks = [Ask { name: "q".into(), what }];
    let facts = store.facts("a", &asks, IDLE_MS, Timestamp(now)).unwrap();
    facts.enforced.answers.get("q").map(|n| i64::try_from(*n).unwrap())
}

fn count(store: &Store, now: u64) -> Option<i64> {
    ask(store, AskWhat::Count { within_ms: 10_000 }, now)
}

fn first(store: &Store, value: &str, now: u64) -> Option<i64> {
    ask(store, AskWhat::First { within_ms: 10_000, value: Some(value.into()) }, now)
}

fn labels(store: &Store, agent: &str, now: u64) -> Vec<String> {
    let facts = store.facts(agent, &[], IDLE_MS, Timestamp(now)).unwrap();
    facts.enforced.labels.iter().map(ToString::to_string).collect()
}

#[test]
fn what_happened_counts_for_its_window_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(count(&store, T0), Some(0));
    add(&store, mark("q", Some(1), None), BOTH, T0);
    add(&store, mark("q", Some(1), None), BOTH, T0 + 4 * SECOND);
    drop(store);
    let store = open(dir.path());
    assert_eq!(count(&store, T0 + 4 * SECOND), Some(2));
    assert_eq!(count(&store, T0 + 10 * SECOND - 1), Some(2));
    assert_eq!(count(&store, T0 + 10 * SECOND), Some(1));
    assert_eq!(count(&store, T0 + 14 * SECOND), Some(0));
    // A clock that steps back brings nothing back, and loses nothing.
    add(&store, mark("q", Some(1), None), BOTH, T0 + 20 * SECOND);
    assert_eq!(count(&store, T0), Some(1));
    assert_eq!(ask(&store, AskWhat::Count { within_ms: 1 }, T0), Some(1));
}

#[test]
fn a_sum_with_an_unknown_part_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sum = |now| ask(&store, AskWhat::Sum { within_ms: 10_000 }, now);
    add(&store, mark("q", Some(700), None), BOTH, T0);
    add(&store, mark("q", Some(-200), None), BOTH, T0);
    assert_eq!(sum(T0), Some(500));
    add(&store, mark("q", None, None), BOTH, T0 + SECOND);
    assert_eq!(sum(T0 + SECOND), None);
    assert_eq!(sum(T0 + 10 * SECOND), None);
    assert_eq!(sum(T0 + 11 * SECOND), Some(0));
}

#[test]
fn a_value_is_new_until_it_was_seen_and_the_file_does_not_hold_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(first(&store, "tCH93-SECRET", T0), Some(1));
    add(&store, mark("q", None, Some("tCH93-SECRET")), BOTH, T0);
    assert_eq!(first(&store, "tCH93-SECRET", T0), Some(0));
    assert_eq!(first(&store, "tCH94", T0), Some(1));
    assert_eq!(first(&store, "tCH93-SECRET", T0 + 10 * SECOND), Some(1));
    assert_eq!(ask(&store, AskWhat::First { within_ms: 10_000, value: None }, T0), None);
    // A call whose value was not known may have had any.
    add(&store, mark("q", None, None), BOTH, T0 + SECOND);
    assert_eq!(first(&store, "tCH94", T0 + SECOND), None);
    drop(store);
    for file in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(11).any(|w| w == b"CH93-SECRET"), "{file}");
    }
}

#[test]
fn beyond_what_is_remembered_sums_and_news_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..MAX_MARKS + 5 {
        add(&store, mark("q", Some(1), Some(&n.to_string())), BOTH, T0);
    }
    assert_eq!(count(&store, T0), Some(MAX_MARKS));
    assert_eq!(ask(&store, AskWhat::Sum { within_ms: 10_000 }, T0), None);
    assert_eq!(first(&store, "new", T0), None);
    assert_eq!(first(&store, "100", T0), Some(0));
}

#[test]
fn labels_last_until_the_agent_was_idle_in_all_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let web: Arc<str> = "web".into();
    store.remember("a", &[], &[(Arc::clone(&web), BOTH)], Timestamp(T0)).unwrap();
    assert_eq!(labels(&store, "b", T0), [""; 0], "another agent has its own past");
    // Every call keeps them: just before the idle time, again and again.
    for n in 1..5 {
        assert_eq!(labels(&open(dir.path()), "a", T0 + n * (60 * SECOND - 1)), ["web"]);
    }
    let last = T0 + 4 * (60 * SECOND - 1);
    assert_eq!(labels(&store, "a", last + 60 * SECOND), [""; 0]);
    assert_eq!(labels(&store, "a", last), [""; 0], "they do not come back with the clock");
    store.remember("a", &[], &[(Arc::clone(&web), BOTH)], Timestamp(last)).unwrap();
    store.forget_labels("a", &[(web, IN_FACT)]).unwrap();
    let facts = store.facts("a", &[], IDLE_MS, Timestamp(last)).unwrap();
    assert_eq!((facts.enforced.labels.len(), facts.shadow.unwrap().labels.len()), (0, 1));
}

#[test]
fn the_two_worlds_do_not_touch_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    add(&store, mark("q", Some(1), None), IN_FACT, T0);
    add(&store, mark("q", Some(1), None), BOTH, T0);
    let asks = [Ask { name: "q".into(), what: AskWhat::Count { within_ms: 10_000 } }];
    let facts = store.facts("a", &asks, IDLE_MS, Timestamp(T0)).unwrap();
    let answer = |past: &govrun_verdict::Past| past.answers.get("q").map(ToString::to_string);
    assert_eq!(answer(&facts.enforced).as_deref(), Some("2"));
    assert_eq!(answer(facts.shadow.as_ref().unwrap()).as_deref(), Some("1"));
    add(&store, mark("q", Some(1), None), IN_SHADOW, T0);
    assert_eq!(store.facts("a", &asks, IDLE_MS, Timestamp(T0)).unwrap().shadow, None, "equal again");
}

#[test]
fn too_many_labels_are_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let many: Vec<(Arc<str>, Worlds)> =
        (0..=MAX_LABELS).map(|n| (Arc::from(format!("l{n}")), BOTH)).collect();
    assert!(!store.remember("a", &[], &many, Timestamp(T0)).unwrap());
    assert_eq!(labels(&store, "a", T0), [""; 0]);
    assert!(store.remember("a", &[], &many[1..], Timestamp(T0)).unwrap());
}

#[test]
fn what_is_left_of_a_budget_is_answered_and_not_charged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let uses = [usage("b", "k", 3, 60_000)];
    assert!(admitted(&store, &uses, T0));
    for _ in 0..3 {
        assert_eq!(ask(&store, AskWhat::Left(Box::new(uses[0].clone())), T0), Some(2));
    }
}
