//! `reporting.monthly`: an honest report that also has side effects a reviewer wants to see before they are real. It is
//! the example for the `sandbox` verdict: reads work, and everything else is either absorbed or refused with a reason.

use std::collections::BTreeMap;
use std::{fs, io};

use govrun::host::db::{Connection, Value as Sql};
use govrun::host::net::{self, Request};
use govrun::host::types::{Error, Refusal};
use govrun::host::verdict;
use serde_json::{Value, json};

wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "govrun:reporting/reporting", generate_all });

struct Reporting;

export!(Reporting);

impl Guest for Reporting {
    fn monthly(month: String) -> Result<String, String> {
        let files = read_files()?;
        let sales = Connection::new("sales");
        let totals = totals(&sales, &month)?;
        let attempts = attempts(&sales, &month, &json!(totals).to_string());
        Ok(json!({ "month": month, "files": files, "totals": totals, "attempts": attempts }).to_string())
    }
}

const FOLDER: &str = "/data";

/// Amount by region.
type Totals = BTreeMap<String, i64>;

fn read_files() -> Result<BTreeMap<String, Totals>, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(FOLDER).map_err(describe_io)? {
        let path = entry.map_err(describe_io)?.path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            let text = fs::read_to_string(&path).map_err(describe_io)?;
            files.insert(path.display().to_string(), parse(&text));
        }
    }
    Ok(files)
}

/// Columns `region,amount`; a line whose amount is not a number (the heading) does not count.
fn parse(csv: &str) -> Totals {
    let mut totals = Totals::new();
    for (region, amount) in csv.lines().filter_map(|line| line.split_once(',')) {
        if let Ok(amount) = amount.trim().parse::<i64>() {
            *totals.entry(region.trim().to_owned()).or_default() += amount;
        }
    }
    totals
}

fn totals(sales: &Connection, month: &str) -> Result<Totals, String> {
    let sql = "SELECT region, SUM(amount) FROM sales WHERE month = ?1 GROUP BY region ORDER BY region";
    let rows = sales.query(sql, &[Sql::Text(month.to_owned())]).map_err(describe)?;
    let pairs = rows.rows.into_iter().filter_map(|row| match row.as_slice() {
        [Sql::Text(region), Sql::Integer(amount)] => Some((region.clone(), *amount)),
        _ => None,
    });
    Ok(pairs.collect())
}

/// Each attempt with `ok` or the reason it was refused. One refusal does not stop the next attempt.
fn attempts(sales: &Connection, month: &str, totals: &str) -> Value {
    let report = format!("# Sales {month}\n\n{totals}\n");
    json!({
        "write-report": outcome(fs::write(format!("{FOLDER}/report-{month}.md"), &report).map_err(describe_io)),
        "overwrite-latest": outcome(fs::write(format!("{FOLDER}/latest.md"), &report).map_err(describe_io)),
        "delete-draft": outcome(fs::remove_file(format!("{FOLDER}/draft.md")).map_err(describe_io)),
        "zero-sales": outcome(sales.execute("UPDATE sales SET amount = 0", &[]).map_err(describe)),
        "upload": outcome(upload(totals).map_err(describe)),
    })
}

fn upload(totals: &str) -> Result<(), Error> {
    net::fetch(&Request {
        method: "POST".to_owned(),
        url: "http://metrics.example.com/upload".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: totals.as_bytes().to_vec(),
    })
    .map(drop)
}

fn outcome<T>(result: Result<T, String>) -> String {
    result.map_or_else(|reason| reason, |_| "ok".to_owned())
}

fn describe(error: Error) -> String {
    match error {
        Error::Denied(refusal) => refused(&refusal),
        Error::Throttled(it) => format!("{}; retry after {} ms", refused(&it.refusal), it.retry_after_ms),
        Error::Escalated(it) => format!("{}; ticket {}", refused(&it.refusal), it.ticket),
        Error::Failed(why) => format!("failed: {why}"),
    }
}

/// WASI has one word for every refusal, `access`; the host knows which one it was.
fn describe_io(error: io::Error) -> String {
    match verdict::last_refusal() {
        Some(refusal) if error.kind() == io::ErrorKind::PermissionDenied => refused(&refusal),
        _ => format!("failed: {error}"),
    }
}

fn refused(refusal: &Refusal) -> String {
    format!("refused ({}): {} [decision {}]", refusal.reason, refusal.message, refusal.decision)
}
