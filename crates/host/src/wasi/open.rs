//! Opening a file or directory: decide, look, open without following or blocking, look again, and only then act.

use std::fs::File as HostFile;
use std::io;
use std::sync::Arc;

use govrun_verdict::{Builtin, FsOp, Operation};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use wasmtime_wasi::OpenMode;
use wasmtime_wasi::filesystem::{Descriptor, Dir, File};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor as Inner, OpenFlags, PathFlags,
};

use super::fs::{Fd, FsView, Grants, Open, Place, again, finish, os};
use super::paths::Relative;
use super::stream::Meter;

/// How often a file that appears or vanishes while it is being opened is looked at again.
const MAX_RETRIES: usize = 3;

/// What opening asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) open: OpenFlags,
    pub(super) flags: DescriptorFlags,
    pub(super) follow: bool,
    pub(super) directory: bool,
}

impl Wanted {
    pub(super) fn new(path: PathFlags, open: OpenFlags, flags: DescriptorFlags) -> Self {
        let follow = path.contains(PathFlags::SYMLINK_FOLLOW);
        Self { open, flags, follow, directory: open.contains(OpenFlags::DIRECTORY) }
    }

    /// Open only to look at what a link leads to.
    pub(super) fn look() -> Self {
        Self::new(PathFlags::SYMLINK_FOLLOW, OpenFlags::empty(), DescriptorFlags::READ)
    }

    pub(super) fn writes(self) -> bool {
        let changes = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE;
        let mutable = DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY;
        self.open.intersects(changes) || self.flags.intersects(mutable)
    }

    fn reads(self) -> bool {
        !self.writes() || self.flags.contains(DescriptorFlags::READ)
    }

    /// Opening a directory to look at it has no effect of its own; each use of it is decided.
    pub(super) fn ops(self) -> &'static [FsOp] {
        match (self.directory && !self.writes(), self.writes(), self.reads()) {
            (true, _, _) => &[],
            (false, true, true) => &[FsOp::Read, FsOp::Write],
            (false, true, false) => &[FsOp::Write],
            (false, false, _) => &[FsOp::Read],
        }
    }

    pub(super) fn named_op(self) -> FsOp {
        if self.writes() { FsOp::Write } else { FsOp::Read }
    }

    pub(super) fn mode(self) -> OpenMode {
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::WRITE, self.writes());
        mode.set(OpenMode::READ, self.flags.contains(DescriptorFlags::READ) || !self.writes());
        mode
    }

    fn kernel(self, create: bool) -> OFlags {
        let access = match (self.writes(), self.flags.contains(DescriptorFlags::READ)) {
            (true, true) => OFlags::RDWR,
            (true, false) => OFlags::WRONLY,
            (false, _) => OFlags::RDONLY,
        };
        let fixed = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let made = if create { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
        access | fixed | made
    }
}

/// What an object is, from its open file or by its name.
fn kind(file: &HostFile) -> io::Result<(FileType, bool)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((FileType::from_raw_mode(stat.st_mode), stat.st_nlink > 1))
}

impl FsView<'_> {
    /// INVARIANT: nothing is truncated or handed out before what was opened has been looked at and decided on.
    async fn open_leaf(&mut self, fd: &Fd, place: &Place, path: &Relative, wanted: Wanted) -> FsResult<Fd> {
        let op = wanted.named_op();
        let Some(leaf) = place.leaf.as_deref() else { return self.open_directory(place, wanted) };
        for _ in 0..MAX_RETRIES {
            let looked = rustix::fs::statat(&place.dir.dir, leaf, AtFlags::SYMLINK_NOFOLLOW);
            let found = match looked {
                Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
                Err(rustix::io::Errno::NOENT) => None,
                Err(error) => return Err(os(error)),
            };
            if found.is_some() && wanted.open.contains(OpenFlags::EXCLUSIVE) {
                return Err(ErrorCode::Exist.into());
            }
            match found {
                None if !wanted.open.contains(OpenFlags::CREATE) => return Err(ErrorCode::NoEntry.into()),
                None if wanted.directory => return Err(ErrorCode::Invalid.into()),
                Some(FileType::Symlink) if wanted.follow => {
                    return self.open_linked(fd, path, wanted, op, place).await;
                }
                Some(FileType::Symlink) => return Err(ErrorCode::Loop.into()),
                Some(FileType::Directory) => return self.open_directory(place, wanted),
                Some(FileType::RegularFile) if wanted.directory => return Err(ErrorCode::NotDirectory.into()),
                Some(FileType::RegularFile) | None => {}
                Some(
                    FileType::Fifo
                    | FileType::Socket
                    | FileType::CharacterDevice
                    | FileType::BlockDevice
                    | FileType::Unknown,
                ) => return self.refuse(op, &place.path(), Builtin::FsSpecial),
            }
            if place.dir.perms.write_not_permitted() && wanted.writes() {
                return Err(ErrorCode::NotPermitted.into());
            }
            let mode = Mode::from_raw_mode(0o666);
            match rustix::fs::openat(&place.dir.dir, leaf, wanted.kernel(found.is_none()), mode) {
                Ok(file) => {
                    let file = File::new(file.into(), place.dir.perms, wanted.mode(), true);
                    return Ok(self.inner.table.push(Descriptor::File(file))?);
                }
                // It came or went in between: look again.
                Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(os(error)),
            }
        }
        Err(ErrorCode::Busy.into())
    }

    fn open_directory(&mut self, place: &Place, wanted: Wanted) -> FsResult<Fd> {
        let changes = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE;
        if wanted.open.intersects(changes) || wanted.flags.contains(DescriptorFlags::WRITE) {
            return Err(ErrorCode::IsDirectory.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = rustix::fs::openat(&place.dir.dir, place.name(), flags, Mode::empty()).map_err(os)?;
        let dir = Dir::new(dir.into(), place.dir.perms, wanted.mode(), true);
        Ok(self.inner.table.push(Descriptor::Dir(dir))?)
    }

    /// The last segment is a link that the guest follows: wasmtime-wasi resolves it beneath the descriptor.
    pub(super) async fn open_linked(
        &mut self,
        fd: &Fd,
        path: &Relative,
        wanted: Wanted,
        op: FsOp,
        place: &Place,
    ) -> FsResult<Fd> {
        let follow = PathFlags::SYMLINK_FOLLOW;
        let target = Inner::stat_at(&mut self.inner, again(fd), follow, path.text()).await?;
        let open = if wanted.directory { OpenFlags::DIRECTORY } else { OpenFlags::empty() };
        let mut flags = wanted.flags & (DescriptorFlags::READ | DescriptorFlags::WRITE);
        match target.type_ {
            DescriptorType::RegularFile if wanted.writes() => flags |= DescriptorFlags::WRITE,
            DescriptorType::RegularFile => {}
            DescriptorType::Directory
                if wanted.open == OpenFlags::empty() || wanted.open == OpenFlags::DIRECTORY => {}
            DescriptorType::Directory => return Err(ErrorCode::IsDirectory.into()),
            DescriptorType::Unknown
            | DescriptorType::BlockDevice
            | DescriptorType::CharacterDevice
            | DescriptorType::Fifo
            | DescriptorType::SymbolicLink
            | DescriptorType::Socket => return self.refuse(op, &place.path(), Builtin::FsSpecial),
        }
        Inner::open_at(&mut self.inner, again(fd), follow, path.text(), open, flags).await
    }

    /// Check what was opened; returns its real path with the grants for exactly that.
    async fn verify(
        &mut self,
        opened: &Fd,
        place: &Place,
        wanted: Wanted,
        grants: Grants,
    ) -> FsResult<(String, Grants, bool)> {
        let op = wanted.named_op();
        let real = match self.real(opened, place.root, op, &place.path()) {
            Ok(real) => real,
            Err(error) => return finish(grants, Err(error)),
        };
        let grants = self.admit_real(grants, wanted.ops(), &place.path(), &real).await?;
        let file = self.host_file(opened)?;
        let refusal = match kind(&file).map_err(os)? {
            (FileType::Directory, _) => return Ok((real, grants, true)),
            (FileType::RegularFile, false) => None,
            (FileType::RegularFile, true) => Some(Builtin::FsLink),
            (
                FileType::Symlink
                | FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown,
                _,
            ) => Some(Builtin::FsSpecial),
        };
        if let Some(reason) = refusal {
            return finish(grants, self.refuse(op, &real, reason));
        }
        Ok((real, grants, false))
    }

    /// Truncate where that was asked for, and hand it out.
    fn deliver(
        &mut self,
        opened: &Fd,
        root: usize,
        real: String,
        grants: Grants,
        wanted: Wanted,
    ) -> FsResult<()> {
        let file = self.host_file(opened)?;
        if wanted.open.contains(OpenFlags::TRUNCATE)
            && let Err(error) = rustix::fs::ftruncate(&file, 0)
        {
            return finish(grants, Err(os(error)));
        }
        self.keep(opened, Open::at(real, root), grants, false, None);
        Ok(())
    }

    pub(super) fn keep(
        &mut self,
        opened: &Fd,
        mut open: Open,
        grants: Grants,
        directory: bool,
        note: Option<&'static str>,
    ) {
        if directory {
            // Each use of the directory is decided; what was asked to open it is over.
            let _ = finish(grants, Ok(()));
        } else {
            let (mut read, mut write) = (None, None);
            for grant in grants {
                match grant.operation() {
                    Operation::Fs { op: FsOp::Write, .. } => write = Some(grant),
                    _other => read = Some(grant),
                }
            }
            open.meter = Some(Arc::new(Meter::new(read, write, note, Arc::clone(self.scope))));
        }
        self.fs.open.insert(opened.rep(), open);
    }

    pub(super) async fn open_governed(&mut self, fd: &Fd, path: &str, wanted: Wanted) -> FsResult<Fd> {
        self.fs.room()?;
        let op = wanted.named_op();
        let (relative, logical, root) = self.parse(fd, op, path)?;
        if relative.names_directory() && !wanted.directory && path != "." {
            return self.refuse(op, &logical, Builtin::FsPathInvalid);
        }
        let unsupported = DescriptorFlags::FILE_INTEGRITY_SYNC
            | DescriptorFlags::DATA_INTEGRITY_SYNC
            | DescriptorFlags::REQUESTED_WRITE_SYNC;
        if wanted.flags.intersects(unsupported) {
            return Err(ErrorCode::Unsupported.into());
        }
        let grants = self.admit(wanted.ops(), &logical).await?;
        match self.layered(fd, &relative, wanted.follow) {
            Ok(None) => {}
            Ok(Some(spot)) => {
                let grants = self.admit_real(grants, wanted.ops(), &logical, &spot.path).await?;
                return self.open_layer(&spot, wanted, grants).await;
            }
            Err(error) => return finish(grants, Err(error)),
        }
        let place = match self.enter(fd, &relative, root, op, &logical).await {
            Ok(place) => place,
            Err(error) => return finish(grants, Err(error)),
        };
        let result = self.open_at_place(fd, &place, &relative, wanted, grants, &logical).await;
        self.leave(&place)?;
        result
    }

    async fn open_at_place(
        &mut self,
        fd: &Fd,
        place: &Place,
        path: &Relative,
        wanted: Wanted,
        grants: Grants,
        logical: &str,
    ) -> FsResult<Fd> {
        let grants = self.admit_real(grants, wanted.ops(), logical, &place.path()).await?;
        if self.lands(&grants, wanted.ops()) {
            return self.open_landing(place.root, &place.path(), wanted, grants).await;
        }
        let opened = match self.open_leaf(fd, place, path, wanted).await {
            Ok(opened) => opened,
            Err(error) => return finish(grants, Err(error)),
        };
        match self.verify(&opened, place, wanted, grants).await {
            Ok((real, grants, true)) => {
                self.keep(&opened, Open::at(real, place.root), grants, true, None);
                Ok(opened)
            }
            Ok((real, grants, false)) if self.lands(&grants, wanted.ops()) => {
                // The link led to what may only be changed in the sandbox; nothing was written yet.
                self.inner.table.delete(opened)?;
                self.open_landing(place.root, &real, wanted, grants).await
            }
            Ok((real, grants, false)) => match self.deliver(&opened, place.root, real, grants, wanted) {
                Ok(()) => Ok(opened),
                Err(error) => {
                    self.inner.table.delete(opened)?;
                    Err(error)
                }
            },
            Err(error) => {
                self.inner.table.delete(opened)?;
                Err(error)
            }
        }
    }

    /// Open `path` in the layer, although everything on the way was real so far.
    async fn open_landing(
        &mut self,
        root: usize,
        path: &str,
        wanted: Wanted,
        grants: Grants,
    ) -> FsResult<Fd> {
        let spot = match self.in_layer(root, path, wanted.follow) {
            Ok(spot) => spot,
            Err(error) => return finish(grants, Err(error)),
        };
        let grants = self.admit_real(grants, wanted.ops(), path, &spot.path).await?;
        self.open_layer(&spot, wanted, grants).await
    }
}
