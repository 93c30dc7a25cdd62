//! `wasi:random`: one decision at the first use, held to the end of the call, with bounded bytes.

use std::sync::Arc;

use govrun_verdict::{Builtin, Operation};
use wasmtime::component::HasData;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::random::WasiRandomCtx;

use super::Held;
use crate::limiter::Limit;
use crate::scope::Scope;

/// Most bytes of one request.
pub(super) const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Most bytes of one call.
pub(super) const MAX_TOTAL_BYTES: u64 = 64 << 20;

pub(super) struct GovernedRandom;

impl HasData for GovernedRandom {
    type Data<'a> = RandomView<'a>;
}

pub(super) struct RandomView<'a> {
    pub(super) inner: &'a mut WasiRandomCtx,
    pub(super) held: &'a mut Held,
    pub(super) scope: &'a Arc<Scope>,
}

impl RandomView<'_> {
    fn admit(&mut self, bytes: u64) -> wasmtime::Result<()> {
        if bytes > MAX_REQUEST_BYTES {
            let detail =
                format!("{bytes} random bytes asked for at once; at most {MAX_REQUEST_BYTES} are given");
            return Err(Limit { reason: Builtin::LimitRandom, detail }.into());
        }
        if self.held.admit(self.scope, Operation::Random, bytes)? > MAX_TOTAL_BYTES {
            let detail = format!("the call drew more than {MAX_TOTAL_BYTES} random bytes");
            return Err(Limit { reason: Builtin::LimitRandom, detail }.into());
        }
        Ok(())
    }
}

impl random::Host for RandomView<'_> {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.admit(len)?;
        random::Host::get_random_bytes(self.inner, len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.admit(8)?;
        random::Host::get_random_u64(self.inner)
    }
}

impl insecure::Host for RandomView<'_> {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.admit(len)?;
        insecure::Host::get_insecure_random_bytes(self.inner, len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.admit(8)?;
        insecure::Host::get_insecure_random_u64(self.inner)
    }
}

impl insecure_seed::Host for RandomView<'_> {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.admit(16)?;
        insecure_seed::Host::insecure_seed(self.inner)
    }
}
