//! Whole clusters by command: `cargo run --release -p sim --bin cluster -- --seeds 20000`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::cluster::{Failure, Outcome, attempt, run};

/// Runs seeds of simulated clusters and says which of them break a promise. Exit code 1 if any does.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Show every event of each failing seed; with one seed, of that seed in any case.
    #[arg(long)]
    events: bool,
    /// Break this rule (needs `--features planted`); `list` lists them.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// Stop at the first failure.
    #[arg(long)]
    first: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(name) = &args.planted
        && let Err(what) = plant(name)
    {
        eprintln!("{what}");
        return ExitCode::from(2);
    }
    // A failing seed is run twice; its assertions are told once, with the seed.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut total, mut failures, mut told) = (Outcome::default(), Vec::new(), Instant::now());
    let mut done = 0;
    for seed in args.from..args.from.saturating_add(args.seeds) {
        done += 1;
        match one(&args, seed) {
            Ok(outcome) => total.add(&outcome),
            Err(failure) => {
                eprintln!("{}", failure.told(args.events));
                failures.push(*failure);
                if args.first {
                    break;
                }
            }
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            // Progress is talk; nobody listening is no reason to stop.
            let _ = writeln!(io::stderr(), "{done} of {} seeds, {} violations", args.seeds, failures.len());
        }
    }
    if args.json {
        println!("{}", report(&args, &total, &failures));
    } else {
        println!("{done} seeds, {} violations, {total:?}", failures.len());
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn one(args: &Args, seed: u64) -> Result<Outcome, Box<Failure>> {
    if args.events && args.seeds == 1 {
        return attempt(seed, true);
    }
    run(seed)
}

fn report(args: &Args, total: &Outcome, failures: &[Failure]) -> serde_json::Value {
    let failure = |failure: &Failure| {
        serde_json::json!({
            "seed": failure.seed,
            "what": failure.what,
            "trace_hash": format!("{:016x}", failure.hash),
            "replay": failure.command(),
        })
    };
    serde_json::json!({
        "schema": 1,
        "name": "cluster",
        "from": args.from,
        "seeds": args.seeds,
        "planted": args.planted,
        "verdict": if failures.is_empty() { "holds" } else { "fails" },
        "answered": total.answered,
        "unknown": total.unknown,
        "refused": total.refused,
        "crashes": total.crashes,
        "snapshots": total.snapshots,
        "marks": total.marks,
        "not_judged": total.hard,
        "trace_hash": format!("{:016x}", total.hash),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

#[cfg(feature = "planted")]
fn plant(name: &str) -> Result<(), String> {
    use kernel::planted::{Bug, choose};
    let mut all = Bug::GROUP.iter().chain(Bug::REPLICA).chain(Bug::STILL).chain(Bug::ALL);
    match all.find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name)) {
        Some(bug) => {
            choose(*bug);
            Ok(())
        }
        None => {
            let (group, replica, still) = (Bug::GROUP, Bug::REPLICA, Bug::STILL);
            Err(format!("no planted bug is called {name}; there are {group:?} {replica:?} {still:?}"))
        }
    }
}

#[cfg(not(feature = "planted"))]
fn plant(_: &str) -> Result<(), String> {
    Err("this build has no planted bugs; build with --features planted".into())
}
