//! libp2p-stream: one stream over TCP, Noise and Yamux, with the link's frames, one executor thread at each end.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fabric::link::frame::{Decoder, Kind, encode};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, noise, tcp, yamux};
use libp2p_stream::Behaviour;

use crate::pace::Pace;
use crate::{MESSAGE_BYTES, SCRATCH_BYTES, announce};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/archipel-bench/1");
const FRAME_BYTES_MAX: usize = 1024 * 1024;

fn key(seed: u8) -> Result<Keypair> {
    Ok(Keypair::ed25519_from_bytes([seed; 32])?)
}

fn swarm(seed: u8) -> Result<Swarm<Behaviour>> {
    Ok(libp2p::SwarmBuilder::with_existing_identity(key(seed)?)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build())
}

fn run(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn address(port: u16) -> Multiaddr {
    Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port))
}

pub fn serve() -> Result<()> {
    run(async {
        let mut swarm = swarm(1)?;
        let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL)?;
        swarm.listen_on(address(0))?;
        let echo = async {
            loop {
                let (_, stream) = incoming.next().await.context("no more streams")?;
                // A driver that is done closes its stream.
                let _ = answer(stream).await;
            }
        };
        tokio::select! {
            done = echo => done,
            never = async {
                loop {
                    if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
                        && let Some(Protocol::Tcp(port)) = address.iter().nth(1)
                    {
                        announce(port);
                    }
                }
            } => never,
        }
    })
}

async fn answer(mut stream: Stream) -> Result<()> {
    let (mut decoder, mut scratch) = (Decoder::new(FRAME_BYTES_MAX), vec![0; SCRATCH_BYTES]);
    let mut out = Vec::new();
    loop {
        let n = stream.read(&mut scratch).await?;
        if n == 0 {
            return Ok(());
        }
        let mut input = &scratch[..n];
        while let Some(frame) = decoder.next(&mut input)? {
            encode(Kind::Data, frame.payload, &mut out);
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
    }
}

pub fn drive(port: u16, pace: Pace) -> Result<()> {
    run(async {
        let mut swarm = swarm(2)?;
        let mut control = swarm.behaviour().new_control();
        let server: PeerId = key(1)?.public().to_peer_id();
        swarm.dial(address(port).with(Protocol::P2p(server)))?;
        // Opening a stream dials what is not connected, which has no address.
        while !swarm.is_connected(&server) {
            swarm.select_next_some().await;
        }
        let work = async { ask(control.open_stream(server, PROTOCOL).await?, pace).await };
        tokio::select! {
            done = work => done,
            never = async { loop { swarm.select_next_some().await; } } => never,
        }
    })
}

async fn ask(mut stream: Stream, mut pace: Pace) -> Result<()> {
    let message = [7; MESSAGE_BYTES];
    let (mut decoder, mut scratch) = (Decoder::new(FRAME_BYTES_MAX), vec![0; SCRATCH_BYTES]);
    let mut out = Vec::new();
    while !pace.is_done() {
        for _ in 0..pace.take() {
            encode(Kind::Data, &message, &mut out);
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
        let n = stream.read(&mut scratch).await?;
        if n == 0 {
            bail!("the server went away");
        }
        let mut input = &scratch[..n];
        while let Some(frame) = decoder.next(&mut input)? {
            assert_eq!(frame.payload, message);
            pace.answered();
        }
    }
    pace.report();
    Ok(())
}
