//! Verdicts in the words of MCP. A refusal is an answer that the model reads, not a protocol error: it says what
//! happened, why, and what to do next.

use govrun_host::wasmtime::component::Val;
use govrun_host::{Answer, CallError, json};
use govrun_verdict::{Refusal, Verdict};
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::{Map, Value as Json, json};

/// Under this key of `_meta` every result names its decision.
const DECISION: &str = "dev.govrun/decision";

/// What the model is told of a sandboxed call.
const NOT_REAL: &str =
    "govrun: this call ran in a sandbox. Nothing real was changed or sent; what it wrote is gone.";

/// The result of a call that ran.
pub(super) fn given(answer: &Answer) -> CallToolResult {
    let (verdict, mut content) = if answer.sandboxed {
        (Verdict::Sandbox, vec![ContentBlock::text(NOT_REAL)])
    } else {
        (Verdict::Allow, Vec::new())
    };
    let mut result = match &answer.value {
        Some(Val::Result(Err(error))) => {
            content.push(ContentBlock::text(error.as_deref().map_or("failed".to_owned(), text)));
            CallToolResult::error(content)
        }
        Some(Val::Result(Ok(None))) | None => CallToolResult::success(content),
        Some(Val::Result(Ok(Some(value)))) => structured(content, value),
        Some(value) => structured(content, value),
    };
    result.meta = Some(meta(&json!({ "verdict": verdict, "decision": answer.decision.to_string() })));
    result
}

fn structured(mut content: Vec<ContentBlock>, value: &Val) -> CallToolResult {
    content.push(ContentBlock::text(text(value)));
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(json!({ "result": json::to_json(value) }));
    result
}

/// Text is itself; everything else is its JSON.
fn text(value: &Val) -> String {
    match value {
        Val::String(text) => text.clone(),
        other => json::to_json(other).to_string(),
    }
}

/// The result of a call that did not run, or did not end well.
pub(super) fn refused(error: &CallError) -> CallToolResult {
    match error {
        CallError::Refused(refusal) => refusal_of(refusal),
        CallError::NoFunction { .. } | CallError::Arguments(_) => {
            let mut result = CallToolResult::error(vec![ContentBlock::text(error.to_string())]);
            result.meta = Some(meta(&json!({ "verdict": "block", "reason": "ARGUMENTS-INVALID" })));
            result
        }
        CallError::Failed { reason, detail, decision, last_refusal } => {
            let mut said = format!("failed, {reason}: {detail} [{decision}]");
            if let Some(refusal) = last_refusal {
                said = format!("{said}\nThe last thing it was refused: {refusal}");
            }
            let mut result = CallToolResult::error(vec![ContentBlock::text(said)]);
            result.meta = Some(meta(&json!({
                "verdict": "allow", "failed": reason.as_str(), "decision": decision.to_string(),
            })));
            result
        }
    }
}

fn refusal_of(refusal: &Refusal) -> CallToolResult {
    let said = match refusal.verdict {
        Verdict::Throttle => match refusal.retry_after_ms {
            Some(ms) => format!("throttled, {refusal}. Wait {ms} ms, then repeat the call."),
            None => format!("throttled, {refusal}"),
        },
        Verdict::Escalate => match &refusal.ticket {
            Some(ticket) => format!("pending approval {ticket}, {refusal}. Repeat the same call later."),
            None => format!("not approved, {refusal}"),
        },
        Verdict::Block | Verdict::Allow | Verdict::Sandbox => format!("blocked, {refusal}"),
    };
    let mut result = CallToolResult::error(vec![ContentBlock::text(said)]);
    // The shape of a refusal is the same on every surface.
    result.meta = serde_json::to_value(refusal).ok().map(|refusal| meta(&refusal));
    result
}

fn meta(decision: &Json) -> MetaObject {
    MetaObject(Map::from_iter([(DECISION.to_owned(), decision.clone())]))
}
