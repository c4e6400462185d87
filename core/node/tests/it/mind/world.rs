//! The world around the minds: time, links, disks, and what goes wrong. The same seed is the same run.

use std::collections::{BTreeMap, BTreeSet};

use consensus::Mark;
use consensus::replay::Restored;
use control::plan::Progress;
use control::{Name, Newcomer, Operation, OperationId, Partition, Settings, Standing, State};
use kernel::{ClusterId, GroupId, KeyspaceId, NodeId, Rng, Spoken, TokenId, Version};
use node::cluster::formation::{self, Formation};
use node::cluster::mind::{Admission, Answer, Ask, Begin, Mind, Options, Start, Ticket, roles};
use node::cluster::{Lane, kind};
use placement::Partitions;

use super::disk::Disk;
use super::groups::{Duties, Groups};
use super::host::{Host, Live};
use super::judge::{Asked, Judge};

pub const SECOND: u64 = 1_000_000;
/// Links are looked at, and groups of partitions live on, after so many microseconds.
const BEAT: u64 = 100_000;
/// Dead for so long is down, in milliseconds.
pub const DOWN_MS: u64 = 6_000;

enum Happening {
    Deliver { to: usize, from: usize, link: u64, frame: Vec<u8> },
    Wake { node: usize, epoch: u64 },
    Synced { node: usize, epoch: u64, upto: u64 },
    Persisted { node: usize, epoch: u64, mark: Box<Mark>, state: Vec<u8> },
    Beat,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub hosts: Vec<Host>,
    pub judge: Judge,
    groups: Groups,
    /// Links that are up, each with its number.
    links: BTreeMap<(usize, usize), u64>,
    /// When the last frame of a lane arrives: order is kept.
    arrival: BTreeMap<(usize, usize, Lane2), u64>,
    pub blocked: BTreeSet<(usize, usize)>,
    /// Longest way of a frame, in microseconds.
    pub delay: u64,
    tickets: u64,
    pub hash: u64,
    pub seed: u64,
    pub snapshots: u64,
    pub restarts: u64,
    /// Whoever stops is exchanged for the newest.
    pub exchanges: bool,
    /// Links come up although the ends do not understand each other.
    pub careless: bool,
}

type Lane2 = bool;

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a sound name")
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn id(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 32])
}

pub fn settings(keyspace: u16, copies: u8, partitions: u16) -> Settings {
    Settings {
        name: name(&format!("k{keyspace}")),
        copies,
        partitions: Partitions::new(partitions).expect("sound"),
        ..formation::database(KeyspaceId(keyspace))
    }
}

impl World {
    /// A cluster of one with a keyspace of a few partitions besides two of the databases.
    pub fn new(seed: u64) -> World {
        World::beginning_at(seed, Version::NEWEST)
    }

    /// The same, at the version that the first node speaks at most.
    pub fn beginning_at(seed: u64, version: Version) -> World {
        let mut world = World {
            rng: Rng::new(seed),
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            judge: Judge::default(),
            groups: Groups::default(),
            links: BTreeMap::new(),
            arrival: BTreeMap::new(),
            blocked: BTreeSet::new(),
            delay: 1_500,
            tickets: 0,
            hash: seed,
            seed,
            snapshots: 0,
            restarts: 0,
            exchanges: false,
            careless: false,
        };
        let first = world.machine();
        world.hosts[first].spoken = Spoken::pinned(version).expect("it is known");
        let few = (0..2).map(|at| (KeyspaceId(at), formation::database(KeyspaceId(at))));
        let formation = Formation {
            cluster: ClusterId([7; 16]),
            node: id(first),
            zone: world.zone(first),
            addresses: vec!["127.0.0.1:7401".parse().expect("an address")],
            keyspaces: few.chain([(KeyspaceId(16), settings(16, 3, 6))]).collect(),
            at: world.hosts[first].clock(0).millis(),
            seed,
            version,
        };
        let (mark, state) = formation.found().expect("it is sound");
        world.hosts[first].disk.checkpoint = Some((mark, state.encode()));
        world.after(BEAT, Happening::Beat);
        world.start(first).expect("it starts");
        world
    }

    fn zone(&self, number: usize) -> Name {
        name(["z0", "z1", "z2"][number % 3])
    }

    /// Another machine, which belongs to nobody yet.
    pub fn machine(&mut self) -> usize {
        let (rate, offset) = (950 + self.rng.below(100), (1 << 40) + self.rng.below(1 << 20));
        self.hosts.push(Host {
            id: id(self.hosts.len()),
            spoken: Spoken::ALL,
            disk: Disk::default(),
            live: None,
            epoch: 0,
            rate,
            offset,
            paused_until: 0,
            full_until: 0,
            retired: false,
            deleted: BTreeSet::new(),
            liveness: Vec::new(),
        });
        self.hosts.len() - 1
    }

    fn after(&mut self, micros: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + micros, self.sequence), happening);
    }

    pub fn number(&self, node: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == node)
    }

    pub fn is_live(&self, node: usize) -> bool {
        self.hosts[node].live.is_some()
    }

    pub fn mind(&self, node: usize) -> &Mind {
        &self.hosts[node].live.as_ref().expect("it runs").mind
    }

    /// Begins a life of a machine.
    pub fn start(&mut self, node: usize) -> Result<(), String> {
        let (seed, now) = (self.seed ^ node as u64, self.now);
        let host = &mut self.hosts[node];
        if host.live.is_some() || host.retired {
            return Ok(());
        }
        host.epoch += 1;
        host.disk.incarnation += 1;
        let clock = host.clock(now);
        let options = Options { down_ms: DOWN_MS, spoken: host.spoken, ..Options::default() };
        let begin = host.disk.begin();
        let first = matches!(&begin, Begin::Resume { restored, .. } if is_first(restored));
        let start = Start { node: host.id, incarnation: host.disk.incarnation, seed, options, begin };
        let Ok(mind) = Mind::new(clock, start) else {
            host.retired = true;
            return Ok(());
        };
        self.restarts += u64::from(!first);
        let shown = mind.replica().last_applied();
        host.live = Some(Live {
            mind,
            duties: Duties::new(),
            links: BTreeMap::new(),
            syncing: false,
            wake_at: None,
            expelled: false,
            shown,
        });
        self.turn(node)
    }

    /// The process ends; with a power cut its disk loses what was not synced.
    pub fn stop(&mut self, node: usize, power: bool) {
        let exchanged = self.exchanges;
        let host = &mut self.hosts[node];
        if host.live.take().is_none() {
            return;
        }
        if exchanged {
            host.spoken = Spoken::ALL;
        }
        host.epoch += 1;
        host.paused_until = 0;
        if power {
            host.disk.crash(&mut self.rng);
        } else {
            host.disk.synced = host.disk.written();
        }
        // Who asked there is not answered any more.
        self.judge.asked.retain(|ticket, asked| asked.answer.is_some() || ticket.0 >> 32 != node as u64);
        self.look_at_links();
    }

    pub fn pause(&mut self, node: usize, micros: u64) {
        self.hosts[node].paused_until = self.now + micros;
    }

    pub fn isolate(&mut self, node: usize) {
        let others = (0..self.hosts.len()).filter(|&other| other != node);
        self.blocked.extend(others.map(|other| pair(node, other)));
    }

    /// A ticket that says where it was asked.
    fn ticket(&mut self, node: usize, id: Option<OperationId>, what: String) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket((node as u64) << 32 | self.tickets);
        let asked = Asked { id, what, since: self.now, answer: None };
        self.judge.asked.insert(ticket, asked);
        ticket
    }

    pub fn ask(&mut self, node: usize, operation: Operation) -> Ticket {
        let mut bytes = [9; 16];
        bytes[..8].copy_from_slice(&self.rng.next_u64().to_le_bytes());
        let id = OperationId(bytes);
        let ticket = self.ticket(node, Some(id), operation.to_string());
        let clock = self.hosts[node].clock(self.now);
        if let Some(live) = &mut self.hosts[node].live {
            live.mind.ask(clock, Ask { ticket, id: Some(id), by: name("test"), operation });
        }
        self.soon(node);
        ticket
    }

    /// The same under an id of the node's own.
    pub fn ask_afresh(&mut self, node: usize, operation: Operation) -> Ticket {
        let ticket = self.ticket(node, None, operation.to_string());
        let clock = self.hosts[node].clock(self.now);
        if let Some(live) = &mut self.hosts[node].live {
            live.mind.ask(clock, Ask { ticket, id: None, by: name("test"), operation });
        }
        self.soon(node);
        ticket
    }

    pub fn answer(&self, ticket: Ticket) -> Option<&Answer> {
        self.judge.asked.get(&ticket).and_then(|asked| asked.answer.as_ref())
    }

    /// Makes a token through `node`.
    pub fn issue(&mut self, node: usize, token: u8) -> Ticket {
        let expires = self.hosts[node].clock(self.now).plus_millis(600_000).millis();
        let operation = Operation::IssueToken { token: TokenId([token; 8]), hash: [token; 32], expires };
        self.ask(node, operation)
    }

    /// A newcomer has proven a token's secret to `node`.
    pub fn admit(&mut self, node: usize, token: u8, newcomer: usize) -> Ticket {
        let ticket = self.ticket(node, None, "admit".into());
        let (zone, clock) = (self.zone(newcomer), self.hosts[node].clock(self.now));
        let address = format!("127.0.0.1:{}", 7401 + newcomer).parse().expect("an address");
        let admission = Admission {
            token: TokenId([token; 8]),
            hash: [token; 32],
            node: self.hosts[newcomer].id,
            newcomer: Newcomer { zone, addresses: vec![address] },
        };
        if let Some(live) = &mut self.hosts[node].live {
            live.mind.admit(clock, ticket, admission);
        }
        self.soon(node);
        ticket
    }

    fn soon(&mut self, node: usize) {
        let epoch = self.hosts[node].epoch;
        self.after(1, Happening::Wake { node, epoch });
    }

    /// Lets `micros` pass.
    pub fn run(&mut self, micros: u64) -> Result<(), String> {
        let end = self.now + micros;
        while let Some((&(at, _), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let Some(((at, _), happening)) = self.queue.pop_first() else { break };
            self.now = at.max(self.now);
            self.happen(happening)?;
        }
        self.now = end;
        Ok(())
    }

    /// Lets time pass until `done`, at most `micros`.
    pub fn until(&mut self, micros: u64, done: impl Fn(&World) -> bool) -> Result<(), String> {
        let end = self.now + micros;
        while !done(self) {
            if self.now >= end {
                return Err(format!("seed {}: not in time: {}", self.seed, self.describe()));
            }
            self.run(BEAT)?;
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let (node, epoch) = match &happening {
            Happening::Beat => return self.beat(),
            Happening::Deliver { to, from, link, .. } => {
                if self.links.get(&pair(*to, *from)) != Some(link) {
                    return Ok(());
                }
                (*to, self.hosts[*to].epoch)
            }
            Happening::Wake { node, epoch }
            | Happening::Synced { node, epoch, .. }
            | Happening::Persisted { node, epoch, .. } => (*node, *epoch),
        };
        let host = &mut self.hosts[node];
        if host.epoch != epoch {
            return Ok(());
        }
        if host.paused_until > self.now {
            let wait = host.paused_until - self.now + self.rng.below(500);
            self.after(wait, happening);
            return Ok(());
        }
        let clock = host.clock(self.now);
        let Some(live) = &mut host.live else { return Ok(()) };
        match happening {
            Happening::Deliver { from, frame, .. } => {
                let from = self.hosts[from].id;
                let Some(live) = &mut self.hosts[node].live else { return Ok(()) };
                live.mind.receive(clock, from, &frame);
                if frame.first() == Some(&kind::CONTROL) && frame.get(1) == Some(&7) {
                    self.snapshots += 1;
                }
            }
            Happening::Wake { .. } => {
                live.wake_at = None;
                live.mind.wake(clock);
            }
            Happening::Synced { upto, .. } => {
                live.syncing = false;
                host.disk.synced = host.disk.synced.max(upto);
                live.mind.synced(clock, kernel::Lsn(upto));
            }
            Happening::Persisted { mark, state, .. } => {
                let index = mark.index;
                host.disk.persist(*mark, state);
                live.mind.persisted(clock, index);
            }
            Happening::Beat => {}
        }
        self.turn(node)
    }

    fn turn(&mut self, node: usize) -> Result<(), String> {
        let now = self.now;
        let done = self.hosts[node].turn(now)?;
        for group in done.started {
            let duty = self.hosts[node].live.as_ref().and_then(|live| live.duties.get(&group));
            if let Some(duty) = duty {
                self.groups.begin(group, duty);
            }
        }
        for (to, lane, frame) in done.frames {
            self.send(node, to, lane, frame);
        }
        let epoch = self.hosts[node].epoch;
        for (mark, state) in done.persist {
            let slow = 1_000 + self.rng.below(30_000);
            self.after(slow, Happening::Persisted { node, epoch, mark: Box::new(mark), state });
        }
        for (ticket, answer) in done.answers {
            self.hash = self.hash.rotate_left(7) ^ ticket.0 ^ self.now;
            self.judge.answered(ticket, answer)?;
        }
        self.check(node)?;
        let host = &mut self.hosts[node];
        let Some(live) = &mut host.live else { return Ok(()) };
        if live.expelled {
            host.retired = true;
            self.stop(node, false);
            return Ok(());
        }
        let sync = (!live.syncing && host.disk.is_dirty()).then(|| host.disk.written());
        live.syncing |= sync.is_some();
        let due = live.mind.deadline();
        let wake = due.map(|due| host.when(due).max(now + 20));
        let live = host.live.as_mut().expect("it runs");
        let earlier = wake.filter(|wake| live.wake_at.is_none_or(|at| *wake < at));
        live.wake_at = earlier.or(live.wake_at);
        if let Some(upto) = sync {
            let slow = 200 + self.rng.below(4_000);
            self.after(slow, Happening::Synced { node, epoch, upto });
        }
        if let Some(wake) = earlier {
            self.after(wake - now, Happening::Wake { node, epoch });
        }
        Ok(())
    }

    fn check(&mut self, node: usize) -> Result<(), String> {
        let Some(live) = &mut self.hosts[node].live else { return Ok(()) };
        let Some(mark) = live.mind.replica().cut() else { return Ok(()) };
        if mark.index == live.shown {
            return Ok(());
        }
        live.shown = mark.index;
        let state = live.mind.state();
        if let Some(before) = self.judge.applied(mark.index, state)? {
            self.hash = self.hash.rotate_left(9) ^ mark.index.0 ^ self.now;
            keeps_promises(&before, state)?;
            self.groups.judge(&before, state)?;
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: NodeId, lane: Lane, frame: Vec<u8>) {
        let Some(to) = self.number(to) else { return };
        let Some(&link) = self.links.get(&pair(from, to)) else { return };
        let way = 50 + self.rng.below(self.delay);
        let last = self.arrival.entry((from, to, lane == Lane::Bulk)).or_default();
        *last = (self.now + way).max(*last + 1);
        let wait = *last - self.now;
        self.after(wait, Happening::Deliver { to, from, link, frame });
    }

    fn beat(&mut self) -> Result<(), String> {
        self.after(BEAT, Happening::Beat);
        self.look_at_links();
        let here: BTreeMap<NodeId, &Duties> = (self.hosts.iter())
            .filter(|host| host.paused_until <= self.now)
            .filter_map(|host| host.live.as_ref().map(|live| (host.id, &live.duties)))
            .collect();
        let numbers: BTreeMap<NodeId, usize> =
            self.hosts.iter().enumerate().map(|(at, host)| (host.id, at)).collect();
        let links = &self.links;
        let linked = |a: NodeId, b: NodeId| a == b || links.contains_key(&pair(numbers[&a], numbers[&b]));
        let hosts = &self.hosts;
        let may_change = |node: NodeId, group, term, epoch| {
            let live = hosts[numbers[&node]].live.as_ref();
            live.is_some_and(|live| live.mind.may_change(group, term, epoch))
        };
        let reports = self.groups.pass(&mut self.rng, &here, linked, may_change);
        for (node, group, report) in reports {
            let at = self.number(node).expect("it is there");
            if let Some(live) = &mut self.hosts[at].live {
                live.mind.note(group, report);
            }
        }
        for node in 0..self.hosts.len() {
            if self.is_live(node) && self.hosts[node].paused_until <= self.now {
                self.soon(node);
            }
        }
        Ok(())
    }

    /// Two nodes are linked if both run, each knows the other as a member, they have a version in common, and nothing is
    /// between them.
    fn look_at_links(&mut self) {
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                let knows = |one: usize, other: usize| {
                    let live = self.hosts[one].live.as_ref();
                    live.is_some_and(|live| live.links.contains_key(&self.hosts[other].id))
                };
                let says = |one: usize| self.hosts[one].live.as_ref().map(|live| live.mind.spoken());
                let agree = says(a).zip(says(b)).is_some_and(|(a, b)| self.careless || a.agree(b).is_some());
                let fits = knows(a, b) && knows(b, a) && agree && !self.blocked.contains(&(a, b));
                let was = self.links.contains_key(&(a, b));
                if fits && !was {
                    self.sequence += 1;
                    self.links.insert((a, b), self.sequence);
                } else if !fits && was {
                    self.links.remove(&(a, b));
                }
                if fits != was {
                    self.tell_link(a, b, fits);
                    self.tell_link(b, a, fits);
                }
            }
        }
    }

    fn tell_link(&mut self, node: usize, peer: usize, up: bool) {
        let said = self.hosts[peer].live.as_ref().map(|live| live.mind.spoken());
        let peer = self.hosts[peer].id;
        let clock = self.hosts[node].clock(self.now);
        if let Some(live) = &mut self.hosts[node].live {
            if up {
                live.mind.peer_speaks(peer, said.expect("both ends run"));
                live.mind.peer_up(clock, peer);
            } else {
                live.mind.peer_down(clock, peer);
            }
            self.soon(node);
        }
    }

    /// Everything is allowed again, and whoever may run does.
    pub fn heal(&mut self) -> Result<(), String> {
        self.blocked.clear();
        self.delay = 1_500;
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            (host.paused_until, host.full_until) = (0, 0);
            if host.disk.checkpoint.is_some() || host.disk.welcome.is_some() {
                self.start(node)?;
            }
        }
        Ok(())
    }

    pub fn leader(&self) -> Option<usize> {
        (0..self.hosts.len())
            .filter(|&node| self.is_live(node) && self.mind(node).replica().leads())
            .max_by_key(|&node| self.mind(node).replica().term())
    }

    /// What is not as it should be, if nothing is wrong with the world any more.
    pub fn unwell(&self) -> Option<String> {
        let Some(leader) = self.leader() else { return Some("nobody leads".into()) };
        let state = self.mind(leader).state();
        for (&node, member) in state.members() {
            let at = self.number(node).expect("members are machines");
            if !member.is_present() {
                continue;
            }
            if member.standing != Standing::Active {
                let status = self.mind(leader).status();
                let (role, copies) = (member.role, state.kept_by(node).count());
                let (standing, moves) = (member.standing, status.moves);
                let trouble = status.trouble;
                let stuck = self.groups.unsettled(state);
                return Some(format!(
                    "{node:?} is {standing} {role:?} {copies} {moves:?} {trouble:?} {stuck:?}"
                ));
            }
            let Some(live) = &self.hosts[at].live else { return Some(format!("{node:?} is down")) };
            if live.mind.state() != state {
                return Some(format!("{node:?} is at version {}", live.mind.state().version()));
            }
            let others: Vec<NodeId> = (state.members().iter())
                .filter(|(other, member)| **other != node && member.is_present())
                .map(|(other, _)| *other)
                .collect();
            if !live.links.keys().eq(others.iter()) {
                return Some(format!("{node:?} has links to {:?}", live.links.keys()));
            }
            let duties = control::diff::duties(state, node);
            if !duties.iter().filter(|(group, _)| **group != control::CONTROL).eq(live.duties.iter()) {
                return Some(format!("{node:?} does not do its duties"));
            }
        }
        let wanted = state.members().values().filter(|member| member.is_present());
        let wanted = wanted.map(|member| (member.replica, member.role)).collect();
        let members = self.mind(leader).replica().members();
        if members.is_joint() || !roles(members, &wanted).is_empty() {
            return Some(format!("the group has {members:?}"));
        }
        let progress = Progress::total(state);
        if !progress.is_done() {
            return Some(format!(
                "{progress:?} {:?} {}",
                self.groups.unsettled(state),
                self.groups.describe(state)
            ));
        }
        if let Some(why) = self.groups.unsettled(state) {
            return Some(why);
        }
        let waits = self.judge.asked.values().find(|asked| asked.answer.is_none());
        waits.map(|asked| format!("{} is not answered since {}", asked.what, asked.since))
    }

    /// Lets everything come to rest, and judges it.
    pub fn come_to_rest(&mut self) -> Result<(), String> {
        self.heal()?;
        let end = self.now + 120 * SECOND;
        while let Some(why) = self.unwell() {
            if self.now > end {
                return Err(format!("seed {}: {why}: {}", self.seed, self.describe()));
            }
            self.run(SECOND / 2)?;
        }
        let leader = self.leader().expect("it is well");
        let digest = |node: usize| self.mind(node).state().digest();
        let others = (0..self.hosts.len()).filter(|&node| self.is_live(node));
        if let Some(other) = others.into_iter().find(|&node| digest(node) != digest(leader)) {
            return Err(format!("{other} has another state"));
        }
        self.judge.settle(self.mind(leader).state())
    }

    pub fn describe(&self) -> String {
        let one = |host: &Host| match &host.live {
            None => format!("{:?} down", host.id),
            Some(live) => format!(
                "{:?} {:?} term {} applied {} version {} up {:?} dropped {:?} refusals {:?}",
                host.id,
                live.mind.replica().standing(),
                live.mind.replica().term(),
                live.mind.replica().last_applied(),
                live.mind.state().version(),
                live.links.keys(),
                live.mind.dropped(),
                live.mind.replica().refusals(),
            ),
        };
        format!("at {} ms: {}", self.now / 1000, self.hosts.iter().map(one).collect::<Vec<_>>().join("\n"))
    }
}

fn is_first(restored: &Restored) -> bool {
    restored.mark.index.0 == 1 && restored.entries.is_empty()
}

/// No partition has fewer copies that count than were promised, by what was done itself.
fn keeps_promises(before: &State, after: &State) -> Result<(), String> {
    for (group, now) in after.partitions() {
        let copies = |state: &State, group: GroupId| {
            state.keyspaces().get(&group.keyspace()).map_or(1, |space| space.settings.copies)
        };
        let had = before.partition(group).map_or(0, |then: &Partition| then.replicas.len());
        let promised = after.promised(copies(after, group));
        if !now.replicas.is_empty() && now.replicas.len() < promised.min(had.max(1)) {
            return Err(format!("{group} has {} copies of {promised}, had {had}", now.replicas.len()));
        }
    }
    Ok(())
}
