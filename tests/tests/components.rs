//! The example components do what the documents say, whichever build of them is given: the prebuilt ones, or those in
//! the folder `GOVRUN_COMPONENTS`, which the gate sets to the components it has just built from source.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{binary, files, none, root, text};

/// The folder of the components under test.
fn components() -> PathBuf {
    std::env::var_os("GOVRUN_COMPONENTS")
        .map_or_else(|| root().join("guest-examples/prebuilt"), |folder| root().join(folder))
        .canonicalize()
        .unwrap()
}

/// Every component of the folder, sorted.
fn all(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension() == Some(OsStr::new("wasm"))).collect();
    found.sort();
    found
}

/// The shipped policies, with the paths and digests of these components.
fn policies(folder: &Path, components: &Path) -> PathBuf {
    let copy = folder.join("policies");
    for path in files("policies", "toml").into_iter().chain(files("policies", "txt")) {
        let mut policy = text(&path);
        for component in all(components) {
            let name = component.file_name().unwrap().to_str().unwrap();
            let shipped = root().join("guest-examples/prebuilt").join(name);
            policy = policy
                .replace(&digest(&shipped), &digest(&component))
                .replace(&format!("../guest-examples/prebuilt/{name}"), component.to_str().unwrap());
        }
        let to = folder.join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, policy).unwrap();
    }
    copy
}

fn digest(path: &Path) -> String {
    format!(
        "b3:{}",
        blake3::hash(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    )
}

/// Calls a function of a component under the shipped policies, in a state directory of its own.
fn call(agent: &str, component: &str, call: &str) -> Output {
    let (folder, components) = (tempfile::tempdir().unwrap(), components());
    Command::new(binary())
        .arg("--state")
        .arg(folder.path().join("state"))
        .args(["call", "--agent", agent, "--policy"])
        .arg(policies(folder.path(), &components))
        .arg(components.join(component))
        .arg(call)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_components_are_the_guests() {
    let names =
        |folder: &Path| -> Vec<_> { all(folder).iter().map(|p| p.file_name().unwrap().to_owned()).collect() };
    assert_eq!(names(&components()), names(&root().join("guest-examples/prebuilt")));
}

#[test]
fn every_component_loads() {
    let mut findings = Vec::new();
    for component in all(&components()) {
        let output = Command::new(binary()).arg("inspect").arg(&component).output().unwrap();
        if !output.status.success() {
            findings.push(format!("{}: {}", component.display(), said(&output)));
        }
    }
    none(&findings, "Every guest imports only what is governed.");
}

#[test]
fn a_search_is_allowed_and_answers() {
    let output = call("research-1", "search.wasm", r#"search("supplier")"#);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).to_lowercase().contains("supplier"), "{}", said(&output));
}

#[test]
fn a_payment_to_an_unknown_counterparty_is_blocked() {
    let output = call("finance-1", "payments.wasm", r#"send("ACME", 48000)"#);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("PAY-OFFLIST-COUNTERPARTY"), "{}", said(&output));
}
