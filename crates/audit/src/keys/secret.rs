//! Secret key files: two lines of text, readable by their owner only.
//!
//! ```text
//! govrun ed25519 secret key v1 epoch
//! 4f0d…(64 hex digits of the seed)
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::KeyError;
use crate::form::Hex;

const HEADER: &str = "govrun ed25519 secret key v1";

/// A fresh key from the operating system's randomness.
pub(super) fn generate() -> Result<SigningKey, KeyError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| KeyError::Random)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Make the directory, 0700, if it is not there.
pub(super) fn private_dir(dir: &Path) -> Result<(), KeyError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| KeyError::io(dir, &e))
}

/// Write a new file that must not exist yet, synced.
pub(super) fn write_new(path: &Path, mode: u32, text: &[u8]) -> Result<(), KeyError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(KeyError::Exists(path.to_owned()));
        }
        Err(e) => return Err(KeyError::io(path, &e)),
    };
    file.write_all(text).and_then(|()| file.sync_all()).map_err(|e| KeyError::io(path, &e))
}

/// Write a secret key, 0600.
pub(super) fn store(path: &Path, role: &str, key: &SigningKey) -> Result<(), KeyError> {
    let mut text = Zeroizing::new(Vec::with_capacity(160));
    text.extend_from_slice(format!("{HEADER} {role}\n").as_bytes());
    let seed = Zeroizing::new(key.to_bytes());
    let seed = Zeroizing::new(hex::encode(seed.as_ref()));
    text.extend_from_slice(seed.as_bytes());
    text.push(b'\n');
    write_new(path, 0o600, &text)
}

/// Read a secret key; refuse one that others can read.
pub(super) fn load(path: &Path, role: &str) -> Result<SigningKey, KeyError> {
    let file = crate::storage::open_read(path).map_err(|e| KeyError::io(path, &e))?;
    check_private(path, &file)?;
    let mut text = Zeroizing::new(String::with_capacity(1024));
    let wrong = || KeyError::Form { path: path.to_owned(), what: "a secret key file of this role" };
    file.take(1024).read_to_string(&mut text).map_err(|_| wrong())?;
    let seed = text
        .strip_prefix(HEADER)
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(|rest| rest.strip_prefix(role))
        .and_then(|rest| rest.strip_prefix('\n'))
        .and_then(|rest| rest.strip_suffix('\n'))
        .ok_or_else(wrong)?;
    let seed = Zeroizing::new(Hex::<32>::parse(seed.as_bytes()).ok_or_else(wrong)?.0);
    Ok(SigningKey::from_bytes(&seed))
}

fn check_private(path: &Path, file: &File) -> Result<(), KeyError> {
    let meta = file.metadata().map_err(|e| KeyError::io(path, &e))?;
    if meta.mode() & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o777 });
    }
    Ok(())
}

/// Read a small public text file.
pub(super) fn read_public(path: &Path) -> Result<String, KeyError> {
    fs::read_to_string(path).map_err(|e| KeyError::io(path, &e))
}
