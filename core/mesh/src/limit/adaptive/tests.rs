//! A service in virtual time that works on so many requests at once, and limits before it that do not know how many.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use kernel::Rng;
use proptest::prelude::*;

use super::*;

const START: Micros = Micros(1_700_000_000_000_000);
const SECOND: u64 = 1_000_000;

/// How long requests take.
#[derive(Clone, Copy)]
enum Work {
    /// Half to one and a half times as long as the mean.
    Even,
    /// By chance, as an exponential distribution has it.
    Exponential,
}

/// A service whose clients always want more than their limits let in.
struct World {
    now: Micros,
    rng: Rng,
    servers: usize,
    work: Work,
    micros: f64,
    limits: Vec<Adaptive>,
    /// Whose requests wait, and those that are worked on by the time when they end.
    waiting: VecDeque<(usize, Entered)>,
    busy: BTreeMap<(Micros, u64), (usize, Entered)>,
    begun: u64,
    ended: u64,
}

impl World {
    fn new(servers: usize, work: Work, limits: usize, seed: u64) -> World {
        let limit = Adaptive::new(AdaptiveOptions::default(), START);
        World {
            now: START,
            rng: Rng::new(seed),
            servers,
            work,
            micros: 5_000.0,
            limits: vec![limit; limits],
            waiting: VecDeque::new(),
            busy: BTreeMap::new(),
            begun: 0,
            ended: 0,
        }
    }

    fn time(&mut self) -> u64 {
        let unit = ((self.rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let times = match self.work {
            Work::Even => 0.5 + unit,
            Work::Exponential => -libm::log(unit),
        };
        (self.micros * times) as u64 + 1
    }

    /// Goes on for so long, with at most so many requests of each client; the mean of all limits together.
    fn run(&mut self, seconds: u64, clients: u32) -> f64 {
        let end = self.now + seconds * SECOND;
        let (mut sum, mut steps) = (0.0, 0.0);
        while self.now < end {
            for (at, limit) in self.limits.iter_mut().enumerate() {
                while limit.under_way() < limit.limit().min(clients) {
                    self.waiting.push_back((at, limit.enter(self.now)));
                }
            }
            while self.busy.len() < self.servers {
                let Some(next) = self.waiting.pop_front() else { break };
                self.begun += 1;
                let done = self.now + self.time();
                self.busy.insert((done, self.begun), next);
            }
            let ((now, _), (at, entered)) = self.busy.pop_first().expect("clients always ask");
            self.now = self.now.max(now);
            self.limits[at].leave(self.now, entered, Outcome::Success);
            self.ended += 1;
            sum += self.limits.iter().map(|limit| f64::from(limit.limit())).sum::<f64>();
            steps += 1.0;
        }
        sum / steps
    }

    /// What it ends in so long, of what it could.
    fn goodput(&mut self, seconds: u64) -> f64 {
        let before = self.ended;
        self.run(seconds, u32::MAX);
        let could = self.servers as f64 * (seconds * SECOND) as f64 / self.micros;
        (self.ended - before) as f64 / could
    }
}

#[test]
fn the_limit_settles_near_what_the_service_works_on_at_once_and_stays() {
    for work in [Work::Even, Work::Exponential] {
        for servers in [2, 4, 8, 32, 200] {
            for seed in 0..2 {
                let mut world = World::new(servers, work, 1, seed);
                // With few requests in a second there is little to judge by.
                world.run(if servers == 2 { 60 } else { 10 }, u32::MAX);
                for part in 0..2 {
                    let (limit, n) = (world.run(10, u32::MAX), servers as f64);
                    let near = (n * 0.85)..(n * 1.45 + 1.0);
                    assert!(near.contains(&limit), "{servers} servers, seed {seed}, {part}: {limit}");
                }
                let goodput = world.goodput(10);
                // Where two are worked on at once the lower turn may have half of that.
                let least = if servers == 2 { 0.8 } else { 0.9 };
                assert!(goodput > least, "{servers} servers, seed {seed}: {goodput}");
            }
        }
    }
}

#[test]
fn several_proxies_of_one_service_do_not_outbid_each_other() {
    for proxies in [2, 4, 8] {
        let mut world = World::new(64, Work::Even, proxies, 1);
        world.run(30, u32::MAX);
        let limit = world.run(30, u32::MAX);
        assert!((50.0..130.0).contains(&limit), "{proxies} proxies: {limit}");
    }
}

#[test]
fn it_falls_when_the_service_can_do_less_and_rises_when_it_can_do_more() {
    let mut world = World::new(100, Work::Even, 1, 1);
    world.run(30, u32::MAX);
    world.servers = 10;
    world.run(2, u32::MAX);
    let limit = world.run(2, u32::MAX);
    assert!(limit < 40.0, "nine of ten are gone: {limit}");
    world.run(20, u32::MAX);
    let limit = world.run(5, u32::MAX);
    assert!((8.0..16.0).contains(&limit), "{limit}");
    world.servers = 100;
    world.run(20, u32::MAX);
    let limit = world.run(5, u32::MAX);
    assert!((85.0..150.0).contains(&limit), "they are back: {limit}");
}

#[test]
fn requests_that_take_longer_for_good_need_no_lower_limit() {
    let mut world = World::new(32, Work::Even, 1, 1);
    world.run(20, u32::MAX);
    world.micros = 50_000.0;
    world.run(60, u32::MAX);
    let limit = world.run(20, u32::MAX);
    assert!((27.0..50.0).contains(&limit), "{limit}");
}

#[test]
fn a_service_that_is_not_busy_keeps_its_limit() {
    let mut world = World::new(50, Work::Exponential, 1, 1);
    world.run(60, 3);
    assert!([18, 23].contains(&world.limits[0].limit()), "{}", world.limits[0].limit());
}

#[test]
fn a_limit_that_is_not_reached_is_cut_to_what_is_used_and_no_further() {
    let mut one = Adaptive::new(AdaptiveOptions { first: 10, ..AdaptiveOptions::default() }, START);
    one.go_to(1024.0);
    let mut now = START;
    let mut ask = |one: &mut Adaptive, micros: u64, count: u64| {
        for _ in 0..count {
            let all: Vec<Entered> = (0..64).map(|_| one.enter(now)).collect();
            now = now + micros;
            all.into_iter().for_each(|entered| one.leave(now, entered, Outcome::Success));
        }
    };
    ask(&mut one, 1_000, 400);
    assert!(one.limit() > 800, "{}", one.limit());
    for _ in 0..200 {
        if one.limit() > 72 {
            ask(&mut one, 50_000, 1);
        }
    }
    assert!([56, 72].contains(&one.limit()), "{}", one.limit());
}

#[test]
fn quick_failures_and_clients_that_left_are_no_samples() {
    let mut one = Adaptive::new(AdaptiveOptions { first: 4, ..AdaptiveOptions::default() }, START);
    for outcome in [Outcome::Failure, Outcome::Abandoned] {
        for at in 0..1000 {
            let entered = one.enter(START + at);
            one.leave(START + (at + 1), entered, outcome);
        }
    }
    let entered = one.enter(START);
    one.withdraw(START, entered);
    assert!([4, 5].contains(&one.limit()));
    assert_eq!((one.recent.samples, one.under_way()), (0, 0));
}

#[test]
fn limits_differ_unless_the_bounds_do_not() {
    #[rustfmt::skip] // columns
    let table = [
        // first least  most   lower, higher
        (20,     2,     1024,  [18, 23]),
        (4,      2,     1024,  [4, 5]),
        (1,      1,     1024,  [1, 2]),
        (1,      1,     1,     [1, 1]),
        (9000,   2,     100,   [88, 100]),
        (0,      7,     9,     [7, 8]),
    ];
    for (first, least, most, limits) in table {
        let one = Adaptive::new(AdaptiveOptions { first, least, most }, START);
        assert_eq!(one.limits(), limits, "{first} {least} {most}");
        assert!(limits.contains(&one.limit()));
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_limit_keeps_to_its_bounds(
        steps in prop::collection::vec((0u8..8, 0u64..200_000), 1..2_000),
        least in 1u32..20,
        more in 0u32..2_000,
        first in 0u32..3_000,
    ) {
        let options = AdaptiveOptions { first, least, most: least + more };
        let (mut one, mut now, mut out) = (Adaptive::new(options, START), START, VecDeque::new());
        for (step, micros) in steps {
            now = now + micros;
            match step {
                0..4 => out.push_back(one.enter(now)),
                _ => {
                    let Some(entered) = out.pop_front() else { continue };
                    match step {
                        4 => one.leave(now, entered, Outcome::Failure),
                        5 => one.leave(now, entered, Outcome::Timeout),
                        6 if micros % 7 == 0 => one.withdraw(now, entered),
                        _ => one.leave(now, entered, Outcome::Success),
                    }
                }
            }
            prop_assert!((options.least..=options.most).contains(&one.limit()));
            prop_assert_eq!(one.under_way() as usize, out.len());
            prop_assert!(one.usual.is_finite() && one.middle.is_finite());
        }
    }
}
