//! TCP as libp2p's transport, over the executor's sockets and a listener that was bound before.
//!
//! Our own and not `libp2p-tcp`: that one binds late, so a taken port could not stop the start with a clear error, and it
//! names the interfaces of an unspecified address. Ours listens once and names none. It dials from the listener's port if it
//! is told to: a NAT then has one outer address for both, which others can be told, and at which two can dial each other.

use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Sleep;

/// How long accepting rests after it failed: others must give descriptors back first.
const REST_MS: u64 = 100;

/// How long a connection may take to be made. Shorter than a server of AutoNAT has for a test, ten seconds with all that it
/// needs: that a dial leads nowhere must be known by then.
const CONNECT_SECONDS_MAX: u64 = 5;

/// The transport of one node.
pub(super) struct Tcp {
    /// Until it listens.
    bound: Option<std::net::TcpListener>,
    listening: Option<Listening>,
    /// The listener's address, if connections are to be dialled from there.
    from: Option<SocketAddr>,
}

struct Listening {
    id: ListenerId,
    socket: TcpListener,
    address: SocketAddr,
    told: bool,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Tcp {
    /// A transport that will listen on `bound`, which does not block. With `reuse` it dials from that port, for which
    /// `bound` must let it be shared ([`share_port`]).
    pub fn new(bound: std::net::TcpListener, reuse: bool) -> Tcp {
        let from = bound.local_addr().ok().filter(|_| reuse);
        Tcp { bound: Some(bound), listening: None, from }
    }
}

/// Lets sockets of this user be bound to the port of `bound` beside it. To be called once it has the port alone: who asked
/// for a shared one before would not be told that another node has it.
///
/// # Errors
/// The system's.
pub(super) fn share_port(bound: &std::net::TcpListener) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_reuseport(bound, true)?)
}

/// A connection, from a port that others use too if one is given and that can be.
async fn connect(from: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    if let Some(from) = from {
        match connect_from(from, to).await {
            // The same two ports were connected just before, or the listener's address leads nowhere near.
            Err(error) if is_taken(&error) => {}
            result => return result,
        }
    }
    TcpStream::connect(to).await
}

/// A connection from a port that others use too.
async fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(from)?;
    socket.connect(to).await
}

/// The IP address that a connection comes from or goes to; none if it leads through a relay.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    if super::nat::is_circuit(address) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

/// Whether an address is one that a transport of ours may dial: TCP, QUIC, or a circuit at a relay at one of these.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    let mut direct = address.clone();
    if super::nat::is_circuit(address) {
        while direct.pop().is_some_and(|part| part != Protocol::P2pCircuit) {}
        // A circuit needs to say who its relay is.
        if !matches!(direct.iter().last(), Some(Protocol::P2p(_))) {
            return false;
        }
    }
    socket_address(&direct).is_some() || is_quic(&direct)
}

/// Whether one machine can be at an address, in whichever version it is written.
fn is_place(ip: IpAddr, port: u16) -> bool {
    let ip = ip.to_canonical();
    port != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

fn is_quic(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let (ip, port) = match parts[..] {
        [Protocol::Ip4(ip), Protocol::Udp(port), Protocol::QuicV1, ..] => (IpAddr::V4(ip), port),
        [Protocol::Ip6(ip), Protocol::Udp(port), Protocol::QuicV1, ..] => (IpAddr::V6(ip), port),
        _ => return false,
    };
    is_place(ip, port) && matches!(parts[3..], [] | [Protocol::P2p(_)])
}

/// The multiaddr of QUIC at an address.
pub(super) fn quic_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// The multiaddr of a TCP address.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// Where a multiaddr leads, if it is `/ip4/…/tcp/…` or `/ip6/…/tcp/…`, perhaps with a peer's id behind it, and can be dialled.
pub(super) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    match parts.next() {
        None => {}
        Some(Protocol::P2p(_)) if parts.next().is_none() => {}
        Some(_) => return None,
    }
    is_place(ip, port).then(|| SocketAddr::new(ip, port))
}

impl Transport for Tcp {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Socket>>;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    /// Begins to listen on what was bound, whatever address of TCP it is told: it has been told before.
    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let is_tcp = matches!(address.iter().nth(1), Some(Protocol::Tcp(_))) && address.iter().count() == 2;
        let bound = self.bound.take_if(|_| is_tcp).ok_or(TransportError::MultiaddrNotSupported(address))?;
        let address = bound.local_addr().map_err(TransportError::Other)?;
        let socket = TcpListener::from_std(bound).map_err(TransportError::Other)?;
        self.listening = Some(Listening { id, socket, address, told: false, rest: None });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listening.take_if(|listening| listening.id == id).is_some()
    }

    fn dial(&mut self, address: Multiaddr, how: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let to = socket_address(&address).ok_or(TransportError::MultiaddrNotSupported(address))?;
        let from = self.from.filter(|from| how.port_use == PortUse::Reuse && from.is_ipv4() == to.is_ipv4());
        Ok(Box::pin(async move {
            let limit = Duration::from_secs(CONNECT_SECONDS_MAX);
            let stream = tokio::time::timeout(limit, connect(from, to)).await??;
            stream.set_nodelay(true)?;
            Ok(Socket(stream))
        }))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let Some(listening) = &mut self.listening else { return Poll::Pending };
        let listener_id = listening.id;
        if !listening.told {
            listening.told = true;
            let listen_addr = multiaddr(listening.address);
            return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
        }
        if let Some(rest) = &mut listening.rest {
            ready!(rest.as_mut().poll(cx));
            listening.rest = None;
        }
        match ready!(listening.socket.poll_accept(cx)) {
            Ok((stream, from)) => Poll::Ready(TransportEvent::Incoming {
                listener_id,
                upgrade: ready(stream.set_nodelay(true).map(|()| Socket(stream))),
                local_addr: multiaddr(listening.address),
                send_back_addr: multiaddr(from),
            }),
            Err(error) => {
                listening.rest = Some(Box::pin(tokio::time::sleep(Duration::from_millis(REST_MS))));
                Poll::Ready(TransportEvent::ListenerError { listener_id, error })
            }
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// A connection, read and written through the traits that libp2p uses.
#[derive(Debug)]
pub(super) struct Socket(TcpStream);

impl futures::AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures::AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_dialled_over_tcp_is_an_address() {
        let id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        #[rustfmt::skip] // columns
        let table = [
            ("/ip4/10.0.0.1/tcp/4001".to_owned(),                     Some("10.0.0.1:4001")),
            (format!("/ip4/10.0.0.1/tcp/4001/p2p/{id}"),              Some("10.0.0.1:4001")),
            ("/ip6/::1/tcp/4001".to_owned(),                          Some("[::1]:4001")),
            ("/ip4/10.0.0.1/tcp/0".to_owned(),                        None),
            ("/ip4/0.0.0.0/tcp/4001".to_owned(),                      None),
            ("/ip4/224.0.0.1/tcp/4001".to_owned(),                    None),
            ("/ip4/10.0.0.1/udp/4001/quic-v1".to_owned(),             None),
            ("/ip4/10.0.0.1/tcp/4001/ws".to_owned(),                  None),
            (format!("/ip4/10.0.0.1/tcp/4001/p2p/{id}/p2p-circuit"),  None),
            ("/dns4/example.org/tcp/4001".to_owned(),                 None),
            ("/ip4/10.0.0.1".to_owned(),                              None),
        ];
        for (text, expected) in &table {
            let address: Multiaddr = text.parse().unwrap();
            let other = text.contains("quic") || text.contains("circuit");
            assert_eq!(is_dialable(&address), expected.is_some() || other, "{text}");
        }
        for text in [
            "/ip4/10.0.0.1/tcp/4001/p2p-circuit",
            "/ip4/10.0.0.1/udp/0/quic-v1",
            "/ip4/0.0.0.0/udp/1/quic-v1",
        ] {
            assert!(!is_dialable(&text.parse().unwrap()), "{text}");
        }
        for (text, expected) in table {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(socket_address(&address), expected.map(|address| address.parse().unwrap()), "{text}");
        }
    }
}
