//! The trust file: the one thing a verifier must get from a place it trusts.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use govrun_verdict::LogId;
use serde::{Deserialize, Serialize};

use crate::cosign::WitnessKey;
use crate::form::MAX_INT;
use crate::note::VerifierKey;

/// Largest trust file that is read, in bytes.
const MAX_TRUST: u64 = 1 << 20;

/// Which root and which approvers to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Origin of the logs.
    pub origin: String,
    /// The root key that signs genesis certificates.
    pub root: VerifierKey,
    /// Who may answer escalations.
    pub approvers: Vec<Approver>,
    /// Who cosigns checkpoints.
    pub witnesses: Vec<WitnessKey>,
    /// How many of them must have cosigned a checkpoint; `None`: more than half.
    pub quorum: Option<u64>,
    /// Logs whose keys were stolen, and from where on they prove nothing.
    pub revoked: Vec<Revoked>,
}

/// A log whose keys cannot be believed from some record on. By size and not by time: a thief sets the clock as he likes, but
/// he cannot shorten what a checkpoint that others hold has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// The log.
    pub log: LogId,
    /// Number of records that still count. Seals over more are not believed.
    pub at: u64,
}

/// One approver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// Name; also the name of the key.
    pub name: String,
    /// Its public key.
    pub key: VerifierKey,
    /// Roles, such as `treasury`.
    pub roles: Vec<String>,
}

/// A trust file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct TrustError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    schema: u32,
    origin: String,
    root: String,
    #[serde(default, rename = "approver", skip_serializing_if = "Vec::is_empty")]
    approvers: Vec<ApproverEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<RevokedEntry>,
    #[serde(default, skip_serializing_if = "WitnessEntries::is_empty")]
    witnesses: WitnessEntries,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedEntry {
    log: LogId,
    at: u64,
}

/// `[witnesses]`: their keys, and how many are enough.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessEntries {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quorum: Option<u64>,
    #[serde(default)]
    keys: Vec<String>,
}

impl WitnessEntries {
    const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn parse(&self) -> Result<Vec<WitnessKey>, String> {
        let mut witnesses: Vec<WitnessKey> = Vec::new();
        for key in &self.keys {
            let key = WitnessKey::parse(key).map_err(|e| format!("{e} of a witness (algorithm 4)"))?;
            if witnesses.iter().any(|w| w.name() == key.name() || w.public() == key.public()) {
                return Err(format!("witness `{}` or its key is listed twice", key.name()));
            }
            witnesses.push(key);
        }
        let all = u64::try_from(witnesses.len()).unwrap_or(u64::MAX);
        match self.quorum {
            Some(quorum) if quorum == 0 || quorum > all => {
                Err(format!("a quorum of {quorum} out of {all} witnesses"))
            }
            Some(_) | None => Ok(witnesses),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproverEntry {
    name: String,
    key: String,
    roles: Vec<String>,
}

impl Trust {
    /// Trust in this root, and in nobody else.
    #[must_use]
    pub fn new(origin: &str, root: VerifierKey) -> Self {
        Self {
            origin: origin.to_owned(),
            root,
            approvers: Vec::new(),
            witnesses: Vec::new(),
            quorum: None,
            revoked: Vec::new(),
        }
    }

    /// Read a trust file.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, a malformed verifier key, or two approvers of one name or key.
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        let fail = |what: String| TrustError { path: path.to_owned(), what };
        let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_TRUST {
            return Err(fail(format!("larger than {MAX_TRUST} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Self::parse(&text).map_err(fail)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: TrustFile = toml::from_str(text).map_err(|e| e.to_string())?;
        if file.schema != 1 {
            return Err(format!("schema {} is not known; this program reads schema 1", file.schema));
        }
        let root = VerifierKey::parse(&file.root).map_err(|e| e.to_string())?;
        if root.name() != format!("{}/root", file.origin) {
            return Err(format!("the root key is named {}, not {}/root", root.name(), file.origin));
        }
        let mut approvers: Vec<Approver> = Vec::new();
        for ApproverEntry { name, key, roles } in file.approvers {
            let key = VerifierKey::parse(&key).map_err(|e| e.to_string())?;
            if key.name() != name {
                return Err(format!("the key of approver `{name}` is named `{}`", key.name()));
            }
            if approvers.iter().any(|a| a.name == name || a.key.public() == key.public()) {
                return Err(format!("approver `{name}` or its key is listed twice"));
            }
            approvers.push(Approver { name, key, roles });
        }
        let witnesses = file.witnesses.parse()?;
        let mut revoked: Vec<Revoked> = Vec::new();
        for RevokedEntry { log, at } in file.revoked {
            if at > MAX_INT || revoked.iter().any(|r| r.log == log) {
                return Err(format!("the revocation of log {log} is listed twice, or its size is too large"));
            }
            revoked.push(Revoked { log, at });
        }
        let quorum = file.witnesses.quorum;
        Ok(Self { origin: file.origin, root, approvers, witnesses, quorum, revoked })
    }

    /// Believe no seal of this log over more than `at` records. A revocation that is there already can only become stricter.
    pub fn revoke(&mut self, log: LogId, at: u64) {
        match self.revoked.iter_mut().find(|r| r.log == log) {
            Some(there) => there.at = there.at.min(at),
            None => self.revoked.push(Revoked { log, at }),
        }
    }

    /// How many records of this log count at most; `None` when it was not revoked.
    #[must_use]
    pub fn revoked_at(&self, log: LogId) -> Option<u64> {
        self.revoked.iter().find(|r| r.log == log).map(|r| r.at)
    }

    /// Write the trust file anew, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrustError> {
        let fail = |what: String| TrustError { path: path.to_owned(), what };
        let file = TrustFile {
            schema: 1,
            origin: self.origin.clone(),
            root: self.root.to_string(),
            approvers: self.approvers.iter().map(ApproverEntry::from).collect(),
            witnesses: WitnessEntries {
                quorum: self.quorum,
                keys: self.witnesses.iter().map(ToString::to_string).collect(),
            },
            revoked: self.revoked.iter().map(|r| RevokedEntry { log: r.log, at: r.at }).collect(),
        };
        let text = toml::to_string(&file).map_err(|e| fail(e.to_string()))?;
        let temporary = path.with_extension("toml.new");
        let write = || {
            let mut out = std::fs::File::create(&temporary)?;
            out.write_all(
                b"# Who a log of this origin is verified against. Public, but get it from a trusted place.\n",
            )?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(|e| fail(e.to_string()))
    }

    /// How many witnesses must have cosigned a checkpoint.
    #[must_use]
    pub fn quorum(&self) -> u64 {
        let majority = u64::try_from(self.witnesses.len()).unwrap_or(u64::MAX) / 2 + 1;
        self.quorum.unwrap_or(majority)
    }

    /// The approver with this key.
    #[must_use]
    pub fn approver(&self, key: &VerifierKey) -> Option<&Approver> {
        self.approvers.iter().find(|a| a.key == *key)
    }
}

impl From<&Approver> for ApproverEntry {
    fn from(a: &Approver) -> Self {
        Self { name: a.name.clone(), key: a.key.to_string(), roles: a.roles.clone() }
    }
}
