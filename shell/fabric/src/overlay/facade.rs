//! What others use of the overlay: a peer of it, and its hash table. Both are handles of the overlay's thread, cheap to clone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kernel::{Micros, NodeId};
use p2p::Key;
use p2p::flood::PAYLOAD_BYTES_MAX;
use p2p::kad::{Cost, Envelope, Record, Refusal};
use p2p::walk::{STEPS_MAX, WALKERS_MAX, WALKS_MAX};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::name::{ContentName, Peer, Place, ValueName};
use super::records::Signer;

/// A peer of libp2p's own ping echoes the latest stream only, and gives the one before up: the pings that keep a
/// connection may come between.
const PING_TRIES: usize = 3;
/// A stream that breaks sooner was given up so; what takes longer is silence.
const PING_BROKEN_MAX: Duration = Duration::from_secs(1);

/// Hops that wait for who watches a lookup; what does not fit is left out.
pub const HOPS_MAX: usize = 256;

/// What the overlay's thread is asked for.
#[derive(Debug)]
pub(super) enum Order {
    Connect(Place, oneshot::Sender<Result<Peer, ReachError>>),
    Disconnect(Peer, oneshot::Sender<Result<(), ReachError>>),
    Ping(Peer, oneshot::Sender<Result<Duration, ReachError>>),
    Status(oneshot::Sender<Status>),
    Send(Peer, Arc<[u8]>, oneshot::Sender<Result<usize, ReachError>>),
    Broadcast(Arc<[u8]>, oneshot::Sender<Result<usize, ReachError>>),
    Gossip(Arc<[u8]>, oneshot::Sender<Result<usize, ReachError>>),
    Listen(mpsc::Sender<Heard>, oneshot::Sender<Result<(), ReachError>>),
    Walk(WalkFor, oneshot::Sender<Result<Sampled, WalkError>>),
    Seek {
        table: Table,
        quest: Quest,
        hops: Option<mpsc::Sender<Hop>>,
        reply: oneshot::Sender<Result<Sought, DhtError>>,
    },
}

/// Which overlay keeps the hash table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Kademlia, which libp2p's peers share and strangers may join.
    #[default]
    Kad,
    /// Chord's ring of Archipel's own nodes. It keeps signed records only, and believes its members about who owns a key.
    Chord,
}

/// What walkers are sent out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WalkFor {
    Sample { count: u8, steps: u16 },
    Content { name: ContentName, walkers: u8, steps: u16 },
}

/// What walkers brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sampled {
    pub peers: Vec<Located>,
    pub hops: Option<u16>,
}

/// Why no walk was begun.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WalkError {
    /// There is nowhere to go.
    #[error(
        "no peer takes walkers: is this node connected to others? `archipel p2p connect ADDRESS` does it"
    )]
    Alone,
    /// A number is out of its range, or too many walks go on.
    #[error(
        "a walk has 1 to {WALKERS_MAX} walkers and 1 to {STEPS_MAX} steps, and {WALKS_MAX} go on at most"
    )]
    Refused,
    /// The overlay has ended.
    #[error("the overlay has ended")]
    Ended,
}

/// What a lookup is for; names in bytes.
#[derive(Debug)]
pub(super) enum Quest {
    Node(Vec<u8>),
    Get(Vec<u8>),
    Put(Record),
    Provide(Vec<u8>),
    Providers(Vec<u8>),
}

/// What a lookup gave.
#[derive(Debug, Default)]
pub(super) struct Sought {
    pub nodes: Vec<Located>,
    pub record: Option<Record>,
    pub stored: usize,
    pub cost: Cost,
}

/// A peer, and where it can be reached as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Who.
    pub peer: Peer,
    /// Multiaddrs, the best first.
    pub addresses: Vec<String>,
}

/// One question of a lookup, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who was asked.
    pub peer: Peer,
    /// How far it is from what is looked for: by XOR, or on the ring, where the first 64 bits count, around the shorter way.
    pub distance: Key,
    /// How long after the lookup began it was asked.
    pub after: Duration,
    /// How long it took, with dialling.
    pub took: Duration,
    /// What came of it.
    pub end: HopEnd,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopEnd {
    /// It told of so many peers.
    Closer(usize),
    /// It had what was looked for.
    Found,
    /// It owns the key, on the ring.
    Owns,
    /// It owns the key and has no such value, on the ring.
    Missing,
    /// It keeps the value, or was told of the provider.
    Stored,
    /// It would not answer, or keep it.
    Refused,
    /// It is out of reach, or too slow.
    Failed,
}

/// How the node is in the overlay.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who it is.
    pub peer: Peer,
    /// Where it says that it can be reached.
    pub addresses: Vec<String>,
    /// Peers it is connected to.
    pub connected: Vec<Connected>,
    /// Contacts in its routing table.
    pub contacts: usize,
    /// Peers that it knows of.
    pub known: usize,
    /// Values that it keeps for others, and their bytes.
    pub values: (usize, usize),
    /// How many nodes there seem to be; `None` with too few neighbours to tell.
    pub network_size: Option<f64>,
    /// Whether others can reach it.
    pub reachable: Reachable,
    /// Its place on the ring; `None` if it wants none.
    pub ring: Option<RingStatus>,
}

/// A node's place on the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingStatus {
    /// Who stands before it, as far as it knows.
    pub predecessor: Option<Peer>,
    /// How many of those behind it it knows; none if it is alone or on its way in.
    pub successors: usize,
    /// Values that it keeps, its own share and copies, and their bytes.
    pub values: (usize, usize),
    /// Whether those that are to have copies have got all of its own share, as far as they have room, and nothing else is on its way.
    pub copied: bool,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Who and where.
    pub located: Located,
    /// Whether it serves Kademlia, once that is known.
    pub serves: Option<bool>,
    /// Whether a relay is between.
    pub relayed: bool,
    /// Its place in the key space.
    pub key: Key,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it, as its key proves; of a flooded broadcast only the neighbour that it came from is known: nothing in it is signed.
    pub from: Peer,
    /// How it came.
    pub via: Via,
    /// What it says.
    pub payload: Arc<[u8]>,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It was sent to this node.
    Direct,
    /// A broadcast that was flooded, over so many edges.
    Flood {
        /// How many edges it has passed.
        hops: u8,
    },
    /// A broadcast that its origin signed, by gossipsub.
    Gossip,
}

/// Whether others can reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachable {
    /// Nobody has tried on its behalf (`p2p.nat`).
    Unknown,
    /// Others have dialled it.
    Directly,
    /// They cannot dial it, and reach it through a relay.
    ByRelay,
    /// They cannot.
    No,
}

/// Why a peer was not reached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReachError {
    /// Nothing could be dialled, with the reason of each attempt.
    #[error("cannot connect: {reason}")]
    Unreachable {
        /// What the attempts met.
        reason: String,
    },
    /// It is this node.
    #[error("that is this node itself")]
    Own,
    /// This node does not gossip.
    #[error("this node does not gossip; start it with --set p2p.gossip=true, or use --via flood")]
    NoGossip,
    /// It would not take a message.
    #[error("{peer} does not take the message; it may be busy, or no node of Archipel")]
    Refused {
        /// Who.
        peer: Peer,
    },
    /// There is no connection.
    #[error("there is no connection to {peer}; `archipel p2p connect ADDRESS` makes one")]
    NotConnected {
        /// To whom.
        peer: Peer,
    },
    /// The peer did not answer in time.
    #[error("{peer} does not answer")]
    Silent {
        /// Who.
        peer: Peer,
    },
    /// A message is longer than any may be.
    #[error("a message of {bytes} bytes, where {PAYLOAD_BYTES_MAX} are the most")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// As much of this goes on as may.
    #[error("too many attempts go on; try again later")]
    Busy,
    /// The overlay has ended.
    #[error("the overlay has ended")]
    Ended,
}

/// Why the hash table did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DhtError {
    /// The request was not begun.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody can sign for another.
    #[error("{name} is another's record: only its publisher can put it")]
    NotOurs {
        /// What was to be put.
        name: String,
    },
    /// No node keeps it, because none could be reached or all refused.
    #[error("no other node keeps it: {asked} were asked; is this node connected to others?")]
    Nowhere {
        /// Questions asked.
        asked: u16,
    },
    /// The ring is not entered.
    #[error("this node does not stand on the ring; start it with --set p2p.chord=true")]
    NoRing,
    /// The ring keeps no providers.
    #[error("the ring keeps values only; ask for providers with --overlay kad")]
    NoProviders,
    /// Nobody on the way knew further.
    #[error("the ring is not whole: nobody on the way knew further; try again in some seconds")]
    NoWay,
    /// The overlay has ended.
    #[error("the overlay has ended")]
    Ended,
}

/// A peer of the overlay: this node.
#[derive(Clone)]
pub struct P2pNode {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) id: NodeId,
}

impl P2pNode {
    /// Who it is.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.id
    }

    /// Connects to a peer and waits until it has said who it is. One that serves Kademlia enters the routing table.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn connect(&self, place: Place) -> Result<Peer, ReachError> {
        self.ask(|reply| Order::Connect(place, reply)).await?
    }

    /// Closes all connections to a peer. It stays in the routing table, and either end may connect again.
    ///
    /// # Errors
    /// [`ReachError::NotConnected`].
    pub async fn disconnect(&self, peer: Peer) -> Result<(), ReachError> {
        self.ask(|reply| Order::Disconnect(peer, reply)).await?
    }

    /// The time of a round trip to a connected peer.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn ping(&self, peer: Peer) -> Result<Duration, ReachError> {
        for _ in 1..PING_TRIES {
            let begun = Instant::now();
            match self.ask(|reply| Order::Ping(peer, reply)).await? {
                Err(ReachError::Silent { .. }) if begun.elapsed() < PING_BROKEN_MAX => {}
                told => return told,
            }
        }
        self.ask(|reply| Order::Ping(peer, reply)).await?
    }

    /// Sends a message to a peer, over a connection that is made if there is none and its address is known. Gives how many
    /// listen there and were handed it; with [`ReachError::Silent`] it may have been or not.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn send(&self, peer: Peer, payload: &[u8]) -> Result<usize, ReachError> {
        self.ask(|reply| Order::Send(peer, payload.into(), reply)).await?
    }

    /// Floods a message through all peers that messages reach, at most 16 edges far. Gives to how many neighbours it went.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn broadcast(&self, payload: &[u8]) -> Result<usize, ReachError> {
        self.ask(|reply| Order::Broadcast(payload.into(), reply)).await?
    }

    /// Broadcasts a signed message by gossipsub, to all whom gossip reaches. Gives how many peers of this node gossip.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn gossip(&self, payload: &[u8]) -> Result<usize, ReachError> {
        self.ask(|reply| Order::Gossip(payload.into(), reply)).await?
    }

    /// Lets `heard` have messages that arrive from now on, until it is closed. What it has no room for it misses.
    ///
    /// # Errors
    /// [`ReachError::Busy`] with 16 listeners, [`ReachError::Ended`].
    pub async fn listen(&self, heard: mpsc::Sender<Heard>) -> Result<(), ReachError> {
        self.ask(|reply| Order::Listen(heard, reply)).await?
    }

    /// Draws `count` nodes, each as likely as any other after enough `steps`, by a random walk each (Metropolis and
    /// Hastings). A walker that is lost brings none, and one node may be drawn several times.
    ///
    /// # Errors
    /// [`WalkError`].
    pub async fn sample(&self, count: u8, steps: u16) -> Result<Vec<Located>, WalkError> {
        Ok(self.send_walkers(WalkFor::Sample { count, steps }).await?.peers)
    }

    /// Looks for a provider of content without any table: `walkers` random walks of at most `steps` steps. Gives who was
    /// found first and after how many steps; what a walker tells is to be fetched from its holder.
    ///
    /// # Errors
    /// [`WalkError`].
    pub async fn search(
        &self,
        name: &ContentName,
        walkers: u8,
        steps: u16,
    ) -> Result<Option<(Located, u16)>, WalkError> {
        let wanted = WalkFor::Content { name: name.clone(), walkers, steps };
        let Sampled { peers, hops } = self.send_walkers(wanted).await?;
        Ok(peers.into_iter().next().zip(hops))
    }

    async fn send_walkers(&self, wanted: WalkFor) -> Result<Sampled, WalkError> {
        let told = self.ask(|reply| Order::Walk(wanted, reply)).await;
        told.map_err(|_| WalkError::Ended)?
    }

    /// How it is.
    ///
    /// # Errors
    /// [`ReachError::Ended`].
    pub async fn status(&self) -> Result<Status, ReachError> {
        self.ask(Order::Status).await
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, ReachError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| ReachError::Ended)?;
        answer.await.map_err(|_| ReachError::Ended)
    }
}

/// The overlay's hash table.
#[derive(Clone)]
pub struct Dht {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) signer: Arc<Signer>,
    pub(super) hops: Option<mpsc::Sender<Hop>>,
    pub(super) table: Table,
}

/// A value that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What was published.
    pub payload: Vec<u8>,
    /// Its version and when it ends, if it is a signed record.
    pub version: Option<(u64, Micros)>,
}

impl Dht {
    /// The same table; each question of its requests is told to `hops`, with those that other requests ask for the same name
    /// meanwhile.
    #[must_use]
    pub fn watched(&self, hops: mpsc::Sender<Hop>) -> Dht {
        Dht { hops: Some(hops), ..self.clone() }
    }

    /// The hash table that another overlay keeps.
    #[must_use]
    pub fn over(&self, table: Table) -> Dht {
        Dht { table, ..self.clone() }
    }

    /// Whose labels it can put.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.signer.id
    }

    /// Publishes a value for `lifetime`: a label of this node signed, a public key as it is. It is sent again twice a day, on the
    /// ring each hour, as long as this process lives. Gives how many nodes keep it: on the ring most of those that are to.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn put(
        &self,
        name: &ValueName,
        value: &[u8],
        lifetime: Duration,
    ) -> Result<(usize, Cost), DhtError> {
        let record = match name.publisher() {
            None => Record::new(name.bytes(), value),
            Some(publisher) if publisher == self.signer.id => {
                let now = now();
                let millis = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
                self.signer.sign(name.bytes(), now, now.plus_millis(millis), value)
            }
            Some(_) => return Err(DhtError::NotOurs { name: name.to_string() }),
        };
        let Sought { stored, cost, .. } = self.seek(Quest::Put(record)).await?;
        if stored == 0 { Err(DhtError::Nowhere { asked: cost.asked }) } else { Ok((stored, cost)) }
    }

    /// The newest valid value that is found under a name.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn get(&self, name: &ValueName) -> Result<(Option<Value>, Cost), DhtError> {
        let Sought { record, cost, .. } = self.seek(Quest::Get(name.bytes().to_vec())).await?;
        let signed = name.publisher().is_some();
        let value = record.map(|record| match Envelope::decode(&record.value).filter(|_| signed) {
            Some(envelope) => Value {
                payload: envelope.payload.to_vec(),
                version: Some((envelope.sequence, envelope.expires)),
            },
            None => Value { payload: record.value.to_vec(), version: None },
        });
        Ok((value, cost))
    }

    /// Lets this node be found as a provider, as long as this process lives and a day after. Gives how many nodes were told.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn provide(&self, name: &ContentName) -> Result<(usize, Cost), DhtError> {
        let Sought { stored, cost, .. } = self.seek(Quest::Provide(name.bytes().to_vec())).await?;
        if stored == 0 { Err(DhtError::Nowhere { asked: cost.asked }) } else { Ok((stored, cost)) }
    }

    /// Who provides it, at most 20.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn find_providers(&self, name: &ContentName) -> Result<(Vec<Located>, Cost), DhtError> {
        let Sought { nodes, cost, .. } = self.seek(Quest::Providers(name.bytes().to_vec())).await?;
        Ok((nodes, cost))
    }

    /// The nodes nearest to a peer's place, the nearest first: the peer itself, if it serves and was found. On the ring the
    /// one that owns its place.
    ///
    /// # Errors
    /// [`DhtError`].
    pub async fn find_node(&self, peer: Peer) -> Result<(Vec<Located>, Cost), DhtError> {
        let Sought { nodes, cost, .. } = self.seek(Quest::Node(peer.0.to_bytes())).await?;
        Ok((nodes, cost))
    }

    async fn seek(&self, quest: Quest) -> Result<Sought, DhtError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Seek { table: self.table, quest, hops: self.hops.clone(), reply };
        self.orders.send(order).await.map_err(|_| DhtError::Ended)?;
        answer.await.map_err(|_| DhtError::Ended)?
    }
}

/// The machine's time.
pub(super) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
