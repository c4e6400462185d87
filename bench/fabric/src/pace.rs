//! How many messages are under way, and what that takes: the same for all three kinds.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A driver's count of messages.
pub struct Pace {
    pub depth: u64,
    /// After a tenth of them as a warm-up.
    messages: u64,
    sent: u64,
    answered: u64,
    began: Option<(Instant, Duration)>,
    trip: Instant,
    trips: Vec<u64>,
}

impl Pace {
    pub fn new(depth: u64, messages: u64) -> Pace {
        let (now, trips) = (Instant::now(), Vec::with_capacity(messages as usize * usize::from(depth == 1)));
        Pace { depth, messages, sent: 0, answered: 0, began: None, trip: now, trips }
    }

    fn warm_up(&self) -> u64 {
        self.messages / 10
    }

    /// How many are to be sent now.
    pub fn take(&mut self) -> u64 {
        let due = (self.answered + self.depth).min(self.warm_up() + self.messages) - self.sent;
        self.sent += due;
        if self.depth == 1 && due > 0 {
            self.trip = Instant::now();
        }
        due
    }

    /// One answer came.
    pub fn answered(&mut self) {
        self.answered += 1;
        if self.answered == self.warm_up() {
            self.began = Some((Instant::now(), cpu()));
        } else if self.depth == 1 && self.answered > self.warm_up() {
            self.trips.push(self.trip.elapsed().as_nanos() as u64);
        }
    }

    pub fn is_done(&self) -> bool {
        self.answered == self.warm_up() + self.messages
    }

    /// Prints the figures.
    pub fn report(mut self) {
        let (began, used) = self.began.expect("there are more messages than the warm-up has");
        let (wall, cpu) = (began.elapsed().as_nanos(), (cpu() - used).as_nanos());
        self.trips.sort_unstable();
        let median = self.trips.get(self.trips.len() / 2).copied().unwrap_or(0);
        println!("{wall} {cpu} {median}");
    }
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
