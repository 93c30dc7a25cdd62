//! MCP over HTTP, on loopback unless told otherwise, for principals that show a bearer token.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use govrun_host::{Runtime, Who};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use crate::mcp::Server;

/// Largest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// Shortest bearer token, in bytes: what can be guessed is no secret.
pub const MIN_TOKEN_BYTES: usize = 24;

/// Who shows which token. Tokens are kept as digests, so that looking one up takes the same time whatever it is, and a
/// core dump holds none.
#[derive(Clone, Default)]
pub struct Tokens(Arc<BTreeMap<[u8; 32], Who>>);

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short.
    #[error(
        "the token of agent `{agent}` has fewer than {MIN_TOKEN_BYTES} bytes; make one with `openssl rand -hex 24`"
    )]
    Short {
        /// Whose it is.
        agent: String,
    },
    /// Two agents have the same one.
    #[error("agents `{agent}` and `{other}` have the same token; give each its own")]
    Shared {
        /// Whose it is.
        agent: String,
        /// Who has it too.
        other: String,
    },
}

impl Tokens {
    /// The principals by their tokens.
    ///
    /// # Errors
    /// When a token is too short to be a secret, or two principals share one.
    pub fn new(tokens: impl IntoIterator<Item = (String, Who)>) -> Result<Self, TokenError> {
        let mut known: BTreeMap<[u8; 32], Who> = BTreeMap::new();
        for (token, who) in tokens {
            let agent = who.agent.name.to_string();
            if token.len() < MIN_TOKEN_BYTES {
                return Err(TokenError::Short { agent });
            }
            if let Some(other) = known.insert(digest(&token), who) {
                return Err(TokenError::Shared { agent, other: other.agent.name.to_string() });
            }
        }
        Ok(Self(Arc::new(known)))
    }

    fn who(&self, request: &Request) -> Option<&Who> {
        let shown = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = shown.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.0.get(&digest(token.trim()))
    }
}

/// Comparing digests tells nothing about how much of a token was right.
fn digest(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// The application: `/mcp` for agents with a token, `/healthz` for whoever watches the process.
pub fn router(runtime: &Arc<Runtime>, tokens: Tokens, listening: SocketAddr) -> Router {
    let serving = Arc::clone(runtime);
    let mut hosts: Vec<String> = vec!["localhost".into(), "127.0.0.1".into(), "::1".into()];
    hosts.push(listening.ip().to_string());
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        .enforce_origin_validation()
        .with_max_request_body_bytes(MAX_BODY_BYTES);
    let mcp = StreamableHttpService::new(
        move || Ok(Server::for_requests(Arc::clone(&serving))),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    Router::new()
        .nest_service("/mcp", mcp)
        .layer(from_fn_with_state(tokens, authenticate))
        .route("/healthz", get(|| async { "ok\n" }))
}

/// Nothing of a request is read before its token is known.
async fn authenticate(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    let Some(who) = tokens.who(&request).cloned() else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"govrun\"")];
        let body = Body::from("a bearer token of a registered agent is needed\n");
        return (StatusCode::UNAUTHORIZED, challenge, body).into_response();
    };
    request.extensions_mut().insert(who);
    next.run(request).await
}

/// Serve until `stop` ends; requests that run are finished first.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
