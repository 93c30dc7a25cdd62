//! One HTTP/1.1 exchange with one address that was decided.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use govrun_verdict::{Builtin, HttpTarget, Scheme};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange;
pub use super::target::{
    MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES, TargetError, canonical_host, check_headers, default_port,
    parse_target,
};

/// Most addresses of one name that are looked at.
pub const MAX_ADDRESSES: usize = 16;
/// Longest wait for one name to resolve.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);
/// Most header lines of one response.
pub const MAX_RESPONSE_HEADERS: usize = 128;

/// Bounds of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Longest wait for the connection, in milliseconds.
    pub connect_ms: u64,
    /// Longest exchange from connecting to the last byte of the body, in milliseconds.
    pub total_ms: u64,
    /// Most bytes of the response body.
    pub response_bytes: u64,
    /// Most bytes of the status line and headers of the response.
    pub header_bytes: u64,
}

/// A whole response. A redirect is a response like any other: following it is a new request, decided anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Names in lower case with their values, in the order of arrival per name; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why an exchange gave no response. The connection is closed in every case. No variant carries what the peer sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The scheme needs TLS, and the exchange was to be without.
    #[error("requests over TLS are not supported")]
    SchemeUnsupported,
    /// The address is not one of the target: another port, or another address than the literal in the URL.
    #[error("the address does not belong to the target")]
    AddressMismatch,
    /// Target or headers do not make a valid request.
    #[error("the request is not valid: {0}")]
    Request(String),
    /// The name has no address.
    #[error("the name does not resolve")]
    Unresolved,
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The handshake failed, or the certificate is not good for the decided host.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// The connection or the whole exchange took too long.
    #[error("the request took longer than {0} ms")]
    Deadline(u64),
    /// The body of the request is larger than the limit.
    #[error("the request body is larger than {0} bytes")]
    RequestTooLarge(u64),
    /// The body is larger than the limit.
    #[error("the response body is larger than {0} bytes")]
    BodyTooLarge(u64),
    /// Status line and headers are larger than the limit, or more than [`MAX_RESPONSE_HEADERS`].
    #[error("the response headers are larger than {0} bytes")]
    HeadersTooLarge(u64),
    /// The answer can be read in two ways, or is not HTTP/1.
    #[error("the response is not acceptable: {0}")]
    Response(&'static str),
    /// The answer repeats a secret that the host sent, or is encoded so that nobody can tell.
    #[error("the response was withheld")]
    Leak,
    /// The server hung up.
    #[error("the exchange failed: {0}")]
    Protocol(String),
}

impl HttpError {
    /// A short kind for the outcome record.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SchemeUnsupported | Self::AddressMismatch | Self::Request(_) => "not-sent",
            Self::Unresolved => "not-resolved",
            Self::Connect(_) => "not-connected",
            Self::Tls(_) => "tls",
            Self::Deadline(_) => "timeout",
            Self::RequestTooLarge(_) => "request-too-large",
            Self::BodyTooLarge(_) => "response-too-large",
            Self::HeadersTooLarge(_) => "headers-too-large",
            Self::Response(_) => "response-invalid",
            Self::Leak => "secret-leak",
            Self::Protocol(_) => "exchange-failed",
        }
    }

    /// The reason code, when the host ended the exchange by a rule of its own.
    #[must_use]
    pub const fn reason(&self) -> Option<Builtin> {
        match self {
            Self::SchemeUnsupported | Self::AddressMismatch | Self::Request(_) => {
                Some(Builtin::NetTargetInvalid)
            }
            Self::Tls(_) => Some(Builtin::NetTls),
            Self::Deadline(_) => Some(Builtin::NetTimeout),
            Self::RequestTooLarge(_) | Self::BodyTooLarge(_) => Some(Builtin::NetBodyTooLarge),
            Self::HeadersTooLarge(_) => Some(Builtin::NetHeadersTooLarge),
            Self::Response(_) => Some(Builtin::NetResponseInvalid),
            Self::Leak => Some(Builtin::SecretLeak),
            Self::Unresolved | Self::Connect(_) | Self::Protocol(_) => None,
        }
    }
}

/// The addresses of a host, without duplicates, at most [`MAX_ADDRESSES`]; an address literal is itself.
///
/// # Errors
/// When the name does not resolve, or not within [`RESOLVE_DEADLINE`].
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let found = timeout(RESOLVE_DEADLINE, tokio::net::lookup_host((host, port)))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the name did not resolve in time"))??;
    Ok(distinct(found.map(|socket| socket.ip())))
}

/// The first [`MAX_ADDRESSES`] of them, each once.
pub(crate) fn distinct(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found {
        if !addresses.contains(&ip) && addresses.len() < MAX_ADDRESSES {
            addresses.push(ip);
        }
    }
    addresses
}

/// Sends the target's request without TLS to exactly `address` and buffers the whole response within `limits`.
/// Dropping the future closes the connection.
///
/// # Errors
/// See [`HttpError`]. After [`HttpError::Deadline`] and [`HttpError::Protocol`] the server may have acted on the request.
pub async fn send(
    target: &HttpTarget,
    address: SocketAddr,
    headers: &[(String, String)],
    body: Vec<u8>,
    limits: &HttpLimits,
) -> Result<HttpResponse, HttpError> {
    if target.scheme != Scheme::Http {
        return Err(HttpError::SchemeUnsupported);
    }
    let literal = target.host.parse::<IpAddr>().ok();
    if address.port() != target.port || literal.is_some_and(|ip| ip != address.ip()) {
        return Err(HttpError::AddressMismatch);
    }
    let headers = exchange::header_map(headers)?;
    let request = exchange::request(target, headers, Full::new(Bytes::from(body)))?;
    let exchange = async {
        let stream = timeout(Duration::from_millis(limits.connect_ms), TcpStream::connect(address))
            .await
            .map_err(|_| HttpError::Deadline(limits.connect_ms))?
            .map_err(|e| HttpError::Connect(e.to_string()))?;
        let (mut driver, response) = exchange::open(stream, request, limits.header_bytes).await?;
        let (parts, body) = driver.during(response).await?.into_parts();
        let headers = exchange::header_list(&parts.headers);
        let body = driver.during(collect(body, limits)).await?;
        Ok(HttpResponse { status: parts.status.as_u16(), headers, body })
    };
    let whole = Duration::from_millis(limits.total_ms);
    timeout(whole, exchange).await.unwrap_or(Err(HttpError::Deadline(limits.total_ms)))
}

async fn collect(mut body: Incoming, limits: &HttpLimits) -> Result<Vec<u8>, HttpError> {
    let too_large = || HttpError::BodyTooLarge(limits.response_bytes);
    if body.size_hint().lower() > limits.response_bytes {
        return Err(too_large());
    }
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| exchange::failed(&e, limits.header_bytes))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = whole.len().saturating_add(data.len());
        if u64::try_from(size).unwrap_or(u64::MAX) > limits.response_bytes {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}
