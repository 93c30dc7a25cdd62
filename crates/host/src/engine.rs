//! The one place where wasmtime is configured.

use wasmtime::{Config, Engine};

/// Deepest stack of a guest, in bytes.
const MAX_WASM_STACK_BYTES: usize = 512 * 1024;

/// An engine for governed components: fuel and epochs on, every wasm proposal that WASI 0.2 tools do not need off.
///
/// # Errors
/// When this machine cannot run compiled WebAssembly at all.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK_BYTES)
        // The cargo features stay on (builds without them abort on some inputs); the proposals stay off.
        .wasm_gc(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(false);
    Engine::new(&config)
}
