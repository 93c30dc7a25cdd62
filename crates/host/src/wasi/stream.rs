//! Streams over an open file: every byte counts under the grant that the file was opened with.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use govrun_verdict::Builtin;
use rustix::io::Errno;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use crate::grant::{Grant, Outcome};
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
    budget: Option<Arc<Budget>>,
}

/// What all writes of one sandboxed call together may still write.
pub(crate) struct Budget {
    left: AtomicU64,
    scope: Arc<Scope>,
}

impl Budget {
    /// `left` bytes; `scope` records the first write of a file that does not fit.
    pub(crate) fn new(left: u64, scope: Arc<Scope>) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(left), scope })
    }
}

impl Meter {
    /// `budget` is what all writes of the call together may still write.
    pub(crate) const fn new(read: Option<Grant>, write: Option<Grant>, budget: Option<Arc<Budget>>) -> Self {
        Self {
            read,
            write,
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            failed: Mutex::new(None),
            full: AtomicBool::new(false),
            budget,
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

    /// Take `bytes` from the write budget; once it was not enough, this file takes nothing any more.
    ///
    /// # Errors
    /// "No space left on device"; the first time also recorded as a refusal.
    pub(crate) fn reserve(&self, bytes: u64) -> io::Result<()> {
        let Some(budget) = &self.budget else { return Ok(()) };
        let take = |left: u64| left.checked_sub(bytes);
        let (order, full) = (Ordering::Relaxed, &self.full);
        if !full.load(order) && budget.left.fetch_update(order, order, take).is_ok() {
            return Ok(());
        }
        if !full.swap(true, order) {
            self.fail("scratch-full");
            if let Some(grant) = &self.write {
                // The refusal is for the record and the caller; the guest sees the full disk.
                let _ = budget.scope.refuse(grant.operation().clone(), Builtin::SandboxScratchFull);
            }
        }
        Err(Errno::NOSPC.into())
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

    fn note<T>(&self, result: &StreamResult<T>) {
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
            grant.finish(&Outcome { bytes_out, failed, ..Outcome::ok() });
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
        meter.note(&result);
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
        Self::counted(&self.meter, self.inner.read(size))
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
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

    fn reserve(&self, bytes: usize) -> StreamResult<()> {
        self.meter.reserve(length(bytes)).map_err(|e| StreamError::LastOperationFailed(e.into()))
    }

    fn counted(&self, count: usize, result: StreamResult<()>) -> StreamResult<()> {
        self.meter.note(&result);
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
        let count = bytes.len();
        self.reserve(count)?;
        let result = self.inner.write(bytes);
        self.counted(count, result)
    }

    fn flush(&mut self) -> StreamResult<()> {
        let result = self.inner.flush();
        self.meter.note(&result);
        result
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let result = self.inner.check_write();
        self.meter.note(&result);
        result
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        let count = bytes.len();
        self.reserve(count)?;
        let result = self.inner.blocking_write_and_flush(bytes).await;
        self.counted(count, result)
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}
