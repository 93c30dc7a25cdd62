//! `wasi:http` 0.2: the types are wasmtime's own, and every request is sent by the governed client. Nothing calls into a
//! guest: `incoming-handler` is not linked.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONTENT_LENGTH;
use ::http::{HeaderMap, HeaderName, Request, Response, Uri};
use govrun_verdict::{Builtin, HttpTarget, Verdict};
use http_body_util::BodyExt as _;
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi_http::p2::bindings::http;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks,
};

use super::WasiState;
use crate::effect::http::{HttpError, parse_target};
use crate::effect::is_host_header;
use crate::imports::nowhere;
use crate::net::{Bounds, Client, NetError};
use crate::runtime::CallState;

/// Most bytes of one set of headers that a guest builds. It holds many of them at once, so this also bounds their sum.
const MAX_FIELDS_BYTES: usize = 32 << 10;
/// Most bytes of one write to a request's body; one write of each request is buffered.
const MAX_WRITE_BYTES: usize = 64 << 10;
/// Bounds of every exchange; a guest's own timeouts only shorten them.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(30),
    idle: Duration::from_secs(30),
    total: Duration::from_secs(300),
    request_bytes: 64 << 20,
    response_bytes: 64 << 20,
    header_bytes: 64 << 10,
};

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// The HTTP side of one call's store.
pub(super) struct HttpState {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

impl HttpState {
    pub(super) fn new(client: &Client) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(MAX_FIELDS_BYTES);
        Self { ctx, hooks: Hooks { client: client.clone() } }
    }
}

impl WasiState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http.ctx, table: &mut self.table, hooks: &mut self.http.hooks }
    }
}

struct GovernedHttp;

impl HasData for GovernedHttp {
    type Data<'a> = WasiHttpCtxView<'a>;
}

/// Link `wasi:http/types` and `wasi:http/outgoing-handler`.
///
/// # Errors
/// When one of them is linked already.
pub(super) fn add_to_linker(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let options = http::types::LinkOptions::default();
    http::types::add_to_linker::<CallState, GovernedHttp>(l, &options, |s| s.wasi.http())?;
    http::outgoing_handler::add_to_linker::<CallState, GovernedHttp>(l, |s| s.wasi.http())
}

/// What wasmtime asks of its embedder.
struct Hooks {
    client: Client,
}

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        // Wasmtime itself checks that a guest's `content-length` is one number and that the body has it.
        Arc::new(|name: &HeaderName| {
            DEFAULT_FORBIDDEN_HEADERS.contains(name)
                || (is_host_header(name.as_str()) && *name != CONTENT_LENGTH)
        })
    }

    /// Every scheme comes as far as the decision, so that a refusal is on the record.
    fn is_supported_scheme(&mut self, _: &::http::uri::Scheme) -> bool {
        true
    }

    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_WRITE_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let client = self.client.clone();
        Box::new(async move { send(&client, request, options.unwrap_or_default()).await })
    }
}

async fn send(client: &Client, request: Request<WasiBody>, options: RequestOptions) -> Sent {
    let (parts, body) = request.into_parts();
    let Some(target) = target(&parts.method, &parts.uri, &parts.headers) else {
        // The record is what counts; the guest is told the nearest error.
        let _ = client.refuse(nowhere(), Builtin::NetTargetInvalid);
        return Err(Error::HttpRequestUriInvalid);
    };
    let shorter = |bound: Duration, asked: Option<Duration>| asked.map_or(bound, |asked| asked.min(bound));
    let bounds = Bounds {
        head: shorter(BOUNDS.head, options.first_byte_timeout),
        idle: shorter(BOUNDS.idle, options.between_bytes_timeout),
        ..BOUNDS
    };
    let starting = client.start(&target, parts.headers, body, &bounds);
    let started = match options.connect_timeout {
        // A wait for a person counts here: the guest asked for it.
        Some(asked) => tokio::time::timeout(asked, starting).await.map_err(|_| Error::ConnectionTimeout)?,
        None => starting.await,
    };
    let answer = started.map_err(told)?.head().await.map_err(told)?;
    let driver = answer.driver;
    let mut response = Response::new(answer.body.map_err(told).boxed_unsync());
    *response.status_mut() = ::http::StatusCode::from_u16(answer.status).unwrap_or_default();
    *response.headers_mut() = answer.headers;
    let moving = Box::new(async move {
        driver.until_closed().await;
        Ok(())
    });
    Ok((response, moving))
}

/// What is decided on, from the one text that names it; `None` when there is none, or a header is not a guest's to set.
fn target(method: &::http::Method, uri: &Uri, headers: &HeaderMap) -> Option<HttpTarget> {
    let owned = |name: &HeaderName| is_host_header(name.as_str()) && *name != CONTENT_LENGTH;
    // An absolute form within the path would have become the authority of another URL here, and is compared away below.
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}://{}{path}", uri.scheme_str()?, uri.authority()?.as_str());
    if headers.keys().any(owned) || !(path.starts_with('/') || path.starts_with('?')) {
        return None;
    }
    parse_target(method.as_str(), &url).ok()
}

/// The nearest error a guest knows. The agent is told the reason code.
fn told(error: NetError) -> Error {
    match error {
        NetError::Refused(refusal) => match refusal.verdict {
            Verdict::Throttle => Error::ConnectionLimitReached,
            Verdict::Allow | Verdict::Sandbox | Verdict::Escalate | Verdict::Block => {
                Error::HttpRequestDenied
            }
        },
        NetError::Failed(error) => match error {
            HttpError::Unresolved => Error::DnsError { rcode: None, info_code: None },
            HttpError::Connect(_) => Error::ConnectionRefused,
            HttpError::Protocol(_) => Error::ConnectionTerminated,
            // These are refusals by now: the client records what has a reason.
            HttpError::Deadline(_) => Error::ConnectionTimeout,
            HttpError::Tls(_) => Error::TlsCertificateError,
            HttpError::RequestTooLarge(_) => Error::HttpRequestBodySize(None),
            HttpError::BodyTooLarge(_) => Error::HttpResponseBodySize(None),
            HttpError::HeadersTooLarge(_) => Error::HttpResponseHeaderSectionSize(None),
            HttpError::Response(_) | HttpError::Leak => Error::HttpProtocolError,
            HttpError::Request(_) | HttpError::SchemeUnsupported | HttpError::AddressMismatch => {
                Error::HttpRequestUriInvalid
            }
        },
    }
}
