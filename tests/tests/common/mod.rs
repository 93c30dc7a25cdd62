//! What the tests of the tree share: where it is, and its files.

#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of a file, given relative to the workspace.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file with that extension beneath the folder, relative to the workspace, written with `/` and sorted. Build
/// output is left out.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root(), folder, extension, &mut found);
    found.sort();
    found
}

fn collect(root: &Path, folder: &str, extension: &str, found: &mut Vec<String>) {
    let entries = fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{folder}/{name}");
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, extension, found);
            }
        } else if Path::new(&name).extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Names of the folders of the product's crates.
pub(crate) fn crates() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The binary beside the test's own. It is there after `cargo test` or `cargo build`, which build the whole workspace.
pub(crate) fn binary() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let path = me.ancestors().nth(2).unwrap().join("govrun");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo test` or `cargo build` of the whole workspace",
        path.display()
    );
    path
}

/// All of it at once, so that one run shows every finding.
pub(crate) fn none(findings: &[String], advice: &str) {
    assert!(findings.is_empty(), "\n{}\n\n{advice}\n", findings.join("\n"));
}
