//! Which nodes keep which partition: zones spread, load even, and as little moved as that allows.
//!
//! An assignment problem, solved exactly as a minimum-cost flow (see [`flow`]). In this order:
//! 1. every partition has its copies, on different nodes, in as many zones as there are;
//! 2. the keyspace is even over the nodes, then the node's load with all other keyspaces is;
//! 3. copies stay where they are;
//! 4. leaders of the keyspace are even over the nodes, then those of all keyspaces are, and they stay where they are.
//!
//! The result depends on the problem alone, so whoever solves it gets the same.

mod flow;

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use flow::{Cost, Network, SINK, SOURCE};
use thiserror::Error;

/// Nodes of one problem.
pub const SITES_MAX: usize = 1024;
/// Copies of one partition.
pub const COPIES_MAX: usize = 16;
/// Partitions of one problem.
pub const PARTITIONS_MAX: usize = 16_384;

/// A failure domain: what burns down together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub u16);

/// A node that may keep copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site<N> {
    /// Which.
    pub node: N,
    /// Where it is.
    pub zone: Zone,
    /// Copies of other keyspaces' partitions that it has.
    pub load: u32,
    /// Other keyspaces' partitions that it leads, or is to lead.
    pub leads: u32,
}

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Problem<'a, N> {
    /// The nodes that may keep copies, each once. One that leaves is not among them.
    pub sites: &'a [Site<N>],
    /// Copies of each partition; as many as there are nodes if they are fewer.
    pub copies: usize,
    /// Who has each partition now, its leader first; nobody for a new one.
    pub current: &'a [Vec<N>],
}

/// Why a problem cannot be solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SolveError {
    /// Nobody may keep anything.
    #[error("there is no node to place partitions on")]
    NoSite,
    /// A node is named twice.
    #[error("node number {0} of the problem is named twice")]
    TwiceNamed(usize),
    /// It is larger than is solved in reasonable time.
    #[error(
        "at most {SITES_MAX} nodes, {COPIES_MAX} copies and {PARTITIONS_MAX} partitions are placed at once"
    )]
    TooLarge,
}

/// Who is to keep each partition, its leader first.
///
/// # Errors
/// [`SolveError`].
pub fn solve<N: Copy + Ord>(problem: &Problem<'_, N>) -> Result<Vec<Vec<N>>, SolveError> {
    let Problem { sites, copies, current } = problem;
    if sites.len() > SITES_MAX || *copies > COPIES_MAX || current.len() > PARTITIONS_MAX {
        return Err(SolveError::TooLarge);
    }
    let mut places = BTreeMap::new();
    for (at, site) in sites.iter().enumerate() {
        if places.insert(site.node, at).is_some() {
            return Err(SolveError::TwiceNamed(at));
        }
    }
    if sites.is_empty() {
        return Err(SolveError::NoSite);
    }
    let now: Vec<Vec<usize>> = current
        .iter()
        .map(|nodes| nodes.iter().filter_map(|node| places.get(node).copied()).collect())
        .collect();
    let chosen = choose(sites, (*copies).min(sites.len()), &now);
    let led = lead(sites, &chosen, &now);
    Ok(led.into_iter().map(|nodes| nodes.into_iter().map(|at| sites[at].node).collect()).collect())
}

/// Copies that `after` has and `before` has not: what must be sent over the network.
#[must_use]
pub fn moves<N: PartialEq>(before: &[Vec<N>], after: &[Vec<N>]) -> usize {
    let fresh = |(at, nodes): (usize, &Vec<N>)| {
        let had = before.get(at).map_or(&[][..], Vec::as_slice);
        nodes.iter().filter(|node| !had.contains(node)).count()
    };
    after.iter().enumerate().map(fresh).sum()
}

/// What counts how much, so that no sum of a lesser goal outweighs one unit of a greater one.
struct Weights {
    load: i64,
    even: i64,
    zone: i64,
}

impl Weights {
    fn new(sites: &[Site<impl Copy>], partitions: usize, copies: usize) -> Weights {
        let copies = (partitions * copies) as i64;
        let heaviest = sites.iter().map(|site| i64::from(site.load)).max().unwrap_or(0) + copies;
        // A path of the flow changes each vertex's units by one, so marginal costs are what must not
        // add up: at most two for each node.
        let steps = 2 * sites.len() as i64 + 2;
        let load = 2 * copies.min(steps) + 1;
        let even = load * 2 * heaviest.min(1 << 24) * steps + 1;
        Weights { load, even, zone: even.saturating_mul(2 * copies * steps + 1).min(1 << 56) }
    }
}

/// The nodes of each partition, in no order that matters.
fn choose<N: Copy>(sites: &[Site<N>], copies: usize, now: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut zones: Vec<Zone> = sites.iter().map(|site| site.zone).collect();
    zones.sort_unstable();
    zones.dedup();
    let weights = Weights::new(sites, now.len(), copies);
    let site_vertex = |at: usize| 2 + at;
    let partition_vertex = |partition: usize| 2 + sites.len() + partition * (1 + zones.len());
    let mut network = Network::new(2 + sites.len() + now.len() * (1 + zones.len()));
    let mut arcs = vec![Vec::with_capacity(sites.len()); now.len()];
    for (partition, has) in now.iter().enumerate() {
        let vertex = partition_vertex(partition);
        network.arc(SOURCE, vertex, copies as u32, Cost::FREE);
        for zone in 0..zones.len() {
            let cost = Cost { first: 0, rise: weights.zone };
            network.arc(vertex, vertex + 1 + zone, copies as u32, cost);
        }
        for (at, site) in sites.iter().enumerate() {
            let zone = zones.binary_search(&site.zone).expect("it was collected from the sites");
            let moved = i64::from(!has.contains(&at));
            let cost = Cost { first: moved, rise: 0 };
            arcs[partition].push(network.arc(vertex + 1 + zone, site_vertex(at), 1, cost));
        }
    }
    for (at, site) in sites.iter().enumerate() {
        let rise = weights.even + weights.load;
        let cost = Cost { first: weights.load * i64::from(site.load), rise };
        network.arc(site_vertex(at), SINK, now.len() as u32, cost);
    }
    network.run();
    let taken = |arcs: &Vec<usize>| (0..sites.len()).filter(|&at| network.flow(arcs[at]) > 0).collect();
    arcs.iter().map(taken).collect()
}

/// Puts a leader first: even over the nodes within the keyspace, then with what they lead of others, and the present one
/// where that allows it.
fn lead<N>(sites: &[Site<N>], chosen: &[Vec<usize>], now: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let count = sites.len();
    let mut network = Network::new(2 + count + chosen.len());
    let mut arcs = Vec::with_capacity(chosen.len());
    for (partition, nodes) in chosen.iter().enumerate() {
        let vertex = 2 + count + partition;
        network.arc(SOURCE, vertex, 1, Cost::FREE);
        // A present copy has the data and can lead at once; a new one must be sent it first.
        let rank = |at| match now[partition].iter().position(|&had| had == at) {
            Some(0) => 0,
            Some(_) => 1,
            None => 2,
        };
        let add = |&at: &usize| network.arc(vertex, 2 + at, 1, Cost { first: rank(at), rise: 0 });
        arcs.push(nodes.iter().map(add).collect::<Vec<usize>>());
    }
    // One path moves at most one leader off each node, for two at most, and ends at two of them.
    let others = 4 * count as i64 + 4;
    let most = sites.iter().map(|site| i64::from(site.leads)).max().unwrap_or(0);
    let even = others * (most + 2);
    for (at, site) in sites.iter().enumerate() {
        let cost = Cost { first: others * i64::from(site.leads), rise: even };
        network.arc(2 + at, SINK, chosen.len() as u32, cost);
    }
    network.run();
    let mut led = Vec::with_capacity(chosen.len());
    for (nodes, arcs) in chosen.iter().zip(&arcs) {
        let mut nodes = nodes.clone();
        if let Some(leader) = arcs.iter().position(|&arc| network.flow(arc) > 0) {
            nodes[..=leader].rotate_right(1);
        }
        led.push(nodes);
    }
    led
}

#[cfg(test)]
mod tests;
