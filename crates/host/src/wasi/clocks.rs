//! `wasi:clocks`: one decision at the first use, held to the end of the call. A refusal traps: there is no fake time.

use std::sync::Arc;

use govrun_verdict::Operation;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::{self, Instant};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::{self, Datetime};

use super::Held;
use crate::scope::Scope;

pub(super) struct GovernedClocks;

impl HasData for GovernedClocks {
    type Data<'a> = ClocksView<'a>;
}

pub(super) struct ClocksView<'a> {
    pub(super) inner: WasiClocksCtxView<'a>,
    pub(super) held: &'a mut Held,
    pub(super) scope: &'a Arc<Scope>,
}

impl ClocksView<'_> {
    fn admit(&mut self) -> wasmtime::Result<()> {
        self.held.admit(self.scope, Operation::Clock, 1).map(drop)
    }
}

impl wall_clock::Host for ClocksView<'_> {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        self.admit()?;
        wall_clock::Host::now(&mut self.inner)
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        self.admit()?;
        wall_clock::Host::resolution(&mut self.inner)
    }
}

impl monotonic_clock::Host for ClocksView<'_> {
    fn now(&mut self) -> wasmtime::Result<Instant> {
        self.admit()?;
        monotonic_clock::Host::now(&mut self.inner)
    }

    fn resolution(&mut self) -> wasmtime::Result<Instant> {
        self.admit()?;
        monotonic_clock::Host::resolution(&mut self.inner)
    }

    fn subscribe_instant(&mut self, when: Instant) -> wasmtime::Result<Resource<DynPollable>> {
        self.admit()?;
        monotonic_clock::Host::subscribe_instant(&mut self.inner, when)
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.admit()?;
        monotonic_clock::Host::subscribe_duration(&mut self.inner, nanoseconds)
    }
}
