//! Preview-1 core modules, as older toolchains make them, run inside the standard adapter under the same policy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::process::Output;

use common::{govrun, records, text};
use tempfile::TempDir;

const POLICY: &str = r#"
schema = 1
[env.test]
default = { verdict = "block", reason = "DEFAULT-DENY" }
[[agent]]
name = "operator"
[[rule]]
id = "run"
match = { action = ["tool.call", "stdio.write", "args.read"] }
verdict = "allow"
"#;

/// What all modules here share: a line to print, and `fd_write` of it.
const PRINT: &str = r#"
(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
(import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "environ_sizes_get" (func $env (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "path_open"
  (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
(memory (export "memory") 1)
(data (i32.const 0) "\10\00\00\00\06\00\00\00")
(data (i32.const 16) "hello\n")
(data (i32.const 32) "secret.txt")
(func $print (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64))))
"#;

struct World {
    state: TempDir,
    policy: PathBuf,
}

fn world() -> World {
    let state = tempfile::tempdir().unwrap();
    let policy = state.path().join("policy");
    std::fs::create_dir(&policy).unwrap();
    std::fs::write(policy.join("govrun.toml"), POLICY).unwrap();
    World { state, policy }
}

impl World {
    fn module(&self, body: &str) -> PathBuf {
        let path = self.state.path().join("old.wasm");
        std::fs::write(&path, wat::parse_str(format!("(module {PRINT} {body})")).unwrap()).unwrap();
        path
    }

    fn run(&self, body: &str, more: &[&str], args: &[&str]) -> Output {
        let (module, policy) = (self.module(body).display().to_string(), self.policy.display().to_string());
        let mut all = vec!["run", "--policy", &policy];
        all.extend(more);
        all.extend([&*module, "--"]);
        all.extend(args);
        govrun(self.state.path(), &all)
    }
}

#[test]
fn a_preview1_command_runs_under_policy() {
    let world = world();
    let out = world.run("(func (export \"_start\") (call $print))", &[], &[]);
    assert_eq!(text(&out.stdout), "hello\n", "{}", text(&out.stderr));
    assert_eq!(out.status.code(), Some(0));
    let decided: Vec<String> =
        records(world.state.path()).iter().filter_map(|r| r["action"].as_str().map(str::to_owned)).collect();
    assert!(decided.contains(&"stdio.write".to_owned()), "{decided:?}");
}

#[test]
fn every_code_but_zero_arrives_as_one() {
    let world = world();
    for (code, seen) in [(0, 0), (1, 1), (42, 1)] {
        let body = format!("(func (export \"_start\") (call $print) (call $exit (i32.const {code})))");
        let out = world.run(&body, &[], &[]);
        assert_eq!(out.status.code(), Some(seen), "{code}: {}", text(&out.stderr));
        assert_eq!(text(&out.stdout), "hello\n", "what was printed before the exit is there");
    }
}

#[test]
fn arguments_are_passed_variables_and_files_are_not_where_policy_refuses_them() {
    let world = world();
    // Traps unless there are three arguments (the name and two more) and no variable.
    let counts = r#"(func (export "_start")
      (drop (call $args (i32.const 128) (i32.const 132)))
      (if (i32.ne (i32.load (i32.const 128)) (i32.const 3)) (then (unreachable)))
      (drop (call $env (i32.const 128) (i32.const 132)))
      (if (i32.ne (i32.load (i32.const 128)) (i32.const 0)) (then (unreachable)))
      (call $print))"#;
    let out = world.run(counts, &["--env", "SECRET=x"], &["a", "b"]);
    assert_eq!(text(&out.stdout), "hello\n", "{}", text(&out.stderr));
    // Traps when the file opens, or when standard input gives a byte.
    let reads = r#"(func (export "_start")
      (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 32) (i32.const 10) (i32.const 0)
            (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 128))) (then (unreachable)))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 128)))
      (if (i32.ne (i32.load (i32.const 128)) (i32.const 0)) (then (unreachable)))
      (call $print))"#;
    std::fs::write(world.state.path().join("secret.txt"), "secret").unwrap();
    let dir = format!("{}::/data", world.state.path().display());
    let out = world.run(reads, &["--dir", &dir], &[]);
    assert_eq!(text(&out.stdout), "hello\n", "{}", text(&out.stderr));
    let refused =
        records(world.state.path()).into_iter().any(|r| r["action"] == "fs.read" && r["verdict"] == "block");
    assert!(refused, "the attempt to open the file is in the log");
}

#[test]
fn a_module_that_is_no_command_does_not_load() {
    let world = world();
    let out = world.run("(func (export \"other\"))", &[], &[]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("no WASI preview-1 command"), "{}", text(&out.stderr));
}
