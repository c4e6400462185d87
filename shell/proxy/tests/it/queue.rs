//! Requests that wait for room at their service.

use std::io::Write;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use mesh::limit::{AdaptiveOptions, Priority};
use mesh::queue::QueueOptions;
use mesh::route::Routes;
use proxy::Plan;

use crate::world::{Backend, Client, World, listener, nobody, plan, read_head, route, rule};

/// A server that answers a request when it is told to, and in which order they came.
struct Gate {
    backend: Backend,
    open: Sender<()>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    fn new() -> Gate {
        let (open, opened) = channel();
        let opened = Mutex::new(opened);
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let paths = Arc::clone(&seen);
        let backend = Backend::start(move |stream, _| {
            while let Some(head) = read_head(stream) {
                paths.lock().unwrap().push(head.split(' ').nth(1).unwrap().to_owned());
                if opened.lock().unwrap().recv().is_err() {
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        Gate { backend, open, seen }
    }

    /// One request is under way at once, and so many may wait.
    fn plan(&self, places: u32, wait_ms: u64) -> Plan {
        let mut plan = plan(&[self.backend.address]);
        plan.services[0].options.breaker.requests_max = 1;
        plan.services[0].options.queue = QueueOptions { places, wait_ms };
        plan
    }
}

const HOUR_MS: u64 = 3_600_000;

fn get(world: &World, path: &str) -> Client {
    let mut client = world.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client
}

fn queued(world: &World, count: u64) {
    world.until("so many have waited", |meters| meters.services(|one| one.queued.get(), false)[0].1 == count);
}

#[test]
fn who_waits_is_served_in_turn_and_who_finds_no_place_is_told() {
    let gate = Gate::new();
    let world = World::new(gate.plan(2, HOUR_MS));
    let mut clients = Vec::new();
    for (at, path) in ["/0", "/1", "/2"].into_iter().enumerate() {
        clients.push(get(&world, path));
        if at == 0 {
            world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
        } else {
            queued(&world, at as u64);
        }
    }
    let full = get(&world, "/3").reply("GET");
    assert_eq!((full.status, full.reason()), (503, "queue-full"));
    for client in &mut clients {
        gate.open.send(()).unwrap();
        assert_eq!(client.reply("GET").status, 200);
    }
    assert_eq!(*gate.seen.lock().unwrap(), ["/0", "/1", "/2"]);
    // There is room again, and nobody waits.
    gate.open.send(()).unwrap();
    assert_eq!(get(&world, "/4").reply("GET").status, 200);
    queued(&world, 2);
}

#[test]
fn without_places_nobody_waits() {
    let gate = Gate::new();
    let world = World::new(gate.plan(0, HOUR_MS));
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    assert_eq!(get(&world, "/1").reply("GET").reason(), "too-many");
    gate.open.send(()).unwrap();
    assert_eq!(first.reply("GET").status, 200);
}

#[test]
fn a_wait_has_an_end_and_leaves_no_gap() {
    let gate = Gate::new();
    let world = World::new(gate.plan(3, 50));
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    let late = get(&world, "/1").reply("GET");
    assert_eq!((late.status, late.reason()), (503, "queue-timeout"));
    assert_eq!(late.field("retry-after"), Some("1"));
    gate.open.send(()).unwrap();
    assert_eq!(first.reply("GET").status, 200);
    gate.open.send(()).unwrap();
    assert_eq!(get(&world, "/2").reply("GET").status, 200);
    assert_eq!(*gate.seen.lock().unwrap(), ["/0", "/2"], "what was given up never came");
}

#[test]
fn who_leaves_the_queue_holds_nobody_up() {
    let gate = Gate::new();
    let world = World::new(gate.plan(3, HOUR_MS));
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    let leaves = get(&world, "/1");
    queued(&world, 1);
    let mut stays = get(&world, "/2");
    queued(&world, 2);
    leaves.reset();
    world.until("it has left", |meters| meters.routes().first().is_some_and(|route| route.classes[0] == 1));
    gate.open.send(()).unwrap();
    assert_eq!(first.reply("GET").status, 200);
    gate.open.send(()).unwrap();
    assert_eq!(stays.reply("GET").status, 200);
    assert_eq!(*gate.seen.lock().unwrap(), ["/0", "/2"]);
}

#[test]
fn important_routes_go_first() {
    let gate = Gate::new();
    let mut plan = gate.plan(9, HOUR_MS);
    plan.routes.push(route("high", 0));
    plan.routes[0].priority = Priority::Low;
    plan.routes[1].priority = Priority::High;
    plan.index = Routes::new(&[rule("*", "/"), rule("*", "/high")]).unwrap();
    let world = World::new(plan);
    let mut clients = vec![get(&world, "/0")];
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    for (count, path) in (1..).zip(["/1", "/high/1", "/2", "/high/2"]) {
        clients.push(get(&world, path));
        queued(&world, count);
    }
    (0..5).for_each(|_| gate.open.send(()).unwrap());
    assert!(clients.iter_mut().all(|client| client.reply("GET").status == 200));
    assert_eq!(*gate.seen.lock().unwrap(), ["/0", "/high/1", "/high/2", "/1", "/2"]);
}

#[test]
fn those_who_wait_for_a_service_that_goes_are_all_told() {
    let gate = Gate::new();
    let mut world = World::new(gate.plan(9, HOUR_MS));
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    let mut waiting = Vec::new();
    for count in 1..4 {
        waiting.push(get(&world, "/w"));
        queued(&world, count);
    }
    let mut other = plan(&[nobody()]);
    other.services[0].name = "other".into();
    other.listeners = vec![listener("web", proxy::ListenerKind::Http)];
    world.proxy.follow(other).unwrap();
    gate.open.send(()).unwrap();
    assert_eq!(first.reply("GET").status, 200);
    for client in &mut waiting {
        assert_eq!(client.reply("GET").reason(), "no-endpoint");
    }
}

#[test]
fn more_room_is_used_at_once() {
    let gate = Gate::new();
    let mut world = World::new(gate.plan(9, HOUR_MS));
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    let mut second = get(&world, "/1");
    queued(&world, 1);
    let mut wider = gate.plan(9, HOUR_MS);
    wider.services[0].options.breaker.requests_max = 2;
    world.proxy.follow(wider).unwrap();
    world.until("both are under way", |_| gate.seen.lock().unwrap().len() == 2);
    (0..2).for_each(|_| gate.open.send(()).unwrap());
    assert_eq!((first.reply("GET").status, second.reply("GET").status), (200, 200));
}

/// How many of each priority were not sent to their service, the least important first.
fn shed(world: &World) -> [u64; 3] {
    let figures: [fn(&proxy::ServiceMeters) -> u64; 3] =
        [|one| one.shed[0].get(), |one| one.shed[1].get(), |one| one.shed[2].get()];
    figures.map(|figure| world.meters.services(figure, false)[0].1)
}

#[test]
fn the_least_important_is_sent_away_for_who_comes_and_is_told_why() {
    let gate = Gate::new();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let mut plan = gate.plan(2, HOUR_MS);
    plan.routes.extend([route("high", 0), route("low", 0)]);
    plan.routes[1].priority = Priority::High;
    plan.routes[2].priority = Priority::Low;
    plan.index = Routes::new(&[rule("*", "/"), rule("*", "/high"), rule("*", "/low")]).unwrap();
    plan.telling.access_log = Some(log.clone());
    let world = World::new(plan);
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    let mut waiting = Vec::new();
    for (count, path) in (1..).zip(["/low/1", "/low/2"]) {
        waiting.push(get(&world, path));
        queued(&world, count);
    }
    // The one that came last goes for the first that is more important, and so on; none of a kind goes for another.
    let mut normal = get(&world, "/1");
    let told = waiting.pop().unwrap().reply("GET");
    assert_eq!((told.status, told.reason(), told.field("retry-after")), (503, "displaced", Some("1")));
    let mut high = get(&world, "/high/1");
    assert_eq!(waiting.pop().unwrap().reply("GET").reason(), "displaced");
    queued(&world, 4);
    assert_eq!(get(&world, "/2").reply("GET").reason(), "queue-full");
    let mut higher = get(&world, "/high/2");
    assert_eq!(normal.reply("GET").reason(), "displaced");
    queued(&world, 5);
    (0..3).for_each(|_| gate.open.send(()).unwrap());
    assert!([&mut first, &mut high, &mut higher].into_iter().all(|client| client.reply("GET").status == 200));
    assert_eq!(*gate.seen.lock().unwrap(), ["/0", "/high/1", "/high/2"]);
    assert_eq!(shed(&world), [2, 2, 0]);
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.matches("\"reason\":\"displaced\"").count(), 3, "{lines}");
}

#[test]
fn a_client_that_was_sent_away_asks_again_on_its_connection() {
    let gate = Gate::new();
    let mut plan = gate.plan(1, HOUR_MS);
    plan.routes.push(route("high", 0));
    plan.routes[1].priority = Priority::High;
    plan.index = Routes::new(&[rule("*", "/"), rule("*", "/high")]).unwrap();
    let world = World::new(plan);
    let mut first = get(&world, "/0");
    world.until("it is under way", |_| gate.seen.lock().unwrap().len() == 1);
    let mut away = get(&world, "/1");
    queued(&world, 1);
    let mut high = get(&world, "/high");
    assert_eq!(away.reply("GET").reason(), "displaced");
    (0..3).for_each(|_| gate.open.send(()).unwrap());
    assert_eq!((first.reply("GET").status, high.reply("GET").status), (200, 200));
    away.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(away.reply("GET").status, 200);
}

#[test]
fn a_learnt_limit_bounds_what_is_under_way() {
    let gate = Gate::new();
    let mut plan = gate.plan(9, HOUR_MS);
    plan.services[0].options.breaker.requests_max = 1024;
    plan.services[0].options.adaptive = Some(AdaptiveOptions { first: 2, least: 2, most: 2 });
    let world = World::new(plan);
    let mut clients = vec![get(&world, "/0"), get(&world, "/0")];
    world.until("both are under way", |_| gate.seen.lock().unwrap().len() == 2);
    clients.push(get(&world, "/1"));
    queued(&world, 1);
    assert_eq!(gate.seen.lock().unwrap().len(), 2);
    (0..3).for_each(|_| gate.open.send(()).unwrap());
    assert!(clients.iter_mut().all(|client| client.reply("GET").status == 200));
}
