//! Drills: known-bad actions that must get the verdict they got when the rule was written. They are run through the live
//! path by `govrun drill`; `docs/formats/policy-tests.md` has the grammar.
//!
//! ```toml
//! [[drill]]
//! id     = "pay-an-unknown-counterparty"
//! rule   = "pay-offlist"
//! agent  = "finance-1"
//! tool   = "payments"
//! call   = 'send("Mallory Ltd", 48000)'
//! expect = { verdict = "block", reason = "PAY-OFFLIST-COUNTERPARTY" }
//! every  = "7d"
//! ```

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use govrun_verdict::{Action, ReasonCode, RuleId, Verdict};

use crate::error::{LoadError, LoadErrors, Origin};
use crate::sources::SourceFile;
use crate::toml_item::{File, Table};
use crate::units;

/// Most drills of one policy.
pub const MAX_DRILLS: usize = 10_000;
/// How old the last run of a drill may be unless the drill says.
pub const DEFAULT_DRILL_EVERY_MS: u64 = 7 * 86_400_000;

/// One drill.
#[derive(Debug, Clone)]
pub struct Drill {
    /// Its id, unique among the drills of a policy.
    pub id: RuleId,
    /// The rule that must stop it.
    pub rule: RuleId,
    /// The agent that does it.
    pub agent: String,
    /// The component that it is done with, by its registered name.
    pub tool: String,
    /// The call, in the notation of `govrun call`.
    pub call: String,
    /// The action whose decision is looked at: the call itself, or something that the component does inside it.
    pub action: Action,
    /// The verdict that it must get.
    pub verdict: Verdict,
    /// The reason that it must get, if that matters.
    pub reason: Option<ReasonCode>,
    /// How old its last run may be, in milliseconds.
    pub every_ms: NonZeroU64,
    /// Where it is written.
    pub origin: Origin,
}

/// The drills of these files, in their order.
///
/// # Errors
/// With every mistake of every file, each with its place.
pub fn read_drills(files: &[SourceFile]) -> Result<Vec<Drill>, LoadErrors> {
    let mut drills: Vec<Drill> = Vec::new();
    let mut errors: Vec<LoadError> = Vec::new();
    for source in files {
        let file = File::new(&source.path, &source.text);
        let map = file.parse(&source.text);
        let root = Table::root(&file, &map);
        root.only(&["drill"]);
        for table in root.array("drill", "a drill") {
            let Some(drill) = drill(&table) else { continue };
            if let Some(first) = drills.iter().find(|d| d.id == drill.id) {
                table.fail(format!("the drill `{}` is already defined at {}", drill.id, first.origin));
            }
            drills.push(drill);
        }
        errors.extend(file.take_errors());
    }
    if drills.len() > MAX_DRILLS {
        errors.push(LoadError::of_file("drills", format!("there are at most {MAX_DRILLS} drills")));
    }
    LoadErrors::check(errors)?;
    Ok(drills)
}

/// The rules that the drills of these files exercise.
///
/// # Errors
/// As [`read_drills`].
pub fn drilled_rules(files: &[SourceFile]) -> Result<BTreeSet<RuleId>, LoadErrors> {
    Ok(read_drills(files)?.into_iter().map(|drill| drill.rule).collect())
}

fn drill(table: &Table<'_>) -> Option<Drill> {
    table.only(&["id", "rule", "agent", "tool", "call", "action", "expect", "every"]);
    let id = |key| {
        table.need(key).and_then(|item| item.checked(RuleId::new(item.text()?).map_err(|e| e.to_string())))
    };
    let text = |key| table.need(key).and_then(|item| item.text()).map(str::to_owned);
    let actions: Vec<(&'static str, Action)> = Action::ALL.into_iter().map(|a| (a.name(), a)).collect();
    let action = table.get("action").map_or(Some(Action::ToolCall), |item| item.one_of(&actions));
    let every = table.get("every").map_or(NonZeroU64::new(DEFAULT_DRILL_EVERY_MS), |item| {
        let text = item.text()?;
        item.checked(units::duration_ms(text))
    });
    let expected = table.need("expect").and_then(|item| item.table("`expect`"));
    let (drill, rule) = (id("id"), id("rule"));
    let (agent, tool, call) = (text("agent"), text("tool"), text("call"));
    let expected = expected?;
    expected.only(&["verdict", "reason"]);
    // What is let through shows nothing about a rule that must stop it.
    let verdicts = [
        ("throttle", Verdict::Throttle),
        ("sandbox", Verdict::Sandbox),
        ("escalate", Verdict::Escalate),
        ("block", Verdict::Block),
    ];
    let verdict = expected.need("verdict").and_then(|item| item.one_of(&verdicts));
    let reason = expected
        .get("reason")
        .map(|item| item.checked(ReasonCode::new(item.text()?).map_err(|e| e.to_string())));
    Some(Drill {
        id: drill?,
        rule: rule?,
        agent: agent?,
        tool: tool?,
        call: call?,
        action: action?,
        verdict: verdict?,
        reason: reason.flatten(),
        every_ms: every?,
        origin: table.origin(),
    })
}
