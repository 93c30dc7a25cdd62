//! The text a policy is compiled from, and its canonical archive.
//!
//! # The archive
//! ```text
//! govrun policy bundle 1\n
//! then for each file, in ascending order of path bytes:
//!     length of the path, u32 big-endian │ path, UTF-8
//!     length of the text, u32 big-endian │ text, UTF-8
//! ```
//! The policy's epoch is the BLAKE3 digest of these bytes, so equal epochs mean equal text of every file.

use std::fs;
use std::io::Read;
use std::path::Path;

use govrun_verdict::Digest;
use toml::de::DeTable;

use crate::error::{LoadError, LoadErrors};
use crate::lock::LOCK;
use crate::promotion::PROMOTIONS;

/// Name of the manifest in the policy folder.
pub const MANIFEST: &str = "govrun.toml";
/// Most bytes of one file of a policy.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Most files of a policy.
pub const MAX_FILES: usize = 10_000;
/// Most bytes of all files of a policy together.
pub const MAX_TOTAL_BYTES: usize = 128 << 20;
/// Deepest folder beneath a pack that is searched for rules.
pub const MAX_FOLDER_DEPTH: usize = 16;

const MAGIC: &[u8] = b"govrun policy bundle 1\n";

/// One file of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path relative to the policy folder, with `/`, without `.` or `..`.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// All files of a policy: the manifest, the TOML files of its packs, and the files its lists name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The files, in any order.
    pub files: Vec<SourceFile>,
}

impl Sources {
    /// Read the policy in folder `dir`: [`MANIFEST`], every `*.toml` beneath the listed packs (names that start with a
    /// dot are passed over), and the files of their lists. What is missing is left for [`crate::Policy::compile`] to
    /// report, at the line that asks for it.
    ///
    /// # Errors
    /// When a file cannot be read, is not UTF-8, or a bound is exceeded.
    pub fn read(dir: &Path) -> Result<Self, LoadErrors> {
        let (sources, errors) = Self::read_what_is_there(dir);
        LoadErrors::check(errors)?;
        Ok(sources)
    }

    /// The TOML files in a folder beside the manifest that is no pack, such as `tests`; none when it does not exist.
    ///
    /// # Errors
    /// As [`Sources::read`].
    pub fn read_beside(dir: &Path, folder: &str) -> Result<Vec<SourceFile>, LoadErrors> {
        let mut reading = Reading { dir, files: Vec::new(), bytes: 0, errors: Vec::new() };
        reading.folder(folder, 0);
        LoadErrors::check(reading.errors)?;
        Ok(reading.files)
    }

    pub(crate) fn read_what_is_there(dir: &Path) -> (Self, Vec<LoadError>) {
        let mut reading = Reading { dir, files: Vec::new(), bytes: 0, errors: Vec::new() };
        if dir.join(MANIFEST).is_file() {
            reading.file(MANIFEST);
        }
        for beside in [LOCK, PROMOTIONS] {
            if dir.join(beside).exists() {
                reading.file(beside);
            }
        }
        for pack in reading.packs() {
            reading.folder(&pack, 0);
        }
        for list in reading.list_files() {
            if dir.join(&list).is_file() {
                reading.file(&list);
            }
        }
        (Self { files: reading.files }, reading.errors)
    }

    /// The canonical archive, and its digest: the policy's epoch.
    #[must_use]
    pub fn bundle(&self) -> (Vec<u8>, Digest) {
        let mut files: Vec<&SourceFile> = self.files.iter().collect();
        files.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        let mut bytes = MAGIC.to_vec();
        for file in files {
            for part in [&file.path, &file.text] {
                // Compiling refuses files this long, so no archive of a policy is ever cut.
                let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        let digest = Digest::of(&bytes);
        (bytes, digest)
    }

    /// The sources in a canonical archive. Any other bytes than [`Sources::bundle`] makes are refused.
    ///
    /// # Errors
    /// When the bytes are not a canonical archive.
    pub fn from_bundle(bytes: &[u8]) -> Result<Self, LoadErrors> {
        let wrong = || LoadErrors::from(LoadError::of_file("policy bundle", "not a canonical policy bundle"));
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(wrong)?;
        let mut files: Vec<SourceFile> = Vec::new();
        while !rest.is_empty() {
            let path = take_text(&mut rest).ok_or_else(wrong)?;
            let text = take_text(&mut rest).ok_or_else(wrong)?;
            let ascending = files.last().is_none_or(|last| last.path.as_bytes() < path.as_bytes());
            if !ascending || files.len() >= MAX_FILES {
                return Err(wrong());
            }
            files.push(SourceFile { path, text });
        }
        Ok(Self { files })
    }
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

/// True for a relative path of plain names: no `.`, `..`, empty part, backslash or control character.
pub(crate) fn is_plain_path(path: &str) -> bool {
    path.len() <= 512
        && !path.contains(['\\', ':'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// The path of `file` as written in the policy file `beside`.
pub(crate) fn beside(beside: &str, file: &str) -> String {
    beside.rsplit_once('/').map_or_else(|| file.to_owned(), |(folder, _)| format!("{folder}/{file}"))
}

struct Reading<'a> {
    dir: &'a Path,
    files: Vec<SourceFile>,
    bytes: usize,
    errors: Vec<LoadError>,
}

impl Reading<'_> {
    fn fail(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(LoadError::of_file(path, message));
    }

    fn file(&mut self, path: &str) {
        if self.files.iter().any(|f| f.path == path) {
            return;
        }
        if self.files.len() >= MAX_FILES || self.bytes > MAX_TOTAL_BYTES {
            return self
                .fail(path, format!("a policy has at most {MAX_FILES} files and {MAX_TOTAL_BYTES} bytes"));
        }
        match read_bounded(&self.dir.join(path)) {
            Ok(text) => {
                self.bytes += text.len();
                self.files.push(SourceFile { path: path.to_owned(), text });
            }
            Err(why) => self.fail(path, why),
        }
    }

    fn folder(&mut self, path: &str, depth: usize) {
        if depth > MAX_FOLDER_DEPTH {
            return self.fail(path, format!("folders of a pack nest at most {MAX_FOLDER_DEPTH} deep"));
        }
        let entries = match fs::read_dir(self.dir.join(path)) {
            Ok(entries) => entries,
            // A missing pack is reported where the manifest lists it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => return self.fail(path, format!("cannot be listed: {e}")),
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry.map(|e| e.file_name().into_string()) {
                Ok(Ok(name)) => names.push(name),
                Ok(Err(_)) => self.fail(path, "holds a file name that is not UTF-8"),
                Err(e) => self.fail(path, format!("cannot be listed: {e}")),
            }
        }
        names.sort_unstable();
        for name in names.iter().filter(|n| !n.starts_with('.')) {
            let inner = format!("{path}/{name}");
            if self.dir.join(&inner).is_dir() {
                self.folder(&inner, depth + 1);
            } else if has_toml_extension(name) {
                self.file(&inner);
            }
        }
    }

    /// The packs that a readable manifest lists; mistakes in it are for the compiler to report.
    fn packs(&self) -> Vec<String> {
        let manifest = self.files.iter().find(|f| f.path == MANIFEST);
        let Some(Ok(table)) = manifest.map(|m| DeTable::parse(&m.text)) else { return Vec::new() };
        let table = table.get_ref();
        let layers = table.get("layer").and_then(|l| l.get_ref().as_table());
        let of_layers = layers.into_iter().flat_map(|l| l.values()).filter_map(|l| l.get_ref().get("packs"));
        let lists = table.get("packs").into_iter().chain(of_layers).filter_map(|p| p.get_ref().as_array());
        let names = lists.flat_map(|list| list.iter()).filter_map(|p| p.get_ref().as_str());
        names.filter(|p| is_plain_path(p)).map(str::to_owned).collect()
    }

    fn list_files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for source in &self.files {
            let Ok(table) = DeTable::parse(&source.text) else { continue };
            let Some(lists) = table.get_ref().get("list").and_then(|l| l.get_ref().as_table()) else {
                continue;
            };
            let named = lists.values().filter_map(|l| l.get_ref().get("file")?.get_ref().as_str());
            found.extend(named.filter(|f| is_plain_path(f)).map(|f| beside(&source.path, f)));
        }
        found
    }
}

pub(crate) fn has_toml_extension(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == "toml")
}

fn read_bounded(path: &Path) -> Result<String, String> {
    // Checked before opening: to open a FIFO would wait for its other end.
    let kind = fs::metadata(path).map_err(|e| format!("cannot be opened: {e}"))?;
    if !kind.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let file = fs::File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("is longer than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}
