//! One named test for each way to get at a file that policy keeps from a guest: the verdict, the reason, the record, and
//! that nothing happened. The guest is `std::fs`; what it does not know how to ask for is in the escape artist.
//!
//! The races run 150 operations against a thread that flips; `GOVRUN_RACE_OPERATIONS` sets another number.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{component, govrun, records, text};
use serde_json::Value;

/// Everything is allowed but: secrets at all, and changing what is read-only.
const RULES: &str = r#"
[[rule]]
id = "all"
match = { action = ["tool.call", "stdio.write", "args.read", "env.read", "clock", "random"] }
verdict = "allow"
[[rule]]
id = "files"
match = { action = "fs.*", path = ["/data", "/data/**", "/other", "/other/**"] }
verdict = "allow"
[[rule]]
id = "secret"
match = { action = "fs.*", path = ["/data/secret", "/data/secret/**"] }
verdict = "block"
reason = "SECRET"
[[rule]]
id = "read-only"
match = { action = ["fs.write", "fs.delete"], path = ["/data/ro.txt", "/other/closed/**"] }
verdict = "block"
reason = "READ-ONLY"
"#;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let manifest = format!(
            "schema = 1\n[env.test]\ndefault = {{ verdict = \"block\" }}\n[audit]\nclear = [\"path\"]\n\
             [[agent]]\nname = \"operator\"\n{RULES}"
        );
        world.write("policy/govrun.toml", &manifest);
        for (path, contents) in [
            ("data/secret/key", "the key"),
            ("data/public/key", "public"),
            ("data/ro.txt", "kept"),
            ("data/a.txt", "alpha"),
            ("data2/key", "the key"),
            ("other/closed/x", "x"),
            ("outside/key", "the key"),
        ] {
            world.write(path, contents);
        }
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, contents: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), contents).unwrap();
    }

    /// What the operations answered; the key is in none of the answers.
    fn answers<S: AsRef<str>>(&self, operations: &[S]) -> Vec<String> {
        let dirs = ["data", "data2", "other"].map(|name| format!("{}::/{name}", self.at(name).display()));
        let (policy, probe) = (self.at("policy").display().to_string(), component("probe.wasm"));
        let mut args = vec!["run", "--policy", &policy];
        dirs.iter().for_each(|dir| args.extend(["--dir", dir]));
        args.extend([&probe, "--", "script"]);
        args.extend(operations.iter().map(AsRef::as_ref));
        let out = govrun(&self.at("state"), &args);
        let said = text(&out.stdout);
        assert!(out.status.success(), "{said}{}", text(&out.stderr));
        assert!(!said.contains("the key"), "{said}");
        let answers: Vec<String> =
            said.lines().filter_map(|line| Some(line.split_once(" => ")?.1.to_owned())).collect();
        assert_eq!(answers.len(), operations.len(), "{said}");
        answers
    }

    /// Each operation is refused, for this reason and on the record, and both directories stay as they are.
    fn refused(&self, operations: &[&str], reason: &str) {
        let before = (self.tree("data"), self.tree("other"));
        for (operation, answer) in operations.iter().zip(self.answers(operations)) {
            assert!(answer.starts_with("error: "), "{operation}: {answer}");
        }
        assert_eq!((self.tree("data"), self.tree("other")), before);
        let blocked = self.blocked();
        assert!(blocked.iter().any(|found| found == reason), "{reason} is not in {blocked:?}");
    }

    /// The reasons of the blocked decisions, of which none has an outcome.
    fn blocked(&self) -> Vec<String> {
        let records = records(&self.at("state"));
        let blocked = records.iter().filter(|r| r["t"] == "decision" && r["verdict"] == "block");
        let reasons = blocked.map(|decision| {
            let id = format!("-{}", decision["seq"]);
            let of = |r: &&Value| r["t"] == "outcome" && r["decision"].as_str().unwrap().ends_with(&id);
            assert!(records.iter().find(of).is_none(), "a refusal has an outcome: {decision}");
            decision["reason"].as_str().unwrap().to_owned()
        });
        reasons.collect()
    }

    /// Names, kinds, times and contents.
    fn tree(&self, name: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let mut open = vec![self.at(name)];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let contents = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                seen.push(format!("{path:?} {:?} {:?} {contents:?}", meta.file_type(), meta.modified().ok()));
                if meta.is_dir() {
                    open.push(path);
                }
            }
        }
        seen.sort();
        seen
    }
}

#[test]
fn a_read_only_file_is_not_truncated_replaced_moved_or_touched() {
    let world = World::new();
    let attempts = [
        "write /data/ro.txt mine",
        "overwrite /data/ro.txt mine",
        "append /data/ro.txt mine",
        "truncate /data/ro.txt 0",
        "rename /data/a.txt /data/ro.txt",
        "rename /data/ro.txt /data/moved.txt",
        "rm /data/ro.txt",
        "times /data/ro.txt 1",
    ];
    world.refused(&attempts, "READ-ONLY");
    assert_eq!(world.blocked().len(), attempts.len());
}

#[test]
fn links_are_not_made_to_get_around_a_rule() {
    let world = World::new();
    world.refused(&["link /data/ro.txt /other/alias", "symlink secret /data/alias"], "FS-LINK");
}

#[test]
fn a_hard_link_to_a_refused_file_is_refused() {
    let world = World::new();
    fs::hard_link(world.at("data/secret/key"), world.at("data/twin")).unwrap();
    world.refused(&["read /data/twin", "write /data/twin mine", "rename /data/twin /other/twin"], "FS-LINK");
}

#[test]
fn a_slash_behind_a_name_is_not_another_name() {
    let world = World::new();
    world.refused(&["read /data/secret/key/", "ls /data/secret/", "stat /data/secret/key/"], "SECRET");
    let world = World::new();
    world.refused(&["read /data/a.txt/", "write /data/new.txt/ x"], "FS-PATH-INVALID");
    world.refused(&["rename /data/a.txt/ /data/ro.txt/"], "READ-ONLY");
}

#[test]
fn paths_that_climb_out_reach_nothing() {
    let world = World::new();
    let before = world.tree("data");
    let attempts =
        ["read /data/../outside/key", "read /data/../../../../etc/passwd", "read /etc/passwd", "read /"];
    for (attempt, answer) in attempts.iter().zip(world.answers(&attempts)) {
        assert!(answer.starts_with("error: "), "{attempt}: {answer}");
    }
    assert_eq!(world.tree("data"), before);
}

#[test]
fn names_that_are_not_text_are_an_error_and_not_a_crash() {
    let world = World::new();
    fs::write(world.at("other").join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
    let answers = world.answers(&["ls /other", "read /data/a.txt"]);
    assert!(answers[0].starts_with("error: "), "{}", answers[0]);
    assert_eq!(answers[1], "alpha");
}

#[test]
fn a_link_inside_does_not_change_what_a_decision_is_about() {
    let world = World::new();
    symlink("secret", world.at("data/alias")).unwrap();
    symlink("../secret/key", world.at("data/public/alias")).unwrap();
    world.refused(
        &["read /data/alias/key", "ls /data/alias", "read /data/public/alias", "write /data/alias/new x"],
        "SECRET",
    );
}

#[test]
fn a_directory_whose_name_only_begins_like_a_granted_one_is_another_one() {
    let world = World::new();
    world.refused(&["read /data2/key", "ls /data2", "write /data2/x x"], "DEFAULT-DENY");
    assert!(!world.at("data2/x").exists());
}

#[test]
fn a_move_between_directories_is_decided_at_both_ends() {
    let world = World::new();
    world.refused(&["rename /data/a.txt /other/closed/a.txt"], "READ-ONLY");
    world.refused(&["rename /other/closed/x /data/x"], "READ-ONLY");
    world.refused(&["rename /data/secret/key /other/key"], "SECRET");
    assert_eq!(world.answers(&["rename /data/a.txt /other/a.txt"]), ["ok"]);
    let records = records(&world.at("state"));
    let decided = |action: &str, path: &str| {
        let fields = |r: &&Value| r["inputs"]["fields"].to_string().contains(&format!("\"{path}\""));
        records.iter().filter(|r| r["action"] == action && r["verdict"] == "allow").any(|r| fields(&r))
    };
    assert!(decided("fs.delete", "/data/a.txt") && decided("fs.write", "/other/a.txt"));
}

#[test]
fn a_directory_that_holds_something_does_not_move_out_from_under_its_rules() {
    let world = World::new();
    world.refused(&["rename /data/public /data/elsewhere"], "FS-ESCAPE");
    world.refused(&["rename /data/secret /data/elsewhere"], "SECRET");
}

#[test]
fn the_identity_and_the_times_of_a_refused_file_are_not_told() {
    let world = World::new();
    world.refused(&["hash /data/secret/key", "modified /data/secret/key", "stat /data/secret/key"], "SECRET");
    let answers = world.answers(&["hash /data/a.txt", "hash /data/a.txt", "hash /data/public/key"]);
    assert!(answers[0] == answers[1] && answers[0] != answers[2], "{answers:?}");
}

#[test]
fn a_time_before_1970_is_an_error_or_a_time_and_the_call_goes_on() {
    let world = World::new();
    let touched =
        Command::new("touch").args(["-d", "1960-01-01"]).arg(world.at("data/a.txt")).status().unwrap();
    assert!(touched.success());
    let answers = world.answers(&["stat /data/a.txt", "read /data/a.txt"]);
    assert!(answers[0].starts_with("error: ") || answers[0] == "file 5", "{answers:?}");
    assert_eq!(answers[1], "alpha");
}

#[test]
fn pipes_and_devices_are_refused_at_once() {
    let world = World::new();
    assert!(Command::new("mkfifo").arg(world.at("data/pipe")).status().unwrap().success());
    // Making a device needs rights that not everybody has who runs this.
    let device = Command::new("mknod").arg(world.at("data/zero")).args(["c", "1", "5"]).output().unwrap();
    let begun = Instant::now();
    let mut attempts = vec!["read /data/pipe", "write /data/pipe x", "rename /data/pipe /other/pipe"];
    if device.status.success() {
        attempts.extend(["read /data/zero", "write /data/zero x"]);
    }
    world.refused(&attempts, "FS-SPECIAL");
    assert!(begun.elapsed() < Duration::from_secs(20), "a thread was blocked for {:?}", begun.elapsed());
}

/// Runs `turns` of the operation while `flip` is called over and over.
fn race(world: &World, operation: &str, flip: impl Fn() + Send + 'static) -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "a long run is asked for in the environment")]
    let turns = std::env::var("GOVRUN_RACE_OPERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let flipping = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            flip();
        }
    });
    let answers = world.answers(&vec![operation; turns]);
    stop.store(true, Ordering::Relaxed);
    flipping.join().unwrap();
    answers
}

/// Two names for one place, exchanged without a moment in which it has none.
fn exchange(a: PathBuf, b: PathBuf) -> impl Fn() + Send + 'static {
    move || {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
    }
}

#[test]
fn a_link_that_flips_between_what_may_and_what_may_not_be_read_never_tells() {
    let world = World::new();
    symlink("public", world.at("data/flip")).unwrap();
    symlink("secret", world.at("data/flop")).unwrap();
    let answers = race(&world, "read /data/flip/key", exchange(world.at("data/flip"), world.at("data/flop")));
    let told = answers.iter().filter(|answer| *answer == "public").count();
    assert!(told > 0 && told < answers.len(), "the race had only one side: {told} of {}", answers.len());
}

#[test]
fn a_file_that_is_replaced_between_the_decision_and_the_opening_never_tells() {
    let world = World::new();
    world.write("data/flip", "public");
    symlink("secret/key", world.at("data/flop")).unwrap();
    let answers = race(&world, "read /data/flip", exchange(world.at("data/flip"), world.at("data/flop")));
    let told = answers.iter().filter(|answer| *answer == "public").count();
    assert!(told > 0 && told < answers.len(), "the race had only one side: {told} of {}", answers.len());
}

#[test]
fn a_directory_that_is_swapped_for_a_link_out_is_never_listed() {
    let world = World::new();
    fs::create_dir(world.at("data/flip")).unwrap();
    symlink(world.at("outside"), world.at("data/flop")).unwrap();
    for answer in race(&world, "ls /data/flip", exchange(world.at("data/flip"), world.at("data/flop"))) {
        assert!(answer.is_empty() || answer.starts_with("error: "), "{answer}");
    }
}

#[test]
fn a_write_through_a_flipping_link_never_lands_where_it_may_not() {
    let world = World::new();
    symlink("public", world.at("data/flip")).unwrap();
    symlink("secret", world.at("data/flop")).unwrap();
    let before = fs::metadata(world.at("data/secret")).unwrap().modified().unwrap();
    race(&world, "write /data/flip/new x", exchange(world.at("data/flip"), world.at("data/flop")));
    assert!(!world.at("data/secret/new").exists());
    assert_eq!(fs::metadata(world.at("data/secret")).unwrap().modified().unwrap(), before);
}
