//! Reading an opened listing, entry by entry, under the grant that opened it.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DirectoryEntry, DirectoryEntryStream, HostDirectoryEntryStream as InnerList,
};

use super::fs::FsView;

impl InnerList for FsView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let rep = stream.rep();
        if let Some(listing) = self.fs.listings.get_mut(&rep)
            && let Some(entries) = &mut listing.entries
        {
            let entry = entries.next().transpose()?;
            listing.rows = listing.rows.saturating_add(u64::from(entry.is_some()));
            return Ok(entry);
        }
        let entry = InnerList::read_directory_entry(&mut self.inner, stream).await?;
        if let Some(listing) = self.fs.listings.get_mut(&rep).filter(|_| entry.is_some()) {
            listing.rows = listing.rows.saturating_add(1);
        }
        Ok(entry)
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.fs.listings.remove(&stream.rep());
        InnerList::drop(&mut self.inner, stream)
    }
}
