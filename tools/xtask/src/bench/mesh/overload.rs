//! A service of known capacity that is asked for three times as much: bar 4 of the mesh.
//!
//! It works on eight requests at once and takes 10 ms for each, evenly drawn between half and one and a half times as long:
//! it can do 800 in a second, and waits rather than works, so that no processor is what it lacks. Requests come by chance
//! at a rate that does not ask how long answers take, a fifth of them with `X-Priority: high`, from clients of their own: on a
//! connection with others they would wait for those at the client. An answer that comes 100 ms after its request was due, or
//! later, is worth nothing to its client.
//!
//! It takes requests in the order in which they came to it, as most services do: what of its queue is important is the proxy's
//! affair, which keeps the queue short. One that sorted its own requests would need the proxy less.

use super::super::Setting;
use super::super::load::Chance;
use super::super::report::{Bar, Pair, Report};
use super::http::{Endpoint, Http, Manner};
use super::{listed, node, port};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_millis(10);
const WORKERS: usize = 8;
/// What it can do in a second.
const CAPACITY: f64 = 800.0;
/// Connections that important requests come on, and those that others do; as many can be under way.
const CONNECTIONS: [u64; 2] = [128, 256];
const HIGH: f64 = 0.2;
const PATIENCE: Duration = Duration::from_millis(100);
/// Of the capacity: among these is the most that it answers in time.
const LOADS: [f64; 3] = [0.9, 1.1, 1.5];
const OVERLOAD: f64 = 3.0;
const IDLE: f64 = 0.1;
/// How long each load lasts before it is measured, and while it is.
const LEARN: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(6);
/// A p99 of fewer answers is one of its last few: an idle service is measured for longer.
const ANSWERS_MIN: u32 = 1_000;

/// Answers in time at three times the capacity beside the most of any load, and the p99 of important requests beside that of
/// an idle service: with the limit that is learnt, and without one.
pub fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    let (mut goodput, mut high, mut goodput_open, mut high_open) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for seed in 1..=u64::from(setting.rounds) {
        let endpoint = Endpoint::with_workers(Manner::Takes(TIME), seed, WORKERS)?;
        let dir = setting.scratch()?;
        let server = node(setting, dir.path(), &config(endpoint.port))?;
        let ours = port(&server, 8080);
        let measure = |name: &str, target: &'static str, load: f64| -> Result<Seen> {
            let seen = Load { port: ours, target, load, seed }.run(setting.quick)?;
            seen.say(seed, name, load);
            Ok(seen)
        };
        for (name, target, goodput, high) in
            [("learnt", "/", &mut goodput, &mut high), ("open", "/open", &mut goodput_open, &mut high_open)]
        {
            let idle = measure(name, target, IDLE)?;
            ensure!(idle.shed == 0, "{name}: an idle service is spared {} requests", idle.shed);
            let (answers, least) = (idle.all.len(), if setting.quick { 1 } else { ANSWERS_MIN as usize });
            ensure!(answers >= least, "{name}: an idle service gave {answers} answers, fewer than {least}");
            let mut peak = 0.0_f64;
            for load in LOADS {
                peak = peak.max(measure(name, target, load)?.goodput());
            }
            let over = measure(name, target, OVERLOAD)?;
            goodput.push(Pair { us: over.goodput(), peer: Some(peak.max(over.goodput())) });
            high.push(Pair { us: over.high_p99(), peer: Some(idle.all_p99()) });
        }
        server.stop()?;
    }
    let in_time = ("in time/its most", "answers/s");
    let slower = ("high p99/idle", "ms");
    report.row("3x load, learnt limit", in_time, goodput, Some(Bar::RatioAtLeast(0.9)));
    report.row("3x load, learnt limit", slower, high, Some(Bar::RatioAtMost(2.0)));
    report.row("3x load, no limit", in_time, goodput_open, None);
    report.row("3x load, no limit", slower, high_open, None);
    Ok(())
}

/// The service with a limit that is learnt, and below `/open` as it is by default.
fn config(endpoint: u16) -> String {
    let endpoints = listed(&[endpoint]);
    // A client of an idle service may wait for long before it asks for the first time.
    format!(
        "[proxy]\nhead_ms = 60000\n[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
         [[proxy.service]]\nname = \"learnt\"\nendpoints = [{endpoints}]\n\
         adaptive = true\nqueue_max = 64\nqueue_ms = 50\n\
         [[proxy.service]]\nname = \"open\"\nendpoints = [{endpoints}]\n\
         [[proxy.route]]\nservice = \"learnt\"\nname = \"others\"\n\
         [[proxy.route]]\nservice = \"learnt\"\nname = \"high\"\nheaders = \"x-priority: high\"\npriority = \"high\"\n\
         [[proxy.route]]\nservice = \"open\"\nname = \"open\"\npath = \"/open\"\n"
    )
}

/// Requests that come at a rate of their own.
#[derive(Clone, Copy)]
struct Load {
    port: u16,
    target: &'static str,
    /// Of [`CAPACITY`].
    load: f64,
    seed: u64,
}

/// What became of them.
#[derive(Default)]
struct Seen {
    seconds: f64,
    in_time: u64,
    late: u64,
    shed: u64,
    /// Important ones that were shed.
    shed_high: u64,
    /// Of important requests that were answered, from when they were due, in microseconds.
    high: Vec<u64>,
    /// Of all that were. Where nobody waits for anybody, importance is worth nothing, and these are more.
    all: Vec<u64>,
}

impl Seen {
    fn goodput(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "requests of one run fit 52 bits")]
        let in_time = self.in_time as f64;
        in_time / self.seconds
    }

    fn high_p99(&self) -> f64 {
        p99(&self.high)
    }

    fn all_p99(&self) -> f64 {
        p99(&self.all)
    }

    fn add(&mut self, other: Seen) {
        self.in_time += other.in_time;
        self.late += other.late;
        self.shed += other.shed;
        self.shed_high += other.shed_high;
        self.high.extend(other.high);
        self.all.extend(other.all);
    }

    fn say(&self, seed: u64, name: &str, load: f64) {
        eprintln!(
            "seed {seed} {name:<7} load {load:<4} {:>7.1} in time/s, {:>5} late, {:>5} shed ({} high), \
             p99 {:>7.2} ms, of {} high {:>7.2} ms",
            self.goodput(),
            self.late,
            self.shed,
            self.shed_high,
            self.all_p99(),
            self.high.len(),
            self.high_p99()
        );
    }
}

/// Of times in ascending order, in milliseconds.
fn p99(micros: &[u64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one request fit 52 bits")]
    micros.get(micros.len() * 99 / 100).map_or(f64::NAN, |&micros| micros as f64 / 1000.0)
}

impl Load {
    /// How long it is measured: as long as the others, or until it has brought [`ANSWERS_MIN`] with some to spare.
    fn time(&self) -> Duration {
        MEASURED.max(Duration::from_secs_f64(1.3 * f64::from(ANSWERS_MIN) / (CAPACITY * self.load)))
    }

    fn run(&self, quick: bool) -> Result<Seen> {
        let (learn, measured) = if quick { (LEARN / 10, self.time() / 10) } else { (LEARN, self.time()) };
        let begin = Instant::now() + learn;
        let mut all = Seen { seconds: measured.as_secs_f64(), ..Seen::default() };
        std::thread::scope(|scope| {
            let one = |number| scope.spawn(move || self.one(number, begin, begin + measured));
            let threads: Vec<_> = (0..CONNECTIONS.iter().sum()).map(one).collect();
            for thread in threads {
                match thread.join() {
                    Ok(seen) => all.add(seen?),
                    Err(_) => bail!("a client's thread panicked"),
                }
            }
            Ok(())
        })?;
        all.high.sort_unstable();
        all.all.sort_unstable();
        Ok(all)
    }

    /// What comes on one connection, of which that counts which is due between both moments.
    fn one(&self, number: u64, begin: Instant, end: Instant) -> Result<Seen> {
        let high = number < CONNECTIONS[0];
        let (connections, share) = if high { (CONNECTIONS[0], HIGH) } else { (CONNECTIONS[1], 1.0 - HIGH) };
        let fields = if high { "X-Priority: high\r\n" } else { "" };
        let mut chance = Chance::new(self.seed.wrapping_mul(1 << 20).wrapping_add(number));
        #[expect(clippy::cast_precision_loss, reason = "there are few connections")]
        let gap = connections as f64 / (CAPACITY * self.load * share);
        let (mut seen, mut due) = (Seen::default(), Instant::now());
        let mut http = Http::open(self.port)?;
        loop {
            due += Duration::from_secs_f64(-(1.0 - chance.unit()).ln() * gap);
            if due >= end {
                return Ok(seen);
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = http.ask_with("GET", self.target, fields, "")?;
            ensure!(!answer.closes, "a connection ends with its answer");
            if due < begin {
                continue;
            }
            let took = due.elapsed();
            match answer.status {
                200 if took < PATIENCE => seen.in_time += 1,
                200 => seen.late += 1,
                503 => {
                    seen.shed += 1;
                    seen.shed_high += u64::from(high);
                }
                other => bail!("status {other}: {}", String::from_utf8_lossy(&answer.body)),
            }
            if answer.status == 200 {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                seen.all.push(micros);
                seen.high.extend(Some(micros).filter(|_| high));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_measured_until_its_p99_stands_on_a_thousand_answers() {
        for load in [IDLE, OVERLOAD].into_iter().chain(LOADS) {
            let time = Load { port: 0, target: "/", load, seed: 1 }.time();
            assert!(time >= MEASURED, "{load}");
            assert!(CAPACITY * load * time.as_secs_f64() > 1.2 * f64::from(ANSWERS_MIN), "{load}: {time:?}");
        }
    }
}
