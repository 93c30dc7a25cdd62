//! The secret key of a witness.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::{KeyError, check_name, secret};
use crate::cosign::WitnessKey;

/// The secret key of a witness, in a file of its own: `<name>.witness.key`, where `/` in the name becomes `_`.
pub struct WitnessSecret {
    key: WitnessKey,
    secret: SigningKey,
}

impl std::fmt::Debug for WitnessSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WitnessSecret({})", self.key)
    }
}

fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{}.witness.key", name.replace('/', "_")))
}

impl WitnessSecret {
    /// Load the key of this name, or make it when it is not there.
    ///
    /// # Errors
    /// When the name is not acceptable, or the file can be read by others, is another key's, or cannot be written.
    pub fn load_or_make(dir: &Path, name: &str) -> Result<Self, KeyError> {
        check_name(name)?;
        let (path, role) = (path_of(dir, name), format!("witness {name}"));
        let secret = if path.symlink_metadata().is_ok() {
            secret::load(&path, &role)?
        } else {
            secret::private_dir(dir)?;
            let secret = secret::generate()?;
            secret::store(&path, &role, &secret)?;
            secret
        };
        let key = WitnessKey::new(name, secret.verifying_key().to_bytes())?;
        Ok(Self { key, secret })
    }

    /// The public half.
    #[must_use]
    pub const fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// The signature line of a cosignature of this text at `time`, in seconds since 1970.
    #[must_use]
    pub fn cosign(&self, text: &str, time: u64) -> String {
        crate::cosign::cosign(text, time, &self.key, &self.secret)
    }
}
