//! `govrun:host/kv`: one key at a time of an offered store, by label.

use std::sync::Arc;

use govrun_audit::{Absorbed, AbsorbedKind};
use govrun_verdict::{Builtin, FsMode, KvOp, Operation, Refusal};
use wasmtime::component::Resource;

use super::GuestError;
use super::wit::kv;
use crate::grant::{Grant, Outcome};
use crate::kv::{Gave, KvError, MAX_KEY_BYTES, Page, Use, check_key};
use crate::runtime::CallState;

/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 128;

/// A store by its label. Making one has no effect; each use is decided.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Store {
    label: String,
}

/// Why a use of a store gave nothing.
#[derive(Debug)]
pub(crate) enum KvFailure {
    /// Policy or the host refused it, on the record.
    Refused(Box<Refusal>),
    /// It was permitted and failed.
    Failed(KvError),
}

impl From<Refusal> for KvFailure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<KvFailure> for GuestError {
    fn from(failure: KvFailure) -> Self {
        match failure {
            KvFailure::Refused(refusal) => (*refusal).into(),
            KvFailure::Failed(error) => Self::failed(error),
        }
    }
}

/// A label as long as one may be.
pub(crate) fn label(given: &str) -> String {
    given.chars().take(MAX_LABEL_BYTES).collect()
}

impl kv::Host for CallState {}

impl kv::HostStore for CallState {
    async fn new(&mut self, given: String) -> wasmtime::Result<Resource<Store>> {
        Ok(self.wasi.table.push(Store { label: label(&given) })?)
    }

    async fn get(&mut self, store: Resource<Store>, key: String) -> Result<Option<Vec<u8>>, GuestError> {
        let label = self.wasi.table.get(&store)?.label.clone();
        Ok(self.kv_get(&label, key).await?)
    }

    async fn set(&mut self, store: Resource<Store>, key: String, value: Vec<u8>) -> Result<(), GuestError> {
        let label = self.wasi.table.get(&store)?.label.clone();
        Ok(self.kv_set(&label, key, value).await?)
    }

    async fn delete(&mut self, store: Resource<Store>, key: String) -> Result<bool, GuestError> {
        let label = self.wasi.table.get(&store)?.label.clone();
        Ok(self.kv_delete(&label, key).await?)
    }

    async fn list(
        &mut self,
        store: Resource<Store>,
        prefix: String,
        cursor: Option<String>,
    ) -> Result<kv::Page, GuestError> {
        let label = self.wasi.table.get(&store)?.label.clone();
        let page = self.kv_list(&label, prefix.clone(), Use::List { prefix, after: cursor }).await?;
        Ok(kv::Page { keys: page.keys, cursor: page.next })
    }

    async fn drop(&mut self, store: Resource<Store>) -> wasmtime::Result<()> {
        self.wasi.table.delete(store)?;
        Ok(())
    }
}

impl CallState {
    pub(crate) async fn kv_get(&mut self, label: &str, key: String) -> Result<Option<Vec<u8>>, KvFailure> {
        let grant = self.admit_kv(label, KvOp::Get, &key).await?;
        match self.run_kv(label, Use::Get(key), grant.sandboxed()).await {
            Ok(Gave::Value(value)) => {
                let bytes_in = value.as_ref().map_or(0, |v| length(v.len()));
                grant.finish(&Outcome { bytes_in, ..Outcome::ok() });
                Ok(value)
            }
            other => Err(self.kv_failed(grant, other)),
        }
    }

    pub(crate) async fn kv_set(&mut self, label: &str, key: String, value: Vec<u8>) -> Result<(), KvFailure> {
        let bytes_out = length(value.len());
        let grant = self.admit_kv(label, KvOp::Set, &key).await?;
        match self.run_kv(label, Use::Set(key, value), grant.sandboxed()).await {
            Ok(Gave::Done) => {
                self.kv_changed(label, &grant, bytes_out);
                grant.finish(&Outcome { bytes_out, ..Outcome::ok() });
                Ok(())
            }
            other => Err(self.kv_failed(grant, other)),
        }
    }

    pub(crate) async fn kv_delete(&mut self, label: &str, key: String) -> Result<bool, KvFailure> {
        let grant = self.admit_kv(label, KvOp::Delete, &key).await?;
        match self.run_kv(label, Use::Delete(key), grant.sandboxed()).await {
            Ok(Gave::Was(was)) => {
                self.kv_changed(label, &grant, 0);
                grant.finish(&Outcome { rows: u64::from(was), ..Outcome::ok() });
                Ok(was)
            }
            other => Err(self.kv_failed(grant, other)),
        }
    }

    /// Adding tells the sum, so it is reading as well as writing.
    pub(crate) async fn kv_increment(
        &mut self,
        label: &str,
        key: String,
        delta: u64,
    ) -> Result<u64, KvFailure> {
        let read = self.admit_kv(label, KvOp::Get, &key).await?;
        let write = match self.admit_kv(label, KvOp::Set, &key).await {
            Ok(write) => write,
            Err(failure) => {
                read.finish(&Outcome { note: Some("not read: the write was refused"), ..Outcome::ok() });
                return Err(failure);
            }
        };
        let sandboxed = read.sandboxed() || write.sandboxed();
        match self.run_kv(label, Use::Increment(key, delta), sandboxed).await {
            Ok(Gave::Number(sum)) => {
                self.kv_changed(label, &write, 8);
                read.finish(&Outcome { bytes_in: 8, ..Outcome::ok() });
                write.finish(&Outcome { bytes_out: 8, ..Outcome::ok() });
                Ok(sum)
            }
            other => {
                read.finish(&Outcome::failed("not-incremented"));
                Err(self.kv_failed(write, other))
            }
        }
    }

    /// Keys; policy sees `about` as the key.
    pub(crate) async fn kv_list(&mut self, label: &str, about: String, what: Use) -> Result<Page, KvFailure> {
        let grant = self.admit_kv(label, KvOp::List, &about).await?;
        match self.run_kv(label, what, grant.sandboxed()).await {
            Ok(Gave::Page(page)) => {
                grant.finish(&Outcome { rows: length(page.keys.len()), ..Outcome::ok() });
                Ok(page)
            }
            other => Err(self.kv_failed(grant, other)),
        }
    }

    async fn admit_kv(&mut self, store: &str, op: KvOp, key: &str) -> Result<Grant, KvFailure> {
        let scope = Arc::clone(self.scope());
        let shown: String = key.chars().take(MAX_KEY_BYTES).collect();
        let operation = Operation::Kv { op, store: store.to_owned(), key: shown };
        let Some(offer) = self.stores.offer(store) else {
            return Err(scope.refuse(operation, Builtin::KvUnknown).into());
        };
        let writes = match op {
            KvOp::Set | KvOp::Delete => true,
            KvOp::Get | KvOp::List => false,
        };
        let listed_all = op == KvOp::List && key.is_empty();
        if !listed_all && check_key(key).is_err() {
            return Err(scope.refuse(operation, Builtin::KvLimit).into());
        }
        if writes && offer.mode == FsMode::ReadOnly {
            return Err(scope.refuse(operation, Builtin::KvReadOnly).into());
        }
        Ok(scope.admit(operation).await?)
    }

    async fn run_kv(&mut self, label: &str, what: Use, sandboxed: bool) -> Result<Gave, KvError> {
        let sandboxed = sandboxed || self.scope().sandboxed();
        self.stores.run(label, what, sandboxed).await
    }

    fn kv_changed(&mut self, label: &str, grant: &Grant, size: u64) {
        if grant.sandboxed() || self.scope().sandboxed() {
            self.absorb(Absorbed { kind: AbsorbedKind::DbChanged, subject: label.to_owned(), size });
        }
    }

    /// The end of a grant whose use failed; a bound is a refusal of its own in the log.
    fn kv_failed(&self, grant: Grant, ended: Result<Gave, KvError>) -> KvFailure {
        let operation = grant.operation().clone();
        let error = match ended {
            Err(error) => error,
            Ok(_) => KvError::Failed("the store answered something else".to_owned()),
        };
        match error {
            KvError::Key | KvError::Value | KvError::Full => {
                grant.finish(&Outcome::failed("limit"));
                self.scope().refuse(operation, Builtin::KvLimit).into()
            }
            KvError::Number | KvError::Failed(_) => {
                grant.finish(&Outcome::failed("store-failed"));
                KvFailure::Failed(error)
            }
        }
    }
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
