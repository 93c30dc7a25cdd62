//! The architecture as tests: who may depend on whom, how large a file may grow, what no source may contain.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use common::{crates, files, none, root, text};
use serde_json::Value;

/// What each package of the product may depend on inside the workspace. ARCHITECTURE.md has the same as a table.
const EDGES: &[(&str, &[&str])] = &[
    ("govrun-verdict", &[]),
    ("govrun-aot", &[]),
    ("govrun-policy", &["govrun-verdict"]),
    ("govrun-audit", &["govrun-verdict"]),
    ("govrun-control", &["govrun-verdict"]),
    ("govrun-host", &["govrun-verdict", "govrun-aot", "govrun-policy", "govrun-audit", "govrun-control"]),
    ("govrun-gateway", &["govrun-verdict", "govrun-policy", "govrun-audit", "govrun-control", "govrun-host"]),
    (
        "govrun",
        &[
            "govrun-verdict",
            "govrun-policy",
            "govrun-audit",
            "govrun-control",
            "govrun-host",
            "govrun-gateway",
        ],
    ),
    ("govrun-testkit", &["govrun-verdict"]),
];

/// Packages that may name wasmtime: the host, what loads compiled code for it, and the benchmark that measures the floor
/// beside it. The list may only shrink.
const WASMTIME_USERS: &[&str] = &["govrun-host", "govrun-aot", "govrun-benches"];

/// The one package that opts out of memory safety, for one call. It denies what the others forbid, and each use is named.
const AOT: &str = "crates/aot";
const AOT_LINES: &[&str] =
    &[concat!("un", "safe_code,"), concat!("un", "safe { Component::deserialize(engine, code) }")];

/// A file that a reader can hold.
const MAX_LINES: usize = 600;

/// Files that are longer, with the length they may not go over. The list may only shrink, and so may the numbers.
const LONGER_FILES: &[(&str, usize)] = &[("crates/audit/src/form/body.rs", 700)];

/// Packages in the build of the `govrun` binary, itself included.
const MAX_PACKAGES: usize = 450;

/// What an unfinished place calls itself.
const FORBIDDEN: &[&str] = &[
    "todo",
    "fixme",
    "xxx",
    "hack",
    "for now",
    "stub",
    "placeholder",
    "simplified",
    "not implemented",
    "unimplemented",
    "temporary workaround",
];

/// Where one of these words is a term: the messages of rules have placeholders.
const TERMS: &[(&str, &str)] = &[("crates/policy/src/", "placeholder")];

/// The resolved dependencies for the machine the tests run on. Everything is there already: the build needed it.
fn metadata() -> Value {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of the packages that the package declares in `[dependencies]` and `[build-dependencies]`.
fn declared(package: &Value) -> BTreeSet<&str> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    dependencies.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap()).collect()
}

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let product = crates();
    let mut findings = Vec::new();
    for folder in &product {
        let name = if folder == "govrun" { folder.clone() } else { format!("govrun-{folder}") };
        let package = packages.iter().find(|p| p["name"] == name.as_str()).unwrap();
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            findings.push(format!("crates/{folder} is not in EDGES"));
            continue;
        };
        for to in declared(package) {
            if to.starts_with("govrun") && !allowed.contains(&to) {
                findings.push(format!("{name} depends on {to}"));
            }
        }
    }
    assert_eq!(product.len(), EDGES.len(), "a crate in EDGES is gone");
    none(
        &findings,
        "Dependencies point downwards: verdict, then policy, audit and control, then host, then govrun.",
    );
}

#[test]
fn policy_and_audit_never_see_each_other_even_through_others() {
    let metadata = metadata();
    for (from, to) in [("govrun-policy", "govrun-audit"), ("govrun-audit", "govrun-policy")] {
        let reached = reachable(&metadata, from);
        assert!(reached.len() > 5, "{from}: the graph is not read rightly");
        assert!(!reached.contains(to), "{from} reaches {to}");
    }
}

#[test]
fn the_log_and_its_verifier_can_be_built_into_other_programs() {
    let reached = reachable(&metadata(), "govrun-audit");
    assert!(reached.contains("ed25519-dalek"), "the graph is not read rightly");
    let heavy: Vec<_> = reached
        .iter()
        .filter(|name| {
            ["wasmtime", "tokio", "hyper", "rustls", "rusqlite"].iter().any(|h| name.starts_with(h))
        })
        .collect();
    assert!(heavy.is_empty(), "govrun-audit builds {heavy:?}");
    assert!(reached.len() <= 90, "{} packages for govrun-audit", reached.len());
}

#[test]
fn only_the_host_uses_wasmtime() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let mut findings = Vec::new();
    for package in packages.iter().filter(|p| p["source"].is_null()) {
        let name = package["name"].as_str().unwrap();
        let engine = declared(package).into_iter().find(|d| d.starts_with("wasmtime"));
        if let Some(engine) = engine.filter(|_| !WASMTIME_USERS.contains(&name)) {
            findings.push(format!("{name} depends on {engine}"));
        }
    }
    none(&findings, "Only crates/host may use wasmtime: every import goes through the gate there.");
}

#[test]
fn the_binary_has_few_dependencies() {
    let reached = reachable(&metadata(), "govrun");
    println!("{} packages in the build of govrun", reached.len());
    assert!(reached.contains("wasmtime"), "the graph is not read rightly");
    assert!(reached.len() <= MAX_PACKAGES, "{} packages, {MAX_PACKAGES} allowed", reached.len());
}

/// Everything that a build of the package needs, itself included; dev-dependencies are not followed.
fn reachable(metadata: &Value, from: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["id"].as_str().unwrap(), n))
        .collect();
    let packages: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let start = packages.iter().find(|(_, name)| **name == from).map(|(id, _)| *id).unwrap();
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            if dependency["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"] != "dev") {
                open.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    names(&seen, &packages)
}

/// The name of each package, with the id where two versions share it, so that both count.
fn names(ids: &BTreeSet<&str>, packages: &BTreeMap<&str, &str>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for id in ids {
        let name = packages[id].to_owned();
        if !names.insert(name.clone()) {
            names.insert(format!("{name} {id}"));
        }
    }
    names
}

fn sources() -> Vec<String> {
    let sources: Vec<String> =
        crates().iter().flat_map(|name| files(&format!("crates/{name}/src"), "rs")).collect();
    assert!(sources.len() > 50, "only {} sources found", sources.len());
    sources
}

#[test]
fn a_file_is_not_longer_than_a_reader_can_hold() {
    let mut findings = Vec::new();
    for path in sources() {
        let bound =
            LONGER_FILES.iter().find(|(file, _)| *file == path).map_or(MAX_LINES, |(_, lines)| *lines);
        let lines = text(&path).lines().count();
        if lines > bound {
            findings.push(format!("{path}: {lines} lines, {bound} allowed"));
        }
    }
    none(&findings, "Split the file by what its parts are about; LONGER_FILES may only shrink.");
}

#[test]
fn every_crate_inherits_the_lints_and_they_forbid_what_must_not_be() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let lints = &manifest["workspace"]["lints"];
    assert_eq!(lints["rust"][concat!("un", "safe_code")].as_str(), Some("forbid"));
    for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing", "string_slice", "as_conversions"]
    {
        assert_eq!(lints["clippy"][lint].as_str(), Some("deny"), "clippy::{lint}");
    }
    let members = manifest["workspace"]["members"].as_array().unwrap();
    for name in crates() {
        assert!(
            members.iter().any(|m| m.as_str() == Some(&format!("crates/{name}"))),
            "crates/{name}: no member"
        );
    }
    for member in members {
        let path = format!("{}/Cargo.toml", member.as_str().unwrap());
        let member: toml::Table = text(&path).parse().unwrap();
        if path.starts_with(AOT) {
            same_but_for_memory_safety(&member["lints"], lints);
            continue;
        }
        let inherited = member.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherited, Some(true), "{path}: `[lints] workspace = true` is missing");
    }
}

/// The exception has every lint of the workspace, with `deny` instead of `forbid` for the one it needs.
fn same_but_for_memory_safety(own: &toml::Value, workspace: &toml::Value) {
    for group in ["rust", "clippy"] {
        for (lint, level) in workspace[group].as_table().unwrap() {
            let expected = if lint == concat!("un", "safe_code") { "deny" } else { level.as_str().unwrap() };
            assert_eq!(own[group][lint].as_str(), Some(expected), "{AOT}: {lint}");
        }
    }
}

#[test]
fn no_source_opts_out_of_memory_safety() {
    let mut findings = Vec::new();
    for path in ["crates", "tests", "benches"].iter().flat_map(|folder| files(folder, "rs")) {
        for (line, number) in text(&path).lines().zip(1..) {
            let code = line.split("//").next().unwrap();
            let exception = path.starts_with(AOT) && AOT_LINES.contains(&line.trim());
            if !exception && names_it(code) {
                findings.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    none(&findings, "The workspace forbids it; the one exception is crates/aot, line by line.");
}

fn names_it(code: &str) -> bool {
    has_word(code, concat!("un", "safe")) || has_word(code, concat!("un", "safe_code"))
}

#[test]
fn nothing_in_the_product_calls_itself_unfinished() {
    let mut findings = Vec::new();
    for path in sources() {
        for (line, number) in text(&path).lines().zip(1..) {
            let lower = line.to_lowercase();
            let term =
                |word: &str| TERMS.iter().any(|(folder, term)| path.starts_with(folder) && *term == word);
            if let Some(word) = FORBIDDEN.iter().find(|word| has_word(&lower, word) && !term(word)) {
                findings.push(format!("{path}:{number}: `{word}`: {}", line.trim()));
            }
        }
    }
    none(&findings, "Finish it, or say what is absent as a fact.");
}

/// Whether the word stands in the line by itself, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let (_, after) = rest.split_at(word.len());
        !before.ends_with(inside) && !after.starts_with(inside)
    })
}

#[test]
fn a_word_is_found_by_itself_only() {
    assert!(
        has_word("this is a stub.", "stub")
            && has_word("todo!()", "todo")
            && has_word("ok for now", "for now")
    );
    assert!(!has_word("stubborn", "stub") && !has_word("a_stub", "stub") && !has_word("method", "todo"));
}
