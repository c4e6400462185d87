//! The port for questions of DNS, over UDP and TCP, around `gateway::dns`.

mod forward;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::dns::Transport;
pub(crate) use gateway::dns::Zone;
use gateway::dns::forward::Forwarded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use self::forward::Recursors;
use crate::services::Handle;

/// Longest question in a datagram, in bytes; a longer one is cut, and then no question.
const QUESTION_BYTES_MAX: usize = 4096;
/// Connections at once; others wait.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be without a question.
const IDLE_SECONDS_MAX: u64 = 10;
/// A free port of TCP may be taken for UDP: so often another is tried.
const TRIES_MAX: usize = 16;

/// Bound ports.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    /// Where both are.
    pub address: SocketAddr,
}

impl DnsSockets {
    /// Takes one port for both; with port 0 one that is free for both.
    pub fn bind(wanted: SocketAddr) -> io::Result<DnsSockets> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES_MAX {
            let tcp = std::net::TcpListener::bind(wanted)?;
            let address = tcp.local_addr()?;
            match std::net::UdpSocket::bind(address) {
                Ok(udp) => {
                    udp.set_nonblocking(true)?;
                    tcp.set_nonblocking(true)?;
                    return Ok(DnsSockets { udp, tcp, address });
                }
                Err(error) if wanted.port() == 0 => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// What questions are answered from.
#[derive(Clone)]
struct Source {
    handle: Handle,
    zone: Arc<Zone>,
    recursors: Option<Recursors>,
}

/// What becomes of a question.
enum Step {
    /// Nothing is sent.
    Silent,
    /// It is answered.
    Answered,
    /// Others are asked.
    Forwarded(Box<Forwarded>),
}

impl Source {
    /// Answers behind what `out` has, if that needs nobody else.
    fn step(
        &self,
        client: SocketAddr,
        message: &[u8],
        transport: Transport,
        chance: u64,
        out: &mut Vec<u8>,
    ) -> Step {
        let view = self.handle.view();
        let forwarded = if self.recursors.is_some() && Recursors::serves(client) {
            forward::draw().and_then(|id| self.zone.forwarded(&view, message, transport, id))
        } else {
            None
        };
        match forwarded {
            Some(question) => Step::Forwarded(Box::new(question)),
            None if self.zone.answer(&view, message, transport, chance, out) => Step::Answered,
            None => Step::Silent,
        }
    }

    /// Asks others, and answers behind what `out` has; at once if too many questions are under way.
    async fn ask(&self, question: &Forwarded, transport: Transport, out: &mut Vec<u8>) {
        match self.recursors.as_ref().and_then(Recursors::place) {
            Some(asking) => asking.ask(question, transport, out).await,
            None => question.answer(None, out),
        }
    }
}

/// Answers for ever. What is outside of the zone is asked of `recursors`, if there are any.
pub(crate) async fn serve(sockets: DnsSockets, handle: Handle, mut zone: Zone, recursors: &[SocketAddr]) {
    let DnsSockets { udp, tcp, .. } = sockets;
    let (udp, tcp) = match (UdpSocket::from_std(udp), TcpListener::from_std(tcp)) {
        (Ok(udp), Ok(tcp)) => (udp, tcp),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "questions of DNS cannot be answered");
            return std::future::pending().await;
        }
    };
    let recursors = Recursors::new(recursors);
    zone.forwards = recursors.is_some();
    let (source, udp) = (Source { handle, zone: Arc::new(zone), recursors }, Arc::new(udp));
    tokio::join!(datagrams(&udp, &source), connections(&tcp, &source));
}

async fn datagrams(socket: &Arc<UdpSocket>, source: &Source) {
    let (mut question, mut answer) = (vec![0; QUESTION_BYTES_MAX], Vec::new());
    let mut chance = 0_u64;
    loop {
        let (bytes, from) = match socket.recv_from(&mut question).await {
            Ok(received) => received,
            Err(error) => {
                // An answer to who has gone comes back as an error of the socket.
                tracing::debug!(%error, "a question of DNS did not arrive");
                continue;
            }
        };
        chance = chance.wrapping_add(1);
        answer.clear();
        match source.step(from, &question[..bytes], Transport::Udp, chance, &mut answer) {
            Step::Silent => {}
            // Who asked asks again.
            Step::Answered => drop(socket.send_to(&answer, from).await),
            Step::Forwarded(asked) => {
                let (socket, source) = (Arc::clone(socket), source.clone());
                tokio::spawn(async move {
                    let mut answer = Vec::new();
                    source.ask(&asked, Transport::Udp, &mut answer).await;
                    // Who asked asks again.
                    let _ = socket.send_to(&answer, from).await;
                });
            }
        }
    }
}

async fn connections(listener: &TcpListener, source: &Source) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let source = source.clone();
                tokio::spawn(async move {
                    // What a client does wrong is its own affair.
                    let _ = connection(stream, from, &source).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for DNS could not be accepted");
                // Out of descriptors: others must go first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Questions one after the other, each behind its length.
async fn connection(mut stream: TcpStream, from: SocketAddr, source: &Source) -> io::Result<()> {
    let (mut question, mut answer, mut chance) = (Vec::new(), Vec::new(), 0_u64);
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if length > QUESTION_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            question.resize(length, 0);
            stream.read_exact(&mut question).await.map(drop)
        };
        tokio::time::timeout(Duration::from_secs(IDLE_SECONDS_MAX), read)
            .await
            .map_err(io::Error::other)??;
        chance = chance.wrapping_add(1);
        answer.clear();
        match source.step(from, &question, Transport::Tcp, chance, &mut answer) {
            Step::Silent => return Ok(()),
            Step::Answered => {}
            Step::Forwarded(asked) => source.ask(&asked, Transport::Tcp, &mut answer).await,
        }
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes();
        let message = [&length[..], &answer].concat();
        tokio::time::timeout(Duration::from_secs(IDLE_SECONDS_MAX), stream.write_all(&message))
            .await
            .map_err(io::Error::other)??;
    }
}
