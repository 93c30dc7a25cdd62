//! A witness: cosigns a checkpoint if, and only if, it continues everything it has cosigned of that log before
//! (<https://c2sp.org/tlog-witness>, `add-checkpoint`). No socket here: a request comes in as text, an answer goes out.
//!
//! A request is
//! ```text
//! old 20852014
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=      <- RFC 6962 consistency proof, at most 63 lines
//!                                                   <- one empty line
//! example.org/govrun/9f3c21aa04be7710               <- the checkpoint, signed by the log key
//! …
//! ```

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use govrun_verdict::LogId;

use crate::cosign::{Head, WitnessKey};
use crate::form::B64;
use crate::hash::{self, Hash};
use crate::keys::{Certificate, WitnessSecret};
use crate::note::{MAX_NOTE, Note};
use crate::pin::replace;
use crate::read::small_file;

/// Longest request, in bytes.
pub const MAX_REQUEST: usize = MAX_NOTE + 64 * 64;
/// Most lines of a consistency proof.
const MAX_HASHES: usize = 63;

/// What a witness answers. Each has its HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 200: signature lines.
    Cosigned(String),
    /// 400: it makes no sense.
    Malformed(&'static str),
    /// 403: no key of the log signed the checkpoint.
    NotSigned,
    /// 404: a log this witness does not look after.
    Unknown,
    /// 409: the witness has cosigned another size, this one.
    Conflict(u64),
    /// 422: the log does not continue what was cosigned: a fork.
    Inconsistent,
    /// 500: the new state could not be kept, so nothing was signed.
    Failed(String),
}

impl Reply {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Cosigned(_) => 200,
            Self::Malformed(_) => 400,
            Self::NotSigned => 403,
            Self::Unknown => 404,
            Self::Conflict(_) => 409,
            Self::Inconsistent => 422,
            Self::Failed(_) => 500,
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> String {
        match self {
            Self::Cosigned(lines) => lines.clone(),
            Self::Malformed(what) => format!("{what}\n"),
            Self::NotSigned => "not signed by the log key of this origin\n".to_owned(),
            Self::Unknown => "no log that is looked after here\n".to_owned(),
            Self::Conflict(size) => format!("{size}\n"),
            Self::Inconsistent => "the log does not continue what was cosigned before\n".to_owned(),
            Self::Failed(_) => "the state could not be kept; nothing was signed\n".to_owned(),
        }
    }

    /// The content type of the body.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "text/x.tlog.size",
            Self::Cosigned(_)
            | Self::Malformed(_)
            | Self::NotSigned
            | Self::Unknown
            | Self::Inconsistent
            | Self::Failed(_) => "text/plain; charset=utf-8",
        }
    }
}

/// One request for a cosignature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Size that the client believes was cosigned last; 0 for never.
    pub old: u64,
    /// Proof that the checkpoint continues it.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub checkpoint: String,
}

impl Request {
    /// Parse the body of `add-checkpoint`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(body: &str) -> Result<Self, &'static str> {
        if body.len() > MAX_REQUEST {
            return Err("longer than a request may be");
        }
        let (first, mut rest) = body.split_once('\n').ok_or("no line")?;
        let number = first.strip_prefix("old ").ok_or("no old size line")?;
        let old = number.parse().ok().filter(|n: &u64| n.to_string() == number);
        let old = old.ok_or("the old size is not a number in decimal")?;
        let mut proof = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or("no empty line before the checkpoint")?;
            rest = after;
            if line.is_empty() {
                break;
            }
            if proof.len() == MAX_HASHES {
                return Err("more than 63 proof lines");
            }
            proof.push(B64::parse(line).ok_or("a proof line is not the base64 of 32 bytes")?.0);
        }
        Ok(Self { old, proof, checkpoint: rest.to_owned() })
    }

    /// The body of `add-checkpoint`.
    #[must_use]
    pub fn text(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| format!("{}\n", B64(*hash))).collect();
        format!("old {}\n{proof}\n{}", self.old, self.checkpoint)
    }
}

/// Looks after all logs of the certificates it was given.
pub struct Witness {
    key: WitnessSecret,
    certificates: Vec<Certificate>,
    state: PathBuf,
    /// Held from looking at what was cosigned until the new state is on disk.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Witness {
    /// `state` is a directory of its own: one file for each log, with the checkpoint that was cosigned last.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(key: WitnessSecret, certificates: Vec<Certificate>, state: &Path) -> std::io::Result<Self> {
        crate::storage::private_dir(state)?;
        Ok(Self { key, certificates, state: state.to_owned(), turn: Mutex::new(()) })
    }

    /// Its public key.
    #[must_use]
    pub const fn key(&self) -> &WitnessKey {
        self.key.key()
    }

    /// Answer a request that came at `time`, in seconds since 1970.
    #[must_use]
    pub fn add_checkpoint(&self, body: &str, time: u64) -> Reply {
        match Request::parse(body) {
            Ok(request) => self.answer(&request, time),
            Err(what) => Reply::Malformed(what),
        }
    }

    fn answer(&self, request: &Request, time: u64) -> Reply {
        let Ok(note) = Note::parse(&request.checkpoint) else {
            return Reply::Malformed("the checkpoint is not a signed note");
        };
        let Ok(head) = Head::parse(note.text) else {
            return Reply::Malformed("the checkpoint has no origin, size and root");
        };
        let mut of_origin =
            self.certificates.iter().filter_map(|c| Some((head.log(c.origin())?, c))).peekable();
        if of_origin.peek().is_none() {
            return Reply::Unknown;
        }
        let Some((log, _)) = of_origin.find(|(_, c)| note.signed_by(c.log()).is_ok()) else {
            return Reply::NotSigned;
        };
        if request.old > head.size {
            return Reply::Malformed("the old size is larger than the checkpoint's");
        }
        let Ok(_turn) = self.turn.lock() else {
            return Reply::Failed("a request before this one failed".to_owned());
        };
        self.continues(request, log, &head, note.text, time)
    }

    fn continues(&self, request: &Request, log: LogId, head: &Head, text: &str, time: u64) -> Reply {
        let path = self.state.join(format!("{log}.checkpoint"));
        let before = match before(&path) {
            Ok(before) => before,
            Err(e) => return Reply::Failed(e),
        };
        let size = before.as_ref().map_or(0, |b| b.size);
        if request.old != size {
            return Reply::Conflict(size);
        }
        let consistent = match &before {
            None => request.proof.is_empty(),
            Some(before) if before.size == head.size => {
                if before.root != head.root {
                    return Reply::Conflict(size);
                }
                request.proof.is_empty()
            }
            Some(before) => hash::extends(before.size, head.size, &before.root, &head.root, &request.proof),
        };
        if !consistent {
            return Reply::Inconsistent;
        }
        // On disk before anything is signed: a witness that forgets what it signed is none.
        if let Err(e) = replace(&path, request.checkpoint.as_bytes()) {
            return Reply::Failed(format!("{}: {e}", path.display()));
        }
        Reply::Cosigned(self.key.cosign(text, time))
    }
}

fn before(path: &Path) -> Result<Option<Head>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    match small_file(path, MAX_NOTE) {
        Ok(text) => {
            let note = Note::parse(&text).map_err(|e| wrong(&e))?;
            Head::parse(note.text).map(Some).map_err(|e| wrong(&e))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(wrong(&e)),
    }
}
