//! Random lives of a cluster: members come, leave, die and return, links break, disks fill, people ask for things.

use std::collections::BTreeSet;

use control::mesh::Part;
use control::{MeshSettings, Operation, Standing};
use kernel::planted::Bug;
use kernel::{GroupId, KeyspaceId, Version};
use node::cluster::mind::{Answer, Ticket};

use super::with_rules;
use super::world::{SECOND, World, name, settings};

/// Seeds of a test run; `MIND_SEEDS=n` runs as many, `MIND_FROM=n` begins with another.
const SEEDS: u64 = 60;
/// Machines of one life.
const MACHINES_MAX: usize = 7;

/// What a life was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub hash: u64,
    pub version: u64,
    pub done: u64,
    pub refused: u64,
    pub unknown: u64,
    pub no_leader: u64,
    pub joined: u64,
    pub removed: u64,
    pub restarts: u64,
    pub snapshots: u64,
    /// It ended at the newest version, and had begun at an older one.
    pub rose: u64,
}

struct Life {
    world: World,
    asked: u16,
    /// Newcomers on their way: machine, token's ticket, admission's ticket.
    coming: Vec<(usize, Ticket, Option<Ticket>)>,
}

/// One life. `Err` says what did not hold.
pub fn run(seed: u64) -> Result<Outcome, String> {
    crate::cluster::guarded(seed, || Life::new(seed).go())
}

impl Life {
    fn new(seed: u64) -> Life {
        // Every other cluster was made by an older node, which is exchanged when it is next started.
        let version = if seed % 2 == 1 { Version::OLDEST } else { Version::NEWEST };
        let mut world = World::beginning_at(seed, version);
        world.exchanges = true;
        Life { world, asked: 0, coming: Vec::new() }
    }

    fn go(mut self) -> Result<Outcome, String> {
        for _ in 0..2 {
            self.invite();
            self.world.run(3 * SECOND)?;
            self.let_in()?;
            self.world.run(3 * SECOND)?;
            self.let_in()?;
        }
        for _ in 0..40 {
            self.happen()?;
            let pause = 50_000 + self.world.rng.below(2 * SECOND);
            self.world.run(pause)?;
            self.let_in()?;
        }
        self.world.heal()?;
        for _ in 0..8 {
            self.world.run(2 * SECOND)?;
            self.let_in()?;
        }
        self.send_away()?;
        self.world.come_to_rest()?;
        Ok(self.outcome())
    }

    fn outcome(&self) -> Outcome {
        let world = &self.world;
        let leader = world.leader().expect("it is well");
        let state = world.mind(leader).state();
        let count = |fits: fn(&Answer) -> bool| {
            let answers = world.judge.asked.values().filter_map(|asked| asked.answer.as_ref());
            answers.filter(|answer| fits(answer)).count() as u64
        };
        let gone = |standing| matches!(standing, Standing::Removed { .. });
        Outcome {
            hash: world.hash ^ u64::from_le_bytes(*state.digest().0.first_chunk().expect("32 bytes")),
            version: state.version(),
            done: count(|answer| matches!(answer, Answer::Done(_))),
            refused: count(|answer| matches!(answer, Answer::Refused(_))),
            unknown: count(|answer| matches!(answer, Answer::Unknown)),
            no_leader: count(|answer| matches!(answer, Answer::NoLeader)),
            joined: state.members().len() as u64 - 1,
            removed: state.members().values().filter(|member| gone(member.standing)).count() as u64,
            restarts: world.restarts,
            snapshots: world.snapshots,
            rose: u64::from(world.seed % 2 == 1 && state.speaks() == Version::NEWEST),
        }
    }

    fn somebody(&mut self) -> usize {
        let live: Vec<usize> = (0..self.world.hosts.len()).filter(|&it| self.world.is_live(it)).collect();
        live[self.world.rng.below(live.len() as u64) as usize]
    }

    /// Somebody gets a token for a new machine.
    fn invite(&mut self) {
        if self.world.hosts.len() < MACHINES_MAX {
            let via = self.somebody();
            let newcomer = self.world.machine();
            let issued = self.world.issue(via, newcomer as u8);
            self.coming.push((newcomer, issued, None));
        }
    }

    /// Newcomers go on with their joining, as far as they have got an answer. They ask again if it is none.
    fn let_in(&mut self) -> Result<(), String> {
        for (newcomer, issued, admitted) in std::mem::take(&mut self.coming) {
            let answer = |ticket| self.world.judge.asked.get(&ticket).map(|asked| asked.answer.clone());
            let next = match (answer(issued), admitted.map(answer)) {
                (Some(None), _) => Some(admitted),
                (_, Some(Some(Some(Answer::Welcome(welcome))))) => {
                    self.world.hosts[newcomer].disk.welcome = Some(welcome);
                    self.world.start(newcomer)?;
                    None
                }
                // The token was never made, or is used up: this machine stays outside.
                (_, Some(Some(Some(Answer::Refused(_))))) => None,
                _ => {
                    let via = self.somebody();
                    Some(Some(self.world.admit(via, newcomer as u8, newcomer)))
                }
            };
            if let Some(admitted) = next {
                self.coming.push((newcomer, issued, admitted));
            }
        }
        Ok(())
    }

    fn happen(&mut self) -> Result<(), String> {
        let (one, other) = (self.somebody(), self.somebody());
        let live = (0..self.world.hosts.len()).filter(|&it| self.world.is_live(it)).count();
        let long = self.world.rng.chance(0.3);
        match self.world.rng.below(20) {
            0 | 1 => self.invite(),
            2 | 3 if live > 1 => {
                let power = self.world.rng.chance(0.5);
                self.world.stop(one, power);
            }
            4..=6 => {
                let all = self.world.hosts.len() as u64;
                let node = self.world.rng.below(all) as usize;
                let disk = &self.world.hosts[node].disk;
                if disk.checkpoint.is_some() || disk.welcome.is_some() {
                    self.world.start(node)?;
                }
            }
            7 => {
                let micros = if long { 12 * SECOND } else { self.world.rng.below(3 * SECOND) };
                self.world.pause(one, micros);
            }
            8 => self.world.isolate(one),
            9 => _ = self.world.blocked.insert((one.min(other), one.max(other))),
            10 | 11 => self.world.blocked.clear(),
            12 => self.world.hosts[one].full_until = self.world.now + self.world.rng.below(SECOND),
            13 => self.world.delay = [1_500, 60_000, 300_000][self.world.rng.below(3) as usize],
            14 => {
                if let Some(live) = &mut self.world.hosts[one].live {
                    live.mind.checkpoint();
                }
            }
            _ => self.ask(one, other),
        }
        Ok(())
    }

    fn ask(&mut self, via: usize, other: usize) {
        let node = self.world.hosts[other].id;
        self.asked += 1;
        let keyspace = KeyspaceId(100 + self.asked);
        let state = self.world.mind(via).state().clone();
        let known = state.keyspaces().iter().next_back().map(|(&it, space)| (it, space.settings.clone()));
        let group = GroupId::new(KeyspaceId(16), 2);
        let epoch = state.partition(group).map_or(0, |it| it.epoch);
        let copies = 1 + self.world.rng.below(3) as u8;
        let present = state.members().values().filter(|member| member.is_present()).count();
        let operation = match self.world.rng.below(8) {
            0 | 1 => Operation::CreateKeyspace { keyspace, settings: settings(keyspace.0, copies, 3) },
            2 if present > 2 => Operation::Leave { node },
            3 if present > 2 => Operation::Remove { node },
            4 => Operation::MoveLeader { group, epoch, node },
            5 => match known {
                Some((keyspace, settings)) if keyspace.0 > 100 => {
                    Operation::DropKeyspace { keyspace, name: settings.name }
                }
                Some((keyspace, mut settings)) => {
                    settings.copies = copies;
                    Operation::AlterKeyspace { keyspace, settings }
                }
                None => return,
            },
            6 => {
                let addresses = vec![format!("10.0.0.{}:7401", self.asked).parse().expect("an address")];
                Operation::SetMember { node, zone: name(["z0", "z1"][usize::from(copies) % 2]), addresses }
            }
            _ if self.asked.is_multiple_of(2) => {
                let (name, uses) = (format!("s{}", self.asked), BTreeSet::new());
                let services = vec![Part { name, uses, text: "tries = 2\n".into() }];
                let after = Some(state.revision_number());
                Operation::SetMesh { after, settings: MeshSettings { services, ..MeshSettings::default() } }
            }
            _ => {
                self.world.issue(via, 100 + (self.asked % 100) as u8);
                return;
            }
        };
        self.world.ask(via, operation);
    }

    /// Who was removed while it was away never hears of it; people switch such machines off. A newcomer that was let in
    /// and did not hear it is removed again.
    fn send_away(&mut self) -> Result<(), String> {
        self.world.until(60 * SECOND, |world| world.leader().is_some())?;
        let leader = self.world.leader().expect("somebody leads");
        let state = self.world.mind(leader).state().clone();
        let mut lost = BTreeSet::new();
        for (node, member) in state.members() {
            let at = self.world.number(*node).expect("members are machines");
            if !member.is_present() {
                self.world.stop(at, false);
                self.world.hosts[at].retired = true;
            } else if !self.world.is_live(at) {
                lost.insert(*node);
            }
        }
        for node in lost {
            self.world.ask(leader, Operation::Remove { node });
        }
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_cluster_comes_to_rest_in_one_state_whatever_happens_to_it() {
    let _rules = with_rules(Bug::None);
    let (from, seeds) = (number("MIND_FROM", 0), number("MIND_SEEDS", SEEDS));
    let (mut total, mut failures) = (Outcome::default(), Vec::new());
    for seed in from..from + seeds {
        match run(seed) {
            Ok(outcome) => add(&mut total, &outcome),
            Err(what) => {
                eprintln!("{what}");
                failures.push(seed);
            }
        }
    }
    println!("{seeds} seeds: {total:?}");
    assert!(failures.is_empty(), "seeds that failed: {failures:?}");
    if seeds >= SEEDS {
        let often = [total.done, total.joined, total.restarts, total.snapshots, total.refused];
        assert!(often.iter().all(|&count| count > seeds), "something hardly happens: {total:?}");
        let rare = [total.removed, total.unknown, total.no_leader, total.rose];
        assert!(rare.iter().all(|&count| count > seeds / 20), "something hardly happens: {total:?}");
    }
}

fn add(total: &mut Outcome, one: &Outcome) {
    total.hash = total.hash.rotate_left(1) ^ one.hash;
    total.version += one.version;
    total.done += one.done;
    total.refused += one.refused;
    total.unknown += one.unknown;
    total.no_leader += one.no_leader;
    total.joined += one.joined;
    total.removed += one.removed;
    total.restarts += one.restarts;
    total.snapshots += one.snapshots;
    total.rose += one.rose;
}

#[test]
fn the_same_seed_is_the_same_life() {
    let _rules = with_rules(Bug::None);
    for seed in 0..4 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
