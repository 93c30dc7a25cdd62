//! Budgets: rolling windows, rates and calendar periods, all exact.
//!
//! Of one key of a rolling budget, admission `n` at time `t` is granted iff the admission `limit` places before it is at least `window`
//! old: then at most `limit` admissions lie in **any** window, wherever it starts. Positions are dense, so that this is
//! one lookup whatever the limit. What is out of the window is pruned a few rows per reservation. A calendar budget is the
//! same with the period that holds the present for a window. A rate keeps one time for each key: see `rate`.
//!
//! Time is the caller's. Within one budget it never runs backwards: a reservation counts at the later of its own time
//! and the latest reservation of that budget, so a clock that steps back delays admissions and never adds one.
//!
//! A policy may change `limit` and `window` at any time. The new ones apply to all admissions that are still kept: those
//! within the window that was in force when the key was last used. A longer window therefore starts with what the
//! shorter one had kept.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use govrun_verdict::{Budget, BudgetKind, BudgetLevel, BudgetUse, Timestamp};
use rusqlite::params;

use crate::calendar;
use crate::error::{Result, StoreError};
use crate::pool::{Sql, Then};
use crate::rate::{Rate, Spread};
use crate::store::Store;

/// Most keys of one budget that are tracked at a time. Keys whose admissions are all out of the window do not count.
pub const MAX_KEYS_PER_BUDGET: u64 = 100_000;
/// Most budgets of one call.
pub const MAX_BUDGETS_PER_CALL: usize = 64;
/// Most bytes of the name of a budget, and of a key.
pub const MAX_KEY_BYTES: usize = 4_096;

/// Rows of the own key that one reservation prunes at most. Two would do to keep up; more returns space sooner.
const PRUNE_OWN: i64 = 16;
/// Most idle keys that one charge retires. One would not catch up, because a charge can add one.
const RETIRE: usize = 2;
/// Most retired keys, and most rows of one, that one charge sweeps.
const SWEEP_KEYS: u32 = 3;
const SWEEP_ROWS: u32 = 32;

/// The answer to [`Store::reserve`].
#[derive(Debug)]
pub enum Reserved {
    /// Every budget admitted the call.
    Admitted {
        /// Level of each budget before the call, in the order asked. `order` counts the admissions of a key from 1,
        /// skips refunded ones, and starts again when the key was idle for a whole window.
        levels: Vec<BudgetLevel>,
        /// What to give to [`Store::refund`] should the call not be recorded.
        reservation: Reservation,
    },
    /// At least one budget refused, and none was charged.
    Exhausted {
        /// The refusing budget that will be the last to admit again (the first such in the order asked).
        budget: Arc<str>,
        /// Exact: with no other caller, the same call is admitted this many milliseconds from now, and not one earlier.
        retry_after_ms: u64,
        /// Level of each budget, in the order asked; `order` is `None`.
        levels: Vec<BudgetLevel>,
        /// How long the refusing budgets let a call wait: the shortest of theirs, `None` when one lets none wait.
        wait_ms: Option<u64>,
    },
    /// The budget tracks as many keys as it may, and this would be one more. Nothing was charged.
    KeysFull {
        /// The budget.
        budget: Arc<str>,
    },
}

/// The admissions of one call.
#[derive(Debug)]
pub struct Reservation {
    entries: Vec<Entry>,
    /// A rate does not know its admissions one by one, so that giving back twice must be seen here.
    refunded: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    key: i64,
    // Where it was admitted. Refunds of earlier admissions move it down, nothing moves it up.
    position: i64,
    number: i64,
    /// A rate has no positions.
    rate: Option<Rate>,
}

impl Store {
    /// Charge one admission to every budget, or to none.
    ///
    /// A budget that appears twice with the same key is charged once.
    ///
    /// # Errors
    /// When the store cannot be used, or the call goes over [`MAX_BUDGETS_PER_CALL`] or [`MAX_KEY_BYTES`]. Nothing was
    /// charged then, unless the commit itself failed: its admission may then have been charged.
    pub fn reserve(&self, uses: &[BudgetUse], now: Timestamp) -> Result<Reserved> {
        let now = micros(now)?;
        check_bounds(uses)?;
        if uses.is_empty() {
            return Ok(Reserved::Admitted {
                levels: Vec::new(),
                reservation: Reservation { entries: Vec::new(), refunded: AtomicBool::new(false) },
            });
        }
        self.budgets.write(|sql| reserve(sql, uses, now, self.max_keys))
    }

    /// Give back exactly the admissions of one [`Reserved::Admitted`], even when others were admitted since.
    ///
    /// Repeating it changes nothing. Its cost grows with the number of admissions of the same keys since.
    ///
    /// # Errors
    /// When the store cannot be used; the admissions then stay charged.
    pub fn refund(&self, reservation: &Reservation) -> Result<()> {
        if reservation.entries.is_empty() || reservation.refunded.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let refunded = self.budgets.write(|sql| {
            reservation.entries.iter().try_for_each(|entry| refund(sql, entry)).map(Then::Commit)
        });
        refunded.inspect_err(|_| reservation.refunded.store(false, Ordering::Release))
    }

    /// The level of each budget at this time, in the order asked. Charges nothing; `order` is `None`.
    ///
    /// # Errors
    /// As for [`Store::reserve`].
    pub fn levels(&self, uses: &[BudgetUse], now: Timestamp) -> Result<Vec<BudgetLevel>> {
        let now = micros(now)?;
        check_bounds(uses)?;
        self.budgets.read(|sql| {
            uses.iter()
                .map(|usage| {
                    let asked = Asked::look_up(sql, usage, now)?;
                    Ok(asked.level(asked.used(sql)?))
                })
                .collect()
        })
    }
}

/// The year 10000. Times must stay clear of the largest number, where adding a window would no longer move them.
const END_OF_TIME: u64 = 253_402_300_800_000_000;

pub(crate) fn micros(time: Timestamp) -> Result<i64> {
    i64::try_from(time.0)
        .ok()
        .filter(|_| time.0 < END_OF_TIME)
        .ok_or(StoreError::TooLarge { what: "the time in microseconds", limit: END_OF_TIME })
}

fn check_bounds(uses: &[BudgetUse]) -> Result<()> {
    let over =
        |what, limit: usize| StoreError::TooLarge { what, limit: u64::try_from(limit).unwrap_or(u64::MAX) };
    if uses.len() > MAX_BUDGETS_PER_CALL {
        return Err(over("the number of budgets of one call", MAX_BUDGETS_PER_CALL));
    }
    if uses.iter().any(|u| u.key.len() > MAX_KEY_BYTES || u.budget.name.len() > MAX_KEY_BYTES) {
        return Err(over("the length of a budget's name or key", MAX_KEY_BYTES));
    }
    Ok(())
}

fn reserve(sql: &Sql<'_>, uses: &[BudgetUse], now: i64, max_keys: u64) -> Result<Then<Reserved>> {
    let asked = uses.iter().map(|usage| Asked::look_up(sql, usage, now)).collect::<Result<Vec<_>>>()?;
    // Before anything is charged or pruned: the level is the one that this call finds.
    let mut levels = asked.iter().map(|a| Ok(a.level(a.used(sql)?))).collect::<Result<Vec<_>>>()?;
    if let Some(wait) = longest_wait(sql, &asked, now)? {
        let Wait { budget, retry_after_ms, patience_ms: wait_ms } = wait;
        return Ok(Then::Forget(Reserved::Exhausted { budget, retry_after_ms, levels, wait_ms }));
    }
    let in_use: Vec<i64> = asked.iter().filter_map(|a| a.key.map(|key| key.id)).collect();
    let mut charged: BTreeMap<(&str, &str), Entry> = BTreeMap::new();
    for (a, level) in asked.iter().zip(&mut levels) {
        let entry = match charged.entry((&*a.usage.budget.name, &*a.usage.key)) {
            Slot::Occupied(done) => done.into_mut(),
            Slot::Vacant(slot) => {
                let Some(entry) = a.charge(sql, max_keys, &in_use)? else {
                    let budget = Arc::clone(&a.usage.budget.name);
                    return Ok(Then::Forget(Reserved::KeysFull { budget }));
                };
                slot.insert(entry)
            }
        };
        level.order = u64::try_from(entry.number).ok();
    }
    let reservation =
        Reservation { entries: charged.into_values().collect(), refunded: AtomicBool::new(false) };
    Ok(Then::Commit(Reserved::Admitted { levels, reservation }))
}

/// The refusal that lasts longest.
struct Wait {
    budget: Arc<str>,
    retry_after_ms: u64,
    /// The least patience of all that refuse.
    patience_ms: Option<u64>,
}

/// The budget that refuses for the longest time, and for how long; `None` when all admit.
fn longest_wait(sql: &Sql<'_>, asked: &[Asked<'_>], now: i64) -> Result<Option<Wait>> {
    let mut longest: Option<Wait> = None;
    for a in asked {
        let Some(free_at) = a.free_at(sql)? else { continue };
        // Rounded up: one millisecond less would be too early.
        let retry_after_ms = free_at.saturating_sub(now).max(0).unsigned_abs().div_ceil(1_000);
        let budget = &a.usage.budget;
        let mut patience_ms = budget.wait_ms.map(NonZeroU64::get);
        if let Some(before) = &longest {
            patience_ms = patience_ms.zip(before.patience_ms).map(|(a, b)| a.min(b));
        }
        match &mut longest {
            Some(wait) if wait.retry_after_ms >= retry_after_ms => wait.patience_ms = patience_ms,
            Some(_) | None => {
                longest = Some(Wait { budget: Arc::clone(&budget.name), retry_after_ms, patience_ms });
            }
        }
    }
    Ok(longest)
}

/// What an admission is held against.
#[derive(Debug, Clone, Copy)]
enum Terms {
    /// Microseconds.
    Window(i64),
    /// First microsecond, and first one after.
    Period(i64, i64),
    Rate(Rate),
}

fn terms(budget: &Budget, limit: i64, at: i64) -> Result<Terms> {
    let window_us = i64::try_from(budget.window_ms.get().saturating_mul(1_000)).unwrap_or(i64::MAX);
    Ok(match &budget.kind {
        BudgetKind::Rolling => Terms::Window(window_us),
        BudgetKind::Rate { burst } => Terms::Rate(Rate::new(limit, window_us, burst.get())),
        BudgetKind::Calendar { period, zone } => {
            let bounds = calendar::bounds(*period, zone, at);
            let (start, end) = bounds.ok_or(StoreError::TooLarge {
                what: "the time on the budget's calendar",
                limit: END_OF_TIME,
            })?;
            Terms::Period(start, end)
        }
    })
}

/// One budget of the call, with what is stored about it.
struct Asked<'a> {
    usage: &'a BudgetUse,
    limit: i64,
    terms: Terms,
    // The time this counts at: never before the latest reservation of the budget.
    at: i64,
    budget: Option<i64>,
    key: Option<Key>,
}

/// A row of `keys`.
#[derive(Clone, Copy)]
struct Key {
    id: i64,
    first: i64,
    next: i64,
    number: i64,
    spread: Spread,
}

impl<'a> Asked<'a> {
    fn look_up(sql: &Sql<'_>, usage: &'a BudgetUse, now: i64) -> Result<Self> {
        let found = sql.first(
            "SELECT b.id, b.latest, k.id, k.first, k.next, k.number, k.spread, k.part
             FROM budgets b LEFT JOIN keys k ON k.budget = b.id AND k.key = ?2 WHERE b.name = ?1",
            params![&*usage.budget.name, &*usage.key],
            |row| {
                let key = match row.get::<_, Option<i64>>(2)? {
                    Some(id) => Some(Key {
                        id,
                        first: row.get(3)?,
                        next: row.get(4)?,
                        number: row.get(5)?,
                        spread: Spread { us: row.get(6)?, part: row.get(7)? },
                    }),
                    None => None,
                };
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, key))
            },
        )?;
        let (budget, latest, key) =
            found.map_or((None, 0, None), |(id, latest, key)| (Some(id), latest, key));
        let limit = i64::try_from(usage.budget.limit.get()).unwrap_or(i64::MAX);
        let at = now.max(latest);
        Ok(Self { usage, limit, terms: terms(&usage.budget, limit, at)?, at, budget, key })
    }

    /// When this admits again; `None` when it does now.
    fn free_at(&self, sql: &Sql<'_>) -> Result<Option<i64>> {
        let Some(key) = &self.key else { return Ok(None) };
        if let Terms::Rate(rate) = self.terms {
            return Ok(rate.free_at(key.spread, self.at));
        }
        let blocking = key.next.saturating_sub(self.limit);
        if blocking < key.first {
            return Ok(None);
        }
        let time = key.time(sql, blocking)?;
        let free_at = match self.terms {
            Terms::Window(window) => time.saturating_add(window),
            Terms::Period(_, end) if !self.expired(time) => end,
            Terms::Period(..) | Terms::Rate(_) => return Ok(None),
        };
        Ok(Some(free_at).filter(|free_at| *free_at > self.at))
    }

    /// An admission at this time, or before it, no longer counts.
    fn forgotten(&self) -> i64 {
        match self.terms {
            Terms::Window(window) => self.at.saturating_sub(window),
            Terms::Period(start, _) => start.saturating_sub(1),
            Terms::Rate(rate) => self.at.saturating_sub(rate.memory_us()),
        }
    }

    fn expired(&self, time: i64) -> bool {
        time <= self.forgotten()
    }

    /// Admissions within the window that ends now.
    fn used(&self, sql: &Sql<'_>) -> Result<u64> {
        let Some(key) = &self.key else { return Ok(0) };
        if let Terms::Rate(rate) = self.terms {
            return Ok(rate.used(key.spread, self.at));
        }
        Ok(key.next.saturating_sub(self.first_live(sql, key)?).max(0).unsigned_abs())
    }

    /// Position of the first admission within the window, by bisection: times never decrease with the position.
    fn first_live(&self, sql: &Sql<'_>, key: &Key) -> Result<i64> {
        let (mut low, mut high) = (key.first, key.next);
        // Pruning leaves little that is out of the window, so look there first.
        let mut probe = low;
        while low < high {
            if self.expired(key.time(sql, probe)?) {
                low = probe.saturating_add(1);
            } else {
                high = probe;
            }
            probe = low.midpoint(high);
        }
        Ok(low)
    }

    fn level(&self, used: u64) -> BudgetLevel {
        BudgetLevel {
            name: Arc::clone(&self.usage.budget.name),
            key: Arc::clone(self.usage.recorded_key()),
            used,
            limit: self.usage.budget.most(),
            order: None,
        }
    }

    /// Add the admission; `None` when the budget has no room for another key. `in_use` are the keys of this call.
    fn charge(&self, sql: &Sql<'_>, max_keys: u64, in_use: &[i64]) -> Result<Option<Entry>> {
        let budget = self.touch_budget(sql)?;
        self.retire_idle(sql, budget, in_use)?;
        let key = match self.key {
            Some(key) => Some(self.prune(sql, key)?),
            None => self.add_key(sql, budget, max_keys)?,
        };
        let Some(key) = key else { return Ok(None) };
        if let Terms::Rate(rate) = self.terms {
            let spread = rate.admit(key.spread, self.at);
            sql.run(
                "UPDATE keys SET first = ?2, number = ?3, latest = ?4, spread = ?5, part = ?6 WHERE id = ?1",
                params![key.id, key.first, key.number.saturating_add(1), self.at, spread.us, spread.part],
            )?;
            sweep(sql)?;
            return Ok(Some(Entry { key: key.id, position: key.next, number: key.number, rate: Some(rate) }));
        }
        sql.run(
            "INSERT INTO admissions (key, position, at, number) VALUES (?1, ?2, ?3, ?4)",
            params![key.id, key.next, self.at, key.number],
        )?;
        sql.run(
            "UPDATE keys SET first = ?2, next = ?3, number = ?4, latest = ?5 WHERE id = ?1",
            params![key.id, key.first, key.next.saturating_add(1), key.number.saturating_add(1), self.at],
        )?;
        sweep(sql)?;
        Ok(Some(Entry { key: key.id, position: key.next, number: key.number, rate: None }))
    }

    fn touch_budget(&self, sql: &Sql<'_>) -> Result<i64> {
        if let Some(id) = self.budget {
            sql.run("UPDATE budgets SET latest = ?2 WHERE id = ?1", params![id, self.at])?;
            return Ok(id);
        }
        // Another key of the same call may have made the row a moment ago.
        let made = sql.first(
            "INSERT INTO budgets (name, latest, keys) VALUES (?1, ?2, 0)
             ON CONFLICT (name) DO UPDATE SET latest = excluded.latest RETURNING id",
            params![&*self.usage.budget.name, self.at],
            |row| row.get(0),
        )?;
        made.ok_or_else(|| StoreError::corrupt(sql.path(), "a budget that was just written is not there"))
    }

    fn add_key(&self, sql: &Sql<'_>, budget: i64, max_keys: u64) -> Result<Option<Key>> {
        let counted = sql.run(
            "UPDATE budgets SET keys = keys + 1 WHERE id = ?1 AND keys < ?2",
            params![budget, i64::try_from(max_keys).unwrap_or(i64::MAX)],
        )?;
        if counted == 0 {
            return Ok(None);
        }
        sql.run(
            "INSERT INTO keys (budget, key, first, next, number, latest) VALUES (?1, ?2, 0, 0, 1, ?3)",
            params![budget, &*self.usage.key, self.at],
        )?;
        Ok(Some(Key { id: sql.last_id(), first: 0, next: 0, number: 1, spread: Spread::default() }))
    }

    /// Drop some of the own rows that are out of the window.
    fn prune(&self, sql: &Sql<'_>, key: Key) -> Result<Key> {
        if key.first == key.next || !self.expired(key.time(sql, key.first)?) {
            return Ok(key);
        }
        let last = key.first.saturating_add(PRUNE_OWN);
        let dropped = sql.run(
            "DELETE FROM admissions WHERE key = ?1 AND position < ?2 AND at <= ?3",
            params![key.id, last, self.forgotten()],
        )?;
        let dropped = i64::try_from(dropped).unwrap_or(0);
        Ok(Key { first: key.first.saturating_add(dropped), ..key })
    }

    /// Retire some keys that nobody used for a whole window, oldest first.
    fn retire_idle(&self, sql: &Sql<'_>, budget: i64, in_use: &[i64]) -> Result<()> {
        let look_at = i64::try_from(in_use.len().saturating_add(RETIRE)).unwrap_or(i64::MAX);
        let idle: Vec<i64> = sql.all(
            "SELECT id FROM keys WHERE budget = ?1 AND latest <= ?2 ORDER BY latest LIMIT ?3",
            params![budget, self.forgotten(), look_at],
            |row| row.get(0),
        )?;
        for key in idle.iter().filter(|key| !in_use.contains(key)).take(RETIRE) {
            sql.run("INSERT INTO retired (key) VALUES (?1)", [key])?;
            sql.run("DELETE FROM keys WHERE id = ?1", [key])?;
            sql.run("UPDATE budgets SET keys = keys - 1 WHERE id = ?1", [budget])?;
        }
        Ok(())
    }
}

impl Key {
    fn time(&self, sql: &Sql<'_>, position: i64) -> Result<i64> {
        sql.first(
            "SELECT at FROM admissions WHERE key = ?1 AND position = ?2",
            params![self.id, position],
            |row| row.get(0),
        )?
        .ok_or_else(|| StoreError::corrupt(sql.path(), "an admission of a budget is missing"))
    }
}

/// Delete rows of retired keys, and the keys that have none left. Every charge does a little more of it than it can
/// cause, so that retired keys do not pile up.
fn sweep(sql: &Sql<'_>) -> Result<()> {
    let retired: Vec<i64> = sql.all("SELECT key FROM retired LIMIT ?1", [SWEEP_KEYS], |row| row.get(0))?;
    for key in retired {
        let swept = sql.run(
            "DELETE FROM admissions WHERE key = ?1 AND position IN
                (SELECT position FROM admissions WHERE key = ?1 ORDER BY position LIMIT ?2)",
            params![key, SWEEP_ROWS],
        )?;
        // A full batch: there may be more, for the next charge.
        if u32::try_from(swept).unwrap_or(u32::MAX) >= SWEEP_ROWS {
            break;
        }
        sql.run("DELETE FROM retired WHERE key = ?1", [key])?;
    }
    Ok(())
}

/// Remove one admission and close the gap it leaves, so that positions stay dense.
fn refund(sql: &Sql<'_>, entry: &Entry) -> Result<()> {
    if let Some(rate) = entry.rate {
        return refund_rate(sql, entry, rate);
    }
    let bounds = sql.first("SELECT first, next FROM keys WHERE id = ?1", [entry.key], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    })?;
    // A retired key has nothing left that counts.
    let Some((first, next)) = bounds else { return Ok(()) };
    let last = next.saturating_sub(1);
    let Some(position) = find(sql, entry, first, last)? else { return Ok(()) };
    let later: Vec<(i64, i64, i64)> = sql.all(
        "SELECT position, at, number FROM admissions WHERE key = ?1 AND position > ?2 ORDER BY position",
        params![entry.key, position],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    for (from, at, number) in later {
        sql.run(
            "UPDATE admissions SET at = ?3, number = ?4 WHERE key = ?1 AND position = ?2",
            params![entry.key, from.saturating_sub(1), at, number],
        )?;
    }
    sql.run("DELETE FROM admissions WHERE key = ?1 AND position = ?2", params![entry.key, last])?;
    sql.run("UPDATE keys SET next = ?2 WHERE id = ?1", params![entry.key, last]).map(drop)
}

fn refund_rate(sql: &Sql<'_>, entry: &Entry, rate: Rate) -> Result<()> {
    let kept = sql.first("SELECT spread, part FROM keys WHERE id = ?1", [entry.key], |row| {
        Ok(Spread { us: row.get(0)?, part: row.get(1)? })
    })?;
    let Some(spread) = kept.map(|spread| rate.refund(spread)) else { return Ok(()) };
    sql.run(
        "UPDATE keys SET spread = ?2, part = ?3 WHERE id = ?1",
        params![entry.key, spread.us, spread.part],
    )
    .map(drop)
}

/// Where the admission is now: at its position, or below it by as many refunds of earlier ones as there were. `None`
/// when it was refunded already, or pruned.
fn find(sql: &Sql<'_>, entry: &Entry, first: i64, last: i64) -> Result<Option<i64>> {
    let mut position = entry.position.min(last);
    while position >= first {
        let number: Option<i64> = sql.first(
            "SELECT number FROM admissions WHERE key = ?1 AND position = ?2",
            params![entry.key, position],
            |row| row.get(0),
        )?;
        match number {
            Some(number) if number == entry.number => return Ok(Some(position)),
            Some(number) if number < entry.number => return Ok(None),
            Some(_) => position = position.saturating_sub(1),
            None => return Err(StoreError::corrupt(sql.path(), "an admission of a budget is missing")),
        }
    }
    Ok(None)
}
