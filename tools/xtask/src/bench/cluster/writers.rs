//! Clients that write to every partition while a node goes: one for each, over connections to nodes that stay.
//!
//! Each writes a rising number under its own key, one write under way, and keeps what was acknowledged. A connection that
//! breaks is opened anew, which is no error. Whether a write that was answered with `-UNKNOWN`, or not at all, counts nobody
//! knows; every other error is one.

use super::super::load::{Connection, Reply};
use super::{PARTITIONS, SHARDED};
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between a client's writes: together they are a load, and none waits for the other's CPU alone.
const PAUSE: Duration = Duration::from_millis(10);
/// Slots of a keyspace.
const SLOTS: u16 = 16_384;
/// Names that are tried until every partition has one.
const NAMES_MAX: u32 = 100_000;

/// A name in each partition.
pub struct Names(Vec<String>);

impl Names {
    /// Asks the node at `port` for the slots of names, until there is one for each partition.
    pub fn find(port: u16) -> Result<Names> {
        let mut connection = Connection::open(port)?;
        let mut found: Vec<Option<String>> = vec![None; usize::from(PARTITIONS)];
        for number in 0..NAMES_MAX {
            let name = format!("writer:{number}");
            let slot = match connection.call(&["CLUSTER", "KEYSLOT", &name])? {
                Reply::Line(line) => line.strip_prefix(':').and_then(|slot| slot.parse::<u16>().ok()),
                _ => None,
            };
            let slot = slot.context("CLUSTER KEYSLOT gave no slot")?;
            found[usize::from(slot / (SLOTS / PARTITIONS))].get_or_insert(name);
            if found.iter().all(Option::is_some) {
                return Ok(Names(found.into_iter().flatten().collect()));
            }
        }
        bail!("{NAMES_MAX} names are not in every partition")
    }
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// When it was first tried: errors and lost connections since then are part of it.
    pub begun: Instant,
    pub ended: Instant,
}

/// What one client saw.
#[derive(Default)]
pub struct Seen {
    pub done: Vec<Done>,
    pub unknown: u64,
    pub errors: Vec<String>,
    pub reconnects: u64,
    name: String,
    acknowledged: u64,
}

/// Clients at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Seen>>>,
}

impl Writers {
    /// Begins one client for each name, on the ports in turn.
    pub fn begin(names: &Names, ports: &[u16]) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = names.0.iter().zip(ports.iter().cycle()).map(|(name, &port)| {
            let (stop, name) = (Arc::clone(&stop), name.clone());
            std::thread::spawn(move || write(&stop, port, name))
        });
        Writers { threads: threads.collect(), stop }
    }

    /// Has all of them end after their present write.
    pub fn end(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Release);
        let end = |thread: JoinHandle<Result<Seen>>| match thread.join() {
            Ok(seen) => seen,
            Err(_) => bail!("a client's thread panicked"),
        };
        self.threads.into_iter().map(end).collect()
    }
}

impl Seen {
    /// How long after `moment` the first write was acknowledged that was begun after it.
    pub fn resumed(&self, moment: Instant) -> Option<Duration> {
        let first = self.done.iter().find(|done| done.begun >= moment)?;
        Some(first.ended - moment)
    }

    /// The longest that a write took which ended after `moment`.
    pub fn longest(&self, moment: Instant) -> Duration {
        let after = self.done.iter().filter(|done| done.ended >= moment);
        after.map(|done| done.ended - done.begun).max().unwrap_or_default()
    }

    /// Whether the last acknowledged number, or a later one, is there for who asks at `port`.
    pub fn is_kept(&self, port: u16) -> Result<bool> {
        let mut connection = open(port)?;
        match connection.call(&["GET", &self.name])? {
            Reply::Bulk(bytes) => {
                let found = std::str::from_utf8(&bytes)?.trim_start_matches('0').parse::<u64>();
                Ok(found.unwrap_or(0) >= self.acknowledged)
            }
            Reply::Nil => Ok(self.acknowledged == 0),
            other => bail!("GET {} gave {other:?}", self.name),
        }
    }
}

fn open(port: u16) -> Result<Connection> {
    let mut connection = Connection::open(port)?;
    match connection.call(&["SELECT", &SHARDED.to_string()])? {
        Reply::Line(line) if line == "+OK" => Ok(connection),
        other => bail!("SELECT gave {other:?}"),
    }
}

fn write(stop: &AtomicBool, port: u16, name: String) -> Result<Seen> {
    let mut seen = Seen { name, ..Seen::default() };
    let mut connection = open(port)?;
    let mut number = match connection.call(&["GET", &seen.name])? {
        Reply::Bulk(bytes) => std::str::from_utf8(&bytes)?.trim_start_matches('0').parse().unwrap_or(0),
        _ => 0,
    };
    let mut begun = None;
    while !stop.load(Ordering::Acquire) {
        number += 1;
        let begin = *begun.get_or_insert_with(Instant::now);
        match connection.call(&["SET", &seen.name, &format!("{number:064}")]) {
            Ok(Reply::Line(line)) if line == "+OK" => {
                seen.done.push(Done { begun: begin, ended: Instant::now() });
                (seen.acknowledged, begun) = (number, None);
                std::thread::sleep(PAUSE);
            }
            Ok(Reply::Line(line)) if line.starts_with("-UNKNOWN") => seen.unknown += 1,
            Ok(other) => {
                seen.errors.push(format!("{other:?}"));
                std::thread::sleep(PAUSE);
            }
            Err(_) => {
                seen.reconnects += 1;
                connection = open(port)?;
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_before_the_moment_does_not_show_that_writes_go_on() {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let done = |begun, ended| Done { begun: at(begun), ended: at(ended) };
        let seen =
            Seen { done: vec![done(0, 5), done(8, 120), done(130, 150), done(160, 161)], ..Seen::default() };
        assert_eq!(seen.resumed(at(10)), Some(Duration::from_millis(140)));
        assert_eq!(seen.resumed(at(155)), Some(Duration::from_millis(6)));
        assert_eq!(seen.resumed(at(170)), None);
        assert_eq!(seen.longest(at(10)), Duration::from_millis(112));
        assert_eq!(seen.longest(at(125)), Duration::from_millis(20));
    }
}
