//! `govrun agent`: an agent component that works on a task with the registered tools.

use std::path::Path;

use crate::call::{self, Request};
use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::state::StateDir;

/// Run the agent's `run` with the task.
pub(crate) fn run(
    state: &StateDir,
    policy: &Path,
    agent: &str,
    component: &Path,
    task: &str,
    format: Format,
) -> Result<Exit, Failure> {
    // A WAVE string has the escapes of a JSON string.
    let task = serde_json::Value::from(task).to_string();
    let asked = format!("run({task})");
    call::run(state, &Request { policy, agent, component, call: &asked, format })
}
