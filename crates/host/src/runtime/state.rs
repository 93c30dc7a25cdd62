//! Everything one store holds.

use std::sync::Arc;

use govrun_audit::Absorbed;

use super::Runtime;
use crate::databases::Databases;
use crate::kv::Stores;
use crate::limiter::Limiter;
use crate::model::Models;
use crate::scope::Scope;
use crate::wasi::WasiState;

/// Everything one store holds.
pub(crate) struct CallState {
    pub(crate) wasi: WasiState,
    pub(crate) databases: Databases,
    pub(crate) stores: Stores,
    pub(crate) models: Models,
    pub(super) limiter: Limiter,
    pub(super) runtime: Arc<Runtime>,
    pub(super) scope: Arc<Scope>,
    pub(super) absorbed: Vec<Absorbed>,
}

impl CallState {
    pub(crate) const fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub(crate) const fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Note an effect that landed in the sandbox, for the call's outcome record.
    pub(crate) fn absorb(&mut self, effect: Absorbed) {
        self.absorbed.push(effect);
    }

    /// Everything the sandbox absorbed.
    pub(super) fn absorbed(&mut self) -> Vec<Absorbed> {
        std::mem::take(&mut self.absorbed)
    }
}
