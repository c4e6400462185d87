//! One thing after another, as people do it.

use control::{Operation, Standing};
use kernel::Spoken;
use kernel::planted::Bug;
use node::cluster::mind::Answer;
use p2p::swim::Liveness;

use super::with_rules;
use super::world::{DOWN_MS, SECOND, World, settings};

/// A newcomer joins through `via`; its machine.
pub fn join(world: &mut World, via: usize) -> usize {
    join_as(world, via, Spoken::ALL)
}

/// The same, of a node that speaks this.
pub fn join_as(world: &mut World, via: usize, spoken: Spoken) -> usize {
    let newcomer = world.machine();
    world.hosts[newcomer].spoken = spoken;
    let token = newcomer as u8;
    let issued = world.issue(via, token);
    world.until(10 * SECOND, |world| world.answer(issued).is_some()).expect("it comes");
    assert!(matches!(world.answer(issued), Some(Answer::Done(_))), "{:?}", world.answer(issued));
    let admitted = world.admit(via, token, newcomer);
    world.until(10 * SECOND, |world| world.answer(admitted).is_some()).expect("it comes");
    let Some(Answer::Welcome(welcome)) = world.answer(admitted).cloned() else { panic!("no welcome") };
    world.hosts[newcomer].disk.welcome = Some(welcome);
    world.judge.asked.remove(&admitted);
    world.start(newcomer).expect("it starts");
    newcomer
}

fn cluster(seed: u64, members: usize) -> World {
    let mut world = World::new(seed);
    world.until(10 * SECOND, |world| world.leader().is_some()).expect("it comes");
    for at in 1..members {
        join(&mut world, at - 1);
        world.come_to_rest().expect("it comes");
    }
    world
}

fn standing(world: &World, node: usize) -> Standing {
    let leader = world.leader().expect("somebody leads");
    world.mind(leader).state().members()[&world.hosts[node].id].standing
}

#[test]
fn a_cluster_forms_grows_shrinks_and_its_states_are_equal() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(1, 3);
    let state = world.mind(0).state();
    assert_eq!(state.voters().len(), 3);
    assert!(state.partitions().all(|(_, it)| it.replicas.len() == 3), "every partition has its three copies");
    assert!(world.snapshots >= 2, "who joins gets the state as a snapshot");
    // One dies, is missed, and returns.
    world.stop(2, true);
    world.run(3 * DOWN_MS * 1000).unwrap();
    let survivor = world.leader().expect("two of three are a majority");
    let dead = world.hosts[2].id;
    assert_eq!(world.mind(survivor).liveness(dead), Some(Liveness::Dead));
    assert!(world.mind(survivor).status().members.iter().any(|it| it.node == dead && it.down));
    assert_eq!(
        world.mind(survivor).state().kept_by(dead).count(),
        8,
        "there is nobody else to keep its copies"
    );
    world.start(2).unwrap();
    world.come_to_rest().unwrap();
    // A fourth joins, one leaves, one is removed.
    let fourth = join(&mut world, survivor);
    world.come_to_rest().unwrap();
    assert_eq!(standing(&world, fourth), Standing::Active);
    let node = world.hosts[0].id;
    let left = world.ask(fourth, Operation::Leave { node });
    world.until(60 * SECOND, |world| world.hosts[0].retired).unwrap();
    assert!(matches!(world.answer(left), Some(Answer::Done(_))));
    world.come_to_rest().unwrap();
    assert!(matches!(standing(&world, 0), Standing::Removed { .. }));
    let state = world.mind(fourth).state();
    assert_eq!(state.kept_by(node).count(), 0);
    assert!(state.partitions().all(|(_, it)| it.replicas.len() == 3));
}

#[test]
fn copies_of_the_dead_are_made_elsewhere_and_who_was_removed_meanwhile_does_not_come_back() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(2, 4);
    world.stop(3, true);
    let dead = world.hosts[3].id;
    let away = |world: &World| {
        let state = world.leader().map(|leader| world.mind(leader).state());
        state.is_some_and(|state| state.kept_by(dead).next().is_none())
    };
    world.until(60 * SECOND, away).unwrap();
    let asked = world.ask(0, Operation::Leave { node: dead });
    world.until(60 * SECOND, |world| matches!(standing(world, 3), Standing::Removed { .. })).unwrap();
    assert!(matches!(world.answer(asked), Some(Answer::Done(_))));
    world.start(3).unwrap();
    world.run(20 * SECOND).unwrap();
    assert!(world.mind(0).state().members()[&dead].role == consensus::Role::Gone);
    let linked = |node: usize| world.hosts[node].live.as_ref().is_some_and(|it| it.links.contains_key(&dead));
    assert!(!(0..3).any(linked), "members have no link to it");
    world.stop(3, true);
    world.hosts[3].retired = true;
    world.come_to_rest().unwrap();
}

#[test]
fn a_minority_says_within_its_time_that_nobody_leads_and_nothing_of_it_happens() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(3, 3);
    let old = world.leader().expect("somebody leads");
    world.isolate(old);
    world.run(5 * SECOND).unwrap();
    let operation =
        Operation::CreateKeyspace { keyspace: kernel::KeyspaceId(40), settings: settings(40, 2, 4) };
    let alone = world.ask(old, operation.clone());
    world.run(6 * SECOND).unwrap();
    assert_eq!(world.answer(alone), Some(&Answer::NoLeader));
    let other = (old + 1) % 3;
    let together = world.ask(other, operation);
    world.run(6 * SECOND).unwrap();
    assert!(matches!(world.answer(together), Some(Answer::Done(_))), "{:?}", world.answer(together));
    world.come_to_rest().unwrap();
    assert!(world.mind(old).state().keyspaces().contains_key(&kernel::KeyspaceId(40)));
}

#[test]
fn a_paused_node_is_suspected_and_nothing_is_moved() {
    let _rules = with_rules(Bug::None);
    pause(4).unwrap();
}

/// A follower of four stands still for two seconds.
pub fn pause(seed: u64) -> Result<(), String> {
    let mut world = cluster(seed, 4);
    let version = world.mind(0).state().version();
    let paused = (0..4).find(|&node| world.leader() != Some(node)).expect("three follow");
    world.hosts.iter_mut().for_each(|host| host.liveness.clear());
    world.pause(paused, 2 * SECOND);
    world.run(15 * SECOND)?;
    let id = world.hosts[paused].id;
    let watcher = (paused + 1) % 4;
    let heard: Vec<Liveness> = (world.hosts[watcher].liveness.iter())
        .filter(|(_, node, _)| *node == id)
        .map(|(_, _, liveness)| *liveness)
        .collect();
    if heard != [Liveness::Suspect, Liveness::Alive] {
        return Err(format!("it is suspected once, and objects: {heard:?}"));
    }
    if world.hosts[paused].liveness.iter().any(|(.., it)| *it == Liveness::Dead) {
        return Err("it accuses others of its own pause".into());
    }
    if world.mind(watcher).state().version() != version {
        return Err("something was changed for it".into());
    }
    Ok(())
}

#[test]
fn who_stops_hands_the_lead_over_first() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(5, 3);
    let old = world.leader().expect("somebody leads");
    let clock = world.hosts[old].clock(world.now);
    world.hosts[old].live.as_mut().unwrap().mind.resign(clock);
    world.run(SECOND / 2).unwrap();
    let new = world.leader().expect("somebody leads");
    assert_ne!(new, old);
    assert_eq!(world.mind((old + 1) % 3).leader(), Some(world.hosts[new].id));
}

#[test]
fn a_member_that_was_away_while_all_others_were_exchanged_but_one_is_told_who_leads() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(6, 3);
    world.stop(2, true);
    let new: Vec<usize> = (0..2)
        .map(|_| {
            let joined = join(&mut world, 1);
            let there = move |world: &World| {
                world.leader().is_some_and(|it| {
                    let member = world.mind(it).state().members().get(&world.hosts[joined].id);
                    member.is_some_and(|member| member.standing == Standing::Active)
                })
            };
            world.until(60 * SECOND, there).unwrap();
            joined
        })
        .collect();
    let node = world.hosts[0].id;
    world.ask(1, Operation::Leave { node });
    world.until(90 * SECOND, |world| world.hosts[0].retired).unwrap();
    // The lead goes to somebody that the absent one has never heard of.
    for _ in 0..40 {
        if world.leader().is_some_and(|leader| new.contains(&leader)) {
            break;
        }
        let clock = world.hosts[1].clock(world.now);
        world.hosts[1].live.as_mut().unwrap().mind.resign(clock);
        world.run(SECOND).unwrap();
    }
    let leader = world.leader().expect("somebody leads");
    assert!(new.contains(&leader), "the lead is with {leader}");
    let known = |world: &World| world.mind(2).state().members().contains_key(&world.hosts[leader].id);
    world.start(2).unwrap();
    assert!(!known(&world));
    world.until(20 * SECOND, known).unwrap();
    world.come_to_rest().unwrap();
}

/// It asks for what was right when it left.
#[test]
fn who_comes_back_and_moves_a_leader_at_once_is_not_told_to_plan_again() {
    let _rules = with_rules(Bug::None);
    let mut world = cluster(7, 3);
    let group = kernel::GroupId::new(kernel::KeyspaceId(16), 0);
    let leader = world.leader().expect("somebody leads");
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let epoch = |world: &World, node: usize| world.mind(node).state().partition(group).expect("it is").epoch;
    let lead_by = |world: &World, epoch, node: usize| Operation::MoveLeader {
        group,
        epoch,
        node: world.hosts[node].id,
    };
    world.isolate(away);
    world.run(3 * SECOND).unwrap();
    let old = epoch(&world, away);
    for node in [other, leader] {
        let now = epoch(&world, leader);
        let asked = world.ask(leader, lead_by(&world, now, node));
        world.until(10 * SECOND, |world| world.answer(asked).is_some()).unwrap();
    }
    assert!(epoch(&world, leader) > old);
    world.blocked.clear();
    assert_eq!(epoch(&world, away), old, "it knows nothing of it yet");
    let given = world.ask(away, lead_by(&world, old, away));
    let own = world.ask_afresh(away, lead_by(&world, old, away));
    world.until(10 * SECOND, |world| world.answer(own).is_some() && world.answer(given).is_some()).unwrap();
    assert!(matches!(world.answer(own), Some(Answer::Done(_))), "{:?}", world.answer(own));
    // Under an id that somebody else has drawn it is one request for ever.
    let Some(Answer::Refused(text)) = world.answer(given) else { panic!("{:?}", world.answer(given)) };
    assert!(text.contains("plan again"), "{text}");
    assert_eq!(
        world.mind(leader).state().partition(group).expect("it is").replicas[0].node,
        world.hosts[away].id
    );
    world.come_to_rest().unwrap();
}
