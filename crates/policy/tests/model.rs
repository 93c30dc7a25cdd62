//! The indexed engine against the slow model, on random policies and calls.
//!
//! The long form: `GOVRUN_POLICY_CASES=100000 cargo test --release -p govrun-policy --test model`; each case is a policy with
//! up to eleven calls, so that this is half a million decisions and more for each test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use common::*;
use govrun_policy::{Context, Policy};
use govrun_testkit::model::{self, Answer, Asks, Bounds, Does, Layer, Rule, Tree};
use govrun_verdict::{
    Action, Agent, Call, DbOp, Decision, Digest, Egress, FsOp, HttpTarget, Obligations, Operation, Profile,
    Scheme, Severity, Timestamp, ToolRef, Transport, Value,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const AGENTS: [&str; 4] = ["fin-1", "fin-2", "res-1", "root"];
const AGENT_GLOBS: [&str; 7] = ["*", "fin-*", "fin-1", "fin-2", "*-1", "f?n-*", "res-1"];
const TOOLS: [&str; 4] = ["pay.send", "pay.list", "web.get", "unregistered:pay.send"];
const TOOL_GLOBS: [&str; 6] = ["*", "pay.*", "pay.send", "web.get", "*.send", "p*"];
const PATHS: [&str; 6] = ["/", "/data", "/data/a", "/data/a/b.csv", "/database", "/etc/passwd"];
const PATH_GLOBS: [&str; 9] =
    ["/**", "/data/**", "/data/*", "/data", "/data/a/*.csv", "/*/a", "/etc/passwd", "/**/a", "/data/a/**"];
const HOSTS: [&str; 5] = ["example.com", "api.example.com", "a.b.example.com", "evilexample.com", "10.0.0.1"];
const HOST_GLOBS: [&str; 6] = ["*", "*.example.com", "example.com", "API.example.com", "10.0.0.1", "*.com"];
const IPS: [&str; 6] = ["93.184.215.14", "10.0.0.1", "127.0.0.1", "::1", "2606:4700::1", "::ffff:10.0.0.1"];
const CIDRS: [(&str, u8); 7] = [
    ("10.0.0.0", 8),
    ("0.0.0.0", 0),
    ("127.0.0.0", 8),
    ("::", 0),
    ("::1", 128),
    ("93.184.0.0", 16),
    ("::ffff:0:0", 96),
];
const BUDGETS: [&str; 3] = ["b1", "b2", "b3"];
const TARGETS: [&str; 3] = ["n1", "n2", "n3"];
const FUELS: [u64; 3] = [100, 200, 300];
/// Sets of actions a rule may select, with the attributes that all of them have.
const KINDS: [(&[Action], &[&str], &[&str]); 11] = [
    (
        &[Action::ToolCall],
        &["agent", "tool", "tenant"],
        &["args.n", "args.t", "args.r.x", "args.l", "agent", "tenant"],
    ),
    (&[Action::FsRead, Action::FsWrite], &["agent", "tool", "path"], &["path", "tenant"]),
    (&[Action::HttpRequest], &["agent", "host", "path"], &["host", "path", "tenant"]),
    (&[Action::NetConnect], &["host", "agent"], &["host", "tenant"]),
    (&[Action::NetSocket], &["host", "agent"], &["host", "tenant"]),
    (&[Action::NetDns], &["host"], &["host"]),
    (&[Action::SecretRead], &["name"], &["name"]),
    (&[Action::ModelCall], &["model"], &["model"]),
    (&[Action::EnvRead], &["name", "tool"], &["name"]),
    (&[Action::DbExecute, Action::DbQuery], &["db", "agent"], &["tenant"]),
    (&Action::ALL, &["agent", "tool", "tenant"], &["tenant", "agent"]),
];

fn globs_for(key: &'static str) -> &'static [&'static str] {
    match key {
        "agent" => &AGENT_GLOBS,
        "tool" => &TOOL_GLOBS,
        "path" => &PATH_GLOBS,
        "host" => &HOST_GLOBS,
        "name" => &["HOME", "H*", "*"],
        "db" => &["ledger", "other"],
        "model" => &["gpt-*", "gpt-x", "*"],
        "tenant" => &["acme", "globex"],
        other => panic!("no globs for {other}"),
    }
}

fn asks(attribute: &'static str) -> BoxedStrategy<Asks> {
    let glob = match attribute {
        "path" => select(&PATH_GLOBS[..]).prop_map(Asks::Fits).boxed(),
        "host" => select(&HOST_GLOBS[..]).prop_map(Asks::Fits).boxed(),
        _ => select(&AGENT_GLOBS[..]).prop_map(Asks::Fits).boxed(),
    };
    let text = select(&["fin-1", "acme", "yes", "/data", "example.com"][..]);
    let any = prop_oneof![
        text.clone().prop_map(Asks::Says),
        text.prop_map(Asks::SaysNot),
        glob,
        any::<bool>().prop_map(Asks::Has)
    ];
    if attribute == "args.l" {
        let names = select(vec![&["yes"][..], &["yes", "no"], &["fin-1"]]);
        prop_oneof![
            names.clone().prop_map(Asks::AnyIn),
            names.clone().prop_map(Asks::AllIn),
            names.prop_map(Asks::NoneIn),
            proptest::bool::ANY.prop_map(Asks::Has),
        ]
        .boxed()
    } else if attribute.starts_with("args.") {
        prop_oneof![any, (0i64..3).prop_map(Asks::Is), (0i64..3).prop_map(Asks::Above)].boxed()
    } else {
        any.boxed()
    }
}

fn tree(attributes: &'static [&'static str]) -> impl Strategy<Value = Tree> {
    let leaf = select(attributes).prop_flat_map(|a| asks(a).prop_map(move |asks| Tree::Leaf(a, asks)));
    // `when` and `unless` are written as `all`, which is one of the four levels.
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..=3).prop_map(Tree::All),
            vec(inner.clone(), 1..=3).prop_map(Tree::Any),
            inner.prop_map(|tree| Tree::Not(Box::new(tree))),
        ]
    })
}

fn conditions(attributes: &'static [&'static str]) -> impl Strategy<Value = Vec<Tree>> {
    prop_oneof![3 => vec(tree(attributes), 0..=1), 1 => vec(tree(attributes), 2)]
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => option::of(select(&FUELS[..])).prop_map(Does::Allow),
        2 => (select(&FUELS[..]), any::<bool>()).prop_map(|(f, e)| Does::Sandbox(f, e)),
        2 => subsequence(vec!["treasury", "security", "ops"], 1..=2).prop_map(Does::Escalate),
        2 => Just(Does::Block),
        1 => Just(Does::Throttle),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = select(&KINDS[..]).prop_flat_map(|(actions, keys, attributes)| {
        let globs = subsequence(keys, 0..=keys.len()).prop_flat_map(|keys| {
            keys.into_iter()
                .map(|key| {
                    let all = globs_for(key);
                    subsequence(all, 1..=2.min(all.len())).prop_map(move |globs| (key, globs))
                })
                .collect::<Vec<_>>()
        });
        let cidr = if actions == [Action::NetConnect] || actions == [Action::NetSocket] {
            subsequence(&CIDRS[..], 0..=2).boxed()
        } else {
            Just(vec![]).boxed()
        };
        (Just(actions), globs, cidr, conditions(attributes), conditions(attributes))
    });
    let severity = option::of(select(&[Severity::Low, Severity::High, Severity::Critical][..]));
    let extras = (
        any::<bool>(),
        btree_set(select(&BUDGETS[..]), 0..=2),
        btree_set(select(&TARGETS[..]), 0..=2),
        severity,
    );
    let stage = (0u8..4, option::weighted(0.2, 1u16..=10_000));
    let layer = option::of(select(&[Layer::Ceiling, Layer::Team][..]));
    (does(), kind, extras, stage, layer).prop_map(
        |(does, (actions, globs, cidr, when, unless), extras, stage, layer)| {
            let (limited, limit, notify, severity) = extras;
            let throttle = does == Does::Throttle;
            Rule {
                id: String::new(),
                does,
                shadow: stage.0 == 0,
                canary: stage.1,
                layer,
                actions: actions.to_vec(),
                globs: globs.into_iter().collect::<BTreeMap<_, _>>(),
                cidr: cidr.into_iter().map(|(ip, bits)| (ip.parse::<IpAddr>().unwrap(), bits)).collect(),
                when,
                unless,
                limit: match (throttle, limited) {
                    (true, _) if limit.is_empty() => BTreeSet::from(["b1"]),
                    (true, _) | (_, true) => limit,
                    (false, false) => BTreeSet::new(),
                },
                notify: if throttle { BTreeSet::new() } else { notify },
                severity,
            }
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    // Ids in an order that is not the order of the rules.
    (vec(rule(), 1..14), any::<u64>()).prop_map(|(mut rules, salt)| {
        for (rule, at) in rules.iter_mut().zip(0u32..) {
            rule.id = format!("r{}-{at}", salt.rotate_left(at * 5) % 7);
        }
        rules
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0i64..3).prop_map(|n| Value::Number(n.into())),
        select(&["yes", "fin-1", "no"][..]).prop_map(|t| Value::Text(t.into())),
        Just(Value::Null),
        Just(Value::Opaque("NaN".into())),
        vec(
            prop_oneof![
                4 => select(&["yes", "no", "fin-1"][..]).prop_map(|t| Value::Text(t.into())),
                1 => Just(Value::Null),
            ],
            0..3
        )
        .prop_map(Value::List),
        (0i64..3).prop_map(|n| Value::Record(vec![("x".into(), Value::Number(n.into()))])),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let args = subsequence(vec!["n", "t", "r", "l"], 0..=4).prop_flat_map(|names| {
        names.into_iter().map(|n| value().prop_map(move |v| (n.to_owned(), v))).collect::<Vec<_>>()
    });
    prop_oneof![
        3 => args.prop_map(|fields| Operation::ToolCall { args: Value::Record(fields) }),
        2 => (select(&[FsOp::Read, FsOp::Write, FsOp::Stat][..]), select(&PATHS[..]))
            .prop_map(|(op, path)| Operation::Fs { op, path: path.into() }),
        2 => (select(&HOSTS[..]), select(&PATHS[..])).prop_map(|(host, path)| Operation::HttpRequest(HttpTarget {
            method: "GET".into(), scheme: Scheme::Https, host: host.into(), port: 443, path: path.into(), query: None,
        })),
        2 => (select(&HOSTS[..]), select(&IPS[..])).prop_map(|(host, ip)| Operation::NetConnect {
            host: host.into(), ip: ip.parse().unwrap(), port: 443,
        }),
        1 => select(&["HOME", "PATH"][..]).prop_map(|name| Operation::EnvRead { name: name.into() }),
        1 => select(&["ledger", "other"][..]).prop_map(|db| Operation::Db {
            op: DbOp::Execute, db: db.into(), statement: "select 1".into(), facts: None,
        }),
        1 => select(&HOSTS[..]).prop_map(|host| Operation::NetDns { host: host.into() }),
        2 => (option::of(select(&HOSTS[..])), select(&IPS[..])).prop_map(|(host, ip)| Operation::NetSocket {
            transport: Transport::Tcp, host: host.map(Into::into), ip: ip.parse().unwrap(), port: 443,
        }),
        1 => select(&["HOME", "PATH"][..]).prop_map(|name| Operation::Secret { name: name.into() }),
        1 => select(&["gpt-x", "other"][..]).prop_map(|model| Operation::Model {
            model: model.into(), tokens: 100,
        }),
        1 => Just(Operation::Clock),
    ]
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let tenant = option::of(select(&["acme", "other"][..]));
    let session = select(&["s1", "s2", "s3", "s4", "s5"][..]);
    let one = (select(&AGENTS[..]), tenant, select(&TOOLS[..]), operation(), session);
    vec(one, 1..12).prop_map(|calls| {
        let call =
            |(agent, tenant, tool, operation, session): (&str, Option<&str>, &str, Operation, &str)| Call {
                session: session.into(),
                agent: Arc::new(Agent { name: agent.into(), tenant: tenant.map(Into::into) }),
                tool: Arc::new(ToolRef { name: tool.into(), component: Digest([7; 32]) }),
                ..common::call(operation)
            };
        calls.into_iter().map(call).collect()
    })
}

fn bounds() -> impl Strategy<Value = Option<Bounds>> {
    option::of((any::<bool>(), any::<bool>(), option::of(select(&[50u64, 150, 250][..]))))
        .prop_map(|b| b.map(|(no_egress, sandboxed, fuel)| Bounds { no_egress, sandboxed, fuel }))
}

fn obligations(bounds: &Bounds) -> Obligations {
    let profile = Profile { name: "outer".into(), preopens: None, scratch_bytes: None, db_copy: true };
    Obligations {
        fuel: bounds.fuel.and_then(NonZeroU64::new),
        egress: if bounds.no_egress { Egress::None } else { Egress::ByRule },
        sandbox: bounds.sandboxed.then(|| Arc::new(profile)),
        ..Obligations::default()
    }
}

fn preamble(default: &Does, ceiling: bool) -> String {
    let mut out = format!(
        "schema = 1\npacks = [\"p\", \"q\"]\n[layer.team]\npacks = [\"t\"]\n[layer.org]\npacks = [\"o\"]\n\
         ceiling = {ceiling}\n{}",
        model::default_toml(default)
    );
    out.push_str(&model::profiles(&FUELS));
    for budget in BUDGETS {
        out.push_str(&format!("[budget.{budget}]\nlimit = 5\nper = \"1h\"\nkey = [\"agent\", \"tool\"]\n"));
    }
    for target in TARGETS {
        out.push_str(&format!("[notify.{target}]\nwebhook = \"env:HOOK\"\n"));
    }
    out
}

/// The policy with its rules dealt out to three files in this order; those of a layer to its own.
fn compile(default: &Does, ceiling: bool, rules: &[Rule], deal: impl Fn(u32) -> u32) -> Policy {
    let mut manifest = preamble(default, ceiling);
    let [mut p, mut q, mut t, mut o] = ["# p\n", "# q\n", "# t\n", "# o\n"].map(str::to_owned);
    for (rule, at) in rules.iter().zip(0..) {
        let file = match (rule.layer, deal(at) % 3) {
            (Some(Layer::Team), _) => &mut t,
            (Some(Layer::Ceiling), _) => &mut o,
            (None, 0) => &mut manifest,
            (None, 1) => &mut p,
            (None, _) => &mut q,
        };
        file.push_str(&model::to_toml(rule));
    }
    let files = [
        ("govrun.toml", &*manifest),
        ("p/rules.toml", &*p),
        ("q/deep/rules.toml", &*q),
        ("t/rules.toml", &*t),
        ("o/rules.toml", &*o),
    ];
    Policy::compile(&sources(&files)).unwrap_or_else(|e| panic!("{e}\n{manifest}\n{p}\n{q}\n{t}\n{o}"))
}

fn context(bounds: Option<&Obligations>) -> Context<'_> {
    Context { now: Timestamp(1_800_000_000_000_000), bounds }
}

/// The decision in the model's words.
fn answer(decision: &Decision) -> Answer {
    let unknown = decision.reason.as_str().ends_with("-UNKNOWN");
    let name =
        |rule: &Option<govrun_verdict::RuleId>| rule.as_ref().map_or("-".to_owned(), ToString::to_string);
    Answer {
        verdict: decision.verdict,
        rule: format!("{}{}", name(&decision.rule), if unknown { "?" } else { "" }),
        matched: decision.matched.iter().map(|m| (m.rule.to_string(), m.unknown)).collect(),
        limit: decision
            .budgets
            .iter()
            .map(|b| (*BUDGETS.iter().find(|n| ***n == *b.budget.name).unwrap(), b.rule.to_string()))
            .collect(),
        notify: decision.notify.iter().map(|n| *TARGETS.iter().find(|t| ***t == **n).unwrap()).collect(),
        severity: decision.severity,
        roles: decision
            .escalate
            .iter()
            .flat_map(|e| &e.roles)
            .map(|r| *["treasury", "security", "ops"].iter().find(|t| ***t == **r).unwrap())
            .collect(),
        fuel: decision.obligations.fuel.map(NonZeroU64::get),
        shadow: decision.shadow.as_ref().map(|s| {
            let unknown = s.reason.as_str().ends_with("-UNKNOWN");
            (s.verdict, format!("{}{}", name(&s.rule), if unknown { "?" } else { "" }))
        }),
    }
}

fn default() -> impl Strategy<Value = Does> {
    prop_oneof![
        3 => Just(Does::Block),
        1 => Just(Does::Escalate(vec!["ops", "treasury"])),
        1 => any::<bool>().prop_map(|egress| Does::Sandbox(200, egress)),
    ]
}

#[expect(clippy::disallowed_methods, reason = "the length of the test run")]
fn cases() -> ProptestConfig {
    let long = std::env::var("GOVRUN_POLICY_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: long.unwrap_or(400), max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_engine_decides_as_the_model(
        default in default(), ceiling in any::<bool>(), rules in rules(), calls in calls(), bounds in bounds(),
    ) {
        let policy = compile(&default, ceiling, &rules, |at| at);
        let within = bounds.as_ref().map(obligations);
        for call in &calls {
            let decision = policy.decide(call, &context(within.as_ref()));
            let expected = model::decide(&rules, &default, ceiling, call, bounds);
            prop_assert_eq!(answer(&decision), expected, "{:?}\n{:?}", call, decision);
        }
    }

    #[test]
    fn the_order_of_rules_and_files_changes_nothing(
        default in default(), rules in rules().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle())),
        ceiling in any::<bool>(), calls in calls(), bounds in bounds(), deal in any::<u32>(),
    ) {
        let (rules, shuffled) = rules;
        let one = compile(&default, ceiling, &rules, |_| 0);
        let other = compile(&default, ceiling, &shuffled, |at| deal.rotate_left(at) & 3);
        let within = bounds.as_ref().map(obligations);
        for call in &calls {
            let (a, b) = (one.decide(call, &context(within.as_ref())), other.decide(call, &context(within.as_ref())));
            prop_assert_eq!(Decision { epoch: b.epoch, ..a }, b);
        }
    }

    /// What shadow predicts is what a separate policy decides that enforces everything; and shadow rules, and rules that are
    /// out of their share, change nothing else.
    #[test]
    fn a_shadow_rule_changes_nothing_that_is_enforced(
        default in default(), ceiling in any::<bool>(), rules in rules(), calls in calls(), bounds in bounds(),
    ) {
        let without: Vec<Rule> = rules.iter().filter(|r| !r.shadow || r.canary.is_some()).cloned().collect();
        let promoted: Vec<Rule> =
            rules.iter().cloned().map(|r| Rule { shadow: false, canary: None, ..r }).collect();
        prop_assume!(!without.is_empty());
        let with = compile(&default, ceiling, &rules, |at| at);
        let without = compile(&default, ceiling, &without, |at| at);
        let promoted = compile(&default, ceiling, &promoted, |at| at);
        let within = bounds.as_ref().map(obligations);
        for call in &calls {
            let decision = with.decide(call, &context(within.as_ref()));
            let enforced = promoted.decide(call, &context(within.as_ref()));
            if let Some(shadow) = &decision.shadow {
                let (verdict, rule, reason) = (enforced.verdict, &enforced.rule, &enforced.reason);
                prop_assert_eq!((shadow.verdict, &shadow.rule, &shadow.reason), (verdict, rule, reason));
            } else {
                let (epoch, mode, cohort) = (decision.epoch, decision.mode, decision.cohort.clone());
                prop_assert_eq!(&Decision { epoch, mode, cohort, ..enforced }, &decision);
            }
            let plain = without.decide(call, &context(within.as_ref()));
            prop_assert_eq!(
                Decision { epoch: decision.epoch, shadow: decision.shadow.clone(), ..plain }, decision
            );
        }
    }
}
