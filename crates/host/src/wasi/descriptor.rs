//! The methods of `wasi:filesystem`, each under its decision.

use std::sync::Arc;

use govrun_verdict::{Builtin, FsOp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntryStream, ErrorCode,
    HostDescriptor as Inner, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::fs::{Fd, FsView, Grants, Listing, Open, Place, again, finish, os};
use super::layered::{LayerSpot, Spot, described, identity};
use super::open::Wanted;
use super::paths::{self, Relative};
use super::stream::{
    ContentInput, ContentOutput, MAX_CHUNK_BYTES, Meter, MeteredInput, MeteredOutput, length,
};
use crate::overlay::{Content, Id};

impl preopens::Host for FsView<'_> {
    /// Preopens are offers; each use of one is decided.
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let mut offered = Vec::new();
        for (fd, guest) in preopens::Host::get_directories(&mut self.inner)? {
            let root = self.fs.roots.iter().position(|root| root.guest == guest);
            let Some(root) = root.filter(|_| self.fs.room().is_ok()) else {
                self.inner.table.delete(fd)?;
                continue;
            };
            let node = match &self.fs.layer {
                Some(layer) if self.fs.whole => Some(layer.root(root)?),
                Some(_) | None => None,
            };
            let open = Open { node, ..Open::at(paths::absolute(&guest), root) };
            self.fs.open.insert(fd.rep(), open);
            offered.push((fd, guest));
        }
        Ok(offered)
    }
}

impl types::Host for FsView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.inner, error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        types::Host::filesystem_error_code(&mut self.inner, error)
    }
}

impl FsView<'_> {
    /// The decision for looking at or changing a held directory itself, on the path where it really is.
    async fn on_directory(&mut self, fd: &Fd, open: &Open, op: FsOp) -> FsResult<Grants> {
        if let Some(dir) = open.node {
            return self.on_layer_directory(dir, op).await;
        }
        let grants = self.admit(&[op], &open.path).await?;
        match self.real(fd, open.root, op, &open.path) {
            Ok(real) => self.admit_real(grants, &[op], &open.path, &real).await,
            Err(error) => finish(grants, Err(error)),
        }
    }

    /// Open what a path means for looking at it: the link itself, or what it leads to, which is decided too.
    async fn look_at(
        &mut self,
        fd: &Fd,
        flags: PathFlags,
        path: &str,
        op: FsOp,
    ) -> FsResult<(Grants, Looked)> {
        let follows = flags.contains(PathFlags::SYMLINK_FOLLOW);
        let (grants, spot, relative) = self.at(fd, path, op, follows).await?;
        let follows = follows || relative.names_directory();
        let place = match spot {
            Spot::Real(place) => place,
            Spot::Layer(spot) => return Ok((grants, Looked::Layer(spot))),
        };
        let linked = place.leaf.as_deref().is_some_and(|leaf| {
            rustix::fs::statat(&place.dir.dir, leaf, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
        });
        if !(follows && linked) {
            return Ok((grants, Looked::Real(place, None)));
        }
        match self.resolve(fd, &relative, &place, op).await {
            Ok((target, real)) => match self.admit_real(grants, &[op], &place.path(), &real).await {
                Ok(grants) => Ok((grants, Looked::Real(place, Some(target)))),
                Err(error) => {
                    self.inner.table.delete(target)?;
                    self.leave(&place)?;
                    Err(error)
                }
            },
            Err(error) => {
                self.leave(&place)?;
                finish(grants, Err(error))
            }
        }
    }

    async fn resolve(&mut self, fd: &Fd, path: &Relative, place: &Place, op: FsOp) -> FsResult<(Fd, String)> {
        let wanted = Wanted::look();
        let target = self.open_linked(fd, path, wanted, op, place).await?;
        match self.real(&target, place.root, op, &place.path()) {
            Ok(real) => Ok((target, real)),
            Err(error) => {
                self.inner.table.delete(target)?;
                Err(error)
            }
        }
    }

    /// Whether what is there may move, and whether it is a file. A directory that holds anything does not move, since
    /// that would change what every path beneath it is about; nor does a link, which would then lead elsewhere.
    fn movable(&self, place: &Place) -> FsResult<bool> {
        let leaf = place.leaf.as_deref().ok_or(ErrorCode::Busy)?;
        let stat = rustix::fs::statat(&place.dir.dir, leaf, AtFlags::SYMLINK_NOFOLLOW).map_err(os)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink == 1 => return Ok(true),
            FileType::RegularFile | FileType::Symlink => {
                return self.refuse(FsOp::Delete, &place.path(), Builtin::FsLink);
            }
            FileType::Directory => {}
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return self.refuse(FsOp::Delete, &place.path(), Builtin::FsSpecial),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = rustix::fs::openat(&place.dir.dir, leaf, flags, Mode::empty()).map_err(os)?;
        for entry in rustix::fs::Dir::new(dir).map_err(os)? {
            let entry = entry.map_err(os)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return self.refuse(FsOp::Delete, &place.path(), Builtin::FsEscape);
            }
        }
        Ok(false)
    }

    /// A file that moves can be read under its new name, so moving it needs the right to read it under its old one.
    async fn move_granted(&mut self, old: &Place, new: &Place) -> FsResult<()> {
        let read =
            if self.movable(old)? { self.admit(&[FsOp::Read], &old.path()).await? } else { Vec::new() };
        let moved = Inner::rename_at(&mut self.inner, old.fd(), old.name(), new.fd(), new.name()).await;
        finish(read, moved)
    }

    fn link_refused(&self, fd: &Fd, path: &str) -> FsResult<()> {
        let (_, logical, _) = self.parse(fd, FsOp::Write, path)?;
        self.refuse(FsOp::Write, &logical, Builtin::FsLink)
    }
}

impl Inner for FsView<'_> {
    async fn advise(&mut self, fd: Fd, offset: u64, len: u64, advice: Advice) -> FsResult<()> {
        self.file(&fd)?;
        Inner::advise(&mut self.inner, fd, offset, len, advice).await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.writable(&fd)?;
        Inner::sync_data(&mut self.inner, fd).await
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.writable(&fd)?;
        Inner::sync(&mut self.inner, fd).await
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        self.opened(&fd)?;
        Inner::get_flags(&mut self.inner, fd).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<DescriptorType> {
        self.opened(&fd)?;
        Inner::get_type(&mut self.inner, fd).await
    }

    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        let meter = self.writable(&fd)?;
        if let Some(content) = self.opened(&fd)?.content {
            let changed = content.set_len(size).inspect_err(|e| meter.write_failed(e, "set-size"));
            return changed.map_err(os);
        }
        let result = Inner::set_size(&mut self.inner, fd, size).await;
        if result.is_err() {
            meter.fail("set-size");
        }
        result
    }

    async fn set_times(&mut self, fd: Fd, accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()> {
        self.writable(&fd)?;
        match self.opened(&fd)?.content {
            Some(content) => self.set_times_layer(content.id(), accessed, modified),
            None => Inner::set_times(&mut self.inner, fd, accessed, modified).await,
        }
    }

    async fn read(&mut self, fd: Fd, len: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        let meter = self.readable(&fd)?;
        let result = match self.opened(&fd)?.content {
            Some(content) => read_content(&content, len, offset),
            None => Inner::read(&mut self.inner, fd, len, offset).await,
        };
        match &result {
            Ok((bytes, _)) => meter.was_read(bytes.len()),
            Err(_) => meter.fail("read"),
        }
        result
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
        let meter = self.writable(&fd)?;
        if let Some(content) = self.opened(&fd)?.content {
            content
                .write_at(&bytes, Some(offset))
                .inspect_err(|e| meter.write_failed(e, "write"))
                .map_err(os)?;
            meter.was_written(bytes.len());
            return Ok(length(bytes.len()));
        }
        let result = Inner::write(&mut self.inner, fd, bytes, offset).await;
        match &result {
            Ok(written) => meter.was_written(usize::try_from(*written).unwrap_or(usize::MAX)),
            Err(_) => meter.fail("write"),
        }
        result
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<DirectoryEntryStream>> {
        self.fs.room()?;
        let open = self.opened(&fd)?;
        if open.meter.is_some() {
            return Err(ErrorCode::NotDirectory.into());
        }
        let mut grants = self.on_directory(&fd, &open, FsOp::List).await?;
        let listed = match self.listed_in_layer(&fd, &open) {
            Ok(Some(dir)) => {
                self.list_layer(dir).await.map(|(stream, entries)| (stream, Some(entries.into_iter())))
            }
            Ok(None) => Inner::read_directory(&mut self.inner, fd).await.map(|stream| (stream, None)),
            Err(error) => Err(error),
        };
        match listed {
            Ok((stream, entries)) => {
                self.fs.listings.insert(stream.rep(), Listing { grant: grants.pop(), rows: 0, entries });
                Ok(stream)
            }
            Err(error) => finish(grants, Err(error)),
        }
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let (grants, spot, _) = self.at(&fd, &path, FsOp::Write, false).await?;
        match spot {
            Spot::Real(place) => {
                let result = Inner::create_directory_at(&mut self.inner, place.fd(), place.name()).await;
                self.done(grants, &place, result)
            }
            Spot::Layer(spot) => {
                let result =
                    self.change(&spot, |layer, dir, name| layer.create_directory(dir, name).map(drop));
                self.landed(grants, result)
            }
        }
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let (grants, spot, _) = self.at(&fd, &path, FsOp::Delete, false).await?;
        match spot {
            Spot::Real(place) => {
                let result = Inner::remove_directory_at(&mut self.inner, place.fd(), place.name()).await;
                self.done(grants, &place, result)
            }
            Spot::Layer(spot) => {
                let result = self.change(&spot, |layer, dir, name| layer.remove_directory(dir, name));
                self.landed(grants, result)
            }
        }
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let (grants, spot, relative) = self.at(&fd, &path, FsOp::Delete, false).await?;
        match spot {
            Spot::Real(place) => {
                let result = if relative.names_directory() {
                    self.refuse(FsOp::Delete, &place.path(), Builtin::FsPathInvalid)
                } else {
                    Inner::unlink_file_at(&mut self.inner, place.fd(), place.name()).await
                };
                self.done(grants, &place, result)
            }
            Spot::Layer(spot) => {
                let result = if relative.names_directory() {
                    self.refuse(FsOp::Delete, &spot.path, Builtin::FsPathInvalid)
                } else {
                    self.change(&spot, |layer, dir, name| layer.unlink(dir, name))
                };
                self.landed(grants, result)
            }
        }
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        let (grants, spot, _) = self.at(&fd, &path, FsOp::Stat, false).await?;
        match spot {
            Spot::Real(place) => {
                let result = Inner::readlink_at(&mut self.inner, place.fd(), place.name()).await;
                self.done(grants, &place, result)
            }
            Spot::Layer(spot) => {
                let result = self.link_target(&spot);
                finish(grants, result)
            }
        }
    }

    async fn rename_at(&mut self, fd: Fd, old_path: String, new_fd: Fd, new_path: String) -> FsResult<()> {
        let (mut grants, old, _) = self.at(&fd, &old_path, FsOp::Delete, false).await?;
        let (write, new, _) = match self.at(&new_fd, &new_path, FsOp::Write, false).await {
            Ok(admitted) => admitted,
            Err(error) => {
                if let Spot::Real(place) = &old {
                    self.leave(place)?;
                }
                return finish(grants, Err(error));
            }
        };
        grants.extend(write);
        match (old, new) {
            (Spot::Real(old), Spot::Real(new)) => {
                let result = self.move_granted(&old, &new).await;
                self.leave(&new)?;
                self.done(grants, &old, result)
            }
            (old, new) => {
                let result = match (self.landing(old, false), self.landing(new, false)) {
                    (Ok(old), Ok(new)) => self.move_in_layer(&old, &new).await,
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
                self.landed(grants, result)
            }
        }
    }

    async fn link_at(
        &mut self,
        _: Fd,
        _: PathFlags,
        _: String,
        new_fd: Fd,
        new_path: String,
    ) -> FsResult<()> {
        self.link_refused(&new_fd, &new_path)
    }

    async fn symlink_at(&mut self, fd: Fd, _: String, new_path: String) -> FsResult<()> {
        self.link_refused(&fd, &new_path)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let wanted = Wanted::new(path_flags, open, flags);
        self.open_governed(&fd, &path, wanted).await
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<DescriptorStat> {
        let open = self.opened(&fd)?;
        let grants = match &open.meter {
            Some(_) => Vec::new(),
            None => self.on_directory(&fd, &open, FsOp::Stat).await?,
        };
        let result = match (open.content, open.node) {
            (Some(content), _) => content.stat().map_err(os).and_then(|stat| described(&stat)),
            (None, Some(dir)) => self.stat_node(dir),
            (None, None) => Inner::stat(&mut self.inner, fd).await,
        };
        finish(grants, result)
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        let open = self.opened(&fd)?;
        let grants = match &open.meter {
            Some(_) => Vec::new(),
            None => self.on_directory(&fd, &open, FsOp::Stat).await?,
        };
        let result = match open.content.map(|content| content.id()).or(open.node) {
            Some(id) => Ok(identity(id)),
            None => Inner::metadata_hash(&mut self.inner, fd).await,
        };
        finish(grants, result)
    }

    async fn stat_at(&mut self, fd: Fd, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        let (grants, looked) = self.look_at(&fd, flags, &path, FsOp::Stat).await?;
        let (place, target) = match looked {
            Looked::Real(place, target) => (place, target),
            Looked::Layer(spot) => {
                let result = self.stat_layer(&spot);
                return finish(grants, result);
            }
        };
        let result = match &target {
            Some(target) => Inner::stat(&mut self.inner, again(target)).await,
            None => Inner::stat_at(&mut self.inner, place.fd(), PathFlags::empty(), place.name()).await,
        };
        self.looked(grants, &place, target, result)
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let (grants, looked) = self.look_at(&fd, flags, &path, FsOp::Stat).await?;
        let (place, target) = match looked {
            Looked::Real(place, target) => (place, target),
            Looked::Layer(spot) => {
                return finish(
                    grants,
                    spot.found.node.map(identity).ok_or_else(|| ErrorCode::NoEntry.into()),
                );
            }
        };
        let result = match &target {
            Some(target) => Inner::metadata_hash(&mut self.inner, again(target)).await,
            None => {
                let none = PathFlags::empty();
                Inner::metadata_hash_at(&mut self.inner, place.fd(), none, place.name()).await
            }
        };
        self.looked(grants, &place, target, result)
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let (grants, looked) = self.look_at(&fd, flags, &path, FsOp::Write).await?;
        let (place, target) = match looked {
            Looked::Real(place, target) => (place, target),
            Looked::Layer(spot) => {
                let result = self.set_times_spot(&spot, accessed, modified);
                return self.landed(grants, result);
            }
        };
        let result = match &target {
            Some(target) => Inner::set_times(&mut self.inner, again(target), accessed, modified).await,
            None => {
                let none = PathFlags::empty();
                let name = place.name();
                Inner::set_times_at(&mut self.inner, place.fd(), none, name, accessed, modified).await
            }
        };
        self.looked(grants, &place, target, result)
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let open = self.opened(&fd)?;
        let meter = match open.meter {
            Some(meter) if meter.readable() => meter,
            Some(_) => return Err(ErrorCode::NotPermitted.into()),
            None => return Err(ErrorCode::IsDirectory.into()),
        };
        if let Some(content) = open.content {
            let stream = Box::new(ContentInput { content, position: offset });
            return Ok(self.inner.table.push(MeteredInput::boxed(stream, meter))?);
        }
        let stream = Inner::read_via_stream(&mut self.inner, fd, offset)?;
        let stream = self.inner.table.delete(stream)?;
        Ok(self.inner.table.push(MeteredInput::boxed(stream, meter))?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        let meter = self.writable(&fd)?;
        if let Some(stream) = self.content_output(&fd, Some(offset), &meter)? {
            return Ok(stream);
        }
        let stream = Inner::write_via_stream(&mut self.inner, fd, offset)?;
        let stream = self.inner.table.delete(stream)?;
        Ok(self.inner.table.push(MeteredOutput::boxed(stream, meter))?)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let meter = self.writable(&fd)?;
        if let Some(stream) = self.content_output(&fd, None, &meter)? {
            return Ok(stream);
        }
        let stream = Inner::append_via_stream(&mut self.inner, fd)?;
        let stream = self.inner.table.delete(stream)?;
        Ok(self.inner.table.push(MeteredOutput::boxed(stream, meter))?)
    }

    async fn is_same_object(&mut self, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        let id = |open: Option<&Open>| {
            open.and_then(|open| open.content.as_ref().map(|content| content.id()).or(open.node))
        };
        let (x, y) = (id(self.fs.open.get(&a.rep())), id(self.fs.open.get(&b.rep())));
        match (x, y) {
            (None, None) => Inner::is_same_object(&mut self.inner, a, b).await,
            (x, y) => Ok(x == y),
        }
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.fs.open.remove(&fd.rep());
        Inner::drop(&mut self.inner, fd)
    }
}

/// What looking at a path found.
enum Looked {
    /// The place, and what the link there leads to where it is followed.
    Real(Place, Option<Fd>),
    Layer(LayerSpot),
}

fn read_content(content: &Content, len: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_CHUNK_BYTES);
    let mut buffer = vec![0; len];
    let count = content.read_at(&mut buffer, offset).map_err(os)?;
    buffer.truncate(count);
    Ok((buffer, count == 0))
}

impl FsView<'_> {
    /// The directory of the layer that a listing is of.
    fn listed_in_layer(&mut self, fd: &Fd, open: &Open) -> FsResult<Option<Id>> {
        match open.node {
            Some(dir) => Ok(Some(dir)),
            None => self.merged(fd, open),
        }
    }

    fn content_output(
        &mut self,
        fd: &Fd,
        position: Option<u64>,
        meter: &Arc<Meter>,
    ) -> FsResult<Option<Resource<DynOutputStream>>> {
        let Some(content) = self.opened(fd)?.content else { return Ok(None) };
        let stream = ContentOutput { content, position, meter: Arc::clone(meter) };
        let stream = MeteredOutput::boxed(Box::new(stream), Arc::clone(meter));
        Ok(Some(self.inner.table.push(stream)?))
    }

    fn looked<T>(
        &mut self,
        grants: Grants,
        place: &Place,
        target: Option<Fd>,
        result: FsResult<T>,
    ) -> FsResult<T> {
        if let Some(target) = target {
            self.inner.table.delete(target)?;
        }
        self.done(grants, place, result)
    }
}
