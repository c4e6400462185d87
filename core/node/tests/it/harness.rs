//! A node with clients, driven turn by turn: of one worker, unless [`SHAPE`] says otherwise.

use std::cell::Cell;
use std::net::SocketAddr;

use consensus::{Durability, Solo};
use gateway::resp::{Histograms, Request};
use journal::record::{Entry, Record};
use kernel::{ConnId, GroupId, Index, KeyspaceId, Lsn, Micros, Term, WorkerId};
use node::worker::SEMANTICS;
use node::{AppendError, Elsewhere, LogSink, Observer, Partition, Settings, Worker};
use placement::Partitions;
use storage::reach::Scope;
use storage::store::scripts::ScriptId;
use storage::{Exec, Fault, Script, Scripting, Store};

/// A log that only counts, and is full when told so.
#[derive(Default)]
pub struct MemoryLog {
    pub end: u64,
    /// Keyspace and body of every entry.
    pub entries: Vec<(u16, Vec<u8>)>,
    /// The same with everything that a recovery reads.
    pub kept: Vec<Kept>,
    pub full: bool,
}

impl LogSink for MemoryLog {
    fn append(&mut self, records: &[Record<'_>], _: Durability) -> Result<Lsn, AppendError> {
        if self.full {
            return Err(AppendError::Full);
        }
        self.end += records.len() as u64;
        for record in records {
            if let Record::Entry(entry) = record {
                self.entries.push((entry.group.keyspace().0, entry.body.to_vec()));
                self.kept.push(Kept {
                    group: entry.group,
                    term: entry.term,
                    index: entry.index,
                    time: entry.time,
                });
            }
        }
        Ok(Lsn(self.end))
    }
}

/// Where and when an entry was logged.
pub struct Kept {
    pub group: GroupId,
    pub term: Term,
    pub index: Index,
    pub time: Micros,
}

impl MemoryLog {
    /// What a recovery would read, but for the last `lost` entries.
    pub fn records(&self, lost: usize) -> impl Iterator<Item = Record<'_>> {
        let all = self.kept.iter().zip(&self.entries).take(self.kept.len() - lost);
        all.map(|(&Kept { group, term, index, time }, (_, body))| {
            Record::Entry(Entry { group, term, index, semantics: SEMANTICS, time, body })
        })
    }
}

/// An engine whose every script publishes its argument on the channel that its key names.
struct Publisher;

impl Scripting for Publisher {
    fn has(&self, _: ScriptId) -> bool {
        true
    }

    fn load(&mut self, _: &Script<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn eval(
        &mut self,
        exec: &mut Exec<'_>,
        _: &Script<'_>,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<(), Fault> {
        exec.effects.published.push((keys[0].into(), args[0].into()));
        exec.reply.int(1);
        Ok(())
    }
}

/// Says of each command that it took 1.5 microseconds.
#[derive(Default)]
struct Observed(Histograms);

impl Observer for Observed {
    fn begin(&mut self) {}
    fn ran(&mut self, _: u16, name: &'static str) {
        self.ran_own(name);
    }
    fn ran_own(&mut self, name: &'static str) {
        self.0.0.entry(name).or_default().record(1500);
    }
    fn histograms(&self) -> Histograms {
        self.0.clone()
    }
    fn reset(&mut self) {
        self.0 = Histograms::default();
    }
}

/// When every test begins.
pub const START: Micros = Micros(1_700_000_000_000_000);

/// How the node of a test is spread over workers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub workers: u16,
    /// Which worker owns a keyspace, or its first partition; the next one has the next partition.
    pub owner: fn(u16) -> u16,
    /// How many partitions a keyspace has.
    pub partitions: fn(u16) -> u16,
    /// Which worker takes the client of this number.
    pub client: fn(u16) -> u16,
}

/// Everything on one worker.
pub const ALONE: Shape = Shape { workers: 1, owner: |_| 0, partitions: |_| 1, client: |_| 0 };

thread_local! {
    /// The shape of this thread's nodes.
    pub static SHAPE: Cell<Shape> = const { Cell::new(ALONE) };
}

pub struct Node {
    /// The first worker.
    pub worker: Worker,
    pub others: Vec<Worker>,
    pub shape: Shape,
    clients: u16,
    pub log: MemoryLog,
    pub now: Micros,
}

/// A client of a [`Node`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client(pub ConnId);

impl Node {
    pub fn new() -> Node {
        Node::with(Settings { started: START, ..Settings::default() })
    }

    /// Sixteen keyspaces.
    pub fn with(settings: Settings) -> Node {
        let count = SHAPE.get().partitions;
        Node::made(
            settings,
            (0..16).flat_map(|id| (0..count(id)).map(move |number| Node::partition(id, number))),
        )
    }

    /// The same, some of them with a budget of bytes.
    pub fn with_memory(budgets: &[(u16, usize)]) -> Node {
        let budget = |id| budgets.iter().find(|(other, _)| *other == id).map(|&(_, bytes)| bytes);
        Node::holding((0..16).map(|id| Node::partition(id, 0).with_memory(budget(id))))
    }

    /// A node of these partitions.
    pub fn holding(partitions: impl Iterator<Item = Partition>) -> Node {
        Node::made(Settings { started: START, ..Settings::default() }, partitions)
    }

    fn made(settings: Settings, partitions: impl Iterator<Item = Partition>) -> Node {
        let shape = SHAPE.get();
        let mut partitions: Vec<Partition> = partitions.collect();
        let mut worker = |number| {
            let owner = |id: KeyspaceId, partition| ((shape.owner)(id.0) + partition) % shape.workers;
            let is_own = |one: &mut Partition| owner(one.keyspace(), one.number()) == number;
            let own = partitions.extract_if(.., is_own).collect();
            let all = (0..16).map(KeyspaceId);
            let all = all.flat_map(|id| (0..(shape.partitions)(id.0)).map(move |partition| (id, partition)));
            let others = all.filter(|&(id, partition)| owner(id, partition) != number);
            let settings = Settings {
                worker: WorkerId(number),
                workers: shape.workers,
                elsewhere: others
                    .map(|(keyspace, partition)| {
                        let worker = WorkerId(owner(keyspace, partition));
                        Elsewhere { keyspace, partition, worker }
                    })
                    .collect(),
                ..settings.clone()
            };
            Worker::new(settings, own, Box::new(Publisher), 7).observed_by(Box::new(Observed::default()))
        };
        let (first, others) = (worker(0), (1..shape.workers).map(worker).collect());
        Node { worker: first, others, shape, clients: 0, log: MemoryLog::default(), now: START }
    }

    fn partition(id: u16, number: u16) -> Partition {
        let group = Solo::new(Term(1), Index(0), Durability::Always);
        let partitions = Partitions::new((SHAPE.get().partitions)(id)).expect("it has some");
        let store = Store::new(7).within(Scope { partitions, own: number });
        Partition::new(GroupId::new(KeyspaceId(id), number), store, group)
    }

    pub fn client(&mut self) -> Client {
        let taken = (self.shape.client)(self.clients);
        self.connect(taken).expect("there is room")
    }

    /// A client of that worker, if there is room.
    pub fn connect(&mut self, worker: u16) -> Option<Client> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000 + self.clients));
        let now = self.now;
        let total: usize = self.workers().map(|worker| worker.connection_count()).sum();
        let ever: u64 = self.workers().map(|worker| worker.accepted()).sum();
        let taken = self.nth(worker);
        taken.set_elsewhere(total - taken.connection_count(), ever - taken.accepted());
        let id = taken.connect(now, peer)?;
        self.clients += 1;
        Some(Client(id))
    }

    fn workers(&mut self) -> impl Iterator<Item = &mut Worker> {
        core::iter::once(&mut self.worker).chain(&mut self.others)
    }

    pub fn nth(&mut self, number: u16) -> &mut Worker {
        match number {
            0 => &mut self.worker,
            number => &mut self.others[usize::from(number) - 1],
        }
    }

    /// The worker that owns keyspace 0.
    pub fn owner(&mut self) -> &mut Worker {
        self.nth((self.shape.owner)(0))
    }

    /// The worker that has the client.
    pub fn of(&mut self, client: Client) -> &mut Worker {
        self.nth(client.0.worker().0)
    }

    /// Ends a turn of every worker and hands on what it has for the others. True if there is more to do.
    pub fn turn(&mut self) -> bool {
        let (mut any, mut parcels) = (false, Vec::new());
        for number in 0..self.shape.workers {
            let worker = core::iter::once(&mut self.worker).chain(&mut self.others).nth(number.into());
            let worker = worker.expect("there are so many");
            any |= worker.end_turn(self.now, &mut self.log);
            let mut out = Vec::new();
            worker.take_parcels(&mut out);
            parcels.extend(out.into_iter().map(|(to, parcel)| (WorkerId(number), to, parcel)));
        }
        any |= !parcels.is_empty();
        let now = self.now;
        for (from, to, parcel) in parcels {
            self.nth(to.0).accept(now, from, parcel);
        }
        any
    }

    /// Hands in bytes without ending the turn.
    pub fn feed(&mut self, client: Client, text: &str) {
        let now = self.now;
        self.of(client).receive(now, client.0, text.as_bytes());
    }

    /// Ends the turn, syncs the log and ends the next one.
    pub fn settle(&mut self) {
        for _ in 0..4 {
            self.turns();
            let end = Lsn(self.log.end);
            self.workers().for_each(|worker| worker.synced(end));
        }
        self.turns();
    }

    /// As many turns as a question to all workers and its answer take.
    pub fn turns(&mut self) {
        (0..2 * self.shape.workers).for_each(|_| {
            self.turn();
        });
    }

    /// What there is for a client, taken out; and whether it is to be closed.
    pub fn output(&mut self, client: Client) -> (String, bool) {
        let Some((out, closing)) = self.of(client).output(client.0) else { return (String::new(), true) };
        let text = String::from_utf8_lossy(out).into_owned();
        out.clear();
        if !text.is_empty() {
            self.of(client).drained(client.0);
        }
        (text, closing)
    }

    pub fn read(&mut self, client: Client) -> String {
        self.output(client).0
    }

    /// Sends one inline command and gives what the client got until all was quiet.
    pub fn ask(&mut self, client: Client, command: &str) -> String {
        self.feed(client, &format!("{command}\r\n"));
        self.settle();
        self.read(client)
    }

    /// Lets time pass.
    pub fn pass(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        let now = self.now;
        for worker in self.workers() {
            if worker.deadline().is_some_and(|deadline| deadline <= now) {
                worker.wake(now);
            }
        }
        self.settle();
    }

    pub fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        self.workers().for_each(|worker| worker.take_requests(&mut requests));
        requests
    }

    /// Asks each row's command and compares.
    pub fn table(&mut self, client: Client, rows: &[(&str, &str)]) {
        for (command, expected) in rows {
            assert_eq!(self.ask(client, command), *expected, "{command}");
        }
    }
}
