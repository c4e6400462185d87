//! Minimum-cost flow with convex arc costs, by successive shortest paths, all of one length at once.
//!
//! Ahuja, Magnanti & Orlin 1993, "Network Flows", chapters 9 and 14. A convex arc stands for parallel arcs of
//! one unit each with rising costs; the algorithm never makes a negative cycle, so its result is optimal.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// What the units on an arc cost: unit number `u`, counted from 0, costs `first + rise · u`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub first: i64,
    /// Not negative: costs are convex.
    pub rise: i64,
}

impl Cost {
    pub const FREE: Cost = Cost { first: 0, rise: 0 };
}

/// An arc of the network.
#[derive(Clone, Copy, Debug)]
struct Arc {
    from: usize,
    to: usize,
    capacity: u32,
    flow: u32,
    cost: Cost,
}

/// A network from vertex 0, the source, to vertex 1, the sink.
#[derive(Clone, Debug)]
pub(super) struct Network {
    arcs: Vec<Arc>,
    /// Of each vertex: its arcs, twice the number, plus one if it is the arc's head.
    touching: Vec<Vec<usize>>,
}

pub(super) const SOURCE: usize = 0;
pub(super) const SINK: usize = 1;

impl Network {
    pub fn new(vertices: usize) -> Network {
        Network { arcs: Vec::new(), touching: vec![Vec::new(); vertices] }
    }

    /// Adds an arc and returns its number.
    pub fn arc(&mut self, from: usize, to: usize, capacity: u32, cost: Cost) -> usize {
        debug_assert!(cost.rise >= 0, "costs are convex");
        let number = self.arcs.len();
        self.arcs.push(Arc { from, to, capacity, flow: 0, cost });
        self.touching[from].push(number * 2);
        self.touching[to].push(number * 2 + 1);
        number
    }

    /// Units on an arc.
    pub fn flow(&self, arc: usize) -> u32 {
        self.arcs[arc].flow
    }

    /// Sends as much as fits, as cheaply as that can be; how much that is.
    ///
    /// A round finds the cheapest paths, O(arcs) in these shallow networks, and sends along all of them:
    /// with even loads that is about one unit for each arc into the sink.
    pub fn run(&mut self) -> u32 {
        let mut sent = 0;
        while let Some(distance) = self.distances() {
            sent += self.send_along(&distance);
        }
        sent
    }

    /// The end that `step` leads to and what one unit more costs, if one more fits.
    fn step(&self, step: usize) -> Option<(usize, i64)> {
        let arc = &self.arcs[step / 2];
        let units = i64::from(arc.flow);
        if step.is_multiple_of(2) {
            (arc.flow < arc.capacity).then(|| (arc.to, arc.cost.first + arc.cost.rise * units))
        } else {
            (arc.flow > 0).then(|| (arc.from, -(arc.cost.first + arc.cost.rise * (units - 1))))
        }
    }

    /// What the cheapest path from the source to each vertex costs; `None` if none leads to the sink.
    fn distances(&self) -> Option<Vec<i64>> {
        let mut distance = vec![i64::MAX; self.touching.len()];
        let mut waiting = VecDeque::from([SOURCE]);
        let mut queued = vec![false; self.touching.len()];
        distance[SOURCE] = 0;
        while let Some(at) = waiting.pop_front() {
            queued[at] = false;
            for &step in &self.touching[at] {
                let Some((to, cost)) = self.step(step) else { continue };
                let there = distance[at] + cost;
                if there < distance[to] {
                    distance[to] = there;
                    if !queued[to] {
                        queued[to] = true;
                        waiting.push_back(to);
                    }
                }
            }
        }
        (distance[SINK] != i64::MAX).then_some(distance)
    }

    /// Sends units along paths of the cheapest cost until it finds no more; at least one.
    ///
    /// Depth first. A vertex whose steps are used up is not looked at again; steps of no cost may lead in a
    /// circle, which is not entered.
    fn send_along(&mut self, distance: &[i64]) -> u32 {
        let mut next = vec![0; self.touching.len()];
        let mut on_path = vec![false; self.touching.len()];
        let (mut path, mut at, mut sent): (Vec<usize>, usize, u32) = (Vec::new(), SOURCE, 0);
        loop {
            if at == SINK {
                for &step in &path {
                    let flow = &mut self.arcs[step / 2].flow;
                    *flow = if step.is_multiple_of(2) { *flow + 1 } else { *flow - 1 };
                }
                sent += 1;
                // Back to the source: what the unit used costs more now.
                path.clear();
                on_path.fill(false);
                at = SOURCE;
                continue;
            }
            on_path[at] = true;
            if let Some(&step) = self.touching[at].get(next[at]) {
                match self.step(step) {
                    Some((to, cost)) if !on_path[to] && distance[at] + cost == distance[to] => {
                        path.push(step);
                        at = to;
                    }
                    _ => next[at] += 1,
                }
                continue;
            }
            let Some(step) = path.pop() else { return sent };
            on_path[at] = false;
            let arc = &self.arcs[step / 2];
            at = if step.is_multiple_of(2) { arc.from } else { arc.to };
            next[at] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_largest_flow_is_found_even_if_a_first_choice_must_be_undone() {
        // Two workers, two jobs; the cheap worker can do only the first.
        let mut network = Network::new(6);
        network.arc(SOURCE, 2, 1, Cost::FREE);
        network.arc(SOURCE, 3, 1, Cost::FREE);
        let first = network.arc(2, 4, 1, Cost { first: 1, rise: 0 });
        let second = network.arc(2, 5, 1, Cost { first: 5, rise: 0 });
        let only = network.arc(3, 4, 1, Cost { first: 2, rise: 0 });
        network.arc(4, SINK, 1, Cost::FREE);
        network.arc(5, SINK, 1, Cost::FREE);
        assert_eq!(network.run(), 2);
        assert_eq!([first, second, only].map(|arc| network.flow(arc)), [0, 1, 1]);
    }

    #[test]
    fn rising_costs_spread_the_flow() {
        let mut network = Network::new(5);
        network.arc(SOURCE, 2, 7, Cost::FREE);
        let arcs = [3, 4].map(|vertex| network.arc(2, vertex, 7, Cost { first: 0, rise: 2 }));
        network.arc(3, SINK, 7, Cost::FREE);
        network.arc(4, SINK, 7, Cost::FREE);
        assert_eq!(network.run(), 7);
        let mut flows = arcs.map(|arc| network.flow(arc));
        flows.sort_unstable();
        assert_eq!(flows, [3, 4]);
    }
}
