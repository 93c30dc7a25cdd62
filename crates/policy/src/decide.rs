//! From the rules that match to the decision. Pure: no clock, no I/O, no panic; the same answer in any order of rules.

use std::sync::Arc;

use govrun_verdict::{
    Action, BudgetUse, Builtin, Call, Decision, Durability, Egress, EscalateTo, Facts, Matched, Mode,
    Obligations, Operation, ReasonCode, RuleId, RuleVerdict, Shadow, Timestamp, Verdict,
};
use smallvec::SmallVec;

use crate::address;
use crate::condition::{View, all};
use crate::manifest::DefaultEffect;
use crate::policy::Policy;
use crate::predicate::Truth;
use crate::rollout::Stage;
use crate::rule::{Rule, default_severity};

/// What a call is decided in.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time of the call, read once.
    pub now: Timestamp,
    /// Obligations of the running call that this one is made inside of.
    pub bounds: Option<&'a Obligations>,
}

/// A rule that matched.
#[derive(Debug, Clone, Copy)]
struct Hit<'p> {
    rule: &'p Rule,
    /// It matched only because something was unknown.
    unknown: bool,
    /// It is only recorded for this call.
    shadow: bool,
}

type Hits<'p> = SmallVec<[Hit<'p>; 8]>;

/// Who decided.
#[derive(Debug, Clone, Copy)]
enum Decider<'p> {
    Rule(Hit<'p>),
    Default,
    /// Public addresses are permitted where nothing restricts them.
    PublicAddress,
    AddressNotGranted,
    NoEgress,
    /// A layer that must permit does not.
    Ceiling,
}

/// What a set of matching rules comes to.
struct Outcome<'p> {
    verdict: Verdict,
    decider: Decider<'p>,
    /// The level of the rules that decided with it; `None` when a built-in rule overruled them.
    level: Option<RuleVerdict>,
    /// The environment's default counts among the rules.
    default_joins: bool,
    escalate: Option<Box<EscalateTo>>,
}

/// What applies where no rule permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floor {
    Default,
    /// The address is public: permitted.
    Public,
    /// The address is special: only rules that name its range permit it.
    Special,
}

impl Policy {
    /// Decide a call of which no past is known: what a rule asks about it is unknown, and restricts.
    #[must_use]
    pub fn decide(&self, call: &Call, context: &Context<'_>) -> Decision {
        self.decide_knowing(call, context, None)
    }

    /// Decide a call, knowing what the policy [asks](Self::asks) about the agent's past. Infallible: whatever cannot be
    /// known restricts.
    #[must_use]
    pub fn decide_knowing(&self, call: &Call, context: &Context<'_>, facts: Option<&Facts>) -> Decision {
        self.decide_from(call, context, facts, |_| true)
    }

    /// Decide as if the policy had only the rules that are kept.
    pub(crate) fn decide_with(
        &self,
        call: &Call,
        context: &Context<'_>,
        keep: impl Fn(&Rule) -> bool,
    ) -> Decision {
        self.decide_from(call, context, None, keep)
    }

    fn decide_from(
        &self,
        call: &Call,
        context: &Context<'_>,
        facts: Option<&Facts>,
        keep: impl Fn(&Rule) -> bool,
    ) -> Decision {
        let past = facts.map(|facts| &facts.enforced);
        let view = View { call, now: context.now, past, tool: self.tool_labels(&call.tool.name) };
        let mut hits = self.hits(&view);
        hits.retain(|hit| keep(hit.rule));
        let enforced = self.resolve(call, context, || hits.iter().filter(|h| !h.shadow).copied());
        let shadow = match facts.and_then(|facts| facts.shadow.as_ref()) {
            // Shadow rules have led to another past, in which all rules are asked anew.
            Some(past) => Some(self.predict(call, context, &self.hits(&View { past: Some(past), ..view }))),
            None => hits.iter().any(|h| h.shadow).then(|| self.predict(call, context, &hits)),
        };
        self.finish(call, context, &hits, enforced, shadow)
    }

    /// What enforcing the shadow rules too would give.
    fn predict(&self, call: &Call, context: &Context<'_>, hits: &Hits<'_>) -> Shadow {
        let both = self.resolve(call, context, || hits.iter().copied());
        Shadow {
            verdict: both.verdict,
            rule: self.rule_of(both.decider),
            reason: self.reason_of(both.decider),
        }
    }

    /// The rules that match, by ascending id.
    fn hits(&self, view: &View<'_>) -> Hits<'_> {
        let mut positions: SmallVec<[u32; 16]> = SmallVec::new();
        self.index.candidates(view.call, |position| positions.push(position));
        positions.sort_unstable();
        positions.dedup();
        let rules = positions.iter().filter_map(|p| self.rules.get(usize::try_from(*p).ok()?));
        rules.filter_map(|rule| matches(rule, view)).collect()
    }

    /// What these rules come to. `hits` gives them by ascending id, as often as asked.
    fn resolve<'p, I: Iterator<Item = Hit<'p>>>(
        &'p self,
        call: &Call,
        context: &Context<'_>,
        hits: impl Fn() -> I,
    ) -> Outcome<'p> {
        let floor = floor(call);
        let floor = self.floor_of(floor, hits());
        let level =
            hits().filter_map(|hit| hit.rule.effect.level()).chain(floor.map(|(level, _)| level)).max();
        let level = level.unwrap_or(RuleVerdict::Block);
        let of_level = || hits().filter(|hit| hit.rule.effect.level() == Some(level));
        let definite = of_level().find(|hit| !hit.unknown);
        let decider = match (definite.or_else(|| of_level().next()), floor) {
            (Some(hit), _) => Decider::Rule(hit),
            (None, Some((_, decider))) => decider,
            (None, None) => Decider::Default,
        };
        let default_joins = matches!(floor, Some((_, Decider::Default)));
        let mut outcome =
            Outcome { verdict: level.into(), decider, level: Some(level), default_joins, escalate: None };
        if level == RuleVerdict::Escalate {
            outcome.escalate = self.approvers(of_level(), default_joins).map(Box::new);
            if outcome.escalate.is_none() {
                outcome.verdict = Verdict::Block;
            }
        }
        if call.action().is_egress() && outcome.is_cut(self.scopes(hits(), default_joins), context.bounds) {
            outcome.verdict = Verdict::Block;
            outcome.decider = Decider::NoEgress;
            outcome.level = None;
        }
        let sandboxed = context.bounds.is_some_and(|b| b.sandbox.is_some());
        if sandboxed && outcome.verdict == Verdict::Allow && call.action().is_effectful() {
            outcome.verdict = Verdict::Sandbox;
        }
        outcome
    }

    /// What joins the lattice beside the rules.
    fn floor_of<'p>(
        &self,
        floor: Floor,
        hits: impl Iterator<Item = Hit<'p>>,
    ) -> Option<(RuleVerdict, Decider<'p>)> {
        if floor == Floor::Public {
            return Some((RuleVerdict::Allow, Decider::PublicAddress));
        }
        let (mut granted, mut layers) = (false, 0);
        for hit in hits.filter(|hit| hit.permits(floor)) {
            layers |= hit.rule.layer;
            // INVARIANT: a ceiling bounds what others grant, and grants nothing.
            granted |= hit.rule.layer & self.ceilings == 0;
        }
        let default = (!granted).then(|| self.ungranted(floor));
        let below = layers & self.ceilings == self.ceilings;
        match default {
            Some((RuleVerdict::Block, _)) => default,
            Some(_) | None if below => default,
            Some(_) | None => Some((RuleVerdict::Block, Decider::Ceiling)),
        }
    }

    /// What applies where no rule grants.
    const fn ungranted<'p>(&self, floor: Floor) -> (RuleVerdict, Decider<'p>) {
        match floor {
            Floor::Special => (RuleVerdict::Block, Decider::AddressNotGranted),
            Floor::Public | Floor::Default => {
                let level = match &self.default.effect {
                    DefaultEffect::Block => RuleVerdict::Block,
                    DefaultEffect::Escalate(_) => RuleVerdict::Escalate,
                    DefaultEffect::Sandbox(_) => RuleVerdict::Sandbox,
                };
                (level, Decider::Default)
            }
        }
    }

    /// Obligations of each of them.
    fn scopes<'p>(
        &'p self,
        hits: impl Iterator<Item = Hit<'p>>,
        default_joins: bool,
    ) -> impl Iterator<Item = &'p Obligations> {
        let of_default = match &self.default.effect {
            DefaultEffect::Sandbox(obligations) if default_joins => Some(obligations),
            DefaultEffect::Block | DefaultEffect::Escalate(_) | DefaultEffect::Sandbox(_) => None,
        };
        hits.filter_map(|hit| hit.rule.effect.obligations()).chain(of_default)
    }

    /// Whom to ask when all of these demand it; `None` when nobody satisfies all demands.
    fn approvers<'p>(
        &'p self,
        hits: impl Iterator<Item = Hit<'p>>,
        default_joins: bool,
    ) -> Option<EscalateTo> {
        let of_default = match &self.default.effect {
            DefaultEffect::Escalate(to) if default_joins => Some(to),
            DefaultEffect::Block | DefaultEffect::Escalate(_) | DefaultEffect::Sandbox(_) => None,
        };
        let of_rules = hits.filter_map(|hit| hit.rule.effect.escalate_to());
        let mut all = of_rules.chain(of_default);
        let first = all.next()?.clone();
        let met = all.fold(first, |met, more| met.meet(more));
        (!met.roles.is_empty()).then_some(met)
    }

    fn finish(
        &self,
        call: &Call,
        context: &Context<'_>,
        hits: &Hits<'_>,
        outcome: Outcome<'_>,
        shadow: Option<Shadow>,
    ) -> Decision {
        let enforced = || hits.iter().filter(|hit| !hit.shadow);
        let deciding =
            || enforced().filter(|hit| outcome.level.is_some() && hit.rule.effect.level() == outcome.level);
        let blocked = outcome.verdict == Verdict::Block;
        let severity = deciding().map(|hit| hit.rule.severity).max();
        Decision {
            verdict: outcome.verdict,
            mode: mode_of(outcome.decider),
            reason: self.reason_of(outcome.decider),
            message: self.message_of(outcome.decider, call),
            rule: self.rule_of(outcome.decider),
            matched: enforced()
                .map(|hit| Matched { rule: hit.rule.id.clone(), unknown: hit.unknown })
                .collect(),
            shadow,
            cohort: cohort(hits),
            obligations: if blocked {
                Obligations::default()
            } else {
                meet(self.scopes(enforced().copied(), outcome.default_joins).chain(context.bounds))
            },
            budgets: if blocked { Vec::new() } else { budgets(call, enforced()) },
            escalate: outcome.escalate.filter(|_| outcome.verdict == Verdict::Escalate).map(|to| *to),
            notify: notify(deciding()),
            severity: severity.unwrap_or(default_severity(outcome.verdict)),
            durability: durability(call.action(), outcome.verdict, enforced()),
            disclosure: Arc::clone(&self.disclosure),
            epoch: self.epoch,
        }
    }

    fn rule_of(&self, decider: Decider<'_>) -> Option<RuleId> {
        match decider {
            Decider::Rule(hit) => Some(hit.rule.id.clone()),
            Decider::Default => None,
            Decider::PublicAddress => Some(self.words.public_address.clone()),
            Decider::AddressNotGranted => Some(self.words.address_not_granted.clone()),
            Decider::NoEgress => Some(self.words.no_egress.clone()),
            Decider::Ceiling => Some(self.words.ceiling.clone()),
        }
    }

    fn reason_of(&self, decider: Decider<'_>) -> ReasonCode {
        match decider {
            Decider::Rule(hit) if hit.unknown => hit.rule.reason.unknown(),
            Decider::Rule(hit) => hit.rule.reason.clone(),
            Decider::Default => self.default.reason.clone(),
            Decider::PublicAddress => self.words.allowed.clone(),
            Decider::AddressNotGranted => Builtin::NetAddressNotGranted.code(),
            Decider::NoEgress => Builtin::SandboxNoEgress.code(),
            Decider::Ceiling => Builtin::CeilingNotPermitted.code(),
        }
    }

    fn message_of(&self, decider: Decider<'_>, call: &Call) -> String {
        let builtin = match decider {
            Decider::Rule(hit) => return hit.rule.message.as_ref().map(|m| m.fill(call)).unwrap_or_default(),
            Decider::PublicAddress => return String::new(),
            Decider::Default if self.default.reason.as_str() != Builtin::DefaultDeny.info().code => {
                return String::new();
            }
            Decider::Default => Builtin::DefaultDeny,
            Decider::AddressNotGranted => Builtin::NetAddressNotGranted,
            Decider::NoEgress => Builtin::SandboxNoEgress,
            Decider::Ceiling => Builtin::CeilingNotPermitted,
        };
        builtin.info().sentence.to_owned()
    }
}

/// Whether the rule matches the call: `Some(true)` when only because something is unknown.
pub(crate) fn how_it_matches(rule: &Rule, view: &View<'_>) -> Option<bool> {
    matches(rule, view).map(|hit| hit.unknown)
}

impl Hit<'_> {
    /// Whether the rule lets the call through by itself (after an approval, in a sandbox).
    fn permits(&self, floor: Floor) -> bool {
        let permits = match self.rule.effect.level() {
            Some(RuleVerdict::Allow | RuleVerdict::Sandbox | RuleVerdict::Escalate) => !self.unknown,
            Some(RuleVerdict::Block) | None => false,
        };
        permits && (floor != Floor::Special || self.rule.scope.names_cidr())
    }
}

impl Outcome<'_> {
    /// Whether a call that would leave the machine may not: by its bounds, or by what would permit it. A rule that blocks
    /// the call anyway keeps its own reason.
    fn is_cut<'p>(
        &self,
        mut scopes: impl Iterator<Item = &'p Obligations>,
        bounds: Option<&Obligations>,
    ) -> bool {
        let by_rule = self.level == Some(RuleVerdict::Block) && matches!(self.decider, Decider::Rule(_));
        let bounds_cut = bounds.is_some_and(|b| b.egress == Egress::None);
        let mut scopes_cut = || scopes.any(|scope| scope.egress == Egress::None);
        !by_rule && (bounds_cut || (self.verdict != Verdict::Block && scopes_cut()))
    }
}

/// All of them together: the tighter of every limit.
fn meet<'p>(mut scopes: impl Iterator<Item = &'p Obligations>) -> Obligations {
    let Some(first) = scopes.next() else { return Obligations::default() };
    scopes.fold(first.clone(), |met, more| met.meet(more))
}

/// Whether the rule matches, and how. A rule of another action is never asked.
fn matches<'p>(rule: &'p Rule, view: &View<'_>) -> Option<Hit<'p>> {
    if !rule.scope.holds(view.call) {
        return None;
    }
    let mut truth = all(&rule.when, view);
    if truth != Truth::False && !rule.unless.is_empty() {
        truth = truth.and(all(&rule.unless, view).not());
    }
    let permits = rule.effect.level() == Some(RuleVerdict::Allow);
    let unknown = match truth {
        Truth::True => false,
        Truth::Unknown if !permits => true,
        Truth::Unknown | Truth::False => return None,
    };
    Some(Hit { rule, unknown, shadow: !rule.stage.enforces(&rule.id, view) })
}

fn mode_of(decider: Decider<'_>) -> Mode {
    match decider {
        Decider::Rule(hit) => hit.rule.stage.mode(),
        Decider::Default
        | Decider::PublicAddress
        | Decider::AddressNotGranted
        | Decider::NoEgress
        | Decider::Ceiling => Mode::Enforce,
    }
}

/// Most rules that a record names with their cohort.
const MAX_COHORTS: usize = 16;

/// Of each matching rule with a rollout, by id, whether it was enforced for this call.
fn cohort(hits: &Hits<'_>) -> Option<Arc<str>> {
    let canaries = hits.iter().filter(|hit| matches!(hit.rule.stage, Stage::Canary(_))).take(MAX_COHORTS);
    let named =
        canaries.map(|hit| format!("{}={}", hit.rule.id, if hit.shadow { "shadow" } else { "enforce" }));
    let named: SmallVec<[String; 1]> = named.collect();
    (!named.is_empty()).then(|| named.join(",").into())
}

fn floor(call: &Call) -> Floor {
    match &call.operation {
        Operation::NetConnect { ip, .. } if address::special(*ip).is_some() => Floor::Special,
        Operation::NetConnect { .. } => Floor::Public,
        // Nobody decided on a name before: unlike a request's connection, it needs a rule even to a public address.
        Operation::NetSocket { ip, .. } if address::special(*ip).is_some() => Floor::Special,
        Operation::ToolCall { .. }
        | Operation::Fs { .. }
        | Operation::HttpRequest(_)
        | Operation::NetDns { .. }
        | Operation::NetSocket { .. }
        | Operation::Db { .. }
        | Operation::Kv { .. }
        | Operation::Model { .. }
        | Operation::Secret { .. }
        | Operation::EnvRead { .. }
        | Operation::ArgsRead
        | Operation::Stdio(_)
        | Operation::Clock
        | Operation::Random => Floor::Default,
    }
}

/// All budgets of all matching rules, by name; of several rules with one budget the smallest id stands for it.
fn budgets<'p>(call: &Call, hits: impl Iterator<Item = &'p Hit<'p>>) -> Vec<BudgetUse> {
    let mut uses: Vec<BudgetUse> = Vec::new();
    for rule in hits.map(|hit| hit.rule) {
        for spec in &rule.budgets {
            if uses.iter().all(|u| u.budget.name != spec.budget.name) {
                uses.push(spec.used_by(call, &rule.id, &rule.exhausted));
            }
        }
    }
    uses.sort_unstable_by(|a, b| a.budget.name.cmp(&b.budget.name));
    uses
}

fn notify<'p>(hits: impl Iterator<Item = &'p Hit<'p>>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    hits.for_each(|hit| names.extend_from_slice(&hit.rule.notify));
    names.sort_unstable();
    names.dedup();
    names
}

fn durability<'p>(action: Action, verdict: Verdict, hits: impl Iterator<Item = &'p Hit<'p>>) -> Durability {
    if verdict == Verdict::Escalate {
        return Durability::Disk;
    }
    let least = if action.is_effectful() { Durability::Sealed } else { Durability::Os };
    hits.map(|hit| hit.rule.durability).fold(least, Durability::max)
}
