//! Key-value stores by label: a file each in the state directory, and what a sandboxed call sees instead.

mod file;
mod overlay;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use govrun_verdict::FsMode;

use self::file::File;
pub(crate) use self::overlay::Overlay;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most keys of one store.
pub const MAX_KEYS: u64 = 100_000;
/// Most keys of one page of a listing.
pub const MAX_PAGE: usize = 1_000;

/// A store that a tool is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOffer {
    /// Whether keys may be set and deleted.
    pub mode: FsMode,
    /// Most bytes of all keys and values.
    pub max_bytes: u64,
}

/// Offered stores by label.
pub type StoreOffers = BTreeMap<String, StoreOffer>;

/// Why a permitted use of a store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KvError {
    /// Too long, empty, or with control characters.
    #[error("a key has 1 to {MAX_KEY_BYTES} bytes and no control characters")]
    Key,
    /// Larger than [`MAX_VALUE_BYTES`].
    #[error("a value has at most {MAX_VALUE_BYTES} bytes")]
    Value,
    /// The store has no room for it.
    #[error("the store is full")]
    Full,
    /// An increment of something that is no number, or beyond the largest.
    #[error("the value is not a number that can be incremented")]
    Number,
    /// The file could not be used.
    #[error("the store cannot be used: {0}")]
    Failed(String),
}

/// Some keys, and the last of them when there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) keys: Vec<String>,
    pub(crate) next: Option<String>,
}

/// A key as stores take it.
pub(crate) fn check_key(key: &str) -> Result<(), KvError> {
    let sound = (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.chars().any(char::is_control);
    if sound { Ok(()) } else { Err(KvError::Key) }
}

/// What a call does with one store: the real one, or a layer over it.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    folder: PathBuf,
    offers: Arc<StoreOffers>,
    open: BTreeMap<String, Arc<Mutex<File>>>,
    layers: BTreeMap<String, Arc<Mutex<Overlay>>>,
}

/// One change or look at a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Use {
    Get(String),
    Set(String, Vec<u8>),
    Delete(String),
    Increment(String, u64),
    List { prefix: String, after: Option<String> },
    Skip { count: u64 },
}

/// What it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gave {
    Value(Option<Vec<u8>>),
    Done,
    Was(bool),
    Number(u64),
    Page(Page),
}

impl Stores {
    pub(crate) fn new(folder: PathBuf, offers: StoreOffers) -> Self {
        Self { folder, offers: Arc::new(offers), open: BTreeMap::new(), layers: BTreeMap::new() }
    }

    pub(crate) fn offer(&self, label: &str) -> Option<&StoreOffer> {
        self.offers.get(label)
    }

    /// Do it, on a thread that may block.
    ///
    /// # Errors
    /// See [`KvError`].
    pub(crate) async fn run(&mut self, label: &str, what: Use, sandboxed: bool) -> Result<Gave, KvError> {
        let Some(offer) = self.offers.get(label) else {
            return Err(KvError::Failed("there is no such store".to_owned()));
        };
        let max_bytes = offer.max_bytes;
        let file = self.file(label).await?;
        let layer = sandboxed.then(|| Arc::clone(self.layers.entry(label.to_owned()).or_default()));
        blocking(move || {
            let broken = |_| KvError::Failed("an earlier use of it crashed".to_owned());
            let mut file = file.lock().map_err(broken)?;
            match layer {
                Some(layer) => layer
                    .lock()
                    .map_err(|_| KvError::Failed("crashed".to_owned()))?
                    .run(&file, what, max_bytes),
                None => file.run(what, max_bytes),
            }
        })
        .await
    }

    async fn file(&mut self, label: &str) -> Result<Arc<Mutex<File>>, KvError> {
        if let Some(file) = self.open.get(label) {
            return Ok(Arc::clone(file));
        }
        // INVARIANT: labels are names of the policy, without separators.
        let (folder, name) = (self.folder.clone(), format!("{label}.db"));
        let file = blocking(move || File::open(&folder, &name)).await?;
        let file = Arc::new(Mutex::new(file));
        self.open.insert(label.to_owned(), Arc::clone(&file));
        Ok(file)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KvError> + Send + 'static,
) -> Result<T, KvError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "the thread of a key-value store ended early");
            Err(KvError::Failed("its thread ended early".to_owned()))
        }
    }
}

/// The number that a value stands for, in decimal digits, and the value of the sum.
fn incremented(value: Option<&[u8]>, delta: u64) -> Result<u64, KvError> {
    let before = match value {
        None => 0,
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| KvError::Number)?;
            text.parse::<u64>().map_err(|_| KvError::Number)?
        }
    };
    before.checked_add(delta).ok_or(KvError::Number)
}

#[cfg(test)]
mod tests;
