//! TCP as libp2p's transport, over the executor's sockets and a listener that was bound before.
//!
//! Our own and not `libp2p-tcp`: that one binds late, so a taken port could not stop the start with a clear error, and it
//! follows the machine's network interfaces through some thirty crates. What is missing against it: it listens once,
//! names no interface of an unspecified address, and does not dial from the listener's port.

use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// How long accepting rests after it failed: others must give descriptors back first.
const REST_MS: u64 = 100;

/// The transport of one node.
pub(super) struct Tcp {
    /// Until it listens.
    bound: Option<std::net::TcpListener>,
    listening: Option<Listening>,
}

struct Listening {
    id: ListenerId,
    socket: TcpListener,
    address: SocketAddr,
    told: bool,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Tcp {
    /// A transport that will listen on `bound`, which does not block.
    pub fn new(bound: std::net::TcpListener) -> Tcp {
        Tcp { bound: Some(bound), listening: None }
    }
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
    (port != 0 && !ip.is_unspecified() && !ip.is_multicast()).then(|| SocketAddr::new(ip, port))
}

impl Transport for Tcp {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Socket>>;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    /// Begins to listen on what was bound, whatever `address` says: it has been told before.
    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let bound = self.bound.take().ok_or(TransportError::MultiaddrNotSupported(address))?;
        let address = bound.local_addr().map_err(TransportError::Other)?;
        let socket = TcpListener::from_std(bound).map_err(TransportError::Other)?;
        self.listening = Some(Listening { id, socket, address, told: false, rest: None });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listening.take_if(|listening| listening.id == id).is_some()
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let to = socket_address(&address).ok_or(TransportError::MultiaddrNotSupported(address))?;
        Ok(Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
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
        for (text, expected) in table {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(socket_address(&address), expected.map(|address| address.parse().unwrap()), "{text}");
        }
    }
}
