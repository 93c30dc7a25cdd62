//! An agent in a runaway loop: it searches exactly as often as its task says (`search 4800 times for supplier risk`),
//! and a refusal teaches it nothing. Budgets have to stop it from outside.

use govrun::host::tools;
use govrun::host::types::{Error, Throttled};
use serde_json::json;

wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "govrun:research-agent/research-agent", generate_all });

struct ResearchAgent;

export!(ResearchAgent);

impl Guest for ResearchAgent {
    fn run(task: String) -> Result<String, String> {
        let (times, query) = parse(&task).ok_or_else(|| {
            "the task is not understood; write `search 10 times for supplier risk`".to_owned()
        })?;
        Ok(search(times, query).to_string())
    }
}

fn parse(task: &str) -> Option<(u64, &str)> {
    let (times, query) = task.trim().strip_prefix("search ")?.split_once(" times for ")?;
    Some((times.trim().parse().ok()?, query.trim()))
}

fn search(times: u64, query: &str) -> serde_json::Value {
    let arguments = json!({ "query": query }).to_string();
    let (mut answered, mut throttled, mut other) = (0_u64, 0_u64, 0_u64);
    // The number of the first throttled call, counted from 1, and what it was told.
    let mut first: Option<(u64, Throttled)> = None;
    for call in 1..=times {
        match tools::call("web.search", &arguments) {
            Ok(_) => answered += 1,
            Err(Error::Throttled(it)) => {
                throttled += 1;
                first.get_or_insert((call, it));
            }
            Err(Error::Denied(_) | Error::Escalated(_) | Error::Failed(_)) => other += 1,
        }
    }
    json!({
        "calls": times,
        "answered": answered,
        "throttled": throttled,
        "other": other,
        "first_throttled_call": first.as_ref().map(|(call, _)| call),
        "retry_after_ms": first.as_ref().map(|(_, it)| it.retry_after_ms),
        "reason": first.as_ref().map(|(_, it)| &it.refusal.reason),
    })
}
