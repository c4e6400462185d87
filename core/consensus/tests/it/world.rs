//! The world around the replicas: time, links, disks, clients and what goes wrong. The same seed is the same run.

mod act;
mod fault;

use std::collections::{BTreeMap, BTreeSet};

use consensus::codec::Descriptor;
use consensus::group::CLOCK_RATIO_MAX;
use consensus::{Config, Durability, Incarnation, Mark, Replica, ReplicaId};
use kernel::{GroupId, Index, Rng};

use crate::disk::{Disk, first_members};
use crate::judge::Judge;
use crate::node::{Live, Node, Request, State};

const GROUP: GroupId = GroupId(7);
/// Microseconds in which things go wrong.
const FAULTY: u64 = 5_000_000;
/// Microseconds after that in which everything must be well again.
const HEALING: u64 = 30_000_000;
/// The slowest clock and the fastest, in thousandths: as far apart as leases allow.
const RATES: [u64; 2] = [700, 700 * CLOCK_RATIO_MAX];
/// Further apart: half of the clocks are such ones, and half such.
const RATES_BEYOND: [u64; 2] = [350, 3500];
/// Machines of one run, over all changes of the members.
const NODES_MAX: usize = 14;
const REGISTERS: u64 = 4;

/// What is to happen.
enum Happening {
    Deliver { to: ReplicaId, bytes: Vec<u8> },
    Wake { node: usize, epoch: u64 },
    Turn { node: usize, epoch: u64 },
    Synced { node: usize, epoch: u64, upto: u64 },
    Fetched { node: usize, epoch: u64, from: ReplicaId, descriptor: Box<Descriptor> },
    Installed { node: usize, epoch: u64, index: Index },
    Entries { node: usize, epoch: u64, first: Index, last: Index },
    Rouse { node: usize, epoch: u64 },
    Topple { node: usize, epoch: u64 },
    Restart { node: usize },
    Retire { node: usize },
    Client,
    Fault,
    Mend,
}

/// What a run was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub hash: u64,
    pub events: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub lease_reads: u64,
    pub crashes: u64,
    pub lossy: u64,
    pub changes: u64,
    pub snapshots: u64,
    pub handovers: u64,
    pub sleeps: u64,
    pub fetches: u64,
    pub recoveries: u64,
    /// Acknowledged writes of groups of one and two, and of `everysec` ones.
    pub small: u64,
    pub everysec: u64,
    pub toppled: u64,
    /// Voters that were restarted when somebody wanted their votes.
    pub forgotten: u64,
}

/// One run.
pub struct World {
    rng: Rng,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    nodes: Vec<Node>,
    judge: Judge,
    blocked: BTreeSet<(ReplicaId, ReplicaId)>,
    loss: f64,
    duplication: f64,
    /// Longest usual way of a message, in microseconds.
    delay: u64,
    /// 0: one entry a message.
    append_bytes: u64,
    leases: bool,
    clocks: Clocks,
    durability: Durability,
    /// A group of one or two may be so again; else it keeps three voters.
    small: bool,
    /// Leaders fall soon after they are elected, mostly.
    unstable: bool,
    quiet_ticks: Option<u32>,
    generation: u64,
    values: u64,
    busy_until: u64,
    idle_until: u64,
    healing: bool,
    /// Nothing goes wrong before.
    calm_until: u64,
    /// Who does not hear the leader, and who is to be restarted when that one asks to be elected.
    deaf: Option<(ReplicaId, ReplicaId)>,
    /// Acknowledged writes when the healing began.
    probe: u64,
    outcome: Outcome,
    seed: u64,
}

/// What is to be thought of clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clocks {
    /// They are as far apart as leases allow.
    Near,
    /// They are further apart,
    Beyond,
    /// and nobody reads by them: all reads are confirmed.
    Mistrusted,
}

/// Runs one seed. `Err` says what did not hold.
pub fn run(seed: u64) -> Result<Outcome, String> {
    run_with(seed, Clocks::Near)
}

/// The same, with clocks that are further apart than leases allow.
pub fn run_beyond(seed: u64) -> Result<Outcome, String> {
    run_with(seed, Clocks::Beyond)
}

/// The same; all reads are confirmed by a majority, as is asked for with [`Replica::confirm`].
pub fn run_mistrusting(seed: u64) -> Result<Outcome, String> {
    run_with(seed, Clocks::Mistrusted)
}

fn run_with(seed: u64, clocks: Clocks) -> Result<Outcome, String> {
    let guarded = std::panic::AssertUnwindSafe(|| World::new(seed, clocks).go());
    match std::panic::catch_unwind(guarded) {
        Ok(result) => result.map_err(|what| format!("seed {seed}: {what}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("seed {seed}: panic: {}", text.unwrap_or_default()))
        }
    }
}

impl World {
    fn new(seed: u64, clocks: Clocks) -> World {
        let mut rng = Rng::new(seed);
        let count = [1, 2, 3, 3, 3, 3, 5, 5, 5, 7][rng.below(10) as usize];
        // In a group of one or two every crash may lose what `everysec` promised for a second only.
        let everysec = count > 2 && rng.chance(0.25);
        let mut world = World {
            loss: [0.0, 0.01, 0.1][rng.below(3) as usize],
            duplication: [0.0, 0.05, 0.2][rng.below(3) as usize],
            delay: [1_500, 1_500, 60_000][rng.below(3) as usize],
            append_bytes: [0, 0, 4096][rng.below(3) as usize],
            leases: rng.chance(0.5),
            clocks,
            durability: if everysec { Durability::EverySec } else { Durability::Always },
            small: count < 3,
            unstable: count > 2 && rng.chance(0.25),
            quiet_ticks: rng.chance(0.5).then_some(6),
            rng,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            nodes: Vec::new(),
            judge: Judge::default(),
            blocked: BTreeSet::new(),
            generation: 0,
            values: 0,
            busy_until: 1_500_000,
            idle_until: 0,
            healing: false,
            calm_until: 0,
            deaf: None,
            probe: 0,
            outcome: Outcome::default(),
            seed,
        };
        if world.unstable {
            // Entries are long on their way, one by one: then leaders fall with some of them here and some there.
            (world.delay, world.append_bytes) = (60_000, 0);
        }
        let mark = Mark::first(first_members(count));
        let state = State { applied: mark.index.0, ..State::default() };
        for number in 1..=count {
            let id = ReplicaId::new(number).expect("counted from 1");
            world.add_node(id, Disk::new(Some((mark.clone(), state.clone()))));
        }
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        world.after(1000, Happening::Client);
        world.after(400_000, Happening::Fault);
        world
    }

    fn add_node(&mut self, id: ReplicaId, disk: Disk) -> usize {
        let rate = match self.clocks != Clocks::Near {
            false => RATES[0] + self.rng.below(RATES[1] - RATES[0] + 1),
            true => RATES_BEYOND[self.rng.below(2) as usize],
        };
        let offset = self.rng.below(1 << 40);
        self.nodes.push(Node {
            id,
            disk,
            live: None,
            epoch: 0,
            rate,
            offset,
            paused_until: 0,
            slow_until: 0,
            full_until: 0,
            snapshots: BTreeMap::new(),
            retired: false,
        });
        self.nodes.len() - 1
    }

    fn after(&mut self, micros: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + micros, self.sequence), happening);
    }

    fn go(mut self) -> Result<Outcome, String> {
        let mut checked = 0;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now = at.max(self.now);
            self.outcome.events += 1;
            self.happen(happening)?;
            if !self.healing && self.now > FAULTY {
                self.heal();
            }
            if self.now > checked + 100_000 {
                checked = self.now;
                let live: Vec<&Replica> = self
                    .nodes
                    .iter()
                    .filter_map(|node| node.live.as_ref())
                    .map(|live| &live.replica)
                    .collect();
                self.judge.logs_match(&live)?;
                if self.healing && self.is_well() {
                    self.outcome.acknowledged = self.judge.acknowledged;
                    self.outcome.reads = self.judge.reads;
                    self.outcome.lease_reads = self.judge.lease_reads;
                    self.outcome.small = u64::from(self.small) * self.judge.acknowledged;
                    self.outcome.everysec = u64::from(self.is_everysec()) * self.judge.acknowledged;
                    return Ok(self.outcome);
                }
            }
            if self.now > FAULTY + HEALING {
                return Err(format!("nothing is well again: {}", self.describe()));
            }
        }
        Err("nothing happens any more".into())
    }

    fn is_everysec(&self) -> bool {
        self.durability == Durability::EverySec
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let (node, epoch) = match &happening {
            Happening::Deliver { to, .. } => match self.nodes.iter().position(|node| node.id == *to) {
                Some(node) => (node, self.nodes[node].epoch),
                None => return Ok(()),
            },
            Happening::Wake { node, epoch }
            | Happening::Turn { node, epoch }
            | Happening::Synced { node, epoch, .. }
            | Happening::Fetched { node, epoch, .. }
            | Happening::Installed { node, epoch, .. }
            | Happening::Entries { node, epoch, .. }
            | Happening::Rouse { node, epoch }
            | Happening::Topple { node, epoch } => (*node, *epoch),
            Happening::Client => return self.client(),
            Happening::Mend if self.now < self.calm_until && !self.healing => return Ok(()),
            Happening::Restart { .. } | Happening::Retire { .. } | Happening::Fault | Happening::Mend => {
                self.happen_to_world(&happening);
                return Ok(());
            }
        };
        let paused_until = self.nodes[node].paused_until;
        if paused_until > self.now {
            let jitter = self.rng.below(2000);
            self.after(paused_until - self.now + jitter, happening);
            return Ok(());
        }
        if self.nodes[node].epoch != epoch || self.nodes[node].live.is_none() {
            return Ok(());
        }
        self.act(node, happening)
    }

    fn happen_to_world(&mut self, happening: &Happening) {
        match happening {
            Happening::Restart { node } => self.start(*node),
            Happening::Retire { node } => self.retire(*node),
            Happening::Fault => self.fault(),
            _ => self.blocked.clear(),
        }
    }

    fn config(&self, node: usize) -> Config {
        let Node { id, disk, .. } = &self.nodes[node];
        let mut config = Config::new(GROUP, *id, disk.incarnation, self.seed);
        (config.election_ticks, config.heartbeat_ticks) = (8, 2);
        (config.quiet_ticks, config.held_bytes, config.leases) = (self.quiet_ticks, 2048, self.leases);
        (config.append_bytes, config.durability) = (self.append_bytes, self.durability);
        config
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].live.is_some() || self.nodes[node].retired {
            return;
        }
        self.nodes[node].epoch += 1;
        let disk = &mut self.nodes[node].disk;
        disk.incarnation = Incarnation(disk.incarnation.0 + 1);
        disk.staged = None;
        let config = self.config(node);
        let now = self.nodes[node].clock(self.now);
        let restored = self.nodes[node].disk.restore().unwrap_or_else(|error| panic!("{error}"));
        let (mut replica, state) = match restored {
            Some((restored, state)) => (Replica::new(config, now, restored), state),
            None => {
                let hard = self.nodes[node].disk.hard();
                (Replica::joining(config, now, first_members(1), hard), State::default())
            }
        };
        for other in self.nodes.iter().filter(|other| !other.retired) {
            replica.introduce(other.id);
        }
        self.nodes[node].live = Some(Live::new(replica, state));
        self.turn_soon(node);
    }

    /// A new machine joins with nothing, and the placement tells all of it.
    fn begin(&mut self, node: usize) {
        self.start(node);
        let id = self.nodes[node].id;
        for other in &mut self.nodes {
            if let Some(live) = &mut other.live {
                live.replica.introduce(id);
            }
        }
    }

    /// The process ends; its disk stays as it is.
    fn stop(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        if one.live.take().is_some() {
            one.epoch += 1;
            one.paused_until = 0;
            one.snapshots.clear();
        }
    }

    /// A removed machine is switched off once everyone else knows durably that it is removed.
    fn retire(&mut self, node: usize) {
        let id = self.nodes[node].id;
        let knows = |other: &Node| match &other.live {
            Some(live) => !live.replica.members().contains(id) || live.replica.members().is_gone(other.id),
            None => false,
        };
        let known = self.nodes.iter().all(|other| {
            other.id == id || other.retired || knows(other) && !other.disk.ambiguous && !other.disk.is_dirty()
        });
        if !known && !self.healing {
            return self.after(400_000, Happening::Retire { node });
        }
        if known {
            self.nodes[node].retired = true;
            self.stop(node);
        }
    }

    fn heal(&mut self) {
        self.healing = true;
        self.blocked.clear();
        (self.loss, self.duplication, self.delay) = (0.0, 0.0, 1_500);
        self.probe = self.judge.acknowledged;
        for node in 0..self.nodes.len() {
            let one = &mut self.nodes[node];
            (one.paused_until, one.slow_until, one.full_until) = (0, 0, 0);
            if one.live.is_none() {
                self.start(node);
            }
            let epoch = self.nodes[node].epoch;
            self.after(1000, Happening::Rouse { node, epoch });
        }
    }

    /// A leader leads, writes are acknowledged, and all members have what it has.
    fn is_well(&self) -> bool {
        let live = || self.nodes.iter().filter_map(|node| node.live.as_ref());
        let newest = live().filter(|live| live.replica.leads()).max_by_key(|live| live.replica.term());
        let Some(leader) = newest else { return false };
        let (last, members) = (leader.replica.last().0, leader.replica.members());
        let level = |id: ReplicaId| {
            live().any(|live| {
                live.replica.id() == id && live.state.applied == last && !live.replica.is_recovering()
            })
        };
        self.judge.acknowledged > self.probe
            && !members.is_joint()
            && last >= self.judge.last()
            && members.iter().all(level)
    }

    fn describe(&self) -> String {
        let one = |node: &Node| match &node.live {
            None => format!("{:?} down", node.id),
            Some(live) => format!(
                "{:?} {:?} term {} last {} applied {} members {:?} recovering {} asleep {} {:?}",
                node.id,
                live.replica.standing(),
                live.replica.term(),
                live.replica.last(),
                live.state.applied,
                live.replica.members(),
                live.replica.is_recovering(),
                live.replica.is_asleep(),
                live.replica.refusals(),
            ),
        };
        self.nodes.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// A leader that others cannot reach, and that does not know it because it sleeps.
    fn is_left_asleep(&self, node: usize) -> bool {
        let one = &self.nodes[node];
        let asleep = one.live.as_ref().is_some_and(|live| live.replica.leads() && live.replica.is_asleep());
        asleep && self.blocked.iter().any(|&(from, _)| from == one.id)
    }

    /// A client asks someone, mostly who leads.
    fn client(&mut self) -> Result<(), String> {
        let pause = if self.healing { 50_000 } else { 500 + self.rng.below(12_000) };
        self.after(pause, Happening::Client);
        if self.healing && self.judge.acknowledged > self.probe {
            return Ok(());
        }
        if !self.healing && self.now >= self.busy_until {
            if self.now < self.idle_until && !self.rng.chance(0.03) {
                return Ok(());
            }
            if self.now >= self.idle_until {
                self.busy_until = self.now + self.rng.below(800_000);
                self.idle_until = self.busy_until + self.rng.below(900_000);
            }
        }
        let leads = |node: usize| self.nodes[node].live.as_ref().is_some_and(|live| live.replica.leads());
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|&node| leads(node)).collect();
        if let &[only] = &leaders[..]
            && self.is_left_asleep(only)
        {
            // Who cannot reach it asks when another leads.
            return Ok(());
        }
        let node = if !leaders.is_empty() && self.rng.chance(0.9) {
            leaders[self.rng.below(leaders.len() as u64) as usize]
        } else {
            self.rng.below(self.nodes.len() as u64) as usize
        };
        let register = self.rng.below(REGISTERS) as u8;
        // Who hears no leader must not fall behind, or nobody would vote for it.
        let only_reads = self.is_left_asleep(node) || self.deaf.is_some();
        let writes = self.healing || self.rng.chance(0.5) && !only_reads;
        let request = if writes {
            self.values += 1;
            Request::Write { register, value: self.values }
        } else {
            // Whoever asks by another way wakes it.
            let lease = self.rng.chance(0.7) || self.is_left_asleep(node);
            let lease = self.leases && lease && self.clocks != Clocks::Mistrusted;
            let floor = self.judge.floor(register);
            Request::Read { register, floor, lease }
        };
        if let Some(live) = &mut self.nodes[node].live {
            live.queued.push_back(request);
            self.turn_soon(node);
        }
        Ok(())
    }
}
