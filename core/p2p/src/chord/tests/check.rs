//! What a peer can make a node do by asking it what it keeps.

use super::*;

impl Network {
    /// `from` asks `to` what it keeps behind `after`, as if it had nothing itself. What it is given, if all of that arrives.
    fn given(&mut self, from: u32, to: u32, after: u64) -> Vec<Key> {
        self.given_for(from, to, after, Digest::default())
    }

    fn given_for(&mut self, from: u32, to: u32, after: u64, digest: Digest) -> Vec<Key> {
        let Network { now, keys, nodes, .. } = self;
        let (machine, mut out) = (nodes.get_mut(&to).unwrap(), Vec::new());
        let body = Message::Check { after, digest };
        machine.step(*now, keys, Input::Asked { from, id: RequestId(1), body }, &mut out);
        let mut given = Vec::new();
        while let Some(effect) = out.pop() {
            let Effect::Ask { to, id, body: Message::Copies(items) } = effect else { continue };
            assert_eq!(to, from);
            given.extend(items.iter().map(|item| item.key));
            let body = Message::Stored(items.len() as u32);
            machine.step(*now, keys, Input::Answered { from, id, body }, &mut out);
        }
        given
    }

    /// Those that `node` keeps and one of `owners` owns.
    fn kept_of(&self, node: u32, owners: &[u32]) -> Vec<Key> {
        owners.iter().flat_map(|owner| self.kept(node, *owner)).collect()
    }
}

#[test]
fn who_claims_more_than_its_own_is_given_nothing_of_what_others_own() {
    let (network, ring, owned) = Network::kept_by_six();
    let [second, third, fourth, fifth] = [1, 2, 3, 4].map(|at| network.keys.point(ring[at]));
    // The fourth keeps what the second and the third own too.
    assert!(!network.kept_of(ring[3], &ring[1..2]).is_empty());
    #[rustfmt::skip] // columns
    let table = [
        // who     claims what is behind   is given the own of
        (ring[2],  second,                 2),
        (ring[2],  second.wrapping_sub(1), 2), // a bit more
        (ring[2],  fourth,                 2), // all but what the fourth owns
        (ring[2],  third.wrapping_add(1),  2), // all
        (ring[1],  fourth,                 1),
        (ring[4],  third,                  4), // with all that the fourth owns
        (ring[4],  fifth,                  4), // all
    ];
    for (from, after, owner) in table {
        let mut network = Network::kept_by_six().0;
        let mut given = network.given(from, ring[3], after);
        given.sort_unstable();
        assert_eq!(given, network.kept(ring[3], ring[owner]), "{from} claims what is behind {after}");
    }
    // Control: one that stands between claims what is its own from then on, and is given that.
    let (mut network, ..) = Network::kept_by_six();
    network.keys.0[50] = Key::from_words([fourth.wrapping_sub(1), 0, 0, 0]);
    let given = network.given(50, ring[3], third);
    assert_eq!(given.len(), network.kept(ring[3], ring[3]).len());
    assert!(!given.iter().any(|key| owned.contains(key)));
}

#[test]
fn who_was_told_of_its_own_is_given_that_and_nothing_before_it() {
    let (mut network, ring, _) = Network::kept_by_six();
    let strays: Vec<Item> = strays(&network, 60);
    let store = &mut network.nodes.get_mut(&ring[1]).unwrap().values().store;
    strays.iter().for_each(|item| assert!(store.keep(item.clone())));
    // The second keeps what the fourth and the fifth own, and offers it to the fifth.
    let [own, before] = [4, 3].map(|at| network.kept(ring[1], ring[at]));
    assert!(own.len() > 3 && before.len() > 3);
    for (told, given) in [(0, &own[..]), (2, &own[2..])] {
        let mut network = Network::kept_by_six().0;
        let store = &mut network.nodes.get_mut(&ring[1]).unwrap().values().store;
        strays.iter().for_each(|item| assert!(store.keep(item.clone())));
        let Network { keys, nodes, .. } = &mut network;
        nodes.get_mut(&ring[1]).unwrap().offer_to(keys, (own[told].point(), ring[4]), &mut Vec::new());
        // It claims all but what the second owns.
        let after = network.keys.point(ring[1]);
        assert_eq!(network.given(ring[4], ring[1], after), given);
    }
}

#[test]
fn who_checks_all_the_time_takes_no_answer_from_others() {
    let (mut network, ring, owned) = Network::kept_by_six();
    // Strangers, each at its place before the fourth.
    let fourth = network.keys.point(ring[3]);
    for n in 0..100 {
        network.keys.0[100 + n] = Key::from_words([fourth.wrapping_sub(1 + n as u64), 0, 0, 0]);
    }
    let same = |network: &mut Network, from: u32| {
        let Network { now, keys, nodes, .. } = network;
        let (machine, mut out) = (nodes.get_mut(&ring[3]).unwrap(), Vec::new());
        // Nobody keeps anything there.
        let body = Message::Check { after: keys.point(from).wrapping_sub(1), digest: Digest::default() };
        machine.step(*now, keys, Input::Asked { from, id: RequestId(1), body }, &mut out);
        matches!(out[..], [Effect::Answer { body: Message::Yes, .. }])
    };
    let answered = |network: &mut Network, from: u32| (0..40).filter(|_| same(network, from)).count();
    // Some have asked since it stabilized last.
    network.pass(5);
    let few = answered(&mut network, 100);
    assert!((1..40).contains(&few), "{few}");
    assert!(same(&mut network, 101));
    // However many strangers there are, those on the ring are answered, and not all strangers.
    let strangers = (102..200).filter(|from| same(&mut network, *from)).count();
    assert!((1..98).contains(&strangers), "{strangers}");
    assert!([1, 2, 4, 5].iter().all(|at| same(&mut network, ring[*at])));
    assert!(owned.len() > 5 && !same(&mut network, 100));
    network.pass(6);
    assert!(same(&mut network, 100) && same(&mut network, 199));
}

/// What one node has sent, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    checks: usize,
    copies: usize,
}

impl Network {
    /// What `node` sends in answer to these of its effects and to all that follow: each check is answered by "it differs", and of
    /// copies the first so many are lost.
    fn exchanged(&mut self, node: u32, out: &mut Vec<EffectOf<Chord<u32>>>, mut lost: usize) -> Sent {
        let Network { now, keys, nodes, .. } = self;
        let (machine, mut sent) = (nodes.get_mut(&node).unwrap(), Sent::default());
        while !out.is_empty() {
            let Effect::Ask { to, id, body } = out.remove(0) else { continue };
            let answered = |body| Input::Answered { from: to, id, body };
            let input = match body {
                Message::Check { .. } => {
                    sent.checks += 1;
                    answered(Message::Differs { digest: None })
                }
                Message::Copies(_) => {
                    sent.copies += 1;
                    let is_lost = lost > 0;
                    lost = lost.saturating_sub(1);
                    if is_lost { Input::Failed { to, id } } else { answered(Message::Stored(1)) }
                }
                _ => continue,
            };
            machine.step(*now, keys, input, out);
        }
        sent
    }

    /// What `node` does with its machine, and what that sends then.
    fn does(
        &mut self,
        node: u32,
        lost: usize,
        what: impl FnOnce(&mut Chord<u32>, &Directory, &mut Vec<EffectOf<Chord<u32>>>),
    ) -> Sent {
        let mut out = Vec::new();
        what(self.nodes.get_mut(&node).unwrap(), &self.keys, &mut out);
        self.exchanged(node, &mut out, lost)
    }
}

#[test]
fn what_was_lost_on_its_way_is_sent_again_with_the_next_repair_and_not_before() {
    for lost in 0..3 {
        let (mut network, ring, _) = Network::kept_by_six();
        let both = Sent { checks: 2, copies: 2 };
        assert_eq!(network.does(ring[2], lost, |node, keys, out| node.repair(keys, out)), both);
        // As often as it stabilizes between two repairs.
        for _ in 0..12 {
            let sent = network.does(ring[2], 0, |node, keys, out| node.copy_to_new(keys, out));
            assert_eq!(sent, Sent::default(), "{lost} lost");
        }
        let sent = network.does(ring[2], 0, |node, keys, out| node.repair(keys, out));
        assert_eq!(sent, both, "{lost} lost");
    }
}

/// As many values as a node may keep, up to this point: one that all have, and others that another `salt` does not have.
fn fill(machine: &mut Chord<u32>, point: u64, salt: u64) {
    let store = &mut machine.values().store;
    for n in 1..STORE_VALUES_MAX as u64 {
        assert!(store.keep(version(Key::from_words([point.wrapping_sub(2 * n + salt), 0, 0, 0]), 1)));
    }
    assert!(store.keep(version(Key::from_words([point, 0, 0, 0]), 1)));
}

fn version(key: Key, version: u64) -> Item {
    Item { key, version, value: Arc::from(&[1][..]) }
}

#[test]
fn two_that_are_full_offer_each_other_the_same_no_more() {
    let mut network = Network::ring(2, settings());
    let point = network.keys.point(0);
    // All of it is the first one's own.
    for node in [0, 1] {
        fill(network.nodes.get_mut(&node).unwrap(), point, u64::from(node));
    }
    network.pass(200);
    // They have tried.
    assert!(network.sent.1 >= 2 * STORE_VALUES_MAX, "{}", network.sent.1);
    network.sent = (0, 0);
    network.pass(600);
    let (checks, items) = network.sent;
    assert!(checks > 10, "{checks}");
    assert_eq!(items, 0);
    // Control: a newer version at either comes to the other.
    let key = Key::from_words([point, 0, 0, 0]);
    for (node, other, newer) in [(0, 1, 2), (1, 0, 3)] {
        assert!(network.nodes.get_mut(&node).unwrap().values().store.keep(version(key, newer)));
        network.pass(70);
        assert_eq!(network.nodes[&other].store().unwrap().get(key).unwrap().version, newer);
    }
}
