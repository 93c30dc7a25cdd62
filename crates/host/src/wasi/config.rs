//! `wasi:config`: the offered variables, each decided as `env.read`, once in a call.

use wasmtime_wasi::p2::bindings::cli::environment;

use super::served::wasi::config::store;
use crate::runtime::CallState;

impl store::Host for CallState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        let granted = environment::Host::get_environment(&mut self.wasi.cli())?;
        Ok(Ok(granted.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)))
    }

    async fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        environment::Host::get_environment(&mut self.wasi.cli()).map(Ok)
    }
}
