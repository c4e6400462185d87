//! A net that splits once: what clients of the majority are told meanwhile, and what those of the minority.
//!
//! Each client stays with its node, sets and gets texts, and waits for its answer before it asks for more. So what a side
//! can do is what its clients are told.

use check::client::{Ended, How};
use kernel::Rng;

use crate::cluster::plan::{Plan, Split};
use crate::cluster::{Outcome, caught, world};
use crate::trace::Trace;

/// What is split, and when.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Nodes, of which the smaller half is cut off.
    pub nodes: usize,
    /// Clients of each node.
    pub clients: usize,
    /// Virtual time before the split, and again after it, in microseconds.
    pub calm_micros: u64,
    /// How long it lasts, in microseconds.
    pub split_micros: u64,
    /// Clients say `READONLY`, so copies answer them.
    pub copies: bool,
}

/// A side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those that can still agree.
    Majority,
    /// Those that cannot.
    Minority,
}

/// An operation as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where its client was.
    pub side: Side,
    /// When it was asked, in microseconds of virtual time.
    pub called: u64,
    /// When it ended.
    pub at: u64,
    /// How.
    pub how: How,
}

/// What a run was.
#[derive(Clone, Debug)]
pub struct Divided {
    /// As of every run.
    pub outcome: Outcome,
    /// Operations of clients that stayed with their nodes, in order of their ends.
    pub told: Vec<Told>,
    /// What no order of the operations explains.
    pub anomaly: Option<String>,
}

/// The node with which the client of this number stays; they are counted from 1.
#[must_use]
pub const fn node_of(client: u64, nodes: usize) -> usize {
    ((client - 1) % nodes as u64) as usize
}

/// Splits the net of a cluster that the seed draws.
///
/// # Errors
/// A promise broke that does not depend on what clients were told: replicas differ, or it does not become well again.
pub fn run(seed: u64, terms: Terms) -> Result<Divided, String> {
    let mut trace = Trace::new(false);
    caught(|| {
        let (cut, clients) = (terms.calm_micros, terms.nodes * terms.clients);
        let minority = (terms.nodes - 1) / 2;
        let split = Split { cut, mend: cut + terms.split_micros, minority, copies: terms.copies };
        let plan = Plan::divided(split, terms.nodes, clients, &mut Rng::new(seed).fork(1));
        let mut world = world::play(seed, plan, &mut trace)?;
        let (anomaly, hard) = match world.history.judge() {
            Ok(hard) => (None, hard),
            Err(what) => (Some(what), 0),
        };
        world.outcome.hard += hard;
        let stayed = world.history.ended.iter().filter(|ended| ended.client <= clients as u64);
        let told = stayed
            .map(|&Ended { client, called, at, how }| {
                let cut_off = world.minority.contains(&node_of(client, terms.nodes));
                Told { side: if cut_off { Side::Minority } else { Side::Majority }, called, at, how }
            })
            .collect();
        Ok(Divided { told, anomaly, outcome: world.finish() })
    })
}
