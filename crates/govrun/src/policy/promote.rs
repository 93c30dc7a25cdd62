//! `govrun policy promote`: a rule is enforced when the log shows what enforcing it would have done.

use std::fmt::Write as _;
use std::path::Path;

use govrun_audit::form::Kind;
use govrun_audit::form::body::Body;
use govrun_audit::read::Records;
use govrun_policy::{PROMOTIONS, PromoteIf, RuleInfo};
use govrun_verdict::{Mode, RuleId, Timestamp};

use super::load;
use crate::exit::{Exit, Failure};
use crate::recorded::{self, Archive, Opened};
use crate::text::time;

/// What must have been seen of a rule that does not say.
const LEAST: PromoteIf = PromoteIf { calls: 1, over_ms: 0, changed: u64::MAX };

/// What the log shows of a rule in shadow.
#[derive(Default)]
struct Seen {
    calls: u64,
    changed: u64,
    first: Option<u64>,
    last: u64,
}

/// Write the promotion, or say what is missing.
pub(super) fn run(
    folder: &Path,
    rule: &str,
    logs: &Path,
    break_glass: Option<&str>,
) -> Result<Exit, Failure> {
    let policy = load(folder)?;
    let id = RuleId::new(rule).map_err(|e| Failure::new(Exit::Usage, e))?;
    let info = policy.rule(&id).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("the policy in `{}` has no rule `{id}`", folder.display()))
    })?;
    let line = match break_glass {
        Some(who) if who.trim().is_empty() || who.chars().any(char::is_control) => {
            return Err(Failure::new(Exit::Usage, "`--break-glass` needs one line: who, and why"));
        }
        Some(who) => format!("break_glass = {}", quoted(who)),
        None => {
            let seen = seen(logs, info)?;
            enough(info, &seen)?;
            let evidence = format!(
                "{} calls from {} to {}, {} of them decided otherwise",
                seen.calls,
                time(seen.first.unwrap_or(0)),
                time(seen.last),
                seen.changed
            );
            format!("evidence = {}", quoted(&evidence))
        }
    };
    write(folder, info, &line)?;
    println!("`{id}` may be enforced: {line}");
    if info.mode == Mode::Shadow {
        println!("now remove `mode = \"shadow\"` at {}, or give it a `rollout`", info.origin);
    }
    Ok(Exit::Ok)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What the decisions say that were made while exactly this rule was in shadow.
fn seen(logs: &Path, info: &RuleInfo) -> Result<Seen, Failure> {
    let unreadable =
        |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, format!("{e}; run `govrun audit verify`"));
    let mut seen = Seen::default();
    let (mut opened, mut archive) = (Opened::new(logs), Archive::new(logs));
    let mut scratch = Vec::new();
    for record in Records::open(logs).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        if record.head.kind != Kind::Decision {
            continue;
        }
        scratch.clear();
        let body = record.body(&mut scratch).map_err(|e| unreadable(&e))?;
        let Body::Decision(d) = body else { continue };
        let Some(then) = archive.policy(d.policy) else { continue };
        let in_shadow =
            then.rule(&info.id).is_some_and(|r| r.digest == info.digest && r.mode == Mode::Shadow);
        if !in_shadow || d.mode == Mode::Drill {
            continue;
        }
        let id = record.id();
        let Some(rebuilt) = recorded::call(&d, |field| opened.value(id.log, id.seq, field)) else { continue };
        if then.rule_matches(&info.id, &rebuilt.call, Timestamp(d.inputs.at.0)).is_none() {
            continue;
        }
        seen.calls += 1;
        seen.first.get_or_insert(d.inputs.at.0);
        seen.last = d.inputs.at.0;
        let decides = d.shadow.as_ref().filter(|s| s.rule.as_deref() == Some(info.id.as_str()));
        seen.changed += u64::from(decides.is_some_and(|s| s.verdict != d.verdict));
    }
    Ok(seen)
}

/// Refuse when the log does not show what the rule asks for.
fn enough(info: &RuleInfo, seen: &Seen) -> Result<(), Failure> {
    let asked = info.promote_if.unwrap_or(LEAST);
    let over_ms = seen.last.saturating_sub(seen.first.unwrap_or(seen.last)) / 1_000;
    let mut missing = String::new();
    // Writing to a string does not fail.
    if seen.calls < asked.calls {
        let _ = write!(missing, "; it matched {} calls in shadow, {} are needed", seen.calls, asked.calls);
    }
    if over_ms < asked.over_ms {
        let _ = write!(missing, "; they lie {} ms apart, {} ms are needed", over_ms, asked.over_ms);
    }
    if seen.changed > asked.changed {
        let _ = write!(
            missing,
            "; enforcing it would have changed {} verdicts, at most {} may be changed",
            seen.changed, asked.changed
        );
    }
    if missing.is_empty() {
        return Ok(());
    }
    let sentence = format!(
        "`{}` is not promoted{missing}; let it run in shadow, or pass `--break-glass WHO-AND-WHY`",
        info.id
    );
    Err(Failure::new(Exit::Check, sentence))
}

/// Replace the rule's entry in `promotions.toml`.
fn write(folder: &Path, info: &RuleInfo, line: &str) -> Result<(), Failure> {
    let path = folder.join(PROMOTIONS);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let own = format!("rule = \"{}\"", info.id);
    let kept: Vec<&str> = before
        .split("[[promotion]]")
        .skip(1)
        .map(str::trim)
        .filter(|entry| !entry.lines().any(|line| line.trim() == own))
        .collect();
    let mut text = String::from("# Written by `govrun policy promote`.\n");
    for entry in kept {
        let _ = write!(text, "\n[[promotion]]\n{entry}\n");
    }
    let _ = write!(text, "\n[[promotion]]\n{own}\ndigest = \"{}\"\n{line}\n", info.digest);
    let unwritable = |e| Failure::new(Exit::Runtime, format!("{} cannot be written: {e}", path.display()));
    std::fs::write(&path, text).map_err(unwritable)
}
