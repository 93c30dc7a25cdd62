//! `govrun inspect`: what a component would need, before anything of it runs.

use std::path::Path;

use govrun_host::component::{Import, Inspected};
use govrun_host::coverage::Treatment;
use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    path: &'a str,
    digest: String,
    loads: bool,
    command: bool,
    imports: Vec<ImportReport<'a>>,
    exports: Vec<ExportReport<'a>>,
}

#[derive(Serialize)]
struct ImportReport<'a> {
    name: &'a str,
    treatment: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    actions: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
}

#[derive(Serialize)]
struct ExportReport<'a> {
    name: &'a str,
    signature: &'a str,
}

/// Print the report. Exits with 6 when the component would be refused.
pub(crate) fn run(path: &Path, format: Format) -> Result<Exit, Failure> {
    let engine = govrun_host::engine().map_err(|e| Failure::new(Exit::Runtime, e))?;
    let inspected = Inspected::load(&engine, None, path).map_err(|e| Failure::new(Exit::Usage, e))?;
    let shown = path.display().to_string();
    let report = report(&shown, &inspected);
    match format {
        Format::Human => print!("{}", human(&report)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&report).map_err(|e| Failure::new(Exit::Runtime, e))?;
            println!("{text}");
        }
    }
    Ok(if report.loads { Exit::Ok } else { Exit::Check })
}

fn report<'a>(path: &'a str, inspected: &'a Inspected) -> Report<'a> {
    Report {
        schema: "govrun.inspect/v1",
        path,
        digest: inspected.digest.to_string(),
        loads: inspected.imports.iter().all(|i| i.interface.is_some()),
        command: inspected.command,
        imports: inspected.imports.iter().map(import).collect(),
        exports: inspected
            .functions
            .iter()
            .map(|f| ExportReport { name: &f.name, signature: &f.signature })
            .collect(),
    }
}

fn import(import: &Import) -> ImportReport<'_> {
    let (treatment, actions, because) = match import.interface.map(|i| i.treatment) {
        Some(Treatment::Governed(actions)) => ("governed", actions.iter().map(|a| a.name()).collect(), None),
        Some(Treatment::Harmless(why)) => ("harmless", Vec::new(), Some(why)),
        None => ("refused", Vec::new(), Some("it is not in the coverage manifest")),
    };
    ImportReport { name: &import.name, treatment, actions, because }
}

fn human(report: &Report<'_>) -> String {
    let mut lines = vec![format!("{}  {}", report.path, report.digest)];
    lines.push("imports".to_owned());
    for import in &report.imports {
        let detail = match import.because {
            Some(why) => why.to_owned(),
            None => import.actions.join(" "),
        };
        lines.push(format!("  {:<9} {:<42} {detail}", import.treatment, import.name));
    }
    lines.push("exports".to_owned());
    if report.command {
        lines.push("  wasi:cli/run (start it with `govrun run`)".to_owned());
    }
    lines.extend(report.exports.iter().map(|e| format!("  {}{}", e.name, e.signature)));
    lines.push(if report.loads {
        "loads: every import is governed or harmless".to_owned()
    } else {
        "does not load: rebuild it without the refused imports".to_owned()
    });
    lines.join("\n") + "\n"
}
