//! What spares a service in an overload, and what breaks it.

use std::collections::VecDeque;

use kernel::Micros;
use kernel::planted::Bug;
use mesh::Outcome;
use mesh::balance::{Endpoint, Policy};
use mesh::limit::adaptive::Entered;
use mesh::limit::{Adaptive, AdaptiveOptions, Priority};
use mesh::queue::{NoPlace, Queue, QueueOptions};
use mesh::upstream::{Told, Upstream, UpstreamOptions};

use crate::NOW;

/// Those of `Bug::OVERLOAD`.
pub const CHECKS: [(Bug, fn() -> bool); 9] = [
    (Bug::MoreIsAlwaysWorth, a_limit_stays_near_what_is_worked_on_at_once),
    (Bug::LimitBelowLeast, a_limit_keeps_to_its_least),
    (Bug::GrowthIgnored, a_sudden_growth_cuts_at_once),
    (Bug::UsualNeverRises, a_slower_service_keeps_its_limit),
    (Bug::FailureIsSample, failures_raise_nothing),
    (Bug::TunnelKeepsRoom, tunnels_leave_room),
    (Bug::DisplacesFirst, the_least_important_goes),
    (Bug::LateWaits, who_would_be_late_is_told),
    (Bug::DisplacedStillCounted, who_was_sent_away_holds_nobody_up),
];

/// A service that ends its requests evenly, `servers` of them in `micros`, behind a limit that is always used up.
struct World {
    limit: Adaptive,
    now: Micros,
    servers: u64,
    micros: u64,
    waiting: VecDeque<Entered>,
    outcome: Outcome,
}

impl World {
    fn new(servers: u64, micros: u64) -> World {
        let options = AdaptiveOptions { first: 20, least: 8, most: 1_000 };
        let (limit, outcome) = (Adaptive::new(options, NOW), Outcome::Success);
        World { limit, now: NOW, servers, micros, waiting: VecDeque::new(), outcome }
    }

    /// The limits after so many milliseconds, the lowest and the highest of the last quarter.
    fn run(&mut self, ms: u64) -> (u32, u32) {
        let (began, mut seen) = (self.now, (u32::MAX, 0));
        while self.now.since(began) < ms * 1_000 {
            while self.limit.under_way() < self.limit.limit() {
                self.waiting.push_back(self.limit.enter(self.now));
            }
            self.now = self.now + self.micros / self.servers.min(self.waiting.len() as u64);
            let first = self.waiting.pop_front().expect("the limit lets one in");
            self.limit.leave(self.now, first, self.outcome);
            if self.now.since(began) * 4 > ms * 3_000 {
                seen = (seen.0.min(self.limit.limit()), seen.1.max(self.limit.limit()));
            }
        }
        seen
    }
}

fn a_limit_stays_near_what_is_worked_on_at_once() -> bool {
    let (low, high) = World::new(32, 5_000).run(60_000);
    low >= 24 && high <= 50
}

fn a_limit_keeps_to_its_least() -> bool {
    World::new(1, 5_000).run(60_000).0 >= 8
}

fn a_sudden_growth_cuts_at_once() -> bool {
    let mut world = World::new(200, 5_000);
    world.run(60_000);
    world.servers = 20;
    world.run(1_000).1 <= 100
}

fn a_slower_service_keeps_its_limit() -> bool {
    let mut world = World::new(64, 5_000);
    world.run(60_000);
    world.micros = 50_000;
    world.run(120_000).0 >= 48
}

fn failures_raise_nothing() -> bool {
    let mut world = World::new(500, 5_000);
    world.outcome = Outcome::Failure;
    world.run(10_000).1 <= 23
}

fn upstream(least: u32) -> Upstream {
    let adaptive = Some(AdaptiveOptions { first: least, least, most: least });
    let options = UpstreamOptions { policy: Policy::RoundRobin, adaptive, ..UpstreamOptions::default() };
    let mut upstream = Upstream::new(options, NOW, 1);
    let endpoint = Endpoint { name: 1, weight: 1, zone: 0 };
    upstream.set_endpoints(NOW, &[Told { id: 1, endpoint, healthy: true }]);
    upstream
}

fn tunnels_leave_room() -> bool {
    let mut upstream = upstream(2);
    for _ in 0..10 {
        let Ok(mut ticket) = upstream.enter(NOW, None, None) else { return false };
        upstream.lasts(NOW, &mut ticket);
    }
    true
}

fn queue(places: u32) -> Queue {
    Queue::new(QueueOptions { places, wait_ms: 50 })
}

fn the_least_important_goes() -> bool {
    let mut queue = queue(2);
    for (who, class) in [(0, Priority::High), (1, Priority::Low)] {
        let _ = queue.wait(NOW, class, who).expect("there are two places");
    }
    queue.wait(NOW, Priority::Normal, 2).is_ok_and(|waits| waits.displaced == Some(1))
}

/// One is granted room every 20 ms: of those who come then a third one waits too long.
fn who_would_be_late_is_told() -> bool {
    let mut queue = queue(10);
    for who in 0..3 {
        let _ = queue.wait(NOW, Priority::Normal, who).expect("there are ten places");
    }
    for turn in 1..3 {
        queue.grant(NOW.plus_millis(turn * 20), 0, 9);
        queue.spend();
    }
    let then = NOW.plus_millis(40);
    let first = queue.wait(then, Priority::Normal, 3).is_ok();
    first && matches!(queue.wait(then, Priority::Normal, 4), Err(NoPlace::Late { .. }))
}

fn who_was_sent_away_holds_nobody_up() -> bool {
    let mut queue = queue(1);
    let _ = queue.wait(NOW, Priority::Low, 0).expect("there is a place");
    let high = queue.wait(NOW, Priority::High, 1).expect("it is the more important one's");
    queue.leave(high.place);
    // Nobody waits, so nobody is before it.
    queue.wait(NOW.plus_millis(30), Priority::Low, 2).is_ok()
}
