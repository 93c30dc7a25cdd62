//! The configuration of `govrun serve`: a closed grammar, secrets by reference only.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// Largest configuration file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is served, and to whom.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The policy folder, relative to this file.
    pub(super) policy: PathBuf,
    /// The state directory, relative to this file. `--state` wins.
    pub(super) state: Option<PathBuf>,
    /// Seconds that a call is held for its approval before the agent is told the ticket.
    pub(super) hold_s: Option<u32>,
    /// Who is on the pipe.
    pub(super) stdio: Option<Stdio>,
    /// Who may connect.
    pub(super) http: Option<Http>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stdio {
    /// The registered agent on the other end.
    pub(super) agent: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    /// Where to listen.
    pub(super) listen: SocketAddr,
    /// True to listen on an address that other machines reach.
    #[serde(default)]
    pub(super) expose: bool,
    /// The agents, each with its token.
    #[serde(rename = "agent")]
    pub(super) agents: Vec<HttpAgent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpAgent {
    /// Its name in the registry.
    pub(super) name: String,
    /// Where its token is.
    pub(super) token: Secret,
}

/// Where a secret is: `env:NAME` or `file:PATH`. Never the secret itself.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Secret {
    Env(String),
    File(PathBuf),
}

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // What was written may be the secret itself: it is not repeated.
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("a token is given by reference, as `env:NAME` or `file:PATH`".to_owned()),
        }
    }
}

impl Secret {
    /// The secret, from where it is.
    #[expect(
        clippy::disallowed_methods,
        reason = "secrets come by reference; this is where the reference is followed"
    )]
    pub(super) fn read(&self) -> Result<String, String> {
        match self {
            Self::Env(name) => std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set to a token; set it")),
            Self::File(path) => {
                let shown = path.display();
                let failed = |e: std::io::Error| format!("cannot read the token in `{shown}`: {e}");
                let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(format!(
                        "`{shown}` can be read by others; run `chmod 600 '{shown}'` and change the token"
                    ));
                }
                std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(failed)
            }
        }
    }
}

impl Config {
    /// Read the file; relative paths are relative to its folder.
    pub(super) fn load(file: &Path) -> Result<Self, Failure> {
        let shown = file.display();
        let configuration = |sentence: String| Failure::new(Exit::Configuration, sentence);
        let unreadable = |e: std::io::Error| configuration(format!("cannot read `{shown}`: {e}"));
        if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_BYTES {
            return Err(configuration(format!("`{shown}` is longer than {MAX_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let mut config: Self = toml::from_str(&text).map_err(|e| configuration(mistake(file, &text, &e)))?;
        let base = file.parent().unwrap_or_else(|| Path::new("."));
        config.policy = base.join(&config.policy);
        config.state = config.state.map(|state| base.join(state));
        if let Some(http) = &mut config.http {
            http.check(base).map_err(configuration)?;
        }
        Ok(config)
    }
}

/// Where and what, without the line itself: a secret may have been written into it.
fn mistake(file: &Path, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    format!("{}:{line}: {}; see `docs/formats/serve.md`", file.display(), error.message())
}

impl Http {
    /// Nothing is reachable from outside by accident, and token files are relative to the configuration.
    fn check(&mut self, base: &Path) -> Result<(), String> {
        if !self.listen.ip().is_loopback() && !self.expose {
            return Err(format!(
                "{} can be reached from other machines; say `expose = true` under [http] if that is meant",
                self.listen
            ));
        }
        for agent in &mut self.agents {
            if let Secret::File(path) = &mut agent.token {
                *path = base.join(&*path);
            }
        }
        Ok(())
    }
}
