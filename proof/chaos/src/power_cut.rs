//! The disk's power is cut under load: what was synced is all there is, and that must be what was promised.

use std::time::Duration;

use kernel::Rng;

use crate::campaign::{Failure, Figure, Report, Scratch, Setting, judge_ends, must_hold, must_start};
use crate::judge::{Cut, EVERYSEC_LOSS_MS_MAX, verify};
use crate::load::{Clock, Ledger, run_while};
use crate::mount::{Cutter, Mount, needs_root};
use crate::process::Shape;

/// The disk, in bytes.
const DISK_BYTES: u64 = 512 << 20;
/// Shortest load before a cut, in milliseconds: longer than `everysec` may lose.
const LOAD_MS_MIN: u64 = 200;
/// Longest beyond that.
const LOAD_MS_MAX: u64 = 2_500;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: u64 = 8 * 1024;

/// Runs the campaign; `progress` hears a line for each round.
pub fn run(setting: &Setting, progress: &mut dyn FnMut(&str)) -> Report {
    let result = needs_root().and_then(|()| Scratch::new()).and_then(|scratch| {
        let result = rounds(setting, &scratch, progress);
        scratch.end(result)
    });
    Report { name: "power-cut", setting: setting.clone(), result }
}

fn rounds(
    setting: &Setting,
    scratch: &Scratch,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    let (program, image) = (scratch.program(setting), scratch.path().join("disk.img"));
    let mut disk = Mount::ext4(&scratch.path().join("disk"), &image, DISK_BYTES)?;
    let data = disk.path().join("data");
    let shape = Shape::small(setting.durability);
    let everysec = setting.durability == "everysec";
    let mut rng = Rng::new(setting.seed).fork(u64::MAX);
    let clock = Clock::start();
    let mut ledgers = Ledger::all(setting.seed, VALUE_BYTES_MAX, everysec);
    let (mut keys, mut unknown, mut lost, mut lost_ms) = (0, 0, 0, 0);
    let mut node = program.start(&shape, &data).map_err(must_start(0))?;
    for round in 1..=setting.rounds {
        let wait = Duration::from_millis(LOAD_MS_MIN + rng.below(LOAD_MS_MAX));
        let cutter = Cutter::ready(disk.path())?;
        let (cut, ends) = run_while(&mut ledgers, node.redis, clock, || {
            // The moment is what is seeded; nothing is awaited.
            std::thread::sleep(wait);
            let at = clock.now();
            let result = cutter.cut();
            // The machine is gone with the disk, near enough; what it still says counts as said.
            result.and(node.kill().map_err(Failure::world("kill the node"))).map(|()| at)
        });
        let at = cut?;
        judge_ends(&ends, true)?;
        disk.unmount()?;
        disk.mount(&image)?;
        node = program.start(&shape, &data).map_err(must_start(round))?;
        let cut = Cut { at, may_lose_ms: if everysec { EVERYSEC_LOSS_MS_MAX } else { 0 } };
        let held = verify(&mut ledgers, node.redis, clock, cut).map_err(must_hold(round))?;
        keys += held.keys;
        unknown += held.unknown;
        lost += held.lost;
        lost_ms = lost_ms.max(held.lost_ms);
        progress(&format!(
            "round {round}/{}: {} keys as promised, {} commands were in flight, {} acknowledged ones lost, the oldest {} ms before the cut",
            setting.rounds, held.keys, held.unknown, held.lost, held.lost_ms
        ));
    }
    node.stop().map_err(Failure::broken("after the last round"))?;
    disk.unmount()?;
    Ok(vec![
        ("power cuts", setting.rounds, "cuts"),
        ("acknowledged commands", ledgers.iter().map(|ledger| ledger.acked).sum(), "commands"),
        ("acknowledged commands lost", lost, "commands"),
        ("age of the oldest lost at its cut", lost_ms, "ms"),
        ("keys compared", keys, "keys"),
        ("commands in flight at a cut", unknown, "commands"),
    ])
}
