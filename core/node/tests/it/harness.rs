//! One worker with clients, driven turn by turn.

use std::net::SocketAddr;

use consensus::{Durability, Solo};
use gateway::resp::Request;
use journal::record::{Entry, Record};
use kernel::{ConnId, GroupId, Index, KeyspaceId, Lsn, Micros, Term};
use node::worker::SEMANTICS;
use node::{AppendError, LogSink, Partition, Settings, Worker};
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

/// When every test begins.
pub const START: Micros = Micros(1_700_000_000_000_000);

pub struct Node {
    pub worker: Worker,
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

    /// Sixteen keyspaces of one partition each.
    pub fn with(settings: Settings) -> Node {
        Node::made(settings, (0..16).map(Node::partition))
    }

    /// The same, some of them with a budget of bytes.
    pub fn with_memory(budgets: &[(u16, usize)]) -> Node {
        let budget = |id| budgets.iter().find(|(other, _)| *other == id).map(|&(_, bytes)| bytes);
        Node::of((0..16).map(|id| Node::partition(id).with_memory(budget(id))))
    }

    /// A node of these partitions.
    pub fn of(partitions: impl Iterator<Item = Partition>) -> Node {
        Node::made(Settings { started: START, ..Settings::default() }, partitions)
    }

    fn made(settings: Settings, partitions: impl Iterator<Item = Partition>) -> Node {
        let worker = Worker::new(settings, partitions.collect(), Box::new(Publisher), 7);
        Node { worker, log: MemoryLog::default(), now: START }
    }

    fn partition(id: u16) -> Partition {
        let group = Solo::new(Term(1), Index(0), Durability::Always);
        Partition::new(GroupId::new(KeyspaceId(id), 0), Store::new(7), group)
    }

    pub fn client(&mut self) -> Client {
        let number = 1000 + self.worker.connection_count() as u16;
        let peer = SocketAddr::from(([127, 0, 0, 1], number));
        Client(self.worker.connect(self.now, peer).expect("there is room"))
    }

    /// Hands in bytes without ending the turn.
    pub fn feed(&mut self, client: Client, text: &str) {
        self.worker.receive(self.now, client.0, text.as_bytes());
    }

    /// Ends the turn, syncs the log and ends the next one.
    pub fn settle(&mut self) {
        for _ in 0..4 {
            self.worker.end_turn(self.now, &mut self.log);
            self.worker.synced(Lsn(self.log.end));
        }
    }

    /// What there is for a client, taken out; and whether it is to be closed.
    pub fn output(&mut self, client: Client) -> (String, bool) {
        let Some((out, closing)) = self.worker.output(client.0) else { return (String::new(), true) };
        let text = String::from_utf8_lossy(out).into_owned();
        out.clear();
        if !text.is_empty() {
            self.worker.drained(client.0);
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
        if self.worker.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.worker.wake(self.now);
        }
        self.settle();
    }

    pub fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        self.worker.take_requests(&mut requests);
        requests
    }

    /// Asks each row's command and compares.
    pub fn table(&mut self, client: Client, rows: &[(&str, &str)]) {
        for (command, expected) in rows {
            assert_eq!(self.ask(client, command), *expected, "{command}");
        }
    }
}
