//! Random graphs for overlays without structure.

use kernel::Rng;

/// An undirected graph: the neighbours of each node, each once, never itself.
#[derive(Clone, Debug)]
pub struct Graph {
    neighbours: Vec<Vec<u32>>,
}

impl Graph {
    /// A connected random graph of `nodes` nodes with `nodes * degree / 2` edges.
    ///
    /// A ring through all nodes in drawn order makes it connected; the other edges are drawn evenly.
    ///
    /// # Panics
    /// If there are fewer than three nodes, `degree` is below 2, or there is no room for so many edges.
    #[must_use]
    pub fn connected(nodes: u32, degree: u32, rng: &mut Rng) -> Graph {
        assert!(nodes > degree && degree >= 2, "a graph of {nodes} nodes cannot have degree {degree}");
        let mut graph = Graph { neighbours: vec![Vec::new(); nodes as usize] };
        let order = shuffled(nodes, rng);
        for (n, &node) in order.iter().enumerate() {
            graph.join(node, order[(n + 1) % order.len()]);
        }
        let wanted = nodes as usize * degree as usize / 2;
        let mut edges = order.len();
        while edges < wanted {
            let (a, b) = (rng.below(u64::from(nodes)) as u32, rng.below(u64::from(nodes)) as u32);
            edges += usize::from(graph.join(a, b));
        }
        graph
    }

    /// A random `degree`-regular graph: stubs are paired, and pairs that may not be are exchanged with others.
    ///
    /// # Panics
    /// If `nodes * degree` is odd or `degree` is not well below `nodes`.
    #[must_use]
    pub fn regular(nodes: u32, degree: u32, rng: &mut Rng) -> Graph {
        assert!(
            (nodes * degree).is_multiple_of(2) && degree * 2 < nodes,
            "no regular graph of {nodes} with {degree}"
        );
        let mut graph = Graph { neighbours: vec![Vec::new(); nodes as usize] };
        let mut edges: Vec<(u32, u32)> = Vec::new();
        let stubs: Vec<u32> = shuffled(nodes * degree, rng).into_iter().map(|stub| stub / degree).collect();
        let mut left: Vec<(u32, u32)> =
            stubs.as_chunks::<2>().0.iter().map(|pair| (pair[0], pair[1])).collect();
        while let Some((a, b)) = left.pop() {
            if graph.join(a, b) {
                edges.push((a, b));
                continue;
            }
            // A loop or a double edge: cut a drawn edge and pair its ends with ours.
            let at = rng.below(edges.len() as u64) as usize;
            let (c, d) = edges.swap_remove(at);
            graph.cut(c, d);
            left.push((a, c));
            left.push((b, d));
        }
        graph
    }

    /// A graph in which a few nodes have most of the edges: each new node joins `edges` drawn by degree
    /// (Barabási & Albert 1999), but none that has `most` neighbours already.
    ///
    /// # Panics
    /// If there are not more nodes than `edges`, or `most` is not well above twice `edges`.
    #[must_use]
    pub fn preferential(nodes: u32, edges: u32, most: usize, rng: &mut Rng) -> Graph {
        assert!(most > 3 * edges as usize, "{edges} edges a node need nodes with more than {most}");
        assert!(nodes > edges + 1, "a graph of {nodes} nodes cannot begin with {edges} edges each");
        let mut graph = Graph { neighbours: vec![Vec::new(); nodes as usize] };
        let mut ends = Vec::new();
        for a in 0..=edges {
            for b in a + 1..=edges {
                graph.join(a, b);
                ends.extend([a, b]);
            }
        }
        for node in edges + 1..nodes {
            let mut joined = 0;
            while joined < edges {
                let other = ends[rng.below(ends.len() as u64) as usize];
                if graph.of(other).len() < most && graph.join(node, other) {
                    ends.push(other);
                    joined += 1;
                }
            }
            ends.extend(std::iter::repeat_n(node, edges as usize));
        }
        graph
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.neighbours.len() as u32
    }

    /// How many edges.
    #[must_use]
    pub fn edges(&self) -> u64 {
        self.neighbours.iter().map(|list| list.len() as u64).sum::<u64>() / 2
    }

    /// The neighbours of `node`.
    #[must_use]
    pub fn of(&self, node: u32) -> &[u32] {
        &self.neighbours[node as usize]
    }

    /// The fewest edges from `origin` to each node; `None` where there is no way.
    #[must_use]
    pub fn distances(&self, origin: u32) -> Vec<Option<u32>> {
        let mut distances = vec![None; self.neighbours.len()];
        distances[origin as usize] = Some(0);
        let mut front = vec![origin];
        let mut distance = 0;
        while !front.is_empty() {
            distance += 1;
            let mut next = Vec::new();
            for node in front {
                for &other in self.of(node) {
                    if distances[other as usize].is_none() {
                        distances[other as usize] = Some(distance);
                        next.push(other);
                    }
                }
            }
            front = next;
        }
        distances
    }

    fn join(&mut self, a: u32, b: u32) -> bool {
        if a == b || self.of(a).contains(&b) {
            return false;
        }
        self.neighbours[a as usize].push(b);
        self.neighbours[b as usize].push(a);
        true
    }

    fn cut(&mut self, a: u32, b: u32) {
        self.neighbours[a as usize].retain(|&node| node != b);
        self.neighbours[b as usize].retain(|&node| node != a);
    }
}

/// `0..n` in drawn order.
#[must_use]
pub fn shuffled(n: u32, rng: &mut Rng) -> Vec<u32> {
    let mut list: Vec<u32> = (0..n).collect();
    for at in (1..list.len()).rev() {
        list.swap(at, rng.below(at as u64 + 1) as usize);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_what_they_are_called() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let connected = Graph::connected(200, 6, &mut rng);
            assert_eq!(connected.edges(), 600);
            let regular = Graph::regular(200, 6, &mut rng);
            assert!((0..200).all(|node| regular.of(node).len() == 6));
            let uneven = Graph::preferential(200, 3, 25, &mut rng);
            assert_eq!((0..200).map(|node| uneven.of(node).len()).max(), Some(25));
            for graph in [&connected, &regular, &uneven] {
                assert!(graph.distances(0).iter().all(Option::is_some), "seed {seed}");
                for node in 0..200 {
                    for &other in graph.of(node) {
                        assert!(other != node && graph.of(other).contains(&node), "seed {seed}");
                    }
                }
            }
        }
    }
}
