//! The components in `guest-examples/prebuilt` are what their sources and the policies say. The construction of the
//! digests is at the top of `prebuilt/lock.toml`; it is written here a second time, apart from the tool that writes it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{files, none, root, text};

const PREBUILT: &str = "guest-examples/prebuilt";
const ADVICE: &str = "Run guest-examples/build.sh --update and commit prebuilt/.";

fn bytes(path: &str) -> Vec<u8> {
    fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The entries of the lock.
fn locked() -> Vec<toml::Table> {
    let lock: toml::Table = text(&format!("{PREBUILT}/lock.toml")).parse().unwrap();
    let components = lock["component"].as_array().unwrap();
    components.iter().map(|component| component.as_table().unwrap().clone()).collect()
}

fn field<'a>(entry: &'a toml::Table, key: &str) -> &'a str {
    entry.get(key).and_then(toml::Value::as_str).unwrap_or_else(|| panic!("lock.toml: {entry} has no {key}"))
}

/// What `sources` of the guest must be.
fn sources_digest(guest: &str) -> String {
    let mut inputs = vec![
        "Cargo.toml".to_owned(),
        "Cargo.lock".to_owned(),
        "../wit/govrun.wit".to_owned(),
        format!("{guest}/Cargo.toml"),
    ];
    for folder in ["src", "wit"] {
        if root().join(format!("guest-examples/{guest}/{folder}")).is_dir() {
            inputs.extend(every_file(&format!("{guest}/{folder}")));
        }
    }
    inputs.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let mut hashed = b"govrun guest sources v1\n".to_vec();
    for path in inputs {
        let content = bytes(&format!("guest-examples/{path}"));
        for part in [path.as_bytes(), content.as_slice()] {
            hashed.extend_from_slice(&u64::try_from(part.len()).unwrap().to_le_bytes());
            hashed.extend_from_slice(part);
        }
    }
    blake3::hash(&hashed).to_string()
}

/// Every file beneath a folder of the guests, relative to `guest-examples`.
fn every_file(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("guest-examples").join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(every_file(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_component_is_stale_or_swapped() {
    let mut findings = Vec::new();
    for entry in locked() {
        let (name, file) = (field(&entry, "name"), field(&entry, "file"));
        if blake3::hash(&bytes(&format!("{PREBUILT}/{file}"))).to_string() != field(&entry, "blake3") {
            findings.push(format!("prebuilt/{file} is not the component that was locked"));
        }
        if sources_digest(name) != field(&entry, "sources") {
            findings.push(format!("prebuilt/{file} is stale: its sources have changed since it was built"));
        }
    }
    none(&findings, ADVICE);
}

#[test]
fn the_lock_the_folder_and_the_guests_name_the_same_components() {
    let entries = locked();
    let locked: BTreeSet<String> = entries.iter().map(|entry| field(entry, "file").to_owned()).collect();
    assert_eq!(locked.len(), entries.len(), "a component is locked twice");
    let present: BTreeSet<String> =
        files(PREBUILT, "wasm").iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(locked, present, "lock.toml and prebuilt/*.wasm differ. {ADVICE}");
    let workspace: toml::Table = text("guest-examples/Cargo.toml").parse().unwrap();
    let guests = workspace["workspace"]["default-members"].as_array().unwrap();
    let guests: BTreeSet<String> =
        guests.iter().map(|guest| format!("{}.wasm", guest.as_str().unwrap())).collect();
    assert_eq!(locked, guests, "lock.toml and the guests differ. {ADVICE}");
}

/// The folder of the manifest that a file belongs to: components are named from there.
fn policy_folder(path: &str) -> &str {
    let mut folder = path;
    while let Some((parent, _)) = folder.rsplit_once('/') {
        if root().join(parent).join("govrun.toml").is_file() {
            return parent;
        }
        folder = parent;
    }
    panic!("{path} belongs to no policy");
}

#[test]
fn the_policies_register_the_components_as_they_are() {
    let (mut findings, mut checked) = (Vec::new(), 0);
    for path in files("policies", "toml") {
        let policy: toml::Table = text(&path).parse().unwrap();
        let tools = policy.get("tool").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        for tool in tools {
            let Some(component) = tool.get("component").and_then(toml::Value::as_str) else { continue };
            let digest = tool["digest"].as_str().unwrap();
            let folder = policy_folder(&path);
            let actual = format!("b3:{}", blake3::hash(&bytes(&format!("{folder}/{component}"))));
            checked += 1;
            if digest != actual {
                findings.push(format!(
                    "{path}: the digest of {component} is {digest}\n  put: digest = \"{actual}\""
                ));
            }
        }
    }
    assert!(checked > 0, "no policy names a component");
    none(&findings, "A [[tool]] runs only with the digest of its bytes.");
}

#[test]
fn no_component_names_a_folder_of_the_machine_it_was_built_on() {
    let mut findings = Vec::new();
    for path in files(PREBUILT, "wasm") {
        let content = bytes(&path);
        findings.extend(machine_paths(&content).into_iter().map(|found| format!("{path}: {found}")));
    }
    none(
        &findings,
        "build.sh remaps the paths of the home, the toolchain and the sources; one has got past it.",
    );
}

/// Text that looks like somebody's home or working folder.
fn machine_paths(content: &[u8]) -> Vec<String> {
    let content = String::from_utf8_lossy(content);
    let mut found = Vec::new();
    for prefix in ["/work/", "/root/", "/home/", "/Users/", "C:\\Users\\"] {
        for (at, _) in content.match_indices(prefix) {
            let (_, tail) = content.split_at(at);
            let path: String =
                tail.chars().take_while(|c| !c.is_control() && *c != '\u{fffd}').take(60).collect();
            if path.chars().nth(prefix.len()).is_some_and(|c| c.is_alphanumeric() || c == '.') {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_machine_path_is_found_in_bytes() {
    assert_eq!(machine_paths(b"\0\xff/home/ada/x.rs\0").len(), 1);
    assert_eq!(machine_paths(b"/work/main/a.rs /root/.cargo/b.rs").len(), 2);
    assert!(machine_paths(b"/cargo/registry /rustc/library /guests/notes /home/ ").is_empty());
}
