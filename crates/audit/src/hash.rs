//! The hashes of the log: RFC 6962 (SHA-256, 0x00 before a leaf, 0x01 before a node) and 0x02 before a seal line, so
//! that none can be taken for another.

use sha2::{Digest as _, Sha256};

/// A SHA-256 value of the log: of a record (leaf), of a tree node or of a seal line.
pub type Hash = [u8; 32];

/// What `prev` and `after` say where there is nothing before: 32 zero bytes.
pub const NOTHING: Hash = [0; 32];

/// The hash of one record: RFC 6962 leaf hash of its line without the newline.
#[must_use]
pub fn leaf(line: &[u8]) -> Hash {
    tagged(0, line)
}

/// The hash of one seal line without its newline.
#[must_use]
pub fn seal(line: &[u8]) -> Hash {
    tagged(2, line)
}

fn tagged(tag: u8, bytes: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([tag]);
    hash.update(bytes);
    hash.finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// An append-only RFC 6962 tree in O(log n) memory: the roots of its perfect subtrees, largest first ("compact range").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    range: Vec<Hash>,
}

impl Tree {
    /// The tree without leaves.
    pub const EMPTY: Self = Self { size: 0, range: Vec::new() };

    /// The tree with this many leaves and this compact range, or `None` when the two do not fit each other.
    #[must_use]
    pub fn from_range(size: u64, range: Vec<Hash>) -> Option<Self> {
        (u64::try_from(range.len()).ok()? == u64::from(size.count_ones())).then_some(Self { size, range })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, largest first: one for each bit set in the size.
    #[must_use]
    pub fn range(&self) -> &[Hash] {
        &self.range
    }

    /// Append one leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.range.pop() {
                hash = node(&left, &hash);
            }
        }
        self.range.push(hash);
        self.size += 1;
    }

    /// The root; SHA-256 of nothing for an empty tree (RFC 6962 section 2.1).
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.range.iter().rev().copied();
        let Some(smallest) = subtrees.next() else { return Sha256::new().finalize().into() };
        subtrees.fold(smallest, |right, left| node(&left, &right))
    }
}

/// The tree over these leaf hashes.
pub(crate) fn tree_of(leaves: &[Hash]) -> Tree {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree
}

/// The proof for [`includes`] that the leaf at `index` is in the tree over these leaf hashes (RFC 9162, 2.1.3.1). For trees
/// that are small enough to be at hand whole. Empty when there is no such leaf.
pub(crate) fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 || index >= leaves.len() {
        return Vec::new();
    }
    let half = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(half);
    let (mut proof, sibling) =
        if index < half { (path(left, index), right) } else { (path(right, index - half), left) };
    proof.push(tree_of(sibling).root());
    proof
}

/// Whether `proof` leads from the leaf hash at `index` to the root of a tree of `size` leaves (RFC 9162, 2.1.3.2).
#[must_use]
pub fn includes(index: u64, size: u64, leaf: Hash, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut position, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            hash = node(sibling, &hash);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `new` leaves begins with all leaves of the tree of `old` (RFC 9162, 2.1.4.2).
/// An empty old tree proves nothing and is refused.
#[must_use]
pub fn extends(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let mut path = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { path.next() };
    let Some(first) = first else { return false };
    let shift = (old - 1).trailing_ones();
    let (mut position, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut from_old, mut from_new) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if position & 1 == 1 || position == last {
            from_old = node(sibling, &from_old);
            from_new = node(sibling, &from_new);
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node(&from_new, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && from_old == *old_root && from_new == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_proves_its_leaf_and_no_other() {
        for size in 1..40_u8 {
            let leaves: Vec<Hash> = (0..size).map(|i| leaf(&[i])).collect();
            let root = tree_of(&leaves).root();
            for (index, found) in (0_u64..).zip(&leaves) {
                let proof = path(&leaves, usize::try_from(index).unwrap_or(0));
                assert!(includes(index, size.into(), *found, &proof, &root), "{index} of {size}");
                assert!(
                    size == 1 || !includes((index + 1) % u64::from(size), size.into(), *found, &proof, &root)
                );
            }
        }
    }
}
