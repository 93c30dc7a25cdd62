//! `govrun witness`: a C2SP witness over HTTP on loopback, or over files; and `govrun audit submit`, which asks one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use clap::Args;
use govrun_audit::read::small_file;
use govrun_audit::witness::{MAX_REQUEST, Reply, Witness as Core};
use govrun_audit::{Certificate, Clock as _, SystemClock, WitnessSecret};

use crate::exit::{Exit, Failure};

/// Largest certificate, in bytes.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// What the names of requests that lie in the folder end with.
pub(crate) const REQUEST: &str = "add-checkpoint";
/// And those of the answers: the HTTP status, a line break, the body.
pub(crate) const REPLY: &str = "reply";

/// Whose checkpoints, and how they come.
#[derive(Debug, Args)]
pub(crate) struct Witness {
    /// Name of this witness, in the form of a host name and path. Its key is made in --dir when it is not there.
    #[arg(long)]
    name: String,
    /// Folder for the key and for what was cosigned.
    #[arg(long)]
    dir: PathBuf,
    /// The certificate of the logs to look after: `genesis.cert` of their keys. Repeat for several.
    #[arg(long = "certificate", required = true, value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Answer `POST /add-checkpoint` on this port of 127.0.0.1; 0 for one that is free.
    #[arg(long, value_name = "PORT", conflicts_with = "drop", required_unless_present_any = ["drop", "key"])]
    port: Option<u16>,
    /// Answer the requests that lie in this folder (`*.add-checkpoint`) with files beside them (`*.reply`), and end.
    #[arg(long, value_name = "DIR")]
    drop: Option<PathBuf>,
    /// Only print the public key, for the `[witnesses]` of a trust file, and end.
    #[arg(long)]
    key: bool,
}

pub(crate) fn run(asked: Witness) -> Result<ExitCode, Failure> {
    let configuration = |e: &dyn std::fmt::Display| Failure::new(Exit::Configuration, e);
    let key = WitnessSecret::load_or_make(&asked.dir, &asked.name).map_err(|e| configuration(&e))?;
    if asked.key {
        println!("{}", key.key());
        return Ok(ExitCode::SUCCESS);
    }
    let mut certificates = Vec::new();
    for path in &asked.certificates {
        let wrong = |e: &dyn std::fmt::Display| configuration(&format!("{}: {e}", path.display()));
        let text = small_file(path, MAX_CERTIFICATE).map_err(|e| wrong(&e))?;
        certificates.push(Certificate::parse(&text).map_err(|e| wrong(&e))?);
    }
    let state = asked.dir.join("cosigned");
    let core = Core::new(key, certificates, &state)
        .map_err(|e| configuration(&format!("{}: {e}", state.display())))?;
    match (&asked.drop, asked.port) {
        (Some(folder), _) => drop_folder(&core, folder),
        (None, Some(port)) => serve(core, port),
        (None, None) => Err(Failure::new(Exit::Usage, "give --port or --drop")),
    }
}

fn seconds() -> Result<u64, Failure> {
    let now = SystemClock.now().map_err(|e| Failure::new(Exit::Runtime, e))?;
    Ok(now.0 / 1_000_000)
}

/// Answer every request that lies there and has no answer yet.
fn drop_folder(core: &Core, folder: &Path) -> Result<ExitCode, Failure> {
    let failed =
        |path: &Path, e: std::io::Error| Failure::new(Exit::Dependency, format!("{}: {e}", path.display()));
    let mut requests = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let path = entry.map_err(|e| failed(folder, e))?.path();
        if path.extension().is_some_and(|ending| ending == REQUEST) && !path.with_extension(REPLY).exists() {
            requests.push(path);
        }
    }
    requests.sort();
    for path in &requests {
        let reply = match small_file(path, MAX_REQUEST) {
            Ok(text) => core.add_checkpoint(&text, seconds()?),
            Err(_) => Reply::Malformed("no file of text of the length of a request"),
        };
        let answer = path.with_extension(REPLY);
        std::fs::write(&answer, format!("{}\n{}", reply.status(), reply.body()))
            .map_err(|e| failed(&answer, e))?;
        println!("{}: {} {}", path.display(), reply.status(), outcome(&reply));
    }
    println!("{} requests answered", requests.len());
    Ok(ExitCode::SUCCESS)
}

fn outcome(reply: &Reply) -> String {
    match reply {
        Reply::Cosigned(_) => "cosigned".to_owned(),
        Reply::Failed(why) => why.clone(),
        Reply::Conflict(size) => format!("another size was cosigned last: {size}"),
        Reply::Malformed(_) | Reply::NotSigned | Reply::Unknown | Reply::Inconsistent => {
            reply.body().trim_end().to_owned()
        }
    }
}

fn serve(core: Core, port: u16) -> Result<ExitCode, Failure> {
    let failed = |e: std::io::Error| Failure::new(Exit::Dependency, format!("127.0.0.1:{port}: {e}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        eprintln!("witness {} answers http://{at}/add-checkpoint", core.key());
        let app = Router::new()
            .route("/add-checkpoint", post(answer))
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .with_state(Arc::new(core));
        axum::serve(listener, app).await.map_err(failed)?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn answer(State(core): State<Arc<Core>>, body: String) -> Response {
    let Ok(time) = seconds() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    // The state is written to disk: not on a thread that other requests wait for.
    let reply = tokio::task::spawn_blocking(move || core.add_checkpoint(&body, time)).await;
    let Ok(reply) = reply else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    if let Reply::Failed(why) = &reply {
        eprintln!("govrun: {why}");
    }
    let status = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, reply.content_type())], reply.body()).into_response()
}
