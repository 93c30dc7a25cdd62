//! What goes into a statement and comes out of it, the same for every engine.

/// Longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = super::MAX_BYTES;
/// Largest single value or row record, in bytes. One step of SQLite handles whole values, and no step can be
/// interrupted, so this also bounds how long a statement can outrun its deadline.
pub const MAX_VALUE_BYTES: u32 = 1024 * 1024;
/// Most parameters of one statement.
pub const MAX_PARAMETERS: u16 = 256;
/// Most columns of one result.
pub const MAX_COLUMNS: u16 = 256;

/// A parameter or a column of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

impl SqlValue {
    /// What the value counts for: text and blobs by length, numbers as 8, NULL as 1.
    #[must_use]
    pub const fn weight(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }
}

/// Bounds of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlLimits {
    /// Most rows of the result.
    pub rows: u64,
    /// Most bytes of the result: column names, text and blobs by length, numbers as 8, NULL as 1.
    pub bytes: u64,
    /// Longest run, in milliseconds.
    pub time_ms: u64,
    /// Most steps of SQLite's virtual machine, checked at least every 1,000 steps.
    pub vm_steps: u64,
}

/// Which limit a statement met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlLimit {
    /// [`SqlLimits::rows`].
    Rows,
    /// [`SqlLimits::bytes`], [`MAX_VALUE_BYTES`], or the size of a copy.
    Bytes,
    /// [`SqlLimits::time_ms`], or the deadline of a copy.
    Time,
    /// [`SqlLimits::vm_steps`].
    VmSteps,
    /// [`MAX_STATEMENT_BYTES`] or [`MAX_PARAMETERS`].
    Statement,
}

impl SqlLimit {
    /// A short name for records and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Time => "time",
            Self::VmSteps => "vm-steps",
            Self::Statement => "statement",
        }
    }
}

/// Why a statement had no result. It had no effect either: a writing statement is rolled back as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// A write through a query, or to a database that is not writable.
    #[error("the database is read-only here")]
    ReadOnly,
    /// Not exactly one statement of a permitted kind on permitted objects.
    #[error("the statement is refused: {0}")]
    StatementRefused(String),
    /// It uses a masked column in a way that could tell its values.
    #[error("the statement uses a column that is masked: {0}")]
    Masked(String),
    /// A limit was met.
    #[error("the statement met its limit of {}", which.name())]
    Limit {
        /// Which one.
        which: SqlLimit,
    },
    /// The engine failed: no such table, constraint, lock, unreadable file, ….
    #[error("the statement failed: {0}")]
    Failed(String),
}

/// What a statement gave back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SqlOutcome {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows in the order of the engine.
    pub rows: Vec<Vec<SqlValue>>,
    /// Rows inserted, updated or deleted, those of SQLite's triggers included.
    pub changed: u64,
    /// Bytes of the result, counted as [`SqlLimits::bytes`] says.
    pub bytes: u64,
    /// Steps of SQLite's virtual machine.
    pub steps: u64,
}

/// Counts a result against its limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    limits: SqlLimits,
    rows: u64,
    bytes: u64,
}

impl Meter {
    pub(crate) const fn new(limits: &SqlLimits) -> Self {
        Self { limits: *limits, rows: 0, bytes: 0 }
    }

    /// One more row may come.
    pub(crate) const fn row(&mut self) -> Result<(), SqlError> {
        if self.rows >= self.limits.rows {
            return Err(SqlError::Limit { which: SqlLimit::Rows });
        }
        self.rows = self.rows.saturating_add(1);
        Ok(())
    }

    /// So many more bytes.
    pub(crate) fn charge(&mut self, more: usize) -> Result<(), SqlError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        if self.bytes > self.limits.bytes {
            return Err(SqlError::Limit { which: SqlLimit::Bytes });
        }
        Ok(())
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The statement is short enough and has few enough parameters.
pub(crate) const fn check_size(statement: &str, params: &[SqlValue]) -> Result<(), SqlError> {
    // Widening; `From` is not const.
    if statement.len() > MAX_STATEMENT_BYTES || params.len() > 256 {
        return Err(SqlError::Limit { which: SqlLimit::Statement });
    }
    Ok(())
}
