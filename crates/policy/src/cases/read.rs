//! Reading `[[case]]`.

use govrun_verdict::{ReasonCode, RuleId, Timestamp, Verdict};

use super::{CALL_KEYS, Case, Expect, call};
use crate::error::{LoadError, LoadErrors};
use crate::policy::Policy;
use crate::sources::SourceFile;
use crate::toml_item::{File, Item, Table};
use crate::units;

/// Most cases of all files together.
pub const MAX_CASES: usize = 100_000;
/// Most times that one case makes its call.
pub const MAX_REPEAT: u64 = 100_000;

/// When calls are made that say no time: a Wednesday, 2026-07-01T10:00:00Z.
const USUAL: Timestamp = Timestamp(1_782_900_000_000_000);

const VERDICTS: [(&str, Verdict); 5] = [
    ("allow", Verdict::Allow),
    ("throttle", Verdict::Throttle),
    ("sandbox", Verdict::Sandbox),
    ("escalate", Verdict::Escalate),
    ("block", Verdict::Block),
];

/// The cases of these files, in their order. The grammar is closed, as that of policies.
///
/// # Errors
/// With every mistake of every file, each with its place. Files without any case are a mistake too.
pub fn read_cases(files: &[SourceFile], policy: &Policy) -> Result<Vec<Case>, LoadErrors> {
    let mut cases = Vec::new();
    let mut errors: Vec<LoadError> = Vec::new();
    for source in files {
        let file = File::new(&source.path, &source.text);
        let map = file.parse(&source.text);
        let root = Table::root(&file, &map);
        root.only(&["case"]);
        let before = cases.len();
        for table in root.array("case", "a case") {
            cases.extend(case(&table, policy));
        }
        let mut found = file.take_errors();
        if found.is_empty() && cases.len() == before {
            found.push(LoadError::of_file(&source.path, "there is no `[[case]]` in it"));
        }
        errors.extend(found);
    }
    if cases.len() > MAX_CASES {
        errors.push(LoadError::of_file("tests", format!("there are at most {MAX_CASES} cases")));
    }
    LoadErrors::check(errors)?;
    Ok(cases)
}

fn case(table: &Table<'_>, policy: &Policy) -> Option<Case> {
    let own = ["title", "at", "repeat", "every", "expect"];
    let keys: Vec<&str> = own.into_iter().chain(CALL_KEYS).collect();
    table.only(&keys);
    let title = table.need("title").and_then(|item| item.text()).map(str::to_owned);
    let call = call(table, policy);
    let at = table.get("at").map_or(Some(USUAL), |item| time(&item));
    let repeat = table.get("repeat").map_or(Some(1), |item| item.integer(1..=MAX_REPEAT));
    let every = table.get("every").and_then(|item| {
        let text = item.text()?;
        item.checked(units::duration_ms(text))
    });
    let expect = table.need("expect").and_then(|item| expect(&item, policy));
    Some(Case {
        title: title?,
        origin: table.origin(),
        call: call?,
        at: at?,
        repeat: u32::try_from(repeat?).ok()?,
        every_us: every.map_or(0, |ms| ms.get().saturating_mul(1_000)),
        expect: expect?,
    })
}

/// A time such as `2026-07-03T22:00:00Z`.
pub(crate) fn time(item: &Item<'_>) -> Option<Timestamp> {
    let text = item.text()?;
    let parsed = text
        .parse::<jiff::Timestamp>()
        .map_err(|_| format!("`{text}` is no time; write it as a string such as `2026-07-03T22:00:00Z`"));
    let micros = item.checked(parsed)?.as_microsecond();
    item.checked(u64::try_from(micros).map_err(|_| "times before 1970 are not known")).map(Timestamp)
}

/// Read `expect = {…}`.
pub(crate) fn expect(item: &Item<'_>, policy: &Policy) -> Option<Expect> {
    let table = item.table("`expect`")?;
    table.only(&["verdict", "rule", "reason", "shadow"]);
    let verdict = table.need("verdict").and_then(|item| item.one_of(&VERDICTS));
    let rule = table.get("rule").map(|item| rule(&item, policy));
    let reason = table.get("reason").map(|item| {
        let text = item.text()?;
        item.checked(ReasonCode::new(text).map_err(|e| e.to_string()))
    });
    let shadow = table.get("shadow").and_then(|item| item.one_of(&VERDICTS));
    Some(Expect { verdict: verdict?, rule: rule.flatten(), reason: reason.flatten(), shadow })
}

/// The id of a rule of the policy, or `default`.
fn rule(item: &Item<'_>, policy: &Policy) -> Option<Option<RuleId>> {
    let text = item.text()?;
    if text == "default" {
        return Some(None);
    }
    if let Some(builtin) = ["public-address", "address-not-granted", "no-egress"]
        .into_iter()
        .find(|name| text.strip_prefix("builtin:") == Some(name))
    {
        return Some(Some(RuleId::builtin(builtin)));
    }
    let id = item.checked(RuleId::new(text).map_err(|e| e.to_string()))?;
    if policy.rule(&id).is_none() {
        let known: Vec<&str> = policy.rules().map(|r| r.id.as_str()).collect();
        item.fail_near(format!("the policy has no rule `{text}`"), text, known);
    }
    Some(Some(id))
}
