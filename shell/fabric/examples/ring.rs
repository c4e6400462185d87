//! `cargo run --release -p fabric --example ring -- --rounds 200`: real nodes of the overlay on loopback, which leave, are killed and
//! come in rounds, and whether every value of their ring is found from each of them after each round.
//!
//! In a round at most two nodes go, as a value has three holders; then it waits until those that live are one ring again whose
//! shares are all copied. What is not found then is asked for again until patience ends. Exit code 1 if a value is lost, or the
//! ring is not whole in time. The seed decides what happens and in which order, not how long it takes.

use std::fmt::Display;
use std::net::SocketAddr;
use std::process::exit;
use std::str::FromStr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fabric::Identity;
use fabric::overlay::{Options, Overlay, Peer, Place, RingStatus, Table, ValueName};
use futures::StreamExt;
use kernel::Rng;

/// Copies of a value: so many may not go between two repairs, its owner included.
const COPIES: usize = 3;
/// Successors that a node keeps.
const SUCCESSORS: usize = 8;
/// Fewest nodes that live.
const LIVING_MIN: usize = 4;
/// How long a value lives: longer than any run.
const LIFE: Duration = Duration::from_secs(40 * 3600);
/// How long it may take until the ring is whole, and until a value is found.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a condition is left alone between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// Questions at once.
const AT_ONCE: usize = 16;

const USAGE: &str = "ring [--nodes N] [--values N] [--rounds N] [--seed N] [--period-ms N] [--json]";

/// What the command line says.
struct Wanted {
    nodes: usize,
    values: usize,
    rounds: usize,
    seed: u64,
    period: Duration,
    json: bool,
}

impl Wanted {
    fn read() -> Wanted {
        let mut wanted = Wanted {
            nodes: 8,
            values: 64,
            rounds: 20,
            seed: 1,
            period: Duration::from_millis(500),
            json: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            if flag == "--json" {
                wanted.json = true;
                continue;
            }
            let value = words.next().unwrap_or_else(|| refuse(&format!("{flag:?} needs a number")));
            match flag.as_str() {
                "--nodes" => wanted.nodes = number(&flag, &value, LIVING_MIN..=64),
                "--values" => wanted.values = number(&flag, &value, 1..=4096),
                "--rounds" => wanted.rounds = number(&flag, &value, 0..=1_000_000),
                "--seed" => wanted.seed = number(&flag, &value, 0..=u64::MAX),
                "--period-ms" => wanted.period = Duration::from_millis(number(&flag, &value, 100..=60_000)),
                _ => refuse(&format!("{flag:?} is no flag")),
            }
        }
        // A publisher has so many on each node, and each of them may come to one.
        if wanted.values > 100 * wanted.nodes {
            refuse(&format!("{} values are more than 100 for each of {} nodes", wanted.values, wanted.nodes));
        }
        wanted
    }
}

fn number<N>(flag: &str, text: &str, range: std::ops::RangeInclusive<N>) -> N
where
    N: FromStr + PartialOrd + Display,
{
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (low, high) = range.into_inner();
    number.unwrap_or_else(|| refuse(&format!("{flag} is a number from {low} to {high}, and not {text:?}")))
}

fn refuse(why: &str) -> ! {
    eprintln!("{why}; usage: {USAGE}");
    exit(2)
}

/// What happened.
#[derive(Default)]
struct Counts {
    left: usize,
    killed: usize,
    came: usize,
    asked: usize,
    /// Values that were found, but not when they were first asked for; and how long the longest took.
    late: usize,
    latest: Duration,
    /// How long it took until the ring was whole, each round.
    whole: Vec<Duration>,
}

/// The nodes that live, and the values that are to.
struct World {
    wanted: Wanted,
    rng: Rng,
    living: Vec<Overlay>,
    born: u64,
    names: Vec<ValueName>,
    /// Those that hand over what they keep.
    leaving: Vec<JoinHandle<()>>,
    counts: Counts,
}

fn place(overlay: &Overlay) -> Place {
    let peer = Peer::from(overlay.node_id());
    let place = format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", overlay.address.port());
    place.parse().expect("an address with a peer is a place")
}

fn peer(overlay: &Overlay) -> Peer {
    Peer::from(overlay.node_id())
}

fn payload(n: usize) -> Vec<u8> {
    format!("value {n}").into_bytes()
}

async fn look(overlay: &Overlay) -> RingStatus {
    let status = overlay.node().status().await.expect("a node that was not stopped lives");
    status.ring.expect("each node stands on the ring")
}

impl World {
    fn draw(&mut self, most: usize) -> usize {
        self.rng.below(most as u64) as usize
    }

    /// A node comes, which knows these.
    fn come(&mut self, peers: Vec<Place>) -> Result<(), String> {
        self.born += 1;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.wanted.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&self.born.to_be_bytes());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options =
            Options { peers, gossip: false, chord_period: self.wanted.period, ..Options::default() };
        let overlay =
            Overlay::start(&Identity::from_seed(&seed), any, options).map_err(|error| error.to_string())?;
        self.living.push(overlay);
        Ok(())
    }

    /// Who is not where it belongs on one ring of all that live, or has not copied its share.
    async fn astray(&self) -> Option<String> {
        let mut order: Vec<Peer> = self.living.iter().map(peer).collect();
        order.sort_by_key(Peer::key);
        for overlay in &self.living {
            let own = peer(overlay);
            let at = order.iter().position(|peer| *peer == own).expect("each is among all");
            let (before, behind) = (order[(at + order.len() - 1) % order.len()], order.len() - 1);
            let ring = look(overlay).await;
            let whole = ring.predecessor == Some(before) && ring.successors == behind.min(SUCCESSORS);
            if !whole || !ring.copied {
                return Some(format!("{own} is to stand behind {before}, with {behind} behind it: {ring:?}"));
            }
        }
        None
    }

    /// Waits until all are one ring and have copied their shares.
    async fn become_whole(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while let Some(astray) = self.astray().await {
            if began.elapsed() > PATIENCE {
                return Err(format!("not whole within {} s: {astray}", PATIENCE.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
        self.counts.whole.push(began.elapsed());
        Ok(())
    }

    async fn put_all(&mut self) -> Result<(), String> {
        for n in 0..self.wanted.values {
            let overlay = &self.living[n % self.living.len()];
            let name = ValueName::parse(&format!("label {n}"), overlay.node_id()).expect("a label is a name");
            let put = overlay.dht().over(Table::Chord).put(&name, &payload(n), LIFE).await;
            put.map_err(|error| format!("value {n} was not put: {error}"))?;
            self.names.push(name);
        }
        Ok(())
    }

    /// Some go and some come, in a drawn order.
    async fn turmoil(&mut self) -> Result<(), String> {
        let most = self.wanted.nodes + COPIES;
        let spare = self.living.len().saturating_sub(LIVING_MIN);
        let going = self.draw(COPIES).min(spare);
        let room = most.saturating_sub(self.living.len() - going);
        let few = self.living.len() - going < self.wanted.nodes;
        let mut coming = (self.draw(COPIES) + usize::from(few)).min(room);
        let mut going = self.who_goes(going);
        while !going.is_empty() || coming > 0 {
            if coming > 0 && (going.is_empty() || self.rng.chance(0.5)) {
                coming -= 1;
                // Through those that stay.
                let stay: Vec<Place> =
                    self.living.iter().filter(|one| !going.contains(&peer(one))).map(place).collect();
                let known = (0..2).map(|_| stay[self.draw(stay.len())].clone()).collect();
                self.come(known)?;
                self.counts.came += 1;
            } else if let Some(gone) = going.pop() {
                self.go(gone);
            }
            if self.rng.chance(0.5) {
                let pause = self.draw(2 * self.wanted.period.as_millis() as usize + 1);
                std::thread::sleep(Duration::from_millis(pause as u64));
            }
        }
        Ok(())
    }

    /// So many: neighbours on the ring, or any.
    fn who_goes(&mut self, count: usize) -> Vec<Peer> {
        let mut order: Vec<Peer> = self.living.iter().map(peer).collect();
        order.sort_by_key(Peer::key);
        if self.rng.chance(0.3) {
            for at in (1..order.len()).rev() {
                let other = self.draw(at + 1);
                order.swap(at, other);
            }
        }
        let first = self.draw(order.len());
        (0..count).map(|n| order[(first + n) % order.len()]).collect()
    }

    fn go(&mut self, gone: Peer) {
        let at = self.living.iter().position(|one| peer(one) == gone).expect("who goes lives");
        let overlay = self.living.swap_remove(at);
        if self.rng.chance(0.5) {
            self.counts.killed += 1;
            overlay.kill();
        } else {
            self.counts.left += 1;
            // It takes its time, in which others go and come.
            self.leaving.push(std::thread::spawn(|| overlay.stop()));
        }
    }

    /// Each node looks for each value. Which are lost.
    async fn ask_all(&mut self) -> Vec<String> {
        let began = Instant::now();
        let asks = self.living.iter().flat_map(|overlay| {
            let dht = overlay.dht().over(Table::Chord);
            self.names.iter().enumerate().map(move |(n, name)| (dht.clone(), peer(overlay), n, name))
        });
        let ends: Vec<_> = futures::stream::iter(asks)
            .map(|(dht, asker, n, name)| async move {
                let (mut tries, mut last) = (0, String::new());
                while tries == 0 || began.elapsed() < PATIENCE {
                    match dht.get(name).await {
                        Ok((Some(value), _)) if value.payload == payload(n) => {
                            return Ok((tries, began.elapsed()));
                        }
                        Ok((value, _)) => last = format!("{value:?}"),
                        Err(error) => last = error.to_string(),
                    }
                    tries += 1;
                    std::thread::sleep(LOOK);
                }
                Err(format!("{asker} does not find value {n} ({name}, at {}): {last}", name.key()))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        self.counts.asked += ends.len();
        let mut lost = Vec::new();
        for end in ends {
            match end {
                Ok((0, _)) => {}
                Ok((_, took)) => {
                    self.counts.late += 1;
                    self.counts.latest = self.counts.latest.max(took);
                }
                Err(why) => lost.push(why),
            }
        }
        lost
    }

    async fn run(&mut self) -> Result<(), String> {
        for n in 0..self.wanted.nodes {
            let known = if n == 0 { Vec::new() } else { vec![place(&self.living[0])] };
            self.come(known)?;
        }
        self.become_whole().await?;
        self.put_all().await?;
        for round in 0..=self.wanted.rounds {
            if round > 0 {
                self.turmoil().await?;
            }
            for left in self.leaving.drain(..) {
                left.join().map_err(|_| "a node that left ended badly".to_owned())?;
            }
            self.become_whole().await?;
            let lost = self.ask_all().await;
            let Counts { left, killed, came, asked, late, whole, .. } = &self.counts;
            eprintln!(
                "round {round}: {} live; {left} left, {killed} were killed, {came} came; whole after {} ms; {asked} asked, {late} late",
                self.living.len(),
                whole.last().map_or(0, Duration::as_millis),
            );
            if !lost.is_empty() {
                for overlay in &self.living {
                    eprintln!("{} at {}: {:?}", peer(overlay), peer(overlay).key(), look(overlay).await);
                }
                return Err(format!("lost in round {round}:\n{}", lost.join("\n")));
            }
        }
        Ok(())
    }

    fn tell(&mut self, ended: &Result<(), String>) {
        self.counts.whole.sort_unstable();
        let Counts { left, killed, came, asked, late, latest, whole } = &self.counts;
        let (rounds, latest) = (whole.len().saturating_sub(2), latest.as_millis());
        let at =
            |share: usize| whole.get((whole.len().max(1) - 1) * share / 100).map_or(0, Duration::as_millis);
        let (median, most, kept) = (at(50), at(100), ended.is_ok());
        if self.wanted.json {
            println!(
                "{{\"seed\": {}, \"rounds\": {rounds}, \"values\": {}, \"left\": {left}, \"killed\": {killed}, \"came\": {came}, \"asked\": {asked}, \
                 \"late\": {late}, \"latest_ms\": {latest}, \"whole_ms_median\": {median}, \"whole_ms_max\": {most}, \"kept\": {kept}}}",
                self.wanted.seed, self.wanted.values,
            );
        } else {
            println!("rounds     {rounds} with seed {}", self.wanted.seed);
            println!("nodes      {left} left, {killed} were killed, {came} came");
            println!("whole      after {median} ms in the median, {most} ms at most");
            println!(
                "asked      {asked}, of which {late} found nothing at first, the last until {latest} ms"
            );
            println!("{}", if kept { "all values kept" } else { "NOT ALL KEPT" });
        }
        if let Err(why) = ended {
            eprintln!("{why}");
        }
    }
}

fn main() {
    let wanted = Wanted::read();
    let mut world = World {
        rng: Rng::new(wanted.seed),
        wanted,
        living: Vec::new(),
        born: 0,
        names: Vec::new(),
        leaving: Vec::new(),
        counts: Counts::default(),
    };
    let ended = futures::executor::block_on(world.run());
    world.tell(&ended);
    world.living.drain(..).for_each(Overlay::kill);
    exit(i32::from(ended.is_err()));
}
