//! `wasi:cli`: offered variables and arguments one decision each, no input, bounded output, no terminal.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use govrun_verdict::{Builtin, Operation, Stream};
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::WasiCliCtxView;
use wasmtime_wasi::p2::bindings::cli::{
    environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr,
    terminal_stdin, terminal_stdout,
};
use wasmtime_wasi::p2::pipe::{ClosedInputStream, ClosedOutputStream};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::stream::length;
use crate::grant::{Grant, Outcome};
use crate::scope::Scope;

/// Most bytes of each output stream of one call.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// What a guest printed, up to [`MAX_OUTPUT_BYTES`]. Clones share it.
#[derive(Debug, Clone, Default)]
struct OutputBuffer(Arc<Mutex<Printed>>);

#[derive(Debug, Default)]
struct Printed {
    bytes: Vec<u8>,
    overflow: bool,
}

impl OutputBuffer {
    /// True when the guest wanted to print more than fits; the rest was refused as a stream error.
    fn overflow(&self) -> bool {
        self.0.lock().is_ok_and(|printed| printed.overflow)
    }

    /// The text, safe to show on a terminal: what a terminal would obey, except line feeds and tabs, is escaped.
    fn escaped(&self) -> String {
        self.0.lock().map_or_else(|_| String::new(), |p| escape(&String::from_utf8_lossy(&p.bytes)))
    }

    fn len(&self) -> usize {
        self.0.lock().map_or(0, |printed| printed.bytes.len())
    }

    fn append(&self, bytes: &[u8]) -> StreamResult<()> {
        let mut printed = self.0.lock().map_err(|_| StreamError::Closed)?;
        let room = MAX_OUTPUT_BYTES.saturating_sub(printed.bytes.len());
        printed.bytes.extend(bytes.iter().take(room));
        if bytes.len() > room {
            printed.overflow = true;
            let full = wasmtime::format_err!("the call may print {MAX_OUTPUT_BYTES} bytes here and no more");
            return Err(StreamError::LastOperationFailed(full));
        }
        Ok(())
    }
}

/// Directional controls reorder what a reader sees; the rest are control characters proper.
fn steers(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// The buffer as a guest writes into it. The first write that does not fit is on the record.
struct Printing {
    buffer: OutputBuffer,
    scope: Arc<Scope>,
    stream: Stream,
}

#[async_trait]
impl Pollable for Printing {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Printing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let before = self.buffer.overflow();
        self.buffer.append(&bytes).inspect_err(|_| {
            if !before {
                // The refusal is for the record and the caller; the guest sees that the stream takes no more.
                let _ = self.scope.refuse(Operation::Stdio(self.stream), Builtin::LimitOutput);
            }
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // One more than fits may be asked for, so that the write itself reports the overflow.
        Ok(MAX_OUTPUT_BYTES.saturating_sub(self.buffer.len()).saturating_add(1).min(64 << 10))
    }
}

/// One output stream of the call: decided when first opened, recorded with its bytes when the call ends.
#[derive(Default)]
struct Output {
    buffer: OutputBuffer,
    grant: Option<Grant>,
    refused: bool,
}

impl Output {
    fn open(&mut self, scope: &Arc<Scope>, stream: Stream) -> DynOutputStream {
        if self.grant.is_none() && !self.refused {
            match scope.admit_now(Operation::Stdio(stream)) {
                Ok(grant) => self.grant = Some(grant),
                Err(_recorded) => self.refused = true,
            }
        }
        if self.grant.is_none() {
            return Box::new(ClosedOutputStream);
        }
        Box::new(Printing { buffer: self.buffer.clone(), scope: Arc::clone(scope), stream })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            let failed = self.buffer.overflow().then(|| "output-limit".to_owned());
            grant.finish(&Outcome { bytes_out: length(self.buffer.len()), failed, ..Outcome::ok() });
        }
    }
}

/// What is offered to the guest and what it printed.
pub(crate) struct CliState {
    env: Vec<(String, String)>,
    args: Vec<String>,
    granted_env: Option<Vec<(String, String)>>,
    granted_args: Option<Vec<String>>,
    stdout: Output,
    stderr: Output,
}

impl CliState {
    /// `env` and `args` are offers; each is decided before the guest sees it.
    pub(crate) fn new(env: Vec<(String, String)>, args: Vec<String>) -> Self {
        let (stdout, stderr) = (Output::default(), Output::default());
        Self { env, args, granted_env: None, granted_args: None, stdout, stderr }
    }

    /// What the guest printed, safe to show on a terminal.
    pub(crate) fn printed(&self, stream: Stream) -> String {
        match stream {
            Stream::Stdout => self.stdout.buffer.escaped(),
            Stream::Stderr => self.stderr.buffer.escaped(),
        }
    }
}

pub(super) struct GovernedCli;

impl HasData for GovernedCli {
    type Data<'a> = CliView<'a>;
}

pub(super) struct CliView<'a> {
    pub(super) inner: WasiCliCtxView<'a>,
    pub(super) cli: &'a mut CliState,
    pub(super) scope: &'a Arc<Scope>,
}

impl CliView<'_> {
    fn may(&self, operation: Operation) -> bool {
        // A refusal is recorded by the gate; the guest just does not see the value.
        self.scope.admit_now(operation).is_ok_and(|grant| {
            grant.finish(&Outcome::ok());
            true
        })
    }
}

impl environment::Host for CliView<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        if let Some(granted) = &self.cli.granted_env {
            return Ok(granted.clone());
        }
        let may = |(name, _): &&(String, String)| self.may(Operation::EnvRead { name: name.clone() });
        let granted: Vec<_> = self.cli.env.iter().filter(may).cloned().collect();
        self.cli.granted_env = Some(granted.clone());
        Ok(granted)
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        if let Some(granted) = &self.cli.granted_args {
            return Ok(granted.clone());
        }
        // Every program asks; where there is nothing to see there is nothing to decide.
        let granted = if !self.cli.args.is_empty() && self.may(Operation::ArgsRead) {
            self.cli.args.clone()
        } else {
            Vec::new()
        };
        self.cli.granted_args = Some(granted.clone());
        Ok(granted)
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl exit::Host for CliView<'_> {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        exit::Host::exit(&mut self.inner, status)
    }

    fn exit_with_code(&mut self, code: u8) -> wasmtime::Result<()> {
        exit::Host::exit_with_code(&mut self.inner, code)
    }
}

impl stdin::Host for CliView<'_> {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        let closed: DynInputStream = Box::new(ClosedInputStream);
        Ok(self.inner.table.push(closed)?)
    }
}

impl stdout::Host for CliView<'_> {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream = self.cli.stdout.open(self.scope, Stream::Stdout);
        Ok(self.inner.table.push(stream)?)
    }
}

impl stderr::Host for CliView<'_> {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream = self.cli.stderr.open(self.scope, Stream::Stderr);
        Ok(self.inner.table.push(stream)?)
    }
}

impl terminal_input::Host for CliView<'_> {}

impl terminal_input::HostTerminalInput for CliView<'_> {
    fn drop(&mut self, terminal: Resource<terminal_input::TerminalInput>) -> wasmtime::Result<()> {
        self.inner.table.delete(terminal).map(drop).map_err(Into::into)
    }
}

impl terminal_output::Host for CliView<'_> {}

impl terminal_output::HostTerminalOutput for CliView<'_> {
    fn drop(&mut self, terminal: Resource<terminal_output::TerminalOutput>) -> wasmtime::Result<()> {
        self.inner.table.delete(terminal).map(drop).map_err(Into::into)
    }
}

impl terminal_stdin::Host for CliView<'_> {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<terminal_input::TerminalInput>>> {
        Ok(None)
    }
}

impl terminal_stdout::Host for CliView<'_> {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

impl terminal_stderr::Host for CliView<'_> {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_terminal_is_never_steered() {
        assert_eq!(escape("plain ü\n\t"), "plain ü\n\t");
        assert_eq!(escape("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(escape("a\rb\u{9b}c\u{202e}d"), "a\\u{d}b\\u{9b}c\\u{202e}d");
    }

    proptest! {
        #[test]
        fn nothing_that_steers_is_left(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(steers));
        }

        #[test]
        fn buffers_keep_the_first_bytes_and_no_more(sizes in prop::collection::vec(0_usize..700_000, 1..6)) {
            let buffer = OutputBuffer::default();
            let mut sum = 0;
            for size in sizes {
                let fits = sum + size <= MAX_OUTPUT_BYTES;
                prop_assert_eq!(buffer.append(&vec![b'x'; size]).is_ok(), fits);
                sum = (sum + size).min(MAX_OUTPUT_BYTES);
                prop_assert_eq!(buffer.len(), sum);
                if !fits { prop_assert!(buffer.overflow()); }
            }
        }
    }
}
