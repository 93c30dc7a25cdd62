//! `govrun audit disclose`: one field of one record.

use std::path::Path;

use govrun_audit::Opening;
use govrun_audit::form::body::{Body, Field};
use govrun_audit::read;
use govrun_verdict::DecisionId;
use serde_json::json;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::text::{plain, plain_json, print_json};

/// Print the value of a field with what proves it: nothing for one in clear, the salt of its commitment otherwise.
pub(crate) fn run(folder: &Path, record: &str, field: &str, format: Format) -> Result<Exit, Failure> {
    let usage = |sentence: String| Failure::new(Exit::Usage, sentence);
    let unreadable =
        |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, format!("{e}; run `govrun audit verify`"));
    let id = DecisionId::parse(record).map_err(|e| usage(plain(&e.to_string())))?;
    let found = read::record(folder, id).map_err(|e| unreadable(&e))?;
    let found =
        found.ok_or_else(|| usage(format!("there is no record `{id}` under {}", folder.display())))?;
    let mut scratch = Vec::new();
    let body = found.body(&mut scratch).map_err(|e| unreadable(&e))?;
    let fields = fields(&body);
    let wanted = fields.iter().find(|f| *f.name == *field).ok_or_else(|| {
        let names: Vec<&str> = fields.iter().map(|f| &*f.name).collect();
        usage(format!("record {id} has no field `{}`; it has: {}", plain(field), plain(&names.join(", "))))
    })?;
    let openings = read::openings(folder, id).map_err(|e| unreadable(&e))?;
    let opening = wanted.commitment.as_ref().map(|commitment| {
        openings.iter().find(|o| *o.field == *field && o.opens(&commitment.0)).ok_or_else(|| {
            let sentence =
                format!("`{}` of record {id} is committed to, and no opening is left", plain(field));
            Failure::new(Exit::Check, sentence)
        })
    });
    print(id, wanted, opening.transpose()?, format)
}

fn print(
    id: DecisionId,
    field: &Field<'_>,
    opening: Option<&Opening<'static>>,
    format: Format,
) -> Result<Exit, Failure> {
    let value = match opening {
        Some(opening) => json!(opening.value),
        None => json!(field.clear),
    };
    match format {
        Format::Json => print_json(&json!({
            "schema": "govrun.audit-disclose/v1",
            "record": id.to_string(),
            "field": &*field.name,
            "value": value,
            "commitment": field.commitment.as_ref().map(ToString::to_string),
            "salt": opening.map(|o| o.salt.to_string()),
        }))?,
        Format::Human => {
            println!("{} = {}", plain(&field.name), plain_json(&value.to_string()));
            match (&field.commitment, opening) {
                (Some(commitment), Some(opening)) => {
                    println!("  opens the commitment {commitment}\n  with the salt {}", opening.salt);
                }
                (Some(_) | None, _) => println!("  is in the record in clear"),
            }
        }
    }
    Ok(Exit::Ok)
}

fn fields<'a>(body: &'a Body<'_>) -> Vec<&'a Field<'a>> {
    match body {
        Body::Decision(d) => d.inputs.fields.iter().collect(),
        Body::Outcome(o) => o.absorbed.iter().map(|a| &a.subject).collect(),
        Body::Genesis(_)
        | Body::PolicyLoad(_)
        | Body::Escalation(_)
        | Body::Approval(_)
        | Body::Recover(_)
        | Body::IoError(_)
        | Body::ModeChange(_)
        | Body::Drill(_)
        | Body::KeyEpoch(_)
        | Body::Gap(_)
        | Body::Heartbeat(_)
        | Body::ClockStep(_)
        | Body::Open(_)
        | Body::Close(_) => Vec::new(),
    }
}
