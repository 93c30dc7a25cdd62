//! Datagrams of a guest's own. Every peer is decided once for each socket, whether the socket is connected to it or sends
//! to it; what comes from anybody else is not heard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use govrun_verdict::Transport;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    self, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket,
};
use wasmtime_wasi::p2::{DynPollable, SocketResult};

use super::{Meter, SocketsView};

/// Who one socket talks to.
#[derive(Default)]
pub(super) struct Peers(Mutex<State>);

#[derive(Default)]
struct State {
    connected: Option<SocketAddr>,
    meters: BTreeMap<SocketAddr, Arc<Meter>>,
}

impl Peers {
    fn connect(&self, peer: Option<SocketAddr>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connected = peer;
    }

    fn connected(&self) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connected
    }

    fn meter(&self, peer: SocketAddr) -> Option<Arc<Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).meters.get(&peer).cloned()
    }

    fn add(&self, peer: SocketAddr, meter: Arc<Meter>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).meters.insert(peer, meter);
    }
}

impl SocketsView<'_> {
    /// The grant to talk to `peer` from this socket: held since the first time, or decided now.
    fn peer(&mut self, peers: &Peers, peer: SocketAddr) -> SocketResult<Arc<Meter>> {
        if let Some(meter) = peers.meter(peer) {
            return Ok(meter);
        }
        let meter = self.decide(Transport::Udp, peer)?;
        peers.add(peer, Arc::clone(&meter));
        Ok(meter)
    }

    fn peers_of(&self, stream: u32) -> SocketResult<Arc<Peers>> {
        Ok(self.sockets.streams.get(&stream).cloned().ok_or(udp::ErrorCode::InvalidState)?)
    }
}

/// Methods without effect outside the socket itself.
macro_rules! plain {
    ($trait:ident $this:ty; $($name:ident($($arg:ident: $ty:ty),*) -> $result:ty;)*) => {$(
        fn $name(&mut self, this: Resource<$this>, $($arg: $ty),*) -> $result {
            $trait::$name(&mut self.inner, this, $($arg),*)
        }
    )*};
}

impl udp::Host for SocketsView<'_> {}

impl HostUdpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.only_anywhere(Transport::Udp, local_address.into())?;
        HostUdpSocket::start_bind(&mut self.inner, this, network, local_address).await
    }

    async fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let peers = Arc::clone(self.sockets.peers.entry(this.rep()).or_default());
        let remote = remote_address.map(SocketAddr::from);
        if let Some(remote) = remote {
            self.peer(&peers, remote)?;
        }
        let (incoming, outgoing) = HostUdpSocket::stream(&mut self.inner, this, remote_address).await?;
        peers.connect(remote);
        for handle in [incoming.rep(), outgoing.rep()] {
            self.sockets.streams.insert(handle, Arc::clone(&peers));
        }
        Ok((incoming, outgoing))
    }

    plain! { HostUdpSocket UdpSocket;
        finish_bind() -> SocketResult<()>;
        local_address() -> SocketResult<IpSocketAddress>;
        remote_address() -> SocketResult<IpSocketAddress>;
        address_family() -> wasmtime::Result<IpAddressFamily>;
        unicast_hop_limit() -> SocketResult<u8>;
        set_unicast_hop_limit(value: u8) -> SocketResult<()>;
        receive_buffer_size() -> SocketResult<u64>;
        set_receive_buffer_size(value: u64) -> SocketResult<()>;
        send_buffer_size() -> SocketResult<u64>;
        set_send_buffer_size(value: u64) -> SocketResult<()>;
        subscribe() -> wasmtime::Result<Resource<DynPollable>>;
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        let handle = this.rep();
        HostUdpSocket::drop(&mut self.inner, this)?;
        self.sockets.peers.remove(&handle);
        Ok(())
    }
}

impl HostIncomingDatagramStream for SocketsView<'_> {
    fn receive(
        &mut self,
        this: Resource<IncomingDatagramStream>,
        max_results: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        let peers = self.peers_of(this.rep())?;
        let mut came = HostIncomingDatagramStream::receive(&mut self.inner, this, max_results)?;
        // Only peers of this very socket are heard, and only within their bounds.
        came.retain(|datagram| {
            let meter = peers.meter(SocketAddr::from(datagram.remote_address));
            meter.is_some_and(|meter| meter.received(datagram.data.len()))
        });
        Ok(came)
    }

    plain! { HostIncomingDatagramStream IncomingDatagramStream;
        subscribe() -> wasmtime::Result<Resource<DynPollable>>;
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        let handle = this.rep();
        HostIncomingDatagramStream::drop(&mut self.inner, this)?;
        self.sockets.streams.remove(&handle);
        Ok(())
    }
}

impl HostOutgoingDatagramStream for SocketsView<'_> {
    fn send(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
        mut datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        let peers = self.peers_of(this.rep())?;
        let mut refused = None;
        let mut permitted = 0;
        for datagram in &datagrams {
            // One without any peer is refused by what this delegates to.
            let to = datagram.remote_address.map(SocketAddr::from).or_else(|| peers.connected());
            let counted = to.map_or(Ok(true), |to| Ok(self.peer(&peers, to)?.sent(datagram.data.len())));
            match counted {
                Ok(true) => permitted += 1,
                Ok(false) => refused = Some(udp::ErrorCode::AccessDenied.into()),
                Err(error) => refused = Some(error),
            }
            if refused.is_some() {
                break;
            }
        }
        // Those before the first that is refused are sent; the guest is told how many.
        match refused {
            Some(error) if permitted == 0 => Err(error),
            Some(_) | None => {
                datagrams.truncate(permitted);
                HostOutgoingDatagramStream::send(&mut self.inner, this, datagrams)
            }
        }
    }

    plain! { HostOutgoingDatagramStream OutgoingDatagramStream;
        check_send() -> SocketResult<u64>;
        subscribe() -> wasmtime::Result<Resource<DynPollable>>;
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        let handle = this.rep();
        HostOutgoingDatagramStream::drop(&mut self.inner, this).await?;
        self.sockets.streams.remove(&handle);
        Ok(())
    }
}
