//! Clients that send a byte of their request's head now and then, and never its end: they are cut by the time for a head, and
//! others notice nothing of them. A part of bar 7 of the mesh.

use super::super::Setting;
use super::super::report::{Bar, Pair, Report};
use super::clients::Clients;
use super::http::{Endpoint, Manner};
use super::{listed, node, own, port};
use anyhow::{Context, Result, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SLOW: usize = 2_000;
/// How often each of them sends a byte.
const GAP: Duration = Duration::from_millis(500);
/// How long a head may take.
const HEAD: Duration = Duration::from_secs(2);
/// What an endpoint takes for a request, and how many it does at once: others do not wait for each other.
const TIME: Duration = Duration::from_millis(5);
const WORKERS: usize = 64;
/// The others, and how long they think.
const CLIENTS: u64 = 32;
const THINKS: Duration = Duration::from_millis(40);
const SECONDS: u64 = 10;

/// The p99 of others with and without them, and how many were cut.
pub fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    let (mut slower, mut cuts) = (Vec::new(), Vec::new());
    for seed in 1..=u64::from(setting.rounds) {
        let endpoint = Endpoint::with_workers(Manner::Takes(TIME), seed, WORKERS)?;
        let dir = setting.scratch()?;
        let config = format!(
            "[proxy]\nhead_ms = {}\n[[proxy.listener]]\nname = \"web\"\nport = 8080\n\
             [[proxy.service]]\nname = \"one\"\nendpoints = [{}]\n[[proxy.route]]\nservice = \"one\"\n",
            HEAD.as_millis(),
            listed(&[endpoint.port])
        );
        let server = node(setting, dir.path(), &config)?;
        let (ours, seconds) = (port(&server, 8080), if setting.quick { HEAD.as_secs() + 1 } else { SECONDS });
        let others =
            Clients { port: ours, method: "GET", target: "/", count: CLIENTS, thinks: THINKS, seconds, seed };
        let alone = others.run()?;
        let (ended, slow) = (AtomicBool::new(false), if setting.quick { SLOW / 10 } else { SLOW });
        let (beside, cut) = std::thread::scope(|scope| {
            let slow = scope.spawn(|| trickle(ours, slow, &ended));
            let beside = others.run();
            ended.store(true, Ordering::Release);
            let Ok(cut) = slow.join() else { bail!("the slow clients' thread panicked") };
            Ok((beside?, cut?))
        })?;
        for seen in [&alone, &beside] {
            ensure!(seen.failed == 0, "{} requests failed: {:?}", seen.failed, seen.failure);
        }
        eprintln!(
            "seed {seed} slowloris: p99 {:.2} ms of {} alone, {:.2} ms of {} beside {slow}, {cut} cut",
            alone.millis(990),
            alone.micros.len(),
            beside.millis(990),
            beside.micros.len()
        );
        slower.push(Pair { us: beside.millis(990), peer: Some(alone.millis(990)) });
        // Each of the first ones, and those that came in their place.
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        cuts.push(cut as f64 / slow as f64);
        server.stop()?;
    }
    report.row("2,000 slow heads", ("p99 of others", "ms"), slower, Some(Bar::RatioAtMost(1.1)));
    own(report, "2,000 slow heads", ("cut of each", "times"), &cuts, Some(Bar::AtLeast(1.0)));
    Ok(())
}

/// One of the slow clients.
struct Slow {
    stream: TcpStream,
    since: Instant,
}

impl Slow {
    fn open(port: u16) -> Result<Slow> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("a slow client is refused")?;
        stream.set_nonblocking(true)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")?;
        Ok(Slow { stream, since: Instant::now() })
    }

    /// Sends a byte. Whether it was cut.
    fn send(&mut self) -> Result<bool> {
        let is_cut = match self.stream.read(&mut [0; 512]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.write(b"x").is_err(),
            Ok(_) | Err(_) => true,
        };
        // It is looked for when a byte is due, so it may have been cut for as long as that.
        let most = HEAD * 2 + GAP;
        ensure!(is_cut || self.since.elapsed() < most, "a head takes longer than {most:?}");
        Ok(is_cut)
    }
}

/// Has so many slow clients, each of them due at a moment of its own, until it is told to end; how many were cut.
///
/// They are not due in bursts: clients that know nothing of each other are not, and the bursts of this process would be what
/// others wait for.
fn trickle(port: u16, count: usize, ended: &AtomicBool) -> Result<u64> {
    let mut all: Vec<Option<Slow>> = std::iter::repeat_with(|| None).take(count).collect();
    let (begin, mut turn, mut cut) = (Instant::now(), 0_u32, 0);
    while !ended.load(Ordering::Acquire) {
        for (at, slow) in all.iter_mut().enumerate() {
            let due = GAP * turn + GAP.mul_f64(at as f64 / count as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let is_cut = slow.as_mut().map(Slow::send).transpose()?;
            if is_cut != Some(false) {
                *slow = Some(Slow::open(port)?);
            }
            cut += u64::from(is_cut == Some(true));
        }
        turn += 1;
    }
    Ok(cut)
}
