//! Deciding recorded calls again: what level L4 of `govrun audit verify` asks of the policy.

mod call;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use govrun_audit::form::body;
use govrun_audit::verify::{Answer, Case, Difference, Evaluator};
use govrun_audit::{recorded_escalate, recorded_obligations};
use govrun_policy::{Context, Policy};
use govrun_verdict::{
    BUILTIN_REASONS, Decision, Digest, Facts, Obligations, Past, RuleId, Shadow, Timestamp, Value, Verdict,
};
use serde::Serialize;

use crate::explain::archive;

/// Most archived policies that are kept compiled at a time.
const MAX_KEPT: usize = 8;

/// Decides under the policies that are archived beside the logs.
pub(crate) struct Archived {
    folder: PathBuf,
    policies: Mutex<BTreeMap<Digest, Result<Arc<Policy>, String>>>,
}

impl Archived {
    pub(crate) fn beside(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), policies: Mutex::new(BTreeMap::new()) }
    }

    fn policy(&self, epoch: Digest) -> Result<Arc<Policy>, String> {
        let unusable = |_| "another thread failed while it loaded a policy".to_owned();
        let mut policies = self.policies.lock().map_err(unusable)?;
        if let Some(known) = policies.get(&epoch) {
            return known.clone();
        }
        if policies.len() >= MAX_KEPT {
            policies.clear();
        }
        let loaded = archive::load(&self.folder, epoch).map(Arc::new);
        policies.insert(epoch, loaded.clone());
        loaded
    }
}

impl Evaluator for Archived {
    fn evaluate(&self, case: &Case<'_>) -> Answer {
        let d = case.decision;
        if is_host_refusal(d) {
            return Answer::HostRefusal;
        }
        match self.decided(case) {
            Ok(decided) => compare(d, &decided),
            Err(why) => Answer::Cannot(why),
        }
    }
}

impl Archived {
    fn decided(&self, case: &Case<'_>) -> Result<Decision, String> {
        let inputs = &case.decision.inputs;
        let policy = self.policy(case.decision.policy)?;
        let call = call::restore(case)?;
        let bounds = inputs.bounds.as_ref().map(call::obligations).transpose()?;
        let facts = facts(inputs)?;
        let context = Context { now: Timestamp(inputs.at.0), bounds: bounds.as_ref() };
        Ok(policy.decide_knowing(&call, &context, facts.as_ref()))
    }
}

/// What was known of the agent's past, as it was recorded.
fn facts(inputs: &body::Inputs<'_>) -> Result<Option<Facts>, String> {
    let Some(enforced) = &inputs.past else { return Ok(None) };
    let shadow = inputs.shadow_past.as_ref().map(past).transpose()?;
    Ok(Some(Facts { enforced: past(enforced)?, shadow }))
}

fn past(recorded: &body::Past<'_>) -> Result<Past, String> {
    let mut past =
        Past { labels: recorded.labels.iter().map(|label| Arc::from(&**label)).collect(), ..Past::default() };
    for answer in &recorded.answers {
        let Value::Number(number) = Value::number(&answer.answer) else {
            return Err(format!("the answer to `{}` is no exact number", &*answer.question));
        };
        past.answers.insert(Arc::from(&*answer.question), number);
    }
    Ok(past)
}

/// What the host refuses by itself, such as a call that comes while the store is down. It says so with a reason of the
/// registry, and permits nothing.
fn is_host_refusal(d: &body::Decision<'_>) -> bool {
    let by_host = d.rule.as_deref() == Some(RuleId::builtin("host").as_str());
    by_host && d.verdict == Verdict::Block && BUILTIN_REASONS.iter().any(|info| info.code == &*d.reason)
}

type Compared = Result<(), Difference>;

fn same(what: &'static str, expected: &impl Serialize, found: &impl Serialize) -> Compared {
    let text = |value: serde_json::Result<String>| value.unwrap_or_else(|e| format!("(no JSON: {e})"));
    let (expected, found) = (text(serde_json::to_string(expected)), text(serde_json::to_string(found)));
    if expected == found { Ok(()) } else { Err(Difference { what, expected, found }) }
}

fn compare(d: &body::Decision<'_>, decided: &Decision) -> Answer {
    let compared = match (decided.verdict, d.verdict) {
        (Verdict::Allow | Verdict::Sandbox | Verdict::Escalate, Verdict::Throttle) => throttled(d, decided),
        (Verdict::Escalate, Verdict::Allow | Verdict::Sandbox) => approved(d, decided),
        (expected, found) => same("the verdict", &expected, &found)
            .and_then(|()| whole(d, decided))
            .and_then(|()| charged(d, decided)),
    };
    match (compared, &decided.escalate) {
        (Err(difference), _) => Answer::Differs(difference),
        (Ok(()), Some(to)) if matches!(d.verdict, Verdict::Allow | Verdict::Sandbox) => {
            Answer::FollowsIfApproved {
                roles: to.roles.iter().map(ToString::to_string).collect(),
                need: to.need.get(),
            }
        }
        (Ok(()), Some(_) | None) => Answer::Follows,
    }
}

/// An approval turns an escalation into what the other rules permit.
fn approved(d: &body::Decision<'_>, decided: &Decision) -> Compared {
    let permitted = if decided.obligations.sandbox.is_some() { Verdict::Sandbox } else { Verdict::Allow };
    same("the verdict after the approval", &permitted, &d.verdict)?;
    whole(d, decided)?;
    charged(d, decided)
}

/// A budget that is used up decides with its own rule and reason, and nothing is granted.
fn throttled(d: &body::Decision<'_>, decided: &Decision) -> Compared {
    let owner = decided.budgets.iter().find(|used| {
        Some(used.rule.as_str()) == d.rule.as_deref()
            && used.reason.as_str() == &*d.reason
            && d.inputs
                .budgets
                .iter()
                .any(|level| *level.name == *used.budget.name && level.used.0 >= used.budget.most())
    });
    if owner.is_none() {
        let rules =
            |reason: &str, rule: Option<&str>| format!("{reason} of {}", rule.unwrap_or("the default"));
        let budgets: Vec<_> =
            decided.budgets.iter().map(|b| rules(b.reason.as_str(), Some(b.rule.as_str()))).collect();
        return Err(Difference {
            what: "the budget that throttles it",
            expected: format!("one that is used up, among: {}", budgets.join(", ")),
            found: rules(&d.reason, d.rule.as_deref()),
        });
    }
    levels(d, decided)?;
    same("the obligations", &recorded_obligations(&Obligations::default()), &d.obligations)?;
    apart_from_scope(d, decided)
}

/// Everything that a decision of policy consists of.
fn whole(d: &body::Decision<'_>, decided: &Decision) -> Compared {
    same("the reason", &decided.reason.as_str(), &&*d.reason)?;
    same("the deciding rule", &decided.rule.as_ref().map(RuleId::as_str), &d.rule.as_deref())?;
    same("the obligations", &recorded_obligations(&decided.obligations), &d.obligations)?;
    apart_from_scope(d, decided)
}

fn apart_from_scope(d: &body::Decision<'_>, decided: &Decision) -> Compared {
    let matched: Vec<(&str, bool)> = decided.matched.iter().map(|m| (m.rule.as_str(), m.unknown)).collect();
    let recorded: Vec<(&str, bool)> = d.matched.iter().map(|m| (&*m.rule, m.unknown)).collect();
    same("the rules that matched", &matched, &recorded)?;
    same("what the shadow rules say", &decided.shadow.as_ref().map(shadow), &d.shadow.as_ref().map(said))?;
    same("whom to ask", &decided.escalate.as_ref().map(recorded_escalate), &d.escalate)?;
    let notify: Vec<&str> = decided.notify.iter().map(|name| &**name).collect();
    same("whom to notify", &notify, &d.notify.iter().map(|name| &**name).collect::<Vec<_>>())?;
    same("the severity", &decided.severity, &d.severity)?;
    same("the durability", &decided.durability, &d.durability)?;
    same("the cohort", &decided.cohort.as_deref(), &d.inputs.cohort.as_deref())?;
    same("the mode", &decided.mode, &d.mode)
}

type ShadowParts<'a> = (Verdict, Option<&'a str>, &'a str);

fn shadow(s: &Shadow) -> ShadowParts<'_> {
    (s.verdict, s.rule.as_ref().map(RuleId::as_str), s.reason.as_str())
}

fn said<'a>(s: &'a body::Shadow<'_>) -> ShadowParts<'a> {
    (s.verdict, s.rule.as_deref(), &s.reason)
}

/// A permit was charged to every budget that policy names; nothing else was charged.
fn charged(d: &body::Decision<'_>, decided: &Decision) -> Compared {
    match d.verdict {
        Verdict::Allow | Verdict::Sandbox => levels(d, decided),
        Verdict::Throttle | Verdict::Escalate | Verdict::Block => {
            same("the number of budgets charged", &0, &d.inputs.budgets.len())
        }
    }
}

fn levels(d: &body::Decision<'_>, decided: &Decision) -> Compared {
    let asked: Vec<(&str, &str, u64)> =
        decided.budgets.iter().map(|u| (&*u.budget.name, &**u.recorded_key(), u.budget.most())).collect();
    let recorded: Vec<(&str, &str, u64)> =
        d.inputs.budgets.iter().map(|b| (&*b.name, &*b.key, b.limit.0)).collect();
    same("the budgets it counts against", &asked, &recorded)
}
