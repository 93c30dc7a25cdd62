//! The keys of a log: an offline root, a log key and epoch keys that replace each other, bound together by a certificate
//! of the root. Why a thief cannot rewrite what was signed before he came: `docs/decisions/0030-forward-security.md`.

mod approval;
mod certificate;
mod epochs;
mod secret;
mod slots;
mod witness;

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use govrun_verdict::LogId;

pub use approval::{Answer, ApprovalStatement, ApproverKey, SignedApproval};
pub use certificate::{CertError, Certificate, EpochTree};
pub(crate) use epochs::Epochs;
pub use witness::WitnessSecret;

use crate::form::body::Genesis;
use crate::form::{Hex, Int, Text};
use crate::hash::{self, Hash};
use crate::note::{self, NoteError, VerifierKey};
use crate::storage::{self, Disk, LocalDisk};
use crate::trust::{Trust, TrustError};

/// Something about a key or its file is wrong.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// Keys are never overwritten.
    #[error("{} exists already; keys are never overwritten", .0.display())]
    Exists(PathBuf),
    /// Others can read a secret key.
    #[error("{} can be read by others (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not what it should be.
    #[error("{} is not {what}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// No random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// An origin or approver name with characters that do not belong.
    #[error("`{0}` is not a valid name: 1 to 128 characters of a-z, 0-9, `.`, `-`, `_` and inner `/`")]
    Name(String),
    /// The keys in the directory do not belong together.
    #[error("{}: the {what} is not the one that genesis.cert names", dir.display())]
    Mixed {
        /// The directory.
        dir: PathBuf,
        /// Which key.
        what: &'static str,
    },
    /// Every log that the certificate names was begun.
    #[error(
        "all {logs} logs that genesis.cert names were begun: with root.key at hand, run `govrun keys renew`"
    )]
    NoMoreLogs {
        /// How many there are.
        logs: u64,
    },
    /// The root key at hand is another.
    #[error("{} is not the root key that genesis.cert names", .0.display())]
    OtherRoot(PathBuf),
    /// The certificate does not hold.
    #[error("genesis.cert: {0}")]
    Certificate(#[from] CertError),
    /// The trust file could not be written.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A key name is not acceptable.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl KeyError {
    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), error: error.to_string() }
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), KeyError> {
    let good = (1..=128).contains(&name.len())
        && name.split('/').all(|part| !part.is_empty())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_/".contains(&b));
    if good { Ok(()) } else { Err(KeyError::Name(name.to_owned())) }
}

/// The origin of one log: the common origin, `/`, the log id.
#[must_use]
pub fn log_origin(origin: &str, log: LogId) -> String {
    format!("{origin}/{log}")
}

/// The secret keys that write logs. The root key is not among them: after [`KeyStore::init`] it belongs offline.
pub struct KeyStore {
    dir: PathBuf,
    certificate: Certificate,
    log: SigningKey,
    rows: Vec<EpochTree>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Where one log stands in its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStatus {
    /// The log.
    pub log: LogId,
    /// Number of the epoch whose key signs now.
    pub epoch: u64,
    /// Its public key.
    pub key: [u8; 32],
    /// Epochs that are left in the tree in force, this one included. The writer makes the next tree by itself.
    pub left: u64,
}

impl KeyStore {
    /// Make the keys of a new origin in `dir`: `root.key`, `log.key`, `logs.key` and `logs.pub` (the epoch keys of the logs to
    /// come), `genesis.cert` and `trust.toml`.
    ///
    /// # Errors
    /// When the origin is not acceptable, any of the files exists, or one cannot be written.
    pub fn init(dir: &Path, origin: &str) -> Result<Self, KeyError> {
        check_name(origin)?;
        secret::private_dir(dir)?;
        for name in ["root.key", "log.key", "logs.key", "logs.pub", "epochs", "genesis.cert", "trust.toml"] {
            let path = dir.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(KeyError::Exists(path));
            }
        }
        let root = secret::generate()?;
        secret::store(&dir.join("root.key"), "root", &root)?;
        let store = Self::issue(dir, origin, &root)?;
        let trust = Trust::new(origin, store.certificate.root().clone());
        trust.save(&dir.join("trust.toml"))?;
        Ok(store)
    }

    /// Everything below the root, anew. The certificate is last: before it is there, the keys do not count.
    fn issue(dir: &Path, origin: &str, root: &SigningKey) -> Result<Self, KeyError> {
        let (log, master) = (secret::generate()?, secret::random()?);
        let rows = slots::rows(&master);
        let public = log.verifying_key().to_bytes();
        let certificate = Certificate::issue(origin, root, public, &slots::leaves(&rows))?;
        let replace = |name: &str, text: &[u8]| {
            let path = dir.join(name);
            LocalDisk.replace(&path, text).map_err(|e| KeyError::io(&path, &e))
        };
        replace("log.key", &secret::text_of("log", &zeroize::Zeroizing::new(log.to_bytes())))?;
        slots::store(dir, &master, &rows, &LocalDisk)?;
        replace("genesis.cert", certificate.note().as_bytes())?;
        Ok(Self { dir: dir.to_owned(), certificate, log, rows })
    }

    /// Replace everything below the root: a new log key, new epoch keys, a new certificate of the same root. Logs that were
    /// begun before stay as they are, verify as before and are not continued; new ones are begun. The trust file does not
    /// change.
    ///
    /// # Errors
    /// When `root` is not the root key that the certificate names, or a file cannot be written; then it can be run again.
    pub fn renew(dir: &Path, root: &Path) -> Result<Self, KeyError> {
        let lock = dir.join("lock");
        let _held = storage::wait_for_lock(&lock).map_err(|e| KeyError::io(&lock, &e))?;
        let certificate = Certificate::parse(&secret::read_public(&dir.join("genesis.cert"))?)?;
        let key = secret::load(root, "root")?;
        if key.verifying_key().to_bytes() != *certificate.root().public() {
            return Err(KeyError::OtherRoot(root.to_owned()));
        }
        Self::issue(dir, certificate.origin(), &key)
    }

    /// Load the keys that write logs. `root.key` is not needed and not touched.
    ///
    /// # Errors
    /// When a file is missing, can be read by others, or the keys do not belong to the certificate.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let certificate = Certificate::parse(&secret::read_public(&dir.join("genesis.cert"))?)?;
        let log = secret::load(&dir.join("log.key"), "log")?;
        let rows = slots::load(dir)?;
        let mixed = |what| KeyError::Mixed { dir: dir.to_owned(), what };
        if log.verifying_key().to_bytes() != *certificate.log().public() {
            return Err(mixed("log key"));
        }
        let tree = hash::tree_of(&slots::leaves(&rows));
        if tree.size() != certificate.logs() || tree.root() != *certificate.logs_root() {
            return Err(mixed("list of logs in logs.pub"));
        }
        slots::taken(dir)?;
        Ok(Self { dir: dir.to_owned(), certificate, log, rows })
    }

    /// The origin all logs of these keys share.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.certificate.origin()
    }

    /// The certificate of the root.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The public half of the key that co-signs checkpoints for witnesses.
    #[must_use]
    pub fn log_key(&self) -> [u8; 32] {
        self.log.verifying_key().to_bytes()
    }

    /// How many logs were begun under the certificate, of [`Certificate::logs`].
    ///
    /// # Errors
    /// When the file that counts them cannot be read.
    pub fn begun(&self) -> Result<u64, KeyError> {
        slots::taken(&self.dir)
    }

    /// Where a log stands in its epochs; `None` when its seed is not here.
    ///
    /// # Errors
    /// When its epoch file is not one, or can be read by others.
    pub fn epoch_of(&self, log: LogId) -> Result<Option<EpochStatus>, KeyError> {
        let Some(epochs) = self.epochs(log)? else { return Ok(None) };
        let key = epochs.sealer()?.key;
        let tree = epochs.tree();
        let left = (tree.first + tree.count).saturating_sub(epochs.epoch());
        Ok(Some(EpochStatus { log, epoch: epochs.epoch(), key: *key.public(), left }))
    }

    /// Hold the epoch keys of a log: whoever writes it holds them, wherever its directory is. `None`: somebody else does.
    pub(crate) fn hold(&self, log: LogId) -> Result<Option<std::fs::File>, KeyError> {
        let folder = self.dir.join("epochs");
        secret::private_dir(&folder)?;
        let path = folder.join(format!("{log}.lock"));
        storage::lock(&path).map_err(|e| KeyError::io(&path, &e))
    }

    /// The epoch keys of a log that was begun; `None` when they are not here.
    pub(crate) fn epochs(&self, log: LogId) -> Result<Option<Epochs>, KeyError> {
        let path = epochs::file_of(&self.dir, log);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        Epochs::load(path, log, log_origin(self.origin(), log)).map(Some)
    }

    /// Take the keys of a log that is to be begun, and what its genesis record says about them.
    pub(crate) fn take(&self, disk: &dyn Disk) -> Result<(LogId, Epochs, Genesis<'_>), KeyError> {
        let (slot, epochs) = slots::take(&self.dir, self.origin(), &self.rows, disk)?;
        let tree = *epochs.tree();
        let proof = slots::proof(&self.rows, slot);
        let path: Vec<Hash> = proof.iter().map(|h| h.0).collect();
        let mixed = KeyError::Mixed { dir: self.dir.clone(), what: "list of logs in logs.pub" };
        let log = self.certificate.log_of(slot, &tree, &path).ok_or(mixed)?;
        let genesis = Genesis {
            log,
            origin: Text::from(log_origin(self.origin(), log)),
            cert: Text::from(self.certificate.note()),
            slot: Int(slot),
            epochs: Int(tree.count),
            epoch_root: Hex(tree.root),
            slot_proof: proof,
            epoch_key: Hex(*epochs.sealer()?.key.public()),
            epoch_proof: epochs.proof(0),
        };
        Ok((log, epochs, genesis))
    }

    /// The key that co-signs checkpoints and signs further trees of epoch keys.
    pub(crate) fn co_signer(&self) -> CoSigner {
        CoSigner { key: self.certificate.log().clone(), secret: self.log.clone() }
    }
}

/// What signs the seals of one log in one epoch.
pub(crate) struct Sealer {
    pub(crate) epoch: u64,
    pub(crate) key: VerifierKey,
    pub(crate) secret: SigningKey,
}

impl Sealer {
    pub(crate) fn seal(&self, tree: &hash::Tree, synced: u64, after: Hash) -> crate::form::SealLine {
        crate::form::SealLine::sign(self.epoch, &self.key, &self.secret, tree, synced, after)
    }
}

/// The log key at work.
pub(crate) struct CoSigner {
    key: VerifierKey,
    pub(crate) secret: SigningKey,
}

impl CoSigner {
    /// The note with a second signature, of the log key.
    pub(crate) fn co_sign(&self, text: &str, note: &str) -> String {
        let signed = note::sign(text, &self.key, &self.secret);
        let line = signed.get(text.len() + 1..).unwrap_or_default();
        format!("{note}{line}")
    }
}
