//! How a tool reaches the network, with the references of its registration followed.

use std::sync::Arc;

use govrun_host::net::{Egress, Secret, SecretOffer, SystemResolver, Tls};
use govrun_policy::{SecretSource, SecretUse, ToolEntry};

use crate::exit::{Exit, Failure};

/// How the tool reaches the network: whose certificates are believed.
pub(crate) fn egress(entry: &ToolEntry) -> Result<Egress, Failure> {
    let Some(path) = &entry.ca else { return Ok(Egress::default()) };
    let wrong = |error: &dyn std::fmt::Display| {
        let sentence = format!(
            "the certificates `{}` of tool `{}` cannot be used: {error}; correct `ca` of the [[tool]] entry",
            path.display(),
            entry.name
        );
        Failure::new(Exit::Configuration, sentence)
    };
    let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
    let tls = Tls::with_ca(&pem).map_err(|e| wrong(&e))?;
    Ok(Egress::new(Arc::new(SystemResolver), tls))
}

/// The secrets that its requests carry.
pub(crate) fn secrets(entry: &ToolEntry) -> Result<Arc<[SecretOffer]>, Failure> {
    entry.secrets.iter().map(|used| secret(&entry.name, used)).collect()
}

/// A secret with its value. One that cannot be read is no reason not to start: requests that need it are refused.
fn secret(tool: &str, used: &SecretUse) -> Result<SecretOffer, Failure> {
    let name = &used.secret.name;
    let value = match read_secret(&used.secret.source)
        .and_then(|text| Secret::new(text).map_err(|e| e.to_string()))
    {
        Ok(value) => Some(value),
        Err(why) => {
            eprintln!(
                "govrun: the secret `{name}` cannot be read ({why}); requests of tool `{tool}` that need it are refused"
            );
            None
        }
    };
    SecretOffer::new(name, &used.to, &used.header, &used.value, value).map_err(|error| {
        let sentence =
            format!("secret `{name}` of tool `{tool}`: {error}; correct `secrets` of the [[tool]] entry");
        Failure::new(Exit::Configuration, sentence)
    })
}

/// The text behind the reference; an error says nothing of it.
#[expect(
    clippy::disallowed_methods,
    reason = "secrets come by reference; this is where the reference is followed"
)]
fn read_secret(source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::Env(name) => std::env::var(name).map_err(|_| format!("the variable {name} is not set")),
        SecretSource::File(path) => std::fs::read_to_string(path)
            .map(|text| text.trim_end().to_owned())
            .map_err(|e| format!("{}: {}", path.display(), e.kind())),
    }
}
