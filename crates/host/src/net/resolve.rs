//! From a decided name to its addresses, once.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use tokio::time::timeout;

use crate::effect::http::{self, HttpError, RESOLVE_DEADLINE};

/// The answer of a [`Resolver`], when it has come.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Who knows the addresses of names. Whatever it answers is decided address by address.
pub trait Resolver: Debug + Send + Sync {
    /// The addresses of `host`, a DNS name in lower case without trailing dot.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The resolver of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(http::resolve(host, 0))
    }
}

/// The distinct addresses of a host, at most [`http::MAX_ADDRESSES`], within [`RESOLVE_DEADLINE`]. An address is itself.
///
/// # Errors
/// [`HttpError::Unresolved`].
pub(super) async fn addresses(resolver: &dyn Resolver, host: &str) -> Result<Vec<IpAddr>, HttpError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let found = timeout(RESOLVE_DEADLINE, resolver.resolve(host)).await;
    match found {
        Ok(Ok(found)) if !found.is_empty() => Ok(http::distinct(found.into_iter())),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(HttpError::Unresolved),
    }
}
