//! Questions that are asked of other servers of DNS, around `gateway::dns::forward`.
//!
//! Each question has a socket, and so a port, of its own, which the system draws by chance, as the id is: who wants to answer in
//! the server's place has to guess both. A socket hears its server only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fabric::join::Secret;
use gateway::dns::Transport;
use gateway::dns::forward::{Forwarded, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions under way at once; what is beyond is answered that it could not be.
const PENDING_MAX: usize = 512;
/// How long one server may take, in milliseconds.
const MILLIS_MAX: u64 = 2_000;
/// Datagrams from a server that are no answer to the question, at most; then the next one is asked.
const STRAYS_MAX: usize = 16;
/// Largest datagram that is taken, in bytes; more than is ever asked for.
const DATAGRAM_BYTES_MAX: usize = 4_096;

/// The servers, in the order in which they are asked.
#[derive(Clone, Debug)]
pub(super) struct Recursors {
    servers: Arc<[SocketAddr]>,
    places: Arc<Semaphore>,
}

/// A question that has its place.
pub(super) struct Asking {
    servers: Arc<[SocketAddr]>,
    _place: OwnedSemaphorePermit,
}

/// Others than these could be anybody, and answers are longer than questions: they would be sent to whoever a forged
/// address names.
fn is_near(client: IpAddr) -> bool {
    match client.to_canonical() {
        IpAddr::V4(it) => it.is_loopback() || it.is_private() || it.is_link_local(),
        IpAddr::V6(it) => it.is_loopback() || it.is_unique_local() || it.is_unicast_link_local(),
    }
}

/// An id by chance.
pub(super) fn draw() -> Option<u16> {
    Secret::draw().map(|Secret(bytes)| u16::from_be_bytes([bytes[0], bytes[1]]))
}

impl Recursors {
    /// None if there are no servers.
    pub fn new(servers: &[SocketAddr]) -> Option<Recursors> {
        let places = Arc::new(Semaphore::new(PENDING_MAX));
        (!servers.is_empty()).then(|| Recursors { servers: servers.into(), places })
    }

    /// Whether questions of this client are asked of others.
    pub fn serves(client: SocketAddr) -> bool {
        is_near(client.ip())
    }

    /// A place for a question; none if too many are under way.
    pub fn place(&self) -> Option<Asking> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Asking { servers: Arc::clone(&self.servers), _place: place })
    }
}

impl Asking {
    /// Asks one server after the other, and writes what the client is told behind what `out` has.
    pub async fn ask(self, question: &Forwarded, transport: Transport, out: &mut Vec<u8>) {
        let mut message = Vec::new();
        question.question(&mut message);
        for server in &*self.servers {
            let asked = async {
                match transport {
                    Transport::Udp => datagram(*server, &message, question).await,
                    Transport::Tcp => connection(*server, &message, question).await,
                }
            };
            match tokio::time::timeout(Duration::from_millis(MILLIS_MAX), asked).await {
                Ok(Ok(Some(answer))) => return question.answer(Some(&answer), out),
                // It said that it cannot, or something else.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::debug!(%server, %error, "a server of DNS could not be asked"),
                Err(_) => tracing::debug!(%server, "a server of DNS did not answer in time"),
            }
        }
        question.answer(None, out);
    }
}

/// The answer; none if the server said that it has none.
async fn datagram(server: SocketAddr, message: &[u8], question: &Forwarded) -> io::Result<Option<Vec<u8>>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut answer).await?;
        match question.judge(&answer[..length]) {
            Verdict::Foreign => {}
            Verdict::Unable => return Ok(None),
            Verdict::Taken => {
                answer.truncate(length);
                return Ok(Some(answer));
            }
        }
    }
    Ok(None)
}

async fn connection(server: SocketAddr, message: &[u8], question: &Forwarded) -> io::Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&length[..], message].concat()).await?;
    // Two bytes say how long it is, so it has a bound.
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(Some(answer).filter(|answer| question.judge(answer) == Verdict::Taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_nearby_have_others_asked() {
        #[rustfmt::skip] // columns
        let table = [
            ("127.0.0.1:1", true), ("10.1.2.3:1", true), ("192.168.1.1:1", true), ("169.254.0.1:1", true),
            ("[::1]:1", true), ("[fd00::1]:1", true), ("[fe80::1]:1", true), ("[::ffff:10.0.0.1]:1", true),
            ("8.8.8.8:1", false), ("172.32.0.1:1", false), ("[2001:db8::1]:1", false), ("[::ffff:8.8.8.8]:1", false),
        ];
        for (client, expected) in table {
            assert_eq!(Recursors::serves(client.parse().unwrap()), expected, "{client}");
        }
    }

    #[test]
    fn no_more_questions_are_under_way_than_have_places() {
        assert!(Recursors::new(&[]).is_none());
        let recursors = Recursors::new(&["127.0.0.1:53".parse().unwrap()]).unwrap();
        let mut all: Vec<_> = (0..PENDING_MAX).map(|_| recursors.place().unwrap()).collect();
        assert!(recursors.place().is_none());
        all.pop();
        assert!(recursors.place().is_some());
    }
}
