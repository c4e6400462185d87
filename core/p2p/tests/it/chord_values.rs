//! Values stay where they are found, whoever leaves, dies and comes at the same time, over links that lose and delay.

use p2p::chord::{Command, Outcome, Settings, Tag};

use crate::chord_world::{MINUTE, SECOND, World};

/// Values on the ring.
const VALUES: u64 = 40;
/// How long it may take to become one ring once it is quiet, in seconds.
const SECONDS_MAX: u64 = 600;
/// Rounds of leaving and coming in one seed.
const ROUNDS: u64 = 4;
/// So many stay in a round.
const LIVING_MIN: usize = 4;
/// Nodes that come in a round, at most.
const COMING_MAX: u64 = 3;

fn settings() -> Settings {
    Settings { successors: 4, ..Settings::default() }
}

/// What a seed does.
#[derive(Clone, Copy)]
struct Turmoil {
    settings: Settings,
    /// Seconds between two rounds: at least so many, and up to so many more.
    pause: (u64, u64),
    /// How many go in a round.
    going: usize,
    /// Each node meets another once it is quiet: so many at once may have torn the ring into several of which each knows only
    /// the dead of the others. A host dials those it was told of then; here nobody does.
    meeting: bool,
}

impl Turmoil {
    /// A ring with values, and rounds in which some go and others come; then it is quiet, and one ring again.
    fn run(self, seed: u64) -> World {
        let mut world = self.quiet(seed);
        let living = world.living().len();
        assert!(world.becomes_one(SECONDS_MAX).is_some(), "seed {seed}: {living} nodes are no ring");
        // What somebody missed comes with the next repair.
        world.pass(3 * MINUTE);
        world
    }

    /// The same, as it is when it becomes quiet.
    fn quiet(self, seed: u64) -> World {
        let mut world = World::new(seed, 40, self.settings);
        let count = 8 + world.rng.below(12) as u32;
        world.ring(&(0..count).collect::<Vec<_>>());
        for n in 0..VALUES {
            let node = world.rng.below(u64::from(count)) as u32;
            world.put(node, n);
        }
        world.pass(20 * SECOND);
        (world.loss, world.slow) = (0.03, 0.05);
        let mut next = count;
        for _ in 0..ROUNDS {
            next = self.round(&mut world, next);
            let pause = self.pause.0 + world.rng.below(self.pause.1);
            world.pass(pause * SECOND);
        }
        (world.loss, world.slow) = (0.0, 0.0);
        // Those that leave have left.
        world.pass(10 * SECOND);
        for node in world.living() {
            let machine = world.nodes[node as usize].as_ref();
            if machine.is_some_and(|machine| !machine.is_member()) {
                // It was on its way in through one that has gone. A host begins anew.
                world.kill(node);
            } else if self.meeting || machine.is_some_and(p2p::chord::Chord::is_alone) {
                // A host that is connected to nobody dials those that it was told of.
                let peer = world.living().into_iter().find(|peer| *peer != node);
                peer.into_iter().for_each(|peer| world.command(node, Command::Meet { peer }));
            }
        }
        world
    }

    /// Some leave or die and some come, all within two seconds. Returns who has not come yet.
    fn round(self, world: &mut World, mut next: u32) -> u32 {
        let living = world.living();
        let first = world.rng.below(living.len() as u64) as usize;
        // Neighbours, or others.
        let apart = if world.rng.chance(0.7) { 1 } else { 1 + world.rng.below(3) as usize };
        let mut going: Vec<u32> =
            (0..self.going).map(|n| living[(first + n * apart) % living.len()]).collect();
        going.dedup();
        going.truncate(living.len().saturating_sub(LIVING_MIN));
        let mut coming = world.rng.below(COMING_MAX + 1);
        while !going.is_empty() || coming > 0 {
            if coming > 0 && (going.is_empty() || world.rng.chance(0.5)) {
                coming -= 1;
                // Through any of those that were there when it began.
                let contacts: Vec<u32> =
                    (0..3).map(|_| living[world.rng.below(living.len() as u64) as usize]).collect();
                if world.rng.chance(0.5) {
                    world.born(next, Command::Join { seed: contacts[0] });
                } else {
                    world.born(next, Command::Create);
                    contacts.iter().for_each(|&peer| world.command(next, Command::Meet { peer }));
                }
                next += 1;
            } else if let Some(node) = going.pop() {
                if world.rng.chance(0.5) { world.leave(node) } else { world.kill(node) }
            }
            let pause = world.rng.below(SECOND);
            if world.rng.chance(0.5) {
                world.pass(pause);
            }
        }
        next
    }
}

#[test]
fn two_go_at_once_while_others_come_and_every_value_is_found_from_everywhere() {
    let turmoil = Turmoil { settings: settings(), pause: (75, 30), going: 2, meeting: false };
    for seed in 0..120 {
        let mut world = turmoil.run(seed);
        assert_eq!(world.gone(0..VALUES), [0; 0], "seed {seed}: nobody keeps them");
        let values: Vec<u64> = (0..VALUES).collect();
        assert_eq!(world.missed(&values), [], "seed {seed}: not found");
    }
}

#[test]
fn however_many_go_at_once_what_anybody_keeps_is_found_from_everywhere() {
    let turmoil = Turmoil { settings: settings(), pause: (0, 12), going: 3, meeting: true };
    let mut gone = 0;
    for seed in 1000..1120 {
        let mut world = turmoil.run(seed);
        let lost = world.gone(0..VALUES);
        gone += lost.len();
        let kept: Vec<u64> = (0..VALUES).filter(|n| !lost.contains(n)).collect();
        assert_eq!(world.missed(&kept), [], "seed {seed}: not found");
    }
    println!("{gone} of {} values were lost with all that kept them", 120 * VALUES);
}

/// In each of these seeds some that were let in made a ring of their own when all others died that they had heard of.
#[test]
fn who_is_torn_off_comes_back_by_those_that_let_it_in() {
    let turmoil = Turmoil { settings: settings(), pause: (0, 12), going: 3, meeting: false };
    for seed in [1057, 1067, 1160, 1240, 1241, 1261, 1319, 1373, 1378] {
        turmoil.run(seed);
    }
}

#[test]
fn without_copies_what_the_dead_kept_is_gone() {
    let turmoil =
        Turmoil { settings: Settings { copies: 1, ..settings() }, pause: (75, 30), going: 2, meeting: false };
    let lost = (0..20).filter(|&seed| {
        let mut world = turmoil.run(seed);
        let values: Vec<u64> = (0..VALUES).collect();
        !world.gone(0..VALUES).is_empty() && !world.missed(&values).is_empty()
    });
    assert!(lost.count() > 15);
}

/// Puts values over a bad net and kills the owner of each as soon as it is told to be stored; how many were, and how many
/// nobody keeps then.
fn owners_die_with_their_word(settings: Settings) -> (usize, usize) {
    let (mut told, mut gone) = (0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed, 10, settings);
        world.ring(&(0..10).collect::<Vec<_>>());
        world.pass(20 * SECOND);
        world.loss = 0.3;
        let putter = world.rng.below(10) as u32;
        world.put(putter, 7);
        let stored = |world: &World| {
            let mut outcomes = world.outcomes.iter();
            outcomes.any(|(_, outcome)| matches!(outcome, Outcome::Stored { tag: Tag(7), .. }))
        };
        for _ in 0..60_000 {
            if stored(&world) {
                break;
            }
            world.pass(1000);
        }
        if !stored(&world) {
            continue;
        }
        told += 1;
        world.kill(world.owner(7));
        world.loss = 0.0;
        assert!(world.becomes_one(SECONDS_MAX).is_some(), "seed {seed}");
        world.pass(3 * MINUTE);
        gone += world.gone(7..8).len();
        if world.gone(7..8).is_empty() {
            assert_eq!(world.missed(&[7]), [], "seed {seed}: not found");
        }
    }
    (told, gone)
}

#[test]
fn an_owner_that_dies_with_its_word_takes_no_value_with_it() {
    let (told, gone) = owners_die_with_their_word(settings());
    assert!(told > 100, "{told} puts are no test");
    assert_eq!(gone, 0, "of {told}");
    // Without copies its word is worth no more than it is.
    let alone = owners_die_with_their_word(Settings { copies: 1, ..settings() });
    assert!(alone.1 > 30, "{alone:?}");
}
