//! Reading `govrun.toml`: packs, environment, audit.

use std::sync::Arc;

use govrun_verdict::{Action, Builtin, Disclosure, EscalateTo, Obligations, ReasonCode, Verdict};

use crate::error::did_you_mean;
use crate::names;
use crate::registry::{Registry, only_value};
use crate::rule;
use crate::toml_item::{Entry, Item, Table};

/// The version of the grammar.
pub const SCHEMA: u64 = 1;

/// Keys of every policy file.
pub(crate) const FILE_KEYS: [&str; 10] =
    ["agent", "tool", "tool_labels", "list", "notify", "budget", "sandbox", "secret", "label", "rule"];
/// Keys of the manifest only.
pub(crate) const MANIFEST_KEYS: [&str; 10] = [
    "schema",
    "packs",
    "layer",
    "environment",
    "env",
    "audit",
    "require_lock",
    "require_shadow",
    "require_signatures",
    "session",
];

/// What happens to a call that no rule permits.
#[derive(Debug, Clone)]
pub(crate) struct EnvDefault {
    pub(crate) effect: DefaultEffect,
    pub(crate) reason: ReasonCode,
}

/// There is no default that allows.
#[derive(Debug, Clone)]
pub(crate) enum DefaultEffect {
    Block,
    Escalate(EscalateTo),
    Sandbox(Obligations),
}

impl EnvDefault {
    pub(crate) fn deny() -> Self {
        Self { effect: DefaultEffect::Block, reason: Builtin::DefaultDeny.code() }
    }
}

/// Report keys that do not belong into this file.
pub(crate) fn check_keys(root: &Table<'_>, is_manifest: bool) {
    for entry in root.entries() {
        let known = FILE_KEYS.contains(&entry.key);
        let manifests = MANIFEST_KEYS.contains(&entry.key);
        if known || (manifests && is_manifest) {
            continue;
        }
        if manifests {
            entry.fail(format!("`{}` belongs into the manifest `govrun.toml`", entry.key), None);
            continue;
        }
        let also: &[&str] = if is_manifest { &MANIFEST_KEYS } else { &[] };
        let keys: Vec<&str> = FILE_KEYS.iter().chain(also).copied().collect();
        let near = did_you_mean(entry.key, keys.iter().copied());
        let help = near.unwrap_or_else(|| format!("known keys: {}", keys.join(", ")));
        entry.fail(format!("unknown key `{}` in this file", entry.key), Some(help));
    }
}

/// Check `schema = 1`; with another version nothing else can be understood.
pub(crate) fn schema_is_known(root: &Table<'_>) -> bool {
    let Some(item) = root.need("schema") else { return true };
    match item.value().as_integer().map(|i| (i.as_str(), i.radix())) {
        Some(("1", 10)) => true,
        Some((other, _)) => {
            item.fail(format!("schema version {other} is not known: this govrun reads version {SCHEMA}"));
            false
        }
        None => {
            item.fail(format!("`schema` is the number {SCHEMA}"));
            true
        }
    }
}

/// A key that is true or false, and false when it is not there.
pub(crate) fn flag(root: &Table<'_>, key: &str) -> bool {
    root.get(key).and_then(|item| item.boolean()).unwrap_or(false)
}

/// How many approvers must have signed the policy; 0 when the manifest does not ask for any.
pub(crate) fn signatures(root: &Table<'_>) -> u64 {
    root.get("require_signatures").and_then(|item| item.integer(1..=rule::MAX_APPROVALS)).unwrap_or(0)
}

/// How long an agent makes no call before its labels are forgotten, unless the manifest says.
const DEFAULT_IDLE_MS: u64 = 3_600_000;

/// `[session] idle`, in milliseconds.
pub(crate) fn idle_ms(root: &Table<'_>) -> u64 {
    let Some(table) = root.get("session").and_then(|item| item.table("`session`")) else {
        return DEFAULT_IDLE_MS;
    };
    table.only(&["idle"]);
    let idle = table.need("idle").and_then(|item| crate::limits::duration(&item));
    idle.map_or(DEFAULT_IDLE_MS, std::num::NonZeroU64::get)
}

/// The environment in force: its name and default.
pub(crate) fn environment(root: &Table<'_>, registry: &Registry) -> (Arc<str>, EnvDefault) {
    let Some(item) = root.get("env") else {
        if let Some(item) = root.get("environment") {
            item.fail("there is no `[env.NAME]` of this name");
        }
        return ("default".into(), EnvDefault::deny());
    };
    if let Some(text) = item.value().as_str() {
        item.fail_with("`env` holds the environments", format!("choose one with `environment = \"{text}\"`"));
        return (text.into(), EnvDefault::deny());
    }
    let envs = root.named("env", "an environment");
    let defaults: Vec<(Entry<'_>, EnvDefault)> = envs
        .into_iter()
        .map(|(entry, table)| {
            if let Err(why) = names::check(entry.key, "an environment's name") {
                entry.fail(why, None);
            }
            let default = env(&table, registry);
            (entry, default)
        })
        .collect();
    let chosen = match root.get("environment") {
        Some(item) => named_env(&item, &defaults),
        None if defaults.len() > 1 => {
            item.fail("there are several environments: say which is in force, `environment = \"NAME\"`");
            None
        }
        None => defaults.first(),
    };
    chosen.map_or_else(|| ("default".into(), EnvDefault::deny()), |(entry, d)| (entry.key.into(), d.clone()))
}

fn named_env<'a, 't>(
    item: &Item<'_>,
    envs: &'a [(Entry<'t>, EnvDefault)],
) -> Option<&'a (Entry<'t>, EnvDefault)> {
    let name = item.text()?;
    let found = envs.iter().find(|(entry, _)| entry.key == name);
    if found.is_none() {
        item.fail_near(format!("there is no environment `{name}`"), name, envs.iter().map(|(e, _)| e.key));
    }
    found
}

fn env(table: &Table<'_>, registry: &Registry) -> EnvDefault {
    table.only(&["default", "on_error", "audit_unavailable", "on_store_loss"]);
    for key in ["on_error", "audit_unavailable"] {
        only_value(table, key, "closed");
    }
    if let Some(item) = table.get("on_store_loss") {
        item.fail(
            "`on_store_loss` is about a store that machines share, which this version does not have; without its own store \
             a host refuses every call that needs it",
        );
    }
    let default = table.get("default").and_then(|item| env_default(&item.table("`default`")?, registry));
    default.unwrap_or_else(EnvDefault::deny)
}

fn env_default(table: &Table<'_>, registry: &Registry) -> Option<EnvDefault> {
    table.only(&["verdict", "reason", "escalate", "sandbox"]);
    let item = table.need("verdict")?;
    if item.value().as_str() == Some("allow") {
        item.fail(
            "a default cannot allow: write a rule with `verdict = \"allow\"` that says what is allowed",
        );
        return None;
    }
    let known = [("block", Verdict::Block), ("escalate", Verdict::Escalate), ("sandbox", Verdict::Sandbox)];
    let verdict = item.one_of(&known)?;
    for (key, wanted) in [("escalate", Verdict::Escalate), ("sandbox", Verdict::Sandbox)] {
        if let Some(item) = table.get(key).filter(|_| verdict != wanted) {
            item.fail(format!("`{key}` goes with `verdict = \"{wanted}\"` only"));
        }
    }
    let effect = match verdict {
        Verdict::Escalate => rule::escalate_to(table, &Action::ALL).map(DefaultEffect::Escalate),
        Verdict::Sandbox => rule::profile(table, registry).map(DefaultEffect::Sandbox),
        Verdict::Allow | Verdict::Throttle | Verdict::Block => Some(DefaultEffect::Block),
    };
    let reason = match table.get("reason") {
        Some(item) => rule::reason_code(&item),
        None => Some(default_reason(verdict)),
    };
    Some(EnvDefault { effect: effect?, reason: reason? })
}

fn default_reason(verdict: Verdict) -> ReasonCode {
    let code = match verdict {
        Verdict::Sandbox => "DEFAULT-SANDBOX",
        Verdict::Escalate => "DEFAULT-ESCALATE",
        Verdict::Allow | Verdict::Throttle | Verdict::Block => return Builtin::DefaultDeny.code(),
    };
    ReasonCode::new(code).unwrap_or_else(|_| Builtin::DefaultDeny.code())
}

/// `[audit]`: what records show in clear.
pub(crate) fn audit(root: &Table<'_>) -> Disclosure {
    let mut disclosure = Disclosure { clear: Default::default(), openings: true };
    let Some(table) = root.get("audit").and_then(|item| item.table("`audit`")) else { return disclosure };
    table.only(&["clear", "openings"]);
    if let Some(openings) = table.get("openings").and_then(|item| item.boolean()) {
        disclosure.openings = openings;
    }
    let clear = table.get("clear").and_then(|item| item.any_elements()).unwrap_or_default();
    for item in clear {
        let Some(text) = item.text() else { continue };
        let known = ["path", "host", "url", "statement", "name"];
        let argument = text
            .strip_prefix("args.")
            .is_some_and(|n| n == "*" || (!n.is_empty() && !n.contains(['*', '.'])));
        if !argument && !known.contains(&text) {
            let message =
                format!("`{text}` is no field of a record: `args.NAME`, `args.*`, {}", known.join(", "));
            item.fail_near(message, text, known);
        }
        disclosure.clear.insert(text.into());
    }
    disclosure
}
