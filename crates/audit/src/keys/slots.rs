//! The logs that a certificate names before they are begun. Each has its own row of epoch keys; all rows come from one seed
//! that is moved on, one way, whenever a log is begun: what is left of it makes the logs to come and none that was begun.

use std::path::Path;

use zeroize::Zeroizing;

use super::certificate::{EpochTree, slot_id, slot_leaf};
use super::epochs::{Epochs, FIRST_EPOCHS, Seed, derive, file_of, public_keys, tree_over};
use super::{KeyError, log_origin, secret};
use crate::form::Hex;
use crate::hash::{self, Hash};
use crate::storage::{self, Disk};

/// Logs that one certificate names: as many processes can write at the same time, in all directories together. Logs that
/// are free are taken up again, so it takes many processes or many deleted directories to run out.
pub(super) const LOGS: u64 = 128;

const SECRET: &str = "logs.key";
const PUBLIC: &str = "logs.pub";
const HEADER: &str = "govrun logs v1";
/// Largest file of either kind, in bytes.
const MAX_FILE: u64 = 64 * 1024;

fn log_seed(master: &[u8; 32]) -> Seed {
    Seed::new(derive("govrun audit logs v1 epoch seed", master))
}

fn next_master(master: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    derive("govrun audit logs v1 next log", master)
}

/// The rows of epoch keys of all logs from this seed on.
pub(super) fn rows(master: &[u8; 32]) -> Vec<EpochTree> {
    let mut master = Zeroizing::new(*master);
    let mut rows = Vec::new();
    for _ in 0..LOGS {
        rows.push(tree_over(0, &public_keys(&log_seed(&master), FIRST_EPOCHS)));
        master = next_master(&master);
    }
    rows
}

/// Their leaves in the certificate.
pub(super) fn leaves(rows: &[EpochTree]) -> Vec<Hash> {
    (0_u64..).zip(rows).map(|(slot, row)| slot_leaf(slot, row)).collect()
}

/// Write both files anew.
pub(super) fn store(
    dir: &Path,
    master: &[u8; 32],
    rows: &[EpochTree],
    disk: &dyn Disk,
) -> Result<(), KeyError> {
    let mut text = format!("{HEADER}\n");
    rows.iter().for_each(|row| text += &format!("{}\n", Hex(row.root)));
    let path = dir.join(PUBLIC);
    disk.replace(&path, text.as_bytes()).map_err(|e| KeyError::io(&path, &e))?;
    store_master(dir, 0, master, disk)
}

fn store_master(dir: &Path, next: u64, master: &[u8; 32], disk: &dyn Disk) -> Result<(), KeyError> {
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    text.extend_from_slice(format!("{HEADER}\nnext {next}\nseed ").as_bytes());
    Hex(*master).push_to(&mut text);
    text.push(b'\n');
    let path = dir.join(SECRET);
    disk.replace(&path, &text).map_err(|e| KeyError::io(&path, &e))
}

/// Read the public rows.
pub(super) fn load(dir: &Path) -> Result<Vec<EpochTree>, KeyError> {
    let path = dir.join(PUBLIC);
    let text = secret::read_public(&path)?;
    let wrong =
        || KeyError::Form { path: path.clone(), what: "the list of logs that belongs to genesis.cert" };
    let rows = text.strip_prefix(HEADER).and_then(|t| t.strip_prefix('\n')).ok_or_else(wrong)?;
    let row = |line: &str| {
        let root = Hex::parse(line.as_bytes()).ok_or_else(wrong)?.0;
        Ok(EpochTree { first: 0, count: FIRST_EPOCHS, root })
    };
    rows.lines().map(row).collect()
}

/// How many logs were begun.
pub(super) fn taken(dir: &Path) -> Result<u64, KeyError> {
    load_master(dir).map(|(next, _)| next)
}

fn load_master(dir: &Path) -> Result<(u64, Zeroizing<[u8; 32]>), KeyError> {
    let path = dir.join(SECRET);
    let text = secret::read_private(&path, MAX_FILE)?;
    let parse = || {
        let rest = text.strip_prefix(HEADER)?.strip_prefix("\nnext ")?;
        let (next, rest) = rest.split_once("\nseed ")?;
        let seed = Hex::<32>::parse(rest.strip_suffix('\n')?.as_bytes())?;
        Some((next.parse().ok()?, Zeroizing::new(seed.0)))
    };
    parse().ok_or_else(|| KeyError::Form { path: path.clone(), what: "the seed of the logs to come" })
}

/// Take the keys of the next log. Its epoch file is on disk before the seed it came from is erased, and both before
/// anything is signed.
pub(super) fn take(
    dir: &Path,
    origin: &str,
    rows: &[EpochTree],
    disk: &dyn Disk,
) -> Result<(u64, Epochs), KeyError> {
    let lock = dir.join("lock");
    let held = storage::wait_for_lock(&lock).map_err(|e| KeyError::io(&lock, &e))?;
    let (slot, master) = load_master(dir)?;
    let index = usize::try_from(slot).unwrap_or(usize::MAX);
    let row = rows.get(index).ok_or(KeyError::NoMoreLogs { logs: LOGS })?;
    let id = slot_id(&slot_leaf(slot, row));
    let path = file_of(dir, id);
    let epochs = Epochs::begin(path.clone(), id, log_origin(origin, id), log_seed(&master));
    if epochs.tree() != row {
        return Err(KeyError::Mixed { dir: dir.to_owned(), what: "seed in logs.key" });
    }
    secret::private_dir(&dir.join("epochs"))?;
    epochs.store(disk).map_err(|e| KeyError::io(&path, &e))?;
    store_master(dir, slot + 1, &next_master(&master), disk)?;
    drop(held);
    Ok((slot, epochs))
}

/// The proof that the certificate names log number `slot`.
pub(super) fn proof(rows: &[EpochTree], slot: u64) -> Vec<Hex<32>> {
    let index = usize::try_from(slot).unwrap_or(usize::MAX);
    hash::path(&leaves(rows), index).into_iter().map(Hex).collect()
}
