//! What a hostile peer may do in our own protocols: nothing that lasts. Both ends are in one thread, over memory.

use std::io;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use kernel::Micros;
use libp2p_core::muxing::StreamMuxerBox;
use libp2p_core::transport::{Boxed, MemoryTransport, Transport};
use libp2p_core::upgrade::Version;
use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::{Keypair, PeerId};
use libp2p_swarm::{Stream, Swarm, SwarmEvent};
use p2p::codec::{self, Head, MESSAGE_BYTES_MAX};
use p2p::flood::{self, MessageId, PAYLOAD_BYTES_MAX};
use p2p::{Key, RequestId, chord, walk};
use tokio::sync::{mpsc, oneshot};
use wire::kad::put_frame;

use super::{self as host};
use crate::overlay::behaviour::{Parts, over};
use crate::overlay::buckets::PEER_QUESTIONS_BURST;
use crate::overlay::facade::{Order, Status};
use crate::overlay::streams::{Event, INBOUND_STREAMS_MAX, Served, Spoken, Streams, Ticket};

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn memory(key: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(key).unwrap())
        .multiplex(libp2p_yamux::Config::default())
        .boxed()
}

/// What a node over memory begins with.
fn start() -> host::Start {
    let parts = Parts {
        served: Served { chord: true },
        allowed: None,
        quic: false,
        gossip: false,
        mdns: false,
        nat: false,
        relay: false,
    };
    host::Start {
        swarm: over(memory(&key(1)), &key(1), parts),
        announced: Vec::new(),
        local: true,
        peers: Vec::new(),
        relays: Vec::new(),
        memory: None,
        seed: 1,
        chord: Some(Duration::from_secs(5)),
    }
}

/// A node over memory whose loop does not run.
fn resting() -> host::Host {
    let (arrivals, returns) = (mpsc::channel(8).0, mpsc::channel(8).0);
    host::Host::new(start(), arrivals, returns)
}

fn stranger(n: u16) -> PeerId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend([7; 30]);
    bytes.extend(n.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

#[tokio::test]
async fn what_a_closed_connection_was_to_open_is_asked_of_another() {
    let mut host = resting();
    let (now, id) = (host.now(), stranger(1));
    let contact = host.directory.know(id).unwrap();
    (0..2).for_each(|_| host.directory.connected(contact, None, None));
    let wanted = (contact, Spoken::Send);
    host.dispatch(now, wanted, b"x".to_vec(), crate::overlay::drive::Asked::Told);
    assert_eq!(host.swarm.behaviour().streams.asked(), 1);
    host.on_parted(id, 1);
    assert_eq!(host.swarm.behaviour().streams.asked(), 2);
}

#[tokio::test]
async fn who_finds_no_place_in_the_directory_is_not_kept() {
    let mut host = resting();
    for n in 1..crate::overlay::directory::PEERS_MAX as u16 {
        let contact = host.directory.know(stranger(n)).unwrap();
        host.directory.connected(contact, None, None);
    }
    let at = Multiaddr::empty().with(Protocol::Memory(1));
    for (n, kept) in [(9, true), (9_999, false)] {
        let (reply, mut answer) = oneshot::channel();
        let connection = libp2p_swarm::ConnectionId::new_unchecked(n);
        host.dialled.insert(connection, reply);
        let endpoint =
            libp2p_core::ConnectedPoint::Listener { local_addr: at.clone(), send_back_addr: at.clone() };
        host.on_connected(stranger(n as u16), connection, endpoint);
        // One that is kept says first who it is.
        let told = answer.try_recv().ok();
        assert_eq!(told, if kept { None } else { Some(Err(crate::overlay::facade::ReachError::Busy)) });
    }
}

/// A node at `/memory/port`, and a peer that is connected to it and does as it likes.
struct Hostile {
    swarm: Swarm<Streams>,
    victim: PeerId,
    orders: mpsc::Sender<Order>,
    _stop: oneshot::Sender<host::Ending>,
}

impl Hostile {
    async fn connect(port: u64) -> Hostile {
        let address = Multiaddr::empty().with(Protocol::Memory(port));
        let (orders, taken) = mpsc::channel(8);
        let (_stop, stopped) = oneshot::channel();
        let mut start = start();
        start.swarm.listen_on(address.clone()).unwrap();
        drop(tokio::spawn(host::run(start, taken, stopped)));
        let own = key(2);
        let config = libp2p_swarm::Config::with_executor(|task| drop(tokio::spawn(task)))
            .with_idle_connection_timeout(Duration::from_secs(60));
        let streams = Streams::new(Served { chord: true }, None);
        let mut swarm = Swarm::new(memory(&own), streams, own.public().to_peer_id(), config);
        let mut hostile = Hostile {
            victim: key(1).public().to_peer_id(),
            orders,
            _stop,
            swarm: {
                swarm.dial(address).unwrap();
                swarm
            },
        };
        while !matches!(hostile.swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        hostile
    }

    /// Opens a stream in a protocol.
    async fn open(&mut self, spoken: Spoken) -> Stream {
        self.swarm.behaviour_mut().open(self.victim, Ticket::Line(0, spoken), spoken.protocol());
        loop {
            if let SwarmEvent::Behaviour(Event::Opened { stream, .. }) = self.swarm.select_next_some().await {
                return stream.expect("the node speaks all of our protocols");
            }
        }
    }

    /// Does something with streams while the connection lives.
    async fn with<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return done,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    /// Says `bytes`, with their length before them, and reads the answer's first byte: its length.
    async fn say(&mut self, spoken: Spoken, bytes: &[u8]) -> io::Result<u8> {
        let mut framed = Vec::new();
        put_frame(bytes, &mut framed);
        self.say_raw(spoken, &framed).await
    }

    async fn say_raw(&mut self, spoken: Spoken, bytes: &[u8]) -> io::Result<u8> {
        let mut stream = self.open(spoken).await;
        self.with(async move {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            let mut first = [0];
            stream.read_exact(&mut first).await?;
            Ok(first[0])
        })
        .await
    }

    async fn status(&mut self) -> Status {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Status(reply)).await.unwrap();
        self.with(answer).await.unwrap()
    }
}

/// A message of ours without peers.
fn message<M: codec::Wire<()>>(head: Head, message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(head, message, &mut bytes, &mut |(), _| {}).unwrap();
    bytes
}

const ASK: Head = Head::Ask(RequestId(7));

#[tokio::test]
async fn what_is_no_question_has_its_stream_reset_and_changes_nothing() {
    let mut hostile = Hostile::connect(9_001).await;
    let item = |key: Key, value: &[u8]| chord::Item { key, version: 1, value: value.into() };
    type Chord = chord::Message<()>;
    let unsigned = message(ASK, &Chord::Put(item(Key::of(b"x"), b"unsigned")));
    let mut far =
        message(Head::Tell, &flood::Message { id: MessageId(1), ttl: 16, hops: 0, payload: b"x"[..].into() });
    // Its TTL, behind the head and the id.
    far[9] = 17;
    let mut long = Vec::new();
    kernel::codec::put_varint(&mut long, MESSAGE_BYTES_MAX as u64 + 1);
    for (spoken, bytes) in [
        // Nobody may answer what was not asked, nor ask what is an answer.
        (Spoken::Chord, message(Head::Answer(RequestId(7)), &Chord::Yes)),
        (Spoken::Chord, message(ASK, &Chord::Mine)),
        (Spoken::Walk, message(Head::Answer(RequestId(7)), &walk::Message::<()>::Goes(true))),
        (Spoken::Walk, message(ASK, &walk::Message::<()>::Goes(true))),
        (
            Spoken::Flood,
            message(ASK, &flood::Message { id: MessageId(1), ttl: 1, hops: 0, payload: b"x"[..].into() }),
        ),
        // What is forged, beyond a limit, or nothing at all.
        (Spoken::Chord, unsigned),
        (Spoken::Flood, far),
        (Spoken::Send, vec![0; PAYLOAD_BYTES_MAX + 1]),
        (Spoken::Chord, b"nonsense".to_vec()),
        (Spoken::Walk, b"nonsense".to_vec()),
        (Spoken::Flood, b"nonsense".to_vec()),
    ] {
        let answer = hostile.say(spoken, &bytes).await;
        assert!(answer.is_err(), "{spoken:?} {:?} was answered {answer:?}", &bytes[..bytes.len().min(20)]);
    }
    for spoken in [Spoken::Chord, Spoken::Walk, Spoken::Flood, Spoken::Send] {
        assert!(hostile.say_raw(spoken, &long).await.is_err(), "{spoken:?}");
    }
    let ring = hostile.status().await.ring.unwrap();
    assert_eq!((ring.successors, ring.predecessor, ring.values), (0, None, (0, 0)));
    // Control: real questions of the same kinds are answered.
    assert!(hostile.say(Spoken::Chord, &message(ASK, &Chord::Alive)).await.is_ok());
    assert!(
        hostile.say(Spoken::Walk, &message(ASK, &walk::Message::<()>::Check(walk::WalkId(1)))).await.is_ok()
    );
    assert!(hostile.say(Spoken::Send, b"hello").await.is_ok());
}

#[tokio::test]
async fn copies_that_are_not_signed_are_counted_as_none() {
    let mut hostile = Hostile::connect(9_002).await;
    let items = (0..50u8).map(|n| chord::Item { key: Key::of(&[n]), version: 1, value: [n; 32][..].into() });
    let copies = message(ASK, &chord::Message::<()>::Copies(items.collect()));
    assert!(hostile.say(Spoken::Chord, &copies).await.is_ok());
    assert_eq!(hostile.status().await.ring.unwrap().values, (0, 0));
}

#[tokio::test]
async fn a_peer_has_so_many_streams_and_so_many_questions() {
    let mut hostile = Hostile::connect(9_003).await;
    let mut kept = Vec::new();
    for at in 0..=INBOUND_STREAMS_MAX {
        let spoken = [Spoken::Chord, Spoken::Walk, Spoken::Flood, Spoken::Send][at % 4];
        kept.push(hostile.open(spoken).await);
    }
    // One too many, in whichever protocols: it is reset, and the others wait.
    let mut last = kept.pop().unwrap();
    let mut byte = [0];
    assert_ne!(hostile.with(async move { last.read(&mut byte).await.ok() }).await, Some(1));
    drop(kept);
    // Questions on one stream: the burst is answered, and soon after it the stream is reset.
    let mut framed = Vec::new();
    put_frame(&message(ASK, &chord::Message::<()>::Alive), &mut framed);
    let mut stream = loop {
        // The places of the others are free once the node has seen that they are gone.
        let mut stream = hostile.open(Spoken::Chord).await;
        let bytes = framed.clone();
        let tried = hostile.with(async move {
            stream.write_all(&bytes).await.ok()?;
            stream.flush().await.ok()?;
            let mut first = [0];
            stream.read_exact(&mut first).await.ok()?;
            let mut rest = vec![0; usize::from(first[0])];
            stream.read_exact(&mut rest).await.ok().map(|()| stream)
        });
        if let Some(stream) = tried.await {
            break stream;
        }
    };
    let began = crate::overlay::facade::now();
    let answered = hostile
        .with(async move {
            let mut answered = 0u32;
            loop {
                let mut first = [0];
                let asked = async {
                    stream.write_all(&framed).await?;
                    stream.flush().await?;
                    stream.read_exact(&mut first).await?;
                    let mut rest = vec![0; usize::from(first[0])];
                    stream.read_exact(&mut rest).await
                };
                if asked.await.is_err() || answered >= 3 * PEER_QUESTIONS_BURST {
                    return answered;
                }
                answered += 1;
            }
        })
        .await;
    // What the bucket had, and what has come into it meanwhile.
    let Micros(took) = Micros(crate::overlay::facade::now().since(began));
    let most = u64::from(PEER_QUESTIONS_BURST) + took / 1000 + 1;
    assert!(u64::from(answered) <= most, "{answered} of {most}");
    assert!(answered > PEER_QUESTIONS_BURST / 2, "{answered}");
}

#[tokio::test]
async fn a_question_that_is_never_finished_loses_its_stream_after_ten_seconds_and_nothing_else() {
    let mut hostile = Hostile::connect(9_004).await;
    let mut framed = Vec::new();
    put_frame(&message(ASK, &chord::Message::<()>::Alive), &mut framed);
    let mut halves = Vec::new();
    for said in [0, 1, framed.len() - 1] {
        let mut stream = hostile.open(Spoken::Chord).await;
        let half = framed[..said].to_vec();
        halves.push(async move {
            stream.write_all(&half).await?;
            stream.flush().await?;
            let mut byte = [0];
            stream.read_exact(&mut byte).await
        });
    }
    let ends = hostile.with(futures::future::join_all(halves));
    for end in tokio::time::timeout(Duration::from_secs(60), ends).await.expect("they are given up") {
        assert!(end.is_err(), "{end:?}");
    }
    // Control: the connection has lived on.
    assert!(hostile.say_raw(Spoken::Chord, &framed).await.is_ok());
}
