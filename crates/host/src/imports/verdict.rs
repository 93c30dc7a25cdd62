//! `govrun:host/verdict`: what this call was already told. It decides nothing and reaches nothing.

use super::wit::{types, verdict};
use crate::runtime::CallState;

impl verdict::Host for CallState {
    async fn last_refusal(&mut self) -> wasmtime::Result<Option<types::Refusal>> {
        Ok(self.scope().last_refusal().as_ref().map(super::tell))
    }

    async fn sandboxed(&mut self) -> wasmtime::Result<bool> {
        Ok(self.scope().sandboxed())
    }
}
