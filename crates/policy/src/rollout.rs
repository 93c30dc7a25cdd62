//! Rules in stages: enforced, only recorded, or enforced for a share of the calls.

use govrun_verdict::{Digest, Mode, RuleId};

use crate::condition::View;
use crate::toml_item::Item;

/// Shares are counted in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// Enforced for a share of the calls, recorded for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// Share for which it is enforced, in hundredths of a percent: 1 to 10,000.
    pub enforce: u16,
    /// What is in the share or out of it as a whole.
    pub by: CohortBy,
}

/// What falls into one cohort together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CohortBy {
    /// All calls of a session.
    Session,
    /// All calls of an agent.
    Agent,
    /// Each call for itself. An agent that repeats a refused call may come into the other cohort.
    Call,
}

/// How far a rule has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Enforced,
    Shadow,
    Canary(Rollout),
}

impl Stage {
    pub(crate) const fn mode(self) -> Mode {
        match self {
            Self::Enforced => Mode::Enforce,
            Self::Shadow => Mode::Shadow,
            Self::Canary(_) => Mode::Canary,
        }
    }

    /// Whether the rule counts for this call.
    pub(crate) fn enforces(self, rule: &RuleId, view: &View<'_>) -> bool {
        match self {
            Self::Enforced => true,
            Self::Shadow => false,
            Self::Canary(rollout) => rollout.enforces(rule, view),
        }
    }
}

impl Rollout {
    /// The first eight bytes, big-endian, of the BLAKE3 digest of `govrun rollout 1`, the rule and the cohort's key, a line
    /// each, modulo 10,000, are below the share. So a larger share keeps everyone who was in the smaller one, and each
    /// rule draws its own.
    fn enforces(self, rule: &RuleId, view: &View<'_>) -> bool {
        let call = view.call;
        let (agent, session) = (&call.agent.name, &call.session);
        let key = match self.by {
            CohortBy::Agent => agent.to_string(),
            CohortBy::Session => format!("{agent}\n{session}"),
            CohortBy::Call => format!("{agent}\n{session}\n{}\n{}", call.tool.name, view.now.0),
        };
        let digest = Digest::of(format!("govrun rollout 1\n{rule}\n{key}").as_bytes());
        let first = digest.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        first % WHOLE < u64::from(self.enforce)
    }
}

/// Read `rollout = { enforce = "10%", by = "session" }`.
pub(crate) fn read(item: &Item<'_>) -> Option<Rollout> {
    let table = item.table("`rollout`")?;
    table.only(&["enforce", "by"]);
    let by = table.need("by").and_then(|item| {
        item.one_of(&[("session", CohortBy::Session), ("agent", CohortBy::Agent), ("call", CohortBy::Call)])
    });
    let enforce = table.need("enforce").and_then(|item| share(&item));
    Some(Rollout { enforce: enforce?, by: by? })
}

fn share(item: &Item<'_>) -> Option<u16> {
    let text = item.text()?;
    let hundredths = text.strip_suffix('%').and_then(|number| {
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 2 {
            return None;
        }
        let part: u16 = format!("{part:0<2}").parse().ok()?;
        whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(part)
    });
    let sound = hundredths.filter(|n| *n > 0 && u64::from(*n) <= WHOLE);
    if sound.is_none() {
        let message = format!("`{text}` is not a share from `0.01%` to `100%`");
        item.fail_with(message, "a rule that is enforced for nobody has `mode = \"shadow\"`");
    }
    sound
}
