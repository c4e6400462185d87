//! `cargo run --release -p fabric --example hostile -- 100000`: so many hostile attempts against the port of one
//! node, and whether its memory stays flat. Exit code 1 if it does not, or if anything is left.

#![allow(clippy::unwrap_used, reason = "what it runs is shared with the tests")]

#[path = "../tests/it/campaign.rs"]
mod campaign;
#[path = "../tests/it/harness.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod harness;
#[path = "../tests/it/raw.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod raw;

/// What the last nine tenths of the attempts may add: allocators keep some slack.
const GROWTH_BYTES_MAX: u64 = 4 * 1024 * 1024;

fn main() {
    let attempts = std::env::args().nth(1).map_or(100_000, |n| n.parse().expect("the number of attempts"));
    let outcome = campaign::run(attempts);
    let (before, after) = outcome.resident;
    println!("attempts   {}", outcome.attempts);
    for (label, count) in outcome.endings.iter().filter(|(_, count)| *count > 0) {
        println!("ended      {label:<12} {count}");
    }
    println!("log lines  {}", outcome.told);
    println!("left       {} connections, {} handshakes", outcome.left.0, outcome.left.1);
    println!("resident   {before} bytes after a tenth, {after} bytes at the end");
    let flat = after <= before + GROWTH_BYTES_MAX && outcome.left == (0, 0);
    println!("{}", if flat { "flat" } else { "NOT FLAT" });
    std::process::exit(i32::from(!flat));
}
