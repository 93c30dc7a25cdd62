//! Epoch keys: a one-way ratchet of seeds, so that the key which signs now says nothing about the keys that signed before.
//!
//! ```text
//! seed 0 ──▶ seed 1 ──▶ seed 2 …        each is derived from the one before, never the other way
//!    └▶ key 0   └▶ key 1   └▶ key 2     each signs the seals of one epoch
//! ```
//! The public halves are fixed before the first is used: those of the first tree by the root's certificate, those of every
//! further tree by the `key_epoch` record that ends the last epoch of the tree before.
//!
//! INVARIANT: a seed leaves the disk only after the seal that ends its epoch is on it. So there is always exactly one log
//! end that the seed on disk can go on from, or that end and the same with its epoch ended.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use govrun_verdict::LogId;
use zeroize::Zeroizing;

use super::certificate::{EpochTree, epoch_leaf};
use super::{KeyError, Sealer, secret};
use crate::form::body::{EpochEnd, KeyEpoch, NextTree};
use crate::form::{B64, Hex, Int};
use crate::hash::{self, Hash};
use crate::note::VerifierKey;
use crate::storage::Disk;

/// Epoch keys in the tree that the root certifies for each log: eight hours of uninterrupted writing.
pub(super) const FIRST_EPOCHS: u64 = 32;
/// Epoch keys in each further tree: 64 hours.
pub(super) const NEXT_EPOCHS: u64 = 256;
/// Public keys of epochs before the tree in force that are remembered, for a reopening that has to read their seals.
const REMEMBERED: usize = 4;
/// Largest epoch file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The seed of one epoch.
pub(super) struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    pub(super) const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    fn next(&self) -> Self {
        Self(derive("govrun audit ratchet v1 next seed", &self.0))
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(&derive("govrun audit ratchet v1 signing key", &self.0))
    }
}

/// A key derived one way; the hasher's memory is not reused for anything else.
pub(super) fn derive(context: &str, from: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key(context, from))
}

/// The public keys of `count` epochs from this seed on.
pub(super) fn public_keys(seed: &Seed, count: u64) -> Vec<[u8; 32]> {
    let mut seed = Seed(seed.0.clone());
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(seed.key().verifying_key().to_bytes());
        seed = seed.next();
    }
    keys
}

/// The tree over keys of consecutive epochs.
pub(super) fn tree_over(first: u64, keys: &[[u8; 32]]) -> EpochTree {
    let tree = hash::tree_of(&leaves(first, keys));
    EpochTree { first, count: tree.size(), root: tree.root() }
}

fn leaves(first: u64, keys: &[[u8; 32]]) -> Vec<Hash> {
    (first..).zip(keys).map(|(epoch, key)| epoch_leaf(epoch, key)).collect()
}

/// Where a log stands in its epochs, and the one secret that it has: the seed of the epoch that signs now.
pub(crate) struct Epochs {
    path: PathBuf,
    log: LogId,
    origin: String,
    epoch: u64,
    seed: Seed,
    tree: EpochTree,
    /// Public keys of the last epochs before the tree, then of those in it.
    keys: Vec<[u8; 32]>,
    from: u64,
}

impl fmt::Debug for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epochs").field("log", &self.log).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The place of a log's epoch file.
pub(super) fn file_of(keys: &Path, log: LogId) -> PathBuf {
    keys.join("epochs").join(format!("{log}.seed"))
}

impl Epochs {
    /// The first epoch of a log.
    pub(super) fn begin(path: PathBuf, log: LogId, origin: String, seed: Seed) -> Self {
        let keys = public_keys(&seed, FIRST_EPOCHS);
        let tree = tree_over(0, &keys);
        Self { path, log, origin, epoch: 0, seed, tree, keys, from: 0 }
    }

    /// Number of the epoch that signs now.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The tree of epoch keys in force.
    pub(super) const fn tree(&self) -> &EpochTree {
        &self.tree
    }

    /// The verifier key of an epoch, as far as it is remembered.
    pub(crate) fn verifier(&self, epoch: u64) -> Option<VerifierKey> {
        let public = self.public(epoch)?;
        VerifierKey::new(&self.origin, *public).ok()
    }

    fn public(&self, epoch: u64) -> Option<&[u8; 32]> {
        self.keys.get(usize::try_from(epoch.checked_sub(self.from)?).ok()?)
    }

    /// What signs the seals of this epoch.
    pub(crate) fn sealer(&self) -> Result<Sealer, KeyError> {
        let secret = self.seed.key();
        let key = VerifierKey::new(&self.origin, secret.verifying_key().to_bytes())?;
        Ok(Sealer { epoch: self.epoch, key, secret })
    }

    /// The inclusion proof of an epoch's key in the tree in force.
    pub(super) fn proof(&self, epoch: u64) -> Vec<Hex<32>> {
        let skipped = usize::try_from(self.tree.first - self.from).unwrap_or(usize::MAX);
        let keys = self.keys.get(skipped..).unwrap_or_default();
        let index = epoch.checked_sub(self.tree.first).and_then(|i| usize::try_from(i).ok());
        let path = hash::path(&leaves(self.tree.first, keys), index.unwrap_or(usize::MAX));
        path.into_iter().map(Hex).collect()
    }

    /// The next epoch, and the record that hands over to it. Nothing is written: see [`Epochs::store`].
    pub(crate) fn next(&self, log_key: &SigningKey, reason: EpochEnd) -> (Self, KeyEpoch<'static>) {
        let (epoch, seed) = (self.epoch + 1, self.seed.next());
        let mut next = Self {
            path: self.path.clone(),
            log: self.log,
            origin: self.origin.clone(),
            epoch,
            seed,
            tree: self.tree,
            keys: self.keys.clone(),
            from: self.from,
        };
        let tree = (epoch == self.tree.first + self.tree.count).then(|| next.renew(log_key));
        let key = next.public(epoch).copied().unwrap_or_default();
        let record = KeyEpoch::new(epoch, key, next.proof(epoch), tree, reason);
        (next, record)
    }

    /// Put a further tree in force, which begins with this epoch.
    fn renew(&mut self, log_key: &SigningKey) -> NextTree {
        let keys = public_keys(&self.seed, NEXT_EPOCHS);
        self.tree = tree_over(self.epoch, &keys);
        let forgotten = self.keys.len().saturating_sub(REMEMBERED);
        self.keys.drain(..forgotten);
        self.from = self.epoch.saturating_sub(u64::try_from(self.keys.len()).unwrap_or(0));
        self.keys.extend(keys);
        let signature = log_key.sign(self.tree.statement(&self.origin).as_bytes()).to_bytes();
        NextTree { count: Int(self.tree.count), root: Hex(self.tree.root), sig: B64(signature) }
    }

    /// Bring this epoch's seed to the disk and erase what the file held before.
    pub(crate) fn store(&self, disk: &dyn Disk) -> std::io::Result<()> {
        disk.replace(&self.path, &self.text())
    }

    fn text(&self) -> Zeroizing<Vec<u8>> {
        let Self { log, epoch, tree, from, .. } = self;
        let mut text = Zeroizing::new(Vec::with_capacity(512 + 65 * self.keys.len()));
        text.extend_from_slice(
            format!(
                "govrun epoch v1 {log}\nepoch {epoch}\ntree {} {}\nkeys {from}\n",
                tree.first, tree.count
            )
            .as_bytes(),
        );
        for key in &self.keys {
            Hex(*key).push_to(&mut text);
            text.push(b'\n');
        }
        text.extend_from_slice(b"seed ");
        Hex(*self.seed.0).push_to(&mut text);
        text.push(b'\n');
        text
    }

    /// Read the epoch file of a log.
    pub(super) fn load(path: PathBuf, log: LogId, origin: String) -> Result<Self, KeyError> {
        let text = secret::read_private(&path, MAX_FILE)?;
        let wrong = || KeyError::Form { path: path.clone(), what: "the epoch file of this log" };
        let parts = parse(&text, log).ok_or_else(wrong)?;
        let (epoch, (first, count), from, keys, seed) = parts;
        let inner = keys.get(usize::try_from(first - from).map_err(|_| wrong())?..).unwrap_or_default();
        let tree = tree_over(first, inner);
        let epochs = Self { path: path.clone(), log, origin, epoch, seed, tree, keys, from };
        // The seed must be that of the key which was announced.
        let ours = epochs.seed.key().verifying_key().to_bytes();
        if tree.count == count && epoch >= first && epochs.public(epoch) == Some(&ours) {
            Ok(epochs)
        } else {
            Err(wrong())
        }
    }
}

type Parts = (u64, (u64, u64), u64, Vec<[u8; 32]>, Seed);

fn parse(text: &str, log: LogId) -> Option<Parts> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let named = |line: &str, name: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    if lines.next()? != format!("govrun epoch v1 {log}") {
        return None;
    }
    let epoch = named(lines.next()?, "epoch")?.parse().ok()?;
    let tree = named(lines.next()?, "tree")?;
    let (first, count) = tree.split_once(' ')?;
    let (first, count): (u64, u64) = (first.parse().ok()?, count.parse().ok()?);
    let from: u64 = named(lines.next()?, "keys")?.parse().ok()?;
    let mut keys = Vec::new();
    let mut line = lines.next()?;
    while let Some(key) = Hex::<32>::parse(line.as_bytes()) {
        keys.push(key.0);
        line = lines.next()?;
    }
    let seed = Zeroizing::new(Hex::<32>::parse(line.strip_prefix("seed ")?.as_bytes())?.0);
    (lines.next().is_none() && from <= first).then_some((epoch, (first, count), from, keys, Seed::new(seed)))
}
