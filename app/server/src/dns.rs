//! The port for questions of DNS, over UDP and TCP, around `gateway::dns`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::dns::Transport;
pub(crate) use gateway::dns::Zone;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

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

/// Answers for ever.
pub(crate) async fn serve(sockets: DnsSockets, handle: Handle, zone: Zone) {
    let DnsSockets { udp, tcp, .. } = sockets;
    let (udp, tcp) = match (UdpSocket::from_std(udp), TcpListener::from_std(tcp)) {
        (Ok(udp), Ok(tcp)) => (udp, tcp),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "questions of DNS cannot be answered");
            return std::future::pending().await;
        }
    };
    let zone = Arc::new(zone);
    tokio::join!(datagrams(&udp, &handle, &zone), connections(&tcp, &handle, &zone));
}

async fn datagrams(socket: &UdpSocket, handle: &Handle, zone: &Zone) {
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
        if zone.answer(&handle.view(), &question[..bytes], Transport::Udp, chance, &mut answer) {
            // Who asked asks again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn connections(listener: &TcpListener, handle: &Handle, zone: &Arc<Zone>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (handle, zone) = (handle.clone(), Arc::clone(zone));
                tokio::spawn(async move {
                    // What a client does wrong is its own affair.
                    let _ = connection(stream, &handle, &zone).await;
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
async fn connection(mut stream: TcpStream, handle: &Handle, zone: &Zone) -> io::Result<()> {
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
        if !zone.answer(&handle.view(), &question, Transport::Tcp, chance, &mut answer) {
            return Ok(());
        }
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?.to_be_bytes();
        let message = [&length[..], &answer].concat();
        tokio::time::timeout(Duration::from_secs(IDLE_SECONDS_MAX), stream.write_all(&message))
            .await
            .map_err(io::Error::other)??;
    }
}
