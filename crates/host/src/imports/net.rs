//! `govrun:host/net`: one HTTP exchange. The name is decided first, then every address it resolves to; the connection
//! goes to an address that was decided, so a second look-up cannot lead elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use govrun_verdict::{Builtin, HttpTarget, Operation, Scheme};

use super::GuestError;
use super::wit::net;
use crate::effect::http::{self, HttpLimits};
use crate::grant::{Grant, Outcome};
use crate::runtime::CallState;
use crate::scope::Scope;

/// Bounds of every exchange, as the WIT package states them.
const LIMITS: HttpLimits =
    HttpLimits { connect_ms: 5_000, total_ms: 30_000, response_bytes: 4 << 20, header_bytes: 64 << 10 };
/// Most bytes of a request's body.
const MAX_REQUEST_BYTES: usize = 1 << 20;

impl net::Host for CallState {
    async fn fetch(&mut self, req: net::Request) -> Result<net::Response, GuestError> {
        let target = http::parse_target(&req.method, &req.url);
        let acceptable = http::check_headers(&req.headers).is_ok() && req.body.len() <= MAX_REQUEST_BYTES;
        let (Ok(target), true) = (target, acceptable) else {
            return Err(self.scope().refuse(nowhere(), Builtin::NetTargetInvalid).into());
        };
        let scope = Arc::clone(self.scope());
        let request = scope.admit(Operation::HttpRequest(target.clone())).await?;
        let (connection, address) = match connectable(&scope, &target).await {
            Ok(found) => found,
            Err(error) => {
                request.finish(&Outcome::failed("not-connected"));
                return Err(error);
            }
        };
        let sent = u64::try_from(req.body.len()).unwrap_or(u64::MAX);
        let response = http::send(&target, address, &req.headers, req.body, &LIMITS).await;
        end(request, connection, sent, response)
    }
}

fn end(
    request: Grant,
    connection: Grant,
    sent: u64,
    response: Result<http::HttpResponse, http::HttpError>,
) -> Result<net::Response, GuestError> {
    match response {
        Ok(response) => {
            let received = u64::try_from(response.body.len()).unwrap_or(u64::MAX);
            connection.finish(&Outcome::ok());
            request.finish(&Outcome { bytes_in: received, bytes_out: sent, ..Outcome::ok() });
            Ok(net::Response { status: response.status, headers: response.headers, body: response.body })
        }
        Err(error) => {
            connection.finish(&Outcome::failed("exchange-failed"));
            request.finish(&Outcome::failed("exchange-failed"));
            Err(GuestError::failed(error))
        }
    }
}

/// The address to connect to, with its grant. Every address of the name must be permitted, not only the one in use: a
/// name that leads both outside and inside is not to be trusted.
async fn connectable(scope: &Arc<Scope>, target: &HttpTarget) -> Result<(Grant, SocketAddr), GuestError> {
    let addresses = http::resolve(&target.host, target.port)
        .await
        .map_err(|_| GuestError::failed("the name does not resolve"))?;
    let mut chosen = None;
    for ip in addresses {
        let operation = Operation::NetConnect { host: target.host.clone(), ip, port: target.port };
        let grant = scope.admit(operation).await?;
        match chosen {
            None => chosen = Some((grant, SocketAddr::new(ip, target.port))),
            Some(_) => grant.finish(&Outcome { note: Some("another address was used"), ..Outcome::ok() }),
        }
    }
    chosen.ok_or_else(|| GuestError::failed("the name has no address"))
}

/// The operation of a request that is too malformed to name its target.
const fn nowhere() -> Operation {
    Operation::HttpRequest(HttpTarget {
        method: String::new(),
        scheme: Scheme::Http,
        host: String::new(),
        port: 0,
        path: String::new(),
        query: None,
    })
}
