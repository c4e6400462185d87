//! Clients in a closed loop: each asks, thinks for a while, and asks again.

use super::super::load::Chance;
use super::http::Http;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// What many clients do.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    pub port: u16,
    pub method: &'static str,
    pub target: &'static str,
    pub count: u64,
    /// The mean time between an answer and the next request; each is drawn from an exponential distribution.
    pub thinks: Duration,
    pub seconds: u64,
    pub seed: u64,
}

/// What they saw.
#[derive(Default)]
pub struct Seen {
    /// Of the answers with 200, in microseconds, ascending.
    pub micros: Vec<u64>,
    /// Requests with another answer, or none.
    pub failed: u64,
    /// The first of them.
    pub failure: Option<String>,
}

impl Seen {
    /// The time in milliseconds below which so many of a thousand answers are.
    pub fn millis(&self, permille: usize) -> f64 {
        let at = (self.micros.len() * permille / 1000).min(self.micros.len().saturating_sub(1));
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one request fit 52 bits")]
        self.micros.get(at).map_or(f64::NAN, |&micros| micros as f64 / 1000.0)
    }

    /// Failures in per cent of all requests.
    pub fn failed_percent(&self) -> f64 {
        let all = self.micros.len() as u64 + self.failed;
        #[expect(clippy::cast_precision_loss, reason = "requests of one run fit 52 bits")]
        let percent = self.failed as f64 * 100.0 / all as f64;
        percent
    }

    pub fn add(&mut self, other: Seen) {
        self.micros.extend(other.micros);
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
    }
}

impl Clients {
    /// Runs them to their end.
    pub fn run(&self) -> Result<Seen> {
        let mut all = Seen::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.count).map(|number| scope.spawn(move || self.one(number))).collect();
            for thread in threads {
                match thread.join() {
                    Ok(seen) => all.add(seen),
                    Err(_) => bail!("a client's thread panicked"),
                }
            }
            Ok(())
        })?;
        all.micros.sort_unstable();
        Ok(all)
    }

    fn one(&self, number: u64) -> Seen {
        let mut chance = Chance::new(self.seed.wrapping_mul(1 << 20).wrapping_add(number));
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let (mut seen, mut connection) = (Seen::default(), None);
        while Instant::now() < end {
            std::thread::sleep(self.thinks.mul_f64(-(1.0 - chance.unit()).ln()));
            let began = Instant::now();
            match self.ask(&mut connection) {
                Ok(()) => seen.micros.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)),
                Err(error) => {
                    connection = None;
                    seen.failed += 1;
                    seen.failure.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        seen
    }

    fn ask(&self, connection: &mut Option<Http>) -> Result<()> {
        let http = match connection {
            Some(http) => http,
            None => connection.insert(Http::open(self.port)?),
        };
        let answer = http.ask(self.method, self.target, "")?;
        if answer.closes {
            *connection = None;
        }
        if answer.status != 200 {
            bail!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::{Endpoint, Manner};
    use super::*;

    #[test]
    fn clients_count_what_failed_and_time_the_rest() {
        let run = |manner| {
            let endpoint = Endpoint::start(manner, 1).unwrap();
            let (port, thinks) = (endpoint.port, Duration::from_millis(1));
            let clients = Clients { port, method: "GET", target: "/", count: 3, thinks, seconds: 1, seed: 1 };
            clients.run().unwrap()
        };
        let seen = run(Manner::Takes(Duration::from_millis(2)));
        assert_eq!((seen.failed, seen.failure.as_deref()), (0, None));
        assert!(seen.micros.is_sorted() && seen.micros.first() >= Some(&1000), "{:?}", seen.micros);
        let seen = run(Manner::Fails);
        assert_eq!((seen.micros.len(), seen.failure.as_deref()), (0, Some("status 503: ok")));
        assert!((seen.failed_percent() - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_permille_of_times_is_the_one_so_far_up() {
        let seen = Seen { micros: (1..=1000).map(|at| at * 1000).collect(), ..Seen::default() };
        assert_eq!((seen.millis(500), seen.millis(990)), (501.0, 991.0));
        assert!(Seen::default().millis(990).is_nan());
    }
}
