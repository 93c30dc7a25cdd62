//! Compiled components as bytes that may lie on a disk.
//!
//! Loading compiled code is running it: whoever writes such a file owns the process. So [`seal`] puts a keyed hash in
//! front of the code, with a key that only this installation has, and [`open`] loads nothing whose hash it cannot make
//! itself. An entry is:
//!
//! ```text
//! govrun-aot 1\n        13 bytes
//! tag                   32 bytes  BLAKE3 keyed with the key, of: component digest, fingerprint of the engine, code
//! code                  what the engine serialised
//! ```
//!
//! This crate holds the one place in the project where the compiler cannot check memory safety, and nothing else.

use std::fmt;
use std::hash::{Hash as _, Hasher};

use wasmtime::Engine;
use wasmtime::component::Component;

/// What an entry begins with.
const MAGIC: &[u8; 13] = b"govrun-aot 1\n";
/// Length of the tag, in bytes.
const TAG: usize = 32;
/// Domain of the key that seals, so that the same secret serves nothing else.
const SEAL: &str = "govrun 2026 compiled component seal";
/// Domain of the names of entries.
const NAME: &str = "govrun 2026 compiled component name";

/// The secret that seals entries. It is made for one installation and never leaves it.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key made of an installation's secret.
    #[must_use]
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(SEAL, secret))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What was compiled, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    component: [u8; 32],
    engine: [u8; 32],
}

/// Why an entry is not loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// It does not begin as an entry does, or is too short.
    Form,
    /// Its seal does not hold: it was altered, swapped, or sealed by another installation or engine.
    Seal,
    /// The engine does not take it, though the seal holds.
    Engine,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "it is not an entry of this cache",
            Self::Seal => "its seal does not hold",
            Self::Engine => "the engine does not take it",
        })
    }
}

impl std::error::Error for Rejected {}

impl Subject {
    /// The component with these bytes' digest, compiled by `engine`. Engines differ by version, configuration and target.
    #[must_use]
    pub fn new(component: [u8; 32], engine: &Engine) -> Self {
        let mut fingerprint = Fingerprint(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut fingerprint);
        Self { component, engine: *fingerprint.0.finalize().as_bytes() }
    }

    /// A name for its entry: 64 hexadecimal digits.
    #[must_use]
    pub fn name(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key(NAME);
        hasher.update(&self.component).update(&self.engine);
        hasher.finalize().to_hex().to_string()
    }

    /// Both digests have a fixed length, so nothing can be moved from one part into the next.
    fn tag(&self, key: &Key, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(&self.component).update(&self.engine).update(code);
        hasher.finalize()
    }
}

/// Feeds a hash with what [`std::hash::Hash`] writes.
struct Fingerprint(blake3::Hasher);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finalize().as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes)
    }
}

/// The entry of a component that was just compiled.
///
/// # Errors
/// When the engine cannot serialise it.
pub fn seal(key: &Key, subject: &Subject, component: &Component) -> wasmtime::Result<Vec<u8>> {
    let code = component.serialize()?;
    let mut entry = Vec::with_capacity(MAGIC.len().saturating_add(TAG).saturating_add(code.len()));
    entry.extend_from_slice(MAGIC);
    entry.extend_from_slice(subject.tag(key, &code).as_bytes());
    entry.extend_from_slice(&code);
    Ok(entry)
}

/// The component of an entry, when it was sealed with this key for this very component and engine.
///
/// # Errors
/// See [`Rejected`]; nothing of a rejected entry was interpreted, except after its seal held.
pub fn open(key: &Key, subject: &Subject, engine: &Engine, entry: &[u8]) -> Result<Component, Rejected> {
    let sealed = entry.strip_prefix(MAGIC).ok_or(Rejected::Form)?;
    let (tag, code) = sealed.split_first_chunk::<TAG>().ok_or(Rejected::Form)?;
    // Hashes compare in constant time.
    if subject.tag(key, code) != blake3::Hash::from_bytes(*tag) {
        return Err(Rejected::Seal);
    }
    load(engine, code).map_err(|_| Rejected::Engine)
}

/// INVARIANT: called by [`open`] only, after the seal held.
#[expect(
    unsafe_code,
    reason = "loading compiled code cannot be checked by the compiler; the seal is what vouches for it"
)]
fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` asks for bytes that `Component::serialize` made and nobody altered. The keyed hash over all of
    // them, with a key that only this installation has, holds for exactly these bytes in memory; only `seal` makes it,
    // of nothing but what `serialize` returned.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "(component (core module $m (func (export \"f\") (result i32) i32.const 1)))";

    fn engine(fuel: bool) -> Engine {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(fuel);
        Engine::new(&config).unwrap()
    }

    fn sealed() -> (Engine, Key, Subject, Vec<u8>) {
        let engine = engine(true);
        let component = Component::new(&engine, A).unwrap();
        let (key, subject) = (Key::derive(&[7; 32]), Subject::new([1; 32], &engine));
        let entry = seal(&key, &subject, &component).unwrap();
        (engine, key, subject, entry)
    }

    #[test]
    fn what_was_sealed_opens() {
        let (engine, key, subject, entry) = sealed();
        assert!(open(&key, &subject, &engine, &entry).is_ok());
    }

    #[test]
    fn one_changed_byte_anywhere_is_rejected() {
        let (engine, key, subject, entry) = sealed();
        let step = (entry.len() / 200).max(1);
        for at in (0..64).chain((64..entry.len()).step_by(step)) {
            let mut altered = entry.clone();
            altered[at] ^= 1;
            assert!(open(&key, &subject, &engine, &altered).is_err(), "byte {at}");
        }
        for length in [0, 12, 13, 44, 45, entry.len() - 1] {
            assert!(open(&key, &subject, &engine, &entry[..length]).is_err(), "cut to {length}");
        }
        assert_eq!(
            open(&key, &subject, &engine, &[&entry[..], b"x"].concat()).err(),
            Some(Rejected::Seal),
            "something appended"
        );
    }

    #[test]
    fn an_entry_belongs_to_its_component_key_and_engine() {
        let (engine, key, subject, entry) = sealed();
        let other = Subject::new([2; 32], &engine);
        assert_eq!(open(&key, &other, &engine, &entry).err(), Some(Rejected::Seal), "swapped");
        let foreign = Key::derive(&[8; 32]);
        assert_eq!(open(&foreign, &subject, &engine, &entry).err(), Some(Rejected::Seal), "foreign");
        let plain = self::engine(false);
        let changed = Subject::new([1; 32], &plain);
        assert_ne!(changed.name(), subject.name(), "another configuration has another name");
        assert_eq!(open(&key, &changed, &plain, &entry).err(), Some(Rejected::Seal), "configuration");
        assert_eq!(
            open(&key, &subject, &plain, &entry).err(),
            Some(Rejected::Engine),
            "checked again by the engine"
        );
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", Key::derive(&[7; 32])), "Key");
    }
}
