//! Lookups in a network of fifty processes, ours beside libp2p-kad: bar 6 of the overlay.
//!
//! Both are one peer in a program that does what lines on stdin say: `shell/fabric/examples/kad.rs` and `acceptance/libp2p-kad`,
//! built alike. The same peers look for the same names, as many at once, with tables that know the network. What a whole node
//! takes beside the overlay alone is measured too, without a bar.

use super::process;
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting};
use crate::packages::run as command;
use crate::suite::{KAD_PEER, Profile, target_dir};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Processes of a network, a peer in each.
const PEERS: usize = 50;
/// So many of them look up, so many names at once each.
const ASKERS: usize = 8;
const AT_ONCE: u64 = 4;
/// Lookups of each asker.
const LOOKUPS: u64 = 1000;
/// Lookups of each peer that make it known and let it know, before anything is measured.
const WARM_LOOKUPS: u64 = 20;
/// Peers that a lookup gives: all 20 that a bucket holds.
const FOUND: u64 = 20;
/// Contacts that each peer has before anything is measured. A full table has about 40 here: 20 of the farther half.
const CONTACTS_MIN: u64 = 35;
/// How long a peer may take to answer a line.
const ANSWER_SECONDS_MAX: u64 = 300;
/// How often peers look around for contacts until they have enough.
const WARM_ROUNDS_MAX: u32 = 20;
const MIB: f64 = 1024.0 * 1024.0;

/// The programs of one peer.
struct Programs {
    us: PathBuf,
    peer: PathBuf,
}

/// What one network gave.
#[derive(Clone, Copy)]
struct Figures {
    /// Lookups a second, of all askers together.
    rate: f64,
    /// CPU microseconds of all processes for each lookup.
    cpu: f64,
    /// Mean of the processes, in MiB: what is theirs and what they share.
    resident: f64,
    /// The same of what is theirs alone.
    own: f64,
    /// Questions that a lookup asks.
    asked: f64,
}

/// What lookups came to.
#[derive(Clone, Copy, Default)]
struct Ended {
    /// Peers that were found.
    found: u64,
    /// Questions that were asked.
    asked: u64,
}

fn build(root: &Path) -> Result<Programs> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--quiet", "--package", "fabric", "--example", "kad"]);
    command(cargo.current_dir(root))?;
    let us = target_dir(root).join("release/examples/kad");
    Ok(Programs { us, peer: KAD_PEER.build(root, Profile::Release)? })
}

/// Measures both in every round.
pub fn run(root: &Path, setting: &Setting) -> Result<Report> {
    let programs = build(root)?;
    let mut report = Report::new("kad", setting.rounds);
    let mut rounds = Vec::new();
    for round in 1..=setting.rounds {
        let us = measure(&programs.us, setting.quick)?;
        let peer = measure(&programs.peer, setting.quick)?;
        for (name, one) in [("us", &us), ("libp2p-kad", &peer)] {
            eprintln!(
                "round {round} {name:<10} {:>7.0} lookups/s {:>8.0} µs/lookup, RSS {:.2} MiB, own {:.2} MiB",
                one.rate, one.cpu, one.resident, one.own
            );
        }
        rounds.push((us, peer));
    }
    let column = |figure: fn(&Figures) -> f64| -> Vec<Pair> {
        rounds.iter().map(|(us, peer)| Pair { us: figure(us), peer: Some(figure(peer)) }).collect()
    };
    let work = "50 processes, 8 ask";
    let bar = Some(Bar::RatioAtLeast(1.5));
    report.row(work, ("speed", "lookups/s"), column(|one| one.rate), bar);
    report.row(work, ("CPU of all", "µs/lookup"), column(|one| one.cpu), Some(Bar::RatioAtMost(0.5)));
    report.row(work, ("RSS", "MiB"), column(|one| one.resident), Some(Bar::RatioAtMost(1.0)));
    report.row(work, ("own memory", "MiB"), column(|one| one.own), None);
    report.row(work, ("questions", "/lookup"), column(|one| one.asked), None);
    Ok(report)
}

/// Starts a network, lets its peers know each other, and lets some of them look up.
fn measure(program: &Path, quick: bool) -> Result<Figures> {
    let mut peers = (0..PEERS).map(|_| Peer::start(program)).collect::<Result<Vec<Peer>>>()?;
    let first = peers[0].address.clone();
    peers[1..].iter_mut().try_for_each(|peer| peer.tell(&format!("dial {first}")))?;
    peers[1..].iter_mut().try_for_each(|peer| peer.answer().map(drop))?;
    warm(&mut peers)?;
    let lookups = if quick { LOOKUPS / 10 } else { LOOKUPS };
    // Connections that the work needs are there before it is measured.
    look_up(&mut peers[..ASKERS], 1 << 32, lookups / 10)?;
    let cpu =
        |peers: &[Peer]| peers.iter().map(|peer| process::cpu_micros(peer.child.id())).sum::<Result<u64>>();
    let (before, began) = (cpu(&peers)?, Instant::now());
    let Ended { found, asked } = look_up(&mut peers[..ASKERS], 1 << 40, lookups)?;
    let (seconds, spent) = (began.elapsed().as_secs_f64(), cpu(&peers)? - before);
    let all = lookups * ASKERS as u64;
    if found < all * FOUND {
        bail!("{all} lookups of {} found {found} peers, where each should find {FOUND}", program.display());
    }
    let (mut resident, mut own) = (0, 0);
    for peer in &peers {
        resident += process::resident(peer.child.id())?.now;
        own += process::anonymous(peer.child.id())?;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds and bytes of one run fit 52 bits")]
    let [all, spent, resident, own, asked, count] =
        [all, spent, resident, own, asked, PEERS as u64].map(|one| one as f64);
    Ok(Figures {
        rate: all / seconds,
        cpu: spent / all,
        resident: resident / count / MIB,
        own: own / count / MIB,
        asked: asked / all,
    })
}

/// Lets all look around until each has contacts enough.
fn warm(peers: &mut [Peer]) -> Result<()> {
    for round in 0..WARM_ROUNDS_MAX {
        look_up(peers, u64::from(round) << 20, WARM_LOOKUPS)?;
        let mut least = u64::MAX;
        for peer in &mut *peers {
            peer.tell("contacts")?;
            least = least.min(peer.answer()?["contacts"].as_u64().context("contacts is a number")?);
        }
        if least >= CONTACTS_MIN {
            return Ok(());
        }
    }
    bail!("not every peer had {CONTACTS_MIN} contacts after {WARM_ROUNDS_MAX} rounds of lookups")
}

/// Each of `peers` does `count` lookups of names of its own, all at the same time.
fn look_up(peers: &mut [Peer], first: u64, count: u64) -> Result<Ended> {
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.tell(&format!("lookups {} {count} {AT_ONCE}", first + number as u64 * count))?;
    }
    let mut all = Ended::default();
    for peer in peers {
        let answer = peer.answer()?;
        let number = |name: &str| answer[name].as_u64().with_context(|| format!("{name} is a number"));
        all.found += number("found")?;
        all.asked += number("asked")?;
    }
    Ok(all)
}

/// A process with one peer. It ends when this is dropped.
struct Peer {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<Value>,
    address: String,
}

impl Peer {
    fn start(program: &Path) -> Result<Peer> {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let stdin = child.stdin.take().context("its input is a pipe")?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (say, said) = channel();
        drop(std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let mut objects = lines.map_while(|line| serde_json::from_str(&line).ok());
            // Who does not listen any more has ended.
            objects.try_for_each(|object| say.send(object)).unwrap_or_default();
        }));
        let mut peer = Peer { child, stdin, said, address: String::new() };
        peer.address =
            peer.answer()?["address"].as_str().context("a peer tells its address first")?.to_owned();
        Ok(peer)
    }

    fn tell(&mut self, words: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "0 0 {words}")?)
    }

    fn answer(&mut self) -> Result<Value> {
        let answer = self.said.recv_timeout(Duration::from_secs(ANSWER_SECONDS_MAX));
        let answer = answer.context("a peer ended or said nothing")?;
        match answer.get("error") {
            Some(error) => Err(NotJudged(format!("a peer failed: {error}")).into()),
            None => Ok(answer),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself, and then its answer has not come.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
