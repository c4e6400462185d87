//! What a seed decides before anything happens: how big, how fast, how unlucky.

use consensus::Durability;
use kernel::{KeyspaceId, Rng};
use node::Divisions;
use placement::Partitions;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process is killed; the system keeps what was written.
    Kill,
    /// The power fails.
    Cut,
    /// The power fails, and a bit flips in what was synced.
    Flip,
}

/// The parameters of one run. Probabilities are per occasion.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stores' seed.
    pub data_seed: u64,
    /// Each keyspace's promise, from 0.
    pub keyspaces: Vec<Durability>,
    /// How the lives before the last one end.
    pub lives: Vec<Ending>,
    /// How long each life is, in microseconds.
    pub life_micros: u64,
    /// At most this long between two things that a client does.
    pub think_micros: u64,
    /// At most this long from an event to the node's turn.
    pub turn_micros: u64,
    /// About this long for a sync.
    pub sync_micros: u64,
    /// At most this long from a crash to the restart.
    pub down_micros: u64,
    /// Clients at once.
    pub clients: usize,
    /// Most groups of commands that a client sends at once.
    pub pipeline: u64,
    /// A client leaves.
    pub disconnect: f64,
    /// A sync takes very long.
    pub slow_sync: f64,
    /// A sync fails.
    pub sync_failure: f64,
    /// The disk becomes full.
    pub full_disk: f64,
    /// A checkpoint begins, at a turn without one.
    pub checkpoint: f64,
    /// Some bodies are evicted, at a turn.
    pub evict: f64,
    /// The clock is another one after a restart.
    pub clock_jump: f64,
    /// Workers of the node.
    pub workers: u16,
    /// At most this long for a parcel from one worker to another.
    pub parcel_micros: u64,
    /// At most this long for a body to be read back.
    pub fetch_micros: u64,
    /// A body cannot be read back.
    pub fetch_failure: f64,
    /// How many partitions each keyspace has.
    pub partitions: Vec<u16>,
    /// Steps of a slice of what does not fit a turn: so few that little does.
    pub slice_steps: usize,
    /// Clients come in between before the next slice.
    pub between_slices: f64,
}

impl Plan {
    /// The plan that `rng` decides.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Plan {
        let data_seed = rng.next_u64();
        let mut keyspaces = vec![Durability::Always, Durability::EverySec];
        if rng.chance(0.3) {
            keyspaces.push(Durability::Always);
        }
        if rng.chance(0.3) {
            keyspaces.swap_remove(rng.below(2) as usize);
        }
        let ending =
            |rng: &mut Rng| [Ending::Kill, Ending::Cut, Ending::Cut, Ending::Flip][rng.below(4) as usize];
        let lives = (0..1 + rng.below(3)).map(|_| ending(rng)).collect();
        let think_micros = [500, 3_000, 20_000, 200_000][rng.below(4) as usize];
        let clients = 1 + rng.below(6);
        let sometimes = |rng: &mut Rng, p: f64, often: f64| if rng.chance(p) { often } else { 0.0 };
        let mut plan = Plan {
            data_seed,
            keyspaces,
            lives,
            // About as many commands in a slow run as in a fast one.
            life_micros: think_micros * (4 + rng.below(12)) / clients.min(3) * 2,
            think_micros,
            turn_micros: 1 + rng.below(200),
            sync_micros: [20, 500, 3_000, 15_000][rng.below(4) as usize],
            down_micros: [1_000, 1_000_000][rng.below(2) as usize],
            clients: clients as usize,
            pipeline: 1 + rng.below(5),
            disconnect: sometimes(rng, 0.5, 0.03),
            slow_sync: sometimes(rng, 0.3, 0.05),
            sync_failure: sometimes(rng, 0.15, 0.03),
            full_disk: sometimes(rng, 0.2, 0.02),
            checkpoint: sometimes(rng, 0.7, 0.2),
            evict: sometimes(rng, 0.5, 0.1),
            clock_jump: sometimes(rng, 0.6, 0.7),
            // Drawn last, so that a seed is otherwise what it was before there were several.
            workers: [1, 1, 2, 2, 3][rng.below(5) as usize],
            parcel_micros: [0, 50, 2_000, 30_000][rng.below(4) as usize],
            fetch_micros: [0, 50, 2_000, 30_000][rng.below(4) as usize],
            fetch_failure: sometimes(rng, 0.2, 0.1),
            slice_steps: [1, 3, 12, 4096][rng.below(4) as usize],
            between_slices: [0.5, 0.9][rng.below(2) as usize],
            partitions: Vec::new(),
        };
        plan.partitions = plan.keyspaces.iter().map(|_| [1, 1, 2, 3, 4][rng.below(5) as usize]).collect();
        plan
    }

    /// Every partition: its keyspace, its number and its promise.
    pub fn all(&self) -> impl Iterator<Item = (KeyspaceId, u16, Durability)> + '_ {
        let numbered = (0..).map(KeyspaceId).zip(&self.keyspaces).zip(&self.partitions);
        numbered.flat_map(|((db, &durability), &count)| (0..count).map(move |part| (db, part, durability)))
    }

    /// Into how many each keyspace is divided.
    #[must_use]
    pub fn divisions(&self) -> Divisions {
        let mut divisions = Divisions::default();
        for (db, &count) in (0..).map(KeyspaceId).zip(&self.partitions) {
            divisions.set(db, Partitions::new(count).expect("a keyspace has at least one"));
        }
        divisions
    }

    /// The clock's error after a restart, in microseconds.
    #[must_use]
    pub fn draw_skew(&self, rng: &mut Rng) -> i64 {
        if rng.chance(self.clock_jump) { rng.below(6_000_000) as i64 - 4_000_000 } else { 0 }
    }
}
