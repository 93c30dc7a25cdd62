//! Whole files by absolute guest path, over the same descriptors, decisions and checks as `wasi:filesystem`.

use govrun_verdict::{Builtin, FsOp};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, ErrorCode, HostDescriptor as Files,
    HostDirectoryEntryStream as Listings, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{FsError, FsResult};

use super::fs::{Fd, FsView, again};
use super::open::Wanted;
use super::paths;

/// Largest file that is read whole, in bytes.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Most names of one listing.
const MAX_NAMES: usize = 100_000;
const CHUNK_BYTES: u64 = 64 << 10;

impl FsView<'_> {
    /// Action `fs.read`.
    pub(crate) async fn read_whole(&mut self, path: &str) -> FsResult<Vec<u8>> {
        let flags = DescriptorFlags::READ;
        let file = self.open_whole(path, OpenFlags::empty(), flags, FsOp::Read).await?;
        let contents = self.contents(&file).await;
        self.close(file)?;
        contents
    }

    async fn contents(&mut self, file: &Fd) -> FsResult<Vec<u8>> {
        let mut contents = Vec::new();
        loop {
            let offset = u64::try_from(contents.len()).unwrap_or(u64::MAX);
            let (bytes, end) = Files::read(self, again(file), CHUNK_BYTES, offset).await?;
            if contents.len().saturating_add(bytes.len()) > MAX_FILE_BYTES {
                return Err(ErrorCode::FileTooLarge.into());
            }
            let empty = bytes.is_empty();
            contents.extend(bytes);
            if end || empty {
                return Ok(contents);
            }
        }
    }

    /// Action `fs.write`.
    pub(crate) async fn write_whole(&mut self, path: &str, contents: &[u8]) -> FsResult<()> {
        let create = OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let file = self.open_whole(path, create, DescriptorFlags::WRITE, FsOp::Write).await?;
        let written = self.fill(&file, contents).await;
        self.close(file)?;
        written
    }

    async fn fill(&mut self, file: &Fd, mut contents: &[u8]) -> FsResult<()> {
        let mut offset = 0_u64;
        while !contents.is_empty() {
            let written = Files::write(self, again(file), contents.to_vec(), offset).await?;
            let rest = usize::try_from(written).ok().filter(|n| *n > 0).and_then(|n| contents.get(n..));
            contents = rest.ok_or(ErrorCode::Io)?;
            offset = offset.saturating_add(written);
        }
        Ok(())
    }

    /// Action `fs.delete`.
    pub(crate) async fn remove_file(&mut self, path: &str) -> FsResult<()> {
        let (root, relative) = self.rooted(path, FsOp::Delete)?;
        let removed = Files::unlink_file_at(self, again(&root), relative).await;
        self.close(root)?;
        removed
    }

    /// Action `fs.list`; sorted.
    pub(crate) async fn names(&mut self, path: &str) -> FsResult<Vec<String>> {
        let flags = DescriptorFlags::READ;
        let directory = self.open_whole(path, OpenFlags::DIRECTORY, flags, FsOp::List).await?;
        let names = self.names_in(&directory).await;
        self.close(directory)?;
        names
    }

    async fn names_in(&mut self, directory: &Fd) -> FsResult<Vec<String>> {
        let stream = Files::read_directory(self, again(directory)).await?;
        let (mut names, mut failed) = (Vec::new(), None);
        loop {
            let next = wasmtime::component::Resource::new_borrow(stream.rep());
            match Listings::read_directory_entry(self, next).await {
                Ok(Some(entry)) if names.len() < MAX_NAMES => names.push(entry.name),
                Ok(Some(_)) => {
                    failed = Some(ErrorCode::Overflow.into());
                    break;
                }
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        Listings::drop(self, stream).map_err(FsError::trap)?;
        names.sort();
        failed.map_or(Ok(names), Err)
    }

    /// Action `fs.stat`.
    pub(crate) async fn stat_whole(&mut self, path: &str) -> FsResult<DescriptorStat> {
        let (root, relative) = self.rooted(path, FsOp::Stat)?;
        let stat = Files::stat_at(self, again(&root), PathFlags::SYMLINK_FOLLOW, relative).await;
        self.close(root)?;
        stat
    }

    fn close(&mut self, fd: Fd) -> FsResult<()> {
        Files::drop(self, fd).map_err(FsError::trap)
    }

    async fn open_whole(
        &mut self,
        path: &str,
        open: OpenFlags,
        flags: DescriptorFlags,
        op: FsOp,
    ) -> FsResult<Fd> {
        let (root, relative) = self.rooted(path, op)?;
        let wanted = Wanted::new(PathFlags::SYMLINK_FOLLOW, open, flags);
        let opened = self.open_governed(&root, &relative, wanted).await;
        self.close(root)?;
        opened
    }

    /// The preopen that the path is beneath, the deepest one, and the rest of the path. The rest is as the guest wrote it:
    /// what it leads to is for the checks that every descriptor-relative path passes.
    fn rooted(&mut self, path: &str, op: FsOp) -> FsResult<(Fd, String)> {
        let beneath = |guest: &str| match path.strip_prefix(guest.trim_end_matches('/'))? {
            "" => Some(".".to_owned()),
            rest => rest.strip_prefix('/').map(|rest| match rest.trim_start_matches('/') {
                "" => ".".to_owned(),
                rest => rest.to_owned(),
            }),
        };
        let roots = preopens::Host::get_directories(self).map_err(FsError::trap)?;
        let mut best: Option<(Fd, usize, String)> = None;
        for (fd, guest) in roots {
            let found =
                beneath(&guest).filter(|_| best.as_ref().is_none_or(|(_, len, _)| guest.len() > *len));
            let unused = match found {
                Some(relative) => best.replace((fd, guest.len(), relative)).map(|(fd, _, _)| fd),
                None => Some(fd),
            };
            if let Some(unused) = unused {
                self.close(unused)?;
            }
        }
        match best {
            Some((fd, _, relative)) => Ok((fd, relative)),
            None if path.starts_with('/') => {
                self.refuse(op, &paths::refused("/", path.trim_start_matches('/')), Builtin::FsEscape)
            }
            None => self.refuse(op, &paths::refused("/", path), Builtin::FsPathInvalid),
        }
    }
}
