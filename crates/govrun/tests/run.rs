//! Plain WASI commands under policy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{component, govrun, of_type, records, text};
use tempfile::TempDir;

struct World {
    state: TempDir,
    policy: PathBuf,
    data: PathBuf,
}

impl World {
    fn new(rules: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let policy = state.path().join("policy");
        let data = state.path().join("data");
        std::fs::create_dir_all(&policy).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("hello.txt"), "hello\n").unwrap();
        std::fs::write(data.join("secret.txt"), "secret\n").unwrap();
        let manifest = format!(
            "schema = 1\n[env.test]\ndefault = {{ verdict = \"block\", reason = \"DEFAULT-DENY\" }}\n\
             [[agent]]\nname = \"operator\"\n\
             [[rule]]\nid = \"run\"\nmatch = {{ action = \"tool.call\", tool = \"*.run\" }}\nverdict = \"allow\"\n{rules}"
        );
        std::fs::write(policy.join("govrun.toml"), manifest).unwrap();
        Self { state, policy, data }
    }

    fn run(&self, args: &[&str]) -> Output {
        let dir = format!("{}::/data", self.data.display());
        let policy = self.policy.display().to_string();
        let probe = component("probe.wasm");
        let mut all =
            vec!["run", "--policy", &policy, "--dir", &dir, "--env", "GUEST_K=V", "--env", "HIDDEN=no"];
        all.push(&probe);
        all.push("--");
        all.extend(args);
        govrun(self.path(), &all)
    }

    fn path(&self) -> &Path {
        self.state.path()
    }
}

const USUAL: &str = r#"
[[rule]]
id = "output"
match = { action = ["stdio.write", "args.read", "clock", "random"] }
verdict = "allow"

[[rule]]
id = "env"
match = { action = "env.read", name = "GUEST_*" }
verdict = "allow"

[[rule]]
id = "files"
match = { action = "fs.*", path = "/data/**" }
verdict = "allow"

[[rule]]
id = "no-secrets"
match = { action = "fs.*", path = "/data/secret.txt" }
verdict = "block"
reason = "NO-SECRETS"
"#;

#[test]
fn a_command_reads_what_policy_grants_and_its_exit_code_is_passed_through() {
    let world = World::new(USUAL);
    let out = world.run(&["read", "/data/hello.txt"]);
    assert_eq!((out.status.code(), text(&out.stdout).trim()), (Some(0), "hello"), "{}", text(&out.stderr));
    let out = world.run(&["read", "/data/secret.txt"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert!(records(world.path()).iter().any(|r| r["reason"] == "NO-SECRETS"));
}

#[test]
fn only_granted_variables_are_seen() {
    let world = World::new(USUAL);
    let out = world.run(&["env"]);
    let seen = text(&out.stdout);
    assert!(seen.contains("GUEST_K") && !seen.contains("HIDDEN") && !seen.contains("PATH"), "{seen}");
}

#[test]
fn without_a_rule_for_it_nothing_is_printed_or_offered() {
    let world = World::new("");
    let out = world.run(&["read", "/data/hello.txt"]);
    assert_eq!(text(&out.stdout), "");
    assert!(of_type(&records(world.path()), "decision") > 1);
}

#[test]
fn an_endless_loop_ends_at_its_fuel_and_at_its_deadline() {
    for (limit, reason) in [("fuel = 10_000_000", "LIMIT-FUEL"), ("deadline = \"200ms\"", "LIMIT-DEADLINE")] {
        let rule = format!(
            "{USUAL}\n[[rule]]\nid = \"bounded\"\nmatch = {{ action = \"tool.call\", tool = \"*.run\" }}\n\
             verdict = \"allow\"\nlimits = {{ {limit} }}\n"
        );
        let world = World::new(&rule);
        let out = world.run(&["spin"]);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        assert!(text(&out.stderr).contains(reason), "{}", text(&out.stderr));
    }
}

#[test]
fn a_component_that_is_no_command_says_what_it_exports() {
    let world = World::new(USUAL);
    let policy = world.policy.display().to_string();
    let out = govrun(world.path(), &["run", "--policy", &policy, &component("search.wasm")]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("search"), "{}", text(&out.stderr));
}
