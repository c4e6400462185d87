//! What a seed decides before anything happens: how large, how fast, how unlucky.

use consensus::Durability;
use kernel::Rng;

/// The parameters of one run. Probabilities are per occasion, times in microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Partitions of each keyspace, from 0.
    pub keyspaces: Vec<u16>,
    /// Replicas of each partition.
    pub replicas: usize,
    /// What the groups promise.
    pub durability: Durability,
    /// Leaders may answer reads by lease.
    pub leases: bool,
    /// In which things go wrong.
    pub faulty_micros: u64,
    /// Usually between two faults, at most twice.
    pub fault_micros: u64,
    /// At most this long between two things that a client does.
    pub think_micros: u64,
    /// Clients at once.
    pub clients: usize,
    /// Most commands that a client has on their way.
    pub pipeline: u64,
    /// Keys of each kind in a keyspace.
    pub keys: u64,
    /// At most this long for a frame.
    pub delay_micros: u64,
    /// A direction that lets nothing through breaks its link after so long.
    pub stall_micros: u64,
    /// About this long for a sync.
    pub sync_micros: u64,
    /// At most this long from an event to the node's turn.
    pub turn_micros: u64,
    /// A sync takes very long.
    pub slow_sync: f64,
    /// A checkpoint begins, at a turn without one.
    pub checkpoint: f64,
    /// Clocks run so many thousandths faster or slower at most.
    pub drift: u64,
    /// Clocks differ by so much at most.
    pub skew_micros: u64,
    /// A crash is a power cut.
    pub power_cut: f64,
    /// The disk becomes full instead of a fault.
    pub full_disk: f64,
    /// A snapshot's transfer fails.
    pub lost_snapshot: f64,
    /// Clients whose patience ends soon.
    pub impatient: f64,
    /// A partition is moved, besides a fault.
    pub moves: f64,
    /// Some bodies are evicted, at a turn.
    pub evict: f64,
    /// Steps of a slice of what does not fit a turn.
    pub slice_steps: usize,
    /// Instead of faults by chance: one split of the net.
    pub split: Option<Split>,
}

/// A split of the net at a planned time.
#[derive(Clone, Debug)]
pub struct Split {
    /// When it begins, in microseconds.
    pub cut: u64,
    /// When it ends, in microseconds.
    pub mend: u64,
    /// How many nodes are cut off from the others.
    pub minority: usize,
    /// Clients say `READONLY`.
    pub copies: bool,
}

impl Plan {
    /// The plan that `rng` decides.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Plan {
        let nodes = [3, 3, 4, 5][rng.below(4) as usize];
        let replicas = if nodes == 5 && rng.chance(0.3) { 5 } else { 3 };
        // This world has no directory: a node knows who leads only what it has a copy of, so a client needs all
        // partitions of its keyspace on its node.
        let most = if nodes == replicas { 2 } else { 1 };
        let keyspaces = (0..1 + rng.below(2)).map(|_| 1 + rng.below(most) as u16).collect();
        let pick = |rng: &mut Rng, all: [u64; 4]| all[rng.below(4) as usize];
        Plan {
            nodes,
            keyspaces,
            replicas,
            durability: Durability::Always,
            leases: rng.chance(0.3),
            faulty_micros: 6_000_000 + rng.below(4_000_000),
            fault_micros: pick(rng, [200_000, 400_000, 400_000, 900_000]),
            think_micros: pick(rng, [10_000, 40_000, 80_000, 200_000]),
            clients: 2 + rng.below(4) as usize,
            pipeline: 1 + rng.below(3),
            keys: 1 + rng.below(2),
            delay_micros: pick(rng, [300, 1_500, 1_500, 30_000]),
            stall_micros: pick(rng, [300_000, 1_000_000, 2_000_000, 4_000_000]),
            sync_micros: pick(rng, [100, 1_000, 1_000, 10_000]),
            turn_micros: 1 + rng.below(200),
            slow_sync: [0.0, 0.02][rng.below(2) as usize],
            checkpoint: [0.005, 0.02, 0.1][rng.below(3) as usize],
            drift: [0, 20, 150][rng.below(3) as usize],
            skew_micros: [0, 50_000, 3_000_000][rng.below(3) as usize],
            power_cut: [0.2, 0.6, 1.0][rng.below(3) as usize],
            full_disk: [0.0, 0.0, 0.1][rng.below(3) as usize],
            lost_snapshot: [0.0, 0.2][rng.below(2) as usize],
            impatient: [0.0, 0.3, 1.0][rng.below(3) as usize],
            moves: [0.0, 0.1, 0.4][rng.below(3) as usize],
            evict: [0.0, 0.05][rng.below(2) as usize],
            slice_steps: [3, 4096][rng.below(2) as usize],
            split: None,
        }
    }

    /// A cluster in which nothing goes wrong but this split: one partition with a copy on each of `nodes`, and one after
    /// the other the clients of each node.
    #[must_use]
    pub fn divided(split: Split, nodes: usize, clients: usize, rng: &mut Rng) -> Plan {
        Plan {
            nodes,
            keyspaces: vec![1],
            replicas: nodes,
            leases: false,
            faulty_micros: split.mend + split.cut,
            think_micros: 300_000,
            clients,
            pipeline: 1,
            keys: 2,
            delay_micros: 1_500,
            stall_micros: 1_000_000,
            sync_micros: 1_000,
            slow_sync: 0.0,
            full_disk: 0.0,
            impatient: 0.0,
            // Bounds are told in seconds, and clocks that are further off than a fiftieth have other troubles.
            drift: 20,
            split: Some(split),
            ..Plan::draw(rng)
        }
    }
}
