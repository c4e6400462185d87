//! How a cluster begins: with one member, its keyspaces, and every partition in its place, as one first state.
//!
//! A state and not a row of requests: a crash leaves all of it or nothing. Whoever joins gets it as a snapshot.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::SocketAddr;

use consensus::{Durability, Mark, Members};
use control::plan::{self, View};
use control::{Mode, Name, Operation, OperationId, Refused, Request, Settings, State};
use kernel::{ClusterId, KeyspaceId, Millis, NodeId, Rng, Version};
use placement::Partitions;

/// Redis's databases, which exist from the start.
pub const DATABASES: u16 = 16;
/// Copies that a keyspace promises if nothing else is said, as far as there are members.
pub const COPIES: u8 = 3;
/// Who asks for what the cluster does by itself.
pub const SELF: &str = "archipel";

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub struct Formation {
    /// The cluster's identity, newly drawn.
    pub cluster: ClusterId,
    /// The first member.
    pub node: NodeId,
    /// Its zone.
    pub zone: Name,
    /// Where it listens for links.
    pub addresses: Vec<SocketAddr>,
    /// The keyspaces: see [`keyspaces`].
    pub keyspaces: BTreeMap<KeyspaceId, Settings>,
    /// When.
    pub at: Millis,
    /// Decides the ids of the requests.
    pub seed: u64,
    /// The version that it begins at: the newest that the first member speaks.
    pub version: Version,
}

/// The keyspaces of a new cluster: what is `configured`, and the databases 0 to 15 with one partition each.
#[must_use]
pub fn keyspaces(configured: BTreeMap<KeyspaceId, Settings>) -> BTreeMap<KeyspaceId, Settings> {
    let mut keyspaces: BTreeMap<KeyspaceId, Settings> =
        (0..DATABASES).map(KeyspaceId).map(|keyspace| (keyspace, database(keyspace))).collect();
    keyspaces.extend(configured);
    keyspaces
}

/// A keyspace of which nothing was said; it is called by its number.
#[must_use]
pub fn database(keyspace: KeyspaceId) -> Settings {
    Settings {
        name: Name::new(&keyspace.to_string()).expect("a number is a name"),
        mode: Mode::Primary,
        copies: COPIES,
        durability: Durability::Always,
        partitions: Partitions::ONE,
        memory: 0,
        eviction: storage::store::Policy::default(),
        reading: control::Reading::default(),
    }
}

impl Formation {
    /// The first state, and what consensus says of it. The host makes both durable in one step, as a checkpoint of
    /// [`control::CONTROL`], and then starts as after any restart.
    ///
    /// # Errors
    /// [`Refused`], if an address, a name or a number is unsound.
    pub fn found(&self) -> Result<(Mark, State), Refused> {
        let (mut state, mut rng) = (State::beginning_at(self.version), Rng::new(self.seed));
        let by = Name::new(SELF).expect("it is a name");
        let mut ask = |state: &mut State, operation| {
            let id = draw_id(&mut rng);
            state.apply(&Request { id, by: by.clone(), at: self.at, operation })
        };
        let Formation { cluster, node, zone, addresses, .. } = self.clone();
        let create = Operation::CreateCluster { cluster, node, zone, addresses };
        let first = ask(&mut state, create)?.replica.expect("the first member has a replica");
        for (&keyspace, settings) in &self.keyspaces {
            ask(&mut state, Operation::CreateKeyspace { keyspace, settings: settings.clone() })?;
        }
        // One placement for each keyspace; they count on the version, so one after another.
        for _ in &self.keyspaces {
            let placed = plan::placement(&state, &View::default());
            let Some(place) = placed.expect("partitions can be placed on one member") else { break };
            ask(&mut state, place)?;
        }
        let members = Members::new([first], []).expect("one voter");
        Ok((Mark::first(members), state))
    }
}

/// An id for a request that this node asks for.
pub(super) fn draw_id(rng: &mut Rng) -> OperationId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    OperationId(id)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn formation(configured: BTreeMap<KeyspaceId, Settings>) -> Formation {
        Formation {
            cluster: ClusterId([1; 16]),
            node: NodeId([2; 32]),
            zone: Name::new("here").unwrap(),
            addresses: vec!["127.0.0.1:7401".parse().unwrap()],
            keyspaces: keyspaces(configured),
            at: Millis(5),
            seed: 3,
            version: Version::NEWEST,
        }
    }

    #[test]
    fn a_cluster_begins_with_sixteen_databases_and_what_is_configured_all_in_place() {
        let orders = Settings {
            name: Name::new("orders").unwrap(),
            partitions: Partitions::new(64).unwrap(),
            ..database(KeyspaceId(16))
        };
        let two = Settings { durability: Durability::EverySec, ..database(KeyspaceId(2)) };
        let configured = BTreeMap::from([(KeyspaceId(2), two.clone()), (KeyspaceId(16), orders.clone())]);
        let (mark, state) = formation(configured).found().unwrap();
        assert_eq!(state.keyspaces().len(), 17);
        assert_eq!(state.keyspaces()[&KeyspaceId(2)].settings, two);
        assert_eq!(state.keyspaces()[&KeyspaceId(16)].settings, orders);
        assert_eq!(state.keyspaces()[&KeyspaceId(15)].settings, database(KeyspaceId(15)));
        assert_eq!(state.partitions().count(), 16 + 64);
        assert!(state.partitions().all(|(_, partition)| partition.replica(NodeId([2; 32])).is_some()));
        let settled = View { settled: [control::CONTROL].into(), ..View::default() };
        assert_eq!(plan::next(&state, &settled), Ok(Vec::new()), "nothing is left to be done");
        assert_eq!(mark.members.voters().len(), 1);
        assert_eq!(state.members()[&NodeId([2; 32])].replica, *mark.members.voters().first().unwrap());
    }

    #[test]
    fn what_is_unsound_forms_no_cluster() {
        let named_twice = Settings { name: Name::new("3").unwrap(), ..database(KeyspaceId(20)) };
        let configured = BTreeMap::from([(KeyspaceId(20), named_twice)]);
        assert!(matches!(formation(configured).found(), Err(Refused::NameTaken { .. })));
        let nowhere = Formation { addresses: Vec::new(), ..formation(BTreeMap::new()) };
        assert!(matches!(nowhere.found(), Err(Refused::Addresses { .. })));
    }
}
