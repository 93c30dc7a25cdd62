//! The directories one call sees: those it is offered, or a private copy of them when it is sandboxed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_audit::{Absorbed, AbsorbedKind};
use govrun_verdict::{Builtin, FsMode, Preopen, Profile};

use crate::effect::scratch::{Change, ChangeKind, Changes, Scratch, ScratchError};
use crate::scope::Scope;
use crate::wasi::{Budget, FsState, Root};

const MORE: &str = "the sandbox absorbed more changes than are listed and counted";
const UNLISTED: &str = "what the sandbox absorbed could not be listed";

/// Why a call has no directories to run with.
#[derive(Debug)]
pub(crate) struct Unavailable {
    pub(crate) reason: Builtin,
    pub(crate) detail: String,
}

/// See the module. The private copy is removed from the disk with it.
#[derive(Debug)]
pub(crate) struct Folders {
    // Host path, guest path, mode.
    seen: Vec<(PathBuf, String, FsMode)>,
    scratch: Option<Scratch>,
}

impl Folders {
    /// Copies what a sandboxed call may write to, away from the threads that run guests.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub(crate) async fn prepare(
        scope: &Arc<Scope>,
        offered: &[(PathBuf, String, FsMode)],
    ) -> Result<Self, Unavailable> {
        let Some(profile) = scope.bounds().sandbox.clone() else {
            return Ok(Self { seen: offered.to_vec(), scratch: None });
        };
        let offered = offered.to_vec();
        let made = tokio::task::spawn_blocking(move || Self::sandboxed(&profile, offered)).await;
        made.unwrap_or_else(|_| Err(unavailable("the private copy was not finished")))
    }

    fn sandboxed(profile: &Profile, offered: Vec<(PathBuf, String, FsMode)>) -> Result<Self, Unavailable> {
        let dirs = match &profile.preopens {
            Some(preopens) => preopens
                .iter()
                .map(|p| Ok((canonical(Path::new(&*p.host))?, p.guest.to_string())))
                .collect::<Result<_, _>>()?,
            None => offered.into_iter().map(|(host, guest, _)| (host, guest)).collect::<Vec<_>>(),
        };
        let Some(max_bytes) = profile.scratch_bytes else {
            let seen = dirs.into_iter().map(|(host, guest)| (host, guest, FsMode::ReadOnly)).collect();
            return Ok(Self { seen, scratch: None });
        };
        let sources: Vec<Preopen> = dirs.iter().map(source).collect::<Result<_, _>>()?;
        let scratch = Scratch::of(&sources, max_bytes.get()).map_err(|error| match error {
            ScratchError::TooLarge { .. } => {
                Unavailable { reason: Builtin::SandboxScratchFull, detail: error.to_string() }
            }
            ScratchError::Io(_) => unavailable(&error.to_string()),
        })?;
        let seen = scratch
            .views()
            .into_iter()
            .map(|(host, guest)| Ok((canonical(&host)?, guest, FsMode::ReadWrite)))
            .collect::<Result<_, _>>()?;
        Ok(Self { seen, scratch: Some(scratch) })
    }

    /// What the guest's files are governed with.
    pub(crate) fn state(&self, scope: &Arc<Scope>) -> FsState {
        let roots = self.seen.iter().map(|(host, guest, mode)| Root {
            host: host.clone(),
            guest: guest.clone(),
            mode: *mode,
        });
        let budget = self.scratch.as_ref().map(|s| Budget::new(s.remaining_bytes(), Arc::clone(scope)));
        FsState::new(roots.collect(), budget)
    }

    /// Add what the private copy absorbed, throw the copy away, and say what the list does not show.
    ///
    /// INVARIANT: the guest has ended.
    pub(crate) async fn absorbed_into(self, absorbed: &mut Vec<Absorbed>) -> Option<&'static str> {
        let scratch = self.scratch?;
        // The copy is read and removed where a slow disk stalls no other call.
        match tokio::task::spawn_blocking(move || scratch.changes()).await {
            Ok(Ok(Changes { list, total })) => {
                let listed = list.len();
                absorbed.extend(list.into_iter().map(effect));
                (total > u64::try_from(listed).unwrap_or(u64::MAX)).then_some(MORE)
            }
            Ok(Err(_)) | Err(_) => Some(UNLISTED),
        }
    }
}

fn effect(change: Change) -> Absorbed {
    let kind = match (change.kind, change.directory) {
        (ChangeKind::Deleted, _) => AbsorbedKind::FileDeleted,
        (ChangeKind::Created | ChangeKind::Modified, true) => AbsorbedKind::DirCreated,
        (ChangeKind::Created | ChangeKind::Modified, false) => AbsorbedKind::FileWritten,
    };
    Absorbed { kind, subject: change.guest_path, size: change.bytes }
}

fn source((host, guest): &(PathBuf, String)) -> Result<Preopen, Unavailable> {
    let host = host.to_str().ok_or_else(|| unavailable("a directory's path is not text"))?;
    Ok(Preopen { host: host.into(), guest: guest.as_str().into(), mode: FsMode::ReadWrite })
}

fn canonical(path: &Path) -> Result<PathBuf, Unavailable> {
    path.canonicalize().map_err(|e| unavailable(&format!("`{}`: {e}", path.display())))
}

fn unavailable(detail: &str) -> Unavailable {
    Unavailable { reason: Builtin::FsUnavailable, detail: detail.to_owned() }
}
