//! Findings as SARIF 2.1.0, so that code review shows them at their lines.

use govrun_policy::{Code, Finding, LoadError, Origin};
use serde_json::{Value, json};

/// Findings, as warnings.
pub(super) fn of_findings(findings: &[Finding]) -> Value {
    let results = findings.iter().map(|finding| {
        json!({
            "ruleId": finding.code.name(),
            "level": "warning",
            "message": { "text": finding.message },
            "locations": [location(&finding.at, None)],
            "relatedLocations": finding.others.iter().map(|(at, what)| location(at, Some(what))).collect::<Vec<_>>(),
        })
    });
    run(results.collect())
}

/// Errors that keep the policy from loading.
pub(super) fn of_errors(errors: &[LoadError]) -> Value {
    let results = errors.iter().map(|error| {
        let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
        let (line, column) = error.position().unwrap_or((1, 1));
        json!({
            "ruleId": "load-error",
            "level": "error",
            "message": { "text": format!("{}{help}", error.message()) },
            "locations": [{ "physicalLocation": {
                "artifactLocation": { "uri": error.file() },
                "region": { "startLine": line, "startColumn": column },
            } }],
        })
    });
    run(results.collect())
}

fn location(at: &Origin, what: Option<&String>) -> Value {
    let mut location = json!({ "physicalLocation": {
        "artifactLocation": { "uri": &*at.file }, "region": { "startLine": at.line },
    } });
    if let (Some(what), Some(fields)) = (what, location.as_object_mut()) {
        fields.insert("message".to_owned(), json!({ "text": what }));
    }
    location
}

fn run(results: Vec<Value>) -> Value {
    let mut rules: Vec<Value> = Code::ALL
        .iter()
        .map(|code| json!({ "id": code.name(), "shortDescription": { "text": code.sentence() } }))
        .collect();
    rules.push(json!({ "id": "load-error", "shortDescription": { "text": "The policy does not load." } }));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "govrun", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "results": results,
        }],
    })
}
