//! What a reload, a stop order and a change that does not matter do to what is held.

use std::sync::Arc;

use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_policy::{Policy, SourceFile, Sources};
use govrun_verdict::{Agent, Call, Digest, FsOp, Operation, ToolRef};

use super::{Gate, Parts, ReloadError};
use crate::notify::Webhooks;

const READ: &str =
    "[[rule]]\nid = \"read\"\nmatch = { action = \"fs.read\", path = \"/data/**\" }\nverdict = \"allow\"\n";
const OTHER: &str =
    "[[rule]]\nid = \"other\"\nmatch = { action = \"fs.write\", path = \"/x/**\" }\nverdict = \"allow\"\n";

fn policy(env: &str, agent: &str, rules: &str) -> Arc<Policy> {
    let text = format!("schema = 1\n[env.{env}]\n[[agent]]\nname = \"{agent}\"\n{rules}");
    let files = vec![SourceFile { path: "govrun.toml".into(), text: text.as_str().into() }];
    Arc::new(Policy::compile(&Sources { files }).unwrap_or_else(|e| panic!("{e}")))
}

struct World {
    root: tempfile::TempDir,
    gate: Arc<Gate>,
    log: Log,
}

fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let keys = KeyStore::init(&root.path().join("keys"), "test.govrun.local/log").unwrap();
    let trust = Trust::load(&root.path().join("keys/trust.toml")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&root.path().join("audit"), &keys, Arc::clone(&clock)).unwrap();
    let store = Store::open(&root.path().join("state")).unwrap();
    let (policy, waits) = (policy("test", "a", READ), Box::new(()));
    let parts = Parts { policy, log: log.clone(), store, clock, trust, webhooks: Webhooks::new(), waits };
    World { gate: Gate::open(parts).unwrap(), root, log }
}

fn call() -> Call {
    Call {
        agent: Arc::new(Agent { name: "a".into(), tenant: None }),
        env: "test".into(),
        session: "s".into(),
        tool: Arc::new(ToolRef { name: "t.f".into(), component: Digest::of(b"t") }),
        caller: None,
        parent: None,
        operation: Operation::Fs { op: FsOp::Read, path: "/data/x".into() },
    }
}

impl World {
    fn reload(&self, env: &str, agent: &str, rules: &str) -> Result<(), ReloadError> {
        self.gate.reload(policy(env, agent, rules), Webhooks::new())
    }

    fn recorded(&self, word: &str) -> usize {
        self.log.seal().unwrap();
        let (mut count, mut folders) = (0, vec![self.root.path().join("audit")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    let text = std::fs::read(entry.path()).unwrap();
                    count += String::from_utf8_lossy(&text).matches(word).count();
                }
            }
        }
        count
    }
}

#[test]
fn what_is_held_is_refused_at_the_next_use_when_a_policy_takes_it_away() {
    let world = world();
    let held = world.gate.admit_now(&call(), None).ok().unwrap();
    assert!(held.live().is_ok());
    world.reload("test", "a", &format!("{READ}{OTHER}")).unwrap();
    assert!(held.live().is_ok(), "the other rule does not concern it");
    world.reload("test", "a", OTHER).unwrap();
    let refusal = held.live().unwrap_err();
    assert_eq!(refusal.reason.to_string(), "GRANT-REVOKED");
    assert!(refusal.decision.is_some(), "on the record");
    world.reload("test", "a", READ).unwrap();
    let again = held.live().unwrap_err();
    assert_eq!(again.decision, refusal.decision, "gone for good, recorded once");
    assert!(world.gate.admit_now(&call(), None).is_ok(), "a new one is given");
    held.finish(&crate::grant::Outcome::ok());
    assert_eq!(world.recorded("\"GRANT-REVOKED\""), 2, "the refusal, and the outcome of what was held");
}

#[test]
fn tighter_obligations_and_a_lost_registration_take_it_away_too() {
    let world = world();
    let held = world.gate.admit_now(&call(), None).ok().unwrap();
    let tighter = READ.replace("verdict = \"allow\"", "verdict = \"allow\"\nlimits = { deadline = \"1s\" }");
    world.reload("test", "a", &tighter).unwrap();
    assert_eq!(held.live().unwrap_err().reason.to_string(), "GRANT-REVOKED");
    let held = world.gate.admit_now(&call(), None).ok().unwrap();
    world.reload("test", "b", &tighter).unwrap();
    assert_eq!(held.live().unwrap_err().reason.to_string(), "GRANT-REVOKED");
    let refused = world.gate.admit_now(&call(), None).err().unwrap();
    assert_eq!(refused.reason.to_string(), "AGENT-UNKNOWN");
}

#[test]
fn a_stop_order_ends_what_is_held_and_what_is_asked_for() {
    let world = world();
    let held = world.gate.admit_now(&call(), None).ok().unwrap();
    world.gate.stop(&"somebody-else".into());
    assert!(held.live().is_ok());
    world.gate.stop(&"a".into());
    assert_eq!(held.live().unwrap_err().reason.to_string(), "AGENT-STOPPED");
    assert_eq!(world.gate.admit_now(&call(), None).err().unwrap().reason.to_string(), "AGENT-STOPPED");
    world.gate.resume("a");
    assert!(held.live().is_err(), "what it held stays refused");
    assert!(world.gate.admit_now(&call(), None).is_ok());
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let world = world();
    let held = world.gate.admit_now(&call(), None).ok().unwrap();
    let before = world.gate.policy().epoch();
    let error = world.reload("production", "a", OTHER).unwrap_err();
    assert!(matches!(error, ReloadError::Environment { .. }), "{error}");
    assert!(world.gate.policy().epoch() == before && held.live().is_ok());
    world.log.close().unwrap();
    let error = world.reload("test", "a", OTHER).unwrap_err();
    assert!(matches!(error, ReloadError::Log(_)), "{error}");
    assert!(world.gate.policy().epoch() == before && held.live().is_ok());
}

#[test]
fn every_decision_names_the_policy_that_made_it() {
    let world = world();
    drop(world.gate.admit_now(&call(), None));
    let next = policy("test", "a", &format!("{READ}{OTHER}"));
    world.gate.reload(Arc::clone(&next), Webhooks::new()).unwrap();
    drop(world.gate.admit_now(&call(), None));
    let epoch = next.epoch().to_string();
    assert!(world.recorded(&epoch) >= 2, "in the record of the change and in that of the decision");
}
