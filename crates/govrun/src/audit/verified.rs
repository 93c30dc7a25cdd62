//! A verification in the shape `govrun.audit-verify/v1`: everything that the report for people says.

use govrun_audit::form::Hex;
use govrun_audit::verify::{Finding, Level, LogReport, Place, Report, Status};
use serde_json::{Value, json};

/// The whole report.
pub(crate) fn as_json(report: &Report) -> Value {
    json!({
        "schema": "govrun.audit-verify/v1",
        "level": match report.level {
            Level::L0 => "L0",
            Level::L1 => "L1",
            Level::L2 => "L2",
            Level::L3 => "L3",
            Level::L4 => "L4",
        },
        "outcome": report.outcome().name(),
        "exit_code": report.exit_code(),
        "logs": report.logs.iter().map(log).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "not_covered": report.not_covered,
    })
}

fn log(log: &LogReport) -> Value {
    json!({
        "log": log.id.to_string(),
        "genesis": log.genesis.map(|id| id.to_string()),
        "outcome": log.outcome().name(),
        "records": log.records,
        "seals": log.seals,
        "unsealed": log.unsealed,
        "last_seal": log.last_seal.as_ref().map(|seal| json!({
            "size": seal.size, "root": Hex(seal.root).to_string(), "place": place(&seal.place),
        })),
        "anchored": log.anchored,
        "status": status(log.status),
        "findings": log.findings.iter().map(finding).collect::<Vec<_>>(),
        "not_covered": log.not_covered,
    })
}

/// How a log ends, in words.
pub(crate) const fn status(status: Status) -> &'static str {
    match status {
        Status::Closed => "closed",
        Status::InProgress => "in progress",
        Status::NotClosed => "not closed",
    }
}

fn finding(finding: &Finding) -> Value {
    json!({
        "outcome": finding.outcome.name(),
        "place": finding.place.as_ref().map(place),
        "what": finding.what,
        "expected": finding.expected,
        "found": finding.found,
    })
}

fn place(place: &Place) -> Value {
    json!({ "segment": place.segment, "line": place.line, "byte": place.byte })
}
