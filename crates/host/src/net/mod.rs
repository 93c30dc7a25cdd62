//! The egress gate: the one way from a decided name to a connection.
//!
//! A name is resolved once. Every address it has must be permitted, not only the one in use: a name that leads both
//! outside and inside is not to be trusted. The connection goes to an address that was decided, and a certificate must be
//! good for the name that was decided, so neither a second look-up nor another server can take its place.

mod body;
mod client;
mod live;
mod redirect;
mod resolve;
mod secret;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use govrun_verdict::{Operation, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::body::Pieces;
pub(crate) use self::client::{Answer, Bounds, Client, Started};
pub(crate) use self::live::Ending;
pub(crate) use self::redirect::{next_hop, strip_for_other_origin};
pub use self::resolve::{Resolver, Resolving, SystemResolver};
pub use self::secret::{MAX_SECRET_BYTES, MIN_SECRET_BYTES, Secret, SecretError, SecretOffer};
pub(crate) use self::tls::HTTP_1_1;
pub use self::tls::{CaError, Tls};
use crate::effect::http::{self, HttpError};
use crate::grant::{Grant, Outcome};
use crate::scope::Scope;

/// Longest wait for a connection, over all addresses of the name, and for its handshake.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How calls reach the network.
#[derive(Debug, Clone)]
pub struct Egress {
    resolver: Arc<dyn Resolver>,
    tls: Tls,
}

impl Default for Egress {
    fn default() -> Self {
        Self::new(Arc::new(SystemResolver), Tls::default())
    }
}

/// Why there is no connection, or no answer on it.
#[derive(Debug)]
pub(crate) enum NetError {
    /// The gate refused; the record is written.
    Refused(Box<Refusal>),
    /// It was permitted and failed.
    Failed(HttpError),
}

impl From<Refusal> for NetError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<HttpError> for NetError {
    fn from(error: HttpError) -> Self {
        Self::Failed(error)
    }
}

impl NetError {
    /// A short kind for the outcome record of what asked for the connection.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "connection-refused-by-policy",
            Self::Failed(error) => error.kind(),
        }
    }

    /// As a refusal, recorded as one when the host ended the exchange by a rule of its own; `Err` for a plain failure.
    pub(crate) fn refusal(self, scope: &Scope, operation: Operation) -> Result<Refusal, HttpError> {
        match self {
            Self::Refused(refusal) => Ok(*refusal),
            Self::Failed(error) => match error.reason() {
                Some(reason) => Ok(scope.refuse(operation, reason)),
                None => Err(error),
            },
        }
    }
}

/// What one call does in the network.
pub(crate) struct NetCall {
    client: Client,
}

impl NetCall {
    pub(crate) fn new(scope: &Arc<Scope>, egress: &Arc<Egress>, secrets: &Arc<[SecretOffer]>) -> Self {
        let live = Arc::default();
        Self { client: Client::new(Arc::clone(scope), Arc::clone(egress), Arc::clone(secrets), live) }
    }

    /// What sends the call's requests, and dials for whatever else it needs.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for NetCall {
    fn drop(&mut self) {
        self.client.live().close();
    }
}

/// The bytes of a connection, with or without TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection to an address that was decided, with the grant that lasts as long as the connection.
pub(crate) struct Dialed {
    pub(crate) stream: Box<dyn Wire>,
    /// Where it leads, for protocols that need a second connection to the same place.
    pub(crate) peer: Option<SocketAddr>,
    /// Of `net.connect`; whoever uses the stream finishes it.
    pub(crate) grant: Grant,
}

impl Egress {
    /// Look up names with `resolver`, and believe the certificates of `tls`.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>, tls: Tls) -> Self {
        Self { resolver, tls }
    }

    /// Whose certificates are believed.
    #[must_use]
    pub const fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The addresses of a name that was decided.
    ///
    /// # Errors
    /// [`HttpError::Unresolved`].
    pub(crate) async fn lookup(&self, host: &str) -> Result<Vec<std::net::IpAddr>, HttpError> {
        resolve::addresses(&*self.resolver, host).await
    }

    /// Connect to `host`, in the spelling of [`http::canonical_host`], without TLS: resolve once, have every address
    /// decided (`net.connect`), connect to one of them.
    ///
    /// # Errors
    /// The refusal of any of the addresses, or why no connection came about.
    pub(crate) async fn dial(&self, scope: &Arc<Scope>, host: &str, port: u16) -> Result<Dialed, NetError> {
        let (stream, grant) = self.connect(scope, host, port).await?;
        let peer = stream.peer_addr().ok();
        Ok(Dialed { stream: Box::new(stream), peer, grant })
    }

    /// The same with TLS for that host, offering the protocols of `alpn`.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub(crate) async fn dial_tls(
        &self,
        scope: &Arc<Scope>,
        host: &str,
        port: u16,
        alpn: &[&[u8]],
    ) -> Result<Dialed, NetError> {
        let (stream, grant) = self.connect(scope, host, port).await?;
        let peer = stream.peer_addr().ok();
        let handshake = self.tls.secure(host, stream, alpn);
        let secured = tokio::time::timeout(CONNECT_DEADLINE, handshake).await.unwrap_or(Err(late()));
        match secured {
            Ok(stream) => Ok(Dialed { stream: Box::new(stream), peer, grant }),
            Err(error) => {
                grant.finish(&Outcome::failed(error.kind()));
                Err(error.into())
            }
        }
    }

    async fn connect(
        &self,
        scope: &Arc<Scope>,
        host: &str,
        port: u16,
    ) -> Result<(TcpStream, Grant), NetError> {
        if http::canonical_host(host).as_deref() != Ok(host) || port == 0 {
            return Err(HttpError::Request("the host has another spelling".to_owned()).into());
        }
        let mut permitted: Vec<(Grant, SocketAddr)> = Vec::new();
        for ip in self.lookup(host).await? {
            let operation = Operation::NetConnect { host: host.to_owned(), ip, port };
            match scope.admit(operation).await {
                Ok(grant) => permitted.push((grant, SocketAddr::new(ip, port))),
                Err(refusal) => {
                    unused(permitted, "another address of the name was refused");
                    return Err(refusal.into());
                }
            }
        }
        first_that_answers(permitted).await.map_err(NetError::from)
    }
}

/// Connect to the first address that takes the connection. Each gets an equal share of the time that is left.
async fn first_that_answers(permitted: Vec<(Grant, SocketAddr)>) -> Result<(TcpStream, Grant), HttpError> {
    let end = Instant::now() + CONNECT_DEADLINE;
    let mut waiting = permitted.into_iter();
    let mut last = HttpError::Unresolved;
    while let Some((grant, address)) = waiting.next() {
        let others = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / others.saturating_add(1);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                unused(waiting.collect(), "another address was used");
                return Ok((stream, grant));
            }
            Ok(Err(error)) => last = HttpError::Connect(error.kind().to_string()),
            Err(_) => last = late(),
        }
        grant.finish(&Outcome::failed(last.kind()));
    }
    Err(last)
}

fn late() -> HttpError {
    HttpError::Deadline(u64::try_from(CONNECT_DEADLINE.as_millis()).unwrap_or(u64::MAX))
}

fn unused(permitted: Vec<(Grant, SocketAddr)>, note: &'static str) {
    for (grant, _) in permitted {
        grant.finish(&Outcome { note: Some(note), ..Outcome::ok() });
    }
}

#[cfg(test)]
mod tests;
