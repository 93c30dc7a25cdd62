//! `govrun:host/tools`: another tool, as a new call of the same agent, bound by everything that binds the caller.

use std::sync::Arc;

use super::GuestError;
use super::wit::tools;
use crate::arguments::Given;
use crate::json;
use crate::runtime::{CallError, CallState};
use wasmtime::component::Val;

impl tools::Host for CallState {
    async fn list(&mut self) -> wasmtime::Result<Vec<tools::Tool>> {
        let known = self.runtime().tools().flat_map(|tool| {
            let functions = tool.component.inspected().functions.iter();
            functions.map(|f| tools::Tool {
                name: format!("{}.{}", tool.name, f.name),
                signature: f.signature.clone(),
            })
        });
        Ok(known.collect())
    }

    async fn call(&mut self, name: String, args_json: String) -> Result<String, GuestError> {
        let (runtime, scope) = (Arc::clone(self.runtime()), Arc::clone(self.scope()));
        let answer = runtime.call_from(&scope, &name, Given::Json(&args_json)).await;
        match answer {
            Ok(answer) => match answer.value {
                // The tool's own error: permitted, run, and failed by its own account.
                Some(Val::Result(Err(error))) => Err(GuestError::failed(text(error.as_deref()))),
                Some(Val::Result(Ok(value))) => {
                    Ok(value.as_deref().map_or_else(|| "null".to_owned(), |v| json::to_json(v).to_string()))
                }
                Some(value) => Ok(json::to_json(&value).to_string()),
                None => Ok("null".to_owned()),
            },
            Err(CallError::Refused(refusal)) => Err((*refusal).into()),
            Err(
                error @ (CallError::NoFunction { .. } | CallError::Arguments(_) | CallError::Failed { .. }),
            ) => Err(GuestError::failed(error)),
        }
    }
}

fn text(error: Option<&Val>) -> String {
    match error {
        Some(Val::String(s)) => s.clone(),
        Some(other) => json::to_json(other).to_string(),
        None => "the tool failed".to_owned(),
    }
}
