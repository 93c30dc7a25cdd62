//! Looking at approvals, and clearing them away.

use govrun_verdict::Timestamp;
use rusqlite::params;

use super::{Approval, ApprovalId, State, rows};
use crate::budgets::micros;
use crate::error::Result;
use crate::pool::Then;
use crate::store::Store;

/// Most approvals that one call of [`Store::expire_due`] reports.
const EXPIRED_AT_ONCE: u32 = 256;

/// Which approvals to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Those that wait for approvers, oldest first.
    Pending,
    /// All, newest first.
    All,
}

impl Store {
    /// The approval as it is at `now`, with its votes; `None` when there is none of this id.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn get(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Approval>> {
        self.approvals.read(|sql| rows::one(sql, id, now))
    }

    /// Where the approval stands at `now`: one lookup, made for polling.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn status(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<State>> {
        self.approvals.read(|sql| {
            sql.first("SELECT expires, state FROM approvals WHERE id = ?1", [id.as_str()], |row| {
                Ok(rows::state(row, 1)?.at(rows::time(row, 0)?, now))
            })
        })
    }

    /// At most `limit` approvals as they are at `now`.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn list(&self, filter: Filter, now: Timestamp, limit: u32) -> Result<Vec<Approval>> {
        let at = micros(now)?;
        self.approvals.read(|sql| match filter {
            Filter::Pending => rows::select(
                sql,
                "state = 'pending' AND expires > ?1 ORDER BY created, id LIMIT ?2",
                params![at, limit],
                now,
            ),
            Filter::All => rows::select(sql, "true ORDER BY created DESC, id LIMIT ?1", [limit], now),
        })
    }

    /// Mark what has expired, and return what no caller of this was told of yet, for the record: at most 256 at a time.
    /// Each expired approval is returned to one caller once, over all processes.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn expire_due(&self, now: Timestamp) -> Result<Vec<Approval>> {
        let at = micros(now)?;
        // Called often and for nothing most of the time: look first, without the write lock.
        let due = self.approvals.read(|sql| {
            sql.first(
                "SELECT EXISTS (SELECT 1 FROM approvals
                                WHERE state IN ('pending', 'approved') AND expires <= ?1)
                     OR EXISTS (SELECT 1 FROM approvals WHERE state = 'expired' AND told = 0)",
                [at],
                |row| row.get::<_, bool>(0),
            )
        })?;
        if due != Some(true) {
            return Ok(Vec::new());
        }
        self.approvals.write(|sql| {
            sql.run(
                "UPDATE approvals SET state = 'expired', finished = ?1
                 WHERE state IN ('pending', 'approved') AND expires <= ?1",
                [at],
            )?;
            let untold = rows::select(
                sql,
                "state = 'expired' AND told = 0 ORDER BY expires LIMIT ?1",
                [EXPIRED_AT_ONCE],
                now,
            )?;
            for approval in &untold {
                sql.run("UPDATE approvals SET told = 1 WHERE id = ?1", [approval.id.as_str()])?;
            }
            Ok(Then::Commit(untold))
        })
    }

    /// Remove approvals that were denied, expired or consumed before this time, with their votes; how many. What they
    /// showed is overwritten in the file; its journal is emptied too, unless another process is reading just then.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn purge(&self, before: Timestamp) -> Result<usize> {
        let before = micros(before)?;
        let removed = self
            .approvals
            .write(|sql| sql.run("DELETE FROM approvals WHERE finished < ?1", [before]).map(Then::Commit))?;
        // The journal still has the rows as they were.
        self.approvals.fold_journal()?;
        Ok(removed)
    }
}
