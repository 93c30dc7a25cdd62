//! `wasi:keyvalue` (the draft of 0.2.0): the offered stores, each key decided as in `govrun:host/kv`.

use wasmtime::component::Resource;

use super::served::wasi::keyvalue::{atomics, batch, store};
use crate::imports::kv::{KvFailure, label};
use crate::kv::{MAX_PAGE, Use};
use crate::runtime::CallState;

/// Most keys of one batch.
const MAX_BATCH: usize = 1_000;

/// A store by its label.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Bucket {
    label: String,
}

/// What WASI's answer may say; the reason is in the log, and `govrun:host/verdict` has it.
fn told(failure: KvFailure) -> store::Error {
    match failure {
        KvFailure::Refused(_) => store::Error::AccessDenied,
        KvFailure::Failed(error) => store::Error::Other(error.to_string()),
    }
}

type Answer<T> = wasmtime::Result<Result<T, store::Error>>;

impl store::Host for CallState {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        let label = label(&identifier);
        if self.stores.offer(&label).is_none() {
            return Ok(Err(store::Error::NoSuchStore));
        }
        Ok(Ok(self.wasi.table.push(Bucket { label })?))
    }
}

impl store::HostBucket for CallState {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let label = self.bucket(&bucket)?;
        Ok(self.kv_get(&label, key).await.map_err(told))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let label = self.bucket(&bucket)?;
        Ok(self.kv_set(&label, key, value).await.map_err(told))
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        let label = self.bucket(&bucket)?;
        Ok(self.kv_delete(&label, key).await.map(drop).map_err(told))
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        let label = self.bucket(&bucket)?;
        Ok(self.kv_get(&label, key).await.map(|value| value.is_some()).map_err(told))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Answer<store::KeyResponse> {
        let label = self.bucket(&bucket)?;
        let count = cursor.unwrap_or(0);
        let page = match self.kv_list(&label, String::new(), Use::Skip { count }).await {
            Ok(page) => page,
            Err(failure) => return Ok(Err(told(failure))),
        };
        let passed = u64::try_from(page.keys.len().min(MAX_PAGE)).unwrap_or(0);
        let cursor = page.next.is_some().then(|| count.saturating_add(passed));
        Ok(Ok(store::KeyResponse { keys: page.keys, cursor }))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.wasi.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for CallState {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        let label = self.bucket(&bucket)?;
        Ok(self.kv_increment(&label, key, delta).await.map_err(told))
    }
}

/// A batch is one use after the other: what was done before a refusal stays, as the interface says.
impl batch::Host for CallState {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let label = self.bucket(&bucket)?;
        if keys.len() > MAX_BATCH {
            return Ok(Err(too_many()));
        }
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            match self.kv_get(&label, key.clone()).await {
                Ok(value) => found.push(value.map(|value| (key, value))),
                Err(failure) => return Ok(Err(told(failure))),
            }
        }
        Ok(Ok(found))
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let label = self.bucket(&bucket)?;
        if pairs.len() > MAX_BATCH {
            return Ok(Err(too_many()));
        }
        for (key, value) in pairs {
            if let Err(failure) = self.kv_set(&label, key, value).await {
                return Ok(Err(told(failure)));
            }
        }
        Ok(Ok(()))
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let label = self.bucket(&bucket)?;
        if keys.len() > MAX_BATCH {
            return Ok(Err(too_many()));
        }
        for key in keys {
            if let Err(failure) = self.kv_delete(&label, key).await {
                return Ok(Err(told(failure)));
            }
        }
        Ok(Ok(()))
    }
}

fn too_many() -> store::Error {
    store::Error::Other(format!("a batch has at most {MAX_BATCH} keys"))
}

impl CallState {
    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<String> {
        Ok(self.wasi.table.get(bucket)?.label.clone())
    }
}
