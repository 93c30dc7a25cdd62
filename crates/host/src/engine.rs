//! The one place where wasmtime is configured.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limiter::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES};

/// Deepest stack of a guest, in bytes.
const MAX_WASM_STACK_BYTES: usize = 512 * 1024;
/// Calls that can be instantiated at once, over all agents. Most components have one memory and two tables.
pub(crate) const MAX_CALLS: u32 = 256;
/// Core instances of all calls together: a component of a usual toolchain has four.
const POOLED_CORE_INSTANCES: u32 = MAX_CALLS * 8;
/// Tables of all calls together.
const POOLED_TABLES: u32 = MAX_CALLS * 4;
/// Largest linear memory there can be; what a call may have is in its obligations.
const MAX_MEMORY_BYTES: usize = 1 << 32;
/// What a memory keeps of its pages for the next call, zeroed: cheaper than giving them back one by one.
const RESIDENT_BYTES: usize = 256 * 1024;
/// The host's own description of one instance, in bytes. Large components need the most.
const MAX_INSTANCE_SIZE: usize = 4 << 20;

/// An engine for governed components: fuel and epochs on, every wasm proposal that WASI 0.2 tools do not need off.
///
/// Instances come out of a pool, which reserves address space and no memory. Where there is not that much address space,
/// they are made one by one, which is slower and as safe.
///
/// # Errors
/// When this machine cannot run compiled WebAssembly at all.
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    Engine::new(&config).or_else(|error| {
        tracing::warn!(%error, "there is no address space for a pool of instances; each is made by itself");
        Engine::new(&self::config())
    })
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK_BYTES)
        .memory_init_cow(true)
        // The cargo features stay on (builds without them abort on some inputs); the proposals stay off.
        .wasm_gc(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(false);
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_CALLS)
        .total_stacks(MAX_CALLS)
        .total_memories(MAX_CALLS)
        .total_core_instances(POOLED_CORE_INSTANCES)
        .total_tables(POOLED_TABLES)
        .max_core_instances_per_component(u32::try_from(MAX_INSTANCES).unwrap_or(u32::MAX))
        .max_memories_per_component(u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX))
        .max_tables_per_component(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .max_tables_per_module(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .max_memories_per_module(1)
        .max_memory_size(MAX_MEMORY_BYTES)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_component_instance_size(MAX_INSTANCE_SIZE)
        .max_core_instance_size(MAX_INSTANCE_SIZE)
        .linear_memory_keep_resident(RESIDENT_BYTES)
        .table_keep_resident(RESIDENT_BYTES)
        .max_unused_warm_slots(MAX_CALLS);
    pool
}
