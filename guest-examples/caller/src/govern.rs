//! `govrun:host/net`.

use crate::Told;
use crate::govrun::host::net::{self, Exchange, Options, Request, RequestHead};
use crate::govrun::host::types::Error;

fn told(error: Error) -> String {
    match error {
        Error::Denied(refusal) => refusal.reason,
        Error::Throttled(throttled) => throttled.refusal.reason,
        Error::Escalated(escalated) => escalated.refusal.reason,
        Error::Failed(why) => format!("failed: {why}"),
    }
}

/// With headers that name the caller, so that the other side can see where they go.
pub(crate) fn fetch(url: &str, follow: usize) -> Told {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let request = Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: vec![header("x-token", "mine"), header("accept", "text/plain")],
        body: Vec::new(),
    };
    let options = Options { follow: u8::try_from(follow).unwrap_or(u8::MAX), timeout_ms: Some(5_000) };
    let response = net::fetch_with(&request, options).map_err(told)?;
    Ok(format!("{} {}", response.status, String::from_utf8_lossy(&response.body)))
}

/// A body of so many pieces; the answer is read in pieces as well.
pub(crate) fn pieces(url: &str, count: usize, bytes: usize) -> Told {
    let head =
        RequestHead { method: "POST".to_owned(), url: url.to_owned(), headers: Vec::new(), length: None };
    let exchange = Exchange::open(&head).map_err(told)?;
    for _ in 0..count {
        exchange.write(&vec![b'p'; bytes]).map_err(told)?;
        exchange.write(&[]).map_err(told)?;
    }
    let head = exchange.response().map_err(told)?;
    let (mut whole, mut reads) = (0, 0);
    loop {
        let piece = exchange.read(1_000).map_err(told)?;
        if piece.is_empty() {
            break;
        }
        assert!(piece.len() <= 1_000, "more than was asked for");
        whole += piece.len();
        reads += 1;
    }
    Ok(format!("{} {whole} bytes in {reads} reads", head.status))
}

/// Says 10 bytes and writes more.
pub(crate) fn lying(url: &str) -> Told {
    let head =
        RequestHead { method: "POST".to_owned(), url: url.to_owned(), headers: Vec::new(), length: Some(10) };
    let exchange = Exchange::open(&head).map_err(told)?;
    exchange.write(b"12345").map_err(told)?;
    exchange.write(b"GET /smuggled HTTP/1.1\r\n\r\n").map_err(told)?;
    exchange.response().map(|head| head.status.to_string()).map_err(told)
}
