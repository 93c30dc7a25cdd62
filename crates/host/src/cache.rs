//! Compiled components kept between runs, in the state directory.
//!
//! An entry is named by what was compiled and by what, and sealed with a key of the installation (`govrun-aot`). One that
//! is swapped, corrupt or foreign is never loaded: the component is compiled again, the entry replaced, and the caller
//! told. The cache is a convenience: when it cannot be written, everything still works.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use govrun_aot::{Key, Rejected, Subject, open, seal};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Largest entry that is read or written, in bytes. Larger components are compiled each time.
pub const MAX_ENTRY_BYTES: u64 = 512 << 20;
/// Most bytes of all entries; the oldest go first.
pub const MAX_CACHE_BYTES: u64 = 2 << 30;
/// Most entries.
pub const MAX_CACHE_ENTRIES: usize = 256;
const SECRET_BYTES: usize = 32;

/// Where compiled components are kept.
#[derive(Debug, Clone)]
pub struct CompileCache {
    dir: PathBuf,
    key: Key,
}

/// Where the compiled code of a component came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiled {
    /// The compiler: there was no cache, or nothing in it.
    Fresh,
    /// The cache.
    Cached,
    /// The compiler, because the entry in the cache was not acceptable. It was replaced.
    Again(Rejected),
}

impl CompileCache {
    /// The cache in `dir`, sealed with the secret in `key`. Both are made when they are not there, for the owner only.
    ///
    /// # Errors
    /// When either cannot be made or read, or when others may read the key.
    pub fn open(dir: &Path, key: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let secret = match read_secret(key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(key)?,
            other => other?,
        };
        Ok(Self { dir: dir.to_owned(), key: Key::derive(&secret) })
    }

    /// The compiled form of these bytes, out of the cache when it is there and its seal holds.
    ///
    /// # Errors
    /// When the bytes are no component.
    pub(crate) fn component(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<(Component, Compiled)> {
        let subject = Subject::new(*blake3::hash(bytes).as_bytes(), engine);
        let path = self.dir.join(format!("{}.aot", subject.name()));
        let compiled = match read_entry(&path) {
            Ok(Some(entry)) => match open(&self.key, &subject, engine, &entry) {
                Ok(component) => return Ok((component, Compiled::Cached)),
                Err(why) => {
                    tracing::warn!(entry = %path.display(), %why, "a compiled component was not accepted; it is compiled again");
                    Compiled::Again(why)
                }
            },
            Ok(None) => Compiled::Fresh,
            Err(error) => {
                tracing::warn!(%error, entry = %path.display(), "a compiled component could not be read");
                Compiled::Fresh
            }
        };
        let component = Component::from_binary(engine, bytes)?;
        if let Err(error) = self.keep(&path, &subject, &component) {
            tracing::warn!(%error, entry = %path.display(), "a compiled component could not be kept");
        }
        Ok((component, compiled))
    }

    /// Written beside and moved into place, so that nobody ever reads half an entry.
    fn keep(&self, path: &Path, subject: &Subject, component: &Component) -> io::Result<()> {
        let entry = seal(&self.key, subject, component).map_err(io::Error::other)?;
        if u64::try_from(entry.len()).map_or(true, |bytes| bytes > MAX_ENTRY_BYTES) {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(&entry)?;
        file.persist(path).map_err(|e| e.error)?;
        self.prune(path)
    }

    /// Remove the oldest entries beyond the bounds, never the one just written.
    fn prune(&self, newest: &Path) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if entry.path() != newest {
                entries.push((meta.modified()?, meta.len(), entry.path()));
            }
        }
        entries.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = newest.metadata()?.len();
        for (kept, (_, size, path)) in (1..).zip(entries) {
            bytes = bytes.saturating_add(size);
            if kept >= MAX_CACHE_ENTRIES || bytes > MAX_CACHE_BYTES {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// `None` when there is no entry. Whatever is not a plain file of acceptable size is an error.
fn read_entry(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(meta) if !meta.is_file() => return Err(io::Error::other("it is not a plain file")),
        Ok(meta) if meta.len() > MAX_ENTRY_BYTES => return Err(io::Error::other("it is too large")),
        Ok(_) => {}
    }
    let mut entry = Vec::new();
    File::open(path)?.take(MAX_ENTRY_BYTES).read_to_end(&mut entry)?;
    Ok(Some(entry))
}

fn read_secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} can be read by others; chmod 600 it", path.display())));
    }
    let mut secret = [0; SECRET_BYTES];
    file.read_exact(&mut secret)?;
    Ok(secret)
}

fn make_secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    // Linked when it is whole, so that a full disk leaves none, and a process beside this one never reads a part of it.
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let made = write_new(&part, &secret).and_then(|()| std::fs::hard_link(&part, path));
    let removed = std::fs::remove_file(&part);
    match made {
        Ok(()) => removed.map(|()| secret),
        // Another process was faster; its key is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_secret(path),
        Err(error) => Err(error),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(result: u32) -> Vec<u8> {
        wat::parse_str(format!(
            "(component (core module $m (func (export \"f\") (result i32) i32.const {result})))"
        ))
        .unwrap()
    }

    struct Fixture {
        root: tempfile::TempDir,
        engine: Engine,
        cache: CompileCache,
    }

    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let cache = CompileCache::open(&root.path().join("cache"), &root.path().join("cache.key")).unwrap();
        Fixture { root, engine: crate::engine().unwrap(), cache }
    }

    impl Fixture {
        fn compile(&self, bytes: &[u8]) -> Compiled {
            self.cache.component(&self.engine, bytes).unwrap().1
        }

        fn entries(&self) -> Vec<PathBuf> {
            let mut paths: Vec<PathBuf> = std::fs::read_dir(self.root.path().join("cache"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            paths.sort();
            paths
        }
    }

    #[test]
    fn the_second_time_comes_out_of_the_cache() {
        let f = fixture();
        assert_eq!(f.compile(&binary(1)), Compiled::Fresh);
        assert_eq!(f.compile(&binary(1)), Compiled::Cached);
        assert_eq!(f.compile(&binary(2)), Compiled::Fresh);
        let again =
            CompileCache::open(&f.root.path().join("cache"), &f.root.path().join("cache.key")).unwrap();
        assert_eq!(again.component(&f.engine, &binary(1)).unwrap().1, Compiled::Cached, "another process");
    }

    #[test]
    fn swapped_corrupt_and_foreign_entries_are_compiled_again_and_reported() {
        let f = fixture();
        f.compile(&binary(1));
        let first = f.entries();
        f.compile(&binary(2));
        let second = f.entries().into_iter().find(|path| !first.contains(path)).unwrap();
        std::fs::copy(&second, &first[0]).unwrap();
        assert_eq!(f.compile(&binary(1)), Compiled::Again(Rejected::Seal), "swapped");
        assert_eq!(f.compile(&binary(1)), Compiled::Cached, "and replaced");
        std::fs::write(&first[0], b"garbage").unwrap();
        assert_eq!(f.compile(&binary(1)), Compiled::Again(Rejected::Form), "corrupt");
        std::fs::remove_file(f.root.path().join("cache.key")).unwrap();
        let foreign =
            CompileCache::open(&f.root.path().join("cache"), &f.root.path().join("cache.key")).unwrap();
        let compiled = foreign.component(&f.engine, &binary(1)).unwrap().1;
        assert_eq!(compiled, Compiled::Again(Rejected::Seal), "of another installation");
    }

    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let f = fixture();
        f.compile(&binary(1));
        let entry = f.entries().remove(0);
        let elsewhere = f.root.path().join("elsewhere");
        std::fs::rename(&entry, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &entry).unwrap();
        assert_eq!(f.compile(&binary(1)), Compiled::Fresh);
        assert!(entry.symlink_metadata().unwrap().is_file(), "the link was replaced by an entry");
    }

    #[test]
    fn a_cache_that_cannot_be_written_costs_time_only() {
        let f = fixture();
        std::fs::remove_dir(f.root.path().join("cache")).unwrap();
        assert_eq!(f.compile(&binary(1)), Compiled::Fresh);
        assert_eq!(f.compile(&binary(1)), Compiled::Fresh);
    }

    #[test]
    fn the_key_is_for_its_owner_only() {
        let f = fixture();
        let key = f.root.path().join("cache.key");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(CompileCache::open(&f.root.path().join("cache"), &key).is_err());
    }

    #[test]
    fn the_oldest_entries_go_first() {
        let f = fixture();
        let dir = f.root.path().join("cache");
        for (number, second) in (0..MAX_CACHE_ENTRIES + 5).zip(0_u64..) {
            let file = File::create(dir.join(format!("{number}.aot"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second)).unwrap();
        }
        f.compile(&binary(1));
        let left = f.entries();
        assert_eq!(left.len(), MAX_CACHE_ENTRIES);
        assert!(!left.contains(&dir.join("5.aot")) && left.contains(&dir.join("6.aot")));
    }
}
