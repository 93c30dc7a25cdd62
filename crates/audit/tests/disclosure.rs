//! What a record shows of guest data, what it hides, and how it is shown later.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    reason = "tests fail by panicking"
)]

mod support;

use govrun_audit::form::{Body, Json};
use govrun_audit::read::{Records, find, openings};
use govrun_audit::verify::Level;
use govrun_audit::*;
use govrun_verdict::{Decision, Durability, Operation, Value};
use proptest::prelude::*;
use support::*;

#[test]
fn hidden_values_are_nowhere_in_the_log_and_open_later() {
    let site = Site::new();
    let log = site.open();
    let id = record(&log, &call(payment("1.50")), &allow(Durability::Os)).unwrap();
    log.close().unwrap();
    let text = std::fs::read_to_string(site.segment(id.log)).unwrap();
    assert!(!text.contains("Müller") && !text.contains("never recorded"), "{text}");
    assert!(text.contains(r#"{"name":"args.amount","clear":{"$dec":"1.50"}}"#), "{text}");
    let story = find(&site.logs(), id).unwrap().unwrap();
    let mut scratch = Vec::new();
    let Body::Decision(body) = story.decision.body(&mut scratch).unwrap() else { panic!("not a decision") };
    let hidden = body.inputs.fields[1].commitment.unwrap();
    let openings = openings(&site.logs(), id).unwrap();
    assert_eq!(openings.len(), 1);
    assert!(openings[0].opens(&hidden.0));
    assert_eq!(openings[0].value, Json::from(Value::Text("DE02 \"Müller\"\n".into())));
    // Another value, name or salt does not open it.
    let mut swapped = openings[0].clone();
    swapped.value = Json::from(Value::Text("DE02 \"Maier\"\n".into()));
    assert!(!swapped.opens(&hidden.0));
    let mut swapped = openings[0].clone();
    swapped.field = "args.from".into();
    assert!(!swapped.opens(&hidden.0));
    let mut swapped = openings[0].clone();
    swapped.salt.0[0] ^= 1;
    assert!(!swapped.opens(&hidden.0));
}

#[test]
fn openings_are_private_and_can_be_deleted() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    let log = site.open();
    let id = record_n(&log, 2, Durability::Sealed)[0];
    log.close().unwrap();
    let path = site.segment(id.log).with_file_name("openings.jsonl");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
    assert!(openings(&site.logs(), id).unwrap().is_empty());
}

#[test]
fn no_opening_is_kept_where_policy_wants_none_and_equal_values_look_different() {
    let site = Site::new();
    let log = site.open();
    let decision = Decision { disclosure: disclosure(&[], false), ..allow(Durability::Os) };
    for _ in 0..200 {
        record(&log, &call(payment("1")), &decision).unwrap();
    }
    let id = log.id();
    log.close().unwrap();
    assert!(!site.segment(id).with_file_name("openings.jsonl").exists());
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    let commitments: Vec<&str> = text.split("\"commitment\":\"").skip(1).map(|s| &s[..64]).collect();
    assert_eq!(commitments.len(), 400);
    assert_eq!(commitments.iter().collect::<std::collections::BTreeSet<_>>().len(), 400, "a salt came twice");
}

#[test]
fn a_long_value_is_committed_to_even_where_policy_shows_it() {
    let site = Site::new();
    let log = site.open();
    let decision = Decision { disclosure: disclosure(&["path"], false), ..allow(Durability::Os) };
    let read = |path: String| call(Operation::Fs { op: govrun_verdict::FsOp::Read, path });
    // Quotes count: the bound is on the JSON.
    record(&log, &read("p".repeat(MAX_CLEAR - 2)), &decision).unwrap();
    record(&log, &read("q".repeat(MAX_CLEAR - 1)), &decision).unwrap();
    let id = log.id();
    log.close().unwrap();
    let text = std::fs::read_to_string(site.segment(id)).unwrap();
    assert!(text.contains("ppp") && !text.contains("qqq"));
}

#[test]
fn an_outcome_has_no_place_for_content() {
    let site = Site::new();
    let log = site.open();
    let id = record_n(&log, 1, Durability::Os)[0];
    let secret = "no such table: customers_of_müller";
    let effects =
        |n| vec![Absorbed { kind: AbsorbedKind::FileWritten, subject: "/secret".into(), size: 1 }; n];
    log.outcome(&OutcomeEntry {
        status: OutcomeStatus::Failed(secret.into()),
        absorbed: effects(MAX_ABSORBED + 3),
        ..outcome(id)
    })
    .unwrap();
    log.close().unwrap();
    let text = std::fs::read_to_string(site.segment(id.log)).unwrap();
    assert!(!text.contains("customers") && !text.contains("/secret"));
    assert!(text.contains("\"error\":\"other\"") && text.contains("\"absorbed_omitted\":3"));
}

#[test]
fn numbers_beyond_the_format_stop_the_record_not_the_log() {
    let site = Site::new();
    let log = site.open();
    let id = record_n(&log, 1, Durability::Os)[0];
    let error = log.outcome(&OutcomeEntry { fuel: form::MAX_INT + 1, ..outcome(id) }).unwrap_err();
    assert!(matches!(error, AppendError::Encode(_)), "{error}");
    log.outcome(&OutcomeEntry { fuel: form::MAX_INT, ..outcome(id) }).unwrap();
    log.close().unwrap();
    assert_eq!(check(&site, Level::L2).exit_code(), 0);
}

#[test]
fn records_of_all_logs_come_in_the_order_of_time_and_a_decision_with_all_about_it() {
    let site = Site::new();
    let clock = TestClock::new();
    let open = || Log::open(&site.logs(), &site.keys, clock.clone()).unwrap();
    let (a, b) = (open(), open());
    assert_ne!(a.id(), b.id());
    let mut ids = Vec::new();
    for i in 0..50 {
        let log = if i % 3 == 0 { &a } else { &b };
        ids.push(record(log, &call(payment("1")), &allow(Durability::Os)).unwrap());
    }
    a.outcome(&outcome(ids[0])).unwrap();
    b.outcome(&outcome(ids[1])).unwrap();
    let mut child = call(payment("2"));
    child.parent = Some(ids[0]);
    let below = record(&a, &child, &allow(Durability::Os)).unwrap();
    // An approval may be recorded by the process that keeps the other log.
    let expired = ApprovalEntry {
        decision: ids[0],
        ticket: "t",
        event: ApprovalEvent::Expired,
        binding: [0; 32],
        signed: None,
        used_by: None,
    };
    b.approval(&expired).unwrap();
    let records: Vec<_> = Records::open(&site.logs()).unwrap().map(Result::unwrap).collect();
    assert!(records.windows(2).all(|w| w[0].head.time <= w[1].head.time));
    let decided: Vec<_> =
        records.iter().filter(|r| r.head.kind == form::Kind::Decision).map(|r| r.id()).collect();
    assert_eq!(decided[..50], ids[..]);
    let story = find(&site.logs(), ids[0]).unwrap().unwrap();
    assert_eq!(story.decision.id(), ids[0]);
    let kinds: Vec<_> = story.about.iter().map(|r| r.head.kind.name()).collect();
    assert_eq!(kinds, ["outcome", "decision", "approval"]);
    assert_eq!(story.about[1].id(), below);
    let none = govrun_verdict::DecisionId { log: a.id(), seq: 99_999 };
    assert!(find(&site.logs(), none).unwrap().is_none());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::number(&n.to_string())),
        (any::<i64>(), 0_u32..20).prop_map(|(m, s)| Value::number(&format!("{m}e-{s}"))),
        "-?[0-9]{1,12}\\.[0-9]{1,12}".prop_map(|s| Value::number(&s)),
        Just(Value::number("-0")),
        Just(Value::number("-0.00")),
        any::<f64>().prop_map(Value::float),
        any::<String>().prop_map(Value::Text),
        any::<String>().prop_map(Value::Opaque),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map("\\$?(dec|opaque|record|[a-z\"\\\\ é]{0,3})", inner, 0..4)
                .prop_map(|fields| Value::Record(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Every value has one spelling, and it says exactly that value: no record passes for a number.
    #[test]
    fn values_round_trip(value in value()) {
        let json = serde_json::to_string(&Json::from(&value)).unwrap();
        let back: Json<'_> = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&*back.0, &value);
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }

    /// Whatever the guest puts into a call, the log takes it or refuses it, and stays whole.
    #[test]
    fn hostile_text_never_breaks_a_line(text in any::<String>(), value in value()) {
        // Making keys costs more than everything that is tested here.
        static BLANK: std::sync::OnceLock<Site> = std::sync::OnceLock::new();
        let site = BLANK.get_or_init(Site::new).snapshot();
        let log = site.open();
        let decision = Decision { disclosure: disclosure(&["args.*", "statement", "db"], true), ..allow(Durability::Os) };
        let mut call = call(Operation::ToolCall { args: Value::Record(vec![(text.clone(), value)]) });
        call.session = text.as_str().into();
        record(&log, &call, &decision).unwrap();
        call.operation = Operation::Db {
            op: govrun_verdict::DbOp::Query,
            db: text.clone(),
            statement: text,
            facts: None,
        };
        record(&log, &call, &decision).unwrap();
        log.close().unwrap();
        prop_assert_eq!(check(&site, Level::L2).exit_code(), 0);
    }
}
