//! The world around the machines: time, links, clients, what goes wrong, and how it becomes well again.

mod crowd;
mod fault;
mod mark;
mod reshape;
mod turn;

use kernel::Rng;

use crate::cluster::Outcome;
use crate::cluster::host::Machine;
use crate::cluster::judge::{Judge, logs_match};
use crate::cluster::net::{Net, Pace};
use crate::cluster::plan::Plan;
use crate::cluster::seats::Seats;
use crate::trace::Trace;
use check::client::{Client, History, Kind, Manner, Wish};

/// How soon a host looks again when something is overdue, in microseconds.
const OVERDUE_MICROS: u64 = 1_000;
/// Within so many microseconds of the end of all faults everyone is answered again.
const WELL_MICROS_MAX: u64 = 30_000_000;
/// Between two looks at all logs, in microseconds.
const LOOK_MICROS: u64 = 500_000;

/// What the world is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Things go wrong.
    Faulty,
    /// Nothing does any more, and everyone must be answered in the end.
    Healing,
}

pub(super) struct World<'t> {
    pub plan: Plan,
    pub trace: &'t mut Trace,
    pub rng: Rng,
    pub faults: Rng,
    pub now: u64,
    pub machines: Vec<Machine>,
    pub net: Net,
    pub seats: Seats,
    pub clients: Vec<Client>,
    pub history: History,
    pub judge: Judge,
    pub phase: Phase,
    pub next_fault: u64,
    /// When what is cut is mended, and who starts when.
    pub mend: Option<u64>,
    pub starts: Vec<(u64, usize)>,
    pub outcome: Outcome,
    /// Nodes that the planned split cuts off.
    pub minority: Vec<usize>,
    marks: Rng,
    marking: Option<mark::Marking>,
    next_mark: u64,
    tickets: u64,
    next_look: u64,
    next_client: u64,
    generation: u64,
}

/// Runs the plan that the seed draws, and judges what clients were told.
pub(super) fn run(seed: u64, trace: &mut Trace) -> Result<Outcome, String> {
    let plan = Plan::draw(&mut Rng::new(seed).fork(1));
    let mut world = play(seed, plan, trace)?;
    world.outcome.hard += world.history.judge()?;
    Ok(world.finish())
}

/// Runs a plan until everyone is well again; what clients were told is not judged yet.
pub(super) fn play(seed: u64, plan: Plan, trace: &mut Trace) -> Result<World<'_>, String> {
    let mut world = World::new(seed, plan, trace);
    for number in 0..world.machines.len() {
        world.start(number)?;
    }
    let faulty = world.plan.faulty_micros;
    while world.now < faulty {
        world.step(faulty)?;
    }
    world.heal()?;
    let until = world.now + WELL_MICROS_MAX;
    while !world.is_well() {
        if world.now >= until {
            return Err(format!("not well again after {WELL_MICROS_MAX} microseconds: {}", world.describe()));
        }
        world.step(until)?;
    }
    Ok(world)
}

impl<'t> World<'t> {
    fn new(seed: u64, plan: Plan, trace: &'t mut Trace) -> World<'t> {
        let root = Rng::new(seed);
        trace.event(0, format_args!("plan {plan:?}"));
        let mut clocks = root.fork(2);
        let machines: Vec<Machine> =
            (0..plan.nodes).map(|number| Machine::new(number, &plan, &mut clocks)).collect();
        let mut net = Net::new(Pace { delay: plan.delay_micros, stall: plan.stall_micros }, root.fork(5));
        for one in 0..plan.nodes {
            for other in 0..one {
                net.link(0, one, other);
            }
        }
        let mut world = World {
            rng: root.fork(3),
            faults: root.fork(4),
            now: 0,
            machines,
            net,
            clients: Vec::new(),
            history: History::default(),
            judge: Judge::default(),
            seats: Seats::new(&plan),
            phase: Phase::Faulty,
            next_fault: plan.split.as_ref().map_or(1_500_000, |split| split.cut),
            mend: None,
            starts: Vec::new(),
            outcome: Outcome::default(),
            minority: Vec::new(),
            marks: root.fork(6),
            marking: None,
            next_mark: 1_000_000,
            tickets: 0,
            next_look: LOOK_MICROS,
            next_client: 0,
            generation: 0,
            plan,
            trace,
        };
        for _ in 0..world.plan.clients {
            let client = world.new_client();
            world.clients.push(client);
        }
        world
    }

    /// What it was.
    pub fn finish(self) -> Outcome {
        let World { history, trace, outcome, now, .. } = self;
        let (answered, unknown, refused) = (history.answered, history.unknown, history.refused);
        Outcome {
            hash: trace.hash(),
            events: trace.events(),
            micros: now,
            answered,
            unknown,
            refused,
            ..outcome
        }
    }

    pub fn new_client(&mut self) -> Client {
        self.next_client += 1;
        let impatient = self.rng.chance(self.plan.impatient);
        let split = self.plan.split.as_ref().filter(|_| self.phase == Phase::Faulty);
        let manner = Manner {
            reads: self.rng.chance(0.35),
            register: split.is_some(),
            copies: split.is_some_and(|split| split.copies),
            round: 0,
            keys: self.plan.keys,
            pipeline: self.plan.pipeline,
            patience: (impatient && self.phase == Phase::Faulty).then(|| 200_000 + self.rng.below(2_000_000)),
        };
        Client::new(self.next_client, manner)
    }

    /// A process begins.
    pub fn start(&mut self, number: usize) -> Result<(), String> {
        if self.machines[number].life.is_some() {
            return Ok(());
        }
        let started = self.machines[number].start(self.now, &self.plan, &self.seats, &mut self.rng);
        started.map_err(|what| format!("node {number} does not start: {what}"))?;
        self.net.started(number);
        let Some(life) = &self.machines[number].life else { return Ok(()) };
        for partition in life.worker.partitions() {
            self.judge.begins(number, partition.group_id(), partition.store().applied());
        }
        // What is found in the log at its opening is made durable.
        for (&group, entries) in &life.entries {
            entries.iter().for_each(|(&index, &(term, ..))| self.judge.synced(number, group, index, term));
        }
        self.trace
            .event(self.now, format_args!("node {number} starts, life {}", self.machines[number].lives));
        Ok(())
    }

    /// A process ends.
    pub fn crash(&mut self, number: usize, power_cut: bool) {
        if self.machines[number].life.is_none() {
            return;
        }
        self.trace.event(self.now, format_args!("node {number} dies, power cut: {power_cut}"));
        self.outcome.crashes += 1;
        self.machines[number].end(power_cut, &mut self.faults);
        self.net.stopped(self.now, number);
        self.judge.gone(number);
        for client in 0..self.clients.len() {
            if self.clients[client].conn.is_some_and(|(node, _)| node == number) {
                self.lose(client);
            }
        }
    }

    /// A client's connection is gone; it makes another later.
    pub fn lose(&mut self, client: usize) {
        let (now, wait) = (self.now, 1_000 + self.rng.below(100_000));
        self.clients[client].lost(now, &mut self.history);
        let mut fresh = self.new_client();
        (fresh.next, fresh.wish) = (now + wait, self.clients[client].wish);
        self.clients[client] = fresh;
    }

    fn runs(&self, number: usize) -> bool {
        let machine = &self.machines[number];
        machine.life.is_some() && machine.paused_until <= self.now
    }

    /// Goes to the next moment at which something happens, at most to `until`.
    fn step(&mut self, until: u64) -> Result<(), String> {
        let at = self.next_event().unwrap_or(until).min(until);
        self.now = self.now.max(at);
        if self.now >= until {
            return Ok(());
        }
        self.now += self.rng.below(self.plan.turn_micros);
        if self.phase == Phase::Faulty {
            self.happen()?;
        }
        self.mark()?;
        self.net.tend(self.now);
        for client in 0..self.clients.len() {
            self.client(client)?;
        }
        for number in 0..self.machines.len() {
            if self.runs(number) && self.due_of(number).is_some_and(|due| due <= self.now) {
                self.turn(number)?;
            }
        }
        if self.now >= self.next_look {
            self.next_look = self.now + LOOK_MICROS;
            self.look()?;
        }
        Ok(())
    }

    fn next_event(&self) -> Option<u64> {
        let nodes = (0..self.machines.len()).filter_map(|number| {
            let machine = &self.machines[number];
            machine.life.as_ref()?;
            if machine.paused_until > self.now {
                return Some(machine.paused_until);
            }
            // What is overdue waits for something else, and hosts do not spin meanwhile.
            self.due_of(number).map(|at| if at > self.now { at } else { self.now + 1 })
        });
        let clients = self.clients.iter().map(|client| match client.gives_up() {
            Some(at) => at,
            None if client.waits() => u64::MAX,
            None => client.next,
        });
        let net = self.net.due(|_| false);
        let faults = (self.phase == Phase::Faulty).then_some(self.next_fault);
        let starts = self.starts.iter().map(|(at, _)| *at);
        let marks = match &self.marking {
            Some(marking) => marking.due(),
            None => self.marks_come().then_some(self.next_mark),
        };
        let others = [net, faults, self.mend, marks].into_iter().flatten();
        nodes.chain(clients).chain(starts).chain(others).map(|at| at.max(self.now + 1)).min()
    }

    /// When a node that runs has something to do.
    fn due_of(&self, number: usize) -> Option<u64> {
        let machine = &self.machines[number];
        let life = machine.life.as_ref()?;
        let wake = life.worker.deadline().map(|at| {
            let at = machine.when(at);
            if at > self.now { at } else { self.now.min(life.last_wake + OVERDUE_MICROS) }
        });
        let sync = life.sync.or_else(|| life.log.commit.sync_due().map(|due| due.0));
        let works = life.works.iter().map(|(at, _)| *at).min();
        let asked = self.clients.iter().any(|client| {
            !client.outbox.is_empty() && !client.held && client.conn.is_some_and(|(node, _)| node == number)
        });
        let net = self.net.due(|to| to == number);
        let doomed = machine.doomed.then_some(self.now);
        let others =
            [life.checkpointer.due(), life.desk.due(), life.again, asked.then_some(self.now), doomed];
        [wake, sync, works, net].into_iter().chain(others).flatten().min()
    }

    /// Compares all logs, and lets placements go on.
    fn look(&mut self) -> Result<(), String> {
        for group in self.seats.groups() {
            let own = (0..self.machines.len()).filter_map(|node| self.partition(node, group));
            let replicas: Vec<_> = own.filter_map(node::Partition::replica).collect();
            logs_match(group, &replicas)?;
        }
        self.reconcile();
        Ok(())
    }

    /// All faults end; a client at each node and keyspace asks for everything.
    fn heal(&mut self) -> Result<(), String> {
        self.trace.event(self.now, format_args!("all faults end"));
        self.phase = Phase::Healing;
        self.net.mend();
        (self.mend, self.starts) = (None, Vec::new());
        for number in 0..self.machines.len() {
            let machine = &mut self.machines[number];
            (machine.paused_until, machine.slow_until, machine.full_until) = (0, 0, 0);
            machine.doomed = false;
            if let Some(life) = &mut machine.life {
                life.again = Some(self.now);
            }
            self.start(number)?;
        }
        for at in 0..self.clients.len() {
            if let Some((node, conn)) = self.clients[at].conn
                && let Some(life) = &mut self.machines[node].life
            {
                life.worker.disconnect(conn);
            }
            self.clients[at].lost(self.now, &mut self.history);
        }
        self.clients.clear();
        let (nodes, keyspaces, keys) = (self.machines.len(), self.plan.keyspaces.len(), self.plan.keys);
        for (at, db) in (0..keyspaces as u16).cycle().take(keyspaces * keys as usize).enumerate() {
            for kind in Kind::ALL {
                let mut client = self.new_client();
                client.next = self.now + 1 + at as u64;
                let (key, node) = ((at / keyspaces) as u64, (at + kind as usize) % nodes);
                client.wish = Some(Wish { db, key, kind, node });
                self.clients.push(client);
            }
        }
        Ok(())
    }

    /// Whether everyone was answered, and all replicas are level.
    fn is_well(&self) -> bool {
        self.clients.iter().all(|client| client.content) && self.is_level()
    }

    /// Whether all members of each group have applied the same, and are those that it should have.
    fn is_level(&self) -> bool {
        self.seats.groups().into_iter().all(|group| {
            let Some(leader) = self.leader_of(group).and_then(|node| self.partition(node, group)) else {
                return false;
            };
            let applied = leader.store().applied();
            let Some(members) = leader.replica().map(consensus::Replica::members) else { return false };
            let seats = self.seats.of(group);
            let level = |&(node, id): &(usize, _)| {
                let own = self.partition(node, group);
                members.votes(id) && own.is_some_and(|own| own.store().applied() == applied)
            };
            !members.is_joint() && members.iter().count() == seats.len() && seats.iter().all(level)
        })
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for client in &self.clients {
            let (conn, waits) = (client.conn, client.waits());
            text.push_str(&format!(
                "\n  client {} at {conn:?} waits {waits} served {} content {}",
                client.number, client.served, client.content
            ));
        }
        for machine in &self.machines {
            let Some(life) = &machine.life else {
                text.push_str(&format!("\n  node {} is down", machine.number));
                continue;
            };
            for partition in life.worker.partitions() {
                let (group, applied) = (partition.group_id(), partition.store().applied());
                let standing = partition.replica().map(|replica| {
                    let (standing, term, last) = (replica.standing(), replica.term(), replica.last());
                    format!("{standing:?} term {term} last {last} {:?}", replica.refusals())
                });
                text.push_str(&format!(
                    "\n  node {} group {group} applied {applied} serves {} {standing:?}",
                    machine.number,
                    partition.leads()
                ));
            }
        }
        text
    }
}
