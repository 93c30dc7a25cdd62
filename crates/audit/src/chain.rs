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

/// Which epoch seals what. An epoch ends with a `key_epoch` record as its last; its own key seals that record, and only
/// then comes the next one, which the next key seals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EpochOrder {
    /// The epoch that the last record belongs to.
    current: u64,
    /// Number of records at its end, once that is there.
    ends: Option<u64>,
    /// Whether its own key sealed all of them.
    closed: bool,
}

impl EpochOrder {
    /// After a seal of `epoch`, which covers a `key_epoch` record as its last or not.
    pub(crate) fn after_seal(epoch: u64, ended_at: Option<u64>) -> Self {
        Self { current: epoch, ends: ended_at, closed: ended_at.is_some() }
    }

    /// The epoch that the next record will belong to.
    pub(crate) const fn next(&self) -> u64 {
        if self.ends.is_some() { self.current + 1 } else { self.current }
    }

    /// Whether the last record ends its epoch.
    pub(crate) const fn is_ended(&self) -> bool {
        self.ends.is_some()
    }

    /// Whether a `key_epoch` record is there that its epoch's own key has not sealed.
    pub(crate) const fn is_open_ended(&self) -> bool {
        self.ends.is_some() && !self.closed
    }

    fn record(&mut self, kind: Kind, size: u64) -> Result<(), Break> {
        if self.is_open_ended() {
            return broken(
                "a record follows the end of its epoch before that was sealed",
                self.current,
                size,
            );
        }
        self.current = self.next();
        self.ends = (kind == Kind::KeyEpoch).then_some(size);
        self.closed = false;
        Ok(())
    }

    fn seal(&mut self, epoch: u64, size: u64) -> Result<(), Break> {
        if epoch == self.current {
            self.closed |= self.ends == Some(size);
            return Ok(());
        }
        if self.closed && epoch == self.next() {
            *self = Self { current: epoch, ends: None, closed: false };
            return Ok(());
        }
        broken("the seal is of an epoch whose turn it is not: `epoch`", self.current, epoch)
    }
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
    /// Whose turn it is to seal.
    pub(crate) epochs: EpochOrder,
    /// True when the next line is the first of a segment that is not the first.
    opening: bool,
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
            epochs: EpochOrder { current: 0, ends: None, closed: false },
            opening: false,
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

    /// The next line is the first of a segment that goes on from another: a seal over everything before it, all of it on
    /// disk. So a segment can be followed from its first line on, and begins only where the one before is safe.
    pub(crate) const fn begin_segment(&mut self) {
        self.opening = true;
    }

    /// A record whose line hashes to `leaf`.
    pub(crate) fn record(&mut self, frame: &Frame<'_>, leaf: Hash) -> Result<(), Break> {
        if self.opening {
            return broken("a segment does not begin with a seal", "a seal", frame.head.kind.name());
        }
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
        let mut epochs = self.epochs;
        epochs.record(frame.head.kind, self.size + 1)?;
        self.leaf(leaf)?;
        self.epochs = epochs;
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
        if self.opening && (seal.size.0, seal.synced.0) != (self.size, self.size) {
            return broken(
                "a segment begins with a seal that does not cover what is before it",
                self.size,
                seal.size.0,
            );
        }
        self.epochs.seal(seal.epoch.0, seal.size.0)?;
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
        self.opening = false;
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
