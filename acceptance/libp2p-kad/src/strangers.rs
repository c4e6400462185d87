//! Connections with ids that nobody has seen before: each of them says what it serves and where it is, hears the same, and is
//! gone.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, identify};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::peer::{BehaviourEvent, swarm};

/// How long one may take.
const STRANGER_SECONDS_MAX: u64 = 60;
/// Addresses that each says it has: as many as Kademlia's implementations take, and so long that they just fit the largest
/// message of identify.
const ADDRESSES: u16 = 16;
const HOST_BYTES: usize = 220;

/// Makes `count` connections to `address`, `at_once` at a time.
pub async fn run(address: Multiaddr, count: u64, at_once: usize) -> Result<()> {
    let mut under_way = JoinSet::new();
    for _ in 0..count {
        if under_way.len() >= at_once {
            under_way.join_next().await.context("one is under way")???;
        }
        under_way.spawn(in_time(address.clone()));
    }
    while let Some(one) = under_way.join_next().await {
        one??;
    }
    Ok(())
}

async fn in_time(address: Multiaddr) -> Result<()> {
    let greeted = timeout(Duration::from_secs(STRANGER_SECONDS_MAX), one(address)).await;
    greeted.context("a stranger was not greeted in time")?
}

async fn one(address: Multiaddr) -> Result<()> {
    let mut swarm = swarm()?;
    let host = "x".repeat(HOST_BYTES);
    for port in 1..=ADDRESSES {
        swarm.add_external_address(format!("/dns4/{host}/tcp/{port}").parse()?);
    }
    swarm.dial(address)?;
    let (mut told, mut heard) = (false, false);
    while !(told && heard) {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => match event {
                identify::Event::Sent { .. } => told = true,
                identify::Event::Received { .. } => heard = true,
                identify::Event::Pushed { .. } => {}
                identify::Event::Error { error, .. } => bail!("a stranger was not greeted: {error}"),
            },
            SwarmEvent::OutgoingConnectionError { error, .. } => bail!("a stranger was refused: {error}"),
            SwarmEvent::ConnectionClosed { cause, .. } => bail!("a stranger was sent away: {cause:?}"),
            _ => {}
        }
    }
    Ok(())
}
