//! `promotions.toml`: which rules may be enforced, where the manifest has `require_shadow`.
//!
//! A rule is known by the digest of what it says, its stage left out: a rule that is promoted from shadow to enforced
//! keeps its digest, and one that is changed in any other way loses its promotion. What it names (lists, budgets,
//! profiles) is not part of the digest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use govrun_verdict::{Digest, Mode, RuleId};
use toml::de::DeValue;

use crate::rule::RuleInfo;
use crate::toml_item::{Item, Table};
use crate::units;

/// Name of the file in the policy folder.
pub const PROMOTIONS: &str = "promotions.toml";

/// Keys of a rule that say how far it has got, and not what it does.
const STAGE_KEYS: [&str; 2] = ["mode", "rollout"];

/// Why a rule may be enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promotion {
    /// It was seen in shadow: a reference to the evidence.
    Evidence(String),
    /// Without evidence: who took the responsibility, and why.
    BreakGlass(String),
}

/// What must have been seen of a rule in shadow before it is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromoteIf {
    /// At least so many calls that it matched.
    pub calls: u64,
    /// From the first to the last of them at least so many milliseconds.
    pub over_ms: u64,
    /// At most so many calls for which enforcing it would have changed the verdict.
    pub changed: u64,
}

/// Read `promote_if = { calls = 500, over = "7d", changed = 10 }`.
pub(crate) fn promote_if(item: &Item<'_>) -> Option<PromoteIf> {
    let table = item.table("`promote_if`")?;
    table.only(&["calls", "over", "changed"]);
    let count = |key, least| table.get(key).map(|item: Item<'_>| item.integer(least..=u64::MAX));
    let calls = table.need("calls").and_then(|item| item.integer(1..=u64::MAX));
    let over = table.get("over").map_or(Some(0), |item| {
        let text = item.text()?;
        item.checked(units::duration_ms(text)).map(std::num::NonZeroU64::get)
    });
    let changed = count("changed", 0).unwrap_or(Some(u64::MAX));
    Some(PromoteIf { calls: calls?, over_ms: over?, changed: changed? })
}

/// The promotions by rule, with the digest that each is for.
pub(crate) type Promotions = BTreeMap<RuleId, (Digest, Promotion)>;

/// The digest of what a rule says.
pub(crate) fn fingerprint(rule: &Table<'_>) -> Digest {
    Digest::of(format!("govrun rule 1\n{}", canonical_table(rule, &STAGE_KEYS)).as_bytes())
}

/// One spelling of what the table says, without these keys: a line for each other key.
pub(crate) fn canonical_table(table: &Table<'_>, without: &[&str]) -> String {
    let mut text = String::new();
    let mut entries = table.entries();
    entries.sort_by_key(|entry| entry.key);
    for entry in entries.iter().filter(|entry| !without.contains(&entry.key)) {
        // Writing to a string does not fail.
        let _ = write!(text, "{:?} = ", entry.key);
        canonical(&mut text, entry.item.value());
        text.push('\n');
    }
    text
}

/// One spelling for each value: keys sorted, texts quoted.
fn canonical(out: &mut String, value: &DeValue<'_>) {
    // Writing to a string does not fail.
    let _ = match value {
        DeValue::String(text) => write!(out, "{text:?}"),
        DeValue::Integer(i) => write!(out, "{}:{}", i.radix(), i.as_str()),
        DeValue::Float(f) => write!(out, "{}", f.as_str()),
        DeValue::Boolean(b) => write!(out, "{b}"),
        DeValue::Datetime(at) => write!(out, "{at}"),
        DeValue::Array(items) => {
            out.push('[');
            for item in items.iter() {
                canonical(out, item.get_ref());
                out.push(',');
            }
            write!(out, "]")
        }
        DeValue::Table(map) => {
            let sorted: BTreeMap<&str, &DeValue<'_>> =
                map.iter().map(|(key, value)| (&**key.get_ref(), value.get_ref())).collect();
            out.push('{');
            for (key, value) in sorted {
                let _ = write!(out, "{key:?}=");
                canonical(out, value);
                out.push(',');
            }
            write!(out, "}}")
        }
    };
}

/// Read `[[promotion]]`.
pub(crate) fn read(root: &Table<'_>) -> Promotions {
    root.only(&["promotion"]);
    let mut promotions = Promotions::new();
    for table in root.array("promotion", "a promotion") {
        table.only(&["rule", "digest", "evidence", "break_glass"]);
        let rule = table
            .need("rule")
            .and_then(|item| item.checked(RuleId::new(item.text()?).map_err(|e| e.to_string())));
        let digest = table
            .need("digest")
            .and_then(|item| item.checked(Digest::parse(item.text()?).map_err(|e| e.to_string())));
        let promotion = match (table.get("evidence"), table.get("break_glass")) {
            (Some(item), None) => said(&item).map(Promotion::Evidence),
            (None, Some(item)) => said(&item).map(Promotion::BreakGlass),
            (Some(_), Some(_)) | (None, None) => {
                table.fail("a promotion has either `evidence`, or `break_glass` with who and why");
                None
            }
        };
        let (Some(rule), Some(digest), Some(promotion)) = (rule, digest, promotion) else { continue };
        if promotions.insert(rule.clone(), (digest, promotion)).is_some() {
            table.fail(format!("the rule `{rule}` is promoted twice"));
        }
    }
    promotions
}

fn said(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.trim().is_empty() || text.chars().any(crate::error::is_hidden) {
        item.fail("one line of text is needed here");
    }
    Some(text.to_owned())
}

/// Report the rule when it would be enforced, in part or as a whole, and was not promoted as it is now.
pub(crate) fn check(table: &Table<'_>, info: &mut RuleInfo, promotions: &Promotions) {
    match info.mode {
        Mode::Shadow | Mode::Drill => return,
        Mode::Enforce | Mode::Canary => {}
    }
    match promotions.get(&info.id) {
        Some((digest, promotion)) if *digest == info.digest => info.promotion = Some(promotion.clone()),
        Some(_) => table.fail(format!(
            "the rule `{}` was changed after it was promoted; the manifest has `require_shadow`: let it run in shadow again",
            info.id
        )),
        None => table.fail(format!(
            "the rule `{}` was never promoted; the manifest has `require_shadow`: a new rule starts with `mode = \"shadow\"`",
            info.id
        )),
    }
}
