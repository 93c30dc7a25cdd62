//! What does not load, and how it is reported: every mistake, where it stands, with what was probably meant.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use govrun_policy::{MAX_RULES, Policy, Sources};

/// A rule that is in order but for what is added to it.
const RULE: &str = "[[rule]]\nid='r'\nmatch={action='tool.call'}\nverdict='allow'\n";
const BLOCK: &str = "[[rule]]\nid='r'\nmatch={action='tool.call'}\nverdict='block'\nreason='NO'\n";

#[test]
fn an_error_is_shown_with_its_line_a_caret_and_what_was_meant() {
    let errors = refused(
        "\n[[rule]]\nid = 'r'\nmatch = { action = 'tool.call' }\n\tverdct = 'allow'\nverdict = 'allow'\n",
    );
    let expected = "\
error: unknown key `verdct` in a rule
 --> govrun.toml:6:2
  |
6 |  verdct = 'allow'
  |  ^^^^^^ did you mean `verdict`?

1 error in the policy; nothing was loaded";
    assert_eq!(errors, expected);
}

#[test]
fn all_errors_of_all_files_are_reported_in_order() {
    let files = [
        ("govrun.toml", "schema = 1\npacks = ['p', 'gone']\nenvironment = 'pord'\n[env.prod]\n[env.test]\n"),
        ("p/a.toml", "[[rule]]\nid = 'A'\nmatch = { action = 'fs.raed' }\nverdict = 'alow'\nlimit = 'b'\n"),
        ("p/b.toml", "[budget.bb]\nlimit = 0\nper = '1x'\nkey = []\nkind = 'fixed'\n"),
        ("p/c.toml", "x = = 1\n"),
    ];
    let errors = Policy::compile(&sources(&files)).unwrap_err();
    let all: Vec<String> = errors
        .errors()
        .iter()
        .map(|e| format!("{}:{:?} {}", e.file(), e.position().unwrap_or_default(), e.message()))
        .collect();
    let all = all.join("\n");
    for expected in [
        "govrun.toml:(2, 15) there is no TOML file in the folder `gone`",
        "govrun.toml:(3, 15) there is no environment `pord`",
        "p/a.toml:(2, 6) `A` is not a valid rule id",
        "p/a.toml:(3, 20) `fs.raed` selects no action",
        "p/a.toml:(4, 11) `alow` is none of",
        "p/b.toml:(2, 9) a number from 1 to 1000000",
        "p/b.toml:(3, 7) `1x` is not a duration",
        "p/b.toml:(4, 7) an empty list is refused",
        "p/b.toml:(5, 8) `fixed` is none of `rolling`, `gcra`, `calendar`",
        "p/c.toml:(1, 5)",
    ] {
        assert!(all.contains(expected), "{expected}\n---\n{all}");
    }
    assert!(errors.to_string().contains("did you mean `prod`?"), "{errors}");
    assert!(errors.to_string().contains("did you mean `fs.read`?"), "{errors}");
}

/// Each policy is refused, and the report says this.
#[test]
fn every_mistake_has_its_own_message() {
    let cases: &[(&str, &str)] = &[
        ("[[rule]]\nmatch={action='clock'}\nverdict='allow'\n", "a rule needs the key `id`"),
        ("[[rule]]\nid='r'\nverdict='allow'\n", "a rule needs the key `match`"),
        ("[[rule]]\nid='r'\nmatch={action='clock'}\n", "a rule needs the key `verdict`"),
        ("[[rule]]\nid='r'\nmatch={agent='a'}\nverdict='allow'\n", "`match` needs the key `action`"),
        ("[[rule]]\nid='r'\nmatch={action='clock'}\nverdict='block'\n", "needs a `reason`"),
        ("[[rule]]\nid='r'\nmatch={action='clock'}\nverdict='sandbox'\n", "a rule needs the key `sandbox`"),
        (
            "[[rule]]\nid='r'\nmatch={action='clock'}\nverdict='escalate'\nreason='NO'\n",
            "a rule needs the key `escalate`",
        ),
        ("[[rule]]\nid='r'\nmatch={action='clock'}\nverdict='throttle'\nreason='NO'\n", "needs a `limit`"),
        (
            "[[rule]]\nid='r'\nmatch={action='clock',path='/x'}\nverdict='allow'\n",
            "`path` is not an attribute of `clock`",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='*',host='x'}\nverdict='allow'\n",
            "`host` is not an attribute of `tool.call`",
        ),
        ("[[rule]]\nid='r'\nmatch={action='clock',agent=[]}\nverdict='allow'\n", "an empty list is refused"),
        ("[[rule]]\nid='r'\nmatch={action=[]}\nverdict='allow'\n", "an empty list is refused"),
        (
            "[[rule]]\nid='r'\nmatch={action='clock',agent=''}\nverdict='allow'\n",
            "an empty text matches nothing",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='clock',tenant='a*'}\nverdict='allow'\n",
            "`a*` is not a tenant's name",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='clock',digest='b3:1'}\nverdict='allow'\n",
            "is not a valid digest",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='net.connect',cidr='10.0.0.1/8'}\nverdict='allow'\n",
            "the range is `10.0.0.0/8`",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='net.connect',port=0}\nverdict='allow'\n",
            "a number from 1 to 65535",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='net.connect',port='443'}\nverdict='allow'\n",
            "a whole number is needed",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='http.request',method='G*'}\nverdict='allow'\n",
            "a method is a word",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='http.request',scheme='ftp'}\nverdict='allow'\n",
            "`ftp` is none of",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='clock'}\nwhen={'args.x'={eq=1}}\nverdict='allow'\n",
            "`args.x` is not an attribute of `clock`",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='tool.call'}\nverdict='allow'\nescalate={to='role:x'}\n",
            "`escalate` goes with",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='tool.call'}\nverdict='allow'\nmode='enforced'\n",
            "did you mean `enforce`?",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='tool.call'}\nverdict='allow'\nmessage='{who}'\n",
            "unknown placeholder `{who}`",
        ),
        (
            "[[rule]]\nid='r'\nmatch={action='tool.call'}\nverdict='allow'\nmessage='{path}'\n",
            "has no `{path}`",
        ),
        ("[rule]\nid='r'\n", "an array is needed here"),
        ("[audit]\nclear=['args']\n", "is no field of a record"),
        ("[env.prod]\non_error='open'\n", "`on_error` can only be `closed`"),
        (
            "[env.prod]\non_store_loss='deny'\n",
            "a store that machines share, which this version does not have",
        ),
        ("[env.prod]\naudit_unavailable='continue'\n", "`audit_unavailable` can only be `closed`"),
        ("[env.a]\n[env.b]\n", "there are several environments"),
        ("env='prod'\n", "choose one with `environment = \"prod\"`"),
        ("[list.l]\nvalues=[]\n", "an empty list is refused"),
        ("[list.l]\n", "either `file` or `values`"),
        ("[list.l]\nfile='../x'\n", "without `..`"),
        ("[list.l]\nfile='gone.txt'\n", "there is no file `gone.txt`"),
        ("[notify.n]\nwebhook='http://10.0.0.1:80/x'\n", "a webhook is"),
        ("[notify.n]\nwebhook='http://127.0.0.1.evil.com:80/x'\n", "a webhook is"),
        ("[notify.n]\nwebhook='https://user@example.com'\n", "a webhook is"),
        ("[budget.b]\nlimit=1000001\nper='1h'\nkey='agent'\n", "a number from 1 to 1000000"),
        ("[budget.b]\nlimit=1\nper='0s'\nkey='agent'\n", "zero is not a limit"),
        ("[budget.b]\nlimit=1\nper='1s'\nkey='user'\n", "`user` is none of"),
        ("[budget.b]\nlimit=1\nper='1s'\nkey=['agent','agent']\n", "listed twice"),
        (
            "[budget.b]\nlimit=1\nper='1s'\nkey='agent'\nscope='cluster'\n",
            "needs a store that machines share",
        ),
        ("[budget.b]\nlimit=1\nper='1s'\nkey='agent'\nscope='global'\n", "`global` is none of `local`"),
        ("[sandbox.s]\nfuel=0\n", "a number from 1"),
        ("[sandbox.s]\nmemory='0B'\n", "zero is not a limit"),
        ("[sandbox.s]\negress='some'\n", "`some` is none of"),
        ("[sandbox.s]\nfs={preopens=[{host='x',guest='/x',mode='ro'}]}\n", "absolute host paths"),
        ("[[agent]]\nname='a*'\n", "is not an agent's name"),
        ("[[agent]]\nname='a'\n[[agent]]\nname='a'\n", "agent `a` is already defined at govrun.toml:2"),
        (
            "[[tool]]\nname='a.b'\ndigest='b3:0000000000000000000000000000000000000000000000000000000000000000'\n",
            "without a dot",
        ),
        ("[[tool]]\nname='a'\n", "a tool needs the key `digest`"),
        ("[lable.x]\n", "unknown key `lable`"),
    ];
    for (text, expected) in cases {
        let errors =
            refused(&if text.contains("[[rule]]") { (*text).to_owned() } else { format!("{text}{BLOCK}") });
        assert!(errors.contains(expected), "{text}\nmust say `{expected}`, and says:\n{errors}");
    }
}

#[test]
fn every_wrong_condition_is_refused() {
    let cases: &[(&str, &str)] = &[
        ("", "an empty condition"),
        ("'args.x'={}", "an empty condition"),
        ("'args.x'=5", "a table of operators"),
        ("args.x={eq=1}", "quote the whole name"),
        ("'args.x'={eqq=1}", "did you mean `eq`?"),
        ("amount={eq=1}", "unknown attribute `amount`"),
        ("'args.x'={gt='5'}", "a number is needed"),
        ("'args.x'={gt=inf}", "no exact decimal"),
        ("'args.x'={eq=nan}", "no exact decimal"),
        ("'args.x'={eq=1e-40}", "no exact decimal"),
        ("'args.x'={eq=0.12345678901234567890123456789012345}", "no exact decimal"),
        ("'args.x'={in=[]}", "an empty list is refused"),
        ("'args.x'={in=[1,'a']}", "different types"),
        ("'args.x'={in='a'}", "an array is needed"),
        ("'args.x'={in_list='gone'}", "there is no list `gone`"),
        ("'args.x'={between=[2,1]}", "the smaller first"),
        ("'args.x'={prefix=''}", "part of every text"),
        ("'args.x'={regex='('}", "not a regular expression"),
        ("'args.x'={regex='a)|(?:b'}", "not a regular expression"),
        ("'args.x'={regex='(a{1000}){1000}'}", "not a regular expression"),
        ("'args.x'={len=-1}", "a number from 0"),
        ("'args.x'={len={}}", "`len` takes"),
        ("'args.x'={cidr='x'}", "is not an address range"),
        ("'args.x'={has=1}", "true or false is needed"),
        ("'args.x'={eq=1979-05-27}", "a string, a number, true or false"),
        ("agent={gt=5}", "`agent` is text"),
        ("agent={eq=5}", "`agent` is text"),
    ];
    for (condition, expected) in cases {
        for key in ["when", "unless"] {
            let errors = refused(&format!("{RULE}{key}={{{condition}}}\n"));
            assert!(errors.contains(expected), "{condition}\nmust say `{expected}`, and says:\n{errors}");
        }
    }
}

#[test]
fn numbers_are_taken_exactly_from_their_text() {
    let p = policy(&format!(
        "{RULE}when={{'args.x'={{eq=0.1}},'args.y'={{gt=9007199254740992.5}},'args.z'={{eq=0xff}}}}\n"
    ));
    let x = govrun_verdict::Value::number("0.1");
    let call =
        |y: &str| tool_call(&[("x", x.clone()), ("y", govrun_verdict::Value::number(y)), ("z", number(255))]);
    assert_eq!(decide(&p, &call("9007199254740992.6")).verdict.name(), "allow");
    assert_eq!(decide(&p, &call("9007199254740992.5")).verdict.name(), "block");
}

#[test]
fn another_schema_says_so_and_nothing_else() {
    let errors = Policy::compile(&sources(&[("govrun.toml", "schema = 2\nnew_key = 1\n")])).unwrap_err();
    assert_eq!(errors.errors().len(), 1);
    assert!(
        errors.to_string().contains("schema version 2 is not known: this govrun reads version 1"),
        "{errors}"
    );
    assert!(
        Policy::compile(&sources(&[("govrun.toml", RULE)]))
            .unwrap_err()
            .to_string()
            .contains("needs the key `schema`")
    );
}

#[test]
fn no_manifest_or_no_rules_is_no_policy() {
    assert!(Policy::compile(&Sources::default()).unwrap_err().to_string().contains("there is no manifest"));
    assert!(refused("").contains("the policy has no rules"));
    assert!(refused("rule = []\n").contains("an empty list is refused"));
}

#[test]
fn files_rules_and_lists_are_bounded() {
    let long = format!("schema=1\n# {}\n{RULE}", "x".repeat(1 << 20));
    assert!(
        Policy::compile(&sources(&[("govrun.toml", &long)])).unwrap_err().to_string().contains("longer than")
    );
    let rule = |at: usize| format!("[[rule]]\nid='r{at}'\nmatch={{action='clock'}}\nverdict='allow'\n");
    let file = |from: usize| (from..from + 10_000).map(rule).collect::<String>();
    let mut files: Vec<(String, String)> = vec![("govrun.toml".into(), "schema=1\npacks=['p']\n".into())];
    files.extend((0..10).map(|n| (format!("p/{n}.toml"), file(n * 10_000))));
    let compile = |files: &[(String, String)]| {
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        Policy::compile(&sources(&files))
    };
    assert_eq!(compile(&files).unwrap().rules().len(), MAX_RULES);
    files.push(("p/more.toml".into(), rule(MAX_RULES)));
    assert!(compile(&files).unwrap_err().to_string().contains("at most 100000 rules"));
}

#[test]
fn sources_that_nothing_asks_for_are_refused() {
    let files = [("govrun.toml", &*format!("schema=1\n{RULE}")), ("other/x.toml", RULE)];
    let errors = Policy::compile(&sources(&files)).unwrap_err().to_string();
    assert!(errors.contains("no listed pack holds this file"), "{errors}");
    for path in ["../x.toml", "/x.toml", "a//x.toml", ".x.toml", "a\\x.toml"] {
        let files = [("govrun.toml", &*format!("schema=1\n{RULE}")), (path, "")];
        assert!(Policy::compile(&sources(&files)).is_err(), "{path}");
    }
}

#[test]
fn a_duplicate_rule_names_the_first() {
    let files = [("govrun.toml", &*format!("schema=1\npacks=['p']\n{RULE}")), ("p/a.toml", RULE)];
    let errors = Policy::compile(&sources(&files)).unwrap_err().to_string();
    assert!(errors.contains("the rule `r` is already defined at govrun.toml:3"), "{errors}");
}

#[test]
fn terminal_escapes_in_a_policy_do_not_reach_the_terminal() {
    let errors = refused(&format!("{RULE}\"\\u001b[2J\" = 1 # \u{202e}\n"));
    assert!(!errors.contains('\u{1b}') && !errors.contains('\u{202e}'), "{errors:?}");
}

fn write(dir: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn a_folder_is_read_with_its_packs_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "govrun.toml", "schema=1\npacks=['fin']\n");
    write(dir.path(), "fin/b.toml", RULE);
    write(dir.path(), "fin/deep/a.toml", "[list.l]\nfile='lists/l.txt'\n");
    write(dir.path(), "fin/deep/lists/l.txt", "x\n");
    write(dir.path(), "fin/README.md", "no policy");
    write(dir.path(), "fin/.#b.toml", "an editor's leftover");
    write(dir.path(), "other/x.toml", "not listed");
    let sources = Sources::read(dir.path()).unwrap();
    let paths: Vec<&str> = sources.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["govrun.toml", "fin/b.toml", "fin/deep/a.toml", "fin/deep/lists/l.txt"]);
    let policy = Policy::load(dir.path()).unwrap();
    assert_eq!(policy.epoch(), Policy::compile(&sources).unwrap().epoch());
}

#[test]
fn what_cannot_be_read_is_an_error_beside_the_others() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Policy::load(dir.path()).unwrap_err().to_string().contains("there is no manifest"));
    write(dir.path(), "govrun.toml", "schema=1\npacks=['p','gone']\n");
    write(dir.path(), "p/latin.toml", b"# \xe9\n");
    write(dir.path(), "p/long.toml", "#".repeat((1 << 20) + 1));
    write(dir.path(), "p/wrong.toml", "x=1\n");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("p/dangling.toml")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("p"), dir.path().join("p/loop")).unwrap();
    let errors = Policy::load(dir.path()).unwrap_err().to_string();
    for expected in [
        "is not UTF-8",
        "is longer than",
        "unknown key `x`",
        "cannot be opened",
        "nest at most",
        "there is no TOML file in the folder `gone`",
    ] {
        assert!(errors.contains(expected), "{expected}\n---\n{errors}");
    }
    assert!(Sources::read(dir.path()).is_err());
}

#[test]
fn the_documented_examples_load() {
    let reference = include_str!("../../../docs/formats/policy.md");
    let blocks: Vec<&str> =
        reference.split("```toml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let manifest = blocks.iter().position(|block| block.starts_with("# govrun.toml")).unwrap();
    let files = [("govrun.toml", blocks[manifest]), ("finance/rules.toml", blocks[manifest + 1])];
    let policy = Policy::compile(&sources(&files)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(policy.rules().len(), 5);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Whatever is done to a policy's text, loading it ends in a policy or in a report.
    #[test]
    fn no_text_breaks_the_loader(
        edits in proptest::collection::vec((proptest::prelude::any::<u16>(), 0usize..12, "[\\[\\]{}='\",.#\n é0-9a-z_*-]{0,4}"), 1..4),
    ) {
        let reference = include_str!("../../../docs/formats/policy.md");
        let rules = reference.split("# govrun.toml").nth(1).unwrap().split("```toml\n").nth(1).unwrap();
        let mut text: Vec<char> = rules.split("```").next().unwrap().chars().collect();
        for (at, remove, insert) in edits {
            let at = usize::from(at) % text.len();
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        match try_policy(&text) {
            Ok(policy) => {
                let _ = decide(&policy, &tool_call(&[]));
            }
            Err(errors) => {
                for error in errors.errors() {
                    if let Some((line, column)) = error.position() {
                        let shown = format!("schema = 1\n{text}");
                        let line = shown.split('\n').nth(line - 1).unwrap();
                        proptest::prop_assert!(column <= line.chars().count() + 1, "{error}");
                    }
                }
                proptest::prop_assert!(errors.to_string().ends_with("nothing was loaded"));
            }
        }
    }
}
