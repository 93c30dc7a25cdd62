//! Streams over an open file: every byte counts under the grant that the file was opened with.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use govrun_verdict::{Builtin, Refusal};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use crate::grant::{Grant, Outcome};
use crate::overlay::Content;
use crate::scope::Scope;

/// The grants of one open file with what was done under them. The descriptor and its streams share it; the outcomes are
/// recorded when the last of them is gone.
pub(crate) struct Meter {
    read: Option<Grant>,
    write: Option<Grant>,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    failed: Mutex<Option<&'static str>>,
    full: AtomicBool,
    note: Option<&'static str>,
    scope: Arc<Scope>,
}

impl Meter {
    /// `note` is what the outcome of writing says, where there is something to say; `scope` records the first write that
    /// did not fit in the layer.
    pub(crate) const fn new(
        read: Option<Grant>,
        write: Option<Grant>,
        note: Option<&'static str>,
        scope: Arc<Scope>,
    ) -> Self {
        Self {
            read,
            write,
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            failed: Mutex::new(None),
            full: AtomicBool::new(false),
            note,
            scope,
        }
    }

    /// True when the file was opened under a grant to read.
    pub(crate) const fn readable(&self) -> bool {
        self.read.is_some()
    }

    /// True when the file was opened under a grant to write.
    pub(crate) const fn writable(&self) -> bool {
        self.write.is_some()
    }

    /// Whether what the file was opened under for reading still stands.
    pub(crate) fn may_read(&self) -> Result<(), Refusal> {
        self.read.as_ref().map_or(Ok(()), |grant| grant.live().map(drop))
    }

    /// Whether what the file was opened under for writing still stands.
    pub(crate) fn may_write(&self) -> Result<(), Refusal> {
        self.write.as_ref().map_or(Ok(()), |grant| grant.live().map(drop))
    }

    /// A write failed; one that did not fit in the layer is also recorded as a refusal, the first time.
    pub(crate) fn write_failed(&self, error: &io::Error, kind: &'static str) {
        if error.kind() != io::ErrorKind::StorageFull {
            return self.fail(kind);
        }
        if !self.full.swap(true, Ordering::Relaxed) {
            self.fail("scratch-full");
            if let Some(grant) = &self.write {
                // The refusal is for the record and the caller; the guest sees the full disk.
                let _ = self.scope.refuse(grant.operation().clone(), Builtin::SandboxScratchFull);
            }
        }
    }

    /// `count` bytes came from the file.
    pub(crate) fn was_read(&self, count: usize) {
        add(&self.bytes_read, count);
    }

    /// `count` bytes went to the file.
    pub(crate) fn was_written(&self, count: usize) {
        add(&self.bytes_written, count);
    }

    /// The first failure is what the record shows.
    pub(crate) fn fail(&self, kind: &'static str) {
        if let Ok(mut failed) = self.failed.lock() {
            failed.get_or_insert(kind);
        }
    }

    fn watch<T>(&self, result: &StreamResult<T>) {
        if matches!(result, Err(StreamError::LastOperationFailed(_))) {
            self.fail("io");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let failed = self.failed.lock().ok().and_then(|kind| *kind).map(str::to_owned);
        if let Some(grant) = self.read.take() {
            let bytes_in = self.bytes_read.load(Ordering::Relaxed);
            let failed = failed.clone().filter(|kind| kind != "scratch-full");
            grant.finish(&Outcome { bytes_in, failed, ..Outcome::ok() });
        }
        if let Some(grant) = self.write.take() {
            let bytes_out = self.bytes_written.load(Ordering::Relaxed);
            grant.finish(&Outcome { bytes_out, failed, note: self.note, ..Outcome::ok() });
        }
    }
}

/// A length as the meter counts.
pub(crate) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, count: usize) {
    let sum = |sum: u64| Some(sum.saturating_add(length(count)));
    // The closure never refuses, so this cannot fail.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
}

/// What a guest sees of a stream whose permission was taken away.
fn revoked(refusal: Refusal) -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::msg(refusal.to_string()))
}

/// A stream out of a file.
pub(crate) struct MeteredInput {
    inner: DynInputStream,
    meter: Arc<Meter>,
}

impl MeteredInput {
    pub(crate) fn boxed(inner: DynInputStream, meter: Arc<Meter>) -> DynInputStream {
        Box::new(Self { inner, meter })
    }

    fn counted(meter: &Meter, result: StreamResult<Bytes>) -> StreamResult<Bytes> {
        meter.watch(&result);
        if let Ok(bytes) = &result {
            meter.was_read(bytes.len());
        }
        result
    }
}

#[async_trait]
impl Pollable for MeteredInput {
    async fn ready(&mut self) {
        (*self.inner).ready().await;
    }
}

#[async_trait]
impl InputStream for MeteredInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.meter.may_read().map_err(revoked)?;
        Self::counted(&self.meter, self.inner.read(size))
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.meter.may_read().map_err(revoked)?;
        let result = self.inner.blocking_read(size).await;
        Self::counted(&self.meter, result)
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

/// A stream into a file.
pub(crate) struct MeteredOutput {
    inner: DynOutputStream,
    meter: Arc<Meter>,
}

impl MeteredOutput {
    pub(crate) fn boxed(inner: DynOutputStream, meter: Arc<Meter>) -> DynOutputStream {
        Box::new(Self { inner, meter })
    }

    fn counted(&self, count: usize, result: StreamResult<()>) -> StreamResult<()> {
        self.meter.watch(&result);
        if result.is_ok() {
            self.meter.was_written(count);
        }
        result
    }
}

#[async_trait]
impl Pollable for MeteredOutput {
    async fn ready(&mut self) {
        (*self.inner).ready().await;
    }
}

#[async_trait]
impl OutputStream for MeteredOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.meter.may_write().map_err(revoked)?;
        let count = bytes.len();
        let result = self.inner.write(bytes);
        self.counted(count, result)
    }

    fn flush(&mut self) -> StreamResult<()> {
        let result = self.inner.flush();
        self.meter.watch(&result);
        result
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let result = self.inner.check_write();
        self.meter.watch(&result);
        result
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.meter.may_write().map_err(revoked)?;
        let count = bytes.len();
        let result = self.inner.blocking_write_and_flush(bytes).await;
        self.counted(count, result)
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

/// Reads what is in a layer's file.
pub(crate) struct ContentInput {
    pub(crate) content: Arc<Content>,
    pub(crate) position: u64,
}

/// Most bytes of one read or write.
pub(crate) const MAX_CHUNK_BYTES: usize = 64 << 10;

#[async_trait]
impl Pollable for ContentInput {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for ContentInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut buffer = vec![0; size.min(MAX_CHUNK_BYTES)];
        let read = self.content.read_at(&mut buffer, self.position);
        let count = read.map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        if count == 0 && size > 0 {
            return Err(StreamError::Closed);
        }
        buffer.truncate(count);
        self.position = self.position.saturating_add(length(count));
        Ok(buffer.into())
    }
}

/// Writes to a layer's file.
pub(crate) struct ContentOutput {
    pub(crate) content: Arc<Content>,
    /// `None` appends.
    pub(crate) position: Option<u64>,
    pub(crate) meter: Arc<Meter>,
}

#[async_trait]
impl Pollable for ContentOutput {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for ContentOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if let Err(error) = self.content.write_at(&bytes, self.position) {
            self.meter.write_failed(&error, "io");
            return Err(StreamError::LastOperationFailed(error.into()));
        }
        self.position = self.position.map(|at| at.saturating_add(length(bytes.len())));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_CHUNK_BYTES)
    }
}
