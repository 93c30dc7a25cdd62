//! `govrun audit prove` and `govrun audit consistency`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use govrun_audit::cosign::Head;
use govrun_audit::form::{B64, MAX_LINE, body::Body};
use govrun_audit::hash::{Tree, extends};
use govrun_audit::note::{MAX_NOTE, Note};
use govrun_audit::prove::{MAX_PROOF, Proof, Prover, leaves};
use govrun_audit::read::{Record, small_file};
use govrun_audit::{Certificate, Trust, certified, submit};
use govrun_verdict::{DecisionId, LogId};

use super::places;
use crate::exit::{Exit, Failure};
use crate::text::plain;

/// Which record, or which proof.
#[derive(Debug, Args)]
pub(crate) struct Prove {
    /// The record, such as `9f3c21aa04be7710-42`.
    #[arg(required_unless_present = "check")]
    record: Option<String>,
    /// The folder of logs. Default: that of the state directory.
    folder: Option<PathBuf>,
    /// Use this checkpoint, such as one with cosignatures, and not the newest that the log has published.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Write `<record>.tlog-proof` and `<record>.json` (the record) to this folder, and not the proof to standard output.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Check this proof, with --line, against the trust file. Exits with 0 proved, 1 not proved, 2 unusable, 4 untrusted key.
    #[arg(long, value_name = "PROOF", conflicts_with_all = ["record", "out", "checkpoint"], requires = "line")]
    check: Option<PathBuf>,
    /// The file with the record whose proof is checked: one line.
    #[arg(long, value_name = "FILE")]
    line: Option<PathBuf>,
    /// The trust file. Default: that of the state directory.
    #[arg(long)]
    trust: Option<PathBuf>,
}

fn usage(sentence: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, sentence)
}

fn unreadable(e: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Dependency, format!("{e}; run `govrun audit verify`"))
}

pub(crate) fn run(state: Option<PathBuf>, asked: Prove) -> Result<ExitCode, Failure> {
    if let (Some(proof), Some(line)) = (&asked.check, &asked.line) {
        return check(&places(state, Some(PathBuf::new()), asked.trust)?.trust, proof, line);
    }
    let record = asked.record.as_deref().unwrap_or_default();
    let id = DecisionId::parse(record).map_err(|e| usage(plain(&e.to_string())))?;
    let folder = places(state, asked.folder, None)?.folder;
    let made = make(&folder, id, asked.checkpoint.as_deref())?;
    match &asked.out {
        None => print!("{}", made.proof),
        Some(dir) => {
            let write = |ending: &str, bytes: &[u8]| {
                let path = dir.join(format!("{id}.{ending}"));
                std::fs::write(&path, bytes)
                    .map_err(|e| Failure::new(Exit::Runtime, format!("{}: {e}", path.display())))
            };
            write("tlog-proof", made.proof.as_bytes())?;
            write("json", &[made.line.as_slice(), b"\n"].concat())?;
            println!("{id}.tlog-proof and {id}.json are in {}", dir.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Made {
    proof: String,
    line: Vec<u8>,
}

fn make(folder: &Path, id: DecisionId, checkpoint: Option<&Path>) -> Result<Made, Failure> {
    let (note, head) = match checkpoint {
        None => submit::published(folder, id.log)
            .map_err(|e| usage(format!("{e}; a log publishes one as soon as it is on disk")))?,
        Some(path) => read_checkpoint(path)?,
    };
    let mut prover = Prover::inclusion(id.seq, head.size).ok_or_else(|| {
        usage(format!("the checkpoint covers {} records; record {id} is not under it yet", head.size))
    })?;
    let (mut certificate, mut line) = (None, None);
    leaves(folder, id.log, |leaf, record| {
        prover.push(leaf);
        if record.head.seq == 0 {
            certificate = certificate_of(record);
        }
        if record.head.seq == id.seq {
            line = Some(record.line.clone());
        }
        if record.head.seq + 1 == head.size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(unreadable)?;
    let hashes = prover.finish();
    let (Some(hashes), Some(line), Some(certificate)) = (hashes, line, certificate) else {
        return Err(unreadable(format!("log {} is shorter than its checkpoint, or has no genesis", id.log)));
    };
    let extra = certified::condense(&certificate).unwrap_or_default();
    let checkpoint = certified::without_epoch_signature(&note);
    Ok(Made { proof: Proof { extra, index: id.seq, hashes, checkpoint }.text(), line })
}

fn certificate_of(record: &Record) -> Option<Certificate> {
    match record.body(&mut Vec::new()) {
        Ok(Body::Genesis(genesis)) => Certificate::parse(&genesis.cert).ok(),
        Ok(_) | Err(_) => None,
    }
}

fn read_checkpoint(path: &Path) -> Result<(String, Head), Failure> {
    let wrong = |e: &dyn std::fmt::Display| usage(format!("{}: {e}", path.display()));
    let note = small_file(path, MAX_NOTE).map_err(|e| wrong(&e))?;
    let head = Note::parse(&note).and_then(|parsed| Head::parse(parsed.text)).map_err(|e| wrong(&e))?;
    Ok((note, head))
}

fn check(trust: &Path, proof: &Path, line: &Path) -> Result<ExitCode, Failure> {
    let read = |path: &Path, most| small_file(path, most).map_err(|e| format!("{}: {e}", path.display()));
    let given = || {
        let trust = Trust::load(trust).map_err(|e| e.to_string())?;
        Ok::<_, String>((trust, read(proof, MAX_PROOF)?, read(line, MAX_LINE + 1)?))
    };
    let (trust, proof, line) = match given() {
        Ok(given) => given,
        Err(sentence) => {
            eprintln!("govrun: {sentence}");
            return Ok(ExitCode::from(2));
        }
    };
    let line = line.strip_suffix('\n').unwrap_or(&line);
    match certified::check(&proof, line.as_bytes(), &trust) {
        Ok(proved) => {
            let certified::Proved { log, index, size, witnesses } = proved;
            println!("PROVED: this is record {index} of log {log}, which had {size} records");
            if !witnesses.is_empty() {
                println!(
                    "cosigned by {} of {}: {}",
                    witnesses.len(),
                    trust.witnesses.len(),
                    witnesses.join(", ")
                );
            }
            println!("NOT COVERED\n  whether the log says the truth, and whether its end was cut off later");
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => {
            println!("NOT PROVED: {e}");
            Ok(ExitCode::from(if e.is_untrusted() { 4 } else { 1 }))
        }
    }
}

/// Which sizes of which log.
#[derive(Debug, Args)]
pub(crate) struct Consistency {
    /// A checkpoint file, or `LOG:SIZE` such as `9f3c21aa04be7710:42`.
    old: String,
    /// The same, of a later state.
    new: String,
    /// The folder of logs. Default: that of the state directory.
    folder: Option<PathBuf>,
}

struct State {
    log: LogId,
    size: u64,
    /// None: as the log has it.
    root: Option<[u8; 32]>,
}

fn state_of(text: &str) -> Result<State, Failure> {
    if let Some((log, size)) = text.split_once(':')
        && let (Ok(log), Ok(size)) = (LogId::parse(log), size.parse())
    {
        return Ok(State { log, size, root: None });
    }
    let (_, head) = read_checkpoint(Path::new(text))?;
    let log = head.origin.rsplit('/').next().and_then(|id| LogId::parse(id).ok());
    let log = log.ok_or_else(|| usage(format!("{} is no checkpoint of a log of govrun", plain(text))))?;
    Ok(State { log, size: head.size, root: Some(head.root) })
}

pub(crate) fn consistency(state: Option<PathBuf>, asked: &Consistency) -> Result<ExitCode, Failure> {
    let (old, new) = (state_of(&asked.old)?, state_of(&asked.new)?);
    let folder = places(state, asked.folder.clone(), None)?.folder;
    if old.log != new.log {
        return Err(usage(format!("{} and {} are different logs", old.log, new.log)));
    }
    let mut prover = Prover::consistency(old.size, new.size)
        .ok_or_else(|| usage("the first size must be at least 1 and at most the second"))?;
    let (mut tree, mut old_root) = (Tree::default(), None);
    leaves(&folder, new.log, |leaf, _| {
        prover.push(leaf);
        tree.push(leaf);
        if tree.size() == old.size {
            old_root = Some(tree.root());
        }
        if tree.size() == new.size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(unreadable)?;
    let Some(proof) = prover.finish() else {
        println!("ROLLBACK: log {} has {} records, not {}", new.log, tree.size(), new.size);
        return Ok(ExitCode::from(5));
    };
    let roots = (old.root.or(old_root).unwrap_or_default(), new.root.unwrap_or(tree.root()));
    if !extends(old.size, new.size, &roots.0, &roots.1, &proof) {
        println!("FORK: the log here does not have both roots");
        println!("  expected {} of {} and {} of {}", B64(roots.0), old.size, B64(roots.1), new.size);
        let own = old_root.unwrap_or_default();
        println!("  found    {} of {} and {} of {}", B64(own), old.size, B64(tree.root()), new.size);
        return Ok(ExitCode::from(5));
    }
    println!("CONSISTENT: the first {} of {} records of log {} are the same", old.size, new.size, new.log);
    for hash in proof {
        println!("{}", B64(hash));
    }
    Ok(ExitCode::SUCCESS)
}
