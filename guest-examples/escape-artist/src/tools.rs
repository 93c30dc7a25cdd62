//! Misusing the way to other tools.

use serde_json::{Value, json};

use crate::govrun::host::tools;
use crate::govrun::host::types::Error;
use crate::outcome::{Attempt, Outcome, describe};

pub(crate) const ATTEMPTS: &[Attempt] = &[
    (RECURSION, recursion),
    ("tools-unregistered", || refused("call", tools::call("no-such-tool.run", "{}"))),
    ("tools-odd-names", odd_names),
    ("tools-not-json", || call_known("{not json")),
    ("tools-not-an-object", || call_known("[1, 2, 3]")),
    ("tools-unknown-argument", || call_known(r#"{"there-is-no-such-argument": 1}"#)),
    ("tools-deep-json", || call_known(&nested(200_000))),
];

const RECURSION: &str = "tools-recursion";

/// So many calls inside each other are no accident any more.
const DEEP: u64 = 100;

/// This tool's own `attempt`, whatever name it was registered under.
fn own_name() -> String {
    let known = tools::list().into_iter().map(|tool| tool.name);
    let mut own = known.filter(|name| name.ends_with(".attempt"));
    own.next().unwrap_or_else(|| "escape-artist.attempt".to_owned())
}

/// Each level calls the next until the host says no; the answer carries the depth back up.
fn recursion() -> Outcome {
    match tools::call(&own_name(), &json!({ "name": RECURSION }).to_string()) {
        Ok(answer) => {
            let depth = depth(&answer).unwrap_or(0) + 1;
            let detail = format!("depth {depth}");
            if depth >= DEEP { Outcome::escaped(detail) } else { Outcome::held(detail) }
        }
        Err(error) => Outcome::held(format!("depth 0: {}", describe(error))),
    }
}

/// The answer is a JSON string that holds this tool's JSON, whose detail starts with `depth N`.
fn depth(answer: &str) -> Option<u64> {
    let text: Value = serde_json::from_str(answer).ok()?;
    let outcome: Value = serde_json::from_str(text.as_str()?).ok()?;
    let rest = outcome["detail"].as_str()?.strip_prefix("depth ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn odd_names() -> Outcome {
    Outcome::any(
        ["", ".", "../payments.send", "payments.send\0", "PAYMENTS.SEND", "*"]
            .map(|name| refused(&format!("{name:?}"), tools::call(name, "{}"))),
    )
}

/// Arguments that no tool accepts, for a tool that exists.
fn call_known(arguments: &str) -> Outcome {
    refused("call", tools::call(&own_name(), arguments))
}

fn nested(depth: usize) -> String {
    format!("{{\"name\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
}

fn refused(what: &str, result: Result<String, Error>) -> Outcome {
    match result {
        Ok(answer) => {
            let start: String = answer.chars().take(100).collect();
            Outcome::escaped(format!("{what}: answered {start}"))
        }
        Err(error) => Outcome::held(format!("{what}: {}", describe(error))),
    }
}
