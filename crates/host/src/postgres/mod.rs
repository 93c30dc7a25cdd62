//! SQL statements on a PostgreSQL server.
//!
//! The server enforces what was decided: a role of its own, the extended protocol (one statement at a time), a read-only
//! transaction whose first statement is the host's, so that it cannot be made writable. The host adds a deadline that
//! cancels the statement from outside, a bound on the bytes that are read at all, and a list of functions that have no
//! effect: a server runs functions with effects in read-only transactions too.

mod admit;
mod session;
mod value;
mod wire;

use govrun_verdict::FsMode;

use crate::hidden::Hidden;

pub(crate) use self::admit::{Isolation, admit, isolate};
pub(crate) use self::session::{Ask, Ending, Session};

/// Where a server is and as whom the host connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Lower-case name or canonical address; the connection to it is a `net.connect`.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// The dedicated role: what it may do is what statements can do at most.
    pub user: String,
}

/// A database on a PostgreSQL server, as a tool is offered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOffer {
    /// The server.
    pub server: Server,
    /// Password of the role, for server and replica.
    pub password: Hidden,
    /// Whether statements may write.
    pub mode: FsMode,
    /// A replica or clone that sandboxed statements read from instead.
    pub replica: Option<Server>,
    /// Functions that statements may call beside those without effect, lower case.
    pub functions: Vec<String>,
    /// Tables whose use a rolled-back transaction isolates, lower case: sandboxed statements may touch these on the server
    /// itself. Sequences and locks are not rolled back, so this is reported as not isolated.
    pub rollback: Vec<String>,
}

#[cfg(test)]
mod tests;
