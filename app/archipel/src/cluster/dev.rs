//! `archipel cluster dev`: several nodes of this binary as processes on this machine, until Ctrl-C.
//!
//! Each node stops when its stdin ends, so none outlives this process, whatever ends it.

mod child;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::child::Child;
use super::status;
use crate::admin::{Answer, SECONDS_MAX, ask};
use crate::exit::{Exit, Failure};
use crate::options::Options;
use crate::output::say_or;

/// How long a node may take to serve, and the cluster to be whole.
const PATIENCE_SECONDS: u64 = 120;
/// How often the nodes are looked at.
const LOOK_MILLIS: u64 = 50;
/// A node's ports at offset 0: for Redis clients and those of Redis Cluster, the admin port, other members.
const PORTS: [u16; 4] = [6379, 6380, 7400, 7401];
/// What is between the offsets of two nodes.
const STEP: u16 = 10;
/// How long nodes may take to stop.
const STOP_SECONDS: u64 = 20;

/// What the nodes have in common. A database of 64 partitions besides the sixteen that always exist, and a log that takes
/// little of a machine that is used for something else.
const CONFIG: &str = "\
[cluster]
enabled = true

[storage]
segment_bytes = \"4MiB\"

[[keyspace]]
id = 1
name = \"sharded\"
partitions = 64
";

/// Why these flags of all verbs are not taken here, if one is given: its nodes have a configuration and directories of their
/// own, and what is silently not followed is worse than refused.
fn refused(options: &Options, variable: Option<OsString>) -> Option<&'static str> {
    // The variable names the file of this machine's node, which is none of these.
    let is_ours = |file: &PathBuf| variable.as_ref().is_none_or(|it| it.as_os_str() != file.as_os_str());
    if options.data_dir.is_some() {
        return Some(
            "--data-dir is of one node, and these are several: give --dir, in which each has its own",
        );
    }
    if options.config.as_ref().is_some_and(is_ours) || !options.set.is_empty() {
        return Some(
            "cluster dev takes no --config and no --set: its nodes have a configuration of their own; change it \
             with `archipel cluster keyspace` while they run, or start nodes with `archipel node start`",
        );
    }
    None
}

/// Runs the cluster until it is stopped.
pub fn run(options: &Options, nodes: u16, dir: Option<PathBuf>) -> Result<Exit, Failure> {
    if let Some(reason) = refused(options, std::env::var_os("ARCHIPEL_CONFIG")) {
        return Err(Failure::usage(anyhow!(reason)));
    }
    // Before anything starts, so that no signal is lost.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be caught")?;
    let home = Home::new(dir)?;
    let mut cluster = Cluster { children: Vec::new(), home };
    let began = Instant::now();
    let bar = bar(options.json);
    let made = cluster.make(options, nodes, &bar, &mut signals);
    bar.finish_and_clear();
    if !made? {
        return cluster.stop();
    }
    cluster.tell(options.json, began.elapsed())?;
    while signals.pending().next().is_none() {
        for child in &mut cluster.children {
            if let Some(ended) = child.has_ended()? {
                eprintln!(
                    "node {} ended with {ended}; start it again with\n  {}",
                    child.number,
                    child.again()
                );
            }
        }
        std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
    }
    eprintln!("stopping");
    cluster.stop()
}

/// Where the nodes' data is.
struct Home {
    path: PathBuf,
    /// It goes with the cluster.
    is_temporary: bool,
}

impl Home {
    fn new(dir: Option<PathBuf>) -> Result<Home> {
        let is_temporary = dir.is_none();
        let fresh = || std::env::temp_dir().join(format!("archipel-dev-{}", std::process::id()));
        let path = dir.unwrap_or_else(fresh);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = std::fs::canonicalize(&path).with_context(|| path.display().to_string())?;
        let used = std::fs::read_dir(&path).with_context(|| path.display().to_string())?.next().is_some();
        if used {
            bail!("{} is not empty; give another directory, or remove this one", path.display());
        }
        Ok(Home { path, is_temporary })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed is left to the machine's cleaning of temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The nodes. Dropped, they stop before their data goes.
struct Cluster {
    children: Vec<Child>,
    home: Home,
}

impl Cluster {
    /// Starts all nodes and waits until they are one cluster. False if a signal came first.
    fn make(
        &mut self,
        options: &Options,
        nodes: u16,
        bar: &ProgressBar,
        signals: &mut Signals,
    ) -> Result<bool> {
        let config = self.home.path.join("archipel.toml");
        std::fs::write(&config, CONFIG).with_context(|| config.display().to_string())?;
        let base = match &options.port_offset {
            Some(text) => text.parse().context("--port-offset is a multiple of 10")?,
            None => 0,
        };
        let mut offsets = free_offsets(base);
        for number in 1..=nodes {
            let offset =
                offsets.next().ok_or_else(|| anyhow!("there are no free ports for node {number}"))?;
            let token = match self.children.first() {
                None => None,
                Some(first) => Some(first.ask("POST", "/cluster/token?seconds=600")?),
            };
            bar.set_message(match token {
                None => "node 1 makes the cluster".to_owned(),
                Some(_) => format!("node {number} joins"),
            });
            let child = Child::start(number, offset, &self.home.path, &config, token.as_deref())?;
            self.children.push(child);
            let last = self.children.len() - 1;
            if !self.wait(signals, |cluster| Ok(cluster.children[last].serves()))? {
                return Ok(false);
            }
        }
        self.wait(signals, |cluster| {
            let status = cluster.status()?;
            bar.set_message(left(&status, usize::from(nodes)));
            Ok(is_whole(&status, usize::from(nodes)))
        })
    }

    /// Waits until it is so. False if a signal came first.
    fn wait(&mut self, signals: &mut Signals, so: impl Fn(&Cluster) -> Result<bool>) -> Result<bool> {
        let end = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
        loop {
            if signals.pending().next().is_some() {
                return Ok(false);
            }
            for child in &mut self.children {
                if let Some(ended) = child.has_ended()? {
                    bail!("node {} ended with {ended}; it said:\n{}", child.number, child.said());
                }
            }
            if so(self)? {
                return Ok(true);
            }
            if Instant::now() > end {
                bail!("the cluster is not whole after {PATIENCE_SECONDS} s: {}", self.trouble());
            }
            std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
        }
    }

    fn status(&self) -> Result<Value> {
        let first = self.children.first().context("there is a first node")?;
        Ok(serde_json::from_str(&first.ask("GET", "/cluster")?)?)
    }

    fn trouble(&self) -> String {
        let status = self.status().map(|status| status::table(&status));
        status.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Says where everything is; if nobody reads that, the nodes are stopped before the program ends.
    fn tell(&self, as_json: bool, took: Duration) -> Result<()> {
        let status = self.status()?;
        if as_json {
            let nodes: Vec<Value> = self.children.iter().map(Child::json).collect();
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let told = json!({"schema": 1, "nodes": nodes, "millis": millis, "cluster": status});
            return say_or(format_args!("{told}\n"));
        }
        let line = |child: &Child| {
            format!(
                "  node {}   process {:<8} Redis {:<16} admin http://{}\n           data {}\n",
                child.number,
                child.pid(),
                child.redis(),
                child.admin(),
                child.data.display()
            )
        };
        let lines: String = self.children.iter().map(line).collect();
        let last = self.children.last().context("there is a last node")?;
        let first = &self.children[0];
        say_or(format_args!(
            "{} nodes are one cluster after {:.1} s\n\n{lines}\n\
             Try, at any node:\n\
             \x20 redis-cli -p {} set greeting hello\n\
             \x20 redis-cli -p {} get greeting\n\
             \x20 redis-cli -c -p {} set some:key 1            goes to whom it belongs; 64 partitions\n\
             \x20 archipel cluster status --port-offset {}\n\
             Kill one, see that nothing is lost, and start it again:\n\
             \x20 kill -9 {}\n\
             \x20 {}\n\n\
             Ctrl-C stops the nodes{}.\n",
            self.children.len(),
            took.as_secs_f64(),
            first.redis().port(),
            last.redis().port(),
            last.redis().port() + 1,
            first.offset,
            last.pid(),
            last.again(),
            if self.home.is_temporary { " and removes their data" } else { "" },
        ))
    }

    fn stop(mut self) -> Result<Exit, Failure> {
        self.children.iter_mut().for_each(Child::ask_to_stop);
        let end = Instant::now() + Duration::from_secs(STOP_SECONDS);
        for child in &mut self.children {
            while child.has_ended_ever()?.is_none() {
                if Instant::now() > end {
                    eprintln!("node {} did not stop within {STOP_SECONDS} s and is killed", child.number);
                    break;
                }
                std::thread::sleep(Duration::from_millis(LOOK_MILLIS));
            }
        }
        Ok(Exit::Holds)
    }
}

fn bar(as_json: bool) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is sound");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Whether all nodes are members, every partition has its copies and a leader, and nothing moves.
fn is_whole(status: &Value, nodes: usize) -> bool {
    let list = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let number = |one: &Value, name: &str| one[name].as_u64().unwrap_or_default();
    let members = list("members");
    // Nothing moves either before it is decided who keeps what, so the copies are counted.
    let promised = |one: &Value| number(one, "partitions") * number(one, "copies").min(nodes as u64);
    let kept: u64 = members.iter().map(|one| number(one, "copies")).sum();
    members.len() == nodes
        && kept == list("keyspaces").iter().map(promised).sum::<u64>()
        && members.iter().all(|one| one["standing"] == "active")
        && status::is_well(status)
        && status["moves"].as_array().is_some_and(Vec::is_empty)
        && status["waiting"] == 0
}

/// What is to be done until then, for people.
fn left(status: &Value, nodes: usize) -> String {
    let list = |name: &str| status[name].as_array().map_or(0, Vec::len) as u64;
    let active = status["members"].as_array().into_iter().flatten().filter(|one| one["standing"] == "active");
    let waiting = list("moves") + status["waiting"].as_u64().unwrap_or_default();
    format!("{} of {nodes} nodes are members, {waiting} copies are to be made", active.count())
}

/// Offsets from `base` on at which all ports of a node are free now.
fn free_offsets(base: u16) -> impl Iterator<Item = u16> {
    let free = |port: u16| TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).is_ok();
    let sums = move |offset: u16| PORTS.map(|port| port.checked_add(offset));
    (0..)
        .map_while(move |n: u16| base.checked_add(n.checked_mul(STEP)?))
        .take_while(move |&offset| sums(offset).iter().all(Option::is_some))
        .filter(move |&offset| sums(offset).into_iter().flatten().all(free))
}

/// Asks a node and expects a good answer.
fn question(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    ask(address, method, path, SECONDS_MAX).and_then(Answer::good)
}

/// The end of a file, for people.
fn tail(path: &Path) -> String {
    const BYTES: usize = 4000;
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(BYTES)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::command::Root;

    #[test]
    fn flags_that_it_would_not_follow_are_refused() {
        let table: [(&[&str], bool); 7] = [
            (&[], true),
            (&["--port-offset", "100"], true),
            (&["--json"], true),
            (&["--config", "/of/the/machine"], true),
            (&["--config", "mine.toml"], false),
            (&["--data-dir", "mine"], false),
            (&["--set", "redis.port=1"], false),
        ];
        for (flags, taken) in table {
            let words = ["archipel", "cluster", "dev"].iter().chain(flags);
            let root = Root::try_parse_from(words).unwrap();
            let of_machine = Some(OsString::from("/of/the/machine"));
            assert_eq!(refused(&root.options, of_machine).is_none(), taken, "{flags:?}");
        }
    }

    #[test]
    fn a_cluster_is_whole_when_nothing_is_left_to_do() {
        let whole = json!({
            "leader": "12D3KooWA", "waiting": 0, "moves": [],
            "members": [
                {"standing": "active", "health": "alive", "copies": 64},
                {"standing": "active", "health": "alive", "copies": 64},
            ],
            "keyspaces": [{"partitions": 64, "led": 64, "copies": 3}],
        });
        assert!(is_whole(&whole, 2) && !is_whole(&whole, 3));
        type Change = fn(&mut Value);
        let changes: [Change; 6] = [
            |status| status["waiting"] = 1.into(),
            |status| status["moves"] = json!([{}]),
            |status| status["members"][1]["standing"] = "joining".into(),
            |status| status["keyspaces"][0]["led"] = 63.into(),
            |status| status["leader"] = Value::Null,
            // All have joined, and nobody has said yet who keeps what.
            |status| status["members"][1]["copies"] = 0.into(),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut status = whole.clone();
            change(&mut status);
            assert!(!is_whole(&status, 2), "row {row}");
        }
    }

    #[test]
    fn the_configuration_of_all_nodes_is_sound() {
        let path = Path::new("archipel.toml");
        let loaded = server::config::Loaded::layered(Some((path, CONFIG)), &Default::default()).unwrap();
        assert_eq!(loaded.config.keyspaces()[1].partitions.get(), 64);
        assert!(loaded.config.cluster.enabled);
    }

    #[test]
    fn offsets_end_where_ports_do() {
        assert!(free_offsets(60_000).next().is_none());
        assert!(free_offsets(20_000).next().is_some_and(|offset| offset >= 20_000 && offset % STEP == 0));
    }
}
