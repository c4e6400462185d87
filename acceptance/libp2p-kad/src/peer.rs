//! One peer: a swarm with Kademlia, the queries that lines asked for, and campaigns of lookups.
//!
//! `dial ADDRESS`, `put NAME VALUE`, `get NAME`, `provide KEY`, `providers KEY`, `find PEER`, `contacts`; names, values and keys
//! are hexadecimal. `lookups FIRST COUNT AT_ONCE` looks for the nodes nearest to made-up ids; `strangers ADDRESS COUNT AT_ONCE` lets
//! peers that nobody knows connect.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

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
use tokio::sync::mpsc;

use crate::{say, strangers};

/// What a peer is asked for: the words of a line behind its number.
pub struct Order {
    pub request: String,
    pub words: Vec<String>,
}

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    ping: ping::Behaviour,
}

/// What a query is for.
enum Purpose {
    /// A line; what has been found before the query ends.
    Asked(String, BTreeSet<PeerId>),
    /// The campaign.
    Campaign,
}

/// Lookups one after another, a few at once.
struct Campaign {
    request: String,
    next: u64,
    end: u64,
    count: u64,
    under_way: u64,
    found: usize,
    asked: u32,
    began: Instant,
}

struct Peer {
    number: usize,
    swarm: Swarm<Behaviour>,
    queries: HashMap<QueryId, Purpose>,
    campaign: Option<Campaign>,
}

/// Serves until `orders` is closed.
pub async fn run(number: usize, mut orders: mpsc::Receiver<Order>) -> Result<()> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let mut peer = Peer { number, swarm, queries: HashMap::new(), campaign: None };
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order { request, words }) => {
                    if let Err(error) = peer.obey(&request, &words) {
                        say(&json!({"request": request, "error": error.to_string()}));
                    }
                }
                None => return Ok(()),
            },
            event = peer.swarm.select_next_some() => peer.on_event(event),
        }
    }
}

/// A peer that no port is open for yet.
pub fn swarm() -> Result<Swarm<Behaviour>> {
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

/// The id that lookup `n` of a campaign looks for: of a key that nobody has.
fn made_up(n: u64) -> PeerId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend([0; 24]);
    bytes.extend(n.to_be_bytes());
    PeerId::from_bytes(&bytes).expect("an identity multihash of a key is a peer's id")
}

impl Peer {
    /// Begins what a line says. What is not a query is answered at once.
    fn obey(&mut self, request: &str, words: &[String]) -> Result<()> {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let query = match words[..] {
            ["contacts"] => {
                let contacts: usize = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
                say(&json!({"request": request, "contacts": contacts}));
                return Ok(());
            }
            ["dial", address] => {
                let address: Multiaddr = address.parse()?;
                // Kademlia learns of it when identify tells its addresses.
                self.swarm.dial(address)?;
                say(&json!({"request": request, "dialling": true}));
                return Ok(());
            }
            ["lookups", first, count, at_once] => {
                return self.begin(request, (first.parse()?, count.parse()?), at_once.parse()?);
            }
            ["strangers", address, count, at_once] => {
                let strangers = strangers::run(address.parse()?, count.parse()?, at_once.parse()?);
                let (request, count) = (request.to_owned(), count.to_owned());
                drop(tokio::spawn(async move {
                    match strangers.await {
                        Ok(()) => say(&json!({"request": request, "strangers": count})),
                        Err(error) => say(&json!({"request": request, "error": format!("{error:#}")})),
                    }
                }));
                return Ok(());
            }
            ["put", name, value] => {
                kad.put_record(Record::new(RecordKey::from(unhex(name)?), unhex(value)?), Quorum::One)?
            }
            ["get", name] => kad.get_record(RecordKey::from(unhex(name)?)),
            ["provide", key] => kad.start_providing(RecordKey::from(unhex(key)?))?,
            ["providers", key] => kad.get_providers(RecordKey::from(unhex(key)?)),
            ["find", peer] => kad.get_closest_peers(peer.parse::<PeerId>()?),
            _ => bail!("unknown command"),
        };
        self.queries.insert(query, Purpose::Asked(request.to_owned(), BTreeSet::new()));
        Ok(())
    }

    fn begin(&mut self, request: &str, (first, count): (u64, u64), at_once: u64) -> Result<()> {
        if self.campaign.is_some() || count == 0 || at_once == 0 {
            bail!("one campaign at a time, of one lookup at least");
        }
        self.campaign = Some(Campaign {
            request: request.to_owned(),
            next: first,
            end: first + count,
            count,
            under_way: 0,
            found: 0,
            asked: 0,
            began: Instant::now(),
        });
        (0..at_once).for_each(|_| self.further());
        Ok(())
    }

    /// Begins the campaign's next lookup, if there is one.
    fn further(&mut self) {
        let Some(campaign) = self.campaign.as_mut().filter(|campaign| campaign.next < campaign.end) else {
            return;
        };
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(made_up(campaign.next));
        campaign.next += 1;
        campaign.under_way += 1;
        self.queries.insert(query, Purpose::Campaign);
    }

    /// A lookup of the campaign has ended.
    fn looked_up(&mut self, result: QueryResult, asked: u32) {
        let Some(campaign) = &mut self.campaign else { return };
        campaign.under_way -= 1;
        campaign.asked += asked;
        if let QueryResult::GetClosestPeers(Ok(ok)) = result {
            campaign.found += ok.peers.len();
        }
        if campaign.under_way == 0 && campaign.next == campaign.end {
            let micros = u64::try_from(campaign.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let Campaign { request, count, found, asked, .. } = campaign;
            let (lookups, found, asked) = (*count, *found, *asked);
            say(&json!({
                "request": request, "lookups": lookups, "found": found, "asked": asked, "micros": micros,
            }));
            self.campaign = None;
            return;
        }
        self.further();
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let own = *self.swarm.local_peer_id();
                let address = address.with(Protocol::P2p(own)).to_string();
                say(&json!({"number": self.number, "peer": own.to_string(), "address": address}));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                for address in info.listen_addrs {
                    self.swarm.behaviour_mut().kad.add_address(&peer_id, address);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            })) => self.on_progress(id, result, stats.num_requests(), step.last),
            _ => {}
        }
    }

    fn on_progress(&mut self, id: QueryId, result: QueryResult, asked: u32, last: bool) {
        match self.queries.get_mut(&id) {
            // Those that the library makes for itself, or that are answered already, are nobody's.
            None => {}
            Some(Purpose::Campaign) if last => {
                self.queries.remove(&id);
                self.looked_up(result, asked);
            }
            Some(Purpose::Campaign) => {}
            Some(Purpose::Asked(request, found)) => {
                let answer = progress(found, result, last);
                let Some(mut answer) = answer else { return };
                answer["request"] = json!(request);
                say(&answer);
                self.queries.remove(&id);
                if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
                    query.finish();
                }
            }
        }
    }
}

/// Notes what a query has found; what answers its line, as soon as that is known.
fn progress(found: &mut BTreeSet<PeerId>, result: QueryResult, last: bool) -> Option<Value> {
    let line = match result {
        // The first will do: who asked judges it.
        QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(record))) => {
            return Some(json!({"value": hex(&record.record.value)}));
        }
        QueryResult::GetRecord(_) => json!({"value": null}),
        QueryResult::PutRecord(result) => json!({"stored": result.is_ok()}),
        QueryResult::StartProviding(Ok(AddProviderOk { .. })) => json!({"provided": true}),
        QueryResult::StartProviding(Err(_)) => json!({"provided": false}),
        QueryResult::GetProviders(result) => {
            if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                found.extend(providers);
            }
            json!({"providers": found.iter().map(ToString::to_string).collect::<Vec<_>>()})
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
