//! What a caller passes to a function, in the two forms callers have: WAVE on a command line, JSON from a tool.

use govrun_verdict::Value;
use wasmtime::component::types::ComponentFunc;
use wasmtime::component::wasm_wave::untyped::UntypedFuncCall;
use wasmtime::component::{Type, Val};

use crate::json;

/// Longest text of arguments, in bytes.
pub const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;

/// Arguments as given, not yet typed.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// `send("ACME", 48000)`: the function's name and its arguments in WAVE, by position.
    Wave(&'a str),
    /// `{"counterparty": "ACME", "amount": 48000}`: a JSON object by parameter name.
    Json(&'a str),
}

/// Typed arguments, by parameter name and in the order of the parameters.
#[derive(Debug, Clone)]
pub struct Arguments(Vec<(String, Val)>);

/// Arguments that do not fit the function. The text names the place and the signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArgumentError(String);

/// The function's name in a WAVE call, such as `send` in `send("ACME", 1)`.
///
/// # Errors
/// When the text is not a call.
pub fn function_name(call: &str) -> Result<String, ArgumentError> {
    UntypedFuncCall::parse(call)
        .map(|parsed| parsed.name().to_owned())
        .map_err(|e| ArgumentError(format!("`{call}` is not a call such as `send(\"ACME\", 1)`: {e}")))
}

impl Arguments {
    /// Type what was given by the function's parameters.
    ///
    /// # Errors
    /// [`ArgumentError`] when it does not fit.
    pub fn parse(function: &ComponentFunc, given: Given<'_>) -> Result<Self, ArgumentError> {
        let params: Vec<(String, Type)> = function.params().map(|(n, t)| (n.to_owned(), t)).collect();
        let (Given::Wave(text) | Given::Json(text)) = given;
        if text.len() > MAX_ARGUMENT_BYTES {
            return Err(ArgumentError(format!(
                "the arguments have {} bytes, more than the {MAX_ARGUMENT_BYTES} that are accepted",
                text.len()
            )));
        }
        let typed = match given {
            Given::Wave(text) => wave(&params, text),
            Given::Json(text) => by_name(&params, text),
        };
        typed.map(Self).map_err(|what| {
            let wanted: Vec<String> =
                params.iter().map(|(n, t)| format!("{n}: {}", crate::value::wit_type(t))).collect();
            ArgumentError(format!("{what}; the parameters are ({})", wanted.join(", ")))
        })
    }

    /// The arguments as policy sees them.
    #[must_use]
    pub fn to_policy(&self) -> Value {
        Value::Record(self.0.iter().map(|(n, v)| (n.clone(), crate::value::to_policy(v))).collect())
    }

    /// The values by position, for the call.
    #[must_use]
    pub fn into_vals(self) -> Vec<Val> {
        self.0.into_iter().map(|(_, v)| v).collect()
    }
}

fn wave(params: &[(String, Type)], text: &str) -> Result<Vec<(String, Val)>, String> {
    let call = UntypedFuncCall::parse(text).map_err(|e| e.to_string())?;
    let types: Vec<Type> = params.iter().map(|(_, t)| t.clone()).collect();
    let vals: Vec<Val> = call.to_wasm_params(types.iter()).map_err(|e| e.to_string())?;
    Ok(params.iter().map(|(n, _)| n.clone()).zip(vals).collect())
}

fn by_name(params: &[(String, Type)], text: &str) -> Result<Vec<(String, Val)>, String> {
    // serde_json refuses nesting beyond 128 levels, so this recursion and ours are bounded.
    let given: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))?;
    json::arguments(params.iter().map(|(n, t)| (n.as_str(), t.clone())), &given).map_err(|e| e.to_string())
}
