//! The tools as MCP describes them: names, schemas, and annotations that follow from what a component imports.

use std::sync::Arc;

use govrun_host::component::{Function, Inspected};
use govrun_host::coverage::Treatment;
use govrun_host::{Runtime, Tool, Who};
use govrun_verdict::Action;
use rmcp::model::{JsonObject, Tool as Described, ToolAnnotations};
use serde_json::Value as Json;

/// The tools that this principal can be permitted to call, by name.
pub(super) fn tools(runtime: &Runtime, who: &Who) -> Vec<Described> {
    let mut described: Vec<Described> = runtime
        .tools()
        .flat_map(|tool| tool.component.inspected().functions.iter().map(move |f| (tool, f)))
        .filter(|(tool, function)| runtime.reachable(who, tool, &function.name))
        .map(|(tool, function)| describe(tool, function))
        .collect();
    described.sort_by(|a, b| a.name.cmp(&b.name));
    described
}

/// The tool and function with this name, as `component.function`.
pub(super) fn find<'a>(runtime: &'a Runtime, name: &str) -> Option<(&'a Tool, String)> {
    let (component, function) = name.rsplit_once('.')?;
    let tool = runtime.tools().find(|tool| &*tool.name == component)?;
    let known = tool.component.inspected().functions.iter().any(|f| f.name == function);
    known.then(|| (tool, function.to_owned()))
}

fn describe(tool: &Tool, function: &Function) -> Described {
    let inspected = tool.component.inspected();
    let described = Described::new(
        format!("{}.{}", tool.name, function.name),
        format!("`{}{}` of the component {}.", function.name, function.signature, inspected.digest),
        object(&function.input),
    )
    .with_annotations(annotations(inspected));
    match &function.output {
        Some(output) => described.with_raw_output_schema(object(output)),
        None => described,
    }
}

fn object(schema: &Json) -> Arc<JsonObject> {
    Arc::new(schema.as_object().cloned().unwrap_or_default())
}

/// What a component cannot import, it cannot do: these hints are facts.
fn annotations(inspected: &Inspected) -> ToolAnnotations {
    let imported = |test: fn(Action) -> bool| {
        inspected.imports.iter().any(|import| match import.interface.map(|i| i.treatment) {
            Some(Treatment::Governed(actions)) => actions.iter().copied().any(test),
            Some(Treatment::Harmless(_)) | None => false,
        })
    };
    let changes = imported(Action::is_effectful);
    let leaves = imported(|action| action.is_egress() || action == Action::ToolCall);
    ToolAnnotations::new().read_only(!changes).destructive(changes).open_world(leaves)
}
