//! The directories one call sees: those it is offered, with a layer over them when it is sandboxed.

use std::path::{Path, PathBuf};

use govrun_audit::{Absorbed, AbsorbedKind};
use govrun_verdict::{Builtin, FsMode, Profile};

use crate::overlay::{Change, ChangeKind, Changes, Layer};
use crate::scope::Scope;
use crate::wasi::{FsState, Lost, Root};

const MORE: &str = "the sandbox absorbed more changes than are listed and counted";
const UNLISTED: &str = "what the sandbox absorbed could not be listed";

/// Why a call has no directories to run with.
#[derive(Debug)]
pub(crate) struct Unavailable {
    pub(crate) reason: Builtin,
    pub(crate) detail: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Folders {
    // Host path, guest path, mode.
    seen: Vec<(PathBuf, String, FsMode)>,
    layer: Option<Layer>,
}

impl Folders {
    /// What a call with these bounds sees. Nothing is copied: a layer costs what is changed in it.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub(crate) fn prepare(scope: &Scope, offered: &[(PathBuf, String, FsMode)]) -> Result<Self, Unavailable> {
        match &scope.bounds().sandbox {
            Some(profile) => Self::sandboxed(profile, offered),
            None => Ok(Self { seen: offered.to_vec(), layer: None }),
        }
    }

    fn sandboxed(profile: &Profile, offered: &[(PathBuf, String, FsMode)]) -> Result<Self, Unavailable> {
        let mut seen = match &profile.preopens {
            Some(preopens) => preopens
                .iter()
                .map(|p| Ok((canonical(Path::new(&*p.host))?, p.guest.to_string(), p.mode)))
                .collect::<Result<Vec<_>, Unavailable>>()?,
            None => offered.to_vec(),
        };
        let Some(max_bytes) = profile.scratch_bytes else {
            seen.iter_mut().for_each(|(_, _, mode)| *mode = FsMode::ReadOnly);
            return Ok(Self { seen, layer: None });
        };
        let below: Vec<&Path> = seen.iter().map(|(host, _, _)| host.as_path()).collect();
        let layer = Layer::over(&below, max_bytes.get())
            .map_err(|error| unavailable(&format!("the sandbox has no place: {error}")))?;
        Ok(Self { seen, layer: Some(layer) })
    }

    /// What the guest's files are governed with.
    pub(crate) fn state(self) -> FsState {
        let roots = self.seen.into_iter().map(|(host, guest, mode)| Root { host, guest, mode });
        FsState::new(roots.collect(), self.layer)
    }
}

/// Add what the layer absorbed, throw the layer away, and say what the list does not show.
///
/// INVARIANT: the guest has ended.
pub(crate) async fn absorbed_into(
    landed: Result<Option<(Layer, Vec<String>)>, Lost>,
    absorbed: &mut Vec<Absorbed>,
) -> Option<&'static str> {
    let (layer, guests) = match landed {
        Ok(Some(landed)) => landed,
        Ok(None) => return None,
        Err(Lost) => return Some(UNLISTED),
    };
    // The layer is read and removed where a slow disk stalls no other call.
    match tokio::task::spawn_blocking(move || layer.changes()).await {
        Ok(Changes { list, total }) => {
            let listed = list.len();
            absorbed.extend(list.into_iter().map(|change| effect(change, &guests)));
            (total > listed).then_some(MORE)
        }
        Err(_) => Some(UNLISTED),
    }
}

fn effect(change: Change, guests: &[String]) -> Absorbed {
    let kind = match change.kind {
        ChangeKind::Removed => AbsorbedKind::FileDeleted,
        ChangeKind::Moved => AbsorbedKind::FileRenamed,
        ChangeKind::Made => AbsorbedKind::DirCreated,
        ChangeKind::Written => AbsorbedKind::FileWritten,
    };
    let guest = guests.get(change.tree).map_or("", |guest| guest.trim_end_matches('/'));
    Absorbed { kind, subject: format!("{guest}/{}", change.path), size: change.bytes }
}

fn canonical(path: &Path) -> Result<PathBuf, Unavailable> {
    path.canonicalize().map_err(|e| unavailable(&format!("`{}`: {e}", path.display())))
}

fn unavailable(detail: &str) -> Unavailable {
    Unavailable { reason: Builtin::FsUnavailable, detail: detail.to_owned() }
}
