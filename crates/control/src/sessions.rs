//! What is remembered of agents: labels, and marks of what they did.
//!
//! All sessions of an agent have one past. Labels are forgotten when the agent made no call for the idle time, marks when
//! their window is over. Both are in the store's file, so that processes share them and restarts lose none.
//!
//! Everything is kept for two worlds: what happened, and what would have happened with the shadow rules enforced. A row
//! says in which of them it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use govrun_verdict::{Ask, AskWhat, BudgetUse, Facts, Mark, Past, Timestamp};
use rusqlite::params;
use rust_decimal::Decimal;

use crate::budgets::micros;
use crate::error::{Result, StoreError};
use crate::pool::{Sql, Then};
use crate::store::Store;

/// Most marks of one question that are remembered of one agent.
pub const MAX_MARKS: i64 = 1_024;
/// Most agents of whom something is remembered.
pub const MAX_SUBJECTS: i64 = 100_000;
/// Most labels of one agent.
pub const MAX_LABELS: usize = 1_024;

/// Marks of a question that one new mark prunes at most.
const PRUNE: i64 = 16;
/// How much later the last call must be before it is written again.
const TOUCH_US: i64 = 1_000_000;

/// The worlds something happened in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worlds {
    /// In fact.
    pub enforced: bool,
    /// With the shadow rules enforced.
    pub shadow: bool,
}

impl Worlds {
    const fn bits(self) -> i64 {
        match (self.enforced, self.shadow) {
            (false, false) => 0,
            (true, false) => ENFORCED,
            (false, true) => SHADOW,
            (true, true) => ENFORCED | SHADOW,
        }
    }
}

const ENFORCED: i64 = 1;
const SHADOW: i64 = 2;

impl Store {
    /// What is known of the agent: its labels, and the answers to these questions. An agent that was idle for `idle_ms`
    /// has no labels.
    ///
    /// # Errors
    /// When the store cannot be used: nothing is known then.
    pub fn facts(&self, agent: &str, asks: &[Ask], idle_ms: u64, now: Timestamp) -> Result<Facts> {
        let remaining = self.remaining(asks, now)?;
        let now = micros(now)?;
        self.budgets.write(|sql| {
            let subject = Subject::find(sql, agent)?;
            let touched = subject.as_ref().map_or(Ok(false), |s| s.touch(sql, idle_us(idle_ms), now))?;
            let past = |world| past(sql, subject.as_ref(), asks, &remaining, world, now);
            let (enforced, shadow) = (past(ENFORCED)?, past(SHADOW)?);
            let shadow = (shadow != enforced).then_some(shadow);
            let facts = Facts { enforced, shadow };
            Ok(if touched { Then::Commit(facts) } else { Then::Forget(facts) })
        })
    }

    /// What is left of each budget that is asked about, by the name of the question.
    fn remaining<'a>(&self, asks: &'a [Ask], now: Timestamp) -> Result<BTreeMap<&'a str, Decimal>> {
        let of_budgets = asks.iter().filter_map(|ask| match &ask.what {
            AskWhat::Left(usage) => Some((&*ask.name, (**usage).clone())),
            AskWhat::Count { .. } | AskWhat::Sum { .. } | AskWhat::First { .. } | AskWhat::Origin(_) => None,
        });
        let (names, uses): (Vec<&str>, Vec<BudgetUse>) = of_budgets.unzip();
        let levels = if uses.is_empty() { Vec::new() } else { self.levels(&uses, now)? };
        let left = levels.iter().map(|level| Decimal::from(level.limit.saturating_sub(level.used)));
        Ok(names.into_iter().zip(left).collect())
    }

    /// Remember of the agent that this happened. `false` when there are too many agents or labels to remember one more:
    /// nothing was written then.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn remember(
        &self,
        agent: &str,
        marks: &[(Mark, Worlds)],
        labels: &[(Arc<str>, Worlds)],
        now: Timestamp,
    ) -> Result<bool> {
        if marks.is_empty() && labels.is_empty() {
            return Ok(true);
        }
        let now = micros(now)?;
        self.budgets.write(|sql| {
            let Some(subject) = Subject::find_or_add(sql, agent, now)? else {
                return Ok(Then::Forget(false));
            };
            let at = subject.latest.max(now);
            for (mark, worlds) in marks.iter().filter(|(_, worlds)| worlds.bits() != 0) {
                subject.mark(sql, mark, worlds.bits(), at)?;
            }
            for (label, worlds) in labels.iter().filter(|(_, worlds)| worlds.bits() != 0) {
                sql.run(
                    "INSERT INTO labels (subject, label, world) VALUES (?1, ?2, ?3)
                     ON CONFLICT (subject, label) DO UPDATE SET world = world | excluded.world",
                    params![subject.id, &**label, worlds.bits()],
                )?;
            }
            sql.run("UPDATE subjects SET latest = ?2 WHERE id = ?1", params![subject.id, at])?;
            let count = sql.first("SELECT count(*) FROM labels WHERE subject = ?1", [subject.id], |row| {
                row.get::<_, i64>(0)
            })?;
            let room = usize::try_from(count.unwrap_or(0)).is_ok_and(|count| count <= MAX_LABELS);
            Ok(if room { Then::Commit(true) } else { Then::Forget(false) })
        })
    }

    /// Take labels from the agent, in these worlds.
    ///
    /// # Errors
    /// When the store cannot be used: the labels are kept then.
    pub fn forget_labels(&self, agent: &str, labels: &[(Arc<str>, Worlds)]) -> Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        self.budgets.write(|sql| {
            let Some(subject) = Subject::find(sql, agent)? else { return Ok(Then::Forget(())) };
            for (label, worlds) in labels {
                sql.run(
                    "UPDATE labels SET world = world & ~?3 WHERE subject = ?1 AND label = ?2",
                    params![subject.id, &**label, worlds.bits()],
                )?;
            }
            sql.run("DELETE FROM labels WHERE subject = ?1 AND world = 0", [subject.id])?;
            Ok(Then::Commit(()))
        })
    }
}

fn idle_us(idle_ms: u64) -> i64 {
    i64::try_from(idle_ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// An agent of whom something is remembered.
struct Subject {
    id: i64,
    latest: i64,
    salt: [u8; 32],
}

impl Subject {
    fn find(sql: &Sql<'_>, agent: &str) -> Result<Option<Self>> {
        sql.first("SELECT id, latest, salt FROM subjects WHERE name = ?1", [agent], |row| {
            Ok(Self { id: row.get(0)?, latest: row.get(1)?, salt: row.get(2)? })
        })
    }

    fn find_or_add(sql: &Sql<'_>, agent: &str, now: i64) -> Result<Option<Self>> {
        if let Some(subject) = Self::find(sql, agent)? {
            return Ok(Some(subject));
        }
        let count = sql.first("SELECT count(*) FROM subjects", [], |row| row.get::<_, i64>(0))?;
        if count.unwrap_or(0) >= MAX_SUBJECTS {
            return Ok(None);
        }
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(StoreError::Random)?;
        sql.run("INSERT INTO subjects (name, latest, salt) VALUES (?1, ?2, ?3)", params![agent, now, salt])?;
        Ok(Some(Self { id: sql.last_id(), latest: now, salt }))
    }

    /// The agent makes a call: its labels stay, or go because it was idle. True when something was written.
    fn touch(&self, sql: &Sql<'_>, idle_us: i64, now: i64) -> Result<bool> {
        if now.saturating_sub(self.latest) < TOUCH_US.min(idle_us) {
            return Ok(false);
        }
        if now.saturating_sub(self.latest) >= idle_us {
            sql.run("DELETE FROM labels WHERE subject = ?1", [self.id])?;
        }
        sql.run("UPDATE subjects SET latest = ?2 WHERE id = ?1", params![self.id, now])?;
        Ok(true)
    }

    /// The digest of a value. It is keyed, so that a copy of the file does not confirm guesses about other agents' values
    /// and is of no use without the agent's own row.
    fn digest(&self, value: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.salt, value.as_bytes()).as_bytes()
    }

    fn mark(&self, sql: &Sql<'_>, mark: &Mark, world: i64, at: i64) -> Result<()> {
        let last = "SELECT coalesce(max(number), 0) FROM marks WHERE subject = ?1 AND question = ?2";
        let last = sql.first(last, params![self.id, &*mark.question], |row| row.get::<_, i64>(0))?;
        let number = last.unwrap_or(0).saturating_add(1);
        sql.run(
            "INSERT INTO marks (subject, question, number, at, world, amount, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                self.id,
                &*mark.question,
                number,
                at,
                world,
                mark.amount.map(|amount| amount.to_string()),
                mark.value.as_ref().map(|value| self.digest(value)),
            ],
        )?;
        let over = at.saturating_sub(i64::try_from(mark.keep_ms.saturating_mul(1_000)).unwrap_or(i64::MAX));
        sql.run(
            "DELETE FROM marks WHERE subject = ?1 AND question = ?2 AND (number <= ?3 OR number IN (
                 SELECT number FROM marks WHERE subject = ?1 AND question = ?2 AND at <= ?4 ORDER BY number LIMIT ?5))",
            params![self.id, &*mark.question, number.saturating_sub(MAX_MARKS), over, PRUNE],
        )
        .map(drop)
    }

    /// Marks of the question in this world and window: time, amount, digest of the value; oldest first.
    fn marks(&self, sql: &Sql<'_>, question: &str, within_ms: u64, world: i64, now: i64) -> Result<Marks> {
        let at = self.latest.max(now);
        let since = at.saturating_sub(i64::try_from(within_ms.saturating_mul(1_000)).unwrap_or(i64::MAX));
        let rows: Vec<(i64, Option<String>, Option<Vec<u8>>)> = sql.all(
            "SELECT world, amount, value FROM marks WHERE subject = ?1 AND question = ?2 AND at > ?3 ORDER BY number",
            params![self.id, question, since],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        // So many lie in the window that older ones of the window may have been dropped.
        let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= MAX_MARKS);
        let rows =
            rows.into_iter().filter(|(of, ..)| of & world != 0).map(|(_, amount, value)| (amount, value));
        Ok(Marks { rows: rows.collect(), full })
    }
}

struct Marks {
    rows: Vec<(Option<String>, Option<Vec<u8>>)>,
    full: bool,
}

fn past(
    sql: &Sql<'_>,
    subject: Option<&Subject>,
    asks: &[Ask],
    remaining: &BTreeMap<&str, Decimal>,
    world: i64,
    now: i64,
) -> Result<Past> {
    let mut past = Past::default();
    if let Some(subject) = subject {
        let query = "SELECT label FROM labels WHERE subject = ?1 AND world & ?2 != 0 ORDER BY label";
        let labels: Vec<String> = sql.all(query, params![subject.id, world], |row| row.get(0))?;
        past.labels = labels.into_iter().map(Arc::from).collect();
    }
    for ask in asks {
        let answer = match (&ask.what, subject) {
            // What the agent was told is not in the store.
            (AskWhat::Origin(_), _) => None,
            (AskWhat::Left(_), _) => remaining.get(&*ask.name).copied(),
            (AskWhat::Count { .. } | AskWhat::Sum { .. }, None) => Some(Decimal::ZERO),
            (AskWhat::First { value, .. }, None) => value.as_ref().map(|_| Decimal::ONE),
            (AskWhat::Count { within_ms }, Some(s)) => {
                Some(Decimal::from(s.marks(sql, &ask.name, *within_ms, world, now)?.rows.len()))
            }
            (AskWhat::Sum { within_ms }, Some(s)) => sum(&s.marks(sql, &ask.name, *within_ms, world, now)?),
            (AskWhat::First { within_ms, value }, Some(s)) => match value {
                Some(value) => first(&s.marks(sql, &ask.name, *within_ms, world, now)?, &s.digest(value)),
                None => None,
            },
        };
        past.answers.extend(answer.map(|answer| (Arc::clone(&ask.name), answer)));
    }
    Ok(past)
}

/// Unknown when one amount is, or when some may have been dropped.
fn sum(marks: &Marks) -> Option<Decimal> {
    if marks.full {
        return None;
    }
    let mut sum = Decimal::ZERO;
    for (amount, _) in &marks.rows {
        sum = sum.checked_add(amount.as_ref()?.parse().ok()?)?;
    }
    Some(sum)
}

/// Unknown when it is not among those that are remembered and others may have been dropped, or a value was not known.
fn first(marks: &Marks, value: &[u8]) -> Option<Decimal> {
    if marks.rows.iter().any(|(_, seen)| seen.as_deref() == Some(value)) {
        return Some(Decimal::ZERO);
    }
    let unsure = marks.full || marks.rows.iter().any(|(_, seen)| seen.is_none());
    (!unsure).then_some(Decimal::ONE)
}
