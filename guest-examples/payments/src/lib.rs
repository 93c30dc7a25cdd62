//! `payments.send`: one POST to the ledger, through the host's egress gate.

use govrun::host::net::{self, Request, Response};
use govrun::host::types::{Error, Refusal};
use serde_json::{Value, json};

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "govrun:payments/payments",
    generate_all,
    // `send` is also a C function; the prefix keeps the two apart for the linker.
    export_prefix: "cm32p2||",
});

struct Payments;

export!(Payments);

impl Guest for Payments {
    fn send(counterparty: String, amount: u64) -> Result<String, String> {
        let ledger =
            std::env::var("LEDGER_URL").map_err(|_| "LEDGER_URL is not set for this tool".to_owned())?;
        let body = json!({ "counterparty": counterparty, "amount": amount }).to_string();
        let response = net::fetch(&Request {
            method: "POST".to_owned(),
            url: format!("{}/payments", ledger.trim_end_matches('/')),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.into_bytes(),
        })
        .map_err(describe)?;
        reference(&response)
    }
}

/// The ledger answers with its reference as plain text or as `{"reference": "..."}`.
fn reference(response: &Response) -> Result<String, String> {
    let text = String::from_utf8_lossy(&response.body);
    let text = text.trim();
    if !(200..300).contains(&response.status) {
        return Err(format!("the ledger answered {}: {text}", response.status));
    }
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    Ok(value["reference"].as_str().or(value.as_str()).unwrap_or(text).to_owned())
}

/// The caller is a program that must act on it, so the reason code and the decision id stay in the text.
fn describe(error: Error) -> String {
    match error {
        Error::Denied(refusal) => refused(&refusal),
        Error::Throttled(it) => format!("{}; retry after {} ms", refused(&it.refusal), it.retry_after_ms),
        Error::Escalated(it) => format!("{}; ticket {}", refused(&it.refusal), it.ticket),
        Error::Failed(why) => format!("the ledger could not be reached: {why}"),
    }
}

fn refused(refusal: &Refusal) -> String {
    format!("refused ({}): {} [decision {}]", refusal.reason, refusal.message, refusal.decision)
}
