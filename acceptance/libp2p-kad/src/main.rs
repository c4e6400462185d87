//! A peer of rust-libp2p that serves Kademlia and does what lines on stdin say, one JSON object on stdout for each.
//!
//! `dial ADDRESS`, `put NAME VALUE`, `get NAME`, `provide KEY`, `providers KEY`, `find PEER`, `contacts`; names, values and
//! keys are hexadecimal. The first line on stdout is the peer's own address. It ends with stdin.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{
    self, AddProviderOk, GetProvidersOk, GetRecordOk, Mode, QueryId, QueryResult, Quorum, Record, RecordKey,
};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, noise, ping, tcp, yamux};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    ping: ping::Behaviour,
}

/// What a query has found before it ends.
#[derive(Default)]
struct Found {
    value: Option<Vec<u8>>,
    providers: BTreeSet<PeerId>,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run())
}

fn swarm() -> Result<Swarm<Behaviour>> {
    Ok(libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new("/ipfs/kad/1.0.0"));
            let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
            kad.set_mode(Some(Mode::Server));
            let identify = identify::Config::new("ipfs/0.1.0".to_owned(), key.public());
            Behaviour { identify: identify::Behaviour::new(identify), kad, ping: ping::Behaviour::default() }
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build())
}

async fn run() -> Result<()> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut queries: HashMap<QueryId, Found> = HashMap::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                match command(&mut swarm, &line) {
                    Ok(Some(query)) => drop(queries.insert(query, Found::default())),
                    Ok(None) => {}
                    Err(error) => say(&json!({"error": error.to_string()})),
                }
            }
            event = swarm.select_next_some() => on_event(&mut swarm, &mut queries, event),
        }
    }
}

fn say(line: &Value) {
    println!("{line}");
}

/// Begins what a line says. What is not a query is answered at once.
fn command(swarm: &mut Swarm<Behaviour>, line: &str) -> Result<Option<QueryId>> {
    let words: Vec<&str> = line.split(' ').collect();
    let kad = &mut swarm.behaviour_mut().kad;
    Ok(Some(match words[..] {
        ["contacts"] => {
            let contacts: usize = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
            say(&json!({"contacts": contacts}));
            return Ok(None);
        }
        ["dial", address] => {
            let address: Multiaddr = address.parse()?;
            // Kademlia learns of it when identify tells its addresses.
            swarm.dial(address)?;
            say(&json!({"dialling": true}));
            return Ok(None);
        }
        ["put", name, value] => {
            kad.put_record(Record::new(RecordKey::from(unhex(name)?), unhex(value)?), Quorum::One)?
        }
        ["get", name] => kad.get_record(RecordKey::from(unhex(name)?)),
        ["provide", key] => kad.start_providing(RecordKey::from(unhex(key)?))?,
        ["providers", key] => kad.get_providers(RecordKey::from(unhex(key)?)),
        ["find", peer] => kad.get_closest_peers(peer.parse::<PeerId>()?),
        _ => bail!("unknown command"),
    }))
}

fn on_event(
    swarm: &mut Swarm<Behaviour>,
    queries: &mut HashMap<QueryId, Found>,
    event: SwarmEvent<BehaviourEvent>,
) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            let own = *swarm.local_peer_id();
            say(&json!({"peer": own.to_string(), "address": address.with(Protocol::P2p(own)).to_string()}));
        }
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id, info, ..
        })) => {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
        }
        SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
            id,
            result,
            step,
            ..
        })) => {
            // Those that the library makes for itself are nobody's.
            let Some(found) = queries.get_mut(&id) else { return };
            if let Some(line) = progress(found, result, step.last) {
                queries.remove(&id);
                say(&line);
            }
        }
        _ => {}
    }
}

/// Notes what a query has found; the line that ends it.
fn progress(found: &mut Found, result: QueryResult, last: bool) -> Option<Value> {
    let line = match result {
        QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(record))) => {
            found.value.get_or_insert(record.record.value);
            json!({"value": found.value.as_ref().map(|value| hex(value))})
        }
        QueryResult::GetRecord(_) => json!({"value": found.value.as_ref().map(|value| hex(value))}),
        QueryResult::PutRecord(result) => json!({"stored": result.is_ok()}),
        QueryResult::StartProviding(Ok(AddProviderOk { .. })) => json!({"provided": true}),
        QueryResult::StartProviding(Err(_)) => json!({"provided": false}),
        QueryResult::GetProviders(result) => {
            if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                found.providers.extend(providers);
            }
            json!({"providers": found.providers.iter().map(ToString::to_string).collect::<Vec<_>>()})
        }
        QueryResult::GetClosestPeers(result) => {
            let peers = result.map(|ok| ok.peers).unwrap_or_default();
            json!({"nodes": peers.iter().map(|peer| peer.peer_id.to_string()).collect::<Vec<_>>()})
        }
        _ => return None,
    };
    last.then_some(line)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(|at| byte(at).context("no hexadecimal digits")).collect()
}
