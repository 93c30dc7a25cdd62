//! Names that a guest looks up itself. The name tells whoever serves it something, so it is decided before it is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::vec::IntoIter;

use govrun_verdict::{Builtin, Operation};
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};

use super::SocketsView;
use crate::effect::http::canonical_host;
use crate::grant::Outcome;
use crate::net::Client;

/// Most look-ups of one call.
const MAX_LOOKUPS: usize = 256;
/// Longest part of a name that is not one that a record keeps, in characters.
const MAX_SHOWN: usize = 64;

/// Which names led to which addresses in this call.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    lookups: usize,
    of: BTreeMap<IpAddr, Vec<String>>,
}

impl Names {
    /// The names that led to `ip`; one `None` when none did.
    pub(super) fn of(&self, ip: IpAddr) -> Vec<Option<String>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.of.get(&ip).map_or_else(|| vec![None], |names| names.iter().cloned().map(Some).collect())
    }

    fn add(&self, host: &str, addresses: &[IpAddr]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ip in addresses {
            let names = known.of.entry(*ip).or_default();
            if names.iter().all(|name| name != host) {
                names.push(host.to_owned());
            }
        }
    }

    /// Count a look-up; false when there were enough.
    fn count(&self) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.lookups += 1;
        known.lookups <= MAX_LOOKUPS
    }
}

type Answer = Result<Vec<IpAddr>, ErrorCode>;

/// One look-up. Nothing is asked unless the guest waits for it.
enum Lookup {
    Pending(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Ready(Result<IntoIter<IpAddr>, ErrorCode>),
}

impl Lookup {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Self::Pending(answer) = self {
            match answer.as_mut().poll(context) {
                Poll::Ready(answer) => *self = Self::Ready(answer.map(Vec::into_iter)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

async fn lookup(client: Client, names: Names, host: String) -> Answer {
    let scope = client.scope();
    let operation = Operation::NetDns { host: host.clone() };
    if !names.count() {
        let _ = scope.refuse(operation, Builtin::LimitHostCalls);
        return Err(ErrorCode::TemporaryResolverFailure);
    }
    let grant = scope.admit(operation).await.map_err(|_| ErrorCode::AccessDenied)?;
    match client.egress().lookup(&host).await {
        Ok(addresses) => {
            let rows = u64::try_from(addresses.len()).unwrap_or(u64::MAX);
            grant.finish(&Outcome { rows, ..Outcome::ok() });
            names.add(&host, &addresses);
            Ok(addresses)
        }
        Err(error) => {
            grant.finish(&Outcome::failed(error.kind()));
            Err(ErrorCode::NameUnresolvable)
        }
    }
}

impl Host for SocketsView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.inner.table.get(&network)?;
        let Ok(host) = canonical_host(&name) else {
            let shown = name.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
            let operation = Operation::NetDns { host: shown };
            let _ = self.sockets.client.scope().refuse(operation, Builtin::NetTargetInvalid);
            return Err(ErrorCode::InvalidArgument.into());
        };
        let stream = match host.parse::<IpAddr>() {
            // An address is its own answer: nobody is asked.
            Ok(ip) => Lookup::Ready(Ok(vec![ip].into_iter())),
            Err(_) => {
                let (client, names) = (self.sockets.client.clone(), self.sockets.names.clone());
                Lookup::Pending(Box::pin(lookup(client, names, host)))
            }
        };
        // The bindings name wasmtime's own type for the handle; what is behind it is ours alone.
        Ok(Resource::new_own(self.inner.table.push(stream)?.rep()))
    }
}

fn ours(stream: &Resource<ResolveAddressStream>) -> Resource<Lookup> {
    Resource::new_borrow(stream.rep())
}

impl HostResolveAddressStream for SocketsView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self.inner.table.get_mut(&ours(&stream))?;
        let _ = lookup.poll(&mut Context::from_waker(Waker::noop()));
        match lookup {
            Lookup::Pending(_) => Err(ErrorCode::WouldBlock.into()),
            Lookup::Ready(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
            Lookup::Ready(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.inner.table, ours(&stream))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.inner.table.delete(Resource::<Lookup>::new_own(stream.rep()))?;
        Ok(())
    }
}
