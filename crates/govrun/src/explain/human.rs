//! The page for people. Every word of it that a guest or a policy wrote goes through [`plain`].

use std::fmt::Write as _;

use serde_json::Value;

use super::story::{Explained, Matched, Outcome, Shown};
use crate::text::plain;

/// Most decisions inside the call that are listed one by one.
const MAX_INSIDE: usize = 40;

struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name:<12} {}", plain(value));
    }

    fn some(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    fn shown(&mut self, indent: &str, field: &Shown) {
        let value = match &field.value {
            Some(value) if field.how == "opened" => format!("{value}  (committed, opened here)"),
            Some(value) => value.to_string(),
            None => "committed".to_owned(),
        };
        let _ = writeln!(self.0, "{indent}{} = {}", plain(&field.name), plain(&value));
    }
}

pub(super) fn page(told: &Explained) -> String {
    let mut page = Page(String::new());
    page.line("decision", &told.decision);
    page.line("time", &told.time);
    let shadow = if told.mode == "enforce" { String::new() } else { format!(" ({})", told.mode) };
    page.line("verdict", &format!("{}{shadow}", told.verdict));
    page.line("reason", &told.reason.code);
    page.some("", told.reason.sentence.as_ref());
    if let Some(next) = told.reason.next {
        page.line("next", next);
    }
    who(&mut page, told);
    rules(&mut page, told);
    scope(&mut page, told);
    if let Some(outcome) = &told.outcome {
        effect(&mut page, outcome);
    }
    approvals(&mut page, told);
    inside(&mut page, told);
    for what in &told.missing {
        page.line("MISSING", what);
    }
    page.line("", "read from the log, which `govrun audit verify` proves");
    page.0
}

fn who(page: &mut Page, told: &Explained) {
    page.line("agent", &told.agent);
    page.some("tenant", told.tenant.as_ref());
    page.line("session", &told.session);
    page.line("tool", &told.tool);
    page.line("component", &told.component);
    page.some("called by", told.caller.as_ref());
    page.some("inside of", told.parent.as_ref());
    page.line("action", told.action);
    for field in &told.resource {
        page.shown("             ", field);
    }
}

fn rules(page: &mut Page, told: &Explained) {
    page.line("policy", &format!("{} env {}", told.policy, told.env));
    match &told.rule {
        Some(rule) => page.line("rule", rule),
        None => page.line("rule", "none: the default of the environment"),
    }
    for rule in &told.matched {
        matched(page, rule);
    }
    if let Some(nearest) = &told.nearest {
        let rule = nearest.rule.as_deref().unwrap_or("no rule");
        page.line("nearest", &format!("{} would be allowed by {rule}", nearest.changes.join(" and ")));
    }
    if let Some(shadow) = &told.shadow {
        let rule = shadow.rule.as_deref().unwrap_or("no rule");
        let at = shadow.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        page.line("shadow", &format!("{} {} by {rule}{at}", shadow.verdict, shadow.reason));
    }
}

fn matched(page: &mut Page, rule: &Matched) {
    let at = rule.at.as_deref().unwrap_or("not in the archived policy");
    let decided = if rule.decided { ", decided" } else { "" };
    let unknown = if rule.unknown { ", only because an attribute was UNKNOWN" } else { "" };
    page.line("matched", &format!("{} at {at}{decided}{unknown}", rule.rule));
    for line in rule.source.iter().flat_map(|source| source.lines()) {
        page.line("", &format!("  | {line}"));
    }
    for condition in &rule.conditions {
        let about = condition.about.as_deref().map(|about| format!(" {about}")).unwrap_or_default();
        let actual = condition.actual.as_deref().map(|actual| format!(" = {actual}")).unwrap_or_default();
        page.line("", &format!("  {}{about}{actual}: {}", condition.place, condition.truth));
    }
}

fn scope(page: &mut Page, told: &Explained) {
    for budget in &told.budgets {
        let word = |key: &str| match budget.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "-".to_owned(),
        };
        let admitted = match budget.get("order") {
            Some(order) => format!("admitted as number {order}"),
            None => "not admitted".to_owned(),
        };
        let used = format!("{} of {} used before, {admitted}", word("used"), word("limit"));
        page.line("budget", &format!("{} [{}] {used}", word("name"), word("key")));
    }
    for (name, value) in told.obligations.as_object().into_iter().flatten() {
        page.line("obligation", &format!("{name} = {value}"));
    }
    if !told.notify.is_empty() {
        page.line("notified", &told.notify.join(", "));
    }
}

fn effect(page: &mut Page, o: &Outcome) {
    let status = o.status.as_str().unwrap_or("-");
    let error = o.error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
    page.line("outcome", &format!("{status}{error}"));
    page.line(
        "",
        &format!(
            "{} bytes in, {} bytes out, {} rows, {} fuel, {} us",
            o.bytes_in, o.bytes_out, o.rows, o.fuel, o.duration_us
        ),
    );
    for absorbed in &o.absorbed {
        let kind = absorbed.kind.as_str().unwrap_or("-");
        page.line("absorbed", &format!("{kind}, {} bytes or rows", absorbed.size));
        page.shown("             ", &absorbed.subject);
    }
    if o.absorbed_omitted > 0 {
        page.line("absorbed", &format!("{} more that are not listed", o.absorbed_omitted));
    }
    page.some("note", o.note.as_ref());
}

fn approvals(page: &mut Page, told: &Explained) {
    for a in &told.approvals {
        let by = a.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let used = a.used_by.as_ref().map(|id| format!(" for {id}")).unwrap_or_default();
        let detail = a.detail.as_ref().map(|d| format!(", {d}")).unwrap_or_default();
        page.line("approval", &format!("{} {} {}{by}{used}{detail}", a.time, a.ticket, a.event));
    }
}

fn inside(page: &mut Page, told: &Explained) {
    for d in told.decided_inside.iter().take(MAX_INSIDE) {
        page.line("inside", &format!("{} {} {} {}", d.decision, d.verdict, d.action, d.reason));
    }
    let more = told.decided_inside.len().saturating_sub(MAX_INSIDE);
    if more > 0 {
        page.line("inside", &format!("{more} more; `--format json` has all of them"));
    }
}
