//! `govrun keys`: make, show, replace and revoke keys. Secret halves are never printed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use govrun_audit::note::VerifierKey;
use govrun_audit::{KeyStore, Log, SystemClock, Trust, log_origin};
use govrun_verdict::LogId;

use crate::exit::{Exit, Failure};
use crate::state::StateDir;

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make the signing keys and the trust file of this state directory.
    Init {
        /// Name of the logs, in the form of a host name and path.
        #[arg(long, default_value = "govrun.local/log")]
        origin: String,
    },
    /// Make the key of an approver and list it in the trust file.
    Approver {
        /// Name of the person.
        name: String,
        /// A role it has, such as `treasury`; repeat for several.
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
    },
    /// Show the public keys, and where each log stands in its epochs.
    Show,
    /// End the epoch of every log that nobody writes: the key that signed it is erased.
    ///
    /// A log that is being written ends its epochs by itself, every quarter of an hour and when its process stops.
    Rotate,
    /// Replace everything below the root key: log key, epoch keys, certificate. New logs are begun with the new keys; the old
    /// ones stay verifiable and are not continued. The trust file does not change.
    Renew {
        /// The root key file, from where it is kept offline.
        #[arg(long)]
        root: PathBuf,
    },
    /// Stop believing a log from a size on, because its keys were stolen. Writes the trust file; pass it on to all who verify.
    Revoke {
        /// Id of the log.
        #[arg(long)]
        log: String,
        /// Number of records that still count: the size of a checkpoint that somebody else held before the theft.
        #[arg(long)]
        at: u64,
        /// The trust file. Default: that of the state directory.
        #[arg(long)]
        trust: Option<PathBuf>,
    },
}

fn configuration(e: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Configuration, e)
}

pub(crate) fn run(state: &StateDir, command: KeysCommand) -> Result<Exit, Failure> {
    match command {
        KeysCommand::Init { origin } => {
            state.init_keys(&origin)?;
            println!("keys and trust file are in {}; move root.key offline", state.keys().display());
            Ok(Exit::Ok)
        }
        KeysCommand::Approver { name, roles } => state.add_approver(&name, roles),
        KeysCommand::Show => show(state),
        KeysCommand::Rotate => rotate(state),
        KeysCommand::Renew { root } => renew(state, &root),
        KeysCommand::Revoke { log, at, trust } => revoke(&trust.unwrap_or_else(|| state.trust()), &log, at),
    }
}

/// The keys that are there: these commands make none.
fn load(state: &StateDir) -> Result<KeyStore, Failure> {
    KeyStore::load(&state.keys()).map_err(|e| {
        configuration(format!("{e}; keys are made by the first governed call, or by `govrun keys init`"))
    })
}

/// The logs of this state directory; none where it has not been written yet.
fn logs(state: &StateDir) -> Vec<LogId> {
    let names = std::fs::read_dir(state.audit()).into_iter().flatten().flatten();
    let mut ids: Vec<_> = names.filter_map(|entry| LogId::parse(entry.file_name().to_str()?).ok()).collect();
    ids.sort_unstable();
    ids
}

fn show(state: &StateDir) -> Result<Exit, Failure> {
    let keys = load(state)?;
    let certificate = keys.certificate();
    let begun = keys.begun().map_err(configuration)?;
    println!("origin    {}", keys.origin());
    println!("root key  {}", certificate.root());
    println!("log key   {}", certificate.log());
    println!("logs      {begun} of {} begun", certificate.logs());
    for log in logs(state) {
        match keys.epoch_of(log).map_err(configuration)? {
            Some(at) => {
                let key = VerifierKey::new(&log_origin(keys.origin(), log), at.key).map_err(configuration)?;
                println!("{log}  epoch {}, {} left in its tree, {key}", at.epoch, at.left);
            }
            None => println!("{log}  its epoch seed is not here"),
        }
    }
    Ok(Exit::Ok)
}

fn rotate(state: &StateDir) -> Result<Exit, Failure> {
    let keys = load(state)?;
    let unusable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
    let free = Log::open_free(&state.audit(), &keys, Arc::new(SystemClock)).map_err(|e| unusable(&e))?;
    let ids: Vec<LogId> = free.iter().map(Log::id).collect();
    for log in free {
        log.rotate().and_then(|()| log.close()).map_err(|e| unusable(&e))?;
        println!("{}  the key that signed it is erased", log.id());
    }
    for id in logs(state).into_iter().filter(|id| !ids.contains(id)) {
        println!("{id}  is being written and rotates by itself, or is of older keys");
    }
    Ok(Exit::Ok)
}

fn renew(state: &StateDir, root: &Path) -> Result<Exit, Failure> {
    let keys = KeyStore::renew(&state.keys(), root).map_err(configuration)?;
    println!(
        "new keys for {} logs are certified; processes that run go on with theirs",
        keys.certificate().logs()
    );
    Ok(Exit::Ok)
}

fn revoke(path: &Path, log: &str, at: u64) -> Result<Exit, Failure> {
    let log = LogId::parse(log).map_err(|e| Failure::new(Exit::Usage, e))?;
    let mut trust = Trust::load(path).map_err(configuration)?;
    trust.revoke(log, at);
    trust.save(path).map_err(configuration)?;
    let at = trust.revoked_at(log).unwrap_or(at);
    println!(
        "{} does not believe log {log} beyond {at} records; pass it on to all who verify",
        path.display()
    );
    Ok(Exit::Ok)
}
