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

/// A fresh seed from the operating system's randomness.
pub(super) fn random() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| KeyError::Random)?;
    Ok(seed)
}

/// A fresh key.
pub(super) fn generate() -> Result<SigningKey, KeyError> {
    random().map(|seed| SigningKey::from_bytes(&seed))
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
    let text = text_of(role, &Zeroizing::new(key.to_bytes()));
    write_new(path, 0o600, &text)
}

/// Read a secret key; refuse one that others can read.
pub(super) fn load(path: &Path, role: &str) -> Result<SigningKey, KeyError> {
    let wrong = || KeyError::Form { path: path.to_owned(), what: "a secret key file of this role" };
    let text = read_private(path, 1024)?;
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

/// Read a file that nobody else can read, of at most so many bytes.
pub(super) fn read_private(path: &Path, most: u64) -> Result<Zeroizing<String>, KeyError> {
    let file = crate::storage::open_read(path).map_err(|e| KeyError::io(path, &e))?;
    check_private(path, &file)?;
    // Room for all of it at once: a string that grew would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(most).unwrap_or(0) + 1));
    let read = file.take(most + 1).read_to_string(&mut text);
    match read {
        Ok(length) if u64::try_from(length).is_ok_and(|n| n <= most) => Ok(text),
        Ok(_) | Err(_) => Err(KeyError::Form { path: path.to_owned(), what: "a short text file" }),
    }
}

/// The text of a secret key file of this role.
pub(super) fn text_of(role: &str, seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    text.extend_from_slice(format!("{HEADER} {role}\n").as_bytes());
    Hex(*seed).push_to(&mut text);
    text.push(b'\n');
    text
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
