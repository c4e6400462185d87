//! The replicas of a member on their way back: what the engine has, and the log behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consensus::replay::Tail;
use consensus::{Durability, Incarnation, ReplicaId};
use control::CONTROL;
use disk::engine::{Engine, Mark};
use disk::log::{Log, Recovered};
use kernel::{GroupId, Index, Millis};
use node::cluster::mind::{self, Begin};
use node::cluster::{Holding, Kept, Past, Start, store_seed};
use node::recover::Replays;

use super::start::{Known, Membership, seed};
use crate::housekeep::unix_millis;
use crate::keeping;
use crate::load::load_group;
use crate::node::{NodeError, NodeOptions, made};
use crate::relay::SyncRelay;

/// What a member's worker begins with, besides its links.
pub(crate) struct Revived {
    /// Its partitions.
    pub start: Start,
    /// Its part in the control group.
    pub mind: mind::Start,
    /// The last checkpoint of each of its groups.
    pub durable: BTreeMap<GroupId, Index>,
}

/// Opens the log and brings the member's replicas back. `chance` is the node's own.
///
/// # Errors
/// What is damaged, or not there.
pub(crate) fn recover(
    options: &NodeOptions,
    member: &mut Membership,
    (incarnation, chance): (u64, u64),
    engine: &Arc<Engine>,
    relay: Arc<SyncRelay>,
) -> Result<(Arc<Log>, Revived), NodeError> {
    let started = std::time::Instant::now();
    drop_ended(member, engine)?;
    // Entries that wait for a sync before they count have lost nothing; others may have.
    let (mut certain, mut others) = (Vec::from([(CONTROL, member.holding.clone())]), Vec::new());
    for (group, (holding, _)) in &member.replicas {
        let replicas = match member.durability(*group) {
            Durability::Always => &mut certain,
            Durability::EverySec => &mut others,
        };
        replicas.push((*group, holding.clone()));
    }
    let (mut certain, mut others) = (Replays::new(certain), Replays::new(others));
    let directory = made(options.data_dir.join("log"))?;
    let mut logged = BTreeSet::new();
    let visit = &mut |_, record: disk::log::Record<'_>| {
        logged.insert(record.group());
        certain.record(record);
        others.record(record);
    };
    let on_synced = move |event| relay.tell(event);
    let (log, recovered) = Log::open(&directory, options.log, visit, Box::new(on_synced))?;
    keeping::resume(&options.data_dir, Millis(unix_millis()), &log);
    // Groups that had replicas here, and have none, hold no segment back.
    let ended = logged.iter().filter(|group| **group != CONTROL && !member.replicas.contains_key(group));
    ended.for_each(|group| log.forget(*group));
    let tail = if recovered.complete { Tail::Certain } else { Tail::Ambiguous };
    let mut pasts = certain.finish(Tail::Certain)?;
    pasts.append(&mut others.finish(tail)?);
    let control = pasts.remove(&CONTROL).map(|(_, past)| past);
    let (seed, mut kept, mut durable) = (seed(member.cluster), BTreeMap::new(), BTreeMap::new());
    for (group, (replica, past)) in pasts {
        let Some((_, mark)) = member.replicas.remove(&group) else { continue };
        check_floor(group, mark.index, &recovered)?;
        durable.insert(group, mark.index);
        let budget = options.share_of(group);
        let store = load_group(engine, (group, &mark), store_seed(seed, group), budget)?;
        kept.insert(group, Kept { replica, store, past });
    }
    check_floor(CONTROL, member.holding.mark.as_ref().map_or(Index(0), |mark| mark.index), &recovered)?;
    let replicas = kept.len();
    let millis = started.elapsed().as_millis() as u64;
    tracing::info!(replicas, millis, end = recovered.end.0, torn = ?recovered.torn, "recovered");
    let node = member.node();
    let start = Start { node, incarnation: Incarnation(incarnation), seed, chance, kept };
    let mind = mind::Start {
        node,
        incarnation,
        seed: chance,
        options: mind::Options { spoken: options.cluster.spoken, ..mind::Options::default() },
        begin: begin(control, member),
    };
    Ok((Arc::new(log), Revived { start, mind, durable }))
}

/// Deletes replicas that were to be deleted when the node ended: the durable state has given their numbers and names them
/// nowhere. One that it does not know yet may have voted already.
fn drop_ended(member: &mut Membership, engine: &Engine) -> Result<(), NodeError> {
    let Known::State(state) = &member.known else { return Ok(()) };
    let node = member.node();
    let is_named = |group: GroupId, replica: ReplicaId| {
        let partition = state.partition(group).into_iter();
        let mut all = partition.flat_map(|it| it.members().map(|(one, _)| one).chain(it.released()));
        all.any(|one| one.node == node && one.id == replica)
    };
    let ended = |group: &GroupId, (holding, _): &mut (Holding, Mark)| {
        state.was_given(holding.replica) && !is_named(*group, holding.replica)
    };
    let ended: Vec<GroupId> = member.replicas.extract_if(.., ended).map(|(group, _)| group).collect();
    for group in ended {
        tracing::info!(%group, "a replica that is no more is deleted");
        engine.drop_group(group)?;
    }
    Ok(())
}

/// What the log gave away is in the engine, or the engine was damaged.
fn check_floor(group: GroupId, engine: Index, recovered: &Recovered) -> Result<(), NodeError> {
    match recovered.floors.get(&group) {
        Some(&floor) if floor > engine => Err(node::RecoverError::Gap { group, engine, floor }.into()),
        Some(_) | None => Ok(()),
    }
}

fn begin(control: Option<Past>, member: &mut Membership) -> Begin {
    // What was taken out stays empty: nothing of it is needed again.
    let empty = Known::State(Box::default());
    match (control, std::mem::replace(&mut member.known, empty)) {
        (Some(Past::Restored(restored)), Known::State(state)) => Begin::Resume { restored, state },
        (Some(Past::Joining { hard }), Known::Welcome(welcome)) => Begin::Join { welcome, hard },
        (Some(_) | None, _) => {
            unreachable!(
                "the engine holds a mark of the control group with its state, or none with a welcome"
            )
        }
    }
}
