//! Plain `wasi:http`.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::Told;

fn split(url: &str) -> Result<(Scheme, &str, &str), String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    Ok((scheme, authority, path))
}

fn request(url: &str, fields: Fields) -> Result<OutgoingRequest, String> {
    let (scheme, authority, path) = split(url)?;
    let request = OutgoingRequest::new(fields);
    request.set_scheme(Some(&scheme)).map_err(|()| "the scheme is refused")?;
    request.set_authority(Some(authority)).map_err(|()| "the authority is refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "the path is refused")?;
    Ok(request)
}

fn sent(request: OutgoingRequest, options: Option<RequestOptions>) -> Told {
    let coming = handle(request, options).map_err(|code| format!("not sent: {code:?}"))?;
    answer(&coming)
}

fn answer(coming: &FutureIncomingResponse) -> Told {
    coming.subscribe().block();
    let told = |code: ErrorCode| format!("{code:?}");
    let response = coming.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(told)?;
    let status = response.status();
    let body = response.consume().map_err(|()| "no body")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut whole = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => whole.extend_from_slice(&bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("after {} bytes: {}", whole.len(), error.to_debug_string()));
            }
        }
    }
    let shown = if whole.len() > 200 {
        format!("{} bytes", whole.len())
    } else {
        String::from_utf8_lossy(&whole).into_owned()
    };
    Ok(format!("{status} {shown}"))
}

pub(crate) fn get(url: &str) -> Told {
    sent(request(url, Fields::new())?, None)
}

/// A body of so many bytes, written while it is sent.
pub(crate) fn post(url: &str, bytes: usize) -> Told {
    let request = request(url, Fields::new())?;
    request.set_method(&Method::Post).map_err(|()| "the method is refused")?;
    let body = request.body().map_err(|()| "no body")?;
    let stream = body.write().map_err(|()| "no stream")?;
    let coming = handle(request, None).map_err(|code| format!("not sent: {code:?}"))?;
    let piece = vec![b'b'; 4096];
    let mut left = bytes;
    while left > 0 {
        let next = left.min(piece.len());
        if stream.blocking_write_and_flush(&piece[..next]).is_err() {
            break;
        }
        left -= next;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
    answer(&coming)
}

/// Every part of a request in the guest's own words.
pub(crate) fn parts(method: &str, scheme: &str, authority: &str, path: &str) -> Told {
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&Method::Other(method.to_owned())).map_err(|()| "the method is refused")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    request.set_scheme(Some(&scheme)).map_err(|()| "the scheme is refused")?;
    request.set_authority(Some(authority)).map_err(|()| "the authority is refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "the path is refused")?;
    sent(request, None)
}

pub(crate) fn header(url: &str, name: &str, value: &str) -> Told {
    let fields = Fields::new();
    fields.append(name, value.as_bytes()).map_err(|error| format!("the header is refused: {error:?}"))?;
    sent(request(url, fields)?, None)
}

/// Two lengths for one body.
pub(crate) fn lengths(url: &str) -> Told {
    let fields = Fields::new();
    for length in ["5", "50"] {
        fields
            .append("content-length", length.as_bytes())
            .map_err(|error| format!("the header is refused: {error:?}"))?;
    }
    let request = request(url, fields)?;
    request.set_method(&Method::Post).map_err(|()| "the method is refused")?;
    request.body().map_err(|()| "the body is refused")?;
    sent(request, None)
}

/// So many headers.
pub(crate) fn fields(count: usize) -> Told {
    let fields = Fields::new();
    for n in 0..count {
        fields.append(&format!("x-{n}"), b"flood").map_err(|error| format!("after {n}: {error:?}"))?;
    }
    sent(request("http://good.example/", fields)?, None)
}

/// No time at all for anything.
pub(crate) fn impatient(url: &str) -> Told {
    let options = RequestOptions::new();
    for set in [
        RequestOptions::set_connect_timeout,
        RequestOptions::set_first_byte_timeout,
        RequestOptions::set_between_bytes_timeout,
    ] {
        set(&options, Some(0)).map_err(|()| "the timeout is refused")?;
    }
    sent(request(url, Fields::new())?, Some(options))
}

/// So many requests at once, none of them waited for before the last is sent.
pub(crate) fn many(url: &str, count: usize) -> Told {
    let mut coming = Vec::new();
    for _ in 0..count {
        coming
            .push(handle(request(url, Fields::new())?, None).map_err(|code| format!("not sent: {code:?}"))?);
    }
    let answers: Vec<Told> = coming.iter().map(answer).collect();
    let good = answers.iter().filter(|answer| answer.is_ok()).count();
    Ok(format!("{good} answered"))
}

/// Sends, and ends without waiting.
pub(crate) fn leave(url: &str) -> Told {
    let coming = handle(request(url, Fields::new())?, None).map_err(|code| format!("not sent: {code:?}"))?;
    // The call ends with the request still going on.
    std::mem::forget(coming);
    Ok("left".to_owned())
}

/// So many writes of nothing.
pub(crate) fn empties(url: &str, count: usize) -> Told {
    let request = request(url, Fields::new())?;
    request.set_method(&Method::Post).map_err(|()| "the method is refused")?;
    let body = request.body().map_err(|()| "no body")?;
    let stream = body.write().map_err(|()| "no stream")?;
    let coming = handle(request, None).map_err(|code| format!("not sent: {code:?}"))?;
    for _ in 0..count {
        if stream.check_write().is_ok_and(|room| room > 0) && stream.write(&[]).is_err() {
            break;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
    answer(&coming)
}
