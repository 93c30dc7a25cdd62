//! `wasi:filesystem`: every operation is decided on the path the guest named, and again on the object it really led to.

use std::collections::HashMap;
use std::fs::File as HostFile;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govrun_verdict::{Builtin, FsMode, FsOp, Operation, Refusal, Verdict};
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DirectoryEntry, ErrorCode, HostDescriptor as Inner, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{FsError, FsResult};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::layered::{LayerSpot, Spot};
use super::paths::{self, PathError, Relative};
use super::stream::Meter;
use crate::grant::{Grant, Outcome};
use crate::overlay::{Content, Id, Layer};
use crate::scope::Scope;

/// Most descriptors and directory listings that one call may hold open.
const MAX_OPEN: usize = 256;
/// The note of a decision that was taken again on the real path.
const LED_ELSEWHERE: &str = "the path led elsewhere; decided again on the real path";
/// The note of a sandboxed change that has no layer to land in.
const NEEDS_LAYER: &str = "the sandbox of this change has no scratch; nothing was changed";
/// The note of a permitted change of something that the call had changed in its sandbox before.
pub(super) const IN_LAYER: &str =
    "an earlier sandboxed change hides the real one; this landed in the sandbox too";

/// A directory of the host with the guest path it is seen under.
#[derive(Debug)]
pub(crate) struct Root {
    /// Canonical host path: what was opened is compared with it.
    pub(crate) host: PathBuf,
    /// Absolute guest path.
    pub(crate) guest: String,
    /// Whether anything beneath it may be changed.
    pub(crate) mode: FsMode,
}

#[derive(Clone)]
pub(super) struct Open {
    /// Where the guest got it; for a directory checked again at each use, since directories move.
    pub(super) path: Arc<str>,
    pub(super) root: usize,
    /// `None` for a directory, which is decided at each use.
    pub(super) meter: Option<Arc<Meter>>,
    /// A directory of the layer.
    pub(super) node: Option<Id>,
    /// A file of the layer.
    pub(super) content: Option<Arc<Content>>,
}

impl Open {
    /// Something real, without a meter.
    pub(super) fn at(path: impl Into<Arc<str>>, root: usize) -> Self {
        Self { path: path.into(), root, meter: None, node: None, content: None }
    }
}

pub(super) struct Listing {
    pub(super) grant: Option<Grant>,
    pub(super) rows: u64,
    /// What the layer lists; `None` when the real directory is listed.
    pub(super) entries: Option<std::vec::IntoIter<FsResult<DirectoryEntry>>>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            grant.finish(&Outcome { rows: self.rows, ..Outcome::ok() });
        }
    }
}

/// What one call has open, and where it may look.
pub(crate) struct FsState {
    pub(super) roots: Vec<Root>,
    pub(super) open: HashMap<u32, Open>,
    pub(super) listings: HashMap<u32, Listing>,
    /// Where sandboxed changes land, once there is one.
    pub(super) layer: Option<Layer>,
    /// True when the whole call is sandboxed, so that everything it does passes the layer.
    pub(super) whole: bool,
}

impl FsState {
    /// With a `layer` over exactly these roots, everything happens in it.
    pub(crate) fn new(roots: Vec<Root>, layer: Option<Layer>) -> Self {
        let whole = layer.is_some();
        Self { roots, open: HashMap::new(), listings: HashMap::new(), layer, whole }
    }

    /// The layer with the guest paths of its trees, once the guest has ended; `Err` when it was lost with a cancelled
    /// copy.
    pub(crate) fn landed(&mut self) -> Result<Option<(Layer, Vec<String>)>, Lost> {
        let guests = self.roots.iter().map(|root| root.guest.clone()).collect();
        match self.layer.take() {
            Some(layer) => Ok(Some((layer, guests))),
            None if self.whole => Err(Lost),
            None => Ok(None),
        }
    }

    /// The layer, made now over all the roots where a single change is sandboxed.
    fn layer_of(&mut self, bytes: u64) -> io::Result<()> {
        if self.layer.is_none() {
            let below: Vec<&Path> = self.roots.iter().map(|root| root.host.as_path()).collect();
            self.layer = Some(Layer::over(&below, bytes)?);
        }
        Ok(())
    }

    /// Hand the same preopens, in the same order, to the context that the views delegate to.
    ///
    /// # Errors
    /// When a directory cannot be opened.
    pub(crate) fn preopen_into(&self, builder: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for root in &self.roots {
            // What passes the layer has no business changing the real directory.
            let perms = match root.mode {
                FsMode::ReadWrite if !self.whole => FsPerms::ReadWrite,
                FsMode::ReadOnly | FsMode::ReadWrite => FsPerms::ReadOnly,
            };
            builder.preopened_dir(&root.host, &root.guest, perms)?;
        }
        Ok(())
    }

    pub(super) fn room(&self) -> FsResult<()> {
        if self.open.len().saturating_add(self.listings.len()) < MAX_OPEN {
            Ok(())
        } else {
            Err(ErrorCode::InsufficientMemory.into())
        }
    }
}

/// What the layer absorbed cannot be told.
#[derive(Debug)]
pub(crate) struct Lost;

/// Marker for the linker.
pub(super) struct GovernedFs;

impl HasData for GovernedFs {
    type Data<'a> = FsView<'a>;
}

/// The governed view of `wasi:filesystem`.
pub(crate) struct FsView<'a> {
    pub(super) inner: WasiFilesystemCtxView<'a>,
    pub(super) fs: &'a mut FsState,
    pub(super) scope: &'a Arc<Scope>,
}

pub(super) type Fd = Resource<Descriptor>;
pub(super) type Grants = Vec<Grant>;

/// A verified parent directory and the name in it. The parent is a descriptor of ours, released by [`FsView::leave`].
pub(super) struct Place {
    pub(super) rep: u32,
    pub(super) dir: Dir,
    pub(super) real: String,
    pub(super) leaf: Option<String>,
    pub(super) root: usize,
}

impl Place {
    pub(super) fn fd(&self) -> Fd {
        Resource::new_borrow(self.rep)
    }

    pub(super) fn path(&self) -> String {
        self.leaf.as_deref().map_or_else(|| self.real.clone(), |leaf| paths::child(&self.real, leaf))
    }

    pub(super) fn name(&self) -> String {
        self.leaf.clone().unwrap_or_else(|| ".".to_owned())
    }
}

pub(super) fn again(fd: &Fd) -> Fd {
    Resource::new_borrow(fd.rep())
}

fn operation(op: FsOp, path: &str) -> Operation {
    Operation::Fs { op, path: path.to_owned() }
}

/// What a guest that only knows WASI is told; never would-block, which makes guests spin.
fn refused(refusal: &Refusal) -> FsError {
    match refusal.verdict {
        Verdict::Throttle | Verdict::Escalate => ErrorCode::Busy.into(),
        Verdict::Allow | Verdict::Sandbox | Verdict::Block => ErrorCode::Access.into(),
    }
}

pub(super) fn os(error: impl Into<io::Error>) -> FsError {
    ErrorCode::from(error.into()).into()
}

pub(super) fn finish<T>(grants: Grants, result: FsResult<T>) -> FsResult<T> {
    finish_noted(grants, result, None)
}

pub(super) fn finish_noted<T>(
    grants: Grants,
    result: FsResult<T>,
    note: Option<&'static str>,
) -> FsResult<T> {
    let outcome = match &result {
        Ok(_) => Outcome { note, ..Outcome::ok() },
        Err(error) => Outcome::failed(error.downcast_ref().map_or("failed", |code| code.name())),
    };
    for grant in grants {
        grant.finish(&outcome);
    }
    result
}

impl FsView<'_> {
    pub(super) fn refuse<T>(&self, op: FsOp, path: &str, reason: Builtin) -> FsResult<T> {
        Err(refused(&self.scope.refuse(operation(op, path), reason)))
    }

    /// INVARIANT: nothing real changes under a grant that says sandbox: after this there is a layer for its changes.
    pub(super) async fn admit(&mut self, ops: &[FsOp], path: &str) -> FsResult<Grants> {
        let mut grants = Vec::with_capacity(ops.len());
        for op in ops {
            let admitted = self.scope.admit(operation(*op, path)).await;
            let grant = admitted.map_err(|r| refused(&r))?;
            grants.push(grant);
        }
        if !self.lands(&grants, ops) {
            return Ok(grants);
        }
        let bytes = grants
            .iter()
            .filter(|grant| grant.sandboxed())
            .find_map(|grant| grant.obligations().sandbox.as_ref().and_then(|profile| profile.scratch_bytes));
        let Some(bytes) = bytes else {
            let outcome = Outcome { note: Some(NEEDS_LAYER), ..Outcome::failed("access") };
            grants.into_iter().for_each(|grant| grant.finish(&outcome));
            return Err(ErrorCode::Access.into());
        };
        match self.fs.layer_of(bytes.get()) {
            Ok(()) => Ok(grants),
            Err(error) => finish(grants, Err(os(error))),
        }
    }

    /// Whether these operations must land in a layer although the call around them is real.
    pub(super) fn lands(&self, grants: &[Grant], ops: &[FsOp]) -> bool {
        let changes = ops.iter().any(|op| matches!(op, FsOp::Write | FsOp::Delete));
        changes && !self.scope.sandboxed() && grants.iter().any(Grant::sandboxed)
    }

    /// Decide again when the object is not where its path said.
    pub(super) async fn admit_real(
        &mut self,
        grants: Grants,
        ops: &[FsOp],
        logical: &str,
        real: &str,
    ) -> FsResult<Grants> {
        if logical == real {
            return Ok(grants);
        }
        for grant in grants {
            grant.finish(&Outcome { note: Some(LED_ELSEWHERE), ..Outcome::ok() });
        }
        self.admit(ops, real).await
    }

    pub(super) fn opened(&self, fd: &Fd) -> FsResult<Open> {
        self.fs.open.get(&fd.rep()).cloned().ok_or_else(|| ErrorCode::BadDescriptor.into())
    }

    pub(super) fn file(&self, fd: &Fd) -> FsResult<Arc<Meter>> {
        self.opened(fd)?.meter.ok_or_else(|| ErrorCode::BadDescriptor.into())
    }

    pub(super) fn writable(&self, fd: &Fd) -> FsResult<Arc<Meter>> {
        let meter = self.file(fd)?;
        if !meter.writable() {
            return Err(ErrorCode::NotPermitted.into());
        }
        meter.may_write().map_err(|refusal| self.withdrawn(&refusal))?;
        Ok(meter)
    }

    pub(super) fn readable(&self, fd: &Fd) -> FsResult<Arc<Meter>> {
        let meter = self.file(fd)?;
        if !meter.readable() {
            return Err(ErrorCode::NotPermitted.into());
        }
        meter.may_read().map_err(|refusal| self.withdrawn(&refusal))?;
        Ok(meter)
    }

    fn withdrawn(&self, refusal: &Refusal) -> FsError {
        self.scope.keep(refusal);
        refused(refusal)
    }

    pub(super) fn host_file(&self, fd: &Fd) -> FsResult<Arc<HostFile>> {
        match self.inner.table.get(fd)? {
            Descriptor::File(f) => Ok(Arc::clone(&f.file)),
            Descriptor::Dir(d) => Ok(Arc::clone(&d.dir)),
        }
    }

    /// Where `fd` really is; a refusal when that is not beneath the preopen it came from.
    pub(super) fn real(&self, fd: &Fd, root: usize, op: FsOp, logical: &str) -> FsResult<String> {
        let file = self.host_file(fd)?;
        let at = self.fs.roots.get(root).ok_or(ErrorCode::BadDescriptor)?;
        match paths::real(&file, &at.host, &at.guest).map_err(os)? {
            Some(path) => Ok(path),
            None => self.refuse(op, logical, Builtin::FsEscape),
        }
    }

    pub(super) fn parse(&self, fd: &Fd, op: FsOp, path: &str) -> FsResult<(Relative, String, usize)> {
        let base = self.opened(fd)?;
        if base.meter.is_some() {
            return Err(ErrorCode::NotDirectory.into());
        }
        let reason = match Relative::parse(path) {
            Ok(relative) => {
                let logical = relative.beneath(&base.path);
                return Ok((relative, logical, base.root));
            }
            Err(PathError::Invalid) => Builtin::FsPathInvalid,
            Err(PathError::Escape) => Builtin::FsEscape,
        };
        self.refuse(op, &paths::refused(&base.path, path), reason)
    }

    /// Open and verify the directory that holds the last segment. `/.` makes anything but a directory fail to open,
    /// where a FIFO alone would block.
    pub(super) async fn enter(
        &mut self,
        fd: &Fd,
        path: &Relative,
        root: usize,
        op: FsOp,
        logical: &str,
    ) -> FsResult<Place> {
        let inside = path.parent().map_or_else(|| ".".to_owned(), |parent| format!("{parent}/."));
        let parent = Inner::open_at(
            &mut self.inner,
            again(fd),
            PathFlags::SYMLINK_FOLLOW,
            inside,
            OpenFlags::DIRECTORY,
            DescriptorFlags::READ,
        )
        .await?;
        let rep = parent.rep();
        let real = self.real(&parent, root, op, logical);
        let dir = match self.inner.table.get(&parent)? {
            Descriptor::Dir(dir) => Ok(dir.clone()),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory),
        };
        match real.and_then(|real| Ok((real, dir?))) {
            Ok((real, dir)) => Ok(Place { rep, dir, real, leaf: path.leaf().map(str::to_owned), root }),
            Err(error) => {
                self.inner.table.delete(parent)?;
                Err(error)
            }
        }
    }

    pub(super) fn leave(&mut self, place: &Place) -> FsResult<()> {
        self.inner.table.delete(Resource::<Descriptor>::new_own(place.rep))?;
        Ok(())
    }

    /// Decide on the named path, find where it leads, and decide again when that is elsewhere. In the layer the last
    /// segment is followed where `follow` says so; a real link is left to the caller.
    pub(super) async fn at(
        &mut self,
        fd: &Fd,
        path: &str,
        op: FsOp,
        follow: bool,
    ) -> FsResult<(Grants, Spot, Relative)> {
        let (relative, logical, root) = self.parse(fd, op, path)?;
        let grants = self.admit(&[op], &logical).await?;
        match self.layered(fd, &relative, follow || relative.names_directory()) {
            Ok(None) => {}
            Ok(Some(spot)) => {
                let grants = self.admit_real(grants, &[op], &logical, &spot.path).await?;
                return Ok((grants, Spot::Layer(spot), relative));
            }
            Err(error) => return finish(grants, Err(error)),
        }
        let place = match self.enter(fd, &relative, root, op, &logical).await {
            Ok(place) => place,
            Err(error) => return finish(grants, Err(error)),
        };
        let grants = match self.admit_real(grants, &[op], &logical, &place.path()).await {
            Ok(grants) => grants,
            Err(error) => {
                self.leave(&place)?;
                return Err(error);
            }
        };
        if self.lands(&grants, &[op]) {
            return match self.landing(Spot::Real(place), false) {
                Ok(spot) => Ok((grants, Spot::Layer(spot), relative)),
                Err(error) => finish(grants, Err(error)),
            };
        }
        Ok((grants, Spot::Real(place), relative))
    }

    /// The same spot in the layer, which exists.
    pub(super) fn landing(&mut self, spot: Spot, follow: bool) -> FsResult<LayerSpot> {
        match spot {
            Spot::Layer(spot) => Ok(spot),
            Spot::Real(place) => {
                self.leave(&place)?;
                self.in_layer(place.root, &place.path(), follow)
            }
        }
    }

    pub(super) fn done<T>(&mut self, grants: Grants, place: &Place, result: FsResult<T>) -> FsResult<T> {
        self.leave(place)?;
        finish(grants, result)
    }
}
