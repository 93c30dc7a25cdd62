//! `govrun approvals`: people decide about calls that wait.

use std::fmt::Write as _;
use std::path::Path;

use govrun_audit::{ApproverKey, Clock as _, SystemClock, Trust};
use govrun_control::{Approval, ApprovalId, Ballot, Choice, Filter, State, Store};
use govrun_verdict::Timestamp;
use serde_json::json;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::state::StateDir;
use crate::text::plain;

/// Most approvals that are listed.
const MAX_LISTED: u32 = 1_000;

/// An answer on the command line.
pub(crate) struct Answer<'a> {
    pub(crate) id: &'a str,
    pub(crate) choice: Choice,
    pub(crate) approver: &'a str,
    pub(crate) key: Option<&'a Path>,
    pub(crate) comment: &'a str,
}

/// Print what waits, or everything.
pub(crate) fn list(state: &StateDir, all: bool, format: Format) -> Result<Exit, Failure> {
    let (store, now) = open(state)?;
    let filter = if all { Filter::All } else { Filter::Pending };
    let approvals = store.list(filter, now, MAX_LISTED).map_err(dependency)?;
    match format {
        Format::Json => {
            let list: Vec<_> = approvals.iter().map(as_json).collect();
            println!("{:#}", json!({ "schema": "govrun.approvals/v1", "approvals": list }));
        }
        Format::Human if approvals.is_empty() => println!("no approval is waiting"),
        Format::Human => {
            for a in &approvals {
                println!(
                    "{}  {:<8}  {}  {}  {}",
                    a.id,
                    a.state.name(),
                    a.principal.agent,
                    a.tool.name,
                    summary(a)
                );
            }
        }
    }
    Ok(Exit::Ok)
}

/// Print one approval whole.
pub(crate) fn show(state: &StateDir, id: &str, format: Format) -> Result<Exit, Failure> {
    let (store, now) = open(state)?;
    let approval = find(&store, id, now)?;
    match format {
        Format::Json => println!("{:#}", as_json(&approval)),
        Format::Human => print!("{}", human(&approval, now)),
    }
    Ok(Exit::Ok)
}

/// Sign an answer with the approver's key and hand it in.
pub(crate) fn answer(state: &StateDir, answer: &Answer<'_>) -> Result<Exit, Failure> {
    let configuration = |e: &dyn std::fmt::Display| Failure::new(Exit::Configuration, e);
    let trust = Trust::load(&state.trust()).map_err(|e| configuration(&e))?;
    let approver = trust.approvers.iter().find(|a| a.name == answer.approver).ok_or_else(|| {
        Failure::new(
            Exit::Configuration,
            format!(
                "approver `{0}` is not in the trust file; add one with `govrun keys approver {0} --role ROLE`",
                answer.approver
            ),
        )
    })?;
    let default = state.keys().join(format!("{}.approver.key", answer.approver));
    let key =
        ApproverKey::load(answer.key.unwrap_or(&default), answer.approver).map_err(|e| configuration(&e))?;
    if *key.verifier() != approver.key {
        return Err(Failure::new(
            Exit::Configuration,
            format!("this is not the key that the trust file lists for `{}`", answer.approver),
        ));
    }
    let (store, now) = open(state)?;
    let approval = find(&store, answer.id, now)?;
    let statement = govrun_host::approval_statement(&trust, &approval, answer.choice, now);
    let ballot = Ballot {
        choice: answer.choice,
        approver: answer.approver.to_owned(),
        roles: approver.roles.iter().map(|r| r.strip_prefix("role:").unwrap_or(r).into()).collect(),
        signature: key.sign(statement).signature,
        comment: answer.comment.to_owned(),
    };
    let decided = store.decide(&approval.id, &ballot, now).map_err(|e| {
        Failure::new(Exit::Check, format!("{e}; see `govrun approvals show {}`", approval.id))
    })?;
    println!(
        "{} is {} ({} of {} approved)",
        approval.id,
        decided.state.name(),
        decided.approvals,
        approval.need
    );
    Ok(Exit::Ok)
}

fn open(state: &StateDir) -> Result<(Store, Timestamp), Failure> {
    let store = Store::open(state.path()).map_err(dependency)?;
    Ok((store, SystemClock.now().map_err(dependency)?))
}

fn dependency(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Dependency, error)
}

fn find(store: &Store, id: &str, now: Timestamp) -> Result<Approval, Failure> {
    let id = ApprovalId::parse(id).map_err(|e| Failure::new(Exit::Usage, e))?;
    store.get(&id, now).map_err(dependency)?.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("there is no approval `{id}`; see `govrun approvals list --all`"))
    })
}

fn summary(approval: &Approval) -> String {
    let fields: Vec<String> =
        approval.shown.iter().map(|(name, value)| format!("{}={}", plain(name), plain(value))).collect();
    fields.join(" ").chars().take(120).collect()
}

fn human(a: &Approval, now: Timestamp) -> String {
    let mut out = String::new();
    let left = a.expires_at.0.saturating_sub(now.0) / 1_000_000;
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<10} {value}");
    };
    line("approval", a.id.as_str());
    line("state", a.state.name());
    line("agent", &plain(&a.principal.agent));
    line("tool", &plain(&a.tool.name));
    line("component", &a.tool.component.to_string());
    for (name, value) in &a.shown {
        line(&plain(name), &plain(value));
    }
    line("needs", &format!("{} of role {}", a.need, a.roles.join(" or ")));
    line("decision", &a.decision.to_string());
    if a.state == State::Pending {
        line("expires", &format!("in {left} s"));
    }
    for vote in &a.votes {
        line(vote.choice.name(), &format!("{} as {} {}", vote.approver, vote.role, plain(&vote.comment)));
    }
    out
}

fn as_json(a: &Approval) -> serde_json::Value {
    json!({
        "schema": "govrun.approval/v1",
        "id": a.id.as_str(),
        "state": a.state.name(),
        "agent": &*a.principal.agent,
        "tool": &*a.tool.name,
        "component": a.tool.component.to_string(),
        "fields": a.shown.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect::<Vec<_>>(),
        "roles": a.roles.iter().map(|r| &**r).collect::<Vec<_>>(),
        "need": a.need.get(),
        "decision": a.decision.to_string(),
        "created_us": a.created.0,
        "expires_us": a.expires_at.0,
        "votes": a.votes.iter().map(|v| json!({
            "approver": v.approver, "answer": v.choice.name(), "role": v.role, "comment": v.comment, "at_us": v.at.0,
        })).collect::<Vec<_>>(),
    })
}
