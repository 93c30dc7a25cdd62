//! What can go wrong with the state file. Every one of these is a refusal to the caller: the store never guesses.

use std::io;
use std::path::{Path, PathBuf};

/// The store could not be opened or used. Callers fail closed (`STORE-UNAVAILABLE`).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory could not be created, read or written.
    #[error("cannot use the state at `{path}`: {source}; check that the directory exists and is writable")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others than the owner could read or change budgets and approvals.
    #[error("`{path}` has mode {mode:03o}, so other users could {risk}; run `chmod {fix} '{path}'`")]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they could do.
        risk: &'static str,
        /// The mode to set.
        fix: &'static str,
    },
    /// Another process held the state file, or other threads of this process the connection, for too long.
    #[error("`{path}` stayed busy for too long; see which process holds it, then repeat the call")]
    Busy {
        /// The state file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "`{path}` is damaged ({detail}); restore it from a backup, or stop every govrun process and move it \
         away together with its -wal and -shm files, which resets all budgets and drops all approvals"
    )]
    Corrupt {
        /// The state file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The main file is gone but its journal is not: somebody removed part of the state.
    #[error(
        "`{path}` is missing although its -wal file is there; restore it from a backup, or remove the -wal and \
         -shm files too, which resets all budgets and drops all approvals"
    )]
    Incomplete {
        /// The state file that should be there.
        path: PathBuf,
    },
    /// The file is a database, but not one that govrun made.
    #[error("`{path}` is not a govrun state file; choose another state directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer govrun.
    #[error("`{path}` has schema {found}, and this govrun knows schema {known}; run the newer govrun")]
    Newer {
        /// The state file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version this build reads and writes.
        known: i64,
    },
    /// The database engine failed in another way, such as a full disk or a read-only directory.
    #[error("cannot use `{path}`: {source}; check disk space and permissions of its directory")]
    Engine {
        /// The state file.
        path: PathBuf,
        /// What the engine said.
        source: rusqlite::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(getrandom::Error),
    /// The caller went over a bound of the interface.
    #[error("{what} is over its limit of {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

impl StoreError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), detail: detail.into() }
    }

    /// Sort an engine error into what the caller can do about it.
    pub(crate) fn engine(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match source.sqlite_error_code() {
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
                Self::Busy { path: path.to_owned() }
            }
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::corrupt(path, source.to_string()),
            Some(_) => Self::Engine { path: path.to_owned(), source },
            None => Self::undecodable(path, source),
        }
    }

    /// Errors that do not come from the engine come from rows that do not have the form they were written in.
    fn undecodable(path: &Path, source: rusqlite::Error) -> Self {
        let decoding = matches!(
            source,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..)
        );
        if decoding {
            Self::corrupt(path, source.to_string())
        } else {
            Self::Engine { path: path.to_owned(), source }
        }
    }
}

/// A result with [`StoreError`].
pub(crate) type Result<T, E = StoreError> = std::result::Result<T, E>;
