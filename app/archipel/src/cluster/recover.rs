//! `archipel cluster recover`: shows what a stopped member has, and makes it a cluster of its own if that is confirmed.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use serde_json::{Value, json};
use server::cluster::survivor::{Found, FoundCopy, FoundPartition, Lacks, Survivor};
use server::config::Loaded;

use super::member::short;
use super::status::rows;
use crate::exit::{Exit, Failure};

/// What is asked for.
pub struct Wish {
    /// Nothing is to be changed.
    pub dry_run: bool,
    /// The cluster that is given up.
    pub confirm: Option<String>,
    /// It is done although others answer.
    pub even_if_others_answer: bool,
}

/// Runs the verb.
pub fn run(loaded: &Loaded, as_json: bool, wish: Wish) -> Result<Exit, Failure> {
    let survivor = Survivor::open(loaded)?;
    let found = survivor.found();
    if as_json && wish.confirm.is_none() {
        println!("{}", report(found));
    }
    if !as_json {
        print!("{}", text(found));
    }
    let Some(confirmed) = wish.confirm else {
        if wish.dry_run {
            return Ok(Exit::Holds);
        }
        let dir = loaded.config.data_dir.display();
        let cluster = found.cluster;
        return Err(Failure::usage(anyhow!(
            "nothing was changed: to do it, run `archipel cluster recover --data-dir {dir} --confirm {cluster}`"
        )));
    };
    if confirmed != found.cluster.to_string() {
        return Err(Failure::usage(anyhow!(
            "nothing was changed: the directory is that of a member of cluster {}, and not of {confirmed}",
            found.cluster
        )));
    }
    if !wish.even_if_others_answer {
        survivor.must_be_alone()?;
    }
    let (before, dir) = (report(found), loaded.config.data_dir.display());
    let lacks = worst(found);
    let done = survivor.recover()?;
    if as_json {
        let log = format!("log.before-{}", done.cluster);
        println!(
            "{}",
            json!({"schema": 1, "recovered": done.cluster.to_string(), "kept": done.kept, "lost": done.lost,
                "old_log": log, "found": before})
        );
        return Ok(Exit::Holds);
    }
    println!(
        "\nRecovered: this node is cluster {}, alone, with {} partitions; {} begin empty.\n\
         Missing may be: {}.\n\
         Start it with `archipel node start --data-dir {dir}`, and let new nodes join with `archipel cluster token`.\n\
         The old log is in {dir}/log.before-{}; remove it when you need it no more.",
        done.cluster, done.kept, done.lost, lacks, done.cluster
    );
    Ok(Exit::Holds)
}

/// The worst that can be missing of any copy.
fn worst(found: &Found) -> &'static str {
    let all = || found.partitions.iter().filter_map(|it| it.copy.as_ref()).map(|copy| copy.lacks);
    let order = [Lacks::Outside, Lacks::OwnTail, Lacks::Others];
    order.into_iter().find(|lacks| all().any(|it| it == *lacks)).unwrap_or(Lacks::Nothing).text()
}

fn report(found: &Found) -> Value {
    let others = found.others.iter().map(|other| {
        json!({"node": other.node.to_string(), "votes": other.votes, "answers": other.answers,
            "addresses": other.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()})
    });
    let partitions = found.partitions.iter().map(|it| {
        json!({"keyspace": it.keyspace, "partition": it.partition, "copy": it.copy.as_ref().map(|copy| {
            json!({"checkpoint": copy.checkpoint, "last": copy.last, "term": copy.term, "at_ms": copy.at_ms,
                "may_lack": copy.lacks.text()})
        })})
    });
    json!({
        "schema": 1,
        "cluster": found.cluster.to_string(),
        "node": found.node.to_string(),
        "version": found.version,
        "begun_before": found.begun_before,
        "others": others.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

/// The same for people.
fn text(found: &Found) -> String {
    let mut out = format!(
        "member {} of cluster {}, whose state it has at version {}\n",
        found.node, found.cluster, found.version
    );
    if found.begun_before {
        out.push_str("a recovery was begun here before and goes on\n");
    }
    for other in &found.others {
        let does = if other.answers { "ANSWERS" } else { "does not answer" };
        let votes = if other.votes { "votes, " } else { "" };
        let addresses: Vec<String> = other.addresses.iter().map(ToString::to_string).collect();
        // What is written into a string is written.
        let _ =
            writeln!(out, "  {}  {votes}{does} at {}", short(&other.node.to_string()), addresses.join(", "));
    }
    out.push('\n');
    let lines = found.partitions.iter().map(|it| {
        let name = format!("{}/{}", it.keyspace, it.partition);
        match &it.copy {
            Some(FoundCopy { checkpoint, last, term, at_ms, lacks }) => [
                name,
                checkpoint.to_string(),
                last.to_string(),
                term.to_string(),
                ago(*at_ms),
                lacks.text().to_owned(),
            ],
            None => {
                let dash = || "-".to_owned();
                [
                    name,
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                    "EVERYTHING: it has no copy and begins empty".to_owned(),
                ]
            }
        }
    });
    out.push_str(&rows(["partition", "checkpoint", "last", "term", "last write", "may lack"], lines));
    let lost = found.partitions.iter().filter(|FoundPartition { copy, .. }| copy.is_none()).count();
    if lost > 0 {
        let _ = writeln!(
            out,
            "\n{lost} of {} partitions have no copy here: their keys are lost",
            found.partitions.len()
        );
    }
    out
}

/// How long ago a moment is.
fn ago(at_ms: u64) -> String {
    if at_ms == 0 {
        return "never".to_owned();
    }
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
    match SystemTime::now().duration_since(then).unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago_is_told_in_the_unit_that_fits() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        assert_eq!(ago(0), "never");
        assert_eq!(ago(now + 60_000), "0 s ago", "clocks differ");
        assert_eq!(ago(now - 600_000), "10 min ago");
        assert_eq!(ago(now - 3 * 3_600_000 - 1000), "3 h ago");
    }
}
