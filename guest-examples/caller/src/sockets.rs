//! Plain `wasi:sockets`.

use std::net::SocketAddr;

use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::{IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket};
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::Told;

fn told(code: ErrorCode) -> String {
    format!("{code:?}")
}

fn parse(text: &str) -> Result<(IpAddressFamily, IpSocketAddress), String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("{text} is no address"))?;
    Ok(match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            let v4 = Ipv4SocketAddress { port: v4.port(), address: (a, b, c, d) };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(v4))
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let v6 = Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: v6.scope_id(),
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(v6))
        }
    })
}

fn connect(address: &str) -> Result<(TcpSocket, InputStream, OutputStream), String> {
    let (family, address) = parse(address)?;
    let socket = create_tcp_socket(family).map_err(told)?;
    socket.start_connect(&instance_network(), address).map_err(told)?;
    loop {
        match socket.finish_connect() {
            Ok((input, output)) => return Ok((socket, input, output)),
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            Err(code) => return Err(told(code)),
        }
    }
}

/// Say something and hear the answer.
pub(crate) fn tcp(address: &str, text: &str) -> Told {
    let (_socket, input, output) = connect(address)?;
    output.blocking_write_and_flush(text.as_bytes()).map_err(|error| format!("{error:?}"))?;
    let mut heard = Vec::new();
    loop {
        match input.blocking_read(4096) {
            Ok(bytes) => heard.extend_from_slice(&bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

/// End with the connection open.
pub(crate) fn keep(address: &str) -> Told {
    let (socket, input, output) = connect(address)?;
    output.blocking_write_and_flush(b"kept").map_err(|error| format!("{error:?}"))?;
    std::mem::forget((socket, input, output));
    Ok("kept".to_owned())
}

pub(crate) fn tcp_bind(address: &str) -> Told {
    let (family, address) = parse(address)?;
    let socket = create_tcp_socket(family).map_err(told)?;
    socket.start_bind(&instance_network(), address).map_err(told)?;
    socket.finish_bind().map_err(told)?;
    Ok("bound".to_owned())
}

pub(crate) fn listen() -> Told {
    let (family, anywhere) = parse("0.0.0.0:0")?;
    let socket = create_tcp_socket(family).map_err(told)?;
    socket.start_bind(&instance_network(), anywhere).map_err(told)?;
    socket.finish_bind().map_err(told)?;
    let begun = socket.start_listen();
    let ended = socket.finish_listen();
    let accepted = socket.accept().map(|_| ());
    match begun {
        Ok(()) => Ok("listens".to_owned()),
        Err(code) => Err(format!("{code:?} {ended:?} {accepted:?}")),
    }
}

/// So many writes of nothing, without waiting.
pub(crate) fn empty_writes(address: &str, count: usize) -> Told {
    let (_socket, _input, output) = connect(address)?;
    for _ in 0..count {
        if output.check_write().is_ok_and(|room| room > 0) {
            output.write(&[]).map_err(|error| format!("{error:?}"))?;
        }
    }
    Ok(format!("{count} writes of nothing"))
}

type Streams = (IncomingDatagramStream, OutgoingDatagramStream);

fn udp(peer: &str) -> Result<(UdpSocket, IpSocketAddress), String> {
    let (family, peer) = parse(peer)?;
    let anywhere = match family {
        IpAddressFamily::Ipv4 => "0.0.0.0:0",
        IpAddressFamily::Ipv6 => "[::]:0",
    };
    let socket = create_udp_socket(family).map_err(told)?;
    socket.start_bind(&instance_network(), parse(anywhere)?.1).map_err(told)?;
    socket.finish_bind().map_err(told)?;
    Ok((socket, peer))
}

fn send(streams: &Streams, text: &str, to: Option<IpSocketAddress>) -> Result<u64, String> {
    streams.1.subscribe().block();
    streams.1.check_send().map_err(told)?;
    streams.1.send(&[OutgoingDatagram { data: text.as_bytes().to_vec(), remote_address: to }]).map_err(told)
}

pub(crate) fn udp_send(peer: &str, text: &str) -> Told {
    let (socket, peer) = udp(peer)?;
    let streams = socket.stream(None).map_err(told)?;
    // Twice: the second one goes under the grant of the first.
    let first = send(&streams, text, Some(peer))?;
    let second = send(&streams, text, Some(peer))?;
    Ok(format!("{} sent", first + second))
}

pub(crate) fn udp_connect(peer: &str, text: &str) -> Told {
    let (socket, peer) = udp(peer)?;
    let streams = socket.stream(Some(peer)).map_err(told)?;
    Ok(format!("{} sent", send(&streams, text, None)?))
}

/// Connected to one peer, sends to another.
pub(crate) fn udp_switch(first: &str, second: &str) -> Told {
    let (socket, first) = udp(first)?;
    let streams = socket.stream(Some(first)).map_err(told)?;
    let direct = send(&streams, "switched", Some(parse(second)?.1));
    drop(streams);
    let again = match socket.stream(Some(parse(second)?.1)) {
        Ok(streams) => send(&streams, "switched", None),
        Err(code) => Err(told(code)),
    };
    match (direct, again) {
        (Err(direct), Err(again)) => Err(format!("{direct} {again}")),
        other => Ok(format!("{other:?}")),
    }
}

/// Sends to one peer and hears whoever answers.
pub(crate) fn udp_hear(peer: &str) -> Told {
    let (socket, peer) = udp(peer)?;
    let streams = socket.stream(None).map_err(told)?;
    send(&streams, "hello", Some(peer))?;
    let mut heard = Vec::new();
    while heard.is_empty() {
        streams.0.subscribe().block();
        heard.extend(streams.0.receive(16).map_err(told)?);
    }
    let texts: Vec<String> = heard.iter().map(|d| String::from_utf8_lossy(&d.data).into_owned()).collect();
    Ok(texts.join(" "))
}

pub(crate) fn udp_bind(address: &str) -> Told {
    let (family, address) = parse(address)?;
    let socket = create_udp_socket(family).map_err(told)?;
    socket.start_bind(&instance_network(), address).map_err(told)?;
    socket.finish_bind().map_err(told)?;
    Ok("bound".to_owned())
}

pub(crate) fn lookup(name: &str) -> Result<Vec<String>, String> {
    let stream = resolve_addresses(&instance_network(), name).map_err(told)?;
    let mut all = Vec::new();
    loop {
        match stream.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => all.push(format!("{a}.{b}.{c}.{d}")),
            Ok(Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h)))) => {
                all.push(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string());
            }
            Ok(None) => return Ok(all),
            Err(ErrorCode::WouldBlock) => stream.subscribe().block(),
            Err(code) => return Err(told(code)),
        }
    }
}

/// So many names, each with something to tell in its first label.
pub(crate) fn lookups(count: usize, suffix: &str) -> Told {
    let good = (0..count).filter(|n| lookup(&format!("secret-{n}.{suffix}")).is_ok()).count();
    Ok(format!("{good} of {count} resolved"))
}

/// Look up and connect to the first address.
pub(crate) fn dial(name: &str, port: &str) -> Told {
    let addresses = lookup(name)?;
    let first = addresses.first().ok_or("no address")?;
    tcp(&format!("{first}:{port}"), "hello")
}
