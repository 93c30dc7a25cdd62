//! What a permitting decision binds the effect to. Obligations only ever shrink: [`Obligations::meet`] takes the
//! tighter of every limit and the intersection of every capability.

use std::num::NonZeroU64;
use std::sync::Arc;

/// May a call leave the machine?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Egress {
    /// Never, whatever other rules say.
    None,
    /// As the rules of each request decide.
    ByRule,
}

/// Access mode of a preopened directory, the tighter one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FsMode {
    /// Read-only.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// One directory of the host made visible to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preopen {
    /// Absolute host path.
    pub host: Arc<str>,
    /// Absolute guest path.
    pub guest: Arc<str>,
    /// Access mode.
    pub mode: FsMode,
}

/// Limits on one database statement and its result. `None` means the host's built-in ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct DbLimits {
    /// Most rows of one result.
    pub rows: Option<NonZeroU64>,
    /// Most bytes of one result.
    pub bytes: Option<NonZeroU64>,
    /// Longest run of one statement, in milliseconds.
    pub time_ms: Option<NonZeroU64>,
    /// Most SQLite virtual-machine steps of one statement.
    pub vm_steps: Option<NonZeroU64>,
}

/// Columns of databases whose values a guest never sees: `table.column`, or `*.column` of every table. The more, the
/// tighter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Mask(Option<Arc<[Box<str>]>>);

impl Mask {
    /// These columns, compared without regard to case.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<Box<str>> =
            columns.into_iter().map(|c| c.to_ascii_lowercase().into_boxed_str()).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() { Self(None) } else { Self(Some(all.into())) }
    }

    /// The columns, lower case and sorted.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|all| all.iter()).map(|column| &**column)
    }

    /// True when nothing is masked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// True when this column of this table is masked.
    #[must_use]
    pub fn hides(&self, table: &str, column: &str) -> bool {
        self.columns().any(|entry| {
            entry.rsplit_once('.').is_some_and(|(of, masked)| {
                masked.eq_ignore_ascii_case(column) && (of == "*" || of.eq_ignore_ascii_case(table))
            })
        })
    }

    /// What either masks.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (None, _) => other.clone(),
            (_, None) => self.clone(),
            (Some(a), Some(b)) if a == b => self.clone(),
            (Some(_), Some(_)) => Self::new(self.columns().chain(other.columns())),
        }
    }
}

/// A `[sandbox]` profile after loading, or the meet of several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Names of the profiles this is the meet of, sorted, joined by `+`.
    pub name: Arc<str>,
    /// Preopens a sandboxed call sees; `None`: those that the tool is offered. Reads fall on the host's files, writes
    /// (where `scratch_bytes` permits any) on a private copy that is thrown away.
    pub preopens: Option<Vec<Preopen>>,
    /// Most bytes of the private copy; `None`: no copy, so the preopens are read-only.
    pub scratch_bytes: Option<NonZeroU64>,
    /// True when databases are copies that are thrown away (always, for a sandboxed call).
    pub db_copy: bool,
}

/// The scope of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Obligations {
    /// Most WebAssembly fuel of the whole call.
    pub fuel: Option<NonZeroU64>,
    /// Most bytes of linear memory.
    pub memory_bytes: Option<NonZeroU64>,
    /// Longest wall time of the call in milliseconds; waiting for an approval does not count.
    pub deadline_ms: Option<NonZeroU64>,
    /// Whether anything may leave the machine.
    pub egress: Egress,
    /// Limits of database statements.
    pub db: DbLimits,
    /// Columns of databases that are masked.
    pub mask: Mask,
    /// Present when effects must land in a sandbox.
    pub sandbox: Option<Arc<Profile>>,
}

impl Default for Obligations {
    fn default() -> Self {
        Self {
            fuel: None,
            memory_bytes: None,
            deadline_ms: None,
            egress: Egress::ByRule,
            db: DbLimits::default(),
            mask: Mask::default(),
            sandbox: None,
        }
    }
}

fn tighter(a: Option<NonZeroU64>, b: Option<NonZeroU64>) -> Option<NonZeroU64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (limit, None) | (None, limit) => limit,
    }
}

impl DbLimits {
    /// The tighter of both, limit by limit.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        Self {
            rows: tighter(self.rows, other.rows),
            bytes: tighter(self.bytes, other.bytes),
            time_ms: tighter(self.time_ms, other.time_ms),
            vm_steps: tighter(self.vm_steps, other.vm_steps),
        }
    }
}

impl Profile {
    /// The intersection of both profiles.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let mut names: Vec<&str> = self.name.split('+').chain(other.name.split('+')).collect();
        names.sort_unstable();
        names.dedup();
        Self {
            name: names.join("+").into(),
            preopens: match (&self.preopens, &other.preopens) {
                (Some(a), Some(b)) => Some(common(a, b)),
                (Some(list), None) | (None, Some(list)) => Some(list.clone()),
                (None, None) => None,
            },
            // No scratch on either side means no scratch: `None` is the tighter here.
            scratch_bytes: self.scratch_bytes.zip(other.scratch_bytes).map(|(a, b)| a.min(b)),
            db_copy: self.db_copy || other.db_copy,
        }
    }
}

fn common(a: &[Preopen], b: &[Preopen]) -> Vec<Preopen> {
    let mut both: Vec<Preopen> = a
        .iter()
        .filter_map(|x| {
            let y = b.iter().find(|y| y.host == x.host && y.guest == x.guest)?;
            Some(Preopen { mode: x.mode.min(y.mode), ..x.clone() })
        })
        .collect();
    both.sort_unstable_by(|x, y| (&x.guest, &x.host, x.mode).cmp(&(&y.guest, &y.host, y.mode)));
    both.dedup();
    both
}

impl Obligations {
    /// The scope that satisfies both: commutative, associative, idempotent, and never wider than either.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            fuel: tighter(self.fuel, other.fuel),
            memory_bytes: tighter(self.memory_bytes, other.memory_bytes),
            deadline_ms: tighter(self.deadline_ms, other.deadline_ms),
            egress: self.egress.min(other.egress),
            db: self.db.meet(other.db),
            mask: self.mask.meet(&other.mask),
            sandbox: match (&self.sandbox, &other.sandbox) {
                (Some(a), Some(b)) if a == b => Some(Arc::clone(a)),
                (Some(a), Some(b)) => Some(Arc::new(a.meet(b))),
                (Some(p), None) | (None, Some(p)) => Some(Arc::clone(p)),
                (None, None) => None,
            },
        }
    }
}
