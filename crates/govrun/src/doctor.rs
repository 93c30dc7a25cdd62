//! `govrun doctor`: one line a check, with the next step. It changes nothing.

mod checks;
mod logs;

use std::path::Path;

use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::state::StateDir;
use crate::text::{plain, print_json};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// Which exit code a failure asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Area {
    /// Configuration, policy or keys.
    Configuration,
    /// Log, store, disk or clock.
    Dependency,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    area: Area,
    grade: Grade,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, area: Area, found: impl Into<String>) -> Self {
        Self { name, area, grade: Grade::Ok, found: found.into(), next: None }
    }

    fn warn(name: &'static str, area: Area, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, area, grade: Grade::Warn, found: found.into(), next: Some(next.into()) }
    }

    fn fail(name: &'static str, area: Area, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, area, grade: Grade::Fail, found: found.into(), next: Some(next.into()) }
    }
}

/// Make every check and print them. Exits with 0 if none failed, else with 8 (configuration) or 9 (dependency).
pub(crate) fn run(state: &StateDir, policy: Option<&Path>, format: Format) -> Result<Exit, Failure> {
    let mut checks = checks::installation(state);
    checks.extend(logs::of(state));
    checks.push(checks::space(state));
    checks.push(checks::clock());
    checks.extend(policy.into_iter().flat_map(|folder| checks::policy(state, folder)));
    let exit = verdict(&checks);
    match format {
        Format::Human => checks.iter().for_each(print),
        Format::Json => print_json(&serde_json::json!({
            "schema": "govrun.doctor/v1", "healthy": exit == Exit::Ok, "checks": checks,
        }))?,
    }
    Ok(exit)
}

fn verdict(checks: &[Check]) -> Exit {
    let failed = |area| checks.iter().any(|c| c.grade == Grade::Fail && c.area == area);
    if failed(Area::Configuration) {
        Exit::Configuration
    } else if failed(Area::Dependency) {
        Exit::Dependency
    } else {
        Exit::Ok
    }
}

fn print(check: &Check) {
    let grade = match check.grade {
        Grade::Ok => "ok",
        Grade::Warn => "warn",
        Grade::Fail => "FAIL",
    };
    let next = check.next.as_ref().map(|next| format!("; {next}")).unwrap_or_default();
    println!("{grade:<4}  {:<10}  {}", check.name, plain(&format!("{}{next}", check.found)));
}
