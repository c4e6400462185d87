//! Several registries on a network that loses, delays and parts: whatever happens, in the end all know what is registered.

use std::collections::{BTreeMap, BTreeSet};

use kernel::{Micros, NodeId, Rng};
use mesh::registry::{
    Check, DIGEST_MS, Health, Instance, Node, Outgoing, Registry, TOMBSTONE_MS, Topic, View, WaiterId,
    Weights,
};

const START: Micros = Micros(1_700_000_000_000_000);

pub fn id(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 32])
}

pub fn node(number: usize) -> Node {
    Node { name: format!("n{number}"), address: format!("10.0.0.{number}"), ..Node::default() }
}

pub fn instance(id: &str, service: &str, port: u16) -> Instance {
    Instance {
        id: id.into(),
        service: service.into(),
        port,
        weights: Weights::default(),
        ..Instance::default()
    }
}

/// One registry and what should be registered there.
struct Place {
    registry: Registry,
    incarnation: u64,
    registered: BTreeMap<String, Instance>,
    /// The highest index that was seen, by service.
    seen: BTreeMap<String, u64>,
    waiting: BTreeMap<WaiterId, (Topic, u64, bool)>,
}

impl Place {
    fn new(
        now: Micros,
        number: usize,
        incarnation: u64,
        index: u64,
        registered: BTreeMap<String, Instance>,
    ) -> Place {
        let rng = Rng::new(incarnation ^ number as u64);
        let mut registry = Registry::new(now, id(number), incarnation, index, node(number), rng)
            .expect("a node is within its bounds");
        registered
            .values()
            .for_each(|it| registry.register(now, it.clone()).expect("it is within its bounds"));
        Place { registry, incarnation, registered, seen: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Indexes do not fall, and who waits is woken when one has moved.
    fn hold(&mut self) {
        let view = self.registry.view();
        for name in self.seen.keys().cloned().collect::<Vec<_>>() {
            let index = view.index_of(&Topic::Service(name.as_str().into()));
            let seen = self.seen.insert(name, index).expect("it was among them");
            assert!(index >= seen, "an index falls");
        }
        for service in view.services() {
            self.seen.insert(service.name.to_string(), service.index);
        }
        let mut woken = Vec::new();
        self.registry.take_woken(&mut woken);
        woken.iter().for_each(|id| drop(self.waiting.remove(id)));
        let view = self.registry.view();
        for (topic, index, was_there) in self.waiting.values() {
            // The index of what there is not also grows when another service goes.
            let still = view.index_of(topic) == *index || !(was_there | is_there(view, topic));
            assert!(still, "somebody waits although {topic:?} has changed");
        }
    }
}

fn is_there(view: &View, topic: &Topic) -> bool {
    match topic {
        Topic::Service(name) => view.service(name).is_some(),
        Topic::Catalog | Topic::All => true,
    }
}

/// Registries, and frames between them.
pub struct World {
    pub now: Micros,
    rng: Rng,
    places: Vec<Place>,
    flying: BTreeMap<(Micros, u64), (usize, Outgoing)>,
    sent: u64,
    /// When the last frame of a link arrives: those of one arrive in order.
    last: BTreeMap<(usize, usize), Micros>,
    /// The side of each; frames between two sides are lost.
    side: Vec<bool>,
    loss: f64,
}

impl World {
    pub fn new(count: usize, seed: u64) -> World {
        let places = (0..count).map(|number| Place::new(START, number, 1, 0, BTreeMap::new())).collect();
        let (rng, side) = (Rng::new(seed), vec![false; count]);
        let mut world = World {
            now: START,
            rng,
            places,
            flying: BTreeMap::new(),
            sent: 0,
            last: BTreeMap::new(),
            side,
            loss: 0.0,
        };
        (0..count).for_each(|number| world.introduce(number));
        world
    }

    fn introduce(&mut self, number: usize) {
        let others = (0..self.places.len()).filter(|other| *other != number).map(id).collect();
        self.places[number].registry.set_members(self.now, others, BTreeSet::new());
    }

    fn send(&mut self, number: usize) {
        let mut frames = Vec::new();
        self.places[number].registry.take_frames(&mut frames);
        for frame in frames {
            let to = usize::from(frame.to.0[0]) - 1;
            if self.side[to] == self.side[number] && !self.rng.chance(self.loss) {
                self.sent += 1;
                let last = self.last.entry((number, to)).or_default();
                let at = (self.now + (1 + self.rng.below(50_000))).max(*last);
                *last = at;
                self.flying.insert((at, self.sent), (number, frame));
            }
        }
    }

    /// Lets `millis` pass.
    pub fn run(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        loop {
            let due =
                self.places.iter().map(|place| place.registry.deadline()).min().expect("there are places");
            let next = self.flying.keys().next().map_or(due, |&(at, _)| at.min(due)).max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= next) {
                let (from, frame) = entry.remove();
                let to = usize::from(frame.to.0[0]) - 1;
                self.places[to].registry.receive(self.now, id(from), &frame.bytes).expect("it is a frame");
                self.send(to);
                self.places[to].hold();
            }
            for number in 0..self.places.len() {
                if self.places[number].registry.deadline() <= self.now {
                    self.places[number].registry.wake(self.now);
                    self.send(number);
                    self.places[number].hold();
                }
            }
        }
        self.now = end;
    }

    /// Something happens at some node.
    fn happen(&mut self) {
        let number = self.rng.below(self.places.len() as u64) as usize;
        let (now, what) = (self.now, self.rng.below(12));
        let name = format!("i{}", self.rng.below(6));
        let place = &mut self.places[number];
        match what {
            0..5 => {
                let service = format!("s{}", self.rng.below(3));
                let it = instance(&name, &service, 1 + self.rng.below(9) as u16);
                place.registry.register(now, it.clone()).expect("it is within its bounds");
                place.registered.insert(name, it);
            }
            5..7 => {
                let there = place.registered.remove(&name).is_some();
                assert_eq!(place.registry.deregister(now, &name).is_ok(), there);
            }
            7..9 => {
                if let Some(it) = place.registered.get_mut(&name) {
                    let status =
                        [Health::Passing, Health::Warning, Health::Critical][self.rng.below(3) as usize];
                    let check = Check { id: "c".into(), status, ..Check::default() };
                    it.checks = vec![check.clone()];
                    place.registry.set_check(now, &name, check).expect("it is there");
                }
            }
            9 => {
                let topic = [Topic::All, Topic::Catalog, Topic::Service("s1".into())]
                    [self.rng.below(3) as usize]
                    .clone();
                let view = place.registry.view();
                let (index, was_there) = (view.index_of(&topic), is_there(view, &topic));
                let waiter =
                    place.registry.wait(topic.clone(), now.plus_millis(60_000_000)).expect("there is room");
                place.waiting.insert(waiter, (topic, index, was_there));
            }
            10 => {
                // Another life: with some of what there was, from a file that is not the newest.
                let mut registered = place.registered.clone();
                registered.retain(|_, _| self.rng.chance(0.7));
                let (life, index) = (place.incarnation + 1, place.registry.view().index());
                *place = Place::new(now, number, life, index, registered);
                self.introduce(number);
            }
            _ => self.side[number] = !self.side[number],
        }
        self.send(number);
        self.places[number].hold();
    }

    /// Whether every registry knows exactly what is registered.
    pub fn agrees(&self) -> bool {
        let mut expected = BTreeMap::new();
        for (number, place) in self.places.iter().enumerate() {
            expected
                .extend(place.registered.iter().map(|(name, it)| ((id(number), name.clone()), it.clone())));
        }
        self.places.iter().all(|place| {
            let entries = place.registry.view().services().flat_map(|service| &service.entries);
            let known: BTreeMap<(NodeId, String), Instance> =
                entries.map(|it| ((it.host.id, it.instance.id.clone()), (*it.instance).clone())).collect();
            known == expected
        })
    }

    fn heal(&mut self) {
        self.side.fill(false);
        self.loss = 0.0;
    }
}

/// Random events on a bad network, then a good one.
pub fn all_agree_in_the_end(seed: u64) -> bool {
    let mut world = World::new(2 + (seed % 4) as usize, seed);
    world.loss = 0.3;
    for _ in 0..60 {
        world.happen();
        let millis = world.rng.below(400);
        world.run(millis);
    }
    world.heal();
    world.run(60 * DIGEST_MS);
    world.agrees()
}

/// One side removes while the other cannot hear it, for longer than removals are remembered.
pub fn what_was_removed_long_ago_stays_removed() -> bool {
    let mut world = World::new(3, 7);
    let now = world.now;
    for name in ["stays", "goes"] {
        world.places[0].registry.register(now, instance(name, "web", 1)).expect("it is within its bounds");
        world.places[0].registered.insert(name.into(), instance(name, "web", 1));
    }
    world.send(0);
    world.run(5 * DIGEST_MS);
    assert!(world.agrees(), "all know both");
    world.side[2] = true;
    world.places[0].registry.deregister(world.now, "goes").expect("it is there");
    world.places[0].registered.remove("goes");
    world.send(0);
    world.run(2 * TOMBSTONE_MS);
    world.heal();
    world.run(30 * DIGEST_MS);
    world.agrees()
}

/// Registries whose every push is lost: what was written before is asked for.
pub fn a_gap_is_filled() -> bool {
    let mut world = World::new(2, 3);
    // Between two digests, so that none is under way.
    world.run(3 * DIGEST_MS + DIGEST_MS / 2);
    for (at, name) in ["lost", "heard"].into_iter().enumerate() {
        world.loss = if at == 0 { 1.0 } else { 0.0 };
        world.places[0]
            .registry
            .register(world.now, instance(name, "web", 1))
            .expect("it is within its bounds");
        world.places[0].registered.insert(name.into(), instance(name, "web", 1));
        world.send(0);
    }
    world.run(10 * DIGEST_MS);
    world.agrees()
}

#[test]
fn all_know_all_in_the_end_whatever_the_network_does() {
    for seed in 0..300 {
        assert!(all_agree_in_the_end(seed), "seed {seed}");
    }
}

#[test]
fn the_same_seed_ends_in_the_same_frames() {
    let frames = |seed| {
        let mut world = World::new(3, seed);
        (0..30).for_each(|_| {
            world.happen();
            world.run(100);
        });
        (world.sent, world.now)
    };
    assert_eq!(frames(11), frames(11));
    assert_ne!(frames(11).0, frames(12).0);
}

#[test]
fn a_copy_of_many_instances_comes_in_several_frames() {
    let mut world = World::new(2, 1);
    let now = world.now;
    for number in 0..4000 {
        let mut it = instance(&format!("i{number}"), &format!("s{}", number % 100), 1);
        it.meta.insert("text".into(), "x".repeat(200));
        world.places[0].registry.register(now, it.clone()).expect("it is within its bounds");
        world.places[0].registered.insert(it.id.clone(), it);
    }
    // Nobody was told: the second asks.
    world.loss = 1.0;
    world.send(0);
    world.loss = 0.0;
    world.run(10 * DIGEST_MS);
    assert!(world.sent > 8, "{} frames", world.sent);
    assert!(world.agrees());
}
