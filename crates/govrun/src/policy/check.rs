//! `govrun policy check`: errors that keep a policy from loading, and findings that do not.

use std::path::Path;

use clap::ValueEnum;
use govrun_policy::{Finding, Lint, Policy, drilled_rules};
use serde_json::{Value, json};

use super::{DRILLS, Deny, beside, load, sarif, signatures};
use crate::exit::{Exit, Failure};
use crate::text::{plain, print_json};

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lines {
    /// For people.
    Human,
    /// For machines, in the shape `govrun.policy-check/v1`.
    Json,
    /// For code review, in the shape SARIF 2.1.0.
    Sarif,
}

/// Check the policy and print what was found.
pub(crate) fn run(folder: &Path, deny: Option<Deny>, lines: Lines) -> Result<Exit, Failure> {
    let policy = match Policy::load(folder) {
        Ok(policy) => policy,
        Err(errors) => {
            match lines {
                Lines::Human => {}
                Lines::Json => print_json(&json!({
                    "schema": "govrun.policy-check/v1", "loads": false,
                    "errors": errors.errors().iter().map(error).collect::<Vec<_>>(), "findings": [],
                }))?,
                Lines::Sarif => print_json(&sarif::of_errors(errors.errors()))?,
            }
            // Said in full to whoever reads standard error.
            return load(folder).map(|_| Exit::Configuration);
        }
    };
    let drills = beside(folder, DRILLS)?;
    let drilled = drilled_rules(&drills).map_err(|e| Failure::new(Exit::Configuration, e))?;
    let signatures = signatures::of(&policy, folder);
    let findings = policy.lint(&Lint { signatures, drilled: Some(drilled) });
    match lines {
        Lines::Human => human(folder, &policy, &findings),
        Lines::Json => print_json(&json!({
            "schema": "govrun.policy-check/v1", "loads": true, "errors": [],
            "epoch": policy.epoch().to_string(), "env": &**policy.env(), "rules": policy.rules().len(),
            "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        }))?,
        Lines::Sarif => print_json(&sarif::of_findings(&findings))?,
    }
    let denied = deny == Some(Deny::Warnings) && !findings.is_empty();
    Ok(if denied { Exit::Check } else { Exit::Ok })
}

fn human(folder: &Path, policy: &Policy, findings: &[Finding]) {
    for finding in findings {
        finding.to_string().lines().for_each(|line| println!("{}", plain(line)));
        println!();
    }
    println!(
        "{}: {} rules, {} agents, {} tools, env {}, epoch {}, {} findings",
        folder.display(),
        policy.rules().len(),
        policy.agents().count(),
        policy.tools().count(),
        policy.env(),
        policy.epoch(),
        findings.len()
    );
}

fn error(error: &govrun_policy::LoadError) -> Value {
    let (line, column) = error.position().unzip();
    json!({
        "file": error.file(), "line": line, "column": column, "message": error.message(), "help": error.help(),
    })
}

fn finding(finding: &Finding) -> Value {
    let place = |at: &govrun_policy::Origin| json!({ "file": &*at.file, "line": at.line });
    json!({
        "code": finding.code.name(),
        "at": place(&finding.at),
        "rule": finding.rule.as_ref().map(ToString::to_string),
        "message": finding.message,
        "others": finding.others.iter().map(|(at, what)| json!({ "at": place(at), "what": what })).collect::<Vec<_>>(),
    })
}
