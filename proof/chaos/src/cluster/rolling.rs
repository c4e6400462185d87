//! A rolling restart under load: each node in turn is asked to stop, is waited for and started again, perhaps as another
//! version. Clients of the nodes that stay are told no error, and lose no connection.

use std::path::PathBuf;
use std::time::Instant;

use kernel::Rng;
use rustix::process::Signal;

use super::crowd::{Crowd, Temper};
use super::member::{Begins, Member, is_whole};
use super::{Cluster, NEVER};
use crate::campaign::{Failure, Figure, Report, Scratch, Setting};

/// Load before each stop and after each start, in milliseconds.
const CALM_MS: u64 = 500;
/// What a client that waits for an element is told when another node leads: by design, and it asks again.
const ASK_AGAIN: &str = "UNBLOCKED";

/// What this campaign is told besides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes, as many as [`super::NODES_ALLOWED`].
    pub nodes: usize,
    /// The binary that the cluster begins with; else the same one.
    pub old_binary: Option<PathBuf>,
}

#[derive(Default)]
struct Totals {
    stops: u64,
    unblocked: u64,
    stop_ms: u64,
    /// Errors and lost connections of clients of the node that stopped.
    of_stopping: u64,
    lost: u64,
}

/// Runs the campaign, each round once around the cluster; `progress` hears a line for each stop.
pub fn run(setting: &Setting, options: &Options, progress: &mut dyn FnMut(&str)) -> Report {
    let result = Scratch::new().and_then(|scratch| {
        let begins_as = options.old_binary.as_ref().unwrap_or(&setting.binary);
        let rng = Rng::new(setting.seed);
        let result = Cluster::gather(begins_as, options.nodes, scratch.path(), "", rng.fork(0)).and_then(
            |mut cluster| {
                let result = rounds(&mut cluster, setting, &rng, progress);
                cluster.keep_pages(result)
            },
        );
        scratch.end(result)
    });
    Report { name: "rolling", setting: setting.clone(), result }
}

fn rounds(
    cluster: &mut Cluster,
    setting: &Setting,
    rng: &Rng,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    cluster.binary.clone_from(&setting.binary);
    let (began, mut totals) = (Instant::now(), Totals::default());
    let (mut answered, mut unknown, mut hard, mut slowest) = (0, 0, 0, 0);
    for round in 1..=setting.rounds {
        let mut crowd = Crowd::new(began, round, rng.fork(round), Temper::Patient);
        for node in 0..cluster.members.len() {
            let named = format!("round {round}, restart of node {node}");
            restart(cluster, &mut crowd, node, &mut totals).map_err(Failure::broken(&named))?;
            progress(&format!("{named}: {} answered so far", crowd.history.answered));
        }
        crowd.end(&cluster.hosts)?;
        crowd.look(&cluster.hosts)?;
        cluster.agree(std::slice::from_ref(&crowd))?;
        hard += crowd.history.judge().map_err(Failure::broken(format!("round {round}")))?;
        answered += crowd.history.answered;
        unknown += crowd.history.unknown;
        slowest = slowest.max(crowd.slowest_ms);
    }
    Ok(vec![
        ("planned stops under load", totals.stops, "stops"),
        ("answered operations", answered, "operations"),
        ("errors through nodes that stayed", 0, "errors"),
        ("connections lost at nodes that stayed", 0, "connections"),
        ("waiting clients told to ask again", totals.unblocked, "clients"),
        ("errors through the node that stopped", totals.of_stopping, "errors"),
        ("connections lost at the node that stopped", totals.lost, "connections"),
        ("operations of which nothing is known", unknown, "operations"),
        ("acknowledged writes lost", 0, "operations"),
        ("histories too hard to judge", hard, "keys"),
        ("longest stop", totals.stop_ms, "ms"),
        ("longest wait for an answer", slowest, "ms"),
    ])
}

fn restart(
    cluster: &mut Cluster,
    crowd: &mut Crowd,
    node: usize,
    totals: &mut Totals,
) -> Result<(), Failure> {
    crowd.run(&cluster.hosts, CALM_MS)?;
    let asked = Instant::now();
    cluster.members[node].signal(Signal::TERM)?;
    let status = loop {
        if let Some(status) = cluster.members[node].ended()? {
            break status;
        }
        if asked.elapsed() > NEVER {
            return Err(Failure::Broken("it does not stop".into()));
        }
        crowd.turn(&cluster.hosts)?;
    };
    if !status.success() {
        return Err(Failure::Broken(cluster.members[node].end_of(&status)));
    }
    totals.stop_ms = totals.stop_ms.max(asked.elapsed().as_millis() as u64);
    totals.stops += 1;
    crowd.run(&cluster.hosts, CALM_MS)?;
    cluster.start(node, &Begins::Again(0))?;
    let started = Instant::now();
    while !sees_all_whole(cluster)? {
        if started.elapsed() > NEVER {
            return Err(Failure::Broken("the cluster does not become whole again".into()));
        }
        crowd.run(&cluster.hosts, super::LOOK_MS)?;
    }
    crowd.run(&cluster.hosts, CALM_MS)?;
    for ((at, word), count) in std::mem::take(&mut crowd.errors) {
        if word == ASK_AGAIN {
            totals.unblocked += count;
        } else if at == node {
            totals.of_stopping += count;
        } else {
            return Err(Failure::Broken(format!("clients of node {at} were told {word} {count} times")));
        }
    }
    for (at, count) in std::mem::take(&mut crowd.losses) {
        if at != node {
            return Err(Failure::Broken(format!("node {at} closed {count} connections")));
        }
        totals.lost += count;
    }
    Ok(())
}

fn sees_all_whole(cluster: &mut Cluster) -> Result<bool, Failure> {
    cluster.members.iter_mut().try_for_each(Member::must_run)?;
    for (member, host) in cluster.members.iter().zip(&cluster.hosts.hosts) {
        let status = member.status(host)?;
        if !status.is_some_and(|status| is_whole(&status, cluster.members.len())) {
            return Ok(false);
        }
    }
    Ok(true)
}
