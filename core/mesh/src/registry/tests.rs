//! The bytes of registries, and what is refused.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;

use kernel::Rng;
use proptest::prelude::*;

use super::frame::{Body, Delta, Item, Known, Said};
use super::*;

fn text(max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::char::range(' ', '~'), 1..max).prop_map(|it| it.into_iter().collect())
}

fn checks() -> impl Strategy<Value = Vec<Check>> {
    let status = prop_oneof![Just(Health::Passing), Just(Health::Warning), Just(Health::Critical)];
    let one = (text(9), text(9), status, text(40));
    proptest::collection::vec(one, 0..4).prop_map(|all| {
        let one = |(at, (id, name, status, output)): (usize, (String, String, Health, String))| Check {
            id: format!("{id}{at}"),
            name,
            kind: "ttl".to_string(),
            status,
            notes: String::new(),
            output,
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn instances() -> impl Strategy<Value = Instance> {
    let meta = proptest::collection::btree_map(text(9), text(20), 0..4);
    let tags = proptest::collection::vec(text(9), 0..4);
    (text(9), text(9), text(20), any::<u16>(), tags, meta, 1..=record::WEIGHT_MAX, checks()).prop_map(
        |(id, service, address, port, tags, meta, passing, checks)| Instance {
            id,
            service,
            address,
            port,
            tags,
            meta,
            weights: Weights { passing, warning: 0 },
            checks,
        },
    )
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let body = prop_oneof![instances().prop_map(Some), Just(None)];
    proptest::collection::vec(body, 0..5).prop_map(|all| {
        let one = |(at, body): (usize, Option<Instance>)| Item {
            sequence: 10 + at as u64,
            key: body.as_ref().map_or_else(|| "gone".to_string(), |it| it.id.clone()),
            body: body.map(|it| Body::Instance(Arc::new(it))),
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn said_things() -> impl Strategy<Value = Said> {
    let known = (any::<[u8; 32]>(), any::<u64>(), any::<u64>())
        .prop_map(|(owner, incarnation, have)| Known { owner: NodeId(owner), incarnation, have });
    let digest = (any::<bool>(), proptest::collection::vec(known, 0..5));
    let delta = (any::<[u8; 32]>(), any::<u64>(), any::<bool>(), any::<bool>(), items());
    prop_oneof![
        digest.prop_map(|(asks, known)| Said::Digest { asks, known }),
        delta.prop_map(|(owner, incarnation, whole, is_last, items)| {
            let delta = Delta { incarnation, base: 9, upto: 99, whole, is_last, items };
            Said::Delta(NodeId(owner), delta)
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_said_is_heard_and_nothing_shorter_or_longer(what in said_things(), cut: usize) {
        let bytes = said(&what);
        prop_assert_eq!(Said::decode(&bytes), Ok(what));
        prop_assert!(Said::decode(&bytes[..cut % bytes.len()]).is_err());
        let longer = [&bytes[..], b"x"].concat();
        prop_assert!(Said::decode(&longer).is_err());
    }

    #[test]
    fn no_bytes_break_a_registry(bytes: Vec<u8>) {
        let mut registry = fresh();
        let peer = NodeId([2; 32]);
        registry.set_members(NOW, BTreeSet::from([peer]), BTreeSet::new());
        let _ = registry.receive(NOW, peer, &bytes);
        prop_assert_eq!(registry.view().services().count(), 0);
    }

    #[test]
    fn an_instance_of_a_file_is_the_same(instance in instances()) {
        let bytes = Registry::encode_instance(&instance);
        prop_assert_eq!(Registry::decode_instance(&bytes), Ok(instance));
    }
}

const NOW: Micros = Micros(1_700_000_000_000_000);

fn fresh() -> Registry {
    let node = Node { name: "one".to_string(), ..Node::default() };
    Registry::new(NOW, NodeId([1; 32]), 1, 0, node, Rng::new(1)).unwrap()
}

fn web(id: &str) -> Instance {
    Instance { id: id.to_string(), service: "web".to_string(), ..Instance::default() }
}

#[test]
fn what_is_beyond_its_bounds_is_refused_and_changes_nothing() {
    let mut registry = fresh();
    let index = registry.view().index();
    let long = |bytes: usize| "x".repeat(bytes);
    #[rustfmt::skip] // columns
    let table = [
        Instance { id: String::new(), ..web("a") },
        Instance { service: String::new(), ..web("a") },
        Instance { service: long(256), ..web("a") },
        Instance { service: "a\nb".to_string(), ..web("a") },
        Instance { address: long(256), ..web("a") },
        Instance { tags: vec![String::new(); 65], ..web("a") },
        Instance { meta: [(long(129), String::new())].into(), ..web("a") },
        Instance { meta: [(String::new(), long(513))].into(), ..web("a") },
        Instance { weights: Weights { passing: 0, warning: 0 }, ..web("a") },
        Instance { weights: Weights { passing: 65_536, warning: 0 }, ..web("a") },
        Instance { checks: vec![Check { id: "c".to_string(), ..Check::default() }; 2], ..web("a") },
        Instance { checks: vec![Check::default()], ..web("a") },
    ];
    for instance in table {
        assert!(registry.register(NOW, instance.clone()).is_err(), "{instance:?}");
    }
    assert_eq!((registry.view().index(), registry.instances().count()), (index, 0));
}

#[test]
fn a_change_has_a_new_index_and_what_did_not_change_has_none() {
    let mut registry = fresh();
    registry.register(NOW, web("a")).unwrap();
    let index = registry.view().index();
    registry.register(NOW, web("a")).unwrap();
    assert_eq!(registry.view().index(), index);
    registry.register(NOW, web("b")).unwrap();
    let service = registry.view().service("web").unwrap();
    assert!(service.index > index);
    let first = &service.entries[0];
    assert_eq!((first.index, first.create_index), (index, index), "the other is as it was");
    assert_eq!(registry.deregister(NOW, "c"), Err(RegisterError::Unknown { id: "c".to_string() }));
    // What has gone keeps an index above what it had.
    let topic = Topic::Service("web".into());
    let last = registry.view().index_of(&topic);
    registry.deregister(NOW, "a").unwrap();
    registry.deregister(NOW, "b").unwrap();
    assert!(registry.view().service("web").is_none());
    assert!(registry.view().index_of(&topic) > last);
}

#[test]
fn a_check_changes_the_index_with_its_status_and_not_with_its_words() {
    let mut registry = fresh();
    registry.register(NOW, web("a")).unwrap();
    let check = |status, output: &str| Check {
        id: "c".to_string(),
        status,
        output: output.to_string(),
        ..Check::default()
    };
    registry.set_check(NOW, "a", check(Health::Passing, "fine")).unwrap();
    let index = registry.view().index();
    registry.set_check(NOW, "a", check(Health::Passing, "still fine")).unwrap();
    assert_eq!(registry.view().index(), index);
    let shown = |registry: &Registry| {
        let entry = registry.view().service("web").unwrap().entries[0].clone();
        (entry.health(), entry.instance.checks[0].output.clone())
    };
    assert_eq!(shown(&registry), (Health::Passing, "still fine".to_string()));
    registry.set_check(NOW, "a", check(Health::Critical, &"é".repeat(3000))).unwrap();
    assert!(registry.view().index() > index);
    let (health, output) = shown(&registry);
    assert_eq!((health, output.len()), (Health::Critical, 4096));
    // The node's own check counts for all that is there.
    registry.set_check(NOW, "a", check(Health::Passing, "")).unwrap();
    registry.set_check(NOW, "", check(Health::Warning, "")).unwrap();
    assert_eq!(shown(&registry).0, Health::Warning);
    assert!(registry.drop_check(NOW, "", "c") && !registry.drop_check(NOW, "", "c"));
    assert_eq!(shown(&registry).0, Health::Passing);
}

#[test]
fn a_wait_ends_with_its_topic_or_its_time() {
    let mut registry = fresh();
    let end = NOW.plus_millis(1000);
    let other = registry.wait(Topic::Service("other".into()), end).unwrap();
    let this = registry.wait(Topic::Service("web".into()), end).unwrap();
    let any = registry.wait(Topic::All, end).unwrap();
    let left = registry.wait(Topic::All, end).unwrap();
    registry.leave(left);
    registry.register(NOW, web("a")).unwrap();
    let mut woken = Vec::new();
    registry.take_woken(&mut woken);
    woken.sort();
    assert_eq!(woken, [this, any]);
    assert_eq!((registry.waiting(), registry.deadline()), (1, end));
    registry.wake(end);
    woken.clear();
    registry.take_woken(&mut woken);
    assert_eq!((woken, registry.waiting()), (vec![other], 0));
}

#[test]
fn nobody_else_speaks_for_a_node_or_for_who_is_no_member() {
    let mut registry = fresh();
    let peer = NodeId([2; 32]);
    registry.set_members(NOW, BTreeSet::from([peer]), BTreeSet::new());
    let item = Item { sequence: 1, key: "a".to_string(), body: Some(Body::Instance(Arc::new(web("a")))) };
    let delta = Delta { incarnation: 9, base: 0, upto: 1, whole: true, is_last: true, items: vec![item] };
    for owner in [NodeId([1; 32]), NodeId([3; 32])] {
        registry.receive(NOW, peer, &said(&Said::Delta(owner, delta.clone()))).unwrap();
        assert_eq!(registry.view().services().count(), 0);
    }
}
