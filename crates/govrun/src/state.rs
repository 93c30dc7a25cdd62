//! The state directory: keys, log and store of one installation.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_audit::{Approver, ApproverKey, Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_host::{CompileCache, Gate, GateError, Parts, Runtime, Tool, Webhooks, Who};
use govrun_policy::{Policy, Webhook};
use govrun_verdict::Agent;

use crate::exit::{Exit, Failure};
use crate::wait::{Tickets, executor, interrupted};

/// Origin of the logs of an installation that was not given another one.
const DEFAULT_ORIGIN: &str = "govrun.local/log";

/// Longest part of an unknown agent's name that a record keeps, in characters.
const MAX_UNKNOWN_NAME: usize = 64;

/// Where everything of one installation lives.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// The directory given, or `$XDG_STATE_HOME/govrun`, or `~/.local/state/govrun`.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the ambient environment")]
    pub(crate) fn find(given: Option<PathBuf>) -> Result<Self, Failure> {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|v| v.starts_with('/')).map(PathBuf::from);
        given
            .or_else(|| variable("XDG_STATE_HOME").map(|d| d.join("govrun")))
            .or_else(|| variable("HOME").map(|d| d.join(".local/state/govrun")))
            .map(Self)
            .ok_or_else(|| {
                Failure::new(Exit::Usage, "no state directory: pass --state DIR or set GOVRUN_STATE")
            })
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// This directory.
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Make the key of an approver and list it in the trust file.
    pub(crate) fn add_approver(&self, name: &str, roles: Vec<String>) -> Result<Exit, Failure> {
        self.load_keys()?;
        self.make_approver(name, roles)?;
        println!("{} may approve; its key is in {}", name, self.keys().display());
        Ok(Exit::Ok)
    }

    /// The same beside keys that are there.
    pub(crate) fn make_approver(&self, name: &str, roles: Vec<String>) -> Result<(), Failure> {
        let configuration = |e: &dyn std::fmt::Display| Failure::new(Exit::Configuration, e);
        let mut trust = Trust::load(&self.trust()).map_err(|e| configuration(&e))?;
        let key = ApproverKey::generate(&self.keys(), name).map_err(|e| configuration(&e))?;
        let roles = roles.iter().map(|r| r.strip_prefix("role:").unwrap_or(r).to_owned()).collect();
        trust.approvers.push(Approver { name: name.to_owned(), key: key.verifier().clone(), roles });
        trust.save(&self.trust()).map_err(|e| configuration(&e))
    }

    /// Who may approve, and whose logs to believe.
    pub(crate) fn trust(&self) -> PathBuf {
        self.keys().join("trust.toml")
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.0.join("audit")
    }

    /// The keys; made on first use, but never beside a log that other keys signed.
    pub(crate) fn load_keys(&self) -> Result<KeyStore, Failure> {
        let folder = self.keys();
        if folder.join("genesis.cert").exists() || self.has_log() {
            return KeyStore::load(&folder).map_err(|e| Failure::new(Exit::Configuration, e));
        }
        let keys = self.init_keys(DEFAULT_ORIGIN)?;
        eprintln!("govrun: made new signing keys in {}; move root.key offline", folder.display());
        Ok(keys)
    }

    pub(crate) fn init_keys(&self, origin: &str) -> Result<KeyStore, Failure> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(|e| {
            Failure::new(
                Exit::Configuration,
                format!("cannot make the state directory {}: {e}; pass --state DIR", self.0.display()),
            )
        })?;
        KeyStore::init(&self.keys(), origin).map_err(|e| Failure::new(Exit::Configuration, e))
    }

    /// Where compiled components are kept; `None` before there are keys, and where it cannot be used.
    pub(crate) fn cache(&self) -> Option<CompileCache> {
        if !self.keys().is_dir() {
            return None;
        }
        CompileCache::open(&self.0.join("cache"), &self.keys().join("cache.key"))
            .inspect_err(|error| eprintln!("govrun: components are compiled each time: {error}"))
            .ok()
    }

    /// True when a log was begun here.
    fn has_log(&self) -> bool {
        std::fs::read_dir(self.audit()).is_ok_and(|mut entries| entries.next().is_some())
    }
}

/// A policy folder that loads and is signed as it must be, or why not, every error with its place.
pub(crate) fn load_policy(state: &StateDir, folder: &Path) -> Result<Arc<Policy>, Failure> {
    let shown = folder.display();
    if !folder.is_dir() {
        let sentence = format!(
            "there is no policy folder `{shown}`, so nothing runs; pass the folder with govrun.toml in it"
        );
        return Err(Failure::new(Exit::Configuration, sentence));
    }
    let told = |e| Failure::new(Exit::Configuration, format!("the policy in `{shown}` does not load\n{e}"));
    let policy = Policy::load(folder).map(Arc::new).map_err(told)?;
    crate::policy::signed_policy(state, folder, &policy)?;
    Ok(policy)
}

/// Everything a governed call needs, opened in the order in which it fails closed.
pub(crate) struct Session {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) log: Log,
    waiting: Tickets,
}

impl Session {
    /// Open keys, log and store of `state`, and make a runtime with these tools.
    pub(crate) fn open(state: &StateDir, policy: Arc<Policy>, tools: Tools) -> Result<Self, Failure> {
        Self::open_with(state, state.path(), policy, tools, Gate::open)
    }

    /// The same for exercises: in the log of `state`, but with budgets and approvals of their own in `scratch`.
    pub(crate) fn open_for_drills(
        state: &StateDir,
        scratch: &Path,
        policy: Arc<Policy>,
        tools: Tools,
    ) -> Result<Self, Failure> {
        Self::open_with(state, scratch, policy, tools, Gate::open_for_drills)
    }

    fn open_with(
        state: &StateDir,
        store: &Path,
        policy: Arc<Policy>,
        tools: Tools,
        gate: impl FnOnce(Parts) -> Result<Arc<Gate>, GateError>,
    ) -> Result<Self, Failure> {
        let keys = state.load_keys()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let unavailable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
        let log = Log::open(&state.audit(), &keys, Arc::clone(&clock)).map_err(|e| unavailable(&e))?;
        let trust = Trust::load(&state.trust()).map_err(|e| Failure::new(Exit::Configuration, e))?;
        let store = Store::open(store).map_err(|e| unavailable(&e))?;
        let webhooks = webhooks(&policy)?;
        let waiting = Tickets::default();
        let parts = Parts {
            policy: Arc::clone(&policy),
            log: log.clone(),
            store,
            clock,
            trust,
            webhooks,
            waits: Box::new(waiting.clone()),
        };
        let gate = gate(parts).map_err(|e| unavailable(&e))?;
        let runtime =
            Runtime::new(tools.engine, gate, tools.list).map_err(|e| Failure::new(Exit::Runtime, e))?;
        Ok(Self { runtime, policy, log, waiting })
    }

    /// Drive a call to its end. An interrupt ends it where it stands: what it did is in the log, which is closed by the
    /// caller, and what it waits for stays to be decided.
    pub(crate) fn drive<T>(&self, call: impl Future<Output = T>) -> Result<T, Failure> {
        let executor = executor()?;
        executor.block_on(async {
            tokio::select! {
                answer = call => Ok(answer),
                signal = interrupted() => Err(match signal {
                    Ok(()) => self.waiting.interrupted(),
                    Err(e) => Failure::new(Exit::Runtime, format!("signals cannot be received: {e}")),
                }),
            }
        })
    }

    /// The registered agent of this name, or one that is refused, and recorded, as unknown.
    pub(crate) fn who(&self, agent: &str) -> Who {
        let agent = self.policy.agent(agent).unwrap_or_else(|| {
            let known: Vec<&str> = self.policy.agents().map(|a| &*a.name).collect();
            eprintln!("govrun: the policy registers these agents: {}", known.join(", "));
            let shown: String = agent.chars().filter(|c| !c.is_control()).take(MAX_UNKNOWN_NAME).collect();
            Arc::new(Agent { name: format!("unknown:{shown}").into(), tenant: None })
        });
        Who { session: Arc::clone(&agent.name), agent, hold: None }
    }

    /// Seal the log. Anything recorded so far verifies afterwards.
    pub(crate) fn close(&self) {
        if let Err(error) = self.log.close() {
            eprintln!("govrun: the log could not be closed: {error}; run `govrun audit verify`");
        }
    }
}

/// The URLs of the policy's notification targets; `env:NAME` is read here and nowhere else.
#[expect(
    clippy::disallowed_methods,
    reason = "secrets come by reference; this is where the reference is followed"
)]
fn webhooks(policy: &Policy) -> Result<Webhooks, Failure> {
    let used: BTreeSet<&Arc<str>> = policy.rules().flat_map(|rule| &rule.notify).collect();
    let mut webhooks = Webhooks::new();
    for target in used.into_iter().filter_map(|name| policy.notify(name)) {
        let url = match &target.webhook {
            Webhook::Url(url) => url.to_string(),
            Webhook::Env(name) => std::env::var(&**name).map_err(|_| {
                let sentence = format!(
                    "notify target `{}` needs the environment variable {name}; set it to the receiver's URL",
                    target.name
                );
                Failure::new(Exit::Configuration, sentence)
            })?,
        };
        let parsed =
            govrun_host::webhook(&target.name, &url).map_err(|e| Failure::new(Exit::Configuration, e))?;
        webhooks.insert(Arc::clone(&target.name), parsed);
    }
    Ok(webhooks)
}

/// Loaded components with the engine that compiled them.
pub(crate) struct Tools {
    pub(crate) engine: govrun_host::wasmtime::Engine,
    pub(crate) list: Vec<Tool>,
}
