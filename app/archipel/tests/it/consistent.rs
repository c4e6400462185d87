//! A backup of a keyspace that is divided among several real nodes belongs together.
//!
//! A client adds one to x, and when that is acknowledged one to y, which is in another partition that another node leads: so y is
//! never above x, and must not be in a backup either.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;
use server::kernel::Rng;

use crate::cluster::{first, joined, status};
use crate::process::{Node, PATIENCE, code, run, stderr, stdout};

/// The keyspace, and how many partitions it has.
const DB: &str = "20";
const PARTITIONS: usize = 8;
/// Keys of its first partition and its last: partitions are taken in that order.
const KEYS: [&str; 2] = ["{aa}x", "{a}y"];
/// Backups until one without a common moment must have shown what is wrong with it.
const LOOSE_MAX: u64 = 60;

/// Three members, with a keyspace that is divided.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

impl Cluster {
    pub fn new(dir: &Path) -> Cluster {
        let one = first(&dir.join("1"));
        let two = joined(&dir.join("2"), &one, "b");
        let three = joined(&dir.join("3"), &one, "c");
        let made = one.run(&["cluster", "keyspace", "create", DB, "--partitions", &PARTITIONS.to_string()]);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        let cluster = Cluster { nodes: vec![one, two, three] };
        cluster.is_whole();
        cluster
    }

    /// Waits until all partitions have their copies and a leader, and all members see each other.
    fn is_whole(&self) {
        for node in &self.nodes {
            node.until("all partitions have three copies and a leader", |node| {
                let status = status(node);
                let led = |keyspace: &Value| keyspace["led"] == keyspace["partitions"];
                let well =
                    |member: &Value| member["copies"] == 16 + PARTITIONS && member["health"] == "alive";
                status["members"].as_array().unwrap().iter().all(well)
                    && status["moves"].as_array().unwrap().is_empty()
                    && status["keyspaces"].as_array().unwrap().iter().all(led)
            });
        }
    }

    /// The one at this place comes back, with what it has, at other ports.
    fn restart(&mut self, at: usize, dir: &Path) {
        let zone = ["a", "b", "c"][at];
        self.nodes[at] = Node::start_as(&dir.join((at + 1).to_string()), &["--zone", zone], &[]);
    }

    /// Who leads x is asked first, and who leads y last.
    fn move_leaders(&self, to: [usize; 2]) {
        for (partition, to) in [0, PARTITIONS - 1].into_iter().zip(to) {
            let id = status(&self.nodes[to])["node"].as_str().unwrap().to_owned();
            let moved = self.nodes[0].run(&["cluster", "move-leader", DB, &partition.to_string(), &id]);
            assert_eq!(code(&moved), 0, "{}", stderr(&moved));
        }
    }

    /// A backup through the first one.
    pub fn back_up(&self, backups: &Path, flags: &[&str]) -> Output {
        self.back_up_command(backups, flags).output().unwrap()
    }

    /// The same, still to be run.
    pub fn back_up_command(&self, backups: &Path, flags: &[&str]) -> Command {
        let (backups, also) = (backups.display().to_string(), self.also());
        let mut words = vec!["cluster", "backup", &backups, "--json"];
        also.iter().for_each(|also| words.extend(["--also", also]));
        words.extend(flags);
        self.nodes[0].command(&words)
    }

    /// Of which other members it is.
    pub fn also(&self) -> Vec<String> {
        self.nodes[1..].iter().map(|node| node.admin.to_string()).collect()
    }
}

/// Counts until it is told to end: how often it was acknowledged, and what else it was told.
fn count(node: &Node, ends: &AtomicBool) -> (u64, Vec<String>) {
    let mut stream = TcpStream::connect(node.redis).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |command: String| {
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        answers.next().unwrap().unwrap()
    };
    assert_eq!(ask(format!("SELECT {DB}")), "+OK");
    let (mut done, mut others, mut at) = (0, Vec::new(), 0);
    while !ends.load(Ordering::Relaxed) {
        let answer = ask(format!("INCR {}", KEYS[at]));
        if answer.starts_with(':') {
            (done, at) = (done + 1, 1 - at);
        } else {
            // It may have been done: y only follows an x that was acknowledged.
            others.push(answer);
            at = 0;
        }
    }
    (done, others)
}

/// Ends the counting, also when the test fails: else its thread would be waited for for ever.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What x and y are in a backup.
fn restored(backups: &Path, number: u64, dir: &Path) -> (u64, u64) {
    std::fs::create_dir_all(dir).unwrap();
    let target = dir.join(format!("restored{number}"));
    let (from, to, number) =
        (backups.display().to_string(), target.display().to_string(), number.to_string());
    let done = run(&["cluster", "restore", &from, "--data-dir", &to, "--number", &number]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let node = Node::start(&target, &[]);
    let told = node.redis_all(&format!("SELECT {DB}\r\nMGET {} {}\r\n", KEYS[0], KEYS[1]));
    node.stop();
    let numbers: Vec<u64> = told.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers.len(), 2, "{told}");
    (numbers[0], numbers[1])
}

#[test]
fn what_was_sent_after_something_was_acknowledged_is_in_no_backup_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(dir.path());
    let (together, loose) = (dir.path().join("together"), dir.path().join("loose"));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ending = Ending(&ends);
        let writer = scope.spawn(|| count(&cluster.nodes[0], &ends));
        cluster.nodes[0].until("both keys are there", |node| {
            let asked = format!("SELECT {DB}\r\nEXISTS {} {}\r\n", KEYS[0], KEYS[1]);
            node.redis_all(&asked).contains(":2")
        });
        let mut made = Vec::new();
        for round in 0..8 {
            cluster.move_leaders([[0, 2], [1, 0], [2, 1]][round % 3]);
            let output = cluster.back_up(&together, &[]);
            // A leader that moves just then may be waited for in vain.
            if code(&output) == 0 {
                let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
                made.push(told["number"].as_u64().unwrap());
            } else {
                assert!(stderr(&output).contains("could not be held at one moment"), "{}", stderr(&output));
            }
        }
        assert!(made.len() > 3, "{made:?}");
        cluster.move_leaders([0, 2]);
        let shown = (1..=LOOSE_MAX).find(|&number| {
            let output = cluster.back_up(&loose, &["--loose"]);
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            let (x, y) = restored(&loose, number, &dir.path().join("of-loose"));
            y > x
        });
        drop(ending);
        let (done, others) = writer.join().unwrap();
        assert!(
            done > 100 && others.is_empty(),
            "{done} additions, and writers are told of nothing: {others:?}"
        );
        for number in made {
            let (x, y) = restored(&together, number, &dir.path().join("of-together"));
            assert!(y <= x && x > 0, "backup {number} has {x} and {y}");
        }
        assert!(
            shown.is_some(),
            "each at its own moment they must not belong together, or the test is blind"
        );
    });
    cluster.nodes.into_iter().for_each(Node::stop);
}

/// Backups around each of which a node is killed; as many as the variable `BACKUP_ROUNDS` says by command, from the seed
/// `BACKUP_SEED` on.
const ROUNDS: u64 = 4;

/// When a node is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Just before the backup is begun.
    Before,
    /// When it is.
    AtOnce,
    /// When there is a file that begins with this, or nothing more comes.
    At(&'static str),
}

const MOMENTS: [When; 4] = [When::Before, When::AtOnce, When::At("data-"), When::At("log-")];

/// Counts through whoever lives, until it is told to end. `acknowledged` is never ahead of x.
fn count_through(ports: &Mutex<Vec<SocketAddr>>, acknowledged: &AtomicU64, ends: &AtomicBool) {
    for at in 0.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let port = ports.lock().unwrap()[at % 3];
        // Nobody may listen there, or whoever does is killed.
        let _ = TcpStream::connect(port).and_then(|stream| count_at(stream, acknowledged, ends));
    }
}

fn count_at(mut stream: TcpStream, acknowledged: &AtomicU64, ends: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?).lines();
    let mut ask = |command: String| {
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        answers.next().unwrap_or_else(|| Err(ErrorKind::UnexpectedEof.into()))
    };
    ask(format!("SELECT {DB}"))?;
    while !ends.load(Ordering::Relaxed) {
        // What is not acknowledged may have been done: then x has one more, and y none for it.
        if ask(format!("INCR {}", KEYS[0]))?.starts_with(':') {
            acknowledged.fetch_add(1, Ordering::SeqCst);
            ask(format!("INCR {}", KEYS[1]))?;
        }
    }
    Ok(())
}

/// The command, and `victim` is killed when it is time.
fn back_up_and_kill(cluster: &Cluster, backups: &Path, (victim, when): (usize, When)) -> Output {
    let kill = || cluster.nodes[victim].signal("KILL");
    if let When::Before = when {
        kill();
    }
    let mut command = cluster.back_up_command(backups, &[]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    match when {
        When::Before => {}
        When::AtOnce => kill(),
        When::At(file) => {
            let count = || {
                let all = std::fs::read_dir(backups).into_iter().flatten();
                all.filter(|it| it.as_ref().unwrap().file_name().to_string_lossy().starts_with(file)).count()
            };
            let before = count();
            while count() == before && running.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            kill();
        }
    }
    running.wait_with_output().unwrap()
}

#[test]
fn backups_belong_together_also_when_nodes_are_killed_before_and_while_they_are_made() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number("BACKUP_ROUNDS").unwrap_or(ROUNDS), number("BACKUP_SEED").unwrap_or(1));
    let (dir, mut rng) = (tempfile::tempdir().unwrap(), Rng::new(seed));
    let backups = dir.path().join("backups");
    let mut cluster = Cluster::new(dir.path());
    let redis = |cluster: &Cluster| cluster.nodes.iter().map(|node| node.redis).collect::<Vec<_>>();
    let (ports, acknowledged, ends) =
        (Mutex::new(redis(&cluster)), AtomicU64::new(0), AtomicBool::new(false));
    let mut made = Vec::new();
    std::thread::scope(|scope| {
        let ending = Ending(&ends);
        let writer = scope.spawn(|| count_through(&ports, &acknowledged, &ends));
        // All of each kind come before any comes again.
        let mut order = Vec::new();
        for round in 0..rounds {
            if order.is_empty() {
                order.extend(MOMENTS);
            }
            let when = order.swap_remove(rng.below(order.len() as u64) as usize);
            let victim = rng.below(3) as usize;
            let before = acknowledged.load(Ordering::SeqCst);
            cluster.nodes[0].until("more is counted", |_| acknowledged.load(Ordering::SeqCst) > before);
            let before = acknowledged.load(Ordering::SeqCst);
            let output = back_up_and_kill(&cluster, &backups, (victim, when));
            let told = format!("seed {seed}, round {round}: {victim} is killed {when:?}");
            if code(&output) == 0 {
                let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
                made.push((line["number"].as_u64().unwrap(), before, told));
            } else {
                // Whoever led may be waited for in vain: then there is no backup, and it is said why.
                let said = stderr(&output);
                assert!(code(&output) == 1 && said.contains("archipel: "), "{told}: {said}");
                println!("{told}: {said}");
            }
            cluster.restart(victim, dir.path());
            *ports.lock().unwrap() = redis(&cluster);
            cluster.is_whole();
        }
        drop(ending);
        writer.join().unwrap();
    });
    println!("{} of {rounds} backups were made", made.len());
    assert!(made.len() as u64 >= rounds.div_ceil(2), "{made:?}");
    for (number, least, told) in made {
        let (x, y) = restored(&backups, number, &dir.path().join("restored"));
        assert!(y <= x, "{told}: backup {number} has {x} and {y}");
        assert!(x >= least, "{told}: backup {number} has {x}, and {least} were acknowledged before it");
    }
    cluster.nodes.into_iter().for_each(Node::stop);
}
