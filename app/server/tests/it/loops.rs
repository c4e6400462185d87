//! Two loops whose links are `fabric`'s: frames go both ways, clients are served besides, and nothing but the links'
//! own deadlines wakes them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use consensus::{Durability, Solo};
use fabric::Identity;
use fabric::link::{Event, Lane, Links, Members, Settings, TokenRange};
use journal::record::Record;
use kernel::{GroupId, Index, KeyspaceId, Lsn, Micros, NodeId, Spoken, Term};
use mio::Registry;
use node::{AppendError, LogSink, Partition, Worker};
use runtime::{Clients, Clock, Control, Crowd, Listener, Peers, Reactor, Remote, Tasks};
use storage::Store;
use storage::apply::NoScripts;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Frames that go back and forth.
const ROUNDS: u32 = 100;

/// Forgets what it is given; nothing waits for a sync.
struct Forgetful(u64);

impl LogSink for Forgetful {
    fn append(&mut self, records: &[Record<'_>], _: Durability) -> Result<Lsn, AppendError> {
        self.0 += records.len() as u64;
        Ok(Lsn(self.0))
    }
}

struct NoTasks;

impl Tasks for NoTasks {
    fn hand_out(&mut self, _: &mut Worker) {}

    fn run(&mut self, _: &mut Worker, _: Micros) -> bool {
        false
    }
}

/// Answers each number with the next one, until there were enough.
struct Counting {
    links: Links,
    other: NodeId,
    arrived: Vec<(Lane, Vec<u8>)>,
    told: Sender<u32>,
}

impl Peers for Counting {
    fn ready(&mut self, clock: &mut Clock, event: &mio::event::Event, _: &mut Worker) {
        let now = clock.now();
        let arrived = &mut self.arrived;
        self.links.ready(now, event, &mut |_, lane, bytes| arrived.push((lane, bytes.to_vec())));
    }

    fn end_turn(&mut self, clock: &mut Clock, _: &mut Worker) -> bool {
        let now = clock.now();
        let (arrived, mut events) = (&mut self.arrived, Vec::new());
        let more = self.links.end_turn(now, &mut |_, lane, bytes| arrived.push((lane, bytes.to_vec())));
        self.links.take_events(&mut events);
        // The smaller id begins, on each lane that comes up.
        for event in events {
            if let Event::Up { node, lane, .. } = event
                && self.links.id() < node
            {
                self.links.send(self.other, lane, &0_u32.to_le_bytes()).unwrap();
            }
        }
        let answers = !self.arrived.is_empty();
        for (lane, bytes) in self.arrived.drain(..) {
            let number = u32::from_le_bytes(bytes[..].try_into().unwrap());
            self.told.send(number).unwrap();
            if number < ROUNDS {
                self.links.send(self.other, lane, &(number + 1).to_le_bytes()).unwrap();
            }
        }
        // What was queued after the write is for the next turn, which nothing else may start.
        more || answers || self.links.deadline().is_some_and(|at| at <= now)
    }

    fn deadline(&self) -> Option<Micros> {
        self.links.deadline()
    }
}

/// A loop in a thread of its own.
struct Running {
    remote: Remote,
    thread: JoinHandle<()>,
    redis: SocketAddr,
    numbers: Receiver<u32>,
}

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

/// Where `number` listens: the port is taken before anybody dials it.
fn run(number: u8, listener: TcpListener, (other, address): (NodeId, SocketAddr)) -> Running {
    let redis = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis_address = redis.local_addr().unwrap();
    let (told, numbers) = channel();
    let (ready, started) = channel();
    let thread = std::thread::spawn(move || {
        let solo = Solo::new(Term(1), Index(0), Durability::EverySec);
        let partition = Partition::new(GroupId::new(KeyspaceId(0), 0), Store::new(7), solo);
        let worker = Worker::new(node::Settings::default(), vec![partition], Box::new(NoScripts), 7);
        let listeners = vec![Listener { socket: redis, tls: None, clients: Clients::Plain }];
        let crowd = Arc::new(Crowd::new(10));
        let (reactor, remote) = Reactor::new(worker, Forgetful(0), NoTasks, listeners, crowd).unwrap();
        let mut listener = Some(listener);
        let mut begin = |registry: Registry, first: usize| -> io::Result<Box<dyn Peers>> {
            let members = Arc::new(Members::new([identity(number).id(), other].into()));
            let settings = Settings { incarnation: 1, seed: u64::from(number), spoken: Spoken::ALL };
            let tokens = TokenRange { first, connections_max: 16 };
            let mut links =
                Links::new(&identity(number), members, settings, tokens, registry, listener.take())?;
            links.set_peer(Micros(1), other, vec![address]);
            Ok(Box::new(Counting { links, other, arrived: Vec::new(), told: told.clone() }))
        };
        let reactor = reactor.linked(&mut begin).unwrap();
        ready.send(remote).unwrap();
        reactor.run().unwrap();
    });
    Running { remote: started.recv().unwrap(), thread, redis: redis_address, numbers }
}

#[test]
fn two_loops_exchange_frames_while_each_serves_its_clients() {
    let listeners = [1, 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    let [first, second] = listeners;
    let loops =
        [run(1, first, (identity(2).id(), addresses[1])), run(2, second, (identity(1).id(), addresses[0]))];
    let mut clients: Vec<TcpStream> =
        loops.iter().map(|one| TcpStream::connect(one.redis).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"SET k v\r\n").unwrap();
    }
    for client in &mut clients {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }
    // Both lanes count to the end: each number is heard once by one of the two.
    let mut heard = Vec::new();
    for one in &loops {
        let evens = if identity(1).id() < identity(2).id() { 1 } else { 0 };
        let own = if std::ptr::eq(one, &loops[evens]) { 0 } else { 1 };
        for _ in (own..=ROUNDS).step_by(2).flat_map(|_| [0, 1]) {
            heard.push(one.numbers.recv_timeout(PATIENCE).unwrap());
        }
    }
    heard.sort_unstable();
    let expected: Vec<u32> = (0..=ROUNDS).flat_map(|number| [number, number]).collect();
    assert_eq!(heard, expected);
    for one in loops {
        one.remote.send(Control::Stop);
        one.thread.join().unwrap();
    }
}
