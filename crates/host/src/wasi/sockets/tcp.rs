//! Connections of a guest's own.

use std::net::SocketAddr;
use std::sync::Arc;

use govrun_verdict::Transport;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, HostTcpSocket, ShutdownType, TcpSocket};
use wasmtime_wasi::p2::pipe::{ClosedInputStream, ClosedOutputStream};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, SocketResult};

use super::{Meter, MeteredInput, MeteredOutput, NOWHERE, SocketsView};

impl tcp::Host for SocketsView<'_> {}

/// Methods without effect outside the socket itself.
macro_rules! plain {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $result:ty;)*) => {$(
        fn $name(&mut self, this: Resource<TcpSocket>, $($arg: $ty),*) -> $result {
            HostTcpSocket::$name(&mut self.inner, this, $($arg),*)
        }
    )*};
}

impl HostTcpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.only_anywhere(Transport::Tcp, local_address.into())?;
        HostTcpSocket::start_bind(&mut self.inner, this, network, local_address).await
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let handle = this.rep();
        let meter = self.decide(Transport::Tcp, SocketAddr::from(remote_address))?;
        let started = HostTcpSocket::start_connect(&mut self.inner, this, network, remote_address);
        match started {
            Ok(()) => {
                self.sockets.connections.insert(handle, meter);
                Ok(())
            }
            Err(error) => {
                meter.fail("not-connected");
                Err(error)
            }
        }
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let handle = this.rep();
        let finished = HostTcpSocket::finish_connect(&mut self.inner, this);
        let (input, output) = match finished {
            Ok(streams) => streams,
            Err(error) => {
                let pending = matches!(error.downcast_ref(), Some(tcp::ErrorCode::WouldBlock));
                if !pending && let Some(meter) = self.sockets.connections.remove(&handle) {
                    meter.fail("not-connected");
                }
                return Err(error);
            }
        };
        // INVARIANT: no stream without the grant of its connection.
        let meter = self.sockets.connections.get(&handle).ok_or(tcp::ErrorCode::InvalidState)?;
        let table = &mut *self.inner.table;
        meter_input(table.get_mut(&input)?, meter);
        meter_output(table.get_mut(&output)?, meter);
        Ok((input, output))
    }

    async fn start_listen(&mut self, _: Resource<TcpSocket>) -> SocketResult<()> {
        self.inbound(Transport::Tcp, NOWHERE)
    }

    fn finish_listen(&mut self, _: Resource<TcpSocket>) -> SocketResult<()> {
        Err(tcp::ErrorCode::NotInProgress.into())
    }

    fn accept(
        &mut self,
        _: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        Err(tcp::ErrorCode::InvalidState.into())
    }

    plain! {
        finish_bind() -> SocketResult<()>;
        local_address() -> SocketResult<IpSocketAddress>;
        remote_address() -> SocketResult<IpSocketAddress>;
        is_listening() -> wasmtime::Result<bool>;
        address_family() -> wasmtime::Result<IpAddressFamily>;
        set_listen_backlog_size(value: u64) -> SocketResult<()>;
        keep_alive_enabled() -> SocketResult<bool>;
        set_keep_alive_enabled(value: bool) -> SocketResult<()>;
        keep_alive_idle_time() -> SocketResult<u64>;
        set_keep_alive_idle_time(value: u64) -> SocketResult<()>;
        keep_alive_interval() -> SocketResult<u64>;
        set_keep_alive_interval(value: u64) -> SocketResult<()>;
        keep_alive_count() -> SocketResult<u32>;
        set_keep_alive_count(value: u32) -> SocketResult<()>;
        hop_limit() -> SocketResult<u8>;
        set_hop_limit(value: u8) -> SocketResult<()>;
        receive_buffer_size() -> SocketResult<u64>;
        set_receive_buffer_size(value: u64) -> SocketResult<()>;
        send_buffer_size() -> SocketResult<u64>;
        set_send_buffer_size(value: u64) -> SocketResult<()>;
        subscribe() -> wasmtime::Result<Resource<DynPollable>>;
        shutdown(how: ShutdownType) -> SocketResult<()>;
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        let handle = this.rep();
        HostTcpSocket::drop(&mut self.inner, this)?;
        // Handles are used again: what this one meant ends here.
        self.sockets.connections.remove(&handle);
        Ok(())
    }
}

fn meter_input(stream: &mut DynInputStream, meter: &Arc<Meter>) {
    let inner = std::mem::replace(stream, Box::new(ClosedInputStream));
    *stream = Box::new(MeteredInput { inner, meter: Arc::clone(meter) });
}

fn meter_output(stream: &mut DynOutputStream, meter: &Arc<Meter>) {
    let inner = std::mem::replace(stream, Box::new(ClosedOutputStream));
    *stream = Box::new(MeteredOutput { inner, meter: Arc::clone(meter) });
}
