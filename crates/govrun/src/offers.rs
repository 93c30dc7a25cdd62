//! What a tool is offered, with the references of its registration followed.

use std::path::Path;
use std::sync::Arc;

use govrun_host::kv::StoreOffer;
use govrun_host::model::ModelOffer;
use govrun_host::net::Secret;
use govrun_host::postgres::{PostgresOffer, Server};
use govrun_host::{DatabaseOffer, Hidden, Offers};
use govrun_policy::{DatabaseSource, PostgresServer, SecretRef, ToolEntry};

use crate::egress::{egress, secrets};
use crate::exit::{Exit, Failure};
use crate::tools::directory;

/// Longest secret that is read from a file, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The offers of a registered tool; `entry` has absolute paths.
pub(crate) fn offers(entry: &ToolEntry) -> Result<Offers, Failure> {
    Ok(Offers {
        env: entry.env.clone(),
        args: Vec::new(),
        databases: entry
            .databases
            .iter()
            .map(|d| Ok((d.label.to_string(), database(&entry.name, d)?)))
            .collect::<Result<_, Failure>>()?,
        models: entry
            .models
            .iter()
            .map(|m| Ok((m.name.to_string(), model(&entry.name, m)?)))
            .collect::<Result<_, Failure>>()?,
        stores: entry
            .stores
            .iter()
            .map(|s| (s.label.to_string(), StoreOffer { mode: s.mode, max_bytes: s.max_bytes.get() }))
            .collect(),
        dirs: entry.dirs.iter().map(|dir| directory(&entry.name, dir)).collect::<Result<_, _>>()?,
        egress: Arc::new(egress(entry)?),
        secrets: secrets(entry)?,
    })
}

fn database(tool: &str, offer: &govrun_policy::DatabaseOffer) -> Result<DatabaseOffer, Failure> {
    Ok(match &offer.source {
        DatabaseSource::Sqlite(path) => DatabaseOffer::Sqlite(path.as_ref().into(), offer.mode),
        DatabaseSource::Postgres { server: at, password, replica, functions, rollback } => {
            let password = match password {
                Some(reference) => secret(tool, &offer.label, reference)?,
                None => String::new(),
            };
            DatabaseOffer::Postgres(Arc::new(PostgresOffer {
                server: server(at),
                password: Hidden::new(&password),
                mode: offer.mode,
                replica: replica.as_ref().map(server),
                functions: functions.clone(),
                rollback: rollback.clone(),
            }))
        }
    })
}

fn model(tool: &str, offer: &govrun_policy::ModelOffer) -> Result<ModelOffer, Failure> {
    let registered = |error: &dyn std::fmt::Display| {
        let sentence =
            format!("model `{}` of tool `{tool}`: {error}; correct the [[tool]] entry", offer.name);
        Failure::new(Exit::Configuration, sentence)
    };
    let key = offer.key.as_ref().map(|reference| secret(tool, &offer.name, reference)).transpose()?;
    let key = key.map(Secret::new).transpose().map_err(|error| registered(&error))?;
    ModelOffer::new(&offer.url, &offer.model, key, offer.max_tokens.get()).map_err(|error| registered(&error))
}

fn server(at: &PostgresServer) -> Server {
    Server {
        host: at.host.to_string(),
        port: at.port,
        database: at.database.to_string(),
        user: at.user.to_string(),
    }
}

/// What a reference names. The sentence of a failure has the reference in it, never a secret.
#[expect(
    clippy::disallowed_methods,
    reason = "secrets come by reference; this is where the reference is followed"
)]
fn secret(tool: &str, label: &str, reference: &SecretRef) -> Result<String, Failure> {
    let missing = |what: String| {
        Failure::new(
            Exit::Configuration,
            format!(
                "`{label}` of tool `{tool}` needs a secret: {what}; set it, or correct the [[tool]] entry"
            ),
        )
    };
    match reference {
        SecretRef::Env(name) => {
            std::env::var(&**name).map_err(|_| missing(format!("the environment variable {name} is not set")))
        }
        SecretRef::File(path) => {
            let unreadable = |why: String| missing(format!("the file `{path}` cannot be read ({why})"));
            let size = std::fs::metadata(Path::new(&**path)).map_err(|e| unreadable(e.to_string()))?.len();
            if size > MAX_SECRET_BYTES {
                return Err(unreadable("it is too large".to_owned()));
            }
            let text = std::fs::read_to_string(Path::new(&**path)).map_err(|e| unreadable(e.to_string()))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}
