//! `wasi:sockets` 0.2: sockets ask, and nothing calls in. Every peer of a socket is decided (`net.socket`) with the names
//! that led to its address, every look-up of a name (`net.dns`) before it is made.
//!
//! Views over wasmtime-wasi's own sockets; what they delegate to checks each address again against what was decided, so
//! that no way around a view reaches a peer.

mod names;
mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use govrun_verdict::{Builtin, Operation, Transport};
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode};
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, ip_name_lookup, tcp as wasi_tcp, tcp_create_socket, udp as wasi_udp, udp_create_socket,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, SocketError, StreamError,
    StreamResult,
};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSockets, WasiSocketsCtxView};
use wasmtime_wasi::{WasiCtxBuilder, async_trait};

use self::names::Names;
use self::udp::Peers;
use super::WasiState;
use crate::grant::{Grant, Outcome};
use crate::net::{Client, Ending};
use crate::runtime::CallState;

/// Most bytes of one connection or peer, each way.
const MAX_BYTES: u64 = 256 << 20;

/// The sockets of one call.
pub(super) struct Sockets {
    client: Client,
    names: Names,
    decided: Decided,
    /// Connections by their socket's handle.
    connections: BTreeMap<u32, Arc<Meter>>,
    /// Peers by the handles of UDP sockets, and of the streams made of them.
    peers: BTreeMap<u32, Arc<Peers>>,
    streams: BTreeMap<u32, Arc<Peers>>,
}

/// Who may be talked to: what was decided so far.
#[derive(Clone, Default)]
struct Decided(Arc<Mutex<BTreeSet<(&'static str, SocketAddr)>>>);

impl Decided {
    fn add(&self, transport: Transport, peer: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((transport.name(), peer));
    }

    fn has(&self, transport: Transport, peer: SocketAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(transport.name(), peer))
    }

    /// INVARIANT: a second lock behind the views. Nothing is reached, and nothing is heard from, that was not decided.
    fn permits(&self, address: SocketAddr, use_: SocketAddrUse) -> bool {
        match use_ {
            SocketAddrUse::TcpConnect => self.has(Transport::Tcp, address),
            SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => self.has(Transport::Udp, address),
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => is_anywhere(address),
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
        }
    }
}

/// No address and port of its own: what every socket that connects has.
fn is_anywhere(address: SocketAddr) -> bool {
    address.ip().is_unspecified() && address.port() == 0
}

impl Sockets {
    pub(super) fn new(client: &Client, builder: &mut WasiCtxBuilder) -> Self {
        let decided = Decided::default();
        let check = decided.clone();
        builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(false).socket_addr_check(
            move |address, use_| {
                let permitted = check.permits(address, use_);
                Box::pin(async move { permitted })
            },
        );
        Self {
            client: client.clone(),
            names: Names::default(),
            decided,
            connections: BTreeMap::new(),
            peers: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }
}

impl WasiState {
    fn sockets(&mut self) -> SocketsView<'_> {
        let inner = WasiSocketsCtxView { ctx: self.ctx.sockets(), table: &mut self.table };
        SocketsView { inner, sockets: &mut self.sockets }
    }

    fn plain_sockets(&mut self) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView { ctx: self.ctx.sockets(), table: &mut self.table }
    }
}

struct GovernedSockets;

impl HasData for GovernedSockets {
    type Data<'a> = SocketsView<'a>;
}

pub(super) struct SocketsView<'a> {
    inner: WasiSocketsCtxView<'a>,
    sockets: &'a mut Sockets,
}

/// Link the interfaces one by one.
///
/// # Errors
/// When one of them is linked already.
pub(super) fn add_to_linker(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let options = network::LinkOptions::default();
    // Harmless: a socket without peer, a handle without power, the codes of errors.
    network::add_to_linker::<CallState, WasiSockets>(l, &options, |s| s.wasi.plain_sockets())?;
    instance_network::add_to_linker::<CallState, WasiSockets>(l, |s| s.wasi.plain_sockets())?;
    tcp_create_socket::add_to_linker::<CallState, WasiSockets>(l, |s| s.wasi.plain_sockets())?;
    udp_create_socket::add_to_linker::<CallState, WasiSockets>(l, |s| s.wasi.plain_sockets())?;
    ip_name_lookup::add_to_linker::<CallState, GovernedSockets>(l, |s| s.wasi.sockets())?;
    wasi_tcp::add_to_linker::<CallState, GovernedSockets>(l, |s| s.wasi.sockets())?;
    wasi_udp::add_to_linker::<CallState, GovernedSockets>(l, |s| s.wasi.sockets())
}

impl SocketsView<'_> {
    /// Decide on a peer: once for each name that led to its address in this call, and all of them must permit it.
    fn decide(&mut self, transport: Transport, peer: SocketAddr) -> Result<Arc<Meter>, SocketError> {
        let of =
            |host: Option<String>| Operation::NetSocket { transport, host, ip: peer.ip(), port: peer.port() };
        let scope = Arc::clone(self.sockets.client.scope());
        if let SocketAddr::V6(v6) = peer
            && (v6.scope_id() != 0 || v6.flowinfo() != 0)
        {
            let _ = scope.refuse(of(None), Builtin::NetTargetInvalid);
            return Err(ErrorCode::InvalidArgument.into());
        }
        let Some(slot) = self.sockets.client.live().reserve() else {
            let _ = scope.refuse(of(None), Builtin::NetConnections);
            return Err(ErrorCode::NewSocketLimit.into());
        };
        let mut grants: Vec<Grant> = Vec::new();
        for host in self.sockets.names.of(peer.ip()) {
            match scope.admit_now(of(host)) {
                Ok(grant) => grants.push(grant),
                Err(_) => {
                    for grant in grants {
                        grant.finish(&Outcome {
                            note: Some("another name of the address was refused"),
                            ..Outcome::ok()
                        });
                    }
                    return Err(ErrorCode::AccessDenied.into());
                }
            }
        }
        let mut grants = grants.into_iter();
        let first = grants.next().ok_or(ErrorCode::AccessDenied)?;
        let ending = Ending::begin(slot, first);
        for grant in grants {
            ending.add(grant);
        }
        self.sockets.decided.add(transport, peer);
        Ok(Arc::new(Meter { ending, client: self.sockets.client.clone(), operation: of(None) }))
    }

    /// Nothing is bound but what every socket that connects has.
    fn only_anywhere(&self, transport: Transport, address: SocketAddr) -> Result<(), SocketError> {
        if is_anywhere(address) { Ok(()) } else { self.inbound(transport, address) }
    }

    fn inbound<T>(&self, transport: Transport, address: SocketAddr) -> Result<T, SocketError> {
        let operation =
            Operation::NetSocket { transport, host: None, ip: address.ip(), port: address.port() };
        // The refusal is for the record and the caller; the guest sees the nearest code.
        let _ = self.sockets.client.scope().refuse(operation, Builtin::NetInbound);
        Err(ErrorCode::AccessDenied.into())
    }
}

/// The address of a socket that has none.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl network::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.inner, error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.inner, error)
    }
}

impl network::HostNetwork for SocketsView<'_> {
    fn drop(&mut self, this: Resource<network::Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.inner, this)
    }
}

/// The grants of one connection or peer with what went over it. They end when the last of its handles is gone.
pub(super) struct Meter {
    ending: Arc<Ending>,
    client: Client,
    operation: Operation,
}

impl Meter {
    /// Count bytes that came; false when the connection is over, or over its bound.
    fn received(&self, bytes: usize) -> bool {
        self.within(self.ending.received(bytes))
    }

    /// Count bytes that go.
    fn sent(&self, bytes: usize) -> bool {
        self.within(self.ending.sent(bytes))
    }

    fn within(&self, sum: u64) -> bool {
        if self.ending.is_over() {
            return false;
        }
        if sum > MAX_BYTES {
            self.ending.finish(Some("too-many-bytes"));
            let _ = self.client.refuse(self.operation.clone(), Builtin::NetBodyTooLarge);
            return false;
        }
        true
    }

    fn fail(&self, kind: &'static str) {
        self.ending.finish(Some(kind));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.ending.finish(None);
    }
}

/// What a connection gives.
struct MeteredInput {
    inner: DynInputStream,
    meter: Arc<Meter>,
}

#[async_trait]
impl Pollable for MeteredInput {
    async fn ready(&mut self) {
        (*self.inner).ready().await;
    }
}

#[async_trait]
impl InputStream for MeteredInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if self.meter.ending.is_over() {
            return Err(StreamError::Closed);
        }
        let bytes = self.inner.read(size)?;
        if self.meter.received(bytes.len()) { Ok(bytes) } else { Err(StreamError::Closed) }
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

/// What a connection takes.
struct MeteredOutput {
    inner: DynOutputStream,
    meter: Arc<Meter>,
}

#[async_trait]
impl Pollable for MeteredOutput {
    async fn ready(&mut self) {
        (*self.inner).ready().await;
    }
}

#[async_trait]
impl OutputStream for MeteredOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // Counted before it is sent: what goes over the bound is not sent.
        if self.meter.sent(bytes.len()) { self.inner.write(bytes) } else { Err(StreamError::Closed) }
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.meter.ending.is_over() { Err(StreamError::Closed) } else { self.inner.check_write() }
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}
