//! Plain WASI 0.2 as components get it: wrapper views that ask the gate and then delegate to wasmtime-wasi.
//!
//! Linked one by one, so that nothing is there that the coverage manifest does not name.

use std::sync::Arc;

use govrun_verdict::{Operation, Stream};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::cli::{WasiCli, WasiCliCtxView};
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::p2::pipe::{ClosedOutputStream, MemoryOutputPipe};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};

use crate::grant::{Grant, Outcome};
use crate::runtime::{CallState, Offers};
use crate::scope::Scope;

/// Most bytes of each output stream of one call.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Most random bytes of one request.
const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// Most random bytes of one call.
const MAX_RANDOM_TOTAL: u64 = 64 << 20;

/// The WASI side of one call's store.
pub(crate) struct WasiState {
    ctx: WasiCtx,
    pub(crate) table: ResourceTable,
    scope: Arc<Scope>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    stdout: MemoryOutputPipe,
    stderr: MemoryOutputPipe,
    clock: Held,
    random: Held,
}

/// A grant that is asked for once and held to the end of the call.
#[derive(Default)]
struct Held {
    grant: Option<Grant>,
    uses: u64,
}

impl Held {
    /// INVARIANT: no use without the grant. A refusal is a trap, because these functions cannot return an error and a
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

impl WasiState {
    pub(crate) fn new(scope: Arc<Scope>, offers: &Offers) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            ctx: WasiCtx::builder().build(),
            table,
            scope,
            env: offers.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            args: offers.args.clone(),
            stdout: MemoryOutputPipe::new(MAX_OUTPUT_BYTES),
            stderr: MemoryOutputPipe::new(MAX_OUTPUT_BYTES),
            clock: Held::default(),
            random: Held::default(),
        }
    }

    /// What the guest printed, safe to show on a terminal.
    pub(crate) fn printed(&self, stream: Stream) -> String {
        let pipe = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        escape(&String::from_utf8_lossy(&pipe.contents()))
    }

    fn cli(&mut self) -> WasiCliCtxView<'_> {
        WasiCliCtxView { ctx: self.ctx.cli(), table: &mut self.table }
    }

    fn clocks(&mut self) -> WasiClocksCtxView<'_> {
        WasiClocksCtxView { ctx: self.ctx.clocks(), table: &mut self.table }
    }

    /// An output stream of the call's own buffer, or one that is closed when policy refuses it.
    fn output(&mut self, stream: Stream) -> wasmtime::Result<Resource<DynOutputStream>> {
        let boxed: DynOutputStream = match self.scope.admit_now(Operation::Stdio(stream)) {
            Ok(grant) => {
                grant.finish(&Outcome::ok());
                match stream {
                    Stream::Stdout => Box::new(self.stdout.clone()),
                    Stream::Stderr => Box::new(self.stderr.clone()),
                }
            }
            Err(_) => Box::new(ClosedOutputStream),
        };
        Ok(self.table.push(boxed)?)
    }
}

/// Most resources (streams, pollables, errors, connections) that one call holds at once.
const MAX_RESOURCES: usize = 10_000;

/// Everything but line breaks and tabs that a terminal would obey is shown as an escape.
fn escape(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if steers(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
        out
    })
}

impl cli::environment::Host for WasiState {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        let mut seen = Vec::new();
        for (name, value) in &self.env {
            if let Ok(grant) = self.scope.admit_now(Operation::EnvRead { name: name.clone() }) {
                grant.finish(&Outcome::ok());
                seen.push((name.clone(), value.clone()));
            }
        }
        Ok(seen)
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        if self.args.is_empty() {
            return Ok(Vec::new());
        }
        match self.scope.admit_now(Operation::ArgsRead) {
            Ok(grant) => {
                grant.finish(&Outcome::ok());
                Ok(self.args.clone())
            }
            Err(_) => Ok(Vec::new()),
        }
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for WasiState {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        cli::exit::Host::exit(&mut self.cli(), status)
    }

    fn exit_with_code(&mut self, code: u8) -> wasmtime::Result<()> {
        cli::exit::Host::exit_with_code(&mut self.cli(), code)
    }
}

impl cli::stdin::Host for WasiState {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        // The context was built without one: empty from the start.
        cli::stdin::Host::get_stdin(&mut self.cli())
    }
}

impl cli::stdout::Host for WasiState {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.output(Stream::Stdout)
    }
}

impl cli::stderr::Host for WasiState {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.output(Stream::Stderr)
    }
}

impl WasiState {
    fn tick(&mut self) -> wasmtime::Result<()> {
        self.clock.admit(&self.scope, Operation::Clock, 1).map(|_| ())
    }

    fn draw(&mut self, bytes: u64) -> wasmtime::Result<()> {
        let total = self.random.admit(&self.scope, Operation::Random, bytes)?;
        if bytes > MAX_RANDOM_BYTES || total > MAX_RANDOM_TOTAL {
            return Err(wasmtime::Error::msg("more random bytes than one call may draw"));
        }
        Ok(())
    }
}

impl clocks::wall_clock::Host for WasiState {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        self.tick()?;
        clocks::wall_clock::Host::now(&mut self.clocks())
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        clocks::wall_clock::Host::resolution(&mut self.clocks())
    }
}

impl clocks::monotonic_clock::Host for WasiState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.tick()?;
        clocks::monotonic_clock::Host::now(&mut self.clocks())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        clocks::monotonic_clock::Host::resolution(&mut self.clocks())
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.tick()?;
        clocks::monotonic_clock::Host::subscribe_instant(&mut self.clocks(), when)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.tick()?;
        clocks::monotonic_clock::Host::subscribe_duration(&mut self.clocks(), duration)
    }
}

impl random::random::Host for WasiState {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.draw(len)?;
        random::random::Host::get_random_bytes(self.ctx.random(), len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.draw(8)?;
        random::random::Host::get_random_u64(self.ctx.random())
    }
}

impl random::insecure::Host for WasiState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.draw(len)?;
        random::insecure::Host::get_insecure_random_bytes(self.ctx.random(), len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.draw(8)?;
        random::insecure::Host::get_insecure_random_u64(self.ctx.random())
    }
}

impl random::insecure_seed::Host for WasiState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.draw(16)?;
        random::insecure_seed::Host::insecure_seed(self.ctx.random())
    }
}

/// Views of a [`WasiState`] for the linker.
struct Governed;

impl HasData for Governed {
    type Data<'a> = &'a mut WasiState;
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Link plain WASI 0.2: exactly the interfaces of the coverage manifest.
///
/// No directory is preopened, so the filesystem interfaces link and can reach nothing.
pub(crate) fn add_to_linker(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<CallState, Table>(l, |s| &mut s.wasi.table)?;
    io::poll::add_to_linker::<CallState, Table>(l, |s| &mut s.wasi.table)?;
    io::streams::add_to_linker::<CallState, Table>(l, |s| &mut s.wasi.table)?;
    cli::environment::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    cli::exit::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    cli::stdin::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    cli::stdout::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    cli::stderr::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    // No stream of the context is a terminal, so these answer `none`.
    cli::terminal_input::add_to_linker::<CallState, WasiCli>(l, |s| s.wasi.cli())?;
    cli::terminal_output::add_to_linker::<CallState, WasiCli>(l, |s| s.wasi.cli())?;
    cli::terminal_stdin::add_to_linker::<CallState, WasiCli>(l, |s| s.wasi.cli())?;
    cli::terminal_stdout::add_to_linker::<CallState, WasiCli>(l, |s| s.wasi.cli())?;
    cli::terminal_stderr::add_to_linker::<CallState, WasiCli>(l, |s| s.wasi.cli())?;
    clocks::wall_clock::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    clocks::monotonic_clock::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    random::random::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    random::insecure::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    random::insecure_seed::add_to_linker::<CallState, Governed>(l, |s| &mut s.wasi)?;
    filesystem::types::add_to_linker::<CallState, WasiFilesystem>(l, |s| files(&mut s.wasi))?;
    filesystem::preopens::add_to_linker::<CallState, WasiFilesystem>(l, |s| files(&mut s.wasi))
}

fn files(state: &mut WasiState) -> WasiFilesystemCtxView<'_> {
    WasiFilesystemCtxView { ctx: state.ctx.filesystem(), table: &mut state.table }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn terminal_control_is_shown_and_not_obeyed() {
        assert_eq!(escape("a\tb\nc"), "a\tb\nc");
        assert_eq!(escape("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(escape("x\ry"), "x\\u{d}y");
        assert_eq!(escape("\u{9b}1m\u{202e}"), "\\u{9b}1m\\u{202e}");
    }
}
