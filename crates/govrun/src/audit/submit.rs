//! `govrun audit submit`: ask a witness to cosign the checkpoints of the logs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use govrun_audit::cosign::{Head, WitnessKey};
use govrun_audit::note::{MAX_NOTE, Note};
use govrun_audit::read::{logs, small_file};
use govrun_audit::submit::{cosigned, published, request};
use govrun_audit::witness::MAX_REQUEST;
use govrun_verdict::LogId;

use super::places;
use crate::exit::{Exit, Failure};
use crate::text::plain;
use crate::witness::{REPLY, REQUEST};

/// Longest wait for a witness.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which witness, and where its answers go.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The folder of logs. Default: that of the state directory.
    folder: Option<PathBuf>,
    /// The witness's public key, as `govrun witness --key` prints it.
    #[arg(long)]
    witness: String,
    /// The folder of cosigned checkpoints, for `audit verify --checkpoint`: one file for each log.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where the witness answers: an address such as `127.0.0.1:7700`. Plain HTTP, for a witness on this machine or behind a
    /// tunnel: what it answers proves itself.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "drop", required_unless_present = "drop")]
    to: Option<SocketAddr>,
    /// A folder that the witness looks into: leave requests there, and take up its answers to the ones before.
    #[arg(long, value_name = "DIR")]
    drop: Option<PathBuf>,
}

fn failed(path: &Path, e: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Dependency, format!("{}: {e}", path.display()))
}

struct Answer {
    status: u16,
    body: String,
}

pub(crate) fn run(state: Option<PathBuf>, asked: Submit) -> Result<ExitCode, Failure> {
    let witness = WitnessKey::parse(&asked.witness)
        .map_err(|e| Failure::new(Exit::Usage, format!("{e} (algorithm 4)")))?;
    let folder = places(state, asked.folder, None)?.folder;
    std::fs::create_dir_all(&asked.out).map_err(|e| failed(&asked.out, e))?;
    let mut refused = 0;
    for log in logs(&folder).map_err(|e| failed(&folder, e))? {
        let one =
            One { folder: &folder, log, witness: &witness, out: asked.out.join(format!("{log}.checkpoint")) };
        let done = match (&asked.to, &asked.drop) {
            (Some(address), _) => one.over_http(*address),
            (None, Some(drop)) => one.over_files(drop),
            (None, None) => Err(Failure::new(Exit::Usage, "give --to or --drop")),
        };
        match done {
            Ok(what) => println!("{log}: {what}"),
            Err(failure) => {
                refused += 1;
                eprintln!("govrun: {log}: {failure}");
            }
        }
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { Exit::Check.into() })
}

struct One<'a> {
    folder: &'a Path,
    log: LogId,
    witness: &'a WitnessKey,
    out: PathBuf,
}

impl One<'_> {
    /// What this witness has cosigned last, as far as is known here.
    fn known(&self) -> u64 {
        let Ok(note) = small_file(&self.out, MAX_NOTE) else { return 0 };
        let Ok(note) = Note::parse(&note) else { return 0 };
        match (self.witness.cosigned(&note), Head::parse(note.text)) {
            (Some(_), Ok(head)) => head.size,
            (Some(_) | None, _) => 0,
        }
    }

    fn published(&self) -> Result<(String, Head), Failure> {
        published(self.folder, self.log).map_err(|e| Failure::new(Exit::Check, e))
    }

    fn request(&self, old: u64, note: &str, head: &Head) -> Result<String, Failure> {
        let request = request(self.folder, self.log, old, note, head);
        request.map(|r| r.text()).map_err(|e| Failure::new(Exit::Check, e))
    }

    fn over_http(&self, address: SocketAddr) -> Result<String, Failure> {
        let (note, head) = self.published()?;
        let old = self.known();
        let mut answer = post(address, &self.request(old, &note, &head)?)?;
        if answer.status == 409 {
            let old = answer.body.trim_end().parse().map_err(|_| refused(&answer))?;
            answer = post(address, &self.request(old, &note, &head)?)?;
        }
        self.take(&answer, &note, &head)
    }

    fn take(&self, answer: &Answer, note: &str, head: &Head) -> Result<String, Failure> {
        if answer.status != 200 {
            return Err(refused(answer));
        }
        let note = cosigned(note, &answer.body, self.witness).map_err(|e| Failure::new(Exit::Check, e))?;
        std::fs::write(&self.out, note).map_err(|e| failed(&self.out, e))?;
        Ok(format!("{} records cosigned by {}", head.size, self.witness.name()))
    }

    fn over_files(&self, drop: &Path) -> Result<String, Failure> {
        let path = drop.join(format!("{}.{REQUEST}", self.log));
        let reply = path.with_extension(REPLY);
        let mut old = self.known();
        let mut said = String::new();
        if let Ok(text) = small_file(&reply, MAX_NOTE) {
            let answer = parse_reply(&text).ok_or_else(|| failed(&reply, "not an answer of a witness"))?;
            let asked = small_file(&path, MAX_REQUEST).map_err(|e| failed(&path, e))?;
            let (_, note) = asked.split_once("\n\n").ok_or_else(|| failed(&path, "not a request"))?;
            let head = Note::parse(note).and_then(|n| Head::parse(n.text)).map_err(|e| failed(&path, e))?;
            std::fs::remove_file(&reply).map_err(|e| failed(&reply, e))?;
            match answer.body.trim_end().parse() {
                Ok(size) if answer.status == 409 => old = size,
                Ok(_) | Err(_) => {
                    said = self.take(&answer, note, &head)? + "; ";
                    old = head.size;
                }
            }
        }
        let (note, head) = self.published()?;
        std::fs::write(&path, self.request(old, &note, &head)?).map_err(|e| failed(&path, e))?;
        Ok(format!("{said}asked to cosign {} records", head.size))
    }
}

fn refused(answer: &Answer) -> Failure {
    let sentence = format!("the witness refused ({}): {}", answer.status, plain(answer.body.trim_end()));
    Failure::new(Exit::Check, sentence)
}

fn parse_reply(text: &str) -> Option<Answer> {
    let (status, body) = text.split_once('\n')?;
    Some(Answer { status: status.parse().ok()?, body: body.to_owned() })
}

/// One request, one answer, and the connection is closed: all of HTTP/1.1 that a witness needs.
fn post(address: SocketAddr, body: &str) -> Result<Answer, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, format!("{address}: {e}"));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| failed(&e))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| failed(&e))?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(|e| failed(&e))?;
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .map_err(|e| failed(&e))?;
    let mut answer = String::new();
    let most = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    stream.take(most).read_to_string(&mut answer).map_err(|e| failed(&e))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed(&"not an answer over HTTP"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| failed(&"not an answer over HTTP/1.1"))?;
    if head.to_ascii_lowercase().contains("transfer-encoding") {
        return Err(failed(&"an answer in pieces"));
    }
    Ok(Answer { status, body: body.to_owned() })
}
