//! Proofs about single records: inclusion (`.tlog-proof`, <https://c2sp.org/tlog-proof>) and consistency of two sizes. A proof
//! is made in one pass over the leaf hashes, in O(log n) memory, and checked offline.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use govrun_verdict::LogId;

use crate::form::B64;
use crate::hash::{self, Hash, Tree};
use crate::read::{LogRecords, ReadError, Record};

/// Longest proof text that is parsed, in bytes.
pub const MAX_PROOF: usize = 64 * 1024;
/// Most hashes of one proof.
const MAX_HASHES: usize = 63;

/// Collects the hashes of one proof while the leaves pass by.
#[derive(Debug, Clone)]
pub struct Prover {
    /// Ranges of leaves in the order of the leaves, each with its place in the proof.
    parts: Vec<(usize, Range<u64>, Tree)>,
    seen: u64,
    size: u64,
}

impl Prover {
    /// Of the record at `index` in the tree of `size` leaves (RFC 6962, 2.1.1). `None` when there is no such record.
    #[must_use]
    pub fn inclusion(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let mut ranges = Vec::new();
        let (mut start, mut end) = (0, size);
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                ranges.push(middle..end);
                end = middle;
            } else {
                ranges.push(start..middle);
                start = middle;
            }
        }
        ranges.reverse();
        Some(Self::of(ranges, size))
    }

    /// That the tree of `new` leaves begins with all of the tree of `old` (RFC 6962, 2.1.2). `None` when `old` is 0 or more than
    /// `new`.
    #[must_use]
    pub fn consistency(old: u64, new: u64) -> Option<Self> {
        if old == 0 || old > new {
            return None;
        }
        let mut ranges = Vec::new();
        let (mut start, mut end) = (0, new);
        // SUBPROOF: `old` counts from the beginning of the subtree that is left.
        let mut whole = true;
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                ranges.push(middle..end);
                end = middle;
            } else {
                ranges.push(start..middle);
                start = middle;
                whole = false;
            }
        }
        if !whole {
            ranges.push(start..end);
        }
        ranges.reverse();
        Some(Self::of(ranges, new))
    }

    fn of(ranges: Vec<Range<u64>>, size: u64) -> Self {
        let mut parts: Vec<_> =
            ranges.into_iter().enumerate().map(|(place, range)| (place, range, Tree::EMPTY)).collect();
        parts.sort_by_key(|(_, range, _)| range.start);
        Self { parts, seen: 0, size }
    }

    /// The next leaf hash, from the first on. Those after the size are ignored.
    pub fn push(&mut self, leaf: Hash) {
        let index = self.seen;
        self.seen += 1;
        let part = self.parts.partition_point(|(_, range, _)| range.end <= index);
        if let Some((_, range, tree)) = self.parts.get_mut(part)
            && range.contains(&index)
        {
            tree.push(leaf);
        }
    }

    /// The proof; `None` when fewer leaves came than the tree has.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<Hash>> {
        if self.seen < self.size {
            return None;
        }
        self.parts.sort_by_key(|(place, _, _)| *place);
        Some(self.parts.iter().map(|(_, _, tree)| tree.root()).collect())
    }
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Go through the leaf hashes of a log, with the lines they are of, until `each` says that it has enough.
///
/// # Errors
/// When the log cannot be read or holds something else than lines.
pub fn leaves(
    dir: &Path,
    log: LogId,
    mut each: impl FnMut(Hash, &Record) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let mut records = LogRecords::new(dir, log)?;
    while let Some(record) = records.read()? {
        if each(hash::leaf(&record.line), &record).is_break() {
            break;
        }
    }
    Ok(())
}

/// A `.tlog-proof`: one record is in the log that this checkpoint is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What links the key of the checkpoint to the root key; not authenticated by itself.
    pub extra: Vec<u8>,
    /// Number of the record.
    pub index: u64,
    /// Hashes from the leaf to the root.
    pub hashes: Vec<Hash>,
    /// The checkpoint, a signed note.
    pub checkpoint: String,
}

/// A text that is not a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a c2sp.org/tlog-proof@v1: {0}")]
pub struct ProofForm(&'static str);

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1\n";

impl Proof {
    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = FIRST_LINE.to_owned();
        if !self.extra.is_empty() {
            text += &format!("extra {}\n", STANDARD.encode(&self.extra));
        }
        text += &format!("index {}\n", self.index);
        for hash in &self.hashes {
            text += &format!("{}\n", B64(*hash));
        }
        text + "\n" + &self.checkpoint
    }

    /// Parse the text. Nothing is checked yet.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &str) -> Result<Self, ProofForm> {
        if text.len() > MAX_PROOF {
            return Err(ProofForm("longer than 64 KiB"));
        }
        let rest = text.strip_prefix(FIRST_LINE).ok_or(ProofForm("another first line"))?;
        let (extra, rest) = match rest.strip_prefix("extra ") {
            None => (Vec::new(), rest),
            Some(rest) => {
                let (extra, rest) = rest.split_once('\n').ok_or(ProofForm("the extra line"))?;
                (STANDARD.decode(extra).map_err(|_| ProofForm("the extra line"))?, rest)
            }
        };
        let rest = rest.strip_prefix("index ").ok_or(ProofForm("no index line"))?;
        let (number, mut rest) = rest.split_once('\n').ok_or(ProofForm("no index line"))?;
        let index = number.parse().ok().filter(|n: &u64| n.to_string() == number);
        let index = index.ok_or(ProofForm("the index is not a number in decimal"))?;
        let mut hashes = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or(ProofForm("no empty line"))?;
            rest = after;
            if line.is_empty() {
                break;
            }
            if hashes.len() == MAX_HASHES {
                return Err(ProofForm("more than 63 hashes"));
            }
            hashes.push(B64::parse(line).ok_or(ProofForm("a hash is not the base64 of 32 bytes"))?.0);
        }
        Ok(Self { extra, index, hashes, checkpoint: rest.to_owned() })
    }

    /// Whether the line (without its newline) is the record at `index` of a tree with this size and root. Whose tree that is,
    /// the signatures of the checkpoint say.
    #[must_use]
    pub fn includes(&self, line: &[u8], size: u64, root: &Hash) -> bool {
        hash::includes(self.index, size, hash::leaf(line), &self.hashes, root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(i: u64) -> Hash {
        hash::leaf(&i.to_be_bytes())
    }

    fn root(size: u64) -> Hash {
        let mut tree = Tree::EMPTY;
        (0..size).for_each(|i| tree.push(leaf(i)));
        tree.root()
    }

    #[test]
    fn every_inclusion_proof_up_to_70_leaves_holds() {
        for size in 1..70 {
            let root = root(size);
            for index in 0..size {
                let mut prover = Prover::inclusion(index, size).unwrap();
                (0..size + 3).for_each(|i| prover.push(leaf(i)));
                let proof = prover.finish().unwrap();
                assert!(hash::includes(index, size, leaf(index), &proof, &root), "{index} of {size}");
                assert!(!hash::includes(index, size, leaf(index + 1), &proof, &root));
            }
        }
        assert!(Prover::inclusion(3, 3).is_none());
    }

    #[test]
    fn every_consistency_proof_up_to_70_leaves_holds() {
        for new in 1..70 {
            for old in 1..=new {
                let mut prover = Prover::consistency(old, new).unwrap();
                (0..new).for_each(|i| prover.push(leaf(i)));
                let proof = prover.finish().unwrap();
                assert!(hash::extends(old, new, &root(old), &root(new), &proof), "{old} to {new}");
                assert!(!hash::extends(old, new, &root(old), &root(new + 1), &proof));
            }
        }
        assert!(Prover::consistency(0, 3).is_none() && Prover::consistency(4, 3).is_none());
    }

    #[test]
    fn a_log_that_is_too_short_gives_no_proof() {
        let mut prover = Prover::inclusion(1, 4).unwrap();
        (0..3).for_each(|i| prover.push(leaf(i)));
        assert_eq!(prover.finish(), None);
    }

    #[test]
    fn a_proof_has_one_spelling() {
        let proof = Proof {
            extra: b"x".to_vec(),
            index: 7,
            hashes: vec![leaf(1), leaf(2)],
            checkpoint: "example.org/log\n9\n…\n\n— example.org/log …\n".into(),
        };
        let text = proof.text();
        assert_eq!(Proof::parse(&text), Ok(proof.clone()));
        let plain = Proof { extra: Vec::new(), ..proof };
        assert_eq!(Proof::parse(&plain.text()), Ok(plain));
        for (from, to) in [("@v1", "@v2"), ("index 7", "index 07"), ("index 7", "index -7"), ("=\n\n", "=\n")]
        {
            assert!(Proof::parse(&text.replacen(from, to, 1)).is_err(), "{from} as {to}");
        }
    }
}
