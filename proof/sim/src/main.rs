//! Long runs of the simulator by command: `cargo run --release -p sim -- --seeds 20000`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use sim::{Failure, Outcome, Scope, scenario};

/// Runs seeds and says which of them break a promise. Exit code 1 if any does.
#[derive(Debug, Parser)]
#[command(name = "sim", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Show every event of each failing seed; with one seed, of that seed in any case.
    #[arg(long)]
    events: bool,
    /// What clients draw from: `narrow`, `wide` or `whole`. By default even seeds are narrow, and odd ones in turn
    /// wide and whole.
    #[arg(long, value_name = "NAME", value_parser = scope)]
    scope: Option<Scope>,
    /// Break this rule (needs `--features planted`); `list` lists them.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the scenarios that are kept as text and shows which traces differ. Exit code 1 if any does.
    Scenarios {
        /// Write the traces instead.
        #[arg(long)]
        write: bool,
        /// Where the files are.
        #[arg(long, value_name = "FOLDER", default_value = scenario::FOLDER)]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Verb::Scenarios { write, folder }) = &args.verb {
        return scenarios(folder, *write);
    }
    if let Some(name) = &args.planted
        && let Err(what) = plant(name)
    {
        eprintln!("{what}");
        return ExitCode::from(2);
    }
    // A failing seed is run twice; its assertions are told once, with the seed.
    std::panic::set_hook(Box::new(|_| {}));
    let (total, failures) = run(&args);
    if args.json {
        println!("{}", report(&args, &total, &failures));
    } else {
        println!(
            "{} seeds, {} violations, {} replies checked, {} crashes, {} checkpoints, {} read-backs, \
             {} damaged logs refused",
            args.seeds,
            failures.len(),
            total.replies,
            total.crashes,
            total.checkpoints,
            total.misses,
            total.refusals
        );
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn scenarios(folder: &Path, write: bool) -> ExitCode {
    let told = scenario::compare(folder).and_then(|(count, differences)| {
        if write {
            scenario::write(&differences)?;
        }
        Ok((count, differences))
    });
    let (count, differences) = match told {
        Ok(told) => told,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    for difference in &differences {
        println!("{}\n{}", difference.path.display(), difference.diff);
    }
    let verb = if write { "written" } else { "differ" };
    println!("{count} scenarios, {} {verb}", differences.len());
    if !write && !differences.is_empty() {
        eprintln!("if that is how it should be: {}", scenario::COMMAND);
        return ExitCode::from(1);
    }
    ExitCode::SUCCESS
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::named(name).ok_or_else(|| {
        let all: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
        format!("there are {}", all.join(", "))
    })
}

fn run(args: &Args) -> (Outcome, Vec<Failure>) {
    let (mut total, mut failures) = (Outcome::default(), Vec::new());
    let mut told = Instant::now();
    for seed in args.from..args.from.saturating_add(args.seeds) {
        let scope = args.scope.unwrap_or(Scope::of(seed));
        if args.events && args.seeds == 1 {
            sim::events(seed, scope).iter().for_each(|event| println!("{event}"));
        }
        match sim::run_in(seed, scope) {
            Ok(outcome) => {
                total.hash = total.hash.rotate_left(1) ^ outcome.hash;
                total.events += outcome.events;
                total.replies += outcome.replies;
                total.crashes += outcome.crashes;
                total.checkpoints += outcome.checkpoints;
                total.misses += outcome.misses;
                total.refusals += outcome.refusals;
            }
            Err(failure) => {
                eprintln!("{}", failure.told(args.events));
                failures.push(*failure);
            }
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            let done = seed - args.from + 1;
            // Progress is talk; nobody listening is no reason to stop.
            let _ = writeln!(io::stderr(), "{done} of {} seeds, {} violations", args.seeds, failures.len());
        }
    }
    (total, failures)
}

fn report(args: &Args, total: &Outcome, failures: &[Failure]) -> serde_json::Value {
    let failures: Vec<serde_json::Value> = failures
        .iter()
        .map(|failure| {
            serde_json::json!({
                "seed": failure.seed,
                "what": failure.what,
                "trace_hash": format!("{:016x}", failure.hash),
                "replay": failure.command(),
            })
        })
        .collect();
    serde_json::json!({
        "schema": 1,
        "name": "sim",
        "from": args.from,
        "seeds": args.seeds,
        "planted": args.planted,
        "verdict": if failures.is_empty() { "holds" } else { "fails" },
        "replies": total.replies,
        "events": total.events,
        "crashes": total.crashes,
        "checkpoints": total.checkpoints,
        "read_backs": total.misses,
        "refusals": total.refusals,
        "trace_hash": format!("{:016x}", total.hash),
        "failures": failures,
    })
}

#[cfg(feature = "planted")]
fn plant(name: &str) -> Result<(), String> {
    use kernel::planted::{Bug, choose};
    match Bug::ALL.iter().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name)) {
        Some(bug) => {
            choose(*bug);
            Ok(())
        }
        None => Err(format!("no planted bug is called {name}; there are {:?}", Bug::ALL)),
    }
}

#[cfg(not(feature = "planted"))]
fn plant(_: &str) -> Result<(), String> {
    Err("this build has no planted bugs; build with --features planted".into())
}
