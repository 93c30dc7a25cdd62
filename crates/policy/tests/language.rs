//! Conditions put together, lists asked about element by element, hours, layers, rollouts, locks and promotions.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::sync::Arc;

use common::*;
use govrun_policy::{Context, LOCK, PROMOTIONS, Policy, Promotion, Sources};
use govrun_verdict::{
    BudgetKind, Call, DbOp, Decision, Mode, Operation, Period, SqlFacts, Timestamp, Value, Verdict,
};

const ALLOW: &str = "[[rule]]\nid='all'\nmatch={action='*'}\nverdict='allow'\n";

/// What a condition says about a call: seen through an allow rule and a block rule.
fn truth(action: &str, condition: &str, call: &Call) -> &'static str {
    let rule = |verdict: &str| {
        format!("[[rule]]\nid='r'\nmatch={{action='{action}'}}\nwhen={{{condition}}}\n{verdict}\n")
    };
    let allows = decide(&policy(&rule("verdict='allow'")), call).verdict == Verdict::Allow;
    let blocking = format!("{ALLOW}{}", rule("verdict='block'\nreason='NO'"));
    match (allows, said(&decide(&policy(&blocking), call)).as_str()) {
        (true, "block NO r") => "true",
        (false, "block NO-UNKNOWN r") => "unknown",
        (false, "allow ALLOWED all") => "false",
        other => panic!("{condition}: {other:?}"),
    }
}

#[test]
fn connectives_are_true_false_or_unknown() {
    let call = tool_call(&[("n", number(5)), ("t", text("abc"))]);
    let (yes, no, what) = ("{'args.n'={eq=5}}", "{'args.n'={eq=6}}", "{'args.gone'={eq=1}}");
    for (condition, expected) in [
        (format!("any=[{yes},{no}]"), "true"),
        (format!("any=[{no},{what}]"), "unknown"),
        (format!("any=[{yes},{what}]"), "true"),
        (format!("any=[{no}]"), "false"),
        (format!("all=[{yes},{yes}]"), "true"),
        (format!("all=[{yes},{what}]"), "unknown"),
        (format!("all=[{no},{what}]"), "false"),
        (format!("not={no}"), "true"),
        (format!("not={yes}"), "false"),
        (format!("not={what}"), "unknown"),
        // All keys of one table must hold.
        ("not={'args.n'={eq=5},'args.t'={eq='x'}}".to_owned(), "true"),
        (format!("any=[{yes}],all=[{no}]"), "false"),
        (format!("any=[{no}],'args.n'={{eq=5}}"), "false"),
        (format!("any=[{{all=[{yes},{{not={no}}}]}},{what}]"), "true"),
        (format!("not={{any=[{{all=[{{'args.n'={{gt=1}}}},{no}]}},{no}]}}"), "true"),
    ] {
        assert_eq!(truth("tool.call", &condition, &call), expected, "{condition}");
    }
}

#[test]
fn conditions_nest_four_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let open = "not={".repeat(depth);
        format!("{open}'args.n'={{eq=5}}{}", "}".repeat(depth))
    };
    let call = tool_call(&[("n", number(5))]);
    assert_eq!(truth("tool.call", &nested(4), &call), "true");
    let rule = |condition: &str| {
        format!("[[rule]]\nid='r'\nmatch={{action='tool.call'}}\nwhen={{{condition}}}\nverdict='allow'\n")
    };
    assert!(refused(&rule(&nested(5))).contains("nest at most 4 deep"));
    for (wrong, says) in [
        ("any=[]", "an empty list is refused"),
        ("any=[{}]", "an empty condition would hold for every call"),
        ("not={}", "an empty condition would hold for every call"),
        ("any={'args.n'={eq=5}}", "takes a list of conditions"),
        ("anny=[{'args.n'={eq=5}}]", "did you mean `any`?"),
        ("any=[{path={eq='/x'}}]", "`path` is not an attribute of `tool.call`"),
        ("all=[5]", "a table is needed here"),
    ] {
        let errors = refused(&rule(wrong));
        assert!(errors.contains(says), "{wrong}\n{errors}");
    }
}

fn list(elements: &[Value]) -> Call {
    tool_call(&[("l", Value::List(elements.to_vec()))])
}

#[test]
fn lists_are_asked_about_by_any_all_and_none() {
    let (a, b, odd) = (text("a"), text("b"), Value::Opaque("NaN".into()));
    let both = list(&[a.clone(), b.clone()]);
    let unsure = list(&[a.clone(), odd.clone()]);
    for (call, condition, expected) in [
        (&both, "any_in=['a']", "true"),
        (&both, "any_in=['c']", "false"),
        (&both, "all_in=['a','b','c']", "true"),
        (&both, "all_in=['a']", "false"),
        (&both, "none_in=['c']", "true"),
        (&both, "none_in=['b']", "false"),
        (&both, "any_glob='?'", "true"),
        (&both, "all_glob=['a*','b*']", "true"),
        (&both, "none_glob='c*'", "true"),
        (&unsure, "any_in=['a']", "true"),
        (&unsure, "any_in=['c']", "unknown"),
        (&unsure, "all_in=['b']", "false"),
        (&unsure, "all_in=['a']", "unknown"),
        (&unsure, "none_in=['a']", "false"),
        (&unsure, "none_in=['c']", "unknown"),
        (&list(&[number(3)]), "any_in=[3,4]", "true"),
        (&list(&[number(3)]), "any_in=['3']", "unknown"),
        // Nothing may pass because nothing was there.
        (&list(&[]), "all_in=['a']", "unknown"),
        (&list(&[]), "all_glob='*'", "unknown"),
        (&list(&[]), "any_in=['a']", "false"),
        (&list(&[]), "none_in=['a']", "true"),
        // What is no list says nothing about its elements.
        (&tool_call(&[("l", text("a"))]), "any_in=['a']", "unknown"),
        (&tool_call(&[]), "none_in=['a']", "unknown"),
        (&list(&[a.clone(), b]), "in=['a']", "unknown"),
    ] {
        assert_eq!(
            truth("tool.call", &format!("'args.l'={{{condition}}}"), call),
            expected,
            "{condition} {call:?}"
        );
    }
}

fn statement(tables: &[&str], columns: &[&str], functions: &[&str]) -> Call {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let facts = SqlFacts {
        class: "select".into(),
        tables: owned(tables),
        columns: owned(columns),
        functions: owned(functions),
    };
    call(Operation::Db {
        op: DbOp::Query,
        db: "ledger".into(),
        statement: "select".into(),
        facts: Some(Arc::new(facts)),
    })
}

#[test]
fn statements_are_judged_by_the_tables_columns_and_functions_they_name() {
    let select = statement(&["main.users", "orders"], &["email", "id"], &["count"]);
    for (condition, expected) in [
        ("tables={any_in=['orders']}", "true"),
        // In the spelling of the facts, whatever the policy's.
        ("tables={any_in=['Orders']}", "true"),
        ("tables={any_in=['main.users']}", "true"),
        // A name without schema may be the one that is written with one.
        ("tables={any_in=['users']}", "unknown"),
        ("tables={none_in=['users']}", "unknown"),
        ("tables={any_glob='use*'}", "unknown"),
        ("tables={any_glob='*.users'}", "true"),
        ("tables={all_in=['orders']}", "false"),
        ("tables={all_in=['orders','main.users']}", "true"),
        ("tables={len=2}", "true"),
        ("columns={any_in=['EMAIL']}", "true"),
        ("columns={none_in=['password']}", "true"),
        ("functions={all_in=['count','sum']}", "true"),
        ("stmt={in=['SELECT','with']}", "true"),
    ] {
        assert_eq!(truth("db.query", condition, &select), expected, "{condition}");
    }
    for condition in ["tables={any_in=['x']}", "columns={none_in=['x']}", "stmt={eq='select'}"] {
        assert_eq!(truth("db.query", condition, &query("not sql")), "unknown", "{condition}");
    }
    assert_eq!(truth("db.query", "tables={all_in=['orders']}", &statement(&[], &[], &["random"])), "unknown");
}

#[test]
fn an_operator_that_can_never_fit_is_refused() {
    let rule = |action: &str, condition: &str| {
        format!("[[rule]]\nid='r'\nmatch={{action='{action}'}}\nwhen={{{condition}}}\nverdict='allow'\n")
    };
    for (action, condition, says) in [
        ("db.query", "tables={eq='x'}", "`tables` is a list"),
        ("db.query", "tables={glob='x'}", "`tables` is a list"),
        ("db.query", "tables={any_in=[1]}", "the elements of `tables` are names"),
        ("db.query", "db={any_in=['x']}", "`db` is not a list"),
        ("http.request", "port={len=1}", "`port` has no length"),
        ("http.request", "port={any_glob='x'}", "`port` is not a list"),
        ("tool.call", "'args.l'={any_in=[]}", "an empty list is refused"),
        ("tool.call", "'args.l'={any_in='a'}", "an array is needed here"),
        ("tool.call", "'args.l'={any_in=['a',1]}", "values of different types"),
        ("tool.call", "'args.l'={any_im=['a']}", "did you mean `any_in`?"),
        ("tool.call", "'args.l'={any_in_list='gone'}", "there is no list `gone`"),
    ] {
        let errors = refused(&rule(action, condition));
        assert!(errors.contains(says), "{condition}\n{errors}");
    }
}

fn at(policy: &Policy, moment: &str) -> Decision {
    let at: u64 = moment.parse().unwrap();
    policy.decide(&tool_call(&[]), &Context { now: Timestamp(at * 1_000_000), bounds: None })
}

#[test]
fn a_rule_holds_in_its_hours_and_between_its_moments() {
    let p = policy(
        "[[rule]]\nid='office'\nmatch={action='*'}\nwhen={time={in='Mon-Fri 08:00-18:00',zone='Europe/Berlin'}}\nverdict='allow'\n\
         [[rule]]\nid='freeze'\nmatch={action='*'}\nwhen={time={from=2026-12-24T00:00:00+01:00,until=2026-12-27T00:00:00+01:00}}\n\
         verdict='block'\nreason='FREEZE'\n",
    );
    // Tuesday 2026-12-22, 10:00 in Berlin; 21:00; Thursday 24, 10:00; Sunday 27, 00:00.
    assert_eq!(said(&at(&p, "1797930000")), "allow ALLOWED office");
    assert_eq!(said(&at(&p, "1797969600")), "block DEFAULT-DENY -");
    assert_eq!(said(&at(&p, "1798102800")), "block FREEZE freeze");
    assert_eq!(said(&at(&p, "1798326000")), "block DEFAULT-DENY -");
    let outside = policy(&format!(
        "{ALLOW}[[rule]]\nid='night'\nmatch={{action='*'}}\nwhen={{time={{not_in='08:00-18:00',zone='UTC'}}}}\nverdict='block'\nreason='NIGHT'\n"
    ));
    assert_eq!(said(&at(&outside, "1797930000")), "allow ALLOWED all");
    assert_eq!(said(&at(&outside, "1797969600")), "block NIGHT night");
    for (wrong, says) in [
        ("time={in='Mon-Fri 08:00-18:00'}", "hours are those of a place"),
        ("time={in='Mon-Fri 08:00-18:00',zone='Berlin'}", "no zone of the IANA database"),
        ("time={in='weekdays',zone='UTC'}", "is not a window of the week"),
        ("time={}", "an empty `time` would hold at any time"),
        ("time={zone='UTC'}", "there are none"),
        ("time={from=2026-01-01}", "a moment with its offset"),
        ("time={from=2026-01-02T00:00:00Z,until=2026-01-02T00:00:00Z}", "would never hold"),
        ("time={in='Mon',not_in='Tue',zone='UTC'}", "not both"),
    ] {
        let errors =
            refused(&format!("[[rule]]\nid='r'\nmatch={{action='*'}}\nwhen={{{wrong}}}\nverdict='allow'\n"));
        assert!(errors.contains(says), "{wrong}\n{errors}");
    }
}

fn layered(org: &str, team: &str) -> Policy {
    let manifest = "schema=1\n[layer.org]\npacks=['org']\nceiling=true\n[layer.team]\npacks=['team']\n";
    Policy::compile(&sources(&[("govrun.toml", manifest), ("org/r.toml", org), ("team/r.toml", team)]))
        .unwrap()
}

fn rule(id: &str, action: &str, rest: &str) -> String {
    format!("[[rule]]\nid='{id}'\nmatch={{action='{action}'}}\n{rest}\n")
}

#[test]
fn a_ceiling_must_permit_and_grants_nothing() {
    let may = "verdict='allow'";
    let call = tool_call(&[]);
    let both = layered(&rule("cap", "tool.call", may), &rule("use", "tool.call", may));
    assert_eq!(said(&decide(&both, &call)), "allow ALLOWED cap");
    let above_only = layered(&rule("cap", "tool.call", may), &rule("use", "clock", may));
    assert_eq!(said(&decide(&above_only, &call)), "block DEFAULT-DENY -");
    let below_only = layered(&rule("cap", "clock", may), &rule("use", "tool.call", may));
    assert_eq!(said(&decide(&below_only, &call)), "block CEILING-NOT-PERMITTED builtin:ceiling");
    // A ceiling that permits only by what is unknown, or only in shadow, does not permit.
    let unknown = layered(
        &rule(
            "cap",
            "tool.call",
            "when={'args.gone'={eq=1}}\nverdict='escalate'\nreason='ASK'\nescalate={to='role:ops'}",
        ),
        &rule("use", "tool.call", may),
    );
    assert_eq!(said(&decide(&unknown, &call)), "block CEILING-NOT-PERMITTED builtin:ceiling");
    let shadow =
        layered(&rule("cap", "tool.call", "verdict='allow'\nmode='shadow'"), &rule("use", "tool.call", may));
    let d = decide(&shadow, &call);
    assert_eq!(
        (said(&d).as_str(), d.shadow.unwrap().verdict),
        ("block CEILING-NOT-PERMITTED builtin:ceiling", Verdict::Allow)
    );
}

#[test]
fn a_restriction_of_any_layer_counts() {
    let (may, no) = ("verdict='allow'", "verdict='block'\nreason='NO'");
    for (org, team) in [(no, may), (may, no)] {
        let p = layered(
            &format!("{}{}", rule("cap", "tool.call", may), rule("org", "tool.call", org)),
            &format!("{}{}", rule("use", "tool.call", may), rule("team", "tool.call", team)),
        );
        assert_eq!(decide(&p, &tool_call(&[])).reason.as_str(), "NO");
    }
    let compile = |manifest: &str| {
        let files = [("govrun.toml", manifest), ("a/r.toml", ALLOW), ("a/b/r.toml", "")];
        Policy::compile(&sources(&files)).unwrap_err().to_string()
    };
    assert!(compile("schema=1\npacks=['a']\n[layer.x]\npacks=['a/b']\n").contains("hold the same files"));
    assert!(
        compile("schema=1\n[layer.x]\npacks=['a']\n[layer.y]\npacks=['a']\n").contains("hold the same files")
    );
    assert!(
        compile("schema=1\npacks=['a']\n[layer.x]\nceiling=true\n").contains("a layer needs the key `packs`")
    );
}

fn session(name: &str) -> Call {
    Call { session: name.into(), ..tool_call(&[]) }
}

fn canary(share: &str, by: &str) -> Policy {
    policy(&format!(
        "{ALLOW}[[rule]]\nid='new'\nmatch={{action='tool.call'}}\nverdict='block'\nreason='NEW'\nrollout={{enforce='{share}',by='{by}'}}\n"
    ))
}

#[test]
fn a_rollout_is_enforced_for_its_share_and_predicted_for_the_others() {
    let (tenth, half) = (canary("10%", "session"), canary("50%", "session"));
    let mut enforced = 0;
    for n in 0..2_000 {
        let call = session(&format!("s{n}"));
        let d = decide(&tenth, &call);
        match d.verdict {
            Verdict::Block => {
                enforced += 1;
                assert_eq!(
                    (d.mode, d.cohort.as_deref(), d.shadow),
                    (Mode::Canary, Some("new=enforce"), None)
                );
                // A larger share keeps who was in the smaller one.
                assert_eq!(decide(&half, &call).verdict, Verdict::Block);
            }
            _ => {
                let shadow = d.shadow.unwrap();
                assert_eq!((d.mode, d.cohort.as_deref()), (Mode::Enforce, Some("new=shadow")));
                assert_eq!((shadow.verdict, shadow.reason.as_str()), (Verdict::Block, "NEW"));
            }
        }
    }
    assert!((140..260).contains(&enforced), "{enforced} of 2000 are not a tenth");
    for n in 0..20 {
        assert_eq!(decide(&canary("100%", "session"), &session(&format!("s{n}"))).verdict, Verdict::Block);
    }
    // All calls of an agent are in one cohort, whatever its session.
    let by_agent = canary("50%", "agent");
    let all: Vec<Verdict> = (0..50).map(|n| decide(&by_agent, &session(&format!("s{n}"))).verdict).collect();
    assert!(all.iter().all(|v| *v == all[0]));
    for wrong in ["0%", "101%", "10", "1.234%", "-1%", "%", "+1%"] {
        let text = format!("rollout={{enforce='{wrong}',by='session'}}");
        assert!(
            refused(&rule("r", "*", &format!("verdict='allow'\n{text}"))).contains("is not a share"),
            "{wrong}"
        );
    }
    let both = rule("r", "*", "verdict='allow'\nmode='shadow'\nrollout={enforce='1%',by='call'}");
    assert!(refused(&both).contains("not both"));
}

#[test]
fn a_locked_policy_loads_only_as_it_was_locked() {
    let manifest = "schema=1\npacks=['p']\nrequire_lock=true\n";
    let files = [
        ("govrun.toml", manifest),
        (
            "p/r.toml",
            "[list.l]\nfile='l.txt'\n[[rule]]\nid='r'\nmatch={action='tool.call'}\nwhen={'args.to'={in_list='l'}}\nverdict='allow'\n",
        ),
        ("p/l.txt", "ACME\n"),
    ];
    let compile = |files: &[(&str, &str)]| Policy::compile(&sources(files));
    assert!(compile(&files).unwrap_err().to_string().contains("requires a lock, and there is none"));
    let lock = sources(&files).lock();
    let [a, b, c] = files;
    assert!(compile(&[a, b, c, (LOCK, &lock)]).is_ok());
    let swapped = compile(&[a, b, ("p/l.txt", "ACME\nEVIL\n"), (LOCK, &lock)]).unwrap_err().to_string();
    assert!(swapped.contains("p/l.txt") && swapped.contains("its digest differs"), "{swapped}");
    let added = compile(&[a, b, c, ("p/more.toml", ""), (LOCK, &lock)]).unwrap_err().to_string();
    assert!(added.contains("p/more.toml") && added.contains("is not in `policy.lock`"), "{added}");
    let gone = sources(&[a, b, c, ("p/more.toml", "")]).lock();
    assert!(
        compile(&[a, b, c, (LOCK, &gone)])
            .unwrap_err()
            .to_string()
            .contains("which is not part of the policy")
    );
    // A lock that is there is held to, also where it is not required, and it is read in one form only.
    let loose = ("govrun.toml", "schema=1\npacks=['p']\n");
    assert!(compile(&[loose, b, c, (LOCK, &lock)]).is_err());
    for forged in [
        lock.to_uppercase(),
        lock.trim_end().to_owned(),
        format!("{lock}\n"),
        lock.replace("b3:", ""),
        String::new(),
    ] {
        assert!(compile(&[a, b, c, (LOCK, &forged)]).is_err(), "{forged}");
    }
    // From a folder, and from the archive of what was loaded.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("p")).unwrap();
    for (path, text) in [a, b, c, (LOCK, &lock)] {
        fs::write(dir.path().join(path), text).unwrap();
    }
    let loaded = Policy::load(dir.path()).unwrap();
    assert_eq!(Policy::from_bundle(loaded.bundle()).unwrap().epoch(), loaded.epoch());
    assert_eq!(Sources::read(dir.path()).unwrap().lock(), lock);
    fs::write(dir.path().join("p/l.txt"), "EVIL\n").unwrap();
    assert!(Policy::load(dir.path()).is_err());
}

#[test]
fn with_require_shadow_a_rule_is_enforced_only_as_it_was_promoted() {
    let manifest = "schema=1\npacks=['p']\nrequire_shadow=true\n";
    let rule =
        |rest: &str| format!("[[rule]]\nid='r'\nmatch={{action='tool.call'}}\nverdict='allow'\n{rest}");
    let compile = |rules: &str, promotions: &str| {
        let files = [("govrun.toml", manifest), ("p/r.toml", rules), (PROMOTIONS, promotions)];
        Policy::compile(&sources(&files))
    };
    let shadow = compile(&rule("mode='shadow'\n"), "").unwrap();
    let digest = shadow.rules().next().unwrap().digest;
    assert!(compile(&rule(""), "").unwrap_err().to_string().contains("was never promoted"));
    let promoted = format!("[[promotion]]\nrule='r'\ndigest='{digest}'\nevidence='replay of 2026-03'\n");
    // The stage is no part of the digest.
    for stage in ["", "mode='enforce'\n", "rollout={enforce='10%',by='session'}\n"] {
        let p = compile(&rule(stage), &promoted).unwrap();
        let info = p.rules().next().unwrap();
        assert_eq!(
            (info.digest, &info.promotion),
            (digest, &Some(Promotion::Evidence("replay of 2026-03".into())))
        );
    }
    // Everything else is, also what is only moved around in the file is not.
    let moved = "[[rule]]\nverdict='allow'\n\n# why\nmatch.action='tool.call'\nid='r'\n";
    assert!(compile(moved, &promoted).is_ok());
    for changed in ["limits={fuel=1}\n", "when={'args.a'={eq=1}}\n", "reason='OTHER'\n"] {
        assert!(
            compile(&rule(changed), &promoted).unwrap_err().to_string().contains("was changed after"),
            "{changed}"
        );
    }
    let glass = format!("[[promotion]]\nrule='r'\ndigest='{digest}'\nbreak_glass='jane: outage 17'\n");
    let info = compile(&rule(""), &glass).unwrap().rules().next().unwrap().clone();
    assert_eq!(info.promotion, Some(Promotion::BreakGlass("jane: outage 17".into())));
    for wrong in [
        format!("[[promotion]]\nrule='r'\ndigest='{digest}'\n"),
        format!("[[promotion]]\nrule='r'\ndigest='{digest}'\nevidence=''\n"),
        format!("{promoted}{promoted}"),
        format!("{promoted}[[rule]]\nid='x'\nmatch={{action='*'}}\nverdict='allow'\n"),
        "[[promotion]]\nrule='r'\ndigest='b3:1'\nevidence='x'\n".to_owned(),
    ] {
        assert!(compile(&rule(""), &wrong).is_err(), "{wrong}");
    }
}

#[test]
fn budgets_are_rolling_rates_or_periods_and_say_what_is_counted() {
    let one = |budget: &str| {
        policy(&format!(
            "[budget.b]\n{budget}\n[[rule]]\nid='r'\nmatch={{action='tool.call'}}\nverdict='allow'\nlimit='b'\n"
        ))
    };
    let used = |p: &Policy, call: &Call| decide(p, call).budgets.remove(0);
    let rate = one("limit=10\nper='1s'\nkind='gcra'\nburst=5\nkey='agent'\non_exceed={wait='2s'}");
    let budget = used(&rate, &tool_call(&[])).budget;
    assert_eq!(budget.kind, BudgetKind::Rate { burst: 5.try_into().unwrap() });
    assert_eq!(
        (budget.limit.get(), budget.window_ms.get(), budget.wait_ms),
        (10, 1_000, 2_000.try_into().ok())
    );
    let monthly =
        one("limit=3\nper='month'\nkind='calendar'\nzone='Europe/Berlin'\nkey=['tenant','args.account']");
    let budget = used(&monthly, &tool_call(&[])).budget;
    assert_eq!(budget.kind, BudgetKind::Calendar { period: Period::Month, zone: "Europe/Berlin".into() });
    // What is told apart is told apart, and no record shows a guest's data.
    let mut keys = std::collections::BTreeSet::new();
    for account in [
        text("a"),
        text("1"),
        number(1),
        text("*"),
        text("?"),
        text(&"x".repeat(300)),
        text(&"x".repeat(301)),
    ] {
        let used = used(&monthly, &tool_call(&[("account", account)]));
        assert_eq!(used.shown.as_deref(), Some("4:acme1:*"));
        assert!(used.key.len() < 200);
        assert!(keys.insert(used.key));
    }
    // One number has one key, however it is written; all that is unknown is counted together.
    let key = |value: Value| used(&monthly, &tool_call(&[("account", value)])).key;
    assert_eq!(key(Value::number("1.0")), key(Value::number("1")));
    assert_eq!(key(Value::Null), key(Value::Opaque("NaN".into())));
    assert_eq!(used(&monthly, &tool_call(&[])).key, key(Value::List(vec![])));
    for (wrong, says) in [
        ("limit=1\nper='1s'\nkind='gcra'\nkey='agent'", "needs the key `burst`"),
        ("limit=1\nper='366d'\nkind='gcra'\nburst=2\nkey='agent'", "more than 366 days"),
        ("limit=1\nper='1s'\nburst=2\nkey='agent'", "`burst` goes with `kind = \"gcra\"` only"),
        ("limit=1\nper='1d'\nkind='calendar'\nzone='UTC'\nkey='agent'", "`1d` is none of `day`"),
        ("limit=1\nper='day'\nkind='calendar'\nkey='agent'", "needs the key `zone`"),
        ("limit=1\nper='day'\nkind='calendar'\nzone='Mars'\nkey='agent'", "no zone of the IANA database"),
        ("limit=1\nper='1s'\nkey='agent'\non_exceed={wait='6m'}", "at most five minutes"),
        ("limit=1\nper='1s'\nkey='agent'\non_exceed='wait'", "`wait` is none of `fail`"),
        ("limit=1\nper='1s'\nkey='args'", "`args` is none of"),
        ("limit=1\nper='1s'\nkind='fixed'\nkey='agent'", "`fixed` is none of `rolling`"),
    ] {
        let errors = refused(&format!("[budget.b]\n{wrong}\n{ALLOW}"));
        assert!(errors.contains(says), "{wrong}\n{errors}");
    }
    let misused = "[budget.b]\nlimit=1\nper='1s'\nkey='args.x'\n[[rule]]\nid='r'\nmatch={action='clock'}\nverdict='allow'\nlimit='b'\n";
    assert!(refused(misused).contains("counts by an argument"));
}
