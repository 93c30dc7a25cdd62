//! What a policy means, one promise of the language at a time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::num::NonZeroU64;
use std::sync::Arc;

use common::*;
use govrun_policy::{DatabaseSource, Policy};
use govrun_verdict::{
    Agent, Call, Durability, Egress, FsMode, FsOp, Obligations, Operation, Profile, Severity, ToolRef, Value,
    Verdict,
};

const ALLOW_ALL: &str = "[[rule]]\nid='all'\nmatch={action='*'}\nverdict='allow'\n";

fn nz(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

fn allow_when(condition: &str) -> Policy {
    policy(&format!(
        "[[rule]]\nid='a'\nmatch={{action='tool.call'}}\nwhen={{{condition}}}\nverdict='allow'\n"
    ))
}

fn block_when(condition: &str) -> Policy {
    let block = "[[rule]]\nid='b'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\n";
    policy(&format!("{ALLOW_ALL}{block}when={{{condition}}}\n"))
}

/// What a condition says about a call: seen through an allow rule and a block rule.
fn truth(condition: &str, call: &Call) -> &'static str {
    let allows = decide(&allow_when(condition), call).verdict == Verdict::Allow;
    let blocked = said(&decide(&block_when(condition), call));
    match (allows, blocked.as_str()) {
        (true, "block NO b") => "true",
        (false, "block NO-UNKNOWN b") => "unknown",
        (false, "allow ALLOWED all") => "false",
        other => panic!("{condition}: {other:?}"),
    }
}

#[test]
fn without_a_matching_rule_the_default_blocks() {
    let p = policy("[[rule]]\nid='a'\nmatch={action='fs.read'}\nverdict='allow'\n");
    assert_eq!(said(&decide(&p, &tool_call(&[]))), "block DEFAULT-DENY -");
    assert_eq!(said(&decide(&p, &fs(FsOp::Read, "/x"))), "allow ALLOWED a");
}

#[test]
fn the_most_restrictive_verdict_wins_in_any_order() {
    let rules = [
        "[[rule]]\nid='z-allow'\nmatch={action='tool.call'}\nverdict='allow'\n",
        "[[rule]]\nid='y-sandbox'\nmatch={action='tool.call'}\nverdict='sandbox'\nsandbox='p'\n",
        "[[rule]]\nid='x-ask'\nmatch={action='tool.call'}\nverdict='escalate'\nreason='ASK'\nescalate={to='role:ops'}\n",
        "[[rule]]\nid='w-block'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\n",
    ];
    let expected =
        ["allow ALLOWED z-allow", "sandbox SANDBOXED y-sandbox", "escalate ASK x-ask", "block NO w-block"];
    for (upto, expected) in (1..=rules.len()).zip(expected) {
        let some: Vec<&str> = rules.iter().copied().take(upto).collect();
        let reversed: Vec<&str> = some.iter().rev().copied().collect();
        for order in [some, reversed] {
            let p = policy(&format!("[sandbox.p]\nfuel=1\n{}", order.concat()));
            assert_eq!(said(&decide(&p, &tool_call(&[]))), expected);
        }
    }
}

#[test]
fn obligations_of_all_matching_rules_are_met() {
    let p = policy(
        "[sandbox.one]\nfuel=100\nmemory='64MiB'\ndb={rows=10,time='2s'}\nfs={scratch='1MiB'}\n\
         [sandbox.two]\nfuel=200\nmemory='1MiB'\negress='by-rule'\ndb={rows=20,bytes='1KiB'}\n\
         [[rule]]\nid='a'\nmatch={action='tool.call'}\nverdict='allow'\nlimits={fuel=50,deadline='3s'}\n\
         [[rule]]\nid='s1'\nmatch={action='tool.call'}\nverdict='sandbox'\nsandbox='one'\n\
         [[rule]]\nid='s2'\nmatch={action='tool.call'}\nverdict='sandbox'\nsandbox='two'\n",
    );
    let d = decide(&p, &tool_call(&[]));
    assert_eq!(said(&d), "sandbox SANDBOXED s1");
    let o = &d.obligations;
    assert_eq!((o.fuel, o.memory_bytes, o.deadline_ms), (nz(50), nz(1 << 20), nz(3_000)));
    assert_eq!((o.db.rows, o.db.bytes, o.db.time_ms, o.egress), (nz(10), nz(1024), nz(2_000), Egress::None));
    let profile = o.sandbox.as_ref().unwrap();
    assert_eq!((&*profile.name, profile.scratch_bytes, profile.db_copy), ("one+two", None, true));
}

#[test]
fn an_approved_call_still_runs_in_the_sandbox_that_matched() {
    let p = policy(
        "[sandbox.p]\nfuel=7\n[[rule]]\nid='s'\nmatch={action='tool.call'}\nverdict='sandbox'\nsandbox='p'\n\
         [[rule]]\nid='e'\nmatch={action='tool.call'}\nverdict='escalate'\nreason='ASK'\nescalate={to='role:ops'}\n",
    );
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((d.verdict, d.obligations.fuel, d.durability), (Verdict::Escalate, nz(7), Durability::Disk));
    assert!(d.obligations.sandbox.is_some());
}

#[test]
fn a_block_carries_no_obligations_and_no_budgets() {
    let p = policy(
        "[budget.b]\nlimit=1\nper='1h'\nkey='agent'\n\
         [[rule]]\nid='a'\nmatch={action='tool.call'}\nverdict='allow'\nlimit='b'\nlimits={fuel=5}\n\
         [[rule]]\nid='n'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\nlimit='b'\n",
    );
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((d.verdict, d.obligations, d.budgets.len()), (Verdict::Block, Obligations::default(), 0));
}

#[test]
fn every_operator_is_true_false_or_unknown() {
    let call = tool_call(&[
        ("n", number(5)),
        ("t", text("abc")),
        ("b", Value::Bool(true)),
        ("l", Value::List(vec![Value::Null, Value::Null])),
        ("o", Value::Opaque("NaN".into())),
        ("z", Value::Null),
        ("ip", text("10.1.2.3")),
        ("r", Value::Record(vec![("x".into(), number(1))])),
    ]);
    let cases = [
        ("eq=5", "n", "true"),
        ("eq=5.0", "n", "true"),
        ("eq=4", "n", "false"),
        ("eq='5'", "n", "unknown"),
        ("ne=5", "n", "false"),
        ("ne='5'", "n", "unknown"),
        ("eq=true", "b", "true"),
        ("eq=1", "b", "unknown"),
        ("in=[4,5]", "n", "true"),
        ("not_in=[4,5]", "n", "false"),
        ("not_in=['x']", "n", "unknown"),
        ("lt=5", "n", "false"),
        ("le=5", "n", "true"),
        ("gt=4.999", "n", "true"),
        ("ge=5.001", "n", "false"),
        ("between=[5,6]", "n", "true"),
        ("between=[6,7]", "n", "false"),
        ("gt=1", "t", "unknown"),
        ("prefix='ab'", "t", "true"),
        ("suffix=['x','bc']", "t", "true"),
        ("prefix='b'", "t", "false"),
        ("glob='a*'", "t", "true"),
        ("glob='b*'", "t", "false"),
        ("prefix='5'", "n", "unknown"),
        ("regex='a.c'", "t", "true"),
        ("regex='b'", "t", "false"),
        ("regex='a|abc'", "t", "true"),
        ("len=3", "t", "true"),
        ("len={gt=3}", "t", "false"),
        ("len=2", "l", "true"),
        ("len=1", "n", "unknown"),
        ("cidr='10.0.0.0/8'", "ip", "true"),
        ("cidr='11.0.0.0/8'", "ip", "false"),
        ("cidr='10.0.0.0/8'", "t", "unknown"),
        ("has=true", "n", "true"),
        ("has=false", "n", "false"),
        ("has=true", "o", "true"),
        ("has=true", "z", "false"),
        ("has=false", "gone", "true"),
        ("eq=5", "gone", "unknown"),
        ("ne=5", "gone", "unknown"),
        ("eq=5", "o", "unknown"),
        ("ne=5", "o", "unknown"),
        ("eq=5", "z", "unknown"),
        ("eq=1", "r.x", "true"),
        ("eq=1", "r.y", "unknown"),
        ("eq=1", "r", "unknown"),
        ("has=true", "o.x", "unknown"),
        ("eq='a'", "l", "unknown"),
    ];
    for (operator, argument, expected) in cases {
        assert_eq!(
            truth(&format!("'args.{argument}'={{{operator}}}"), &call),
            expected,
            "{argument} {operator}"
        );
    }
}

#[test]
fn unknown_conditions_restrict_in_conjunctions_and_exemptions() {
    let call = tool_call(&[("n", number(5))]);
    assert_eq!(truth("'args.n'={eq=5},'args.gone'={eq=1}", &call), "unknown");
    assert_eq!(truth("'args.n'={eq=4},'args.gone'={eq=1}", &call), "false");
    let unless = "[[rule]]\nid='r'\nmatch={action='tool.call'}\nunless={'args.gone'={eq=1}}\n";
    let exempted = policy(&format!("{unless}verdict='allow'\n"));
    assert_eq!(said(&decide(&exempted, &call)), "block DEFAULT-DENY -");
    let kept = policy(&format!("{ALLOW_ALL}{unless}verdict='block'\nreason='NO'\n"));
    assert_eq!(said(&decide(&kept, &call)), "block NO-UNKNOWN r");
}

#[test]
fn an_unknown_escalation_or_sandbox_never_keeps_the_default_away() {
    for effect in
        ["verdict='escalate'\nreason='R-E'\nescalate={to='role:o'}\n", "verdict='sandbox'\nsandbox='p'\n"]
    {
        let rule = format!("[sandbox.p]\nfuel=1\n[[rule]]\nid='r'\nmatch={{action='tool.call'}}\n{effect}");
        let p = policy(&format!("{rule}when={{'args.gone'={{eq=1}}}}\n"));
        assert_eq!(said(&decide(&p, &tool_call(&[]))), "block DEFAULT-DENY -");
        assert_ne!(decide(&policy(&rule), &tool_call(&[])).verdict, Verdict::Block);
    }
}

#[test]
fn definite_matches_decide_before_unknown_ones_and_then_the_smallest_id() {
    let p = policy(
        "[[rule]]\nid='a'\nmatch={action='tool.call'}\nwhen={'args.gone'={eq=1}}\nverdict='block'\nreason='R-A'\n\
         [[rule]]\nid='c'\nmatch={action='tool.call'}\nverdict='block'\nreason='R-C'\nseverity='low'\n\
         [[rule]]\nid='b'\nmatch={action='tool.call'}\nverdict='block'\nreason='R-B'\nseverity='critical'\n",
    );
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((said(&d).as_str(), d.severity), ("block R-B b", Severity::Critical));
    let matched: Vec<(&str, bool)> = d.matched.iter().map(|m| (m.rule.as_str(), m.unknown)).collect();
    assert_eq!(matched, [("a", true), ("b", false), ("c", false)]);
}

#[test]
fn contradictory_escalations_block_and_keep_the_reason() {
    let rule = |id: &str, to: &str| {
        format!(
            "[[rule]]\nid='{id}'\nmatch={{action='tool.call'}}\nverdict='escalate'\nreason='R-{}'\nescalate={{to={to},need=2}}\n",
            id.to_uppercase()
        )
    };
    let p = policy(&(rule("a", "['role:x','role:y']") + &rule("b", "['role:y','role:z']")));
    let d = decide(&p, &tool_call(&[]));
    let to = d.escalate.as_ref().unwrap();
    assert_eq!(
        (said(&d).as_str(), to.roles.as_slice(), to.need.get()),
        ("escalate R-A a", &["y".into()][..], 2)
    );
    let p = policy(&(rule("a", "'role:x'") + &rule("b", "'role:z'")));
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((said(&d).as_str(), d.escalate), ("block R-A a", None));
}

#[test]
fn shadow_rules_only_say_what_they_would_do() {
    let p = policy(
        "[budget.b]\nlimit=1\nper='1h'\nkey='agent'\n\
         [[rule]]\nid='s-allow'\nmatch={action='fs.read'}\nverdict='allow'\nmode='shadow'\nlimit='b'\n\
         [[rule]]\nid='t'\nmatch={action='tool.call'}\nverdict='allow'\n\
         [[rule]]\nid='u'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\nmode='shadow'\n",
    );
    let d = decide(&p, &fs(FsOp::Read, "/x"));
    assert_eq!((said(&d).as_str(), d.matched.len(), d.budgets.len()), ("block DEFAULT-DENY -", 0, 0));
    assert_eq!(d.shadow.unwrap().verdict, Verdict::Allow);
    let d = decide(&p, &tool_call(&[]));
    let shadow = d.shadow.as_ref().unwrap();
    assert_eq!(said(&d), "allow ALLOWED t");
    assert_eq!(
        (shadow.verdict, shadow.rule.as_ref().unwrap().as_str(), shadow.reason.as_str()),
        (Verdict::Block, "u", "NO")
    );
    assert_eq!(decide(&p, &fs(FsOp::Write, "/x")).shadow, None);
}

#[test]
fn budgets_are_those_of_all_matching_rules_with_unambiguous_keys() {
    let p = policy(
        "[budget.two]\nlimit=2\nper='1m'\nkey=['tenant','session']\n[budget.one]\nlimit=1\nper='1h'\nkey=['agent','tool']\n\
         [[rule]]\nid='a'\nmatch={action='tool.call'}\nverdict='allow'\nlimit=['two','one']\n\
         [[rule]]\nid='t'\nmatch={action='tool.call'}\nverdict='throttle'\nreason='SLOW'\nlimit='one'\n\
         [[rule]]\nid='0'\nmatch={action='fs.read'}\nverdict='throttle'\nreason='SLOW'\nlimit='one'\n",
    );
    let d = decide(&p, &tool_call(&[]));
    let uses: Vec<(&str, &str, &str, &str)> =
        d.budgets.iter().map(|u| (&*u.budget.name, &*u.key, u.rule.as_str(), u.reason.as_str())).collect();
    let one = ("one", "9:finance-113:payments.send", "a", "BUDGET-EXHAUSTED");
    assert_eq!(uses, [one, ("two", "4:acme2:s1", "a", "BUDGET-EXHAUSTED")]);
    // A throttle attaches its budget and permits nothing.
    assert_eq!(said(&decide(&p, &fs(FsOp::Read, "/x"))), "block DEFAULT-DENY -");
}

#[test]
fn targets_of_the_winning_level_are_told() {
    let p = policy(
        "[notify.n1]\nwebhook='env:A'\n[notify.n2]\nwebhook='https://example.com/h'\n[notify.n3]\nwebhook='http://127.0.0.1:9/h'\n\
         [[rule]]\nid='a'\nmatch={action='tool.call'}\nverdict='allow'\nnotify='n1'\n\
         [[rule]]\nid='b'\nmatch={action='tool.call'}\nverdict='block'\nreason='R-B'\nnotify=['n3','n2']\n\
         [[rule]]\nid='c'\nmatch={action='tool.call'}\nverdict='block'\nreason='R-C'\nnotify=['n2']\n",
    );
    let d = decide(&p, &tool_call(&[]));
    assert_eq!(d.notify, ["n2".into(), "n3".into()]);
}

#[test]
fn durability_only_rises() {
    let p = policy(
        "[[rule]]\nid='a'\nmatch={action=['tool.call','fs.write']}\nverdict='allow'\ndurability='os'\n\
         [[rule]]\nid='r'\nmatch={action=['fs.read']}\nverdict='allow'\n\
         [[rule]]\nid='d'\nmatch={action=['fs.list']}\nverdict='allow'\ndurability='disk'\n",
    );
    let of = |call: &Call| decide(&p, call).durability;
    assert_eq!(of(&tool_call(&[])), Durability::Sealed);
    assert_eq!(of(&fs(FsOp::Write, "/x")), Durability::Sealed);
    assert_eq!(of(&fs(FsOp::Read, "/x")), Durability::Os);
    assert_eq!(of(&fs(FsOp::List, "/x")), Durability::Disk);
}

#[test]
fn bounds_of_the_running_call_hold_whatever_rules_say() {
    let p = policy(&format!(
        "{ALLOW_ALL}[[rule]]\nid='n'\nmatch={{action='http.request',host='evil.com'}}\nverdict='block'\nreason='EVIL'\n"
    ));
    let cut = Obligations { egress: Egress::None, fuel: nz(9), ..Obligations::default() };
    let d = decide_within(&p, &request("example.com"), &cut);
    assert_eq!(
        (said(&d).as_str(), d.severity),
        ("block SANDBOX-NO-EGRESS builtin:no-egress", Severity::High)
    );
    assert_eq!(said(&decide_within(&p, &request("evil.com"), &cut)), "block EVIL n");
    assert_eq!(
        said(&decide_within(&p, &connect("93.184.215.14"), &cut)),
        "block SANDBOX-NO-EGRESS builtin:no-egress"
    );
    assert_eq!(decide_within(&p, &fs(FsOp::Read, "/x"), &cut).obligations.fuel, nz(9));
    let profile = Profile { name: "p".into(), preopens: None, scratch_bytes: None, db_copy: true };
    let sandboxed = Obligations { sandbox: Some(Arc::new(profile)), ..Obligations::default() };
    assert_eq!(said(&decide_within(&p, &fs(FsOp::Write, "/x"), &sandboxed)), "sandbox ALLOWED all");
    assert_eq!(said(&decide_within(&p, &tool_call(&[]), &sandboxed)), "sandbox ALLOWED all");
    assert_eq!(said(&decide_within(&p, &fs(FsOp::Read, "/x"), &sandboxed)), "allow ALLOWED all");
    assert!(decide_within(&p, &fs(FsOp::Read, "/x"), &sandboxed).obligations.sandbox.is_some());
}

#[test]
fn a_request_that_is_sandboxed_without_egress_is_blocked() {
    let p = policy(
        "[sandbox.p]\nfuel=1\n[[rule]]\nid='s'\nmatch={action='http.*'}\nverdict='sandbox'\nsandbox='p'\n",
    );
    assert_eq!(said(&decide(&p, &request("example.com"))), "block SANDBOX-NO-EGRESS builtin:no-egress");
}

#[test]
fn special_addresses_need_a_rule_that_names_their_range() {
    let p = policy(ALLOW_ALL);
    assert_eq!(said(&decide(&p, &connect("93.184.215.14"))), "allow ALLOWED all");
    for ip in [
        "10.0.0.5",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:93.184.215.14",
        "fd00::1",
        "64:ff9b::a00:1",
    ] {
        let d = decide(&p, &connect(ip));
        assert_eq!(said(&d), "block NET-ADDRESS-NOT-GRANTED builtin:address-not-granted", "{ip}");
    }
    let grant =
        "[[rule]]\nid='lan'\nmatch={action='net.connect',cidr='10.0.0.0/8',port=443}\nverdict='allow'\n";
    let p = policy(grant);
    assert_eq!(said(&decide(&p, &connect("10.0.0.5"))), "allow ALLOWED lan");
    assert_eq!(decide(&p, &connect("::ffff:10.0.0.5")).verdict, Verdict::Block);
    assert_eq!(decide(&p, &connect("192.168.0.1")).verdict, Verdict::Block);
    // Nothing permits it, and nothing restricts it: the name was decided before.
    assert_eq!(said(&decide(&p, &connect("93.184.215.14"))), "allow ALLOWED builtin:public-address");
    let p = policy(
        "[[rule]]\nid='n'\nmatch={action='net.connect',cidr='93.0.0.0/8'}\nverdict='block'\nreason='NO'\n",
    );
    assert_eq!(said(&decide(&p, &connect("93.184.215.14"))), "block NO n");
}

#[test]
fn a_default_can_ask_or_sandbox_but_never_allow() {
    let one = "[[rule]]\nid='x'\nmatch={action='clock'}\nverdict='allow'\n";
    let p = policy(&format!(
        "[env.prod]\ndefault={{verdict='escalate',escalate={{to='role:ops'}},reason='ASK'}}\n{one}"
    ));
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((said(&d).as_str(), d.escalate.unwrap().roles.len()), ("escalate ASK -", 1));
    let p =
        policy(&format!("[env.prod]\ndefault={{verdict='sandbox',sandbox='p'}}\n[sandbox.p]\nfuel=3\n{one}"));
    let d = decide(&p, &tool_call(&[]));
    assert_eq!((said(&d).as_str(), d.obligations.fuel), ("sandbox DEFAULT-SANDBOX -", nz(3)));
    assert!(
        refused(&format!("[env.prod]\ndefault={{verdict='allow'}}\n{one}"))
            .contains("a default cannot allow")
    );
}

#[test]
fn identity_keys_are_definite() {
    let p = policy(&format!(
        "{ALLOW_ALL}[[rule]]\nid='c'\nmatch={{action='tool.call',caller='agent.*'}}\nverdict='block'\nreason='R-C'\n\
         [[rule]]\nid='t'\nmatch={{action='fs.read',tenant='acme'}}\nverdict='block'\nreason='R-T'\n"
    ));
    let caller = ToolRef { name: "agent.run".into(), component: govrun_verdict::Digest([1; 32]) };
    assert_eq!(decide(&p, &tool_call(&[])).verdict, Verdict::Allow);
    let nested = Call { caller: Some(Arc::new(caller)), ..tool_call(&[]) };
    assert_eq!(said(&decide(&p, &nested)), "block R-C c");
    let nobody = Call { agent: Arc::new(Agent { name: "x".into(), tenant: None }), ..fs(FsOp::Read, "/x") };
    assert_eq!(decide(&p, &nobody).verdict, Verdict::Allow);
    assert_eq!(said(&decide(&p, &fs(FsOp::Read, "/x"))), "block R-T t");
}

#[test]
fn hosts_schemes_and_methods_ignore_case() {
    let p = policy(
        "[list.hosts]\nvalues=['API.Example.com']\n\
         [[rule]]\nid='a'\nmatch={action='http.request',method='get'}\nwhen={host={in_list='hosts'},scheme={eq='HTTPS'},method={eq='get'}}\nverdict='allow'\n",
    );
    assert_eq!(decide(&p, &request("api.example.com")).verdict, Verdict::Allow);
    assert_eq!(decide(&p, &request("Api.Example.Com")).verdict, Verdict::Allow);
    assert_eq!(decide(&p, &request("xapi.example.com")).verdict, Verdict::Block);
}

#[test]
fn messages_are_filled_in_and_harmless() {
    let p = policy(
        "[[rule]]\nid='b'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\nmessage='{agent} may not {tool} to {args.to} {{now}}'\n",
    );
    let d = decide(&p, &tool_call(&[("to", text("x\u{1b}[31m"))]));
    assert_eq!(d.message, "finance-1 may not payments.send to x\\u{1b}[31m {now}");
}

#[test]
fn the_registry_is_found_by_name_and_digest() {
    let digest = govrun_verdict::Digest([9; 32]);
    let p = policy(&format!(
        "[[agent]]\nname='finance-1'\ntenant='acme'\n\
         [[tool]]\nname='pay'\ndigest='{digest}'\ncomponent='c/pay.wasm'\nenv={{A='1'}}\n\
         dirs=[{{host='data',guest='/data',mode='ro'}},{{host='/srv/out',guest='/out',mode='rw'}}]\n\
         databases=[{{label='ledger',sqlite='db/ledger.db',mode='ro'}}]\n{ALLOW_ALL}"
    ));
    assert_eq!(p.agent("finance-1").unwrap().tenant.as_deref(), Some("acme"));
    assert_eq!(p.agent("finance-2"), None);
    let tool = p.tool("pay").unwrap();
    assert_eq!(Some(tool), p.tool_by_digest(digest));
    let resolved = tool.resolve(std::path::Path::new("/etc/govrun"));
    let hosts: Vec<(&str, FsMode)> = resolved.dirs.iter().map(|d| (&*d.host, d.mode)).collect();
    assert_eq!(hosts, [("/etc/govrun/data", FsMode::ReadOnly), ("/srv/out", FsMode::ReadWrite)]);
    let source = &resolved.databases.first().unwrap().source;
    assert_eq!(*source, DatabaseSource::Sqlite("/etc/govrun/db/ledger.db".into()));
    assert_eq!(resolved.component.unwrap().to_str(), Some("/etc/govrun/c/pay.wasm"));
    assert_eq!(p.tool_by_digest(govrun_verdict::Digest([8; 32])), None);
}

#[test]
fn rules_say_where_they_are_written() {
    let p = policy(
        "\n[[rule]] # first\nid = 'r1'\nmatch = { action = 'clock' }\nverdict = 'allow'\n\n# next\n[[rule]]\nid='r2'\nmatch={action='random'}\nverdict='allow'\n",
    );
    let info = p.rule(&govrun_verdict::RuleId::new("r1").unwrap()).unwrap();
    assert_eq!(info.origin.to_string(), "govrun.toml:3");
    assert_eq!(info.source, "[[rule]] # first\nid = 'r1'\nmatch = { action = 'clock' }\nverdict = 'allow'");
    assert_eq!(p.rules().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["r1", "r2"]);
    assert!(p.rule(&govrun_verdict::RuleId::builtin("no-egress")).is_none());
}

#[test]
fn the_bundle_compiles_to_the_same_policy() {
    let files = [
        ("q/r.toml", "[[rule]]\nid='q'\nmatch={action='clock'}\nverdict='allow'\n[list.l]\nfile='l.txt'\n"),
        ("govrun.toml", "schema=1\npacks=['q']\n"),
        ("q/l.txt", "# c\n a \n\nb\n"),
    ];
    let one = Policy::compile(&sources(&files)).unwrap();
    let mut reversed = files;
    reversed.reverse();
    let other = Policy::compile(&sources(&reversed)).unwrap();
    assert_eq!((one.epoch(), one.bundle()), (other.epoch(), other.bundle()));
    let again = Policy::from_bundle(one.bundle()).unwrap();
    assert_eq!((again.epoch(), again.bundle()), (one.epoch(), one.bundle()));
    assert_eq!(govrun_verdict::Digest::of(one.bundle()), one.epoch());
    for cut in 0..one.bundle().len() {
        assert!(Policy::from_bundle(one.bundle().get(..cut).unwrap()).is_err(), "cut at {cut}");
    }
    let mut more = one.bundle().to_vec();
    more.push(0);
    assert!(Policy::from_bundle(&more).is_err());
    // One byte of a list is another epoch.
    let mut changed = files;
    changed[2].1 = "# d\n a \n\nb\n";
    assert_ne!(Policy::compile(&sources(&changed)).unwrap().epoch(), one.epoch());
}

#[test]
fn an_operation_without_resources_is_decided_like_any_other() {
    let p = policy(
        "[[rule]]\nid='c'\nmatch={action=['clock','random','args.read','stdio.write']}\nverdict='allow'\n",
    );
    for operation in [Operation::Clock, Operation::Random, Operation::ArgsRead] {
        assert_eq!(decide(&p, &call(operation)).verdict, Verdict::Allow);
    }
}
