//! The wire side of one exchange: the request as it was decided, the response's head as only one reader can read it.

use std::pin::{Pin, pin};

use ::http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use govrun_verdict::HttpTarget;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http::{HttpError, MAX_RESPONSE_HEADERS, default_port};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A response's head that has not come yet.
pub(crate) type PendingHead = Boxed<Result<Response<Incoming>, HttpError>>;

/// What moves the bytes of one connection. Nothing moves unless it is asked to, so dropping it leaves no task behind.
pub(crate) struct Driver(Option<Boxed<()>>);

impl Driver {
    /// Move bytes while `work` is done.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let Some(connection) = &mut self.0 else { return work.await };
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = connection => self.0 = None,
            }
        }
    }

    /// Move bytes until the connection ends.
    pub(crate) async fn until_closed(mut self) {
        if let Some(connection) = self.0.take() {
            connection.await;
        }
    }
}

/// Start HTTP/1.1 on `stream` and send `request`: what drives the connection, and the head that will come.
///
/// # Errors
/// [`HttpError::Protocol`] when the connection is closed already.
pub(crate) async fn open<S, B>(
    stream: S,
    request: Request<B>,
    header_bytes: u64,
) -> Result<(Driver, PendingHead), HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MAX_RESPONSE_HEADERS)
        .max_header_size(usize::try_from(header_bytes).unwrap_or(usize::MAX))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| HttpError::Protocol(e.to_string()))?;
    let driver = Driver(Some(Box::pin(async move {
        // The one who waits for head or body is told what went wrong.
        let _ = connection.await;
    })));
    // Handed over here and not when the head is waited for: a body that is written before needs somebody to take it.
    let coming = sender.send_request(request);
    let head = Box::pin(async move {
        let response = coming.await.map_err(|e| failed(&e, header_bytes))?;
        drop(sender);
        check(response.status(), response.headers(), header_bytes)?;
        Ok(response)
    });
    Ok((driver, head))
}

/// Two parsers must not differ about where the answer ends.
fn check(status: StatusCode, headers: &HeaderMap, header_bytes: u64) -> Result<(), HttpError> {
    let size: usize = headers.iter().map(|(n, v)| n.as_str().len().saturating_add(v.len() + 4)).sum();
    if u64::try_from(size).unwrap_or(u64::MAX) > header_bytes {
        return Err(HttpError::HeadersTooLarge(header_bytes));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HttpError::Response("it switches to another protocol"));
    }
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let chunked = |v: &&HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"chunked");
    match codings.as_slice() {
        [] => {}
        [one] if chunked(one) && !headers.contains_key(CONTENT_LENGTH) => {}
        [..] => return Err(HttpError::Response("its length is given in two ways")),
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    if lengths.any(|other| Some(other) != first) {
        return Err(HttpError::Response("its length is given in two ways"));
    }
    Ok(())
}

/// What went wrong, without a word of the peer's.
pub(crate) fn failed(error: &hyper::Error, header_bytes: u64) -> HttpError {
    if error.is_parse_too_large() {
        HttpError::HeadersTooLarge(header_bytes)
    } else if error.is_parse() {
        HttpError::Response("it is not HTTP/1, or contradicts itself")
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        HttpError::Protocol("the server hung up".to_owned())
    } else {
        HttpError::Protocol("the connection broke".to_owned())
    }
}

/// The request as it was decided, in origin form; `headers` hold none that the host sets itself.
///
/// # Errors
/// [`HttpError::Request`] when the target makes no request line.
pub(crate) fn request<B>(target: &HttpTarget, headers: HeaderMap, body: B) -> Result<Request<B>, HttpError> {
    let uri = match &target.query {
        Some(query) => format!("{}?{query}", target.path),
        None => target.path.clone(),
    };
    // A path without its slash would be read as an authority and change the form of the request line.
    if !uri.starts_with('/') {
        return Err(HttpError::Request("the path is not absolute".to_owned()));
    }
    let path: ::http::uri::PathAndQuery = uri.parse().map_err(invalid)?;
    let mut request =
        Request::builder().method(target.method.as_str()).uri(Uri::from(path)).body(body).map_err(invalid)?;
    let host = HeaderValue::from_str(&host_header(target)).map_err(invalid)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

fn invalid(error: impl std::fmt::Display) -> HttpError {
    HttpError::Request(error.to_string())
}

fn host_header(target: &HttpTarget) -> String {
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    if target.port == default_port(target.scheme) { host } else { format!("{host}:{}", target.port) }
}

/// The headers of a guest as a map.
///
/// # Errors
/// [`HttpError::Request`] for one that [`super::http::check_headers`] would refuse.
pub(crate) fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, HttpError> {
    super::http::check_headers(headers).map_err(invalid)?;
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(invalid)?;
        map.append(name, HeaderValue::from_str(value).map_err(invalid)?);
    }
    Ok(map)
}

/// Names in lower case with their values; bytes that are not UTF-8 are replaced.
pub(crate) fn header_list(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect()
}
