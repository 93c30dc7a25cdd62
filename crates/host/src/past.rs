//! What the gate remembers of agents, and what it knows of them when it decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use govrun_control::Worlds;
use govrun_policy::{Policy, Provenance};
use govrun_verdict::{Ask, AskWhat, Builtin, Call, Decision, Facts, Mark, Timestamp, Traces, Verdict};

use crate::gate::Gate;
use crate::json;
use crate::runtime::{Answer, CallError};

/// Labels to take away once the call is on record.
pub(crate) type Unlabel = Vec<(Arc<str>, Worlds)>;

impl Gate {
    /// What the policy asks about the agent's past; `None` when this call neither asks nor leaves anything behind.
    pub(crate) fn known_past(
        &self,
        policy: &Policy,
        call: &Call,
        now: Timestamp,
    ) -> Result<Option<Facts>, Builtin> {
        if !policy.concerns_past(call) {
            return Ok(None);
        }
        let asks = policy.asks(call);
        let facts = self.store().facts(&call.agent.name, &asks, policy.idle_ms(), now);
        let facts = facts.map(|facts| self.heard.add_origins(&call.agent.name, &asks, facts));
        facts.map(Some).map_err(|error| {
            tracing::error!(%error, "the agent's past could not be read; the call is refused");
            Builtin::StoreUnavailable
        })
    }

    /// Remember what this decision makes of the call, before anything happens; returns the labels to take away after it is
    /// on record. What was remembered of a call that then fails stays: it can only restrict.
    pub(crate) fn remember(
        &self,
        policy: &Policy,
        call: &Call,
        decision: &Decision,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Unlabel, Builtin> {
        let predicted = decision.shadow.as_ref().map_or(decision.verdict, |shadow| shadow.verdict);
        let traces = policy.traces(call, now, Some(&facts.enforced));
        let mut marks = Vec::new();
        collect(&mut marks, &traces.permitted, decision.verdict, predicted, is_permitted);
        collect(&mut marks, &traces.blocked, decision.verdict, predicted, is_blocked);
        let other = facts.shadow.as_ref().map(|past| policy.traces(call, now, Some(past)));
        let predicted = is_permitted(predicted).then(|| other.as_ref().unwrap_or(&traces));
        let enforced = is_permitted(decision.verdict).then_some(&traces);
        let add = both(enforced, predicted, |traces| &traces.add);
        let remembered = self.store().remember(&call.agent.name, &marks, &add, now);
        match remembered {
            Ok(true) => Ok(both(enforced, predicted, |traces| &traces.remove)),
            Ok(false) => Err(Builtin::PastFull),
            Err(error) => {
                tracing::error!(%error, "what the call does could not be remembered; it is refused");
                Err(Builtin::StoreUnavailable)
            }
        }
    }

    /// The user's task, in the user's words: what it names is the user's. Nothing an agent says may come in here.
    pub fn heard_task(&self, agent: &str, text: &str) {
        self.heard.tell(agent, |told| told.task(text));
    }

    /// Text that the agent gets from a tool function. It is outsiders' unless the policy's labels say that it is trusted.
    pub fn heard_output(&self, agent: &str, function: &str, text: &str) {
        if self.policy().has_past() {
            let untrusted = self.policy().tool_labels(function).is_none_or(|labels| labels.untrusted);
            self.heard.tell(agent, |told| told.output(text, untrusted));
        }
    }

    /// What a call gave to the agent, a failure's text included: a guest may have written it.
    pub(crate) fn heard_answer(&self, call: &Call, answered: &Result<Answer, CallError>) {
        if !self.policy().has_past() {
            return;
        }
        let text = match answered {
            Ok(answer) => {
                answer.value.as_ref().map(|value| json::to_json(value).to_string()).unwrap_or_default()
            }
            Err(error) => error.to_string(),
        };
        self.heard_output(&call.agent.name, &call.tool.name, &text);
    }

    /// Take the labels away. Where that fails they stay, which restricts.
    pub(crate) fn unlabel(&self, call: &Call, labels: &Unlabel) {
        if let Err(error) = self.store().forget_labels(&call.agent.name, labels) {
            tracing::warn!(%error, "labels of an agent could not be taken away");
        }
    }
}

/// Most agents of whom it is kept what they were told.
const MAX_TOLD: usize = 1_024;

/// What agents were told, in memory: after a restart the origin of everything is unknown, which restricts.
#[derive(Default)]
pub(crate) struct Heard {
    told: Mutex<HashMap<String, Provenance>>,
}

impl Heard {
    fn tell(&self, agent: &str, tell: impl FnOnce(&mut Provenance)) {
        // What cannot be remembered has no origin.
        let Ok(mut told) = self.told.lock() else { return };
        if told.len() < MAX_TOLD || told.contains_key(agent) {
            tell(told.entry(agent.to_owned()).or_default());
        }
    }

    fn add_origins(&self, agent: &str, asks: &[Ask], mut facts: Facts) -> Facts {
        let Ok(told) = self.told.lock() else { return facts };
        let Some(told) = told.get(agent) else { return facts };
        for ask in asks {
            let AskWhat::Origin(value) = &ask.what else { continue };
            let Some(origin) = told.origin(value) else { continue };
            for past in std::iter::once(&mut facts.enforced).chain(&mut facts.shadow) {
                past.answers.insert(Arc::clone(&ask.name), origin.answer());
            }
        }
        facts
    }
}

fn is_permitted(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Allow | Verdict::Sandbox => true,
        Verdict::Throttle | Verdict::Escalate | Verdict::Block => false,
    }
}

fn is_blocked(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Block => true,
        Verdict::Allow | Verdict::Sandbox | Verdict::Throttle | Verdict::Escalate => false,
    }
}

fn collect(
    marks: &mut Vec<(Mark, Worlds)>,
    of: &[Mark],
    enforced: Verdict,
    predicted: Verdict,
    counts: impl Fn(Verdict) -> bool,
) {
    let worlds = Worlds { enforced: counts(enforced), shadow: counts(predicted) };
    if worlds.enforced || worlds.shadow {
        marks.extend(of.iter().map(|mark| (mark.clone(), worlds)));
    }
}

fn both<'t>(
    enforced: Option<&'t Traces>,
    predicted: Option<&'t Traces>,
    labels: impl Fn(&'t Traces) -> &'t Vec<Arc<str>>,
) -> Vec<(Arc<str>, Worlds)> {
    let of = |traces: Option<&'t Traces>, worlds: Worlds| {
        let labels = traces.map(&labels).map(Vec::as_slice).unwrap_or_default();
        labels.iter().map(move |label| (Arc::clone(label), worlds)).collect::<Vec<_>>()
    };
    let mut all = of(enforced, Worlds { enforced: true, shadow: false });
    all.extend(of(predicted, Worlds { enforced: false, shadow: true }));
    all
}
