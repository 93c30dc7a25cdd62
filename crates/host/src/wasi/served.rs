//! Bindings of the drafts that are served without an implementation of the engine's.

wasmtime::component::bindgen!({
    path: "wit",
    world: "govrun:served/wasi",
    imports: { default: async | trappable },
    with: { "wasi:keyvalue/store.bucket": super::keyvalue::Bucket },
    require_store_data_send: true,
});
