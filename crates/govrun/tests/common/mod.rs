//! What the end-to-end tests share: the real binary, the shipped policies, a ledger.

#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn component(name: &str) -> String {
    root().join("guest-examples/prebuilt").join(name).display().to_string()
}

pub(crate) fn command(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_govrun"));
    command.arg("--state").arg(state).args(args);
    command
}

pub(crate) fn govrun(state: &Path, args: &[&str]) -> Output {
    command(state, args).output().unwrap()
}

pub(crate) fn call(state: &Path, policy: &Path, agent: &str, wasm: &str, call: &str) -> Output {
    let policy = policy.display().to_string();
    govrun(state, &["call", "--policy", &policy, "--agent", agent, &component(wasm), call])
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn records(state: &Path) -> Vec<serde_json::Value> {
    let shown = govrun(state, &["audit", "show"]);
    text(&shown.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn of_type(records: &[serde_json::Value], kind: &str) -> usize {
    records.iter().filter(|r| r["t"] == kind).count()
}

/// The shipped policies with the ledger at another port.
pub(crate) fn policies_with_ledger(folder: &Path, port: u16) -> PathBuf {
    let copy = folder.join("policies");
    for file in [
        "govrun.toml",
        "finance/agents.toml",
        "finance/payments.toml",
        "finance/lists/counterparties.txt",
        "research/search.toml",
    ] {
        let content = std::fs::read_to_string(root().join("policies").join(file)).unwrap();
        let content = content.replace("8901", &port.to_string());
        let prebuilt = root().join("guest-examples").canonicalize().unwrap().display().to_string();
        let content = content.replace("../guest-examples", &prebuilt);
        let to = copy.join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, content).unwrap();
    }
    copy
}

/// A ledger that answers every payment with `ref-77` and counts them.
pub(crate) struct Ledger {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Ledger {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                kept.lock().unwrap().push(serve(stream.unwrap()));
            }
        });
        Self { port, seen }
    }

    /// Head and body of every request so far.
    pub(crate) fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        if line == "\r\n" || line.is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nref-77").unwrap();
    (head, text(&body))
}
