//! The governed file operations where they happen in the layer of a sandbox instead of in the real directories.
//!
//! A sandboxed call does everything in its layer. In a call that is real, one operation that policy sandboxes makes a
//! layer; from then on the call sees through it: what was changed in the layer is what later operations of this call
//! find, also permitted ones, and a permitted change of such an object lands in the layer too, since the real one is not
//! what the guest has seen. Everything else stays real. A file that was opened before keeps its content.

use std::fs::File as HostFile;
use std::sync::Arc;

use govrun_verdict::{Builtin, FsMode, FsOp};
use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{Descriptor, Dir, File};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode,
    HostDescriptor as Inner, MetadataHashValue, NewTimestamp, OpenFlags,
};
use wasmtime_wasi::{FsPerms, OpenMode};

use super::fs::{Fd, FsView, Grants, IN_LAYER, Open, Place, finish, finish_noted, os};
use super::open::Wanted;
use super::paths::{self, Relative};
use crate::grant::Grant;
use crate::overlay::{self, Content, Found, Id, Layer, Stat};

/// Largest file that is copied on the thread that runs the guest; copying a larger one stalls no other call.
const MAX_COPY_INLINE_BYTES: u64 = 1 << 20;

/// Where a path leads: in the real directories or in the layer.
pub(super) enum Spot {
    Real(Place),
    Layer(LayerSpot),
}

/// A place in the layer with its guest path.
pub(super) struct LayerSpot {
    pub(super) found: Found,
    /// Absolute guest path, links resolved.
    pub(super) path: String,
    /// The root it is under now.
    pub(super) root: usize,
}

impl FsView<'_> {
    fn layer(&mut self) -> FsResult<&mut Layer> {
        self.fs.layer.as_mut().ok_or_else(|| ErrorCode::Io.into())
    }

    /// Where `path` leads in the layer; `None` when the operation is about real files.
    pub(super) fn layered(&mut self, fd: &Fd, path: &Relative, follow: bool) -> FsResult<Option<LayerSpot>> {
        if self.fs.layer.is_none() {
            return Ok(None);
        }
        let base = self.opened(fd)?;
        if let Some(node) = base.node {
            let found = self.layer()?.resolve(node, path.parts(), follow).map_err(os)?;
            return self.spot(found).map(Some);
        }
        let file = self.host_file(fd)?;
        let at = self.fs.roots.get(base.root).ok_or(ErrorCode::BadDescriptor)?;
        // A directory that is nowhere beneath its root is refused where it is entered.
        let Some(real) = paths::real(&file, &at.host, &at.guest).map_err(os)? else { return Ok(None) };
        let above = paths::below(&paths::absolute(&at.guest), &real);
        let layer = self.layer()?;
        let root = layer.root(base.root).map_err(os)?;
        let start = layer.resolve(root, &above, false).map_err(os)?;
        let dir = start.node.ok_or(ErrorCode::NoEntry)?;
        let found = layer.resolve(dir, path.parts(), follow).map_err(os)?;
        if start.shadowed || found.shadowed { self.spot(found).map(Some) } else { Ok(None) }
    }

    /// The place of a guest path beneath a root.
    pub(super) fn in_layer(&mut self, root: usize, path: &str, follow: bool) -> FsResult<LayerSpot> {
        let guest = &self.fs.roots.get(root).ok_or(ErrorCode::BadDescriptor)?.guest;
        let parts = paths::below(&paths::absolute(guest), path);
        let layer = self.layer()?;
        let start = layer.root(root).map_err(os)?;
        let found = layer.resolve(start, &parts, follow).map_err(os)?;
        self.spot(found)
    }

    fn spot(&self, found: Found) -> FsResult<LayerSpot> {
        let (root, dir) = self.guest_path(found.dir)?;
        let path = found.name.as_deref().map_or_else(|| dir.clone(), |name| paths::child(&dir, name));
        Ok(LayerSpot { found, path, root })
    }

    /// Where a directory of the layer is now.
    fn guest_path(&self, dir: Id) -> FsResult<(usize, String)> {
        let layer = self.fs.layer.as_ref().ok_or(ErrorCode::Io)?;
        let (root, inside) = layer.place(dir).ok_or(ErrorCode::NoEntry)?;
        let guest = paths::absolute(&self.fs.roots.get(root).ok_or(ErrorCode::BadDescriptor)?.guest);
        Ok((
            root,
            inside.split('/').filter(|n| !n.is_empty()).fold(guest, |at, name| paths::child(&at, name)),
        ))
    }

    /// A root that is offered for reading is for reading in the sandbox too.
    fn changeable(&self, spot: &LayerSpot) -> FsResult<()> {
        match self.fs.roots.get(spot.root).map(|root| root.mode) {
            Some(FsMode::ReadWrite) => Ok(()),
            Some(FsMode::ReadOnly) | None => Err(ErrorCode::NotPermitted.into()),
        }
    }

    /// Change the name that `spot` is about.
    pub(super) fn change<T>(
        &mut self,
        spot: &LayerSpot,
        make: impl FnOnce(&mut Layer, Id, &str) -> overlay::Result<T>,
    ) -> FsResult<T> {
        self.changeable(spot)?;
        let name = spot.found.name.as_deref().ok_or(ErrorCode::Busy)?;
        make(self.layer()?, spot.found.dir, name).map_err(os)
    }

    /// End a change in the layer; where policy would have let it be real, the record says that it was not.
    pub(super) fn landed<T>(&self, grants: Grants, result: FsResult<T>) -> FsResult<T> {
        let note = self.note(&grants);
        finish_noted(grants, result, note)
    }

    fn note(&self, grants: &[Grant]) -> Option<&'static str> {
        (!self.scope.sandboxed() && !grants.iter().any(Grant::sandboxed)).then_some(IN_LAYER)
    }

    /// INVARIANT: as with real files, nothing is truncated or handed out before it was looked at and decided on.
    pub(super) async fn open_layer(
        &mut self,
        spot: &LayerSpot,
        wanted: Wanted,
        grants: Grants,
    ) -> FsResult<Fd> {
        let note = if wanted.writes() { self.note(&grants) } else { None };
        let result = match self.openable(spot, wanted) {
            // A directory of the layer is a number; what stands for it in the table is empty and read-only.
            Ok(Some(_)) => self.empty_directory(wanted.mode()).map(|fd| (fd, None)),
            Ok(None) => self.open_content(spot, wanted).await.map(|(fd, content)| (fd, Some(content))),
            Err(error) => Err(error),
        };
        match result {
            Ok((opened, content)) => {
                let directory = content.is_none();
                let node = if directory { spot.found.node } else { None };
                let open = Open { content, node, ..Open::at(spot.path.as_str(), spot.root) };
                self.keep(&opened, open, grants, directory, note);
                Ok(opened)
            }
            Err(error) => finish(grants, Err(error)),
        }
    }

    /// The directory to open, or `None` for a file that is there or may be made.
    fn openable(&mut self, spot: &LayerSpot, wanted: Wanted) -> FsResult<Option<Id>> {
        let op = wanted.named_op();
        let Some(id) = spot.found.node else {
            return match (wanted.open.contains(OpenFlags::CREATE), wanted.directory) {
                (false, _) => Err(ErrorCode::NoEntry.into()),
                (true, true) => Err(ErrorCode::Invalid.into()),
                (true, false) => self.changeable(spot).map(|()| None),
            };
        };
        if wanted.open.contains(OpenFlags::EXCLUSIVE) {
            return Err(ErrorCode::Exist.into());
        }
        match self.layer()?.kind(id).map_err(os)? {
            FileType::Directory => {
                let changes = OpenFlags::CREATE | OpenFlags::TRUNCATE;
                if wanted.open.intersects(changes) || wanted.flags.contains(DescriptorFlags::WRITE) {
                    return Err(ErrorCode::IsDirectory.into());
                }
                Ok(Some(id))
            }
            FileType::RegularFile if wanted.directory => Err(ErrorCode::NotDirectory.into()),
            FileType::RegularFile => {
                if self.layer()?.links_below(id).map_err(os)? > 1 {
                    return self.refuse(op, &spot.path, Builtin::FsLink);
                }
                if wanted.writes() { self.changeable(spot).map(|()| None) } else { Ok(None) }
            }
            FileType::Symlink => Err(ErrorCode::Loop.into()),
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => self.refuse(op, &spot.path, Builtin::FsSpecial),
        }
    }

    async fn open_content(&mut self, spot: &LayerSpot, wanted: Wanted) -> FsResult<(Fd, Arc<Content>)> {
        let id = match spot.found.node {
            Some(id) => id,
            None => self.change(spot, Layer::create_file)?,
        };
        let truncate = wanted.open.contains(OpenFlags::TRUNCATE);
        let content = match self.content(id, wanted.writes(), truncate).await? {
            Ok(content) => content,
            Err(error) => {
                if error == Errno::NOSPC {
                    // The refusal is for the record and the caller; the guest sees the full disk.
                    let _ = self.refuse::<()>(wanted.named_op(), &spot.path, Builtin::SandboxScratchFull);
                }
                return Err(os(error));
            }
        };
        let perms = if wanted.writes() { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let handle = content.file().try_clone().map_err(os)?;
        let file = File::new(handle, perms, wanted.mode(), true);
        Ok((self.inner.table.push(Descriptor::File(file))?, content))
    }

    /// A large copy is made on another thread. Should the call be cancelled meanwhile, the layer is lost with it, and the
    /// outcome says that what it absorbed is not known.
    async fn content(
        &mut self,
        id: Id,
        write: bool,
        truncate: bool,
    ) -> FsResult<overlay::Result<Arc<Content>>> {
        let layer = self.layer()?;
        let large = write && !truncate && layer.stat(id).is_ok_and(|s| s.size > MAX_COPY_INLINE_BYTES);
        if !large {
            return Ok(layer.open(id, write, truncate));
        }
        let mut layer = self.fs.layer.take().ok_or(ErrorCode::Io)?;
        let copied = tokio::task::spawn_blocking(move || {
            let content = layer.open(id, write, truncate);
            (layer, content)
        });
        let (layer, content) = copied.await.map_err(|_| ErrorCode::Io)?;
        self.fs.layer = Some(layer);
        Ok(content)
    }

    pub(super) fn empty_directory(&mut self, mode: OpenMode) -> FsResult<Fd> {
        let dir = HostFile::open(self.layer()?.empty_directory()).map_err(os)?;
        let dir = Dir::new(dir, FsPerms::ReadOnly, mode, true);
        Ok(self.inner.table.push(Descriptor::Dir(dir))?)
    }

    /// The decision for looking at a directory of the layer, on the path where it is now.
    pub(super) async fn on_layer_directory(&mut self, dir: Id, op: FsOp) -> FsResult<Grants> {
        let (_, path) = self.guest_path(dir)?;
        self.admit(&[op], &path).await
    }

    /// What the layer shows in a real directory, `None` when it has nothing to say about it.
    pub(super) fn merged(&mut self, fd: &Fd, open: &Open) -> FsResult<Option<Id>> {
        if self.fs.layer.is_none() {
            return Ok(None);
        }
        let real = self.real(fd, open.root, FsOp::List, &open.path)?;
        let spot = self.in_layer(open.root, &real, false)?;
        spot.found.node.ok_or_else(|| ErrorCode::NoEntry.into()).map(Some)
    }

    pub(super) async fn list_layer(
        &mut self,
        dir: Id,
    ) -> FsResult<(Resource<DirectoryEntryStream>, Vec<FsResult<DirectoryEntry>>)> {
        let entries = self.layer()?.list(dir).map_err(os)?.into_iter().map(|(name, kind)| match name {
            Some(name) => Ok(DirectoryEntry { type_: descriptor_type(kind), name }),
            None => Err(ErrorCode::IllegalByteSequence.into()),
        });
        let entries = entries.collect();
        let empty = self.empty_directory(OpenMode::READ)?;
        let stream = Inner::read_directory(&mut self.inner, Resource::new_borrow(empty.rep())).await;
        self.inner.table.delete(empty)?;
        Ok((stream?, entries))
    }

    pub(super) fn stat_layer(&mut self, spot: &LayerSpot) -> FsResult<DescriptorStat> {
        let id = spot.found.node.ok_or(ErrorCode::NoEntry)?;
        self.stat_node(id)
    }

    pub(super) fn stat_node(&mut self, id: Id) -> FsResult<DescriptorStat> {
        described(&self.layer()?.stat(id).map_err(os)?)
    }

    pub(super) fn set_times_layer(
        &mut self,
        id: Id,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let (accessed, modified) = (timespec(accessed)?, timespec(modified)?);
        self.layer()?.set_times(id, accessed, modified).map_err(os)
    }

    pub(super) fn link_target(&mut self, spot: &LayerSpot) -> FsResult<String> {
        let id = spot.found.node.ok_or(ErrorCode::NoEntry)?;
        self.layer()?.read_link(id).map_err(os)
    }

    /// Set the times of what `spot` is.
    pub(super) fn set_times_spot(
        &mut self,
        spot: &LayerSpot,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        self.changeable(spot)?;
        self.set_times_layer(spot.found.node.ok_or(ErrorCode::NoEntry)?, accessed, modified)
    }

    /// Move in the layer, under the rules of [`FsView::movable`].
    pub(super) async fn move_in_layer(&mut self, old: &LayerSpot, new: &LayerSpot) -> FsResult<()> {
        let read =
            if self.layer_movable(old)? { self.admit(&[FsOp::Read], &old.path).await? } else { Vec::new() };
        let moved = self.changeable(old).and_then(|()| {
            let name = old.found.name.as_deref().ok_or(ErrorCode::Busy)?;
            self.change(new, |layer, dir, to| layer.rename((old.found.dir, name), (dir, to)))
        });
        finish(read, moved)
    }

    fn layer_movable(&mut self, spot: &LayerSpot) -> FsResult<bool> {
        let id = spot.found.node.ok_or(ErrorCode::NoEntry)?;
        let layer = self.layer()?;
        let refused = match layer.kind(id).map_err(os)? {
            FileType::RegularFile if layer.links_below(id).map_err(os)? == 1 => return Ok(true),
            FileType::RegularFile | FileType::Symlink => Builtin::FsLink,
            FileType::Directory if layer.list(id).map_err(os)?.is_empty() => return Ok(false),
            FileType::Directory => Builtin::FsEscape,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Builtin::FsSpecial,
        };
        self.refuse(FsOp::Delete, &spot.path, refused)
    }
}

/// The identity of an object of the layer: it stays when the object is changed, copied or moved.
pub(super) fn identity(id: Id) -> MetadataHashValue {
    let mut hasher = blake3::Hasher::new_derive_key("govrun layer object v1");
    hasher.update(&id.to_le_bytes());
    let mut halves = [[0; 8]; 2];
    let mut reader = hasher.finalize_xof();
    halves.iter_mut().for_each(|half| reader.fill(half));
    let [lower, upper] = halves.map(u64::from_le_bytes);
    MetadataHashValue { lower, upper }
}

/// # Errors
/// `overflow` for a time before 1970, which WASI cannot say.
pub(super) fn described(stat: &Stat) -> FsResult<DescriptorStat> {
    let time = |at: Timespec| -> FsResult<Option<Datetime>> {
        let seconds = u64::try_from(at.tv_sec).map_err(|_| ErrorCode::Overflow)?;
        let nanoseconds = u32::try_from(at.tv_nsec).map_err(|_| ErrorCode::Overflow)?;
        Ok(Some(Datetime { seconds, nanoseconds }))
    };
    Ok(DescriptorStat {
        type_: descriptor_type(stat.kind),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: time(stat.times.accessed)?,
        data_modification_timestamp: time(stat.times.modified)?,
        status_change_timestamp: time(stat.times.changed)?,
    })
}

fn descriptor_type(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::Unknown => DescriptorType::Unknown,
    }
}

fn timespec(time: NewTimestamp) -> FsResult<Option<Timespec>> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(overlay::now())),
        NewTimestamp::Timestamp(at) => {
            let whole = at.seconds.checked_add(u64::from(at.nanoseconds / 1_000_000_000));
            let tv_sec = whole.and_then(|s| i64::try_from(s).ok()).ok_or(ErrorCode::Overflow)?;
            Ok(Some(Timespec { tv_sec, tv_nsec: i64::from(at.nanoseconds % 1_000_000_000) }))
        }
    }
}
