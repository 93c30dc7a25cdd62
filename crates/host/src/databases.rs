//! The databases one call is offered, the sessions it holds with them, and the copies it gets when it is sandboxed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use govrun_verdict::FsMode;
use tempfile::TempDir;

use crate::effect::sqlite::{Session, SqlError, copy_database};
use crate::postgres::{self, PostgresOffer};
use crate::sql::Dialect;

/// Largest database that is copied for a sandboxed call, in bytes.
const MAX_COPY_BYTES: u64 = 256 << 20;

/// A database that a tool is offered.
#[derive(Debug, Clone)]
pub enum DatabaseOffer {
    /// A file, by its absolute path, and whether statements may write.
    Sqlite(PathBuf, FsMode),
    /// A database on a server.
    Postgres(Arc<PostgresOffer>),
}

impl From<(PathBuf, FsMode)> for DatabaseOffer {
    fn from((path, mode): (PathBuf, FsMode)) -> Self {
        Self::Sqlite(path, mode)
    }
}

impl DatabaseOffer {
    /// Whose SQL it speaks.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(..) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }
}

/// Offered databases by label.
pub type DatabaseOffers = BTreeMap<String, DatabaseOffer>;

/// Which session of a call: one for reading and one for writing, with the real database or with the copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) label: String,
    pub(crate) sandboxed: bool,
    pub(crate) write: bool,
}

/// See the module. Copies are made on first use and thrown away with the call.
#[derive(Debug)]
pub(crate) struct Databases {
    offered: DatabaseOffers,
    sessions: BTreeMap<SessionKey, Session>,
    // By label, and whether it is the replica's.
    remote: BTreeMap<(String, bool), postgres::Session>,
    copies: BTreeMap<String, PathBuf>,
    folder: Option<TempDir>,
    // Cloned once for each result that is being read.
    places: Arc<()>,
}

impl Databases {
    pub(crate) fn new(offered: DatabaseOffers) -> Self {
        Self {
            offered,
            sessions: BTreeMap::new(),
            remote: BTreeMap::new(),
            copies: BTreeMap::new(),
            folder: None,
            places: Arc::default(),
        }
    }

    /// What is counted by its clones: results that are being read.
    pub(crate) const fn places(&self) -> &Arc<()> {
        &self.places
    }

    pub(crate) fn offer(&self, label: &str) -> Option<&DatabaseOffer> {
        self.offered.get(label)
    }

    /// A session for one statement: the one that was given back by [`Self::keep`], or a new one.
    pub(crate) async fn session(&mut self, key: &SessionKey) -> Result<Session, SqlError> {
        if let Some(session) = self.sessions.remove(key) {
            return Ok(session);
        }
        self.new_session(key).await
    }

    /// A session of its own, such as a transaction needs.
    pub(crate) async fn new_session(&mut self, key: &SessionKey) -> Result<Session, SqlError> {
        let Some(DatabaseOffer::Sqlite(path, mode)) = self.offered.get(&key.label).cloned() else {
            return Err(SqlError::Failed("no such database".into()));
        };
        if key.write && mode == FsMode::ReadOnly {
            return Err(SqlError::ReadOnly);
        }
        let path = if key.sandboxed { self.copy(&key.label, path).await? } else { path };
        let write = key.write;
        blocking(move || Session::open(&path, write)).await
    }

    /// Keep the session for the next statement.
    pub(crate) fn keep(&mut self, key: SessionKey, session: Session) {
        self.sessions.insert(key, session);
    }

    /// The connection to a server that was kept after the last statement.
    pub(crate) fn take_remote(&mut self, label: &str, replica: bool) -> Option<postgres::Session> {
        self.remote.remove(&(label.to_owned(), replica))
    }

    /// Keep the connection for the next statement, if it can be used again.
    pub(crate) fn keep_remote(&mut self, label: &str, replica: bool, session: postgres::Session) {
        if session.is_sound() {
            self.remote.insert((label.to_owned(), replica), session);
        }
    }

    /// The call's own copy of a database file.
    async fn copy(&mut self, label: &str, path: PathBuf) -> Result<PathBuf, SqlError> {
        if let Some(copy) = self.copies.get(label) {
            return Ok(copy.clone());
        }
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => tempfile::tempdir().map_err(|e| SqlError::Failed(format!("cannot make a copy: {e}")))?,
        };
        // Labels come from policy, but a number cannot have a path in it.
        let copy = folder.path().join(format!("{}.db", self.copies.len()));
        self.folder = Some(folder);
        let target = copy.clone();
        blocking(move || copy_database(&path, &target, MAX_COPY_BYTES)).await?;
        self.copies.insert(label.to_owned(), copy.clone());
        Ok(copy)
    }
}

/// Run what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "a statement's thread ended early");
            Err(SqlError::Failed("the engine ended early".to_owned()))
        }
    }
}
