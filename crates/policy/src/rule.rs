//! Reading `[[rule]]`.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_verdict::{
    Builtin, Digest, Durability, EscalateTo, Mode, Obligations, OnTimeout, ReasonCode, RuleId, RuleVerdict,
    Severity, Verdict,
};

use smallvec::SmallVec;

use crate::budget::BudgetSpec;
use crate::condition::Condition;
use crate::error::Origin;
use crate::field::Field;
use crate::limits;
use crate::message::Message;
use crate::names;
use crate::promotion::{self, PromoteIf, Promotion};
use crate::registry::Registry;
use crate::rollout::{self, Rollout, Stage};
use crate::scope::{self, Scope};
use crate::toml_item::{Item, Table};
use crate::when::Reader;

/// Longest reason code a policy may give: `-UNKNOWN` must still fit behind it.
pub const MAX_REASON_BYTES: usize = 56;
/// Most approvals an escalation may need.
pub const MAX_APPROVALS: u64 = 32;
/// How long an approval is waited for unless the rule says.
pub const DEFAULT_APPROVAL_MS: u64 = 15 * 60_000;

const KEYS: [&str; 18] = [
    "id",
    "match",
    "when",
    "unless",
    "verdict",
    "reason",
    "message",
    "sandbox",
    "limit",
    "limits",
    "escalate",
    "notify",
    "severity",
    "tags",
    "mode",
    "rollout",
    "promote_if",
    "durability",
];

const VERDICTS: [(&str, Verdict); 5] = [
    ("allow", Verdict::Allow),
    ("sandbox", Verdict::Sandbox),
    ("escalate", Verdict::Escalate),
    ("block", Verdict::Block),
    ("throttle", Verdict::Throttle),
];
const SEVERITIES: [(&str, Severity); 5] = [
    ("info", Severity::Info),
    ("low", Severity::Low),
    ("medium", Severity::Medium),
    ("high", Severity::High),
    ("critical", Severity::Critical),
];
const DURABILITIES: [(&str, Durability); 3] =
    [("os", Durability::Os), ("sealed", Durability::Sealed), ("disk", Durability::Disk)];

/// What a rule does when it matches.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Allow {
        limits: Option<Box<Obligations>>,
    },
    Sandbox(Box<Obligations>),
    Escalate(Box<EscalateTo>),
    Block,
    /// Attaches its budgets and nothing else.
    Throttle,
}

impl Effect {
    /// The level in the lattice; a throttle has none.
    pub(crate) const fn level(&self) -> Option<RuleVerdict> {
        match self {
            Self::Allow { .. } => Some(RuleVerdict::Allow),
            Self::Sandbox(_) => Some(RuleVerdict::Sandbox),
            Self::Escalate(_) => Some(RuleVerdict::Escalate),
            Self::Block => Some(RuleVerdict::Block),
            Self::Throttle => None,
        }
    }

    const fn verdict(&self) -> Verdict {
        match self {
            Self::Allow { .. } => Verdict::Allow,
            Self::Sandbox(_) => Verdict::Sandbox,
            Self::Escalate(_) => Verdict::Escalate,
            Self::Block => Verdict::Block,
            Self::Throttle => Verdict::Throttle,
        }
    }

    pub(crate) const fn obligations(&self) -> Option<&Obligations> {
        match self {
            Self::Allow { limits: Some(limits) } => Some(limits),
            Self::Sandbox(obligations) => Some(obligations),
            Self::Allow { limits: None } | Self::Escalate(_) | Self::Block | Self::Throttle => None,
        }
    }

    pub(crate) const fn escalate_to(&self) -> Option<&EscalateTo> {
        match self {
            Self::Escalate(to) => Some(to),
            Self::Allow { .. } | Self::Sandbox(_) | Self::Block | Self::Throttle => None,
        }
    }
}

/// A rule, ready to decide.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) stage: Stage,
    /// The bit of its layer; 0 when it is in none.
    pub(crate) layer: u32,
    pub(crate) effect: Effect,
    pub(crate) scope: Scope,
    pub(crate) when: SmallVec<[Condition; 1]>,
    pub(crate) unless: Vec<Condition>,
    pub(crate) reason: ReasonCode,
    /// What is said when one of the budgets is exhausted.
    pub(crate) exhausted: ReasonCode,
    pub(crate) message: Option<Message>,
    pub(crate) budgets: Vec<Arc<BudgetSpec>>,
    pub(crate) notify: Vec<Arc<str>>,
    pub(crate) severity: Severity,
    pub(crate) durability: Durability,
}

/// A rule as people see it: where it is written, what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its id.
    pub id: RuleId,
    /// Where it is written.
    pub origin: Origin,
    /// Its verdict.
    pub verdict: Verdict,
    /// Whether it is enforced; `canary` with a `rollout`.
    pub mode: Mode,
    /// Its share, where it is enforced for one.
    pub rollout: Option<Rollout>,
    /// Its layer, if it is in one.
    pub layer: Option<Arc<str>>,
    /// Digest of what it says, without `mode` and `rollout`.
    pub digest: Digest,
    /// Why it may be enforced, where the manifest has `require_shadow`.
    pub promotion: Option<Promotion>,
    /// What must have been seen before it is enforced, where it says.
    pub promote_if: Option<PromoteIf>,
    /// Its reason code, also where it comes from the default.
    pub reason: ReasonCode,
    /// Its message as it is written, placeholders and all.
    pub message: Option<String>,
    /// Severity of its refusals.
    pub severity: Severity,
    /// Names of its budgets.
    pub limit: Vec<Arc<str>>,
    /// Names of the targets it tells.
    pub notify: Vec<Arc<str>>,
    /// Its tags, such as `owasp`.
    pub tags: BTreeMap<String, Vec<String>>,
    /// The lines it is written in.
    pub source: String,
}

/// Read one rule. Mistakes are reported; a rule with any is good for nothing but finding more of them.
pub(crate) fn read(
    table: &Table<'_>,
    registry: &Registry,
    layer: (u32, Option<&Arc<str>>),
) -> Option<(Rule, RuleInfo)> {
    table.only(&KEYS);
    let id = table.need("id").and_then(|item| {
        let text = item.text()?;
        item.checked(RuleId::new(text).map_err(|e| e.to_string()))
    });
    let scope = table.need("match").and_then(|item| scope::read(&item));
    let actions = scope.as_ref().map(|s| s.actions.clone()).unwrap_or_default();
    let reader = Reader { actions: &actions, registry };
    let conditions = |key| table.get(key).map(|item| reader.conditions(&item)).unwrap_or_default();
    let (when, unless) = (conditions("when"), conditions("unless"));
    let message = table.get("message").and_then(|item| message(&item, &actions));
    let stage = stage(table);
    let verdict = table.need("verdict").and_then(|item| item.one_of(&VERDICTS));
    let severity = table.get("severity").and_then(|item| item.one_of(&SEVERITIES));
    let durability = table.get("durability").and_then(|item| item.one_of(&DURABILITIES));
    let tags = table.get("tags").map(|item| tags(&item)).unwrap_or_default();
    let notify = table.get("notify").map(|item| notify(&item, registry)).unwrap_or_default();
    let budgets = table.get("limit").map(|item| budgets(&item, registry, &actions)).unwrap_or_default();
    let verdict = verdict?;
    let given = reason(table, verdict);
    let effect = effect(table, verdict, &actions, registry);
    let (id, scope, effect) = (id?, scope?, effect?);
    let exhausted = given.clone().unwrap_or_else(|| Builtin::BudgetExhausted.code());
    let reason = given.or_else(|| ReasonCode::new(default_reason(verdict)).ok())?;
    let severity = severity.unwrap_or_else(|| default_severity(verdict));
    let durability = durability.unwrap_or(Durability::Os);
    let rule = Rule {
        id,
        stage,
        layer: layer.0,
        effect,
        scope,
        when: when.into_iter().collect(),
        unless,
        reason,
        exhausted,
        message,
        budgets,
        notify,
        severity,
        durability,
    };
    let mut info = info(&rule, table, tags);
    info.layer = layer.1.cloned();
    Some((rule, info))
}

fn stage(table: &Table<'_>) -> Stage {
    let mode = table.get("mode").and_then(|item| item.one_of(&[("enforce", false), ("shadow", true)]));
    let Some(item) = table.get("rollout") else {
        return if mode == Some(true) { Stage::Shadow } else { Stage::Enforced };
    };
    if table.get("mode").is_some() {
        item.fail("a rule has `mode` or `rollout`, not both");
    }
    rollout::read(&item).map_or(Stage::Shadow, Stage::Canary)
}

fn info(rule: &Rule, table: &Table<'_>, tags: BTreeMap<String, Vec<String>>) -> RuleInfo {
    RuleInfo {
        id: rule.id.clone(),
        origin: table.origin(),
        verdict: rule.effect.verdict(),
        mode: rule.stage.mode(),
        rollout: match rule.stage {
            Stage::Canary(rollout) => Some(rollout),
            Stage::Enforced | Stage::Shadow => None,
        },
        layer: None,
        digest: promotion::fingerprint(table),
        promotion: None,
        promote_if: table.get("promote_if").and_then(|item| promotion::promote_if(&item)),
        reason: rule.reason.clone(),
        message: table.get("message").and_then(|item| item.text().map(str::to_owned)),
        severity: rule.severity,
        limit: rule.budgets.iter().map(|b| Arc::clone(&b.budget.name)).collect(),
        notify: rule.notify.clone(),
        tags,
        source: table.source().to_owned(),
    }
}

const fn default_reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "ALLOWED",
        Verdict::Sandbox => "SANDBOXED",
        // Required of these, so never used.
        Verdict::Throttle | Verdict::Escalate | Verdict::Block => "REFUSED",
    }
}

pub(crate) const fn default_severity(verdict: Verdict) -> Severity {
    match verdict {
        Verdict::Block => Severity::High,
        Verdict::Escalate => Severity::Medium,
        Verdict::Allow | Verdict::Throttle | Verdict::Sandbox => Severity::Info,
    }
}

fn reason(table: &Table<'_>, verdict: Verdict) -> Option<ReasonCode> {
    if table.get("reason").is_none() && !matches!(verdict, Verdict::Allow | Verdict::Sandbox) {
        table.fail(format!(
            "a rule with `verdict = \"{verdict}\"` needs a `reason`, such as `PAY-OVER-LIMIT`"
        ));
    }
    table.get("reason").and_then(|item| reason_code(&item))
}

pub(crate) fn reason_code(item: &Item<'_>) -> Option<ReasonCode> {
    let text = item.text()?;
    if text.len() > MAX_REASON_BYTES {
        item.fail(format!("a reason has at most {MAX_REASON_BYTES} characters"));
    }
    item.checked(ReasonCode::new(text).map_err(|e| e.to_string()))
}

fn message(item: &Item<'_>, actions: &[govrun_verdict::Action]) -> Option<Message> {
    let text = item.text()?;
    let placeholder = |name: &str| {
        let known = Field::parse(name).filter(|field| {
            matches!(field, Field::Arg(_) | Field::Tool | Field::Agent | Field::Host | Field::Path)
        });
        let field = known.ok_or_else(|| {
            format!("unknown placeholder `{{{name}}}`; known are {{args.NAME}}, {{tool}}, {{agent}}, {{host}}, {{path}}")
        })?;
        match actions.iter().find(|a| !field.is_of(**a)) {
            Some(action) => Err(format!("`{action}`, which this rule selects, has no `{{{name}}}`")),
            None => Ok(field),
        }
    };
    item.checked(Message::parse(text, placeholder))
}

fn tags(item: &Item<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(table) = item.table("`tags`") else { return BTreeMap::new() };
    let texts =
        |item: Item<'_>| item.texts().unwrap_or_default().iter().map(|(_, t)| (*t).to_owned()).collect();
    table.entries().iter().map(|entry| (entry.key.to_owned(), texts(entry.item))).collect()
}

fn notify(item: &Item<'_>, registry: &Registry) -> Vec<Arc<str>> {
    let items = item.texts().unwrap_or_default();
    let mut names: Vec<Arc<str>> = items
        .iter()
        .filter_map(|(item, _)| registry.notify.find(item, registry.complete))
        .map(|(n, _)| n)
        .collect();
    names.sort_unstable();
    names
}

fn budgets(item: &Item<'_>, registry: &Registry, actions: &[govrun_verdict::Action]) -> Vec<Arc<BudgetSpec>> {
    let mut budgets = Vec::new();
    for (item, name) in item.texts().unwrap_or_default() {
        let Some((_, spec)) = registry.budgets.find(&item, registry.complete) else { continue };
        if let Some(other) = actions.iter().find(|action| !spec.is_of(**action)) {
            item.fail(format!(
                "`{name}` counts by an argument, which `{other}`, that this rule selects, does not have"
            ));
        }
        budgets.push(Arc::clone(spec));
    }
    budgets
}

/// The keys that go with one verdict only, and what they say.
fn effect(
    table: &Table<'_>,
    verdict: Verdict,
    actions: &[govrun_verdict::Action],
    registry: &Registry,
) -> Option<Effect> {
    for (key, wanted) in
        [("sandbox", Verdict::Sandbox), ("escalate", Verdict::Escalate), ("limits", Verdict::Allow)]
    {
        if let Some(item) = table.get(key).filter(|_| wanted != verdict) {
            item.fail(format!("`{key}` goes with `verdict = \"{wanted}\"` only, and this is \"{verdict}\""));
        }
    }
    match verdict {
        Verdict::Allow => Some(Effect::Allow {
            limits: table.get("limits").and_then(|item| limits::limits(&item)).map(Box::new),
        }),
        Verdict::Sandbox => profile(table, registry).map(|profile| Effect::Sandbox(Box::new(profile))),
        Verdict::Escalate => escalate_to(table, actions).map(|to| Effect::Escalate(Box::new(to))),
        Verdict::Block => Some(Effect::Block),
        Verdict::Throttle => {
            if table.get("limit").is_none() {
                table.fail(
                    "a rule with `verdict = \"throttle\"` needs a `limit`: the budgets that it attaches",
                );
            }
            if let Some(item) = table.get("notify") {
                item.fail("a throttle rule decides nothing by itself, so nobody would ever be told");
            }
            Some(Effect::Throttle)
        }
    }
}

pub(crate) fn profile(table: &Table<'_>, registry: &Registry) -> Option<Obligations> {
    let item = table.need("sandbox")?;
    registry.sandboxes.find(&item, registry.complete).map(|(_, profile)| profile.clone())
}

pub(crate) fn escalate_to(table: &Table<'_>, actions: &[govrun_verdict::Action]) -> Option<EscalateTo> {
    let table = table.need("escalate")?.table("`escalate`")?;
    table.only(&["to", "need", "timeout", "on_timeout", "show"]);
    let roles = table.need("to").map(|item| roles(&item));
    let need =
        table.get("need").map_or(Some(1), |item| item.integer(1..=MAX_APPROVALS)).and_then(NonZeroU64::new);
    let timeout = table.get("timeout").map_or(NonZeroU64::new(DEFAULT_APPROVAL_MS), |i| limits::duration(&i));
    if let Some(item) = table.get("on_timeout") {
        item.one_of(&[("block", ())]);
    }
    let show = table.get("show").map(|item| show(&item, actions)).unwrap_or_default();
    Some(EscalateTo { roles: roles?, need: need?, timeout_ms: timeout?, on_timeout: OnTimeout::Block, show })
}

fn roles(item: &Item<'_>) -> Vec<Arc<str>> {
    let mut roles: Vec<Arc<str>> = Vec::new();
    for (item, text) in item.texts().unwrap_or_default() {
        match text.strip_prefix("role:") {
            Some(role) => {
                item.checked(names::check(role, "a role's name"));
                roles.push(role.into());
            }
            None => item.fail_with("approvers are roles", format!("write `role:{text}`")),
        }
    }
    roles.sort_unstable();
    roles
}

fn show(item: &Item<'_>, actions: &[govrun_verdict::Action]) -> Vec<Arc<str>> {
    let mut shown = Vec::new();
    for (item, text) in item.texts().unwrap_or_default() {
        match Field::parse(text) {
            Some(field) => {
                if let Some(action) = actions.iter().find(|a| !field.is_of(**a)) {
                    item.fail(format!("`{action}`, which this rule selects, has no `{text}`"));
                }
            }
            None => item.fail_near(format!("unknown attribute `{text}`"), text, crate::field::FIELD_NAMES),
        }
        shown.push(text.into());
    }
    shown
}
