//! One HTTP/1.1 exchange with one address that was decided.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use govrun_verdict::{HttpTarget, Scheme};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use super::target::{
    MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES, TargetError, check_headers, default_port, parse_target,
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

/// Why an exchange gave no response. The connection is closed in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The scheme needs TLS.
    #[error("requests over TLS are not supported")]
    SchemeUnsupported,
    /// The address is not one of the target: another port, or another address than the literal in the URL.
    #[error("the address does not belong to the target")]
    AddressMismatch,
    /// Target or headers do not make a valid request.
    #[error("the request is not valid: {0}")]
    Request(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection or the whole exchange took too long.
    #[error("the request took longer than {0} ms")]
    Deadline(u64),
    /// The body is larger than the limit.
    #[error("the response body is larger than {0} bytes")]
    BodyTooLarge(u64),
    /// Status line and headers are larger than the limit, or more than [`MAX_RESPONSE_HEADERS`].
    #[error("the response headers are larger than {0} bytes")]
    HeadersTooLarge(u64),
    /// The server did not speak HTTP/1, or hung up.
    #[error("the exchange failed: {0}")]
    Protocol(String),
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
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found.map(|socket| socket.ip()) {
        if !addresses.contains(&ip) && addresses.len() < MAX_ADDRESSES {
            addresses.push(ip);
        }
    }
    Ok(addresses)
}

/// Sends the target's request to exactly `address` and buffers the whole response within `limits`.
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
    let request = build(target, headers, body)?;
    timeout(Duration::from_millis(limits.total_ms), exchange(address, request, limits))
        .await
        .unwrap_or(Err(HttpError::Deadline(limits.total_ms)))
}

type Request = ::http::Request<Full<Bytes>>;

fn build(target: &HttpTarget, headers: &[(String, String)], body: Vec<u8>) -> Result<Request, HttpError> {
    check_headers(headers).map_err(|e| HttpError::Request(e.to_string()))?;
    let uri = match &target.query {
        Some(query) => format!("{}?{query}", target.path),
        None => target.path.clone(),
    };
    // A path without its slash would be read as an authority and change the form of the request line.
    if !uri.starts_with('/') {
        return Err(HttpError::Request("the path is not absolute".to_owned()));
    }
    let path: ::http::uri::PathAndQuery = uri.parse().map_err(invalid)?;
    let start = ::http::Request::builder()
        .method(target.method.as_str())
        .uri(::http::Uri::from(path))
        .header(::http::header::HOST, host_header(target));
    headers
        .iter()
        .fold(start, |builder, (name, value)| builder.header(name.as_str(), value.as_str()))
        .body(Full::new(Bytes::from(body)))
        .map_err(invalid)
}

fn invalid(error: impl std::fmt::Display) -> HttpError {
    HttpError::Request(error.to_string())
}

fn host_header(target: &HttpTarget) -> String {
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    if target.port == default_port(target.scheme) { host } else { format!("{host}:{}", target.port) }
}

async fn exchange(
    address: SocketAddr,
    request: Request,
    limits: &HttpLimits,
) -> Result<HttpResponse, HttpError> {
    let stream = timeout(Duration::from_millis(limits.connect_ms), TcpStream::connect(address))
        .await
        .map_err(|_| HttpError::Deadline(limits.connect_ms))?
        .map_err(|e| HttpError::Connect(e.to_string()))?;
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_RESPONSE_HEADERS)
        .max_header_size(usize::try_from(limits.header_bytes).unwrap_or(usize::MAX))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| HttpError::Protocol(e.to_string()))?;
    // Connection and response are driven by this one future: dropping it leaves no task behind.
    let mut connection = pin!(connection);
    let mut response = pin!(receive(sender, request, limits));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut response => return done,
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn receive(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request,
    limits: &HttpLimits,
) -> Result<HttpResponse, HttpError> {
    let response = sender.send_request(request).await.map_err(|e| failed(&e, limits))?;
    let (parts, body) = response.into_parts();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    let size: usize = headers.iter().map(|(n, v)| n.len().saturating_add(v.len()).saturating_add(4)).sum();
    if u64::try_from(size).unwrap_or(u64::MAX) > limits.header_bytes {
        return Err(HttpError::HeadersTooLarge(limits.header_bytes));
    }
    Ok(HttpResponse { status: parts.status.as_u16(), headers, body: collect(body, limits).await? })
}

fn failed(error: &hyper::Error, limits: &HttpLimits) -> HttpError {
    if error.is_parse_too_large() {
        HttpError::HeadersTooLarge(limits.header_bytes)
    } else {
        HttpError::Protocol(error.to_string())
    }
}

async fn collect(mut body: Incoming, limits: &HttpLimits) -> Result<Vec<u8>, HttpError> {
    let too_large = || HttpError::BodyTooLarge(limits.response_bytes);
    if body.size_hint().lower() > limits.response_bytes {
        return Err(too_large());
    }
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| failed(&e, limits))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = whole.len().saturating_add(data.len());
        if u64::try_from(size).unwrap_or(u64::MAX) > limits.response_bytes {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}
