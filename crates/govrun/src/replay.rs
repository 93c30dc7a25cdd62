//! `govrun replay`: what another policy would have made of the calls in the log.

use std::collections::BTreeMap;
use std::path::Path;

use govrun_audit::form::Kind;
use govrun_audit::form::body::{self, Body};
use govrun_audit::read::Records;
use govrun_policy::{Context, Policy};
use govrun_verdict::{Decision, Timestamp};
use serde_json::json;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::recorded::{self, Archive, Opened};
use crate::text::{plain, print_json};

/// Most decisions that are named for one kind of change.
const MAX_NAMED: usize = 5;

/// Counts and examples.
#[derive(Default)]
struct Report {
    decisions: u64,
    same: u64,
    /// What they were about is only committed to.
    hidden: u64,
    /// Some argument is only committed to, so that conditions about it are unknown to both policies.
    in_part: u64,
    /// The policy of then is not archived: compared with the recorded answer.
    unarchived: u64,
    changes: BTreeMap<(String, String), (u64, Vec<String>)>,
}

/// Decide every recorded call again; exits with 6 when the new policy answers one otherwise.
pub(crate) fn run(folder: &Path, policy: &Path, format: Format) -> Result<Exit, Failure> {
    let told = |e| Failure::new(Exit::Configuration, e);
    let policy = Policy::load(policy).map_err(told)?;
    let report = replay(folder, &policy)?;
    match format {
        Format::Json => print_json(&json!({
            "schema": "govrun.replay/v1", "policy": policy.epoch().to_string(),
            "decisions": report.decisions, "same": report.same, "hidden": report.hidden,
            "in_part": report.in_part, "unarchived": report.unarchived,
            "changes": report.changes.iter().map(|((was, is), (count, ids))| json!({
                "was": was, "is": is, "count": count, "decisions": ids,
            })).collect::<Vec<_>>(),
        }))?,
        Format::Human => human(&report),
    }
    Ok(if report.changes.is_empty() { Exit::Ok } else { Exit::Check })
}

fn human(report: &Report) {
    for ((was, is), (count, ids)) in &report.changes {
        println!("{count:>8}  {}  ->  {}    {}", plain(was), plain(is), ids.join(" "));
    }
    println!("{} decisions, {} decided the same", report.decisions, report.same);
    if report.hidden > 0 {
        println!("{} cannot be decided again: what they were about is only committed to", report.hidden);
    }
    if report.in_part > 0 {
        println!(
            "{} have arguments that are only committed to: conditions about these are unknown",
            report.in_part
        );
    }
    if report.unarchived > 0 {
        println!(
            "{} were made under a policy that is not archived: compared with what was recorded",
            report.unarchived
        );
    }
}

fn replay(folder: &Path, policy: &Policy) -> Result<Report, Failure> {
    let unreadable =
        |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, format!("{e}; run `govrun audit verify`"));
    let mut report = Report::default();
    let (mut opened, mut archive) = (Opened::new(folder), Archive::new(folder));
    let mut scratch = Vec::new();
    for record in Records::open(folder).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        if record.head.kind != Kind::Decision {
            continue;
        }
        scratch.clear();
        let body = record.body(&mut scratch).map_err(|e| unreadable(&e))?;
        let Body::Decision(d) = body else { continue };
        report.decisions += 1;
        let id = record.id();
        let Some(rebuilt) = recorded::call(&d, |field| opened.value(id.log, id.seq, field)) else {
            report.hidden += 1;
            continue;
        };
        report.in_part += u64::from(!rebuilt.whole);
        let bounds = d.inputs.bounds.as_ref().map(recorded::bounds);
        let context = Context { now: Timestamp(d.inputs.at.0), bounds: bounds.as_ref() };
        let was = match archive.policy(d.policy) {
            Some(old) => answer(&old.decide(&rebuilt.call, &context)),
            None => {
                report.unarchived += 1;
                recorded_answer(&d)
            }
        };
        let is = answer(&policy.decide(&rebuilt.call, &context));
        if was == is {
            report.same += 1;
            continue;
        }
        let (count, ids) = report.changes.entry((was, is)).or_default();
        *count += 1;
        if ids.len() < MAX_NAMED {
            ids.push(id.to_string());
        }
    }
    Ok(report)
}

fn answer(decision: &Decision) -> String {
    let rule = decision.rule.as_ref().map_or("default", |rule| rule.as_str());
    format!("{} {} {rule}", decision.verdict, decision.reason)
}

fn recorded_answer(d: &body::Decision<'_>) -> String {
    let rule = d.rule.as_ref().map_or("default", |rule| &**rule);
    format!("{} {} {rule}", d.verdict, &*d.reason)
}
