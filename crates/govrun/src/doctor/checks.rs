//! What an installation needs: directory, keys, trust, store, space, time and policy.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use govrun_audit::{Clock as _, KeyStore, SystemClock, Trust};
use govrun_control::Store;
use govrun_policy::{Policy, ToolEntry};
use govrun_verdict::Mode;

use super::Area::{Configuration, Dependency};
use super::Check;
use crate::state::{StateDir, load_policy};
use crate::text::time;

const MIB: u64 = 1 << 20;
/// Below this, in bytes, the disk is nearly full.
const LITTLE_SPACE: u64 = 1024 * MIB;
/// Below this, in bytes, records can hardly be written.
const NO_SPACE: u64 = 64 * MIB;

/// Directory, keys, trust file and store.
pub(super) fn installation(state: &StateDir) -> Vec<Check> {
    if !state.path().exists() {
        let found = format!("{} does not exist", state.path().display());
        return vec![Check::warn(
            "state",
            Configuration,
            found,
            "it is made on first use, with keys and store",
        )];
    }
    vec![directory(state.path()), keys(state), root_key(state), trust(state), store(state)]
}

fn directory(path: &Path) -> Check {
    let shown = path.display();
    match path.metadata() {
        Ok(meta) if !meta.is_dir() => {
            Check::fail("state", Configuration, format!("{shown} is not a directory"), "pass --state DIR")
        }
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let mode = meta.permissions().mode() & 0o777;
            let next = format!("run: chmod 700 {shown}");
            // Files that must be secret are private each for itself; a name that others may replace protects nothing.
            if mode & 0o022 == 0 {
                let found = format!("{shown} can be listed by other users (mode {mode:o})");
                return Check::warn("state", Configuration, found, next);
            }
            let found = format!("{shown} can be changed by other users (mode {mode:o})");
            Check::fail("state", Configuration, found, next)
        }
        Ok(_) => Check::ok("state", Configuration, format!("{shown}, mode 700")),
        Err(e) => Check::fail("state", Configuration, format!("{shown}: {e}"), "pass another --state DIR"),
    }
}

fn keys(state: &StateDir) -> Check {
    let folder = state.keys();
    if !folder.exists() && !state.audit().exists() {
        return Check::warn(
            "keys",
            Configuration,
            format!("{} does not exist", folder.display()),
            "they are made on first use, or by `govrun keys init`",
        );
    }
    match KeyStore::load(&folder) {
        Ok(keys) => Check::ok("keys", Configuration, format!("they load, origin {}", keys.origin())),
        Err(e) => {
            Check::fail("keys", Configuration, e.to_string(), "restore the keys that signed these logs")
        }
    }
}

fn root_key(state: &StateDir) -> Check {
    let path = state.keys().join("root.key");
    if path.exists() {
        let found = format!("{} is on this machine", path.display());
        return Check::warn("root key", Configuration, found, "move it offline: it is not needed again");
    }
    Check::ok("root key", Configuration, "not on this machine")
}

fn trust(state: &StateDir) -> Check {
    let path = state.trust();
    if !path.exists() && !state.keys().exists() {
        return Check::warn("trust", Configuration, "there is no trust file", "it is made with the keys");
    }
    match Trust::load(&path) {
        Ok(trust) => Check::ok(
            "trust",
            Configuration,
            format!("{}, {} approvers", trust.origin, trust.approvers.len()),
        ),
        Err(e) => Check::fail("trust", Configuration, e.to_string(), "restore it, or correct what it says"),
    }
}

fn store(state: &StateDir) -> Check {
    let path = state.path().join("state.db");
    // Opening would make it.
    if !path.exists() {
        let found = format!("{} does not exist", path.display());
        return Check::warn("store", Dependency, found, "it is made on first use");
    }
    match Store::open(state.path()).and_then(|store| store.check()) {
        Ok(()) => Check::ok("store", Dependency, "budgets and approvals can be used, the file is sound"),
        Err(e) => {
            Check::fail("store", Dependency, e.to_string(), "restore it from a copy; it is never replaced")
        }
    }
}

/// Room on the disk of the state directory, or of the nearest directory that exists.
pub(super) fn space(state: &StateDir) -> Check {
    let there = state.path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} MiB free at {}", free / MIB, there.display());
            match free {
                0..NO_SPACE => Check::fail(
                    "disk",
                    Dependency,
                    found,
                    "free some: calls are refused when records cannot be written",
                ),
                NO_SPACE..LITTLE_SPACE => Check::warn("disk", Dependency, found, "free some soon"),
                LITTLE_SPACE.. => Check::ok("disk", Dependency, found),
            }
        }
        Err(e) => {
            Check::fail("disk", Dependency, format!("{}: {e}", there.display()), "check the file system")
        }
    }
}

/// A clock that records can be dated by.
pub(super) fn clock() -> Check {
    match SystemClock.now() {
        Ok(now) => Check::ok("clock", Dependency, time(now.0)),
        Err(e) => Check::fail("clock", Dependency, e.to_string(), "set the clock of this machine"),
    }
}

/// The policy folder, and the component file of each of its tools.
pub(super) fn policy(state: &StateDir, folder: &Path) -> Vec<Check> {
    let policy = match load_policy(state, folder) {
        Ok(policy) => policy,
        Err(e) => {
            let said = e.to_string();
            let first = said.lines().next().unwrap_or_default().to_owned();
            let next = format!("`govrun policy check {}` shows every error", folder.display());
            return vec![Check::fail("policy", Configuration, first, next)];
        }
    };
    let mut checks = vec![Check::ok("policy", Configuration, counts(&policy))];
    match folder.canonicalize() {
        Ok(base) => checks.extend(policy.tools().map(|entry| tool(&entry.resolve(&base)))),
        Err(e) => checks.push(Check::fail("policy", Configuration, e.to_string(), "pass the policy folder")),
    }
    checks
}

fn counts(policy: &Policy) -> String {
    let of_mode = |mode| policy.rules().filter(|rule| rule.mode == mode).count();
    format!(
        "{} rules ({} enforced, {} in part, {} in shadow), {} agents, {} tools, env {}, epoch {}",
        policy.rules().len(),
        of_mode(Mode::Enforce),
        of_mode(Mode::Canary),
        of_mode(Mode::Shadow),
        policy.agents().count(),
        policy.tools().count(),
        policy.env(),
        policy.epoch()
    )
}

fn tool(entry: &ToolEntry) -> Check {
    let name = &entry.name;
    let Some(path) = &entry.component else {
        return Check::ok("tool", Configuration, format!("`{name}` names no component file"));
    };
    let engine = match govrun_host::engine() {
        Ok(engine) => engine,
        Err(e) => {
            return Check::fail("tool", Dependency, e.to_string(), "this machine cannot run components");
        }
    };
    match govrun_host::component::Inspected::load(&engine, None, path) {
        Ok(found) if found.digest != entry.digest => Check::fail(
            "tool",
            Configuration,
            format!(
                "`{name}` ({}) has the digest {}, registered is {}",
                path.display(),
                found.digest,
                entry.digest
            ),
            format!("restore the file, or update {} if the change is wanted", entry.origin),
        ),
        Ok(found) => match found.admit() {
            Ok(_) => Check::ok("tool", Configuration, format!("`{name}` is the registered component")),
            Err(e) => Check::fail("tool", Configuration, format!("`{name}`: {e}"), "see `govrun inspect`"),
        },
        Err(e) => {
            Check::fail("tool", Configuration, format!("`{name}`: {e}"), format!("correct {}", entry.origin))
        }
    }
}
