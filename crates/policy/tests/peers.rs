//! Failures seen in other policy engines, each of which must not be ours.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::*;
use govrun_policy::{Policy, Sources};
use govrun_verdict::{BudgetKind, FsOp, Operation, Value, Verdict};

const ALLOW: &str = "[[rule]]\nid='allow'\nmatch={action='tool.call'}\nverdict='allow'\n";

#[test]
fn a_typo_in_a_rule_type_or_key_does_not_load() {
    for typo in [
        "[[rules]]\nid='b'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\n",
        "[[rule]]\nid='b'\nmatch={action='tool.call'}\nverdict='deny'\nreason='NO'\n",
        "[[rule]]\nid='b'\nmatch={action='tool.cal'}\nverdict='block'\nreason='NO'\n",
        "[[rule]]\nid='b'\nmatch={action='tool.call',tols='x'}\nverdict='block'\nreason='NO'\n",
        "[[rule]]\nid='b'\nmatch={action='tool.call'}\nwhn={'args.x'={eq=1}}\nverdict='block'\nreason='NO'\n",
        "[[rule]]\nid='b'\nmatch={action='tool.call'}\nwhen={'args.x'={equals=1}}\nverdict='block'\nreason='NO'\n",
    ] {
        refused(&format!("{ALLOW}{typo}"));
    }
}

#[test]
fn a_limit_of_zero_is_refused_and_not_unlimited() {
    let rule = |budget: &str| format!("[budget.b]\n{budget}\n{ALLOW}limit='b'\n");
    assert!(refused(&rule("limit=0\nper='1h'\nkey='agent'")).contains("a number from 1"));
    assert!(refused(&rule("limit=5\nper='0s'\nkey='agent'")).contains("zero is not a limit"));
    assert!(refused(&format!("{ALLOW}limits={{fuel=0}}\n")).contains("a number from 1"));
    assert!(refused(&format!("{ALLOW}limits={{}}\n")).contains("limit nothing"));
}

#[test]
fn no_policy_is_an_error_and_not_an_allow() {
    assert!(Policy::compile(&Sources::default()).is_err());
    assert!(Policy::load(std::path::Path::new("/nonexistent")).is_err());
    assert!(Policy::from_bundle(b"").is_err());
    assert!(Policy::from_bundle(b"govrun policy bundle 1\n").is_err());
}

#[test]
fn a_corrupt_file_is_an_error_and_not_a_warning() {
    for corrupt in ["[[rule", "\u{0}", "id = 'x' 'y'", "[[rule]]\nid='a'\nid='b'\n"] {
        let files = [("govrun.toml", &*format!("schema=1\npacks=['p']\n{ALLOW}")), ("p/c.toml", corrupt)];
        assert!(Policy::compile(&sources(&files)).is_err(), "{corrupt}");
    }
}

#[test]
fn a_restriction_that_cannot_be_evaluated_restricts() {
    let block = "[[rule]]\nid='b'\nmatch={action='tool.call'}\nwhen={'args.amount'={gt=100}}\nverdict='block'\nreason='NO'\n";
    let p = policy(&format!("{ALLOW}{block}"));
    for value in
        [text("1000000"), Value::Opaque("NaN".into()), Value::List(vec![]), Value::Bool(true), Value::Null]
    {
        assert_eq!(said(&decide(&p, &tool_call(&[("amount", value)]))), "block NO-UNKNOWN b");
    }
}

#[test]
fn a_missing_attribute_does_not_compare_as_zero() {
    let p = policy(&format!("{ALLOW}when={{'args.amount'={{lt=100}}}}\n"));
    assert_eq!(decide(&p, &tool_call(&[])).verdict, Verdict::Block);
    assert_eq!(decide(&p, &tool_call(&[("amount", number(0))])).verdict, Verdict::Allow);
}

#[test]
fn an_empty_list_is_refused_and_does_not_mean_everything() {
    for empty in
        ["match={action='tool.call',agent=[]}", "match={action='tool.call',tool=[]}", "match={action=[]}"]
    {
        let rule = format!("[[rule]]\nid='r'\n{empty}\nverdict='allow'\n");
        assert!(refused(&rule).contains("an empty list is refused"), "{empty}");
    }
    let listed = [
        ("govrun.toml", &*format!("schema=1\n[list.l]\nfile='l.txt'\n{ALLOW}")),
        ("l.txt", "# none yet\n\n"),
    ];
    assert!(Policy::compile(&sources(&listed)).unwrap_err().to_string().contains("an empty list is refused"));
}

#[test]
fn a_matching_limit_does_not_end_the_evaluation_before_a_block() {
    let p = policy(&format!(
        "[budget.b]\nlimit=5\nper='1h'\nkey='agent'\n{ALLOW}\
         [[rule]]\nid='a-limit'\nmatch={{action='tool.call'}}\nverdict='throttle'\nreason='SLOW'\nlimit='b'\n\
         [[rule]]\nid='z-block'\nmatch={{action='tool.call'}}\nverdict='block'\nreason='NO'\n"
    ));
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((said(&d).as_str(), d.budgets.len()), ("block NO z-block", 0));
}

#[test]
fn counters_are_kept_apart_by_agent_and_cannot_be_made_to_collide() {
    let p = policy(&format!("[budget.b]\nlimit=5\nper='1h'\nkey=['agent','session']\n{ALLOW}limit='b'\n"));
    let key = |agent: &str, session: &str| {
        let mut call = tool_call(&[]);
        call.agent = std::sync::Arc::new(govrun_verdict::Agent { name: agent.into(), tenant: None });
        call.session = session.into();
        decide(&p, &call).budgets.first().unwrap().key.clone()
    };
    let keys = [
        key("a", "b"),
        key("b", "a"),
        key("ab", ""),
        key("", "ab"),
        key("a1:b", ""),
        key("a", "1:b"),
        key("a|b", "c"),
        key("a", "b|c"),
    ];
    let different: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len(), "{keys:?}");
}

#[test]
fn windows_that_admit_twice_at_their_edge_do_not_load() {
    let budget =
        |kind: &str| format!("[budget.b]\nlimit=5\nper='1h'\nkey='agent'\nkind='{kind}'\n{ALLOW}limit='b'\n");
    for kind in ["fixed", "window", "sliding"] {
        assert!(refused(&budget(kind)).contains("is none of `rolling`"));
    }
    // A day on the calendar has edges, and says so: it needs the zone that they are in.
    assert!(refused(&budget("calendar").replace("1h", "day")).contains("needs the key `zone`"));
    let p = policy(&budget("rolling"));
    let d = decide(&p, &tool_call(&[]));
    let budget = &d.budgets.first().unwrap().budget;
    assert_eq!(
        (budget.limit.get(), budget.window_ms.get(), &budget.kind),
        (5, 3_600_000, &BudgetKind::Rolling)
    );
}

#[test]
fn lists_and_ranges_are_enforced_and_not_only_parsed() {
    let p = policy(
        "[list.bad]\nvalues=['evil.com']\n[[rule]]\nid='all'\nmatch={action=['http.request','net.connect']}\nverdict='allow'\n\
         [[rule]]\nid='host'\nmatch={action='http.request'}\nwhen={host={in_list='bad'}}\nverdict='block'\nreason='HOST'\n\
         [[rule]]\nid='net'\nmatch={action='net.connect',cidr=['93.0.0.0/8','2606:4700::/32']}\nverdict='block'\nreason='NET'\n",
    );
    assert_eq!(said(&decide(&p, &request("EVIL.com"))), "block HOST host");
    assert_eq!(said(&decide(&p, &connect("93.184.215.14"))), "block NET net");
    assert_eq!(said(&decide(&p, &connect("2606:4700::1"))), "block NET net");
    assert_eq!(decide(&p, &connect("94.0.0.1")).verdict, Verdict::Allow);
}

#[test]
fn every_documented_wildcard_matches() {
    let yes: &[(&str, Operation)] = &[
        ("action='fs.*',path='/data/**'", fs(FsOp::Read, "/data").operation),
        ("action='fs.*',path='/data/**'", fs(FsOp::Write, "/data/a/b").operation),
        ("action='fs.read',path='/data/*'", fs(FsOp::Read, "/data/a").operation),
        ("action='fs.read',path='/d?ta/*.csv'", fs(FsOp::Read, "/data/a.csv").operation),
        ("action='http.request',host='*.example.com'", request("a.b.example.com").operation),
        ("action='http.request',host='*'", request("x").operation),
        ("action='*',agent='fin*-?'", Operation::Clock),
        ("action='*',tool='*.send'", Operation::Clock),
        ("action='env.read',name='AWS_*'", Operation::EnvRead { name: "AWS_REGION".into() }),
        ("action='?lock'", Operation::Clock),
    ];
    for (scope, operation) in yes {
        let p = policy(&format!("[[rule]]\nid='r'\nmatch={{{scope}}}\nverdict='allow'\n"));
        assert_eq!(decide(&p, &call(operation.clone())).verdict, Verdict::Allow, "{scope}");
    }
    // What looks like another wildcard is refused.
    for wrong in ["path='/data/{a,b}'", "path='/data/[ab]'", "path='data/**'", "path='/data/'"] {
        refused(&format!("[[rule]]\nid='r'\nmatch={{action='fs.read',{wrong}}}\nverdict='allow'\n"));
    }
}

#[test]
fn arguments_are_visible_to_the_policy_at_any_depth() {
    let p = policy(&format!("{ALLOW}when={{'args.order.to.country'={{eq='CH'}}}}\n"));
    let nested = |country: &str| {
        let to = Value::Record(vec![("country".into(), text(country))]);
        tool_call(&[("order", Value::Record(vec![("to".into(), to)]))])
    };
    assert_eq!(decide(&p, &nested("CH")).verdict, Verdict::Allow);
    assert_eq!(decide(&p, &nested("KP")).verdict, Verdict::Block);
}

#[test]
fn delimiters_in_values_stay_in_their_value() {
    let p = policy(&format!("{ALLOW}when={{'args.to'={{in=['a','b']}}}}\nmessage='to {{args.to}}'\n"));
    for forged in ["a,b", "a\nb", "a\"", "['a']", "a\u{0}"] {
        assert_eq!(decide(&p, &tool_call(&[("to", text(forged))])).verdict, Verdict::Block, "{forged:?}");
    }
    // A field named with a dot is not a path into a record.
    assert_eq!(
        decide(&policy(&format!("{ALLOW}when={{'args.a.b'={{eq=1}}}}\n")), &tool_call(&[("a.b", number(1))]))
            .verdict,
        Verdict::Block
    );
}

#[test]
fn regular_expressions_are_anchored_at_both_ends() {
    let p = policy(&format!("{ALLOW}when={{'args.to'={{regex='a|b'}}}}\n"));
    for (value, verdict) in [
        ("a", Verdict::Allow),
        ("b", Verdict::Allow),
        ("ab", Verdict::Block),
        ("xa", Verdict::Block),
        ("bx", Verdict::Block),
        ("a\n", Verdict::Block),
        ("a\nb", Verdict::Block),
    ] {
        assert_eq!(decide(&p, &tool_call(&[("to", text(value))])).verdict, verdict, "{value:?}");
    }
    // Not even a flag loosens the anchors.
    let p = policy(&format!("{ALLOW}when={{'args.to'={{regex='(?m)^a$'}}}}\n"));
    assert_eq!(decide(&p, &tool_call(&[("to", text("a\nevil"))])).verdict, Verdict::Block);
}

#[test]
fn the_explanation_comes_with_the_decision() {
    let p = policy(&format!(
        "{ALLOW}[[rule]]\nid='b'\nmatch={{action='tool.call'}}\nverdict='block'\nreason='NO'\n"
    ));
    let d = decide(&p, &tool_call(&[]));
    let info = p.rule(d.rule.as_ref().unwrap()).unwrap();
    assert_eq!((info.reason.clone(), info.origin.line), (d.reason.clone(), 6));
    let matched: Vec<&str> = d.matched.iter().map(|m| m.rule.as_str()).collect();
    assert_eq!((matched, d.epoch), (vec!["allow", "b"], p.epoch()));
}
