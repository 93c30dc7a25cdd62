//! `[budget.NAME]`: what is counted, what its counts are kept apart by, and what happens when there is none left.

use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_verdict::{
    Action, Budget, BudgetKind, BudgetUse, Builtin, Call, Digest, Period, ReasonCode, RuleId,
};
use jiff::tz::TimeZoneDatabase;

use crate::field::{Field, Known};
use crate::limits;
use crate::toml_item::{Item, Table};
use crate::units::MAX_DURATION_MS;

/// Largest limit of a budget: every admission of a window is remembered.
pub const MAX_BUDGET_LIMIT: u64 = 1_000_000;
/// Longest wait of a call for a budget: five minutes.
pub const MAX_BUDGET_WAIT_MS: u64 = 300_000;

/// Longest argument in a key; a longer one is counted under its digest.
const MAX_PART_BYTES: usize = 128;
const DAY_MS: u64 = 86_400_000;
const PERIODS: [(&str, (Period, u64)); 3] = [
    ("day", (Period::Day, DAY_MS)),
    ("week", (Period::Week, 7 * DAY_MS)),
    ("month", (Period::Month, 30 * DAY_MS)),
];

/// A budget, and what its counts are kept apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BudgetSpec {
    pub(crate) budget: Arc<Budget>,
    key: Vec<KeyPart>,
}

/// One part of a budget's key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyPart {
    Agent,
    Tool,
    Tenant,
    Session,
    Arg(Field),
}

#[derive(Clone, Copy)]
enum Kind {
    Rolling,
    Rate,
    Calendar,
}

impl BudgetSpec {
    /// Whether calls of this action have all parts of the key.
    pub(crate) fn is_of(&self, action: Action) -> bool {
        self.key.iter().all(|part| if let KeyPart::Arg(field) = part { field.is_of(action) } else { true })
    }

    /// The use that this call makes of the budget, on behalf of this rule.
    pub(crate) fn used_by(&self, call: &Call, rule: &RuleId, reason: &ReasonCode) -> BudgetUse {
        let guest = self.key.iter().any(|part| matches!(part, KeyPart::Arg(_)));
        BudgetUse {
            budget: Arc::clone(&self.budget),
            key: self.key(call, false).into(),
            shown: guest.then(|| self.key(call, true).into()),
            rule: rule.clone(),
            reason: reason.clone(),
        }
    }

    /// The key of this call: each part with its length before it, so that no two keys read the same. What an argument is
    /// belongs into no record, so that `shown` has a star in its place.
    fn key(&self, call: &Call, shown: bool) -> String {
        // Names are bounded, so that this is nearly always one allocation.
        let mut key = String::with_capacity(64);
        for part in &self.key {
            let text: &str = match part {
                KeyPart::Agent => &call.agent.name,
                KeyPart::Tool => &call.tool.name,
                KeyPart::Tenant => call.agent.tenant.as_deref().unwrap_or_default(),
                KeyPart::Session => &call.session,
                KeyPart::Arg(_) if shown => "*",
                KeyPart::Arg(field) => {
                    push(&mut key, &argument(&field.read(call)));
                    continue;
                }
            };
            push(&mut key, text);
        }
        key
    }
}

fn push(key: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = write!(key, "{}:", text.len());
    key.push_str(text);
}

/// An argument as part of a key. All that is missing or unknown is counted together.
fn argument(known: &Known<'_>) -> String {
    match known {
        Known::Text(text) if text.len() > MAX_PART_BYTES => format!("#{}", Digest::of(text.as_bytes())),
        Known::Text(text) => format!("t{text}"),
        Known::Number(n) => format!("n{}", n.normalize()),
        Known::Bool(b) => format!("b{b}"),
        Known::Ip(ip) => format!("i{ip}"),
        Known::List(_) | Known::Record | Known::Opaque | Known::Absent | Known::Unknowable => "?".to_owned(),
    }
}

/// The value as [`argument`] spells it; `None` when nothing is known of it.
pub(crate) fn part_of(known: &Known<'_>) -> Option<String> {
    let part = argument(known);
    (part != "?").then_some(part)
}

/// The reason of a use that is only looked at.
pub(crate) fn reason() -> ReasonCode {
    Builtin::BudgetExhausted.code()
}

/// Read a budget.
pub(crate) fn read(name: &str, table: &Table<'_>) -> Option<BudgetSpec> {
    table.only(&["limit", "per", "kind", "key", "burst", "zone", "scope", "on_exceed"]);
    let kinds = [("rolling", Kind::Rolling), ("gcra", Kind::Rate), ("calendar", Kind::Calendar)];
    let kind = table.get("kind").map_or(Some(Kind::Rolling), |item| item.one_of(&kinds));
    scope(table);
    let wait_ms = table.get("on_exceed").and_then(|item| wait(&item));
    let limit =
        table.need("limit").and_then(|item| item.integer(1..=MAX_BUDGET_LIMIT)).and_then(NonZeroU64::new);
    let terms = kind_of(kind.unwrap_or(Kind::Rolling), table, limit);
    let key = table.need("key").and_then(|item| item.texts());
    let key = key?.iter().filter_map(|(item, text)| part(item, text)).collect();
    let ((kind, window_ms), _) = terms.zip(kind)?;
    let budget = Budget { name: name.into(), limit: limit?, window_ms, kind, wait_ms };
    Some(BudgetSpec { budget: Arc::new(budget), key })
}

/// What is counted, and how long a window is.
fn kind_of(kind: Kind, table: &Table<'_>, limit: Option<NonZeroU64>) -> Option<(BudgetKind, NonZeroU64)> {
    let per = table.need("per");
    let own: &[&str] = match kind {
        Kind::Rolling => &[],
        Kind::Rate => &["burst"],
        Kind::Calendar => &["zone"],
    };
    for key in ["burst", "zone"].into_iter().filter(|key| !own.contains(key)) {
        if let Some(item) = table.get(key) {
            let kind = if key == "burst" { "gcra" } else { "calendar" };
            item.fail(format!("`{key}` goes with `kind = \"{kind}\"` only"));
        }
    }
    match kind {
        Kind::Rolling => Some((BudgetKind::Rolling, per.and_then(|item| limits::duration(&item))?)),
        Kind::Rate => {
            let window_ms = per.and_then(|item| limits::duration(&item));
            let burst = table.need("burst").and_then(|item| burst(&item, limit, window_ms));
            Some((BudgetKind::Rate { burst: burst? }, window_ms?))
        }
        Kind::Calendar => {
            let period = per.and_then(|item| item.one_of(&PERIODS));
            let zone = table.need("zone").and_then(|item| zone(&item));
            let (period, usual_ms) = period?;
            Some((BudgetKind::Calendar { period, zone: zone? }, NonZeroU64::new(usual_ms)?))
        }
    }
}

fn burst(item: &Item<'_>, limit: Option<NonZeroU64>, window_ms: Option<NonZeroU64>) -> Option<NonZeroU64> {
    let burst = item.integer(1..=MAX_BUDGET_LIMIT).and_then(NonZeroU64::new)?;
    let refill_ms = burst.get().saturating_mul(window_ms?.get()) / limit?.get();
    if refill_ms > MAX_DURATION_MS {
        item.fail("at this rate the burst would take more than 366 days to come back");
    }
    Some(burst)
}

fn zone(item: &Item<'_>) -> Option<Arc<str>> {
    let name = item.text()?;
    if TimeZoneDatabase::bundled().get(name).is_err() {
        item.fail(format!("`{name}` is no zone of the IANA database, such as `Europe/Berlin` or `UTC`"));
    }
    Some(name.into())
}

fn part(item: &Item<'_>, text: &str) -> Option<KeyPart> {
    if let Some(field) = Field::parse(text).filter(|field| matches!(field, Field::Arg(_))) {
        return Some(KeyPart::Arg(field));
    }
    match text {
        "agent" => Some(KeyPart::Agent),
        "tool" => Some(KeyPart::Tool),
        "tenant" => Some(KeyPart::Tenant),
        "session" => Some(KeyPart::Session),
        _ => {
            let message = format!("`{text}` is none of `agent`, `tool`, `tenant`, `session`, `args.NAME`");
            item.fail_near(message, text, ["agent", "tool", "tenant", "session"]);
            None
        }
    }
}

/// `"fail"`, or `{ wait = "2s" }`.
fn wait(item: &Item<'_>) -> Option<NonZeroU64> {
    if !item.value().is_table() {
        item.one_of(&[("fail", ())]);
        return None;
    }
    let table = item.table("`on_exceed`")?;
    table.only(&["wait"]);
    let wait = table.need("wait")?;
    let wait_ms = limits::duration(&wait)?;
    if wait_ms.get() > MAX_BUDGET_WAIT_MS {
        wait.fail("a call waits for a budget at most five minutes");
    }
    Some(wait_ms)
}

fn scope(table: &Table<'_>) {
    let Some(item) = table.get("scope") else { return };
    if item.value().as_str() == Some("cluster") {
        item.fail_with(
            "`scope = \"cluster\"` needs a store that machines share, which this version does not have",
            "a `local` budget is exact over all processes of one state directory",
        );
    } else {
        item.one_of(&[("local", ())]);
    }
}
