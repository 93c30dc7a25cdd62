//! Approvals and votes as rows.

use std::num::NonZeroU64;

use govrun_verdict::{DecisionId, Digest, Timestamp, ToolRef};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Params, Row, params};

use super::{Approval, ApprovalId, Choice, Principal, State, Vote};
use crate::budgets::micros;
use crate::error::Result;
use crate::pool::Sql;

const COLUMNS: &str = "id, agent, tenant, session, tool, component, shown, nonce, binding, epoch, node, roles, need, \
                       decision, created, expires, state";

/// Approvals that fulfil a condition (what follows `WHERE`), with their votes, as they are at `now`.
pub(super) fn select(
    sql: &Sql<'_>,
    condition: &str,
    params: impl Params,
    now: Timestamp,
) -> Result<Vec<Approval>> {
    let query = format!("SELECT {COLUMNS} FROM approvals WHERE {condition}");
    let mut found = sql.all(&query, params, |row| approval(row, now))?;
    for approval in &mut found {
        approval.votes = votes(sql, &approval.id)?;
    }
    Ok(found)
}

/// The approval with this id.
pub(super) fn one(sql: &Sql<'_>, id: &ApprovalId, now: Timestamp) -> Result<Option<Approval>> {
    Ok(select(sql, "id = ?1", [id.as_str()], now)?.pop())
}

pub(super) fn insert(sql: &Sql<'_>, new: &Approval) -> Result<()> {
    let need = i64::try_from(new.need.get()).unwrap_or(i64::MAX);
    let query = format!(
        "INSERT INTO approvals ({COLUMNS}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
    );
    let values = params![
        new.id.as_str(),
        &*new.principal.agent,
        new.principal.tenant.as_deref(),
        &*new.principal.session,
        &*new.tool.name,
        new.tool.component.0.as_slice(),
        serde_json::json!(new.shown).to_string(),
        new.nonce.as_slice(),
        new.binding.as_slice(),
        new.epoch.0.as_slice(),
        &*new.node,
        serde_json::json!(new.roles.iter().map(|role| &**role).collect::<Vec<_>>()).to_string(),
        need,
        new.decision.to_string(),
        micros(new.created)?,
        micros(new.expires_at)?,
        new.state.name(),
    ];
    sql.run(&query, values).map(drop)
}

/// Move an approval to a final state, or to approved.
pub(super) fn set_state(sql: &Sql<'_>, id: &ApprovalId, state: State, now: Timestamp) -> Result<()> {
    let finished = match state {
        State::Denied | State::Expired | State::Consumed => Some(micros(now)?),
        State::Pending | State::Approved => None,
    };
    sql.run(
        "UPDATE approvals SET state = ?2, finished = ?3 WHERE id = ?1",
        params![id.as_str(), state.name(), finished],
    )
    .map(drop)
}

/// Write down that it expired, so that it stays expired should the clock step back.
pub(super) fn mark_expired(sql: &Sql<'_>, id: &ApprovalId, now: Timestamp) -> Result<()> {
    sql.run(
        "UPDATE approvals SET state = 'expired', finished = ?2 WHERE id = ?1 AND state <> 'expired'",
        params![id.as_str(), micros(now)?],
    )
    .map(drop)
}

fn approval(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Approval> {
    let expires_at = time(row, 15)?;
    let state = state(row, 16)?;
    let roles: Vec<String> = json(row, 11)?;
    Ok(Approval {
        id: word(row, 0, |text| ApprovalId::parse(text).ok())?,
        principal: Principal { agent: row.get(1)?, tenant: row.get(2)?, session: row.get(3)? },
        tool: ToolRef { name: row.get(4)?, component: Digest(row.get(5)?) },
        shown: json(row, 6)?,
        nonce: row.get(7)?,
        binding: row.get(8)?,
        epoch: Digest(row.get(9)?),
        node: row.get(10)?,
        roles: roles.into_iter().map(Into::into).collect(),
        need: NonZeroU64::new(row.get::<_, i64>(12)?.unsigned_abs()).ok_or_else(|| malformed(12))?,
        decision: word(row, 13, |text| DecisionId::parse(text).ok())?,
        created: time(row, 14)?,
        expires_at,
        state: state.at(expires_at, now),
        votes: Vec::new(),
    })
}

fn votes(sql: &Sql<'_>, id: &ApprovalId) -> Result<Vec<Vote>> {
    sql.all(
        "SELECT approver, verdict, role, signature, comment, at FROM votes WHERE approval = ?1 \
         ORDER BY person",
        [id.as_str()],
        |row| {
            Ok(Vote {
                approver: row.get(0)?,
                choice: word(row, 1, Choice::from_name)?,
                role: row.get(2)?,
                signature: row.get(3)?,
                comment: row.get(4)?,
                at: time(row, 5)?,
            })
        },
    )
}

fn malformed(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(FromSqlError::InvalidType))
}

fn word<T>(row: &Row<'_>, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    parse(row.get_ref(column)?.as_str()?).ok_or_else(|| malformed(column))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|_| malformed(column))
}

pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<State> {
    word(row, column, State::from_name)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    u64::try_from(row.get::<_, i64>(column)?).map(Timestamp).map_err(|_| malformed(column))
}
