//! The keys of a log: an offline root, a log key and an epoch key, bound together by a certificate of the root.

mod approval;
mod certificate;
mod secret;
mod witness;

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use govrun_verdict::LogId;

pub use approval::{Answer, ApprovalStatement, ApproverKey, SignedApproval};
pub use certificate::{CertError, Certificate};
pub use witness::WitnessSecret;

use crate::hash::Hash;
use crate::note::{NoteError, VerifierKey};
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
    certificate: Certificate,
    log: SigningKey,
    epoch: SigningKey,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Make the keys of a new origin: `root.key`, `log.key`, `epoch.key`, `genesis.cert` and `trust.toml` in `dir`.
    ///
    /// # Errors
    /// When the origin is not acceptable, any of the files exists, or one cannot be written.
    pub fn init(dir: &Path, origin: &str) -> Result<Self, KeyError> {
        check_name(origin)?;
        secret::private_dir(dir)?;
        for name in ["root.key", "log.key", "epoch.key", "genesis.cert", "trust.toml"] {
            let path = dir.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(KeyError::Exists(path));
            }
        }
        let (root, log, epoch) = (secret::generate()?, secret::generate()?, secret::generate()?);
        let epochs = [epoch.verifying_key().to_bytes()];
        let certificate = Certificate::issue(origin, &root, log.verifying_key().to_bytes(), &epochs)?;
        secret::store(&dir.join("root.key"), "root", &root)?;
        secret::store(&dir.join("log.key"), "log", &log)?;
        secret::store(&dir.join("epoch.key"), "epoch", &epoch)?;
        secret::write_new(&dir.join("genesis.cert"), 0o644, certificate.note().as_bytes())?;
        let trust = Trust::new(origin, certificate.root().clone());
        trust.save(&dir.join("trust.toml"))?;
        Ok(Self { certificate, log, epoch })
    }

    /// Load the keys that write logs. `root.key` is not needed and not touched.
    ///
    /// # Errors
    /// When a file is missing, can be read by others, or the keys do not belong to the certificate.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let certificate = Certificate::parse(&secret::read_public(&dir.join("genesis.cert"))?)?;
        let log = secret::load(&dir.join("log.key"), "log")?;
        let epoch = secret::load(&dir.join("epoch.key"), "epoch")?;
        let mixed = |what| KeyError::Mixed { dir: dir.to_owned(), what };
        if log.verifying_key().to_bytes() != *certificate.log().public() {
            return Err(mixed("log key"));
        }
        if !certificate.has_epoch(0, &epoch.verifying_key().to_bytes(), &[]) {
            return Err(mixed("epoch key"));
        }
        Ok(Self { certificate, log, epoch })
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

    /// Number, public half and secret half of the key that signs seals now.
    pub(crate) fn sealer(&self, log: LogId) -> Result<Sealer, KeyError> {
        let public = self.epoch.verifying_key().to_bytes();
        let key = VerifierKey::new(&log_origin(self.origin(), log), public)?;
        Ok(Sealer { epoch: 0, key, secret: self.epoch.clone() })
    }
}

/// What signs the seals of one log.
pub(crate) struct Sealer {
    pub(crate) epoch: u64,
    pub(crate) key: VerifierKey,
    pub(crate) secret: SigningKey,
}

impl Sealer {
    pub(crate) fn seal(&self, tree: &crate::hash::Tree, synced: u64, after: Hash) -> crate::form::SealLine {
        crate::form::SealLine::sign(self.epoch, &self.key, &self.secret, tree, synced, after)
    }
}
