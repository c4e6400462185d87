//! `cargo run --release -p sim --bin overlay -- kademlia --nodes 1000000`: one claim about Kademlia, as JSON on stdout;
//! CPU time, speed and memory on stderr. Exit code 0 if it holds and its control fails, 1 if not.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use sim::kad::{Claim, churn, eclipse, kademlia};

/// Claims about Kademlia at scale.
#[derive(Parser)]
struct Arguments {
    /// Decides everything.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    claim: Which,
}

#[derive(Subcommand)]
enum Which {
    /// Static: hops, questions, exactness.
    Kademlia {
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=32))]
        k: u8,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
        alpha: u8,
        #[arg(long, default_value_t = 10_000)]
        lookups: usize,
    },
    /// Nodes come and go: is the nearest that lives found?
    Churn {
        #[arg(long, default_value_t = 2000)]
        nodes: usize,
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=32))]
        k: u8,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
        alpha: u8,
        /// Mean session, in minutes.
        #[arg(long, default_value_t = 60)]
        session: u64,
        /// Minutes before the first lookup.
        #[arg(long, default_value_t = 60)]
        warm: u64,
        #[arg(long, default_value_t = 4000)]
        lookups: usize,
    },
    /// Liars, a share of all or around one key.
    Eclipse {
        #[arg(long, default_value_t = 10_000)]
        nodes: usize,
        #[arg(long, default_value_t = 0.2)]
        sybil: f64,
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=16))]
        disjoint: u8,
        #[arg(long, default_value_t = 2000)]
        lookups: usize,
        /// Networks with a surrounded key each.
        #[arg(long, default_value_t = 100)]
        keys: usize,
        /// Nodes of each of these.
        #[arg(long, default_value_t = 2000)]
        key_nodes: usize,
    },
}

fn main() -> ExitCode {
    let Arguments { seed, claim } = Arguments::parse();
    let began = cpu_seconds();
    let (claim, params) = match claim {
        Which::Kademlia { nodes, k, alpha, lookups } => (
            kademlia::run(&kademlia::Params { nodes, k, alpha, lookups, seed }),
            json!({ "nodes": nodes, "k": k, "alpha": alpha, "lookups": lookups }),
        ),
        Which::Churn { nodes, k, alpha, session, warm, lookups } => (
            churn::run(&churn::Params { nodes, k, alpha, session, warm, lookups, seed }),
            json!({ "nodes": nodes, "k": k, "alpha": alpha, "session": session, "warm": warm, "lookups": lookups }),
        ),
        Which::Eclipse { nodes, sybil, disjoint, lookups, keys, key_nodes } => (
            eclipse::run(&eclipse::Params { nodes, sybil, disjoint, lookups, keys, key_nodes, seed }),
            json!({
                "nodes": nodes, "sybil": sybil, "disjoint": disjoint, "lookups": lookups, "keys": keys,
                "key_nodes": key_nodes,
            }),
        ),
    };
    println!("{}", claim.json(seed, &params));
    talk(&claim, cpu_seconds() - began);
    if claim.holds() && claim.control_fails() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What it took, with filling the tables and the control.
fn talk(claim: &Claim, seconds: f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
    eprintln!("{} messages delivered; {seconds:.1} s of CPU in all; peak memory {peak}", claim.delivered);
}

/// CPU time of this thread, in seconds; 0 where the kernel does not tell.
fn cpu_seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    nanoseconds.unwrap_or_default() / 1e9
}
