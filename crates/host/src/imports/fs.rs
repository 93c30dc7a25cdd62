//! `govrun:host/fs`: whole files over the same decisions and checks as `wasi:filesystem`, with typed refusals.

use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::DescriptorType;

use super::GuestError;
use super::wit::fs;
use crate::runtime::CallState;

impl fs::Host for CallState {
    async fn read(&mut self, path: String) -> Result<Vec<u8>, GuestError> {
        let before = self.scope().refusals();
        let result = self.wasi.fs().read_whole(&path).await;
        self.typed(before, result)
    }

    async fn write(&mut self, path: String, contents: Vec<u8>) -> Result<(), GuestError> {
        let before = self.scope().refusals();
        let result = self.wasi.fs().write_whole(&path, &contents).await;
        self.typed(before, result)
    }

    async fn remove(&mut self, path: String) -> Result<(), GuestError> {
        let before = self.scope().refusals();
        let result = self.wasi.fs().remove_file(&path).await;
        self.typed(before, result)
    }

    async fn list(&mut self, path: String) -> Result<Vec<String>, GuestError> {
        let before = self.scope().refusals();
        let result = self.wasi.fs().names(&path).await;
        self.typed(before, result)
    }

    async fn stat(&mut self, path: String) -> Result<fs::Metadata, GuestError> {
        let before = self.scope().refusals();
        let result = self.wasi.fs().stat_whole(&path).await;
        let stat = self.typed(before, result)?;
        Ok(fs::Metadata { size: stat.size, directory: stat.type_ == DescriptorType::Directory })
    }
}

impl CallState {
    /// The refusal behind a plain WASI error, when there was one since `before`.
    fn typed<T>(&self, before: u64, result: FsResult<T>) -> Result<T, GuestError> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let refusal = self.scope().last_refusal().filter(|_| self.scope().refusals() > before);
        match (error.downcast(), refusal) {
            (Ok(_), Some(refusal)) => Err(refusal.into()),
            (Ok(code), None) => Err(GuestError::failed(code.message())),
            (Err(trap), _) => Err(GuestError::Trap(trap)),
        }
    }
}
