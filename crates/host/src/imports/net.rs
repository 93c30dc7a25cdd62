//! `govrun:host/net`: HTTP whole or piece by piece. The request is decided first, then every address of its name.

use std::time::Duration;

use ::http::HeaderMap;
use bytes::Bytes;
use govrun_verdict::{Builtin, HttpTarget, Operation, Scheme};
use http_body_util::Full;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wasmtime::component::Resource;

use super::GuestError;
use super::wit::net;
use crate::effect::exchange::{header_list, header_map};
use crate::effect::http::{self, HttpError, TargetError};
use crate::net::{Answer, Bounds, Client, NetError, Pieces, Started, next_hop, strip_for_other_origin};
use crate::runtime::CallState;

/// Bounds of a whole exchange, as the WIT package states them.
const WHOLE: Bounds = Bounds {
    head: Duration::from_secs(30),
    idle: Duration::from_secs(30),
    total: Duration::from_secs(30),
    request_bytes: 1 << 20,
    response_bytes: 4 << 20,
    header_bytes: 64 << 10,
};
/// Bounds of an exchange in pieces.
const IN_PIECES: Bounds =
    Bounds { total: Duration::from_secs(300), request_bytes: 64 << 20, response_bytes: 64 << 20, ..WHOLE };
/// Most bytes of one piece.
const MAX_PIECE: usize = 1 << 20;
/// Most redirects that are followed.
const MAX_HOPS: u8 = 10;

/// One exchange in pieces.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Exchange {
    state: State,
}

enum State {
    Sending { started: Box<Started>, body: mpsc::Sender<Bytes>, left: Option<u64>, sent: u64 },
    Receiving { answer: Box<Answer>, rest: Bytes },
    Over,
}

impl net::Host for CallState {
    async fn fetch(&mut self, req: net::Request) -> Result<net::Response, GuestError> {
        self.fetch_with(req, net::Options { follow: 0, timeout_ms: None }).await
    }

    async fn fetch_with(
        &mut self,
        req: net::Request,
        options: net::Options,
    ) -> Result<net::Response, GuestError> {
        let (mut target, mut headers) = self.parse(&req.method, &req.url, &req.headers)?;
        let mut body = Bytes::from(req.body);
        if body.len() > usize::try_from(WHOLE.request_bytes).unwrap_or(usize::MAX) {
            let operation = Operation::HttpRequest(target);
            return Err(self.scope().refuse(operation, Builtin::NetBodyTooLarge).into());
        }
        let asked = options.timeout_ms.map(|ms| Duration::from_millis(ms.into()));
        let bounds = Bounds { total: asked.map_or(WHOLE.total, |asked| asked.min(WHOLE.total)), ..WHOLE };
        let client = self.wasi.net.client().clone();
        let mut hops = options.follow.min(MAX_HOPS);
        loop {
            let started = client.start(&target, headers.clone(), Full::new(body.clone()), &bounds).await?;
            let (status, told, whole) = started.head().await?.collect().await?;
            let location = told.get(::http::header::LOCATION).and_then(|v| v.to_str().ok());
            let next = next_hop(&target, status, location).filter(|_| options.follow > 0);
            let Some(next) = next else {
                return Ok(net::Response { status, headers: header_list(&told), body: whole });
            };
            if hops == 0 {
                let operation = Operation::HttpRequest(target);
                return Err(self.scope().refuse(operation, Builtin::NetRedirects).into());
            }
            hops -= 1;
            let (to, without_body) = next.map_err(|_| self.malformed())?;
            strip_for_other_origin(&mut headers, &target, &to);
            if without_body {
                body = Bytes::new();
                headers.remove(::http::header::CONTENT_TYPE);
            }
            target = to;
        }
    }
}

impl net::HostExchange for CallState {
    async fn open(&mut self, head: net::RequestHead) -> Result<Resource<Exchange>, GuestError> {
        let (target, headers) = self.parse(&head.method, &head.url, &head.headers)?;
        if head.length.is_some_and(|length| length > IN_PIECES.request_bytes) {
            let operation = Operation::HttpRequest(target);
            return Err(self.scope().refuse(operation, Builtin::NetBodyTooLarge).into());
        }
        let (body, pieces) = Pieces::new(head.length);
        let client: Client = self.wasi.net.client().clone();
        let started = Box::new(client.start(&target, headers, pieces, &IN_PIECES).await?);
        let state = State::Sending { started, body, left: head.length, sent: 0 };
        Ok(self.wasi.table.push(Exchange { state })?)
    }

    async fn write(&mut self, this: Resource<Exchange>, piece: Vec<u8>) -> Result<(), GuestError> {
        self.wasi.table.get_mut(&this)?.write(Bytes::from(piece)).await
    }

    async fn response(&mut self, this: Resource<Exchange>) -> Result<net::ResponseHead, GuestError> {
        self.wasi.table.get_mut(&this)?.response().await
    }

    async fn read(&mut self, this: Resource<Exchange>, max: u32) -> Result<Vec<u8>, GuestError> {
        self.wasi.table.get_mut(&this)?.read(max).await
    }

    async fn drop(&mut self, this: Resource<Exchange>) -> wasmtime::Result<()> {
        self.wasi.table.delete(this)?;
        Ok(())
    }
}

impl Exchange {
    async fn write(&mut self, piece: Bytes) -> Result<(), GuestError> {
        let State::Sending { started, body, left, sent } = &mut self.state else {
            return Err(GuestError::failed("the request was sent already"));
        };
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        *sent = sent.saturating_add(length);
        let fits = left.is_none_or(|left| length <= left);
        if piece.len() > MAX_PIECE || *sent > IN_PIECES.request_bytes || !fits {
            let error = started.fail(HttpError::RequestTooLarge(IN_PIECES.request_bytes));
            self.state = State::Over;
            return Err(error.into());
        }
        *left = left.map(|left| left.saturating_sub(length));
        if piece.is_empty() {
            return Ok(());
        }
        let sending = started.driver.during(body.send(piece));
        let error = match timeout(IN_PIECES.idle, sending).await {
            Ok(Ok(())) => return Ok(()),
            // The server may have answered before it read the whole body: the head says so.
            Ok(Err(_)) => return Err(GuestError::failed("the server takes no more; ask for its response")),
            Err(_) => started.fail(HttpError::Deadline(30_000)),
        };
        self.state = State::Over;
        Err(error.into())
    }

    async fn response(&mut self) -> Result<net::ResponseHead, GuestError> {
        let State::Sending { started, body, left, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return Err(GuestError::failed("the response was asked for already"));
        };
        if left.is_some_and(|left| left > 0) {
            let _ = started.fail(HttpError::Protocol(String::new()));
            return Err(GuestError::failed("the body is shorter than its length said"));
        }
        drop(body);
        let answer = started.head().await?;
        let head = net::ResponseHead { status: answer.status, headers: header_list(&answer.headers) };
        self.state = State::Receiving { answer: Box::new(answer), rest: Bytes::new() };
        Ok(head)
    }

    async fn read(&mut self, max: u32) -> Result<Vec<u8>, GuestError> {
        let most = usize::try_from(max).unwrap_or(MAX_PIECE).min(MAX_PIECE);
        let State::Receiving { answer, rest } = &mut self.state else {
            return match self.state {
                State::Sending { .. } => Err(GuestError::failed("the response was not asked for yet")),
                State::Receiving { .. } | State::Over => Ok(Vec::new()),
            };
        };
        if most == 0 {
            return Err(GuestError::failed("nothing was asked for"));
        }
        if rest.is_empty() {
            match answer.driver.during(answer.body.next()).await {
                Some(Ok(bytes)) => *rest = bytes,
                Some(Err(error)) => {
                    self.state = State::Over;
                    return Err(error.into());
                }
                None => {
                    self.state = State::Over;
                    return Ok(Vec::new());
                }
            }
        }
        Ok(rest.split_to(most.min(rest.len())).to_vec())
    }
}

impl CallState {
    /// The target and headers in the one spelling that is decided on.
    fn parse(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, String)],
    ) -> Result<(HttpTarget, HeaderMap), GuestError> {
        let parsed =
            http::check_headers(headers).and_then(|()| http::parse_target(method, url)).map_err(|error| {
                match error {
                    TargetError::HeadersTooLarge => {
                        self.scope().refuse(nowhere(), Builtin::NetHeadersTooLarge).into()
                    }
                    _ => self.malformed(),
                }
            });
        let target = parsed?;
        let headers = header_map(headers).map_err(|_| self.malformed())?;
        Ok((target, headers))
    }

    fn malformed(&self) -> GuestError {
        self.scope().refuse(nowhere(), Builtin::NetTargetInvalid).into()
    }
}

impl From<NetError> for GuestError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Refused(refusal) => (*refusal).into(),
            NetError::Failed(error) => Self::failed(error),
        }
    }
}

/// The operation of a request that is too malformed to name its target.
pub(crate) const fn nowhere() -> Operation {
    Operation::HttpRequest(HttpTarget {
        method: String::new(),
        scheme: Scheme::Http,
        host: String::new(),
        port: 0,
        path: String::new(),
        query: None,
    })
}
