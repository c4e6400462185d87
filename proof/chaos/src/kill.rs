//! `kill -9` under load, again and again on the same data: nothing acknowledged is lost, nothing deleted
//! comes back.

use std::time::Duration;

use kernel::Rng;

use crate::campaign::{Failure, Figure, Report, Scratch, Setting, judge_ends, must_hold, must_start};
use crate::judge::{Cut, verify};
use crate::load::{Clock, Ledger, run_while};
use crate::process::Shape;

/// Longest load before a kill, in milliseconds.
const LOAD_MS_MAX: u64 = 700;
/// A kill while it starts comes within this, in milliseconds.
const START_MS_MAX: u64 = 30;
/// Longest value, in bytes: now and then a segment is full after a few.
const VALUE_BYTES_MAX: u64 = 12 * 1024;

/// Runs the campaign; `progress` hears a line for each round.
pub fn run(setting: &Setting, progress: &mut dyn FnMut(&str)) -> Report {
    let result = Scratch::new().and_then(|scratch| {
        let result = rounds(setting, &scratch, progress);
        scratch.end(result)
    });
    Report { name: "kill", setting: setting.clone(), result }
}

fn rounds(
    setting: &Setting,
    scratch: &Scratch,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    let (program, data) = (scratch.program(setting), scratch.path().join("data"));
    let shape = Shape::small(setting.durability);
    let mut rng = Rng::new(setting.seed).fork(u64::MAX);
    let clock = Clock::start();
    let mut ledgers = Ledger::all(setting.seed, VALUE_BYTES_MAX, false);
    let (mut keys, mut unknown, mut checkpoints, mut twice, mut start_ms) = (0, 0, 0, 0, 0);
    let mut node = program.start(&shape, &data).map_err(must_start(0))?;
    for round in 1..=setting.rounds {
        let wait = Duration::from_millis(20 + rng.below(LOAD_MS_MAX));
        let address = node.redis;
        let (killed, ends) = run_while(&mut ledgers, address, clock, || {
            // The moment is what is seeded; nothing is awaited.
            std::thread::sleep(wait);
            checkpoints += node.checkpoints();
            let killed = match node.has_ended() {
                Some(how) => Err(Failure::Broken(format!("round {round}: the node ended by itself: {how}"))),
                None => Ok(()),
            };
            killed.and(node.kill().map_err(Failure::world("kill the node")))
        });
        killed?;
        judge_ends(&ends, true)?;
        let cut = Cut { at: clock.now(), may_lose_ms: 0 };
        while rng.chance(0.2) {
            let wait = Duration::from_millis(rng.below(START_MS_MAX));
            program.start_and_kill(&shape, &data, wait).map_err(must_start(round))?;
            twice += 1;
        }
        node = program.start(&shape, &data).map_err(must_start(round))?;
        start_ms = start_ms.max(node.started_in.as_millis() as u64);
        let held = verify(&mut ledgers, node.redis, clock, cut).map_err(must_hold(round))?;
        keys += held.keys;
        unknown += held.unknown;
        progress(&format!(
            "round {round}/{}: {} keys as acknowledged, {} commands were in flight, start {} ms",
            setting.rounds,
            held.keys,
            held.unknown,
            node.started_in.as_millis()
        ));
    }
    node.stop().map_err(Failure::broken("after the last round"))?;
    Ok(vec![
        ("kills under load", setting.rounds, "kills"),
        ("kills during a start", twice, "kills"),
        ("acknowledged commands", ledgers.iter().map(|ledger| ledger.acked).sum(), "commands"),
        ("acknowledged writes lost", 0, "commands"),
        ("deleted keys that came back", 0, "keys"),
        ("keys compared", keys, "keys"),
        ("commands in flight at a kill", unknown, "commands"),
        ("checkpoints", checkpoints, "checkpoints"),
        ("longest start", start_ms, "ms"),
    ])
}
