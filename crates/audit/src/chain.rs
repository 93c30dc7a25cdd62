//! The rules that bind one line to the lines before it. Verifier and crash recovery share them.

use std::collections::VecDeque;

use crate::form::{Frame, Hex, Kind, MAX_UNSEALED, SealLine};
use crate::hash::{Hash, NOTHING, Tree};

/// A rule that a line breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// What is wrong.
    pub what: &'static str,
    /// What the lines before demand.
    pub expected: String,
    /// What the line says.
    pub found: String,
}

fn broken<T>(what: &'static str, expected: impl ToString, found: impl ToString) -> Result<T, Break> {
    Err(Break { what, expected: expected.to_string(), found: found.to_string() })
}

fn hex(hash: Option<Hash>) -> String {
    hash.map_or_else(|| "none".to_owned(), |h| Hex(h).to_string())
}

/// What is known after some line.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// Number of records so far.
    pub(crate) size: u64,
    /// Hash of the last record.
    pub(crate) prev: Hash,
    /// Hash of the last seal line.
    pub(crate) last_seal: Hash,
    /// True when no record followed the last seal yet.
    pub(crate) seal_due: bool,
    /// The tree at the size of the last seal.
    pub(crate) sealed: Tree,
    /// Leaf hashes of the records that no seal covers.
    pub(crate) pending: VecDeque<Hash>,
    /// Wall-clock time of the last record.
    pub(crate) time: u64,
    /// Size that the last seal knew to be on disk.
    pub(crate) synced: u64,
    /// Type of the last record.
    pub(crate) last_kind: Option<Kind>,
    /// Sizes whose roots are asked for, the next one last.
    watched: Vec<u64>,
    /// Roots of the watched sizes that were passed.
    roots: Vec<(u64, Hash)>,
}

impl Chain {
    /// Before the first line.
    pub(crate) const fn start() -> Self {
        Self {
            size: 0,
            prev: NOTHING,
            last_seal: NOTHING,
            seal_due: false,
            sealed: Tree::EMPTY,
            pending: VecDeque::new(),
            time: 0,
            synced: 0,
            last_kind: None,
            watched: Vec::new(),
            roots: Vec::new(),
        }
    }

    /// Keep the roots of these sizes. To be asked before the first line.
    pub(crate) fn watch(&mut self, sizes: impl Iterator<Item = u64>) {
        self.watched = sizes.filter(|size| *size > 0).collect();
        self.watched.sort_unstable_by(|a, b| b.cmp(a));
        self.watched.dedup();
    }

    /// Roots of the watched sizes, as far as there are so many records. Those after the last seal count too: whoever asks has
    /// them signed elsewhere.
    pub(crate) fn watched_roots(&self) -> Vec<(u64, Hash)> {
        let mut roots = self.roots.clone();
        let mut tree = self.sealed.clone();
        for leaf in &self.pending {
            tree.push(*leaf);
            if self.watched.contains(&tree.size()) {
                roots.push((tree.size(), tree.root()));
            }
        }
        roots
    }

    /// A record whose line hashes to `leaf`.
    pub(crate) fn record(&mut self, frame: &Frame<'_>, leaf: Hash) -> Result<(), Break> {
        if frame.head.seq != self.size {
            return broken("a record is missing, repeated or moved: `seq`", self.size, frame.head.seq);
        }
        if frame.prev != self.prev {
            return broken(
                "the record before is not the one this was written after: `prev`",
                Hex(self.prev),
                Hex(frame.prev),
            );
        }
        let seal = self.seal_due.then_some(self.last_seal);
        if frame.seal != seal {
            return broken(
                "the seal before is not the one this was written after: `seal`",
                hex(seal),
                hex(frame.seal),
            );
        }
        if (frame.head.kind == Kind::Genesis) != (self.size == 0) {
            return broken("genesis is the first record and no other", self.size, frame.head.kind.name());
        }
        if frame.head.time < self.time && frame.head.kind != Kind::ClockStep {
            return broken("time steps back without a clock_step record", self.time, frame.head.time);
        }
        self.leaf(leaf)?;
        self.seal_due = false;
        self.time = frame.head.time;
        self.last_kind = Some(frame.head.kind);
        Ok(())
    }

    /// A record of a type that is not understood: only its hash counts.
    pub(crate) fn opaque(&mut self, leaf: Hash) -> Result<(), Break> {
        self.seal_due = false;
        self.last_kind = None;
        self.leaf(leaf)
    }

    fn leaf(&mut self, leaf: Hash) -> Result<(), Break> {
        if self.pending.len() >= MAX_UNSEALED {
            return broken("too many records without a seal", MAX_UNSEALED, self.pending.len() + 1);
        }
        self.pending.push_back(leaf);
        self.prev = leaf;
        self.size += 1;
        Ok(())
    }

    /// A seal line that hashes to `line`. Its signature is not looked at.
    pub(crate) fn seal(&mut self, seal: &SealLine, line: Hash) -> Result<(), Break> {
        let before = self.sealed.size();
        if seal.after.0 != self.last_seal {
            return broken("the seal before is missing or altered: `after`", Hex(self.last_seal), seal.after);
        }
        if !(before.max(1)..=self.size).contains(&seal.size.0) {
            return broken("the seal covers a size that cannot be: `size`", self.size, seal.size.0);
        }
        if !(self.synced..=before).contains(&seal.synced.0) {
            return broken("the seal claims a synced size that cannot be: `synced`", before, seal.synced.0);
        }
        while self.sealed.size() < seal.size.0 {
            let Some(leaf) = self.pending.pop_front() else { break };
            self.sealed.push(leaf);
            if self.watched.last() == Some(&self.sealed.size()) {
                self.watched.pop();
                self.roots.push((self.sealed.size(), self.sealed.root()));
            }
        }
        if seal.root.0 != self.sealed.root() {
            return broken(
                "the records are not those that were sealed: `root`",
                Hex(self.sealed.root()),
                Hex(seal.root.0),
            );
        }
        if seal.tree().as_ref() != Some(&self.sealed) {
            return broken(
                "the seal's compact range is not that of its tree: `range`",
                self.sealed.range().len(),
                seal.range.len(),
            );
        }
        self.last_seal = line;
        self.seal_due = true;
        self.synced = seal.synced.0;
        Ok(())
    }

    /// Records after the last seal's size.
    pub(crate) fn unsealed(&self) -> u64 {
        self.size - self.sealed.size()
    }
}
