//! `govrun policy diff`: what a new policy decides otherwise.

use std::path::Path;

use govrun_policy::{Answer, Change, DIFF_TIME, Diff, call_to_toml, diff};
use serde_json::json;

use super::load;
use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::text::{plain, print_json, time};

/// Compare and print; exits with 6 when something is decided otherwise.
pub(crate) fn run(old: &Path, new: &Path, format: Format) -> Result<Exit, Failure> {
    let (old, new) = (load(old)?, load(new)?);
    let found = diff(&old, &new);
    match format {
        Format::Human => human(&found),
        Format::Json => print_json(&json!({
            "schema": "govrun.policy-diff/v1",
            "old": old.epoch().to_string(), "new": new.epoch().to_string(),
            "complete": found.complete,
            "rules": found.rules.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "changes": found.changes.iter().map(change).collect::<Vec<_>>(),
        }))?,
    }
    Ok(if found.changes.is_empty() { Exit::Ok } else { Exit::Check })
}

fn answer(answer: &Answer) -> String {
    let rule = answer.rule.as_ref().map_or("the default", |rule| rule.as_str());
    format!("{} {} by {rule}", answer.verdict, answer.reason)
}

fn human(found: &Diff) {
    for change in &found.changes {
        let more = if change.permits_more { "  PERMITS MORE" } else { "" };
        println!("{}{more}", change.witness.action());
        println!("  was   {}", plain(&answer(&change.old)));
        println!("  is    {}", plain(&answer(&change.new)));
        for line in witness(change).lines() {
            println!("  | {}", plain(line));
        }
    }
    let rules: Vec<&str> = found.rules.iter().map(govrun_verdict::RuleId::as_str).collect();
    println!(
        "{} differences; changed rules: {}",
        found.changes.len(),
        if rules.is_empty() { "none".to_owned() } else { rules.join(", ") }
    );
    if !found.complete {
        println!(
            "there may be more: some conditions cannot be told apart in every way, or the agents differ"
        );
    }
}

fn change(change: &Change) -> serde_json::Value {
    let answer = |a: &Answer| {
        json!({
            "verdict": a.verdict, "rule": a.rule.as_ref().map(ToString::to_string), "reason": a.reason,
        })
    };
    json!({
        "action": change.witness.action().name(),
        "old": answer(&change.old), "new": answer(&change.new),
        "permits_more": change.permits_more, "witness": witness(change),
    })
}

/// The call as a case of the new policy: it fails for the old one.
fn witness(change: &Change) -> String {
    let rule = change.new.rule.as_ref().map_or("default", |rule| rule.as_str());
    format!(
        "[[case]]\ntitle = \"{} instead of {}\"\nat = \"{}\"\n{}expect = {{ verdict = \"{}\", rule = \"{rule}\", reason = \"{}\" }}\n",
        change.new.verdict,
        change.old.verdict,
        time(DIFF_TIME.0),
        call_to_toml(&change.witness),
        change.new.verdict,
        change.new.reason
    )
}
