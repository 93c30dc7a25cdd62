//! Files through the real binary: what policy permits works and is recorded, and nothing else is reached.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use common::{call, records, root, text};
use serde_json::Value;

/// The path of a refusal that the host itself makes: it is committed to, never in clear.
const HOST: &str = "";
const CALLS: &str = r#"
[[rule]]
id = "tools"
match = { action = "tool.call" }
verdict = "allow"
[[rule]]
id = "reasons"
match = { action = "stdio.write" }
verdict = "allow"
"#;
const BLOCK_SECRET: &str = r#"
[[rule]]
id = "secret"
match = { action = ["fs.read", "fs.write"], path = "/DIR/secret.txt" }
verdict = "block"
reason = "SECRET"
"#;
const ALL_FILES: &str = r#"
[[rule]]
id = "tools"
match = { action = "tool.call" }
verdict = "allow"
[[rule]]
id = "files"
match = { action = ["fs.*", "stdio.write", "clock", "random", "db.*"] }
verdict = "allow"
"#;

/// A policy folder, the directories it offers, and a state directory.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// `dirs` are names of directories beside the policy, offered as `/NAME` with their mode.
    fn new(tool: &str, dirs: &[(&str, &str)], extra: &str, rules: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let offered: Vec<String> = dirs
            .iter()
            .map(|(name, mode)| {
                fs::create_dir_all(world.at(name)).unwrap();
                format!(r#"{{ host = "../{name}", guest = "/{name}", mode = "{mode}" }}"#)
            })
            .collect();
        let manifest = "schema = 1\npacks = [\"p\"]\n[env.t]\ndefault = { verdict = \"block\" }\n\
                        [audit]\nclear = [\"path\"]\n";
        let registry = format!(
            "[[agent]]\nname = \"a\"\n[[tool]]\nname = \"{tool}\"\ndigest = \"b3:{}\"\ndirs = [{}]\n{extra}\n",
            digest(tool),
            offered.join(", ")
        );
        world.write("policy/govrun.toml", manifest.as_bytes());
        world.write("policy/p/registry.toml", registry.as_bytes());
        world.write("policy/p/rules.toml", rules.as_bytes());
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, contents: &[u8]) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), contents).unwrap();
    }

    fn call(&self, wasm: &str, asked: &str) -> Output {
        call(&self.at("state"), &self.at("policy"), "a", wasm, asked)
    }

    /// What the tool printed, and what the host said.
    fn said(&self, wasm: &str, asked: &str) -> String {
        let out = self.call(wasm, asked);
        text(&out.stdout) + &text(&out.stderr)
    }

    fn notes(&self, asked: &str) -> String {
        self.said("notes.wasm", asked)
    }

    /// The decision on `action` of `path` with `reason`, and its outcome.
    fn decided(&self, action: &str, path: &str, reason: &str) -> Option<(Value, Option<Value>)> {
        let records = records(&self.at("state"));
        let path = format!("\"{path}\"");
        let found = records.iter().find(|r| {
            r["t"] == "decision"
                && r["action"] == action
                && r["reason"] == reason
                && (path.len() == 2 || r["inputs"]["fields"].to_string().contains(&path))
        })?;
        let id = format!("-{}", found["seq"]);
        let of = |r: &&Value| r["t"] == "outcome" && r["decision"].as_str().unwrap().ends_with(&id);
        Some((found.clone(), records.iter().find(of).cloned()))
    }

    fn refused(&self, action: &str, path: &str, reason: &str) -> bool {
        self.decided(action, path, reason).is_some_and(|(d, o)| d["verdict"] == "block" && o.is_none())
    }

    /// Path, kind, links and contents of everything in a directory.
    fn tree(&self, name: &str) -> Vec<(PathBuf, String)> {
        let mut seen = Vec::new();
        let mut open = vec![self.at(name)];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let contents = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                if meta.is_dir() {
                    open.push(path.clone());
                }
                let modified = meta.modified().unwrap();
                seen.push((
                    path,
                    format!("{:?} {} {modified:?} {contents:?}", meta.file_type(), meta.nlink()),
                ));
            }
        }
        seen.sort();
        seen
    }
}

fn digest(tool: &str) -> String {
    let lock = fs::read_to_string(root().join("guest-examples/prebuilt/lock.toml")).unwrap();
    let entry = lock.split("[[component]]").find(|e| e.contains(&format!("name = \"{tool}\""))).unwrap();
    entry.lines().find_map(|l| l.strip_prefix("blake3 = \"")).unwrap().trim_end_matches('"').to_owned()
}

#[test]
fn permitted_files_work_and_every_use_is_recorded() {
    let world = World::new("notes", &[("notes", "rw")], "", ALL_FILES);
    for (asked, answer) in [
        (r#"add("one", "text")"#, "ok"),
        (r#"read("one")"#, r#"ok("text")"#),
        ("titles()", r#"ok(["one"])"#),
        (r#"remove("one")"#, "ok"),
        (r#"read("one")"#, "err("),
    ] {
        assert!(world.notes(asked).starts_with(answer), "{asked}: {}", world.notes(asked));
        if asked.starts_with("add") {
            assert_eq!(fs::read(world.at("notes/one.txt")).unwrap(), b"text");
        }
    }
    assert!(!world.at("notes/one.txt").exists());
    for (action, path, field, count) in [
        ("fs.write", "/notes/one.txt", "bytes_out", 4),
        ("fs.read", "/notes/one.txt", "bytes_in", 4),
        ("fs.list", "/notes", "rows", 1),
        ("fs.delete", "/notes/one.txt", "rows", 0),
    ] {
        let (decision, outcome) = world.decided(action, path, "ALLOWED").unwrap();
        let outcome = outcome.unwrap();
        assert_eq!((&decision["verdict"], &outcome["status"]), (&"allow".into(), &"ok".into()), "{action}");
        assert_eq!(outcome[field], count, "{action}: {outcome}");
    }
}

#[test]
fn without_a_rule_for_files_nothing_is_reached() {
    let world = World::new("notes", &[("notes", "rw")], "", CALLS);
    world.write("notes/one.txt", b"text");
    for asked in [r#"read("one")"#, r#"add("two", "x")"#, r#"remove("one")"#, "titles()"] {
        assert!(world.notes(asked).starts_with("err("), "{asked}");
    }
    assert_eq!(world.tree("notes").len(), 1);
    assert!(world.refused("fs.read", "/notes/one.txt", "DEFAULT-DENY"));
}

#[test]
fn a_blocked_file_is_blocked_under_every_name() {
    let rules = format!("{ALL_FILES}{BLOCK_SECRET}");
    let world = World::new("notes", &[("notes", "rw")], "", &rules.replace("/DIR/", "/notes/"));
    world.write("notes/secret.txt", b"the key");
    symlink("secret.txt", world.at("notes/alias.txt")).unwrap();
    symlink(".", world.at("notes/dir")).unwrap();
    for title in ["secret", "x/../secret", "./secret", "alias", "dir/secret", "dir/alias", "dir/dir/secret"] {
        let said = world.notes(&format!(r#"read("{title}")"#));
        assert!(said.starts_with("err(") && !said.contains("the key"), "{title}: {said}");
    }
    assert!(world.refused("fs.read", "/notes/secret.txt", "SECRET"));
    let (_, outcome) = world.decided("fs.read", "/notes/alias.txt", "ALLOWED").unwrap();
    assert!(outcome.unwrap()["note"].as_str().unwrap().contains("led elsewhere"));
    for title in ["alias", "dir/secret"] {
        assert!(world.notes(&format!(r#"add("{title}", "mine")"#)).starts_with("err("), "{title}");
    }
    assert_eq!(fs::read(world.at("notes/secret.txt")).unwrap(), b"the key");
}

#[test]
fn a_file_that_may_not_be_read_cannot_be_moved_to_where_it_may() {
    let rules = format!("{ALL_FILES}{BLOCK_SECRET}").replace("/DIR/", "/data/");
    let world = World::new("escape-artist", &[("data", "rw"), ("scratch", "rw")], "", &rules);
    world.write("data/public.txt", b"public");
    world.write("data/secret.txt", b"the key");
    // Moving the public file is permitted here, so the attempt counts that as its escape; the secret is what matters.
    world.said("escape-artist.wasm", r#"attempt("change-rename-out")"#);
    assert_eq!(fs::read(world.at("scratch/loot.txt")).unwrap(), b"public");
    assert_eq!(fs::read(world.at("data/secret.txt")).unwrap(), b"the key");
    assert!(world.refused("fs.read", "/data/secret.txt", "SECRET"));
}

#[test]
fn titles_that_climb_out_links_and_pipes_are_refused() {
    let world = World::new("notes", &[("notes", "rw")], "", ALL_FILES);
    world.write("outside/loot.txt", b"the key");
    symlink("../outside/loot.txt", world.at("notes/soft.txt")).unwrap();
    symlink(world.at("outside"), world.at("notes/away")).unwrap();
    fs::hard_link(world.at("outside/loot.txt"), world.at("notes/hard.txt")).unwrap();
    assert!(Command::new("mkfifo").arg(world.at("notes/pipe.txt")).status().unwrap().success());
    for title in ["../../etc/passwd", "../outside/loot", "soft", "away/loot", "hard", "pipe"] {
        for asked in [format!(r#"read("{title}")"#), format!(r#"add("{title}", "mine")"#)] {
            let said = world.notes(&asked);
            assert!(said.starts_with("err(") && !said.contains("the key"), "{asked}: {said}");
        }
    }
    assert_eq!(fs::read(world.at("outside/loot.txt")).unwrap(), b"the key");
    assert!(world.refused("fs.read", HOST, "FS-LINK"));
    assert!(world.refused("fs.write", HOST, "FS-LINK"));
    assert!(world.refused("fs.read", HOST, "FS-SPECIAL"));
}

#[test]
fn a_read_only_directory_stays_as_it_is_whatever_rules_say() {
    let world = World::new("notes", &[("notes", "ro")], "", ALL_FILES);
    world.write("notes/one.txt", b"text");
    let before = world.tree("notes");
    for asked in [r#"add("one", "mine")"#, r#"add("two", "mine")"#, r#"remove("one")"#] {
        assert!(world.notes(asked).starts_with("err("), "{asked}");
    }
    assert!(world.notes(r#"read("one")"#).starts_with("ok("));
    assert_eq!(world.tree("notes"), before);
}

#[test]
fn no_file_attempt_of_the_escape_artist_succeeds() {
    let world = World::new("escape-artist", &[("data", "ro"), ("scratch", "rw")], "", ALL_FILES);
    world.write("data/public.txt", b"public");
    world.write("data/secret.txt", b"the key");
    world.write("outside/loot.txt", b"loot");
    symlink("/etc/passwd", world.at("data/link")).unwrap();
    fs::hard_link(world.at("outside/loot.txt"), world.at("data/twin.txt")).unwrap();
    let before = world.tree("data");
    let listed = world.said("escape-artist.wasm", "attempts()");
    let about_files =
        |name: &&str| name.starts_with("path-") || name.starts_with("change-") || *name == "abuse-open-files";
    let names: Vec<&str> = listed.split('"').filter(about_files).collect();
    assert!(names.len() > 25, "{listed}");
    for name in names {
        let said = world.said("escape-artist.wasm", &format!("attempt(\"{name}\")"));
        assert!(said.contains(r#"\"escaped\":false"#), "{name}: {said}");
        assert_eq!(world.tree("data"), before, "{name}");
    }
    for (path, what) in world.tree("scratch") {
        let meta = fs::symlink_metadata(&path).unwrap();
        assert!(meta.is_dir() || meta.is_file() && meta.nlink() == 1, "{path:?}: {what}");
    }
    assert!(world.refused("fs.write", HOST, "FS-LINK"));
    assert!(world.refused("fs.write", HOST, "FS-LINK"));
}

#[test]
fn a_directory_that_is_not_there_is_a_mistake_of_the_configuration() {
    let world = World::new("notes", &[("notes", "rw")], "", ALL_FILES);
    fs::remove_dir_all(world.at("notes")).unwrap();
    let out = world.call("notes.wasm", "titles()");
    assert_eq!(out.status.code(), Some(8), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("offered as `/notes`"), "{}", text(&out.stderr));
}

#[test]
fn a_sandboxed_write_without_scratch_changes_nothing_and_says_so() {
    let rules = format!(
        "{ALL_FILES}\n[sandbox.s]\ndeadline = \"20s\"\n[[rule]]\nid = \"dry\"\n\
         match = {{ action = \"fs.write\" }}\nverdict = \"sandbox\"\nsandbox = \"s\"\n"
    );
    let world = World::new("notes", &[("notes", "rw")], "", &rules);
    assert!(world.notes(r#"add("one", "text")"#).starts_with("err("));
    assert!(world.tree("notes").is_empty());
    let (_, outcome) = world.decided("fs.write", "/notes/one.txt", "SANDBOXED").unwrap();
    let outcome = outcome.unwrap();
    assert_eq!(outcome["status"], "failed");
    assert!(outcome["note"].as_str().unwrap().contains("no scratch"), "{outcome}");
}

/// The reporting tool with its files and database, sandboxed with this profile.
fn reporting(profile: &str) -> World {
    let rules = format!(
        "{}\n[sandbox.s]\n{profile}\n[[rule]]\nid = \"report\"\nmatch = {{ action = \"tool.call\" }}\n\
         verdict = \"sandbox\"\nsandbox = \"s\"\n",
        ALL_FILES
    );
    let database = r#"databases = [{ label = "sales", sqlite = "../db/sales.db", mode = "rw" }]"#;
    let world = World::new("reporting", &[("data", "rw")], database, &rules);
    world.write("data/q1.csv", b"region,amount\nnorth,5\n");
    world.write("data/latest.md", b"old\n");
    world.write("data/draft.md", b"draft\n");
    fs::create_dir_all(world.at("db")).unwrap();
    let sales = rusqlite::Connection::open(world.at("db/sales.db")).unwrap();
    let rows = "CREATE TABLE sales (region TEXT, month TEXT, amount INTEGER);\
                INSERT INTO sales VALUES ('north', '2026-03', 7);";
    sales.execute_batch(rows).unwrap();
    world
}

const MONTHLY: &str = r#"monthly("2026-03")"#;

#[test]
fn a_sandboxed_call_works_on_a_layer_and_its_outcome_lists_what_it_would_have_changed() {
    let world = reporting(r#"fs = { scratch = "1MiB" }"#);
    let before = (world.tree("data"), fs::read(world.at("db/sales.db")).unwrap());
    let said = world.said("reporting.wasm", MONTHLY);
    for attempt in ["write-report", "overwrite-latest", "delete-draft", "zero-sales"] {
        assert!(said.contains(&format!(r#"\"{attempt}\":\"ok\""#)), "{attempt}: {said}");
    }
    assert!(said.contains("SANDBOX-NO-EGRESS"), "{said}");
    assert_eq!((world.tree("data"), fs::read(world.at("db/sales.db")).unwrap()), before);
    let (_, outcome) = world.decided("tool.call", "", "SANDBOXED").unwrap();
    let absorbed: Vec<String> = outcome.unwrap()["absorbed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {}", a["kind"].as_str().unwrap(), a["subject"]["clear"].as_str().unwrap_or("-")))
        .collect();
    for expected in [
        "file-deleted /data/draft.md",
        "file-written /data/latest.md",
        "file-written /data/report-2026-03.md",
        "db-changed -",
    ] {
        assert!(absorbed.iter().any(|a| a == expected), "{expected}: {absorbed:?}");
    }
    assert_eq!(absorbed.len(), 4, "{absorbed:?}");
}

#[test]
fn scratch_is_a_cap_on_what_the_layer_holds() {
    // The files have 32 bytes and are not copied; the report has 29.
    let tight = reporting(r#"fs = { scratch = "20B" }"#);
    let before = tight.tree("data");
    let said = tight.said("reporting.wasm", MONTHLY);
    assert!(said.contains(r#"\"write-report\":\"failed"#), "{said}");
    assert!(said.contains(r#"\"delete-draft\":\"ok\""#), "{said}");
    assert!(tight.refused("fs.write", HOST, "SANDBOX-SCRATCH-FULL"));
    assert_eq!(tight.tree("data"), before);
}

#[test]
fn a_sandbox_without_scratch_reads_the_real_files_and_writes_nothing() {
    let world = reporting(r#"deadline = "20s""#);
    let before = world.tree("data");
    let said = world.said("reporting.wasm", MONTHLY);
    assert!(said.contains("north") && !said.contains(r#"\"write-report\":\"ok\""#), "{said}");
    assert!(!said.contains(r#"\"delete-draft\":\"ok\""#), "{said}");
    assert_eq!(world.tree("data"), before);
}
