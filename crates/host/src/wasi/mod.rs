//! Plain WASI 0.2 as components get it: views that ask the gate and then delegate to wasmtime-wasi.
//!
//! Interfaces are linked one by one, so that nothing is there that the coverage manifest does not name.

mod cli;
mod clocks;
mod config;
mod descriptor;
mod fs;
mod http;
mod keyvalue;
mod layered;
mod listing;
mod open;
mod paths;
mod random;
mod served;
mod sockets;
mod stream;
mod whole;

use std::sync::Arc;

use govrun_verdict::Operation;
use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::cli::WasiCliCtxView;
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::p2::bindings;

pub(crate) use self::cli::CliState;
pub(crate) use self::fs::{FsState, FsView, Lost, Root};

use self::cli::{CliView, GovernedCli};
use self::clocks::{ClocksView, GovernedClocks};
use self::fs::GovernedFs;
use self::http::HttpState;
use self::random::{GovernedRandom, RandomView};
use self::sockets::Sockets;
use crate::grant::{Grant, Outcome};
use crate::net::NetCall;
use crate::overlay::Layer;
use crate::runtime::CallState;
use crate::scope::Scope;

/// Most resources (streams, descriptors, pollables, errors, connections) that one call holds at once.
const MAX_RESOURCES: usize = 10_000;

/// The WASI side of one call's store.
pub(crate) struct WasiState {
    /// What the views delegate to: the preopens of `fs`, nothing else.
    ctx: WasiCtx,
    /// Everything the guest holds.
    pub(crate) table: ResourceTable,
    scope: Arc<Scope>,
    fs: FsState,
    /// What is offered and printed.
    pub(crate) cli: CliState,
    // Before `net`: a socket that the guest left open was closed, not cancelled.
    sockets: Sockets,
    http: HttpState,
    /// What it does in the network. Ends with the call, whatever is still going on.
    pub(crate) net: NetCall,
    clock: Held,
    random: Held,
}

impl WasiState {
    /// The state of one call.
    ///
    /// # Errors
    /// When a preopened directory cannot be opened.
    pub(crate) fn new(scope: Arc<Scope>, fs: FsState, cli: CliState, net: NetCall) -> wasmtime::Result<Self> {
        let mut builder = WasiCtx::builder();
        // Small file operations are several times faster without a thread hop; a call has its worker to itself.
        builder.allow_blocking_current_thread(true);
        fs.preopen_into(&mut builder)?;
        let http = HttpState::new(net.client());
        let sockets = Sockets::new(net.client(), &mut builder);
        let ctx = builder.build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Ok(Self {
            ctx,
            table,
            scope,
            fs,
            cli,
            net,
            http,
            sockets,
            clock: Held::default(),
            random: Held::default(),
        })
    }

    /// The governed files, for `wasi:filesystem` and `govrun:host/fs` alike.
    pub(crate) fn fs(&mut self) -> FsView<'_> {
        let inner = WasiFilesystemCtxView { ctx: self.ctx.filesystem(), table: &mut self.table };
        FsView { inner, fs: &mut self.fs, scope: &self.scope }
    }

    /// See [`FsState::landed`].
    pub(crate) fn landed(&mut self) -> Result<Option<(Layer, Vec<String>)>, Lost> {
        self.fs.landed()
    }

    fn cli(&mut self) -> CliView<'_> {
        let inner = WasiCliCtxView { ctx: self.ctx.cli(), table: &mut self.table };
        CliView { inner, cli: &mut self.cli, scope: &self.scope }
    }

    fn clocks(&mut self) -> ClocksView<'_> {
        let inner = WasiClocksCtxView { ctx: self.ctx.clocks(), table: &mut self.table };
        ClocksView { inner, held: &mut self.clock, scope: &self.scope }
    }

    fn random(&mut self) -> RandomView<'_> {
        RandomView { inner: self.ctx.random(), held: &mut self.random, scope: &self.scope }
    }
}

/// A grant that is asked for at the first use and held to the end of the call.
#[derive(Default)]
struct Held {
    grant: Option<Grant>,
    uses: u64,
}

impl Held {
    /// Count `amount` under the grant and return the sum so far.
    ///
    /// INVARIANT: no use without the grant. A refusal traps, because these functions cannot return an error and a
    /// made-up time or number would be worse.
    fn admit(&mut self, scope: &Arc<Scope>, operation: Operation, amount: u64) -> wasmtime::Result<u64> {
        if self.grant.is_none() {
            let grant = scope.admit_now(operation).map_err(|r| wasmtime::Error::msg(r.to_string()))?;
            self.grant = Some(grant);
        }
        self.uses = self.uses.saturating_add(amount);
        Ok(self.uses)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            grant.finish(&Outcome { rows: self.uses, ..Outcome::ok() });
        }
    }
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Link the drafts, for the call's state itself: its stores and databases are not WASI's alone.
fn add_served(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    use served::wasi::{config, keyvalue};
    keyvalue::store::add_to_linker::<_, HasSelf<CallState>>(l, |s| s)?;
    keyvalue::atomics::add_to_linker::<_, HasSelf<CallState>>(l, |s| s)?;
    keyvalue::batch::add_to_linker::<_, HasSelf<CallState>>(l, |s| s)?;
    config::store::add_to_linker::<_, HasSelf<CallState>>(l, |s| s)
}

/// Link every governed and harmless interface of WASI 0.2.
///
/// # Errors
/// When an interface is linked already.
pub(crate) fn add_to_linker(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    use bindings::{cli, clocks, filesystem, io, random};
    add_served(l)?;
    http::add_to_linker(l)?;
    sockets::add_to_linker(l)?;
    // Harmless: they move and await what was granted, and metered, where it was opened.
    io::error::add_to_linker::<CallState, Table>(l, |s| &mut s.wasi.table)?;
    io::poll::add_to_linker::<CallState, Table>(l, |s| &mut s.wasi.table)?;
    io::streams::add_to_linker::<CallState, Table>(l, |s| &mut s.wasi.table)?;
    clocks::wall_clock::add_to_linker::<CallState, GovernedClocks>(l, |s| s.wasi.clocks())?;
    clocks::monotonic_clock::add_to_linker::<CallState, GovernedClocks>(l, |s| s.wasi.clocks())?;
    random::random::add_to_linker::<CallState, GovernedRandom>(l, |s| s.wasi.random())?;
    random::insecure::add_to_linker::<CallState, GovernedRandom>(l, |s| s.wasi.random())?;
    random::insecure_seed::add_to_linker::<CallState, GovernedRandom>(l, |s| s.wasi.random())?;
    filesystem::types::add_to_linker::<CallState, GovernedFs>(l, |s| s.wasi.fs())?;
    filesystem::preopens::add_to_linker::<CallState, GovernedFs>(l, |s| s.wasi.fs())?;
    cli::environment::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::exit::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::stdin::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::stdout::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::stderr::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::terminal_input::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::terminal_output::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::terminal_stdin::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::terminal_stdout::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())?;
    cli::terminal_stderr::add_to_linker::<CallState, GovernedCli>(l, |s| s.wasi.cli())
}
