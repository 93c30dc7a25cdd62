//! An agent that believes everything it reads. Its task names notes (`invoices: inv-001, inv-002`); it pays every
//! request for a payment in them, the injected ones as promptly as the honest ones. What keeps the money where it is
//! has to be outside this component.

mod requests;

use govrun::host::tools;
use govrun::host::types::{Error, Refusal};
use requests::Payment;
use serde_json::{Value, json};

wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "govrun:invoice-agent/invoice-agent", generate_all });

struct InvoiceAgent;

export!(InvoiceAgent);

impl Guest for InvoiceAgent {
    fn run(task: String) -> Result<String, String> {
        let invoices = requests::invoices(&task);
        if invoices.is_empty() {
            return Err("the task names no invoices; write `invoices: inv-001, inv-002`".to_owned());
        }
        let report: Vec<Value> = invoices.iter().flat_map(|invoice| work_through(invoice)).collect();
        Ok(Value::from(report).to_string())
    }
}

/// One line of the report for each payment the invoice asks for. A refusal is a line too, and the work goes on.
fn work_through(invoice: &str) -> Vec<Value> {
    match call_tool("notes.read", &json!({ "title": invoice })) {
        Ok(text) => requests::payments(&text).iter().map(|payment| pay(invoice, payment)).collect(),
        Err(error) => vec![entry(invoice, None, &Err(error))],
    }
}

fn pay(invoice: &str, payment: &Payment) -> Value {
    let arguments = json!({ "counterparty": payment.counterparty, "amount": payment.amount });
    entry(invoice, Some(payment), &call_tool("payments.send", &arguments))
}

/// Tool results are JSON; both tools used here answer with a string.
fn call_tool(name: &str, arguments: &Value) -> Result<String, Error> {
    let answer = tools::call(name, &arguments.to_string())?;
    let value: Value = serde_json::from_str(&answer).unwrap_or_default();
    Ok(value.as_str().map_or(answer, str::to_owned))
}

fn entry(invoice: &str, payment: Option<&Payment>, result: &Result<String, Error>) -> Value {
    let mut line = match result {
        Ok(reference) => json!({ "outcome": "paid", "detail": reference }),
        Err(Error::Denied(refusal)) => refused("refused", refusal),
        Err(Error::Throttled(it)) => {
            let mut line = refused("throttled", &it.refusal);
            line["retry_after_ms"] = json!(it.retry_after_ms);
            line
        }
        Err(Error::Escalated(it)) => {
            let mut line = refused("escalated", &it.refusal);
            line["ticket"] = json!(it.ticket);
            line
        }
        Err(Error::Failed(why)) => json!({ "outcome": "failed", "detail": why }),
    };
    line["invoice"] = json!(invoice);
    line["counterparty"] = json!(payment.map(|payment| &payment.counterparty));
    line["amount"] = json!(payment.map(|payment| payment.amount));
    line
}

fn refused(outcome: &str, refusal: &Refusal) -> Value {
    json!({
        "outcome": outcome,
        "reason": refusal.reason,
        "decision": refusal.decision,
        "detail": refusal.message,
    })
}
