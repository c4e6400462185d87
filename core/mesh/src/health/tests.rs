//! Checks in virtual time.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::registry::Node;
use kernel::Rng;

const NOW: Micros = Micros(1_700_000_000_000_000);

fn agent() -> Agent {
    let node = Node { name: "one".to_string(), ..Node::default() };
    let registry = Registry::new(NOW, NodeId([1; 32]), 1, 0, node, Rng::new(1)).unwrap();
    Agent::new(registry, Rng::new(2))
}

fn web() -> Instance {
    Instance { id: "w".to_string(), service: "web".to_string(), ..Instance::default() }
}

fn probed(rise: u32, fall: u32) -> Definition {
    let how = How::Tcp { address: "127.0.0.1:1".to_string() };
    Definition {
        id: "c".to_string(),
        how,
        interval_ms: 1000,
        timeout_ms: 500,
        rise,
        fall,
        ..Definition::default()
    }
}

fn ttl(id: &str, ttl_ms: u64) -> Definition {
    Definition { id: id.to_string(), how: How::Ttl { ttl_ms }, ..Definition::default() }
}

fn health(agent: &Agent) -> Option<Health> {
    agent.registry().view().service("web").map(|service| service.entries[0].health())
}

/// The next probe, when it is due, and what it is answered.
fn probe(agent: &mut Agent, now: &mut Micros, answer: Health) {
    let mut probes = Vec::new();
    while probes.is_empty() {
        *now = agent.deadline().max(*now);
        agent.wake(*now);
        agent.take_probes(&mut probes);
    }
    assert_eq!(probes.len(), 1);
    agent.probed(*now, &probes[0].check, probes[0].number, answer, String::new());
}

#[test]
fn it_takes_rise_successes_and_fall_failures_in_a_row() {
    let (p, c, w) = (Health::Passing, Health::Critical, Health::Warning);
    #[rustfmt::skip] // columns
    let table = [
        // rise fall  answers                 what is known after each
        (1, 1, vec![p, c, p, w],           vec![p, c, p, w]),
        (2, 1, vec![p, p, c, p, p],        vec![c, p, c, c, p]),
        (1, 3, vec![p, c, c, p, c, c, c],  vec![p, p, p, p, p, p, c]),
        (3, 2, vec![p, p, c, p, p, p, c, c], vec![c, c, c, c, c, p, p, c]),
    ];
    for (rise, fall, answers, expected) in table {
        let (mut agent, mut now) = (agent(), NOW);
        agent.register(now, web(), vec![probed(rise, fall)], true).unwrap();
        for (answer, expected) in answers.into_iter().zip(expected) {
            probe(&mut agent, &mut now, answer);
            assert_eq!(health(&agent), Some(expected), "rise {rise}, fall {fall}");
        }
    }
}

#[test]
fn probes_come_soon_first_and_then_about_each_interval_one_at_a_time() {
    let (mut agent, mut now, mut probes) = (agent(), NOW, Vec::new());
    agent.register(now, web(), vec![probed(1, 1)], true).unwrap();
    let mut last = None;
    for round in 0..50 {
        while probes.is_empty() {
            now = agent.deadline().max(now);
            agent.wake(now);
            agent.take_probes(&mut probes);
        }
        match last {
            None => assert!(now.since(NOW) <= FIRST_MS * 1000),
            Some(last) => assert!((900_000..=1_100_000).contains(&now.since(last)), "round {round}"),
        }
        let one = probes.pop().unwrap();
        assert!(probes.is_empty());
        agent.probed(now, &one.check, one.number, Health::Passing, String::new());
        // A second answer is nobody's.
        agent.probed(now, &one.check, one.number, Health::Critical, String::new());
        assert_eq!(health(&agent), Some(Health::Passing));
        last = Some(now);
    }
}

#[test]
fn what_does_not_answer_in_time_has_failed_and_its_late_answer_does_not_count() {
    let (mut agent, mut now, mut probes) = (agent(), NOW, Vec::new());
    agent.register(now, web(), vec![probed(1, 1)], true).unwrap();
    probe(&mut agent, &mut now, Health::Passing);
    while probes.is_empty() {
        now = agent.deadline().max(now);
        agent.wake(now);
        agent.take_probes(&mut probes);
    }
    now = now.plus_millis(499);
    agent.wake(now);
    assert_eq!(health(&agent), Some(Health::Passing));
    now = now.plus_millis(1);
    agent.wake(now);
    assert_eq!(health(&agent), Some(Health::Critical));
    agent.probed(now, "c", probes[0].number, Health::Passing, String::new());
    assert_eq!(health(&agent), Some(Health::Critical));
}

#[test]
fn a_ttl_that_nobody_renews_runs_out() {
    let (mut agent, now) = (agent(), NOW);
    agent.register(now, web(), vec![ttl("t", 1000)], true).unwrap();
    assert_eq!(health(&agent), Some(Health::Critical), "before anybody said anything");
    agent.renew(now, "t", Health::Passing, "fine".to_string()).unwrap();
    agent.wake(now.plus_millis(999));
    assert_eq!(health(&agent), Some(Health::Passing));
    agent.renew(now.plus_millis(999), "t", Health::Warning, String::new()).unwrap();
    agent.wake(now.plus_millis(1998));
    assert_eq!(health(&agent), Some(Health::Warning));
    agent.wake(now.plus_millis(1999));
    assert_eq!(health(&agent), Some(Health::Critical));
    assert_eq!(
        agent.renew(now, "x", Health::Passing, String::new()),
        Err(CheckError::Unknown { id: "x".to_string() })
    );
    agent.add_check(now, "w", probed(1, 1)).unwrap();
    assert_eq!(
        agent.renew(now, "c", Health::Passing, String::new()),
        Err(CheckError::NoTtl { id: "c".to_string() })
    );
}

#[test]
fn who_is_critical_for_too_long_is_taken_back_and_nobody_else() {
    let (mut agent, now) = (agent(), NOW);
    let leaves = Definition { deregister_ms: 5000, ..ttl("t", 1000) };
    agent.register(now, web(), vec![leaves], true).unwrap();
    agent.renew(now, "t", Health::Passing, String::new()).unwrap();
    agent.wake(now.plus_millis(1000));
    agent.wake(now.plus_millis(5999));
    assert_eq!(health(&agent), Some(Health::Critical));
    agent.renew(now.plus_millis(5999), "t", Health::Passing, String::new()).unwrap();
    agent.wake(now.plus_millis(6500));
    assert_eq!(health(&agent), Some(Health::Passing), "it came back in time");
    agent.wake(now.plus_millis(6999));
    agent.wake(now.plus_millis(11_999));
    assert_eq!(health(&agent), None);
    assert_eq!(agent.checks().count(), 0);
}

#[test]
fn a_check_that_follows_another_service_is_as_good_as_that() {
    let (mut agent, now) = (agent(), NOW);
    let other = Instance { id: "db".to_string(), service: "db".to_string(), ..Instance::default() };
    let alias = Definition {
        id: "a".to_string(),
        how: How::Alias { service: "db".to_string() },
        ..Definition::default()
    };
    agent.register(now, web(), vec![alias], true).unwrap();
    assert_eq!(health(&agent), Some(Health::Critical), "there is none yet");
    agent.register(now, other, vec![ttl("t", 1000)], true).unwrap();
    agent.renew(now, "t", Health::Passing, String::new()).unwrap();
    agent.wake(now);
    assert_eq!(health(&agent), Some(Health::Passing));
    agent.wake(now.plus_millis(1000));
    assert_eq!(health(&agent), Some(Health::Critical));
}

#[test]
fn registering_again_keeps_what_is_known_and_maintenance_wins() {
    let (mut agent, mut now) = (agent(), NOW);
    agent.register(now, web(), vec![probed(1, 1)], true).unwrap();
    probe(&mut agent, &mut now, Health::Passing);
    agent.register(now, Instance { port: 5, ..web() }, vec![probed(1, 1)], true).unwrap();
    assert_eq!(health(&agent), Some(Health::Passing));
    agent.maintain(now, "w", Some("upgrade")).unwrap();
    agent.register(now, web(), vec![probed(1, 1)], true).unwrap();
    assert_eq!(health(&agent), Some(Health::Critical));
    assert!(agent.is_maintained("w") && !agent.is_maintained(""));
    agent.maintain(now, "w", None).unwrap();
    assert_eq!(health(&agent), Some(Health::Passing));
    agent.maintain(now, "", Some("all of it")).unwrap();
    assert_eq!(health(&agent), Some(Health::Critical));
    agent.maintain(now, "", None).unwrap();
    // Without checks it is as good as its node.
    agent.register(now, web(), vec![], true).unwrap();
    assert_eq!((agent.checks().count(), health(&agent)), (0, Some(Health::Passing)));
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let mut agent = agent();
    let http = |url: &str| Definition {
        how: How::Http {
            url: url.to_string(),
            method: "GET".to_string(),
            headers: vec![],
            body: String::new(),
        },
        ..probed(1, 1)
    };
    let table = [
        Definition { interval_ms: 99, ..probed(1, 1) },
        Definition { timeout_ms: 0, ..probed(1, 1) },
        Definition { rise: 0, ..probed(1, 1) },
        Definition { fall: RUN_MAX + 1, ..probed(1, 1) },
        Definition { id: String::new(), ..probed(1, 1) },
        Definition { how: How::Tcp { address: "nowhere".to_string() }, ..probed(1, 1) },
        http("https://127.0.0.1/"),
        http("http://127.0.0.1/\r\nHost: x"),
        ttl("t", 0),
    ];
    for definition in table {
        assert!(agent.register(NOW, web(), vec![definition.clone()], true).is_err(), "{definition:?}");
        assert!(agent.add_check(NOW, "", definition).is_err());
    }
    assert_eq!(health(&agent), None);
    agent.register(NOW, web(), vec![ttl("t", 1)], true).unwrap();
    assert_eq!(agent.add_check(NOW, "", ttl("t", 1)), Err(CheckError::Taken { id: "t".to_string() }));
}

#[test]
fn what_was_registered_is_again_after_a_restart() {
    let (mut first, mut now) = (agent(), NOW);
    first.register(now, web(), vec![probed(1, 1)], true).unwrap();
    first.add_check(now, "", ttl("t", 60_000)).unwrap();
    probe(&mut first, &mut now, Health::Passing);
    first.renew(now, "t", Health::Passing, String::new()).unwrap();
    first.maintain(now, "w", Some("why")).unwrap();
    let saved = Saved::of(&first, 7);
    let bytes = saved.encode();
    assert_eq!(
        Saved::decode(&bytes).map(|it| (it.incarnation, it.index, it.instances.len())),
        Ok((7, saved.index, 1))
    );
    let mut second = agent();
    Saved::decode(&bytes).unwrap().restore(now, &mut second);
    let instance = |agent: &Agent| (**agent.registry().instance("w").unwrap()).clone();
    let ids = |it: &Instance| {
        it.checks.iter().map(|check| (check.id.clone(), check.status)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(ids(&instance(&second)), ids(&instance(&first)));
    assert_eq!(second.checks().count(), 2);
    assert!(second.is_maintained("w"));
}

proptest! {
    #[test]
    fn no_bytes_of_a_file_break_anything(bytes: Vec<u8>, cut: usize) {
        let _ = Saved::decode(&bytes);
        let mut agent = agent();
        agent.register(NOW, web(), vec![probed(1, 1)], true).unwrap();
        let good = Saved::of(&agent, 1).encode();
        prop_assert!(Saved::decode(&good[..cut % good.len()]).is_err());
    }
}
