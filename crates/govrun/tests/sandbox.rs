//! The sandbox's layer through the real binary and `std::fs`: a sandboxed program behaves as if its changes were real,
//! nothing real changes, and the outcome lists what would have.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{component, govrun, records, text};
use serde_json::Value;

const ALLOW: &str = r#"
[[rule]]
id = "run"
match = { action = "tool.call" }
verdict = "allow"
"#;
const SANDBOX: &str = r#"
[sandbox.s]
fs = { scratch = "1KiB" }
[[rule]]
id = "run"
match = { action = "tool.call" }
verdict = "sandbox"
sandbox = "s"
"#;
const FILES: &str = r#"
[[rule]]
id = "all"
match = { action = ["fs.*", "stdio.write", "args.read", "env.read", "clock", "random"] }
verdict = "allow"
"#;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(rules: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let manifest = format!(
            "schema = 1\n[env.test]\ndefault = {{ verdict = \"block\" }}\n[audit]\nclear = [\"path\"]\n\
             [[agent]]\nname = \"operator\"\n{FILES}{rules}"
        );
        fs::create_dir_all(world.at("policy")).unwrap();
        fs::write(world.at("policy/govrun.toml"), manifest).unwrap();
        for dir in ["data/tree/deep", "data/empty", "other"] {
            fs::create_dir_all(world.at(dir)).unwrap();
        }
        for (file, contents) in [
            ("data/a.txt", "alpha"),
            ("data/b.txt", "beta"),
            ("data/tree/c.txt", "gamma"),
            ("data/tree/deep/d.txt", "delta"),
            ("data/big.bin", &"x".repeat(5_000)),
        ] {
            fs::write(world.at(file), contents).unwrap();
        }
        symlink("tree/deep", world.at("data/down")).unwrap();
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn run(&self, operations: &[&str]) -> Output {
        let (data, other) = (
            format!("{}::/data", self.at("data").display()),
            format!("{}::/other", self.at("other").display()),
        );
        let (policy, probe) = (self.at("policy").display().to_string(), component("probe.wasm"));
        let mut args =
            vec!["run", "--policy", &policy, "--dir", &data, "--dir", &other, &probe, "--", "script"];
        args.extend(operations);
        govrun(&self.at("state"), &args)
    }

    /// The answers, without the operations that they answer.
    fn answers(&self, operations: &[&str]) -> Vec<String> {
        let out = self.run(operations);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let said = text(&out.stdout);
        let answers: Vec<String> =
            said.lines().filter_map(|line| Some(line.split_once(" => ")?.1.to_owned())).collect();
        assert_eq!(answers.len(), operations.len(), "{said}");
        answers
    }

    fn absorbed(&self) -> Vec<String> {
        let records = records(&self.at("state"));
        let run = records.iter().find(|r| r["t"] == "decision" && r["action"] == "tool.call").unwrap();
        let listed = self.outcome(run)["absorbed"].as_array().cloned().unwrap_or_default();
        let line = |a: &Value| {
            format!(
                "{} {} {}",
                a["kind"].as_str().unwrap(),
                a["subject"]["clear"].as_str().unwrap(),
                a["size"]
            )
        };
        listed.iter().map(line).collect()
    }

    fn outcome(&self, decision: &Value) -> Value {
        let id = format!("-{}", decision["seq"]);
        let records = records(&self.at("state"));
        let of = |r: &&Value| r["t"] == "outcome" && r["decision"].as_str().unwrap().ends_with(&id);
        records.iter().find(of).unwrap().clone()
    }

    /// The outcome of the last decision on `action` of `path` with this verdict.
    fn last(&self, action: &str, path: &str, verdict: &str) -> Value {
        let records = records(&self.at("state"));
        let found = records.iter().rev().find(|r| {
            r["t"] == "decision"
                && r["action"] == action
                && r["verdict"] == verdict
                && r["inputs"]["fields"].to_string().contains(&format!("\"{path}\""))
        });
        self.outcome(found.unwrap())
    }
}

/// Everything in a directory with its times; when it was last read does not count.
fn tree(dir: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let contents = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        seen.push(format!("{path:?} {:?} {:?} {contents:?}", meta.file_type(), meta.modified().unwrap()));
        if meta.is_dir() {
            seen.extend(tree(&path));
        }
    }
    seen.sort();
    seen
}

/// Every kind of change with a look at what it did, one program.
const PROGRAM: &[&str] = &[
    "hold a /data/a.txt",
    "append /data/a.txt -more",
    "held a",
    "overwrite /data/b.txt BE",
    "read /data/b.txt",
    "truncate /data/b.txt 3",
    "stat /data/b.txt",
    "write /data/new.txt fresh",
    "create-new /data/new.txt",
    "mkdirs /data/made/one/two",
    "copy /data/tree/c.txt /data/made/one/copy.txt",
    "write /data/down/e.txt via-link",
    "read /data/tree/deep/e.txt",
    "rename /data/new.txt /data/made/renamed.txt",
    "rename /data/made/renamed.txt /data/a.txt",
    "read /data/a.txt",
    "held a",
    "rename /data/a.txt /other/crossed.txt",
    "read /other/crossed.txt",
    "read /data/a.txt",
    "rm /data/tree/c.txt",
    "rm /data/tree",
    "rmdir /data/tree",
    "rmdir /data/empty",
    "mkdir /data/empty",
    "rename /data/empty /data/moved",
    "rename /data/b.txt /data/moved",
    "rename /data/moved /data/b.txt",
    "ls /data",
    "rmall /data/made",
    "read /data/made/one/copy.txt",
    "write /data/big.bin now-small",
    "times /data/big.bin 1000000000",
    "modified /data/big.bin",
    "read /data/../etc/passwd",
    "tree /data",
    "tree /other",
];

#[test]
fn a_sandboxed_program_sees_its_changes_as_if_they_were_real() {
    let (real, sandboxed) = (World::new(ALLOW), World::new(SANDBOX));
    let before = (tree(&sandboxed.at("data")), tree(&sandboxed.at("other")));
    let (expected, got) = (real.answers(PROGRAM), sandboxed.answers(PROGRAM));
    for ((operation, expected), got) in PROGRAM.iter().zip(&expected).zip(&got) {
        assert_eq!(got, expected, "{operation}");
    }
    assert!(expected.iter().filter(|answer| *answer == "ok").count() > 15, "{expected:?}");
    assert!(fs::read_to_string(real.at("other/crossed.txt")).unwrap() == "fresh");
    assert_eq!((tree(&sandboxed.at("data")), tree(&sandboxed.at("other"))), before);
    assert_eq!(real.absorbed(), [""; 0]);
    let expected = [
        "file-deleted /data/a.txt 5",
        "file-written /data/b.txt 3",
        "file-written /data/big.bin 9",
        "file-deleted /data/empty 0",
        "dir-created /data/moved 0",
        "file-deleted /data/tree/c.txt 5",
        "file-written /data/tree/deep/e.txt 8",
        "file-written /other/crossed.txt 5",
    ];
    assert_eq!(sandboxed.absorbed(), expected);
}

#[test]
fn objects_keep_their_identity_when_they_are_copied_and_moved() {
    let world = World::new(SANDBOX);
    let answers = world.answers(&[
        "hash /data/a.txt",
        "append /data/a.txt x",
        "hash /data/a.txt",
        "rename /data/a.txt /other/a.txt",
        "hash /other/a.txt",
        "hash /data/b.txt",
        "hash /data/tree",
        "write /data/tree/x x",
        "hash /data/tree",
    ]);
    assert_eq!((&answers[0], &answers[0]), (&answers[2], &answers[4]));
    assert_eq!(answers[6], answers[8]);
    assert!(answers[0] != answers[5] && answers[5] != answers[6]);
}

#[test]
fn a_tree_larger_than_the_scratch_is_no_problem_and_the_cap_is_on_what_is_written() {
    let world = World::new(SANDBOX);
    let before = tree(&world.at("data"));
    let thousand = format!("write /data/fits {}", "y".repeat(1_000));
    // The cap is 1024 bytes and 5000 are in one file: reading it is free, opening it to append would copy it.
    let answers = world.answers(&[
        "stat /data/big.bin",
        &thousand,
        "append /data/big.bin x",
        "write /data/more 1234567890123456789012345",
        "write /data/last 123456789012345678901234",
        "truncate /data/fits 0",
        "write /data/more 1234567890123456789012345",
    ]);
    assert_eq!(answers[..2], ["file 5000", "ok"]);
    // A write through a stream only says that it failed, so the kind differs.
    assert!(answers[2..4].iter().all(|answer| answer.starts_with("error: ")), "{answers:?}");
    assert_eq!(answers[4..], ["ok", "ok", "ok"]);
    let records = records(&world.at("state"));
    let full = |r: &&Value| r["t"] == "decision" && r["reason"] == "SANDBOX-SCRATCH-FULL";
    assert_eq!(records.iter().filter(full).count(), 2);
    assert_eq!(tree(&world.at("data")), before);
}

#[test]
fn a_directory_that_is_offered_for_reading_is_for_reading_in_the_sandbox_too() {
    let world = World::new(&SANDBOX.replace(
        "fs = { scratch",
        &format!(
            "fs = {{ preopens = [{{ host = \"{0}/data\", guest = \"/data\", mode = \"ro\" }}, \
             {{ host = \"{0}/other\", guest = \"/other\", mode = \"rw\" }}], scratch",
            "FOLDER"
        ),
    ));
    let policy = fs::read_to_string(world.at("policy/govrun.toml")).unwrap();
    let policy = policy.replace("FOLDER", world.folder.path().to_str().unwrap());
    fs::write(world.at("policy/govrun.toml"), policy).unwrap();
    let answers = world.answers(&[
        "write /data/a.txt mine",
        "mkdir /data/new",
        "rm /data/a.txt",
        "rename /data/a.txt /other/a.txt",
        "times /data/a.txt 1",
        "read /data/a.txt",
        "write /other/x ok",
    ]);
    assert!(answers[..5].iter().all(|answer| answer == "error: PermissionDenied"), "{answers:?}");
    assert_eq!(answers[5..], ["alpha", "ok"]);
    assert_eq!(world.absorbed(), ["file-written /other/x 2"]);
}

/// Writes beneath `/data/tree` are sandboxed, everything else is real.
const ONE_FOLDER: &str = r#"
[sandbox.s]
fs = { scratch = "1KiB" }
[[rule]]
id = "run"
match = { action = "tool.call" }
verdict = "allow"
[[rule]]
id = "dry"
match = { action = ["fs.write", "fs.delete"], path = "/data/tree/**" }
verdict = "sandbox"
sandbox = "s"
"#;

#[test]
fn one_sandboxed_write_in_a_real_call_lands_in_the_layer_and_later_reads_see_it() {
    let world = World::new(ONE_FOLDER);
    let before = tree(&world.at("data/tree"));
    let answers = world.answers(&[
        "hold c /data/tree/c.txt",
        "write /data/a.txt real",
        "write /data/tree/c.txt dry",
        "read /data/tree/c.txt",
        "held c",
        "mkdir /data/tree/new",
        "write /data/tree/new/f dry",
        "ls /data/tree",
        "rm /data/tree/deep/d.txt",
        "read /data/tree/deep/d.txt",
        "ls /data/tree/deep",
        "write /data/b.txt real",
        "read /data/b.txt",
        "stat /data/tree/new/f",
        "rename /data/tree/new/f /data/f",
        "read /data/f",
        "write /data/down/e.txt dry",
        "read /data/tree/deep/e.txt",
    ]);
    let expected = [
        "ok",
        "ok",
        "ok",
        "dry",
        "gamma",
        "ok",
        "ok",
        "c.txt deep new",
        "ok",
        "error: NotFound",
        "",
        "ok",
        "real",
        "file 3",
        "ok",
        "dry",
        "ok",
        "dry",
    ];
    assert_eq!(answers, expected);
    assert_eq!(tree(&world.at("data/tree")), before);
    assert_eq!(fs::read_to_string(world.at("data/a.txt")).unwrap(), "real");
    assert_eq!(fs::read_to_string(world.at("data/b.txt")).unwrap(), "real");
    assert!(!world.at("data/f").exists());
    let absorbed = [
        "file-written /data/f 3",
        "file-written /data/tree/c.txt 3",
        "file-deleted /data/tree/deep/d.txt 5",
        "file-written /data/tree/deep/e.txt 3",
        "dir-created /data/tree/new 0",
    ];
    assert_eq!(world.absorbed(), absorbed);
    assert_eq!(world.last("fs.write", "/data/tree/c.txt", "sandbox")["status"], "ok");
}

#[test]
fn a_permitted_change_of_what_the_layer_hides_lands_in_the_layer_and_its_record_says_so() {
    let world = World::new(ONE_FOLDER);
    let answers = world.answers(&[
        "write /data/tree/c.txt dry",
        "rename /data/tree/c.txt /data/c.txt",
        "append /data/c.txt -and-more",
        "read /data/c.txt",
        "rm /data/c.txt",
        "read /data/c.txt",
        "write /data/c.txt again",
        "write /data/d.txt real",
    ]);
    assert_eq!(answers, ["ok", "ok", "ok", "dry-and-more", "ok", "error: NotFound", "ok", "ok"]);
    assert!(!world.at("data/c.txt").exists() && world.at("data/d.txt").exists());
    assert_eq!(fs::read_to_string(world.at("data/tree/c.txt")).unwrap(), "gamma");
    let outcome = world.last("fs.write", "/data/c.txt", "allow");
    assert!(outcome["note"].as_str().unwrap().contains("landed in the sandbox too"), "{outcome}");
    let real = world.last("fs.write", "/data/d.txt", "allow");
    assert!(real["note"].is_null(), "{real}");
}

#[test]
fn a_link_to_a_sandboxed_place_does_not_make_a_write_real() {
    let world = World::new(ONE_FOLDER);
    symlink("tree/c.txt", world.at("data/alias")).unwrap();
    let answers = world.answers(&["write /data/alias mine", "read /data/alias", "read /data/tree/c.txt"]);
    assert_eq!(answers, ["ok", "mine", "mine"]);
    assert_eq!(fs::read_to_string(world.at("data/tree/c.txt")).unwrap(), "gamma");
}
