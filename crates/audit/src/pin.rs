//! The pin: what a verifier has seen of each log, kept in a file of its own, so that it notices a log that was cut off,
//! rewritten or deleted since. It only ever moves forward, and only to states that were on disk.
//!
//! ```json
//! {"schema":"govrun.audit-pin/v1","logs":[{"log":"9f3c21aa04be7710","size":42,"root":"CsUY…","note":"example.org/…"}]}
//! ```
//! `size` is a number of records, `root` their RFC 6962 root in base64, `note` the signed note it was read from: with the other
//! note that a fork brings, evidence that anybody can check.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use govrun_verdict::LogId;
use serde::{Deserialize, Serialize};

use crate::form::{B64, Int};
use crate::hash::Hash;
use crate::storage::{open_read, sync_dir};
use crate::verify::{Anchor, Outcome, Report, Source};

/// Largest pin that is read, in bytes: some 50,000 logs.
const MAX_PIN: u64 = 32 << 20;

const SCHEMA: &str = "govrun.audit-pin/v1";

/// A state of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Number of records.
    pub size: u64,
    /// Their root.
    pub root: Hash,
    /// The signed note.
    pub note: String,
}

/// What was seen of each log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pin {
    logs: BTreeMap<LogId, Pinned>,
}

/// A pin that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct PinError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinFile {
    schema: String,
    logs: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    log: LogId,
    size: Int,
    root: B64<32>,
    note: String,
}

impl Pin {
    /// Read a pin; `None` when there is none yet.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is not a pin: a damaged pin is never taken for an absent one.
    pub fn load(path: &Path) -> Result<Option<Self>, PinError> {
        let fail = |what: String| PinError { path: path.to_owned(), what };
        let file = match open_read(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e.to_string())),
        };
        let mut text = Vec::new();
        file.take(MAX_PIN + 1).read_to_end(&mut text).map_err(|e| fail(e.to_string()))?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_PIN {
            return Err(fail(format!("larger than {MAX_PIN} bytes")));
        }
        Self::parse(&text).map(Some).map_err(fail)
    }

    /// Parse the text of a pin.
    ///
    /// # Errors
    /// One sentence, when it is not one.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let file: PinFile = serde_json::from_slice(text).map_err(|e| format!("not a pin: {e}"))?;
        if file.schema != SCHEMA {
            return Err(format!("schema `{}` is not `{SCHEMA}`", file.schema));
        }
        let mut logs = BTreeMap::new();
        for Entry { log, size, root, note } in file.logs {
            if size.0 == 0 || logs.insert(log, Pinned { size: size.0, root: root.0, note }).is_some() {
                return Err(format!("log {log} is listed twice, or with no record"));
            }
        }
        Ok(Self { logs })
    }

    /// What the verifier holds against the logs.
    #[must_use]
    pub fn anchors(&self) -> Vec<Anchor> {
        let anchor = |(log, pinned): (&LogId, &Pinned)| Anchor {
            log: *log,
            size: pinned.size,
            root: pinned.root,
            note: pinned.note.clone(),
            source: Source::Pin,
        };
        self.logs.iter().map(anchor).collect()
    }

    /// The pin after a verification: further where the logs went on, never back. `None` when the verification does not allow
    /// it. That a log has not been seen before is no obstacle: somebody has to begin.
    #[must_use]
    pub fn moved_on(&self, report: &Report) -> Option<Self> {
        let only_unseen = report.findings.iter().all(|f| f.outcome == Outcome::Inconclusive)
            && report.logs.iter().all(|log| log.outcome() == Outcome::Verified);
        if !only_unseen || report.logs.is_empty() || report.level < crate::verify::Level::L2 {
            return None;
        }
        let mut logs = self.logs.clone();
        for log in &report.logs {
            if let Some(pinnable) = &log.pinnable
                && logs.get(&log.id).is_none_or(|known| known.size < pinnable.size)
            {
                logs.insert(log.id, pinnable.clone());
            }
        }
        Some(Self { logs })
    }

    /// Write the pin, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PinError> {
        let fail = |what: String| PinError { path: path.to_owned(), what };
        let entry = |(log, pinned): (&LogId, &Pinned)| Entry {
            log: *log,
            size: Int(pinned.size),
            root: B64(pinned.root),
            note: pinned.note.clone(),
        };
        let file = PinFile { schema: SCHEMA.to_owned(), logs: self.logs.iter().map(entry).collect() };
        let mut text = serde_json::to_vec_pretty(&file).map_err(|e| fail(e.to_string()))?;
        text.push(b'\n');
        replace(path, &text).map_err(|e| fail(e.to_string()))
    }
}

/// Put these bytes in the place of a file, whole or not at all, and bring them to the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(dir)
}
