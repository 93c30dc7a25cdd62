//! `govrun demo`: the five verdicts on real components, from the log that proves them.

mod services;
mod site;
mod transcript;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use govrun_audit::Trust;
use govrun_audit::verify::{Level, verify};
use govrun_control::{Filter, Store};
use govrun_host::arguments::Given;
use govrun_host::{Answer, CallError, Runtime};

use self::services::Service;
use self::site::Site;
use self::transcript::{Entry, Scene, micros};
use crate::exit::{Exit, Failure};
use crate::state::{self, Session, StateDir, Tools};
use crate::tools::Loader;

/// Calls of the runaway search loop.
const SEARCHES: u64 = 4_800;

/// The demo as it runs.
struct Demo {
    site: Site,
    state: StateDir,
    session: Session,
    executor: tokio::runtime::Runtime,
    ledger: Service,
    oncall: Service,
    next: u64,
}

/// Run the demo in `folder`, which is kept, or in a temporary one.
pub(crate) fn run(folder: Option<PathBuf>) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let temporary = match &folder {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|e| Failure::new(Exit::Runtime, e))?),
    };
    let root = match (&folder, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Failure::new(Exit::Runtime, "no folder for the demo")),
    };
    if root.join("audit").exists() {
        let sentence = format!("`{}` holds a demo already; pass a new --dir or remove it", root.display());
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let mut demo = Demo::start(&root)?;
    let passed = demo.scenes()?;
    println!("\ndone in {}", micros(micros_since(begun)));
    if let Some(folder) = folder {
        let folder = folder.display();
        println!("left for a look: {folder}/policies, {folder}/audit, {folder}/trust.toml");
    }
    Ok(if passed { Exit::Ok } else { Exit::Check })
}

fn micros_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn runtime_failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Runtime, error)
}

impl Demo {
    fn start(root: &Path) -> Result<Self, Failure> {
        let ledger = Service::start("payment accepted, reference L-1").map_err(runtime_failure)?;
        let oncall = Service::start("thanks").map_err(runtime_failure)?;
        std::fs::create_dir_all(root).map_err(runtime_failure)?;
        let root = root.canonicalize().map_err(runtime_failure)?;
        let site = Site::write(&root, ledger.port, oncall.port)?;
        let state = StateDir::at(root);
        state.init_keys("demo.govrun.local/log")?;
        state.make_approver("erin", vec!["treasury".to_owned()])?;
        std::fs::copy(state.trust(), site.root.join("trust.toml")).map_err(runtime_failure)?;
        let policy = state::load_policy(&state, &site.policies())?;
        let engine = govrun_host::engine().map_err(runtime_failure)?;
        let folder = site.policies();
        let loader = Loader { engine: &engine, cache: state.cache(), policy: &policy, folder: &folder };
        let list = loader.registered()?;
        let session = Session::open(&state, policy, Tools { engine, list })?;
        let executor = crate::wait::executor()?;
        Ok(Self { site, state, session, executor, ledger, oncall, next: 0 })
    }

    /// All of them; true when each went as it must.
    fn scenes(&mut self) -> Result<bool, Failure> {
        self.scene()?;
        let scenes = [
            Self::allowed_read,
            Self::injected_invoice,
            Self::runaway_search,
            Self::sandboxed_report,
            Self::escalated_payment,
            Self::innocent_helper,
            Self::verified_log,
        ];
        let mut passed = true;
        for scene in scenes {
            passed &= scene(self)?;
        }
        Ok(passed)
    }

    fn call(&self, agent: &str, tool: &str, function: &str, call: &str) -> Result<Answer, CallError> {
        let unknown = || CallError::NoFunction {
            component: tool.to_owned(),
            function: function.to_owned(),
            known: "none".to_owned(),
        };
        let who = self.session.who(agent);
        let found = self.session.runtime.tools().find(|t| &*t.name == tool).cloned().ok_or_else(unknown)?;
        let runtime: Arc<Runtime> = Arc::clone(&self.session.runtime);
        self.executor.block_on(runtime.call(&who, &found, function, Given::Wave(call)))
    }

    /// The records since the last scene.
    fn scene(&mut self) -> Result<Scene, Failure> {
        self.session.log.seal().map_err(|e| Failure::new(Exit::Dependency, e))?;
        let (scene, next) = Scene::read(&self.state.audit(), self.next)?;
        self.next = next;
        Ok(scene)
    }

    fn allowed_read(&mut self) -> Result<bool, Failure> {
        title("a", "an allowed read");
        let read = self.call("finance-1", "notes", "read", r#"read("inv-001")"#);
        let scene = self.scene()?;
        show(&scene.lines(|r| r.decided("tool.call")));
        Ok(check("the note was read", read.is_ok()))
    }

    fn injected_invoice(&mut self) -> Result<bool, Failure> {
        title(
            "b",
            "an invoice carries an injected instruction; the agent obeys it, and goes on with its work",
        );
        let task = r#"run("invoices: inv-001, inv-002")"#;
        let report = self.call("finance-1", "invoice-agent", "run", task);
        let scene = self.scene()?;
        show(&scene.lines(|r| r.decided("tool.call")));
        let report = report.map(|a| format!("{:?}", a.value)).unwrap_or_default();
        let paid = self.ledger.bodies();
        let told = report.contains("PAY-OFFLIST-COUNTERPARTY");
        let pages = self.pages();
        Ok(check("the agent was told why", told)
            & check("the ledger never saw Helix", !paid.iter().any(|body| body.contains("Helix")))
            & check("the two payments that were due are at the ledger", paid.len() == 2)
            & check("the on-call webhook received a page", pages == 1))
    }

    fn pages(&self) -> usize {
        // The page is sent beside the call's path: give it a moment.
        for _ in 0..100 {
            if !self.oncall.bodies().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.oncall.bodies().len()
    }

    fn runaway_search(&mut self) -> Result<bool, Failure> {
        title("c", "a search loop of 4,800 calls against 600 an hour");
        let task = format!(r#"run("search {SEARCHES} times for supplier risk")"#);
        let ran = self.call("research-1", "research-agent", "run", &task);
        let scene = self.scene()?;
        let calls: Vec<&Entry> =
            scene.all().iter().filter(|r| r.decided("tool.call") && r.tool() == "web.search").collect();
        let allowed = calls.iter().filter(|r| r.verdict() == "allow").count();
        let throttled = calls.iter().filter(|r| r.verdict() == "throttle").count();
        let first = calls.iter().position(|r| r.verdict() == "throttle");
        let shown: Vec<&str> = [calls.first(), first.and_then(|at| calls.get(at))]
            .into_iter()
            .flatten()
            .map(|r| r.id.as_str())
            .collect();
        show(&scene.lines(|r| shown.contains(&r.id.as_str())));
        println!(
            "           {allowed} allowed, {throttled} throttled, the first at call {}",
            first.map_or(0, |n| n + 1)
        );
        if let (Some(begun), Some(refused)) = (calls.first(), first.and_then(|at| calls.get(at))) {
            // Exactly when the oldest admission leaves the window.
            let wait = begun.at().saturating_add(3_600_000_000).saturating_sub(refused.at());
            println!("           retry after {} ms", wait.div_ceil(1_000));
        }
        Ok(check("the loop ran to its end", ran.is_ok())
            & check(
                "exactly 600 were allowed and call 601 was the first refused",
                (allowed, first) == (600, Some(600)),
            )
            & check("all the others were throttled", throttled == 4_200))
    }

    fn sandboxed_report(&mut self) -> Result<bool, Failure> {
        title("d", "a report tool in a sandbox: it reads what is real and changes only copies");
        let before = self.site.data_digest()?;
        let ran = self.call("reports-1", "reporting", "monthly", r#"monthly("2026-10")"#);
        let scene = self.scene()?;
        show(&scene.lines(|r| r.decided("tool.call") || r.refused()));
        let egress = scene.all().iter().any(|r| r.decided("http.request") && r.refused());
        let absorbed = scene.lines(|r| r.decided("tool.call")).iter().any(|line| line.contains("absorbed"));
        Ok(check("the report was made", ran.as_ref().is_ok_and(|a| a.sandboxed))
            & check("its writes are listed", absorbed)
            & check(
                "files and database are byte for byte what they were",
                self.site.data_digest()? == before,
            )
            & check("its request to the outside was refused", egress))
    }

    fn escalated_payment(&mut self) -> Result<bool, Failure> {
        title("e", "a $12,000 payment waits until a second process approves it");
        let before = self.ledger.bodies().len();
        let root = self.state.path().to_owned();
        let approver = std::thread::spawn(move || approve(&root));
        let paid = self.call("finance-1", "payments", "send", r#"send("Fabrikam Tools", 12000)"#);
        let approved = approver.join().unwrap_or(false);
        let scene = self.scene()?;
        show(&scene.lines(|r| r.decided("tool.call")));
        show(&scene.approvals());
        Ok(check("another process approved it", approved)
            & check("it was executed once", paid.is_ok() && self.ledger.bodies().len() == before + 1))
    }

    fn innocent_helper(&mut self) -> Result<bool, Failure> {
        title("f", "a helper with innocent arguments contacts a forbidden host");
        let ran = self.call("finance-1", "helper", "summarize", r#"summarize("a quiet quarter")"#);
        let scene = self.scene()?;
        show(&scene.lines(|r| r.decided("tool.call") || r.refused()));
        let refused = scene.all().iter().any(|r| r.decided("http.request") && r.verdict() == "block");
        let _ = ran;
        Ok(check("it was blocked at its import", refused))
    }

    fn verified_log(&mut self) -> Result<bool, Failure> {
        title("g", "the log verifies, until one byte is flipped");
        self.session.close();
        let trust = Trust::load(&self.state.trust()).map_err(runtime_failure)?;
        let report = verify(&self.state.audit(), &trust, Level::L2);
        print!("{}", indented(&report.to_string()));
        let copy = tempfile::tempdir().map_err(runtime_failure)?;
        flip_one_byte(&self.state.audit(), copy.path()).map_err(runtime_failure)?;
        let flipped = verify(copy.path(), &trust, Level::L2);
        println!("           one byte flipped in a copy:");
        for finding in flipped.logs.iter().flat_map(|log| &log.findings) {
            print!("{}", indented(&finding.to_string()));
        }
        Ok(check("the log verifies", report.exit_code() == 0)
            & check("the copy does not", flipped.exit_code() == 1))
    }
}

/// What a person with the treasury's key does in another terminal.
fn approve(root: &Path) -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let Ok(store) = Store::open(root) else { return false };
    for _ in 0..500 {
        let now = govrun_audit::Clock::now(&govrun_audit::SystemClock);
        let waiting = now.ok().and_then(|now| store.list(Filter::Pending, now, 1).ok());
        if let Some(approval) = waiting.unwrap_or_default().first() {
            let answered = Command::new(program)
                .arg("--state")
                .arg(root)
                .args(["approvals", "approve", approval.id.as_str(), "--as", "erin"])
                .output();
            return answered.is_ok_and(|out| out.status.success());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn flip_one_byte(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut flipped = false;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let folder = to.join(entry.file_name());
        std::fs::create_dir(&folder)?;
        for file in std::fs::read_dir(entry.path())? {
            let file = file?;
            let mut bytes = std::fs::read(file.path())?;
            // One letter of what the log says about the blocked payment.
            let at = find(&bytes, b"\"verdict\":\"block\"").map_or(usize::MAX, |at| at.saturating_add(11));
            if file.path().extension().is_some_and(|e| e == "jsonl")
                && file.file_name() != "openings.jsonl"
                && let Some(byte) = bytes.get_mut(at)
                && !flipped
            {
                *byte ^= 1;
                flipped = true;
            }
            std::fs::write(folder.join(file.file_name()), bytes)?;
        }
    }
    Ok(())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn title(letter: &str, text: &str) {
    println!("\n({letter}) {text}");
}

fn show(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}

fn check(what: &str, holds: bool) -> bool {
    println!("           {} {what}", if holds { "✔" } else { "✘" });
    holds
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("           {line}\n")).collect()
}
