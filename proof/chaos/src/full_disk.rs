//! A disk that fills up under load: writes are refused, reads go on, and all is well once space is back.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::campaign::{Failure, Figure, Report, Scratch, Setting, judge_ends, must_hold, must_start};
use crate::judge::{Cut, verify};
use crate::load::{Clock, Ledger, run_while};
use crate::mount::{Mount, needs_root};
use crate::process::{Node, Program, Shape};
use crate::resp::{Client, Reply};

/// The disk, in bytes.
const DISK_BYTES: u64 = 256 << 20;
/// How the node is set on it.
const SHAPE: Shape = Shape {
    durability: "always",
    segment_bytes: 1 << 20,
    checkpoint_bytes: 8 << 20,
    reserve_bytes: 32 << 20,
};
/// Longest load at a time.
const LOAD: Duration = Duration::from_millis(1_500);
/// Writes must be taken this long after space is back, and refused this long after it is gone.
const CHANGE_SECONDS_MAX: u64 = 20;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: u64 = 16 * 1024;

/// Runs the campaign; `progress` hears a line for each step.
pub fn run(setting: &Setting, progress: &mut dyn FnMut(&str)) -> Report {
    let setting = Setting { durability: SHAPE.durability, ..setting.clone() };
    let result = needs_root().and_then(|()| Scratch::new()).and_then(|scratch| {
        let result = rounds(&setting, &scratch, progress);
        scratch.end(result)
    });
    Report { name: "full-disk", setting, result }
}

struct Run<'a> {
    program: Program,
    disk: &'a Path,
    clock: Clock,
    ledgers: Vec<Ledger>,
    round: u64,
}

fn rounds(
    setting: &Setting,
    scratch: &Scratch,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    let mut disk = Mount::tmpfs(&scratch.path().join("disk"), DISK_BYTES)?;
    let ledgers = Ledger::all(setting.seed, VALUE_BYTES_MAX, false);
    let program = scratch.program(setting);
    let mut run = Run { program, disk: disk.path(), clock: Clock::start(), ledgers, round: 0 };
    let (mut keys, mut slowest, mut checkpoints) = (0, Duration::ZERO, 0);
    let mut node = run.start()?;
    for round in 1..=setting.rounds {
        run.round = round;
        run.load(&node)?;
        let refused = run.refused();
        run.load_while(&node, || run_out(disk.path(), &node))??;
        keys += run.verify(&node)?;
        if run.refused() == refused {
            return Err(Failure::Broken(format!(
                "round {round}: the load's writes were not refused on a full disk"
            )));
        }
        progress(&format!("round {round}: full, {} writes refused, reads go on", run.refused() - refused));
        if round % 2 == 0 {
            // A full disk does not keep a node from starting.
            node.kill().map_err(Failure::world("kill the node"))?;
            node = run.start()?;
            keys += run.verify(&node)?;
            progress(&format!("round {round}: killed and started on the full disk, all there"));
        }
        std::fs::remove_file(ballast(disk.path())).map_err(Failure::world("remove the ballast"))?;
        let took = becomes(&node, "taken", |reply| *reply == Reply::Int(0))?;
        slowest = slowest.max(took);
        let before = node.checkpoints();
        run.load(&node)?;
        let made = checkpoint_goes_on(&node, before)?;
        checkpoints += made;
        keys += run.verify(&node)?;
        progress(&format!(
            "round {round}: writes are taken again after {} ms, {made} checkpoints since",
            took.as_millis()
        ));
        node.kill().map_err(Failure::world("kill the node"))?;
        node = run.start()?;
        keys += run.verify(&node)?;
    }
    node.stop().map_err(Failure::broken("after the last round"))?;
    let (acked, refused) = (run.ledgers.iter().map(|ledger| ledger.acked).sum(), run.refused());
    disk.unmount()?;
    Ok(vec![
        ("times full", setting.rounds, "times"),
        ("acknowledged commands", acked, "commands"),
        ("acknowledged writes lost", 0, "commands"),
        ("writes refused", refused, "commands"),
        ("keys compared", keys, "keys"),
        ("longest until writes were taken again", slowest.as_millis() as u64, "ms"),
        ("checkpoints after space was back", checkpoints, "checkpoints"),
    ])
}

impl Run<'_> {
    fn start(&self) -> Result<Node, Failure> {
        self.program.start(&SHAPE, &self.disk.join("data")).map_err(must_start(self.round))
    }

    fn refused(&self) -> u64 {
        self.ledgers.iter().map(|ledger| ledger.refused).sum()
    }

    fn load(&mut self, node: &Node) -> Result<(), Failure> {
        // How much is written does not matter, so nothing is awaited.
        self.load_while(node, || std::thread::sleep(LOAD))
    }

    fn load_while<T>(&mut self, node: &Node, during: impl FnOnce() -> T) -> Result<T, Failure> {
        let (result, ends) = run_while(&mut self.ledgers, node.redis, self.clock, during);
        judge_ends(&ends, false).map_err(|failure| {
            Failure::Broken(format!("round {}: {failure}; it said: {}", self.round, node.said()))
        })?;
        Ok(result)
    }

    /// Nothing is in flight: exactly the acknowledged state must be there.
    fn verify(&mut self, node: &Node) -> Result<u64, Failure> {
        let cut = Cut { at: self.clock.now(), may_lose_ms: 0 };
        let held = verify(&mut self.ledgers, node.redis, self.clock, cut).map_err(must_hold(self.round))?;
        Ok(held.keys)
    }
}

fn ballast(disk: &Path) -> std::path::PathBuf {
    disk.join("ballast")
}

/// Fills the disk to the last byte and waits until writes are refused.
fn run_out(disk: &Path, node: &Node) -> Result<Duration, Failure> {
    let mut file = File::create(ballast(disk)).map_err(Failure::world("fill the disk"))?;
    for block in [vec![1; 1 << 20], vec![1; 4096]] {
        while file.write_all(&block).is_ok() {}
    }
    let refused = becomes(
        node,
        "refused",
        |reply| matches!(reply, Reply::Error(text) if text.starts_with("MISCONF the disk is full")),
    )?;
    // What the node gives back of its own accord is taken too.
    while file.write_all(&[1; 4096]).is_ok() {}
    std::thread::sleep(LOAD);
    Ok(refused)
}

/// How long until a write that changes nothing is answered as `wanted`.
fn becomes(node: &Node, word: &str, wanted: impl Fn(&Reply) -> bool) -> Result<Duration, Failure> {
    let began = Instant::now();
    let mut client = Client::connect(node.redis).map_err(Failure::broken("a full disk"))?;
    loop {
        let reply = client.ask(&["DEL", "nobody's"]).map_err(Failure::broken("a full disk"))?;
        if wanted(&reply) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > Duration::from_secs(CHANGE_SECONDS_MAX) {
            let (reply, said) = (reply.brief(), node.said());
            return Err(Failure::Broken(format!(
                "after {CHANGE_SECONDS_MAX} s writes are not {word}: {reply}; the node said: {said}"
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The checkpoints since `before`, once there is one; without them the log would grow for ever.
fn checkpoint_goes_on(node: &Node, before: u64) -> Result<u64, Failure> {
    let began = Instant::now();
    loop {
        let made = node.checkpoints() - before;
        if made > 0 {
            return Ok(made);
        }
        if began.elapsed() > Duration::from_secs(CHANGE_SECONDS_MAX) {
            let said = node.said();
            return Err(Failure::Broken(format!("no checkpoint since space is back; the node said: {said}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
