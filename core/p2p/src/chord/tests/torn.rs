//! Rings that deaths tore apart: whom those that are left remember.

use super::*;

/// A ring of six, and one that was let in a moment ago through the only node that it did not hear of then.
fn let_in() -> (Network, u32, u32) {
    let mut network = Network::ring(6, settings());
    let order = network.order();
    network.keys.0[50] = Key::from_words([network.keys.point(order[0]).wrapping_add(1), 0, 0, 0]);
    // It stands between the first and the second, and hears of four that are behind it.
    let seed = order[5];
    let now = network.now;
    for machine in network.nodes.values_mut() {
        machine.stabilize_at = Some(now + 60 * SECOND);
    }
    network.add(50, Command::Join { seed });
    let newcomer = &network.nodes[&50];
    assert!(newcomer.is_member() && !newcomer.successors.contains(&seed));
    assert_eq!(newcomer.predecessor, Some(order[0]));
    (network, seed, 50)
}

#[test]
fn who_was_let_in_finds_the_one_that_let_it_in_when_all_others_are_dead() {
    let (mut network, seed, newcomer) = let_in();
    network.nodes.retain(|node, _| [seed, newcomer].contains(node));
    // The first time it still names those that are dead, and is asked again after twice the time.
    network.pass(1800);
    assert!(network.is_ideal());
}

#[test]
fn a_finger_that_is_passed_over_is_compared_with_and_one_that_others_are_before_is_not() {
    let mut network = Network::ring(20, settings());
    let ring = network.order();
    let Network { now, keys, nodes, .. } = &mut network;
    let machine = nodes.get_mut(&ring[0]).unwrap();
    let half = machine.point.wrapping_add(1 << 63);
    let mut behind = ring[1..].to_vec();
    behind.sort_by_key(|node| distance(half, keys.point(*node)));
    let remembers =
        |machine: &Chord<u32>, node| machine.unite.iter().any(|unite| unite.nodes().any(|one| one == node));
    for (before, after, is_lost) in [(1, 0, false), (1, 3, true)] {
        machine.unite = None;
        machine.set_finger(*now, keys, 0, behind[before]);
        machine.set_finger(*now, keys, 0, behind[after]);
        assert_eq!(remembers(machine, behind[before]), is_lost);
    }
}

#[test]
fn who_is_cut_off_finds_the_ring_again_by_its_fingers() {
    let mut network = Network::ring(24, settings());
    let ring = network.order();
    // Those that it has in its list, and those that have it in theirs.
    let near = [&ring[1..5], &ring[20..]].concat();
    let own = network.nodes.get_mut(&ring[0]).unwrap();
    assert!(own.fingers.iter().flatten().any(|node| !near.contains(node)));
    own.unite = None;
    near.iter().for_each(|node| _ = network.nodes.remove(node));
    network.pass(600);
    assert!(network.is_ideal());
}
