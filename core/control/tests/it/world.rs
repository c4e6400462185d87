//! A cluster's life in memory: requests, what the host would see, and the laws that hold after each request.

use std::collections::{BTreeMap, BTreeSet};

use consensus::Durability;
use control::diff::duties;
use control::mesh::Part;
use control::plan::{self, Progress, View};
use control::*;
use kernel::{GroupId, KeyspaceId, Millis, NodeId, Rng, Version};
use placement::Partitions;

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a sound name")
}

pub fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub fn settings(text: &str, copies: u8, partitions: u16) -> Settings {
    Settings {
        name: name(text),
        mode: Mode::Primary,
        copies,
        durability: Durability::Always,
        partitions: Partitions::new(partitions).expect("sound"),
        memory: 0,
        eviction: Default::default(),
        reading: Default::default(),
    }
}

pub fn create(number: u8) -> Operation {
    let addresses = vec!["127.0.0.1:7401".parse().expect("an address")];
    Operation::CreateCluster { cluster: ClusterId([7; 16]), node: node(number), zone: name("z0"), addresses }
}

pub fn issue(token: u8, expires: u64) -> Operation {
    Operation::IssueToken { token: TokenId([token; 8]), hash: [token; 32], expires: Millis(expires) }
}

pub fn admit(token: u8, number: u8, zone: &str) -> Operation {
    Operation::Admit {
        token: TokenId([token; 8]),
        hash: [token; 32],
        node: node(number),
        zone: name(zone),
        addresses: vec!["[::1]:7401".parse().expect("an address")],
    }
}

pub struct World {
    pub state: State,
    pub view: View,
    pub log: Vec<Request>,
    pub rng: Rng,
    /// Every replica number ever seen, and whose it was.
    ids: BTreeMap<u64, (GroupId, NodeId)>,
    tokens: u8,
}

impl World {
    pub fn new(seed: u64) -> World {
        let (view, rng) = (View::default(), Rng::new(seed));
        let mut world =
            World { state: State::new(), view, log: Vec::new(), rng, ids: BTreeMap::new(), tokens: 0 };
        world.ask(create(0)).expect("the first request");
        world
    }

    /// A cluster of `members` active nodes in three zones, and no keyspace.
    pub fn of(members: u8) -> World {
        let mut world = World::new(1);
        for number in 1..members {
            world.join(number).expect("admitted");
            world.ask(Operation::Activate { node: node(number) }).expect("activated");
        }
        world
    }

    pub fn join(&mut self, number: u8) -> Result<Outcome, Refused> {
        self.tokens = self.tokens.wrapping_add(1);
        self.ask(issue(self.tokens, self.log.len() as u64 + 1_000))?;
        self.ask(admit(self.tokens, number, ["z0", "z1", "z2"][usize::from(number) % 3]))
    }

    pub fn ask(&mut self, operation: Operation) -> Result<Outcome, Refused> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.log.len() as u64).to_le_bytes());
        let at = Millis(self.log.len() as u64);
        self.ask_as(Request { id: OperationId(id), by: name("test"), at, operation })
    }

    pub fn ask_as(&mut self, request: Request) -> Result<Outcome, Refused> {
        let before = self.state.clone();
        let result = self.state.apply(&request);
        self.judge(&before, result.is_ok());
        self.log.push(request);
        result
    }

    fn judge(&mut self, before: &State, accepted: bool) {
        let state = &self.state;
        assert!(accepted || state.version() == before.version(), "a refusal changed the state");
        assert!(state.speaks() >= before.speaks(), "the cluster fell back");
        let later = state.keyspaces().values().any(|space| space.settings.needs() > state.speaks());
        assert!(!later, "something is in the state that its version has no words for");
        assert!(state.revision().is_none() || state.speaks() >= Version(4), "a revision before its version");
        let revised = state.revision_number() - before.revision_number();
        assert!(revised <= u64::from(accepted), "a revision by another request");
        let present: BTreeSet<NodeId> =
            state.members().iter().filter(|(_, member)| member.is_present()).map(|(&node, _)| node).collect();
        assert!((1..=VOTERS_MAX).contains(&state.voters().len()), "voters");
        for (&node, member) in state.members() {
            let owner = *self.ids.entry(member.replica.get()).or_insert((CONTROL, node));
            assert_eq!(owner, (CONTROL, node), "a replica number was given twice");
        }
        for (group, partition) in state.partitions() {
            let space = &state.keyspaces()[&group.keyspace()];
            let nodes: BTreeSet<NodeId> = partition.members().map(|(replica, _)| replica.node).collect();
            assert_eq!(nodes.len(), partition.members().count(), "one copy on each node");
            assert!(nodes.is_subset(&present), "a removed node has a copy");
            for (replica, _) in partition.members() {
                let owner = *self.ids.entry(replica.id.get()).or_insert((group, replica.node));
                assert_eq!(owner, (group, replica.node), "a replica number was given twice");
            }
            let promised = state.promised(space.settings.copies);
            let had = before.partition(group).map_or(0, |before| before.replicas.len());
            let least = if had == 0 { promised } else { promised.min(had) };
            let placed = !partition.replicas.is_empty();
            assert!(!placed || partition.replicas.len() >= least, "fewer copies than promised");
        }
        assert!(Progress::total(state).moving <= MOVES_MAX, "more moves at once than {MOVES_MAX}");
        for &node in state.members().keys().take(3) {
            follow(before, state, node);
        }
    }

    /// The operator has decided what the state is.
    pub fn take_over(&mut self, state: State) {
        let before = std::mem::replace(&mut self.state, state);
        self.judge(&before, true);
    }

    /// What the host of a sound cluster would see soon.
    pub fn see_all(&mut self) {
        self.view.caught_up = self.learners();
        self.view.settled = self.groups();
    }

    fn learners(&self) -> BTreeSet<consensus::ReplicaId> {
        let members = self.state.members().values().map(|member| member.replica);
        let copies = self.state.partitions().flat_map(|(_, partition)| partition.members());
        members.chain(copies.map(|(replica, _)| replica.id)).collect()
    }

    fn groups(&self) -> BTreeSet<GroupId> {
        self.state.partitions().map(|(group, _)| group).chain([CONTROL]).collect()
    }

    /// Asks for what is planned, until nothing is. Each planned operation must be accepted.
    pub fn settle(&mut self) {
        for _ in 0..5_000 {
            self.see_all();
            let planned = plan::next(&self.state, &self.view).expect("small enough");
            if planned.is_empty() {
                return;
            }
            for operation in planned {
                self.ask(operation.clone()).unwrap_or_else(|refused| panic!("{operation}: {refused}"));
            }
        }
        panic!("the plan does not come to an end");
    }

    pub fn pick_node(&mut self) -> NodeId {
        node(self.rng.below(12) as u8)
    }

    fn pick_group(&mut self) -> Option<(GroupId, u64)> {
        let count = self.state.partitions().count() as u64;
        let at = if count == 0 { 0 } else { self.rng.below(count) };
        self.state.partitions().nth(at as usize).map(|(group, partition)| (group, partition.epoch))
    }

    /// Something happens, sensible or not.
    pub fn happen(&mut self) {
        let (one, other) = (self.pick_node(), self.pick_node());
        let keyspace = KeyspaceId(self.rng.below(3) as u16);
        let copies = self.rng.below(4) as u8;
        let partitions = 1 + keyspace.0 * 3;
        let settings = settings(&format!("k{keyspace}"), copies, partitions);
        let operation = match self.rng.below(26) {
            0 | 1 => return drop(self.join(one.0[0])),
            2 => Operation::Activate { node: one },
            3 => Operation::Leave { node: one },
            4 => Operation::Remove { node: one },
            5 => Operation::CreateKeyspace { keyspace, settings },
            6 => Operation::AlterKeyspace { keyspace, settings },
            7 if self.rng.chance(0.1) => Operation::DropKeyspace { keyspace, name: settings.name },
            8 => Operation::SetVoters { voters: BTreeSet::from([one, other]) },
            9 => return self.view.down.extend([one]),
            10 => return self.view.down.clear(),
            11 => return drop(self.ask_as(self.log[self.log.len() / 2].clone())),
            12 | 13 => {
                let Some((group, epoch)) = self.pick_group() else { return };
                let step = match self.rng.below(5) {
                    0 => Step::Add { new: one, old: Some(other) },
                    1 => Step::Drop { old: one },
                    2 => Step::Promote,
                    3 if self.rng.chance(0.5) => Step::Forget,
                    3 => Step::Finish,
                    _ => Step::Abort,
                };
                Operation::Step { group, epoch, step }
            }
            14 => {
                let Some((group, epoch)) = self.pick_group() else { return };
                Operation::MoveLeader { group, epoch, node: one }
            }
            15 => {
                let rights = Rights { read: true, admin: one < other, ..Rights::default() };
                Operation::SetUser { name: name("ann"), user: User { password: one.0, rights } }
            }
            16 => Operation::RemoveUser { name: name("ann") },
            17 => {
                let (zone, addresses) = (name("z9"), vec!["10.0.0.1:1".parse().expect("an address")]);
                Operation::SetMember { node: one, zone, addresses }
            }
            18 => {
                let from = if one < other { ReadFrom::Any } else { ReadFrom::Lease };
                let reading = Reading { from, stale_ms_max: 7 };
                Operation::AlterKeyspace { keyspace, settings: Settings { reading, ..settings } }
            }
            19 if self.rng.chance(0.2) => {
                self.view.spoken = Version::NEWEST;
                return self.follow_plan();
            }
            20 => {
                let after = self.rng.chance(0.5).then(|| self.state.revision_number());
                Operation::SetMesh { after, settings: some_mesh(&mut self.rng) }
            }
            21 => {
                let to = self.rng.below(self.state.revision_number() + 2);
                Operation::RestoreMesh { after: None, to }
            }
            _ => return self.follow_plan(),
        };
        let _ = self.ask(operation);
    }

    /// The host sees some of what is so, and asks for what is planned then.
    fn follow_plan(&mut self) {
        let (learners, groups) = (self.learners(), self.groups());
        let rng = &mut self.rng;
        self.view.caught_up = learners.into_iter().filter(|_| rng.chance(0.7)).collect();
        self.view.settled = groups.into_iter().filter(|_| rng.chance(0.7)).collect();
        for operation in plan::next(&self.state, &self.view).expect("small enough") {
            self.ask(operation.clone()).unwrap_or_else(|refused| panic!("{operation}: {refused}"));
        }
    }
}

/// A part that refers to services.
pub fn part(name: &str, uses: &[&str], text: &str) -> Part {
    let uses = uses.iter().map(|&name| name.to_owned()).collect();
    Part { name: name.to_owned(), uses, text: text.to_owned() }
}

/// Settings of the proxies, mostly sound ones.
fn some_mesh(rng: &mut Rng) -> MeshSettings {
    let services: Vec<Part> =
        (0..rng.below(4)).map(|at| part(&format!("s{at}"), &[], "tries = 2\n")).collect();
    let routes = (0..rng.below(4)).map(|at| {
        let to = format!("s{}", rng.below(4));
        part(&format!("r{at}"), &[&to], "exact = true\n")
    });
    MeshSettings { listeners: vec![part("web", &[], "")], routes: routes.collect(), services }
}

/// A node that does what the difference says has what the new state says.
fn follow(before: &State, after: &State, node: NodeId) {
    let mut has = duties(before, node);
    let todo = diff(before, after, node);
    for (group, replica) in todo.stop {
        assert_eq!(has.remove(&group).map(|duty| duty.replica), Some(replica));
    }
    for (group, duty) in todo.start {
        assert!(has.insert(group, duty).is_none(), "started twice");
    }
    for (group, duty) in todo.change {
        assert!(has.insert(group, duty).is_some(), "changed before it was started");
    }
    assert_eq!(has, duties(after, node));
}
