//! `govrun explain`: one decision, from the record and the policy that was in force, not from today's.

pub(crate) mod archive;
mod human;
mod story;

use std::path::Path;

use govrun_audit::read;
use govrun_verdict::DecisionId;

use crate::cli::Format;
use crate::exit::{Exit, Failure};
use crate::text::print_json;

/// Find the decision under the folder of logs and print everything that is known about it.
pub(crate) fn run(folder: &Path, id: &str, format: Format) -> Result<Exit, Failure> {
    let id =
        DecisionId::parse(id).map_err(|e| Failure::new(Exit::Usage, crate::text::plain(&e.to_string())))?;
    let unreadable =
        |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, format!("{e}; run `govrun audit verify`"));
    let found = read::find(folder, id).map_err(|e| unreadable(&e))?.ok_or_else(|| {
        let sentence = format!(
            "there is no decision `{id}` under {}; `govrun audit show --type decision --format human` lists those there are",
            folder.display()
        );
        Failure::new(Exit::Usage, sentence)
    })?;
    let explained = story::tell(folder, &found).map_err(|e| unreadable(&e))?;
    match format {
        Format::Json => print_json(&explained)?,
        Format::Human => print!("{}", human::page(&explained)),
    }
    Ok(Exit::Ok)
}
