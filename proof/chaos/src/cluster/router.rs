//! The network between hosts: which packets get through, when, and how often.
//!
//! [`Switch`] decides and has no file; [`Router`] is the thread that moves packets between the hosts' devices as it says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use kernel::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::net;
use crate::campaign::Failure;

/// Packets under way at once; more are lost, as in any full queue.
const PACKETS_MAX: usize = 20_000;
/// The longest packet.
const PACKET_BYTES_MAX: usize = 1 << 16;
/// Packets taken from a device before the next one has its turn.
const BURST: usize = 64;
/// Where an IPv4 packet says where it goes.
const DESTINATION: std::ops::Range<usize> = 16..20;

/// What happens to packets from one host to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Way {
    /// They go nowhere.
    pub blocked: bool,
    /// How likely one is lost.
    pub loss: f64,
    /// How likely one comes twice.
    pub twice: f64,
    /// How long each takes, in microseconds.
    pub delay: u64,
    /// At most this much longer, drawn for each: so they overtake each other.
    pub jitter: u64,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed over.
    pub passed: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because the way was blocked.
    pub blocked: u64,
    /// Handed over once more.
    pub twice: u64,
    /// Lost because too many were under way.
    pub overflowed: u64,
}

/// A packet under way: when it is due, its number, where it goes.
type Held = Reverse<(u64, u64, usize, Vec<u8>)>;

/// Decides about packets. Times are in microseconds since whenever.
pub struct Switch {
    ways: Vec<Vec<Way>>,
    rng: Rng,
    held: BinaryHeap<Held>,
    number: u64,
    /// See [`Counts`].
    pub counts: Counts,
}

impl Switch {
    /// Between so many hosts, with nothing in the way.
    #[must_use]
    pub fn new(hosts: usize, rng: Rng) -> Switch {
        let ways = vec![vec![Way::default(); hosts]; hosts];
        Switch { ways, rng, held: BinaryHeap::new(), number: 0, counts: Counts::default() }
    }

    /// How it is from one host to another.
    pub fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from][to]
    }

    /// Makes all ways so.
    pub fn all(&mut self, way: Way) {
        self.ways.iter_mut().flatten().for_each(|each| *each = way);
    }

    /// A packet of a host. What is not for a host of this network goes nowhere.
    pub fn take(&mut self, now: u64, from: usize, packet: &[u8]) {
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let Some(to) = packet.get(DESTINATION).filter(|_| is_v4) else { return };
        let Some(to) = to.try_into().ok().and_then(net::number).filter(|&to| to < self.ways.len()) else {
            return;
        };
        let way = self.ways[from][to];
        if way.blocked {
            self.counts.blocked += 1;
            return;
        }
        if self.rng.chance(way.loss) {
            self.counts.lost += 1;
            return;
        }
        let twice = self.rng.chance(way.twice);
        self.counts.twice += u64::from(twice);
        for _ in 0..1 + u64::from(twice) {
            if self.held.len() == PACKETS_MAX {
                self.counts.overflowed += 1;
                return;
            }
            let due = now + way.delay + self.rng.below(way.jitter + 1);
            self.number += 1;
            self.held.push(Reverse((due, self.number, to, packet.to_vec())));
        }
    }

    /// A packet that arrives now, and where.
    pub fn due(&mut self, now: u64) -> Option<(usize, Vec<u8>)> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, _, to, packet)) = self.held.pop()?;
        self.counts.passed += 1;
        Some((to, packet))
    }

    /// When the next one arrives.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.held.peek().map(|Reverse((due, ..))| *due)
    }
}

/// A network at work. Dropped, nothing gets through any more.
pub struct Router {
    switch: Arc<Mutex<Switch>>,
    /// Closed, the thread ends.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    /// Moves packets between these devices.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(devices: Vec<OwnedFd>, rng: Rng) -> Result<Router, Failure> {
        let switch = Arc::new(Mutex::new(Switch::new(devices.len(), rng)));
        let (ours, theirs) = UnixStream::pair().map_err(Failure::world("make a pair of sockets"))?;
        let of_thread = Arc::clone(&switch);
        let thread = std::thread::Builder::new()
            .name("router".into())
            .spawn(move || route(&devices, &theirs, &of_thread))
            .map_err(Failure::world("start the router"))?;
        Ok(Router { switch, stop: Some(ours), thread: Some(thread) })
    }

    /// The switch, between two packets.
    pub fn switch(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed by itself.
            let _ = thread.join();
        }
    }
}

fn route(devices: &[OwnedFd], stop: &UnixStream, switch: &Mutex<Switch>) {
    let began = Instant::now();
    let now = || began.elapsed().as_micros() as u64;
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let wait = {
            let mut switch = switch.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((to, packet)) = switch.due(now()) {
                // A device that is full loses packets, as the switch does.
                let _ = rustix::io::write(&devices[to], &packet);
            }
            switch.next().map(|due| due.saturating_sub(now()))
        };
        let wait = wait.map(|micros| Timespec {
            tv_sec: (micros / 1_000_000) as i64,
            tv_nsec: (micros % 1_000_000 * 1_000) as i64,
        });
        let mut ready: Vec<PollFd<'_>> =
            devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
        ready.push(PollFd::new(stop, PollFlags::IN));
        match poll(&mut ready, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the router cannot wait: {}", io::Error::from(error)),
        }
        if !ready.last().is_some_and(|stop| stop.revents().is_empty()) {
            return;
        }
        for (from, device) in devices.iter().enumerate() {
            if ready[from].revents().is_empty() {
                continue;
            }
            for _ in 0..BURST {
                let Ok(length) = rustix::io::read(device, &mut packet) else { break };
                let mut switch = switch.lock().unwrap_or_else(PoisonError::into_inner);
                switch.take(now(), from, &packet[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet to a host, as far as the switch reads it.
    fn packet(to: usize, mark: u8) -> Vec<u8> {
        let mut packet = vec![0x45; 24];
        packet[DESTINATION].copy_from_slice(&net::address(to).octets());
        packet[20] = mark;
        packet
    }

    fn marks(switch: &mut Switch, now: u64) -> Vec<(usize, u8)> {
        std::iter::from_fn(|| switch.due(now)).map(|(to, packet)| (to, packet[20])).collect()
    }

    #[test]
    fn ways_do_to_packets_what_they_say() {
        let fair = Way::default();
        let of = |way: Way| {
            let mut switch = Switch::new(3, Rng::new(7));
            *switch.way(0, 1) = way;
            (0..4).for_each(|mark| switch.take(100, 0, &packet(1, mark)));
            switch.take(100, 1, &packet(0, 9));
            switch
        };
        let forth = |marks: &[u8]| {
            let mut all: Vec<(usize, u8)> = marks.iter().map(|&mark| (1, mark)).collect();
            all.push((0, 9));
            all
        };
        #[rustfmt::skip] // columns
        let table = [
            (fair,                             100, forth(&[0, 1, 2, 3])),
            (Way { blocked: true, ..fair },    100, forth(&[])), // one way only
            (Way { loss: 1.0, ..fair },        100, forth(&[])),
            (Way { twice: 1.0, ..fair },       100, forth(&[0, 0, 1, 1, 2, 2, 3, 3])),
            (Way { delay: 50, ..fair },        149, forth(&[])),
        ];
        for (way, until, expected) in table {
            assert_eq!(marks(&mut of(way), until), expected, "{way:?}");
        }
        let mut slow = of(Way { delay: 50, ..fair });
        assert_eq!(marks(&mut slow, 100), [(0, 9)]);
        assert_eq!(slow.next(), Some(150));
        assert_eq!(marks(&mut slow, 150), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn one_in_twenty_is_lost_and_the_same_seed_loses_the_same() {
        let run = |seed| {
            let mut switch = Switch::new(2, Rng::new(seed));
            switch.all(Way { loss: 0.05, jitter: 30, ..Way::default() });
            (0..10_000).for_each(|at| switch.take(at, 0, &packet(1, at as u8)));
            let arrived = marks(&mut switch, 20_000);
            (arrived, switch.counts)
        };
        let (arrived, counts) = run(1);
        assert!((400..600).contains(&counts.lost), "{counts:?}");
        assert_eq!(counts.lost + counts.passed, 10_000);
        assert_eq!(run(1), (arrived.clone(), counts));
        assert_ne!(run(2).0, arrived);
    }

    #[test]
    fn what_is_for_nobody_goes_nowhere_and_the_queue_has_an_end() {
        let mut switch = Switch::new(2, Rng::new(1));
        let mut sixth = packet(1, 0);
        sixth[0] = 0x60;
        for foreign in [&packet(2, 0)[..], &sixth, &[0x45; 24], &packet(1, 0)[..19], &[]] {
            switch.take(0, 0, foreign);
        }
        assert_eq!(switch.next(), None);
        (0..PACKETS_MAX as u64 + 5).for_each(|_| switch.take(0, 0, &packet(1, 0)));
        assert_eq!(switch.counts.overflowed, 5);
    }
}
