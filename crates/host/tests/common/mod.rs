//! A runtime over a policy that permits everything, with the limits that a test asks for.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part; a test fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;

use govrun_audit::verify::{Level, verify};
use govrun_audit::{Clock, KeyStore, Log, SystemClock, Trust};
use govrun_control::Store;
use govrun_host::arguments::Given;
use govrun_host::component::{Inspected, LoadError};
use govrun_host::wasmtime::component::Val;
use govrun_host::{CallError, Gate, Offers, Parts, Runtime, Tool, Webhooks, Who, engine};
use govrun_policy::{Policy, SourceFile, Sources};

pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) log: Log,
    pub(crate) who: Who,
    pub(crate) executor: tokio::runtime::Runtime,
}

/// A policy of one file.
pub(crate) fn policy(text: &str) -> Arc<Policy> {
    let files = vec![SourceFile { path: "govrun.toml".into(), text: text.into() }];
    Arc::new(Policy::compile(&Sources { files }).unwrap_or_else(|e| unreachable!("{e}")))
}

pub(crate) fn everything(more: &str) -> String {
    format!(
        "schema = 1\n[env.test]\n[[agent]]\nname = \"a\"\n[[agent]]\nname = \"b\"\n\
         [[rule]]\nid = \"everything\"\nmatch = {{ action = \"*\" }}\nverdict = \"allow\"\n{more}\n"
    )
}

pub(crate) fn world(more: &str) -> World {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let keys = KeyStore::init(&at("keys"), "test.govrun.local/log").unwrap();
    let trust = Trust::load(&at("keys/trust.toml")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&at("audit"), &keys, Arc::clone(&clock)).unwrap();
    let policy = policy(&everything(more));
    let agent = policy.agent("a").unwrap();
    let store = Store::open(&at("state")).unwrap();
    let waits = Box::new(());
    let parts = Parts { policy, log: log.clone(), store, clock, trust, webhooks: Webhooks::new(), waits };
    let gate = Gate::open(parts).unwrap();
    let runtime = Runtime::new(engine().unwrap(), gate, Vec::new()).unwrap();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    World { root, runtime, log, who: Who { agent, session: "s".into(), hold: None }, executor }
}

impl World {
    pub(crate) fn load(&self, text: &str) -> Result<Inspected, LoadError> {
        let bytes = wat::parse_str(text).unwrap_or_else(|e| unreachable!("{e}"));
        Inspected::from_bytes(self.runtime.engine(), None, Path::new("guest.wat"), &bytes)
    }

    pub(crate) fn tool(&self, text: &str) -> Tool {
        let component = self.load(text).and_then(Inspected::admit).unwrap_or_else(|e| unreachable!("{e}"));
        Tool { name: "guest".into(), component, offers: Offers::default() }
    }

    /// A call of a function without parameters, to be awaited.
    pub(crate) fn begin(
        &self,
        tool: &Tool,
        function: &'static str,
    ) -> impl Future<Output = Result<Option<Val>, CallError>> + Send + 'static {
        let (runtime, who, tool) = (Arc::clone(&self.runtime), self.who.clone(), tool.clone());
        async move {
            let call = format!("{function}()");
            runtime.call(&who, &tool, function, Given::Wave(&call)).await.map(|answer| answer.value)
        }
    }

    pub(crate) fn call(&self, tool: &Tool, function: &'static str) -> Result<Option<Val>, CallError> {
        self.executor.block_on(self.begin(tool, function))
    }

    /// So many calls at once, and how each ended.
    pub(crate) fn together(&self, tool: &Tool, count: usize) -> Vec<String> {
        self.executor.block_on(async {
            let tasks: Vec<_> = (0..count).map(|_| tokio::spawn(self.begin(tool, "f"))).collect();
            let mut ended = Vec::new();
            for task in tasks {
                ended.push(match task.await.unwrap() {
                    Ok(value) => format!("{value:?}"),
                    Err(error) => error.to_string(),
                });
            }
            ended
        })
    }

    /// Everything in the log, as text.
    pub(crate) fn records(&self) -> String {
        self.log.seal().unwrap();
        let mut text = String::new();
        let mut folders = vec![self.root.path().join("audit")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
                }
            }
        }
        text
    }

    pub(crate) fn verifies(&self) {
        let _ = self.log.close();
        let trust = Trust::load(&self.root.path().join("keys/trust.toml")).unwrap();
        let report = verify(&self.root.path().join("audit"), &trust, Level::L2);
        assert_eq!(report.exit_code(), 0, "{report}");
    }
}
