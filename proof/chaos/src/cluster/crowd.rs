//! Clients that write down what they ask and are told, on sockets that never block, all on one thread: so the order of
//! calls and returns in their history is the order in which they were.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use check::client::{Client, History, Kind, Manner, Wish};
use kernel::{ConnId, Rng, WorkerId};

use super::member::REDIS;
use super::{Hosts, member::WIDE};
use crate::campaign::Failure;

/// Clients at once.
const CLIENTS: usize = 8;
/// Keys of each kind in each keyspace.
const KEYS: u64 = 3;
/// The keyspaces: one of a single partition, and one of several.
const DATABASES: [u16; 2] = [0, WIDE.0];
/// A connection that is not there after so long is tried elsewhere.
const CONNECT: Duration = Duration::from_millis(400);
/// A client that is patient and gets no answer for so long will never get one, in milliseconds. No measure of speed.
const NEVER_MS: u64 = 60_000;
/// How long those that are not patient wait, in milliseconds: at least the first.
const PATIENCE_MS: (u64, u64) = (300, 3_000);
/// Between two looks at the sockets, in microseconds.
const LOOK_MICROS: u64 = 500;
/// At most this long between two things that a client does, in microseconds.
const THINK_MICROS: u64 = 12_000;
/// Between two tries of who wants to be answered at the end, in microseconds.
const RETRY_MICROS: u64 = 100_000;

/// How clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Some lose patience and go elsewhere.
    Mixed,
    /// Nobody leaves before the answer.
    Patient,
}

struct Seat {
    client: Client,
    stream: Option<TcpStream>,
    wish: Option<Asks>,
    content: bool,
}

/// What a client at the end wants.
#[derive(Clone, Copy)]
struct Asks {
    wish: Wish,
    /// It changes the key too.
    changes: bool,
}

/// An error that a client was told: by which node, and its first word.
pub type Said = (usize, String);

/// The clients of one round.
pub struct Crowd {
    seats: Vec<Seat>,
    /// What they were told.
    pub history: History,
    /// Errors, and how often.
    pub errors: BTreeMap<Said, u64>,
    /// Connections that nodes ended, by node.
    pub losses: BTreeMap<usize, u64>,
    /// The longest that anybody waited for an answer, in milliseconds, without what a blocking command may take.
    pub slowest_ms: u64,
    began: Instant,
    rng: Rng,
    round: u64,
    number: u64,
    temper: Temper,
}

impl Crowd {
    /// Clients whose keys belong to this round. Times in their history are since `began`.
    #[must_use]
    pub fn new(began: Instant, round: u64, rng: Rng, temper: Temper) -> Crowd {
        let mut crowd = Crowd {
            seats: Vec::new(),
            history: History::default(),
            errors: BTreeMap::new(),
            losses: BTreeMap::new(),
            slowest_ms: 0,
            began,
            rng,
            round,
            number: 0,
            temper,
        };
        for _ in 0..CLIENTS {
            let client = crowd.client();
            crowd.seats.push(Seat { client, stream: None, wish: None, content: false });
        }
        crowd
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn client(&mut self) -> Client {
        self.number += 1;
        let (least, most) = PATIENCE_MS;
        let leaves = self.temper == Temper::Mixed && self.rng.chance(0.5);
        let patience = leaves.then(|| 1_000 * (least + self.rng.below(most - least)));
        let reads = self.rng.chance(0.3);
        Client::new(
            self.number,
            Manner {
                keys: KEYS,
                pipeline: 3,
                reads,
                copies: false,
                register: false,
                patience,
                round: self.round,
            },
        )
    }

    /// Lets them ask for so long.
    ///
    /// # Errors
    /// Somebody was told what nobody may be told.
    pub fn run(&mut self, hosts: &Hosts, millis: u64) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < until {
            self.turn(hosts)?;
        }
        Ok(())
    }

    /// Everybody does what there is to do.
    ///
    /// # Errors
    /// Somebody was told what nobody may be told.
    pub fn turn(&mut self, hosts: &Hosts) -> Result<(), Failure> {
        for at in 0..self.seats.len() {
            self.step(hosts, at)?;
        }
        std::thread::sleep(Duration::from_micros(LOOK_MICROS));
        Ok(())
    }

    /// All faults are over: somebody at each node asks for each key and changes it, until all are answered.
    ///
    /// # Errors
    /// They never are, or somebody was told what nobody may be told.
    pub fn end(&mut self, hosts: &Hosts) -> Result<(), Failure> {
        let nodes = 0..hosts.count();
        self.settle(hosts, nodes.map(|node| (node, true)).collect())
    }

    /// Reads each key once more, at any node.
    ///
    /// # Errors
    /// As [`Crowd::end`].
    pub fn look(&mut self, hosts: &Hosts) -> Result<(), Failure> {
        let node = self.rng.below(hosts.count() as u64) as usize;
        self.settle(hosts, vec![(node, false)])
    }

    fn settle(&mut self, hosts: &Hosts, asks: Vec<(usize, bool)>) -> Result<(), Failure> {
        (0..self.seats.len()).for_each(|at| self.lose(at));
        self.seats.clear();
        for (node, changes) in asks {
            for (db, key) in DATABASES.into_iter().flat_map(|db| (0..KEYS).map(move |key| (db, key))) {
                for kind in Kind::ALL {
                    let client = self.client();
                    let wish = Some(Asks { wish: Wish { db, key, kind, node }, changes });
                    self.seats.push(Seat { client, stream: None, wish, content: false });
                }
            }
        }
        let until = Instant::now() + Duration::from_millis(NEVER_MS);
        while self.seats.iter().any(|seat| !seat.content) {
            if Instant::now() > until {
                let waits = self.seats.iter().filter(|seat| !seat.content).count();
                return Err(Failure::Broken(format!(
                    "{waits} of {} clients are not answered although all faults are over; errors: {:?}",
                    self.seats.len(),
                    self.errors
                )));
            }
            self.turn(hosts)?;
        }
        self.seats.clear();
        Ok(())
    }

    /// A client claims that a write was acknowledged which no node has ever seen: what a judge must find.
    ///
    /// # Errors
    /// None that can happen.
    pub fn lie(&mut self) -> Result<(), Failure> {
        let (now, mut liar) = (self.now(), self.client());
        liar.connected(now, (0, ConnId::new(WorkerId(0), 0, 0)), DATABASES[0]);
        liar.change(now, &mut self.history, 0, Kind::Text);
        let told = liar.told(self.now(), b"+OK\r\n+OK\r\n", &mut self.history);
        told.map(drop).map_err(Failure::Broken)
    }

    fn lose(&mut self, at: usize) {
        let now = self.now();
        let fresh = self.client();
        let wait = 1_000 + self.rng.below(100_000);
        let seat = &mut self.seats[at];
        seat.client.lost(now, &mut self.history);
        (seat.client, seat.stream) = (fresh, None);
        seat.client.next = now + wait;
    }

    fn step(&mut self, hosts: &Hosts, at: usize) -> Result<(), Failure> {
        let now = self.now();
        let Seat { client, stream, .. } = &self.seats[at];
        if stream.is_none() {
            if client.next <= now {
                self.connect(hosts, at)?;
            }
            return Ok(());
        }
        if client.gives_up().is_some_and(|due| due <= now) {
            self.lose(at);
            return Ok(());
        }
        if client.waits() && now > client.waits_since + client.blocks + 1_000 * NEVER_MS {
            let node = client.conn.map_or(0, |(node, _)| node);
            return Err(Failure::Broken(format!("node {node} never answers a client that waits patiently")));
        }
        let node = client.conn.map(|(node, _)| node);
        match self.exchange(at) {
            Ok(Ok(())) => self.act(at),
            Ok(Err(what)) => return Err(Failure::Broken(what)),
            Err(_) => {
                if let Some(node) = node {
                    *self.losses.entry(node).or_default() += 1;
                }
                self.lose(at);
            }
        }
        Ok(())
    }

    fn act(&mut self, at: usize) {
        let now = self.now();
        let Seat { client, wish, content, .. } = &mut self.seats[at];
        if client.waits() || client.next > now || *content {
            return;
        }
        if let Some(Asks { wish, changes }) = wish {
            *content = client.rounds > 0 && !client.refused && client.served > 0;
            if *content {
                return;
            }
            (client.rounds, client.refused, client.served) = (client.rounds + 1, false, 0);
            client.next = now + RETRY_MICROS;
            if *changes {
                client.ask_for(now, &mut self.history, wish.key, wish.kind);
            } else {
                client.look_for(now, &mut self.history, wish.key, wish.kind);
            }
            return;
        }
        client.next = now + self.rng.below(THINK_MICROS);
        let refused = std::mem::take(&mut client.refused);
        client.act(now, &mut self.history, &mut self.rng);
        if refused && self.rng.chance(0.2) {
            self.lose(at);
        }
    }

    /// Sends and receives what there is. The outer error is the socket's.
    fn exchange(&mut self, at: usize) -> io::Result<Result<(), String>> {
        let Seat { client, stream, .. } = &mut self.seats[at];
        let Some(stream) = stream else { return Ok(Ok(())) };
        client.said.clear();
        while !client.outbox.is_empty() {
            match stream.write(&client.outbox) {
                Ok(count) => drop(client.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut bytes = [0; 4096];
        loop {
            let count = match stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(())),
                Err(error) => return Err(error),
            };
            let now = self.began.elapsed().as_micros() as u64;
            let waited = now.saturating_sub(client.waits_since + client.blocks);
            self.slowest_ms = self.slowest_ms.max(waited / 1_000);
            let node = client.conn.map_or(0, |(node, _)| node);
            for word in errors(&bytes[..count]) {
                *self.errors.entry((node, word)).or_default() += 1;
            }
            match client.told(now, &bytes[..count], &mut self.history) {
                Ok((answers, all)) => {
                    client.served += answers;
                    client.refused |= !all;
                }
                Err(what) => return Ok(Err(what)),
            }
        }
    }

    fn connect(&mut self, hosts: &Hosts, at: usize) -> Result<(), Failure> {
        let wish = self.seats[at].wish.map(|asks| asks.wish);
        let node = wish.map_or_else(|| self.rng.below(hosts.count() as u64) as usize, |wish| wish.node);
        let db = wish.map_or_else(|| DATABASES[self.rng.below(2) as usize], |wish| wish.db);
        let stream = hosts.host(node).inside(enter)?;
        let (now, wait) = (self.now(), 20_000 + self.rng.below(100_000));
        let seat = &mut self.seats[at];
        match stream {
            Ok(stream) => {
                seat.client.connected(now, (node, ConnId::new(WorkerId(0), 0, 0)), db);
                seat.stream = Some(stream);
            }
            Err(_) => seat.client.next = now + wait,
        }
        Ok(())
    }
}

/// Connects to the node of the host where this thread is.
fn enter() -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&REDIS, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// The first words of the errors in replies. Clients' values never look like one: they are numbers.
fn errors(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| match line {
        [b'-', first, ..] if first.is_ascii_uppercase() => {
            let word = line[1..].split(|byte| !byte.is_ascii_uppercase()).next().unwrap_or_default();
            Some(String::from_utf8_lossy(word).into_owned())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_values() {
        let bytes = b"+OK\r\n-CLUSTERDOWN nobody leads\r\n$3\r\n-12\r\n:-2\r\n-ERR no\r\n*-1\r\n";
        assert_eq!(errors(bytes).collect::<Vec<_>>(), ["CLUSTERDOWN", "ERR"]);
    }
}
