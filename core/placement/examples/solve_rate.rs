//! How long the placement of large keyspaces takes: `cargo run --release -p placement --example solve_rate`.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::time::Instant;

use placement::solve::{Problem, Site, Zone, moves, solve};

fn main() {
    for (partitions, nodes, zones) in
        [(64, 10, 3), (256, 10, 3), (1024, 10, 3), (1024, 100, 5), (4096, 30, 3)]
    {
        let site = |node: u16| Site { node, zone: Zone(node % zones), load: 0, leads: 0 };
        let fewer: Vec<Site<u16>> = (0..nodes).map(site).collect();
        let more: Vec<Site<u16>> = (0..=nodes).map(site).collect();
        let began = Instant::now();
        let before = solve(&Problem { sites: &fewer, copies: 3, current: &vec![Vec::new(); partitions] });
        let before = before.expect("the problem is well formed");
        let fresh = began.elapsed();
        let began = Instant::now();
        let after = solve(&Problem { sites: &more, copies: 3, current: &before });
        let after = after.expect("the problem is well formed");
        let (moved, ideal) = (moves(&before, &after), (partitions * 3) as f64 / f64::from(nodes + 1));
        println!(
            "{partitions:5} partitions x 3 on {nodes:3} nodes: {fresh:8.1?}; one node more: {:8.1?}, {moved} moved, ideal {ideal:.1}",
            began.elapsed()
        );
    }
}
