//! `govrun audit verify`: prove a log.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use govrun_audit::cosign;
use govrun_audit::note::MAX_NOTE;
use govrun_audit::pin::Pin;
use govrun_audit::verify::{Anchor, Ask, Form, verify_asked};
use govrun_audit::{Trust, read};

use super::{AuditLevel, places, verified};
use crate::cli::Format;
use crate::exit::Failure;
use crate::semantics::Archived;
use crate::text::print_json;

/// What to verify, and against what.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The folder of logs. Default: that of the state directory.
    folder: Option<PathBuf>,
    /// The trust file. Default: that of the state directory.
    #[arg(long)]
    trust: Option<PathBuf>,
    /// How much to verify.
    #[arg(long, value_enum, default_value_t = AuditLevel::L2)]
    level: AuditLevel,
    /// What was seen the last time; made if it is not there, moved on when everything holds. A log that was cut off, rewritten
    /// or deleted since does not pass.
    #[arg(long, value_name = "FILE")]
    pin: Option<PathBuf>,
    /// A checkpoint that witnesses cosigned; repeat for several. As many as the trust file demands must have.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Do not look into decisions and outcomes: their bytes are proved all the same, several times faster. Levels L1 to L3.
    #[arg(long)]
    fast: bool,
    /// Threads, at most 8. Default: one each core.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// The same as `--format json`.
    #[arg(long)]
    json: bool,
}

/// What is given beside the logs cannot be used: this command's own exit code for that is 2.
struct Unusable(String);

/// The exit code is this command's own: 0 verified, 1 tampered, 2 unusable, 3 inconclusive, 4 untrusted key, 5 rollback or fork.
pub(crate) fn run(state: Option<PathBuf>, asked: Verify) -> Result<ExitCode, Failure> {
    let places = places(state, asked.folder.clone(), asked.trust.clone())?;
    match check(&places.folder, &places.trust, &asked)? {
        Ok(exit) => Ok(exit),
        Err(Unusable(sentence)) => {
            eprintln!("govrun: {sentence}");
            Ok(ExitCode::from(2))
        }
    }
}

fn check(folder: &Path, trust: &Path, asked: &Verify) -> Result<Result<ExitCode, Unusable>, Failure> {
    let (trust, pin, anchors) = match given(trust, asked) {
        Ok(given) => given,
        Err(unusable) => return Ok(Err(unusable)),
    };
    let evaluator = Archived::beside(folder);
    let ask = Ask {
        level: asked.level.into(),
        form: if asked.fast { Form::Relied } else { Form::All },
        threads: asked.threads,
        anchors: &anchors,
        evaluator: Some(&evaluator),
    };
    let report = verify_asked(folder, &trust, &ask);
    if asked.json || asked.format == Format::Json {
        print_json(&verified::as_json(&report))?;
    } else {
        println!("{report}");
    }
    if let Some(path) = &asked.pin
        && let Some(moved_on) = pin.unwrap_or_default().moved_on(&report)
        && let Err(e) = moved_on.save(path)
    {
        return Ok(Err(Unusable(format!("the pin could not be written: {e}"))));
    }
    Ok(Ok(report.exit_code().into()))
}

type Given = (Trust, Option<Pin>, Vec<Anchor>);

fn given(trust: &Path, asked: &Verify) -> Result<Given, Unusable> {
    let trust = Trust::load(trust).map_err(|e| {
        Unusable(format!("{e}; pass the trust file that `govrun keys init` wrote with --trust"))
    })?;
    let pin = match &asked.pin {
        Some(path) => {
            Pin::load(path).map_err(|e| Unusable(format!("{e}; restore the pin, or name another")))?
        }
        None => None,
    };
    let mut anchors = pin.as_ref().map(Pin::anchors).unwrap_or_default();
    for path in &asked.checkpoints {
        let wrong = |e: &dyn std::fmt::Display| Unusable(format!("{}: {e}", path.display()));
        let note = read::small_file(path, MAX_NOTE).map_err(|e| wrong(&e))?;
        anchors.push(cosign::anchor(&note, &trust).map_err(|e| wrong(&e))?);
    }
    Ok((trust, pin, anchors))
}
