//! `govrun drill`: known-bad actions through the live path, with real components. What was written down once must still
//! be stopped by the rule that is meant to stop it.
//!
//! Every decision of a drill is in the signed log with the mode `drill`. Nothing real changes: the calls run in a sandbox
//! without egress, on budgets and approvals of their own, and nobody is paged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use govrun_audit::form::Kind;
use govrun_audit::form::body::{Body, Decision};
use govrun_audit::read::Records;
use govrun_host::arguments::{self, Given};
use govrun_host::{CallError, Tool};
use govrun_policy::{Drill, Policy, read_drills};
use govrun_verdict::{DecisionId, Mode};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::policy::{DRILLS, JunitCase, JunitSuite, beside};
use crate::state::{self, Session, StateDir, Tools};
use crate::text::{plain, print_json};
use crate::tools::Loader;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lines {
    /// For people.
    Human,
    /// For machines, in the shape `govrun.drill/v1`.
    Json,
    /// For continuous integration.
    Junit,
}

/// How one drill went.
struct Outcome<'d> {
    drill: &'d Drill,
    /// The decision that was looked at, where there is one.
    decision: Option<DecisionId>,
    /// What is wrong; nothing when it was stopped as it must be.
    wrong: Option<String>,
}

/// Run the drills and print how they went.
pub(crate) fn run(
    state: &StateDir,
    folder: &Path,
    only: Option<&str>,
    lines: Lines,
) -> Result<Exit, Failure> {
    let policy = state::load_policy(state, folder)?;
    let drills = read_drills(&beside(folder, DRILLS)?).map_err(|e| Failure::new(Exit::Configuration, e))?;
    let drills: Vec<Drill> =
        drills.into_iter().filter(|d| only.is_none_or(|id| d.id.as_str() == id)).collect();
    if drills.is_empty() {
        let sentence = format!("there is no such drill in `{}`", folder.join(DRILLS).display());
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let roots = perform(state, folder, &policy, &drills)?;
    let outcomes = judge(state, &policy, &drills, &roots)?;
    match lines {
        Lines::Human => human(&outcomes),
        Lines::Json => print_json(&json!({
            "schema": "govrun.drill/v1", "policy": policy.epoch().to_string(),
            "drills": outcomes.iter().map(|o| json!({
                "id": o.drill.id.to_string(), "rule": o.drill.rule.to_string(), "passed": o.wrong.is_none(),
                "decision": o.decision.map(|id| id.to_string()), "wrong": o.wrong,
            })).collect::<Vec<_>>(),
        }))?,
        Lines::Junit => print!("{}", suite(folder, &outcomes).xml()),
    }
    let failed = outcomes.iter().any(|outcome| outcome.wrong.is_some());
    Ok(if failed { Exit::Check } else { Exit::Ok })
}

/// What came of doing it: the decision about the call itself, or why there is none.
type Root = Result<DecisionId, String>;

/// Do all of them; the log is closed after, so that every record is sealed.
fn perform(
    state: &StateDir,
    folder: &Path,
    policy: &Arc<Policy>,
    drills: &[Drill],
) -> Result<Vec<Root>, Failure> {
    let engine = govrun_host::engine().map_err(|e| Failure::new(Exit::Runtime, e))?;
    let loader = Loader { engine: &engine, cache: state.cache(), policy, folder };
    let list = loader.registered()?;
    let by_name: BTreeMap<String, Tool> =
        list.iter().map(|tool| (tool.name.to_string(), tool.clone())).collect();
    let scratch = tempfile::tempdir().map_err(|e| Failure::new(Exit::Runtime, e))?;
    let session =
        Session::open_for_drills(state, scratch.path(), Arc::clone(policy), Tools { engine, list })?;
    let mut roots = Vec::new();
    for drill in drills {
        let Some(tool) = by_name.get(&drill.tool) else {
            roots.push(Err(format!("there is no registered tool `{}` with a component file", drill.tool)));
            continue;
        };
        let Ok(function) = arguments::function_name(&drill.call) else {
            roots.push(Err(format!("`{}` is not a call", drill.call)));
            continue;
        };
        let mut who = session.who(&drill.agent);
        // An escalation is the end of a drill: nobody will answer.
        who.hold = Some(Duration::ZERO);
        let call = session.runtime.call(&who, tool, &function, Given::Wave(&drill.call));
        let answer = session.drive(call);
        roots.push(match answer? {
            Ok(answer) => Ok(answer.decision),
            Err(CallError::Refused(refusal)) => {
                refusal.decision.ok_or_else(|| format!("nothing was recorded: {refusal}"))
            }
            Err(CallError::Failed { decision, .. }) => Ok(decision),
            Err(error @ (CallError::NoFunction { .. } | CallError::Arguments(_))) => Err(error.to_string()),
        });
    }
    session.close();
    Ok(roots)
}

/// A decision of a drill, as far as it is judged.
struct Seen {
    id: DecisionId,
    said: String,
    rule: Option<String>,
    fits: bool,
}

/// Read what was recorded, and compare.
fn judge<'d>(
    state: &StateDir,
    policy: &Policy,
    drills: &'d [Drill],
    roots: &[Root],
) -> Result<Vec<Outcome<'d>>, Failure> {
    let wanted: BTreeSet<DecisionId> = roots.iter().filter_map(|root| root.as_ref().ok().copied()).collect();
    let mut seen: Vec<Vec<Seen>> = drills.iter().map(|_| Vec::new()).collect();
    let mut of_root: BTreeMap<DecisionId, DecisionId> = wanted.iter().map(|id| (*id, *id)).collect();
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
    for record in Records::open(&state.audit()).map_err(|e| unreadable(&e))? {
        let record = record.map_err(|e| unreadable(&e))?;
        let ours = wanted.iter().any(|id| id.log == record.log);
        if record.head.kind != Kind::Decision || !ours {
            continue;
        }
        let mut scratch = Vec::new();
        let Body::Decision(d) = record.body(&mut scratch).map_err(|e| unreadable(&e))? else { continue };
        let id = record.id();
        let parent = d.parent.and_then(|parent| of_root.get(&parent).copied());
        let Some(root) = of_root.get(&id).copied().or(parent) else { continue };
        of_root.insert(id, root);
        for ((drill, of), seen) in drills.iter().zip(roots).zip(&mut seen) {
            if of.as_ref().ok() == Some(&root) && d.action.0 == drill.action {
                seen.push(look(drill, id, &d));
            }
        }
    }
    let outcomes = drills.iter().zip(roots).zip(seen);
    Ok(outcomes.map(|((drill, root), seen)| outcome(policy, drill, root, &seen)).collect())
}

fn look(drill: &Drill, id: DecisionId, d: &Decision<'_>) -> Seen {
    let rule = d.rule.as_ref().map(ToString::to_string);
    let reason = drill.reason.as_ref().is_none_or(|reason| reason.as_str() == &*d.reason);
    let fits = d.mode == Mode::Drill
        && d.verdict == drill.verdict
        && reason
        && rule.as_deref() == Some(drill.rule.as_str());
    let by = rule.as_deref().unwrap_or("the default");
    Seen { id, said: format!("{} {} by {by}", d.verdict, &*d.reason), rule, fits }
}

fn outcome<'d>(policy: &Policy, drill: &'d Drill, root: &Root, seen: &[Seen]) -> Outcome<'d> {
    let fitting = seen.iter().find(|seen| seen.fits);
    let nearest = seen.iter().find(|seen| seen.rule.as_deref() == Some(drill.rule.as_str())).or(seen.first());
    let wrong = match (root, policy.rule(&drill.rule)) {
        (Err(why), _) => Some(why.clone()),
        (Ok(_), None) => Some(format!("the policy has no rule `{}`", drill.rule)),
        (Ok(_), Some(rule)) if rule.mode != Mode::Enforce => {
            Some(format!("the rule `{}` at {} is not enforced", drill.rule, rule.origin))
        }
        (Ok(_), Some(_)) if fitting.is_some() => None,
        (Ok(_), Some(_)) => Some(format!(
            "{}{} by {} expected, {}",
            drill.verdict,
            drill.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default(),
            drill.rule,
            nearest.map_or_else(
                || format!("and nothing asked for {}", drill.action),
                |seen| format!("{} found", seen.said)
            )
        )),
    };
    let decision = fitting.or(nearest).map(|seen| seen.id).or(root.as_ref().ok().copied());
    Outcome { drill, decision, wrong }
}

fn human(outcomes: &[Outcome<'_>]) {
    for outcome in outcomes {
        let decision = outcome.decision.map(|id| format!(" [{id}]")).unwrap_or_default();
        match &outcome.wrong {
            None => println!(
                "ok    {}: {} by `{}`{decision}",
                outcome.drill.id, outcome.drill.verdict, outcome.drill.rule
            ),
            Some(wrong) => {
                println!("FAIL  {} at {}: {}{decision}", outcome.drill.id, outcome.drill.origin, plain(wrong))
            }
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.wrong.is_some()).count();
    println!("{} drills, {failed} failed", outcomes.len());
}

fn suite(folder: &Path, outcomes: &[Outcome<'_>]) -> JunitSuite {
    let case = |outcome: &Outcome<'_>| JunitCase {
        name: outcome.drill.id.to_string(),
        place: outcome.drill.origin.to_string(),
        failure: outcome.wrong.clone(),
    };
    JunitSuite { name: format!("drills of {}", folder.display()), cases: outcomes.iter().map(case).collect() }
}
