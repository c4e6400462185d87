//! Connections that write, and what each of them was told.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::model::{Millis, Op, State, Window};
use crate::resp::{Client, Reply};
use crate::work::{Mix, Work};

/// Databases in use.
pub const DATABASES: usize = 3;
/// The one with a small memory budget.
pub const SQUEEZED: usize = 1;
/// The database of each connection. The last one has its own, and flushes it.
const CONNECTIONS: [usize; 6] = [0, 0, 0, SQUEEZED, SQUEEZED, 2];
/// What is older than this was on the disk long before any cut.
const HISTORY_MS: Millis = 4_000;

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Milliseconds since.
    #[must_use]
    pub fn now(self) -> Millis {
        Millis::try_from(self.0.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// A command on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The command.
    pub op: Op,
    /// When it was sent.
    pub sent: Millis,
}

/// Acknowledged commands that a power cut may still take in `everysec`.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What is older.
    pub base: State,
    /// What is not: each command and when it ran; it was acknowledged at the window's end.
    pub ops: VecDeque<(Op, Window)>,
}

/// One connection's side of the story.
pub struct Ledger {
    /// Its number, which its keys' names begin with.
    pub connection: usize,
    /// Its database.
    pub database: usize,
    /// As after everything that was acknowledged.
    pub state: State,
    /// What was sent and not answered.
    pub flying: VecDeque<Flight>,
    /// Kept only if a run asks for it.
    pub history: Option<History>,
    /// Acknowledged writes and reads.
    pub acked: u64,
    /// Writes that were refused for want of space.
    pub refused: u64,
    work: Work,
}

/// How a connection's load ended.
#[derive(Debug)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// The connection broke.
    Broken(io::Error),
    /// The node said that its disk failed.
    DiskFailed,
    /// A reply was wrong.
    Wrong(String),
}

impl Ledger {
    /// One for each connection of a run.
    #[must_use]
    pub fn all(seed: u64, value_bytes_max: u64, keeps_history: bool) -> Vec<Ledger> {
        let make = |(connection, &database): (usize, &usize)| {
            let flushes = CONNECTIONS.iter().filter(|&&other| other == database).count() == 1;
            Ledger {
                connection,
                database,
                state: State::default(),
                flying: VecDeque::new(),
                history: keeps_history.then(History::default),
                acked: 0,
                refused: 0,
                work: Work::new(connection, seed, Mix { flushes, value_bytes_max }),
            }
        };
        CONNECTIONS.iter().enumerate().map(make).collect()
    }

    fn run(&mut self, address: SocketAddr, clock: Clock, stop: &AtomicBool) -> End {
        match self.try_run(address, clock, stop) {
            Ok(end) => end,
            Err(error) => End::Broken(error),
        }
    }

    fn try_run(&mut self, address: SocketAddr, clock: Clock, stop: &AtomicBool) -> io::Result<End> {
        let mut client = Client::connect(address)?;
        client.ask(&["SELECT".to_owned(), self.database.to_string()])?;
        while !stop.load(Ordering::Relaxed) {
            let depth = self.work.depth();
            for _ in 0..depth {
                let op = self.work.next_op();
                op.commands().iter().for_each(|command| client.queue(command));
                self.flying.push_back(Flight { op, sent: clock.now() });
            }
            client.flush()?;
            let mut failed = false;
            for _ in 0..depth {
                let flight = self.flying.front().expect("as many fly as were sent");
                let mut reply = client.reply()?;
                for _ in 1..flight.op.commands().len() {
                    reply = client.reply()?;
                }
                match self.answered(&reply, clock.now()) {
                    Ok(Told::Done) => {}
                    Ok(Told::Unknown) => {
                        failed = true;
                        break;
                    }
                    Err(wrong) => return Ok(End::Wrong(wrong)),
                }
            }
            if failed {
                return Ok(End::DiskFailed);
            }
        }
        Ok(End::Stopped)
    }

    /// Takes the reply to the oldest command that flies.
    fn answered(&mut self, reply: &Reply, now: Millis) -> Result<Told, String> {
        if let Reply::Error(text) = reply
            && text.starts_with("MISCONF the disk failed")
        {
            return Ok(Told::Unknown);
        }
        let Flight { op, sent } = self.flying.pop_front().expect("a reply answers a command");
        if let Reply::Error(text) = reply
            && text.starts_with("MISCONF the disk is full")
            && !matches!(op, Op::Read { .. })
        {
            self.refused += 1;
            return Ok(Told::Done);
        }
        let ran = Window { from: sent, to: now };
        let expected = self.state.apply(&op, ran);
        if !expected.admits(reply) {
            let (expected, got) = (expected.brief(), reply.brief());
            return Err(format!(
                "database {}: the reply to {op:.300?} is {got}, not {expected}",
                self.database
            ));
        }
        self.acked += 1;
        if let Some(history) = &mut self.history {
            history.ops.push_back((op, ran));
            while history.ops.front().is_some_and(|(_, ran)| ran.to + HISTORY_MS < now) {
                if let Some((op, ran)) = history.ops.pop_front() {
                    history.base.apply(&op, ran);
                }
            }
        }
        Ok(Told::Done)
    }
}

enum Told {
    Done,
    Unknown,
}

/// Runs every connection's load while `during` runs; what `during` returned and how each connection ended.
pub fn run_while<T>(
    ledgers: &mut [Ledger],
    address: SocketAddr,
    clock: Clock,
    during: impl FnOnce() -> T,
) -> (T, Vec<End>) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let threads: Vec<_> =
            ledgers.iter_mut().map(|ledger| scope.spawn(move || ledger.run(address, clock, stop))).collect();
        let result = during();
        stop.store(true, Ordering::Relaxed);
        let ends = threads.into_iter().map(|thread| thread.join().expect("a load thread does not panic"));
        (result, ends.collect())
    })
}
