//! The connection to a server: resolved once, every address decided, connected to one that was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use govrun_verdict::Operation;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::effect::http;
use crate::grant::{Grant, Outcome};
use crate::imports::GuestError;
use crate::scope::Scope;

/// Longest wait for the connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Connect to `host`. Every address of the name must be permitted: a name that leads both outside and inside is not to be
/// trusted.
///
/// # Errors
/// The refusal of any address, or that there is no connection.
pub(crate) async fn dial(
    scope: &Arc<Scope>,
    host: &str,
    port: u16,
) -> Result<(TcpStream, SocketAddr, Grant), GuestError> {
    let addresses = http::resolve(host, port)
        .await
        .map_err(|_| GuestError::failed("the server's name does not resolve"))?;
    let mut chosen: Option<(Grant, SocketAddr)> = None;
    for ip in addresses {
        let grant = scope.admit(Operation::NetConnect { host: host.to_owned(), ip, port }).await?;
        match chosen {
            None => chosen = Some((grant, SocketAddr::new(ip, port))),
            Some(_) => grant.finish(&Outcome { note: Some("another address was used"), ..Outcome::ok() }),
        }
    }
    let Some((grant, address)) = chosen else {
        return Err(GuestError::failed("the server's name has no address"));
    };
    match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok((stream, address, grant)),
        Ok(Err(_)) | Err(_) => {
            grant.finish(&Outcome::failed("not-connected"));
            Err(GuestError::failed("the server cannot be reached"))
        }
    }
}
