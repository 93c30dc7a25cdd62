//! The bodies of records in which a log speaks about itself and about the policy around it.

use std::marker::PhantomData;

use govrun_verdict::LogId;
use serde::{Deserialize, Serialize};

use super::scalar::{B64, Hex, Int, Text};

/// A policy, rule or environment changed the way in which it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange<'a> {
    /// What changed: `env prod`, `rule pay-limit`, `stop agent finance-1`.
    #[serde(borrow)]
    pub scope: Text<'a>,
    /// How it counted before.
    pub from: Text<'a>,
    /// How it counts from here on.
    pub to: Text<'a>,
    /// Who changed it.
    pub by: Text<'a>,
}

/// An exercise began or ended. Decisions in between carry `"mode":"drill"` where they belong to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// What happened.
    pub event: DrillEvent,
    /// Who ran it.
    pub by: Text<'a>,
}

/// What can happen to an exercise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillEvent {
    /// It began.
    Begun,
    /// It ended as it should.
    Passed,
    /// It ended otherwise.
    Failed,
    /// It was broken off.
    Aborted,
}

/// The last record of an epoch. The outgoing key seals it; everything after is sealed by the next key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEpoch<'a> {
    /// Number of the epoch that begins: one more than the one that ends.
    pub epoch: Int,
    /// Its public key.
    pub key: Hex<32>,
    /// Inclusion proof of that key in the tree of epoch keys in force, or in `tree` where there is one.
    pub proof: Vec<Hex<32>>,
    /// The next tree, when the one in force has no more keys. Its first key is the one of `epoch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<NextTree>,
    /// Why the epoch ends.
    pub reason: EpochEnd,
    #[serde(skip)]
    nothing: PhantomData<&'a ()>,
}

impl KeyEpoch<'_> {
    /// The record that hands over to this epoch.
    #[must_use]
    pub const fn new(
        epoch: u64,
        key: [u8; 32],
        proof: Vec<Hex<32>>,
        tree: Option<NextTree>,
        reason: EpochEnd,
    ) -> Self {
        Self { epoch: Int(epoch), key: Hex(key), proof, tree, reason, nothing: PhantomData }
    }
}

/// A tree of epoch keys that goes on where the one before ends, signed by the log key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextTree {
    /// Number of keys.
    pub count: Int,
    /// Root over them.
    pub root: Hex<32>,
    /// Signature of the log key over the statement that the record rebuilds.
    pub sig: B64<64>,
}

/// Why an epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpochEnd {
    /// It was old enough.
    Age,
    /// It had as many records as an epoch may have.
    Records,
    /// The writer came back after a crash.
    Recover,
    /// The writer stops.
    Close,
    /// Somebody asked for it.
    Rotate,
}

/// For a while calls were refused because nothing could be recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap<'a> {
    /// Since when, in microseconds since 1970.
    pub from: Int,
    /// Until when.
    pub to: Int,
    /// How many calls were refused.
    pub calls: Int,
    /// Why: the reason code of the refusals.
    #[serde(borrow)]
    pub why: Text<'a>,
}

/// The writer is alive, and this is how far the logs beside it are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat<'a> {
    /// The logs beside this one, by id; at most 256.
    pub siblings: Vec<Sibling>,
    #[serde(skip)]
    nothing: PhantomData<&'a ()>,
}

impl Heartbeat<'_> {
    /// A sign of life that names these logs.
    #[must_use]
    pub const fn new(siblings: Vec<Sibling>) -> Self {
        Self { siblings, nothing: PhantomData }
    }
}

/// How far a log beside this one is: what a seal of it says that was known to be on disk. Its signature was not looked at:
/// a verifier that has that log compares the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sibling {
    /// The log.
    pub log: LogId,
    /// Records that were on disk.
    pub size: Int,
    /// Root over them.
    pub root: Hex<32>,
}
