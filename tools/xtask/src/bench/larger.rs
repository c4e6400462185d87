//! Bar 3: a keyspace that holds eight times its memory budget answers every key, within its memory, at a
//! fair share of the speed of the same node with everything in memory.

use super::load::{Connection, Data, Reply, Spread, Zipf};
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting, process};
use crate::server::Server;
use anyhow::{Context, Result, bail};

/// Seconds of load for each figure.
const LOAD_SECONDS: u64 = 5;

/// Free memory that the node with everything in memory needs, beside the budgeted one.
const AVAILABLE_BYTES_MIN: u64 = 6 << 30;

/// How many keys of each other type join the strings.
const MIXED: u64 = 500;

/// Elements in each of them.
const ELEMENTS: u64 = 40;

const MIB: f64 = 1024.0 * 1024.0;

/// Measures both nodes in every round, on data that is loaded once.
pub fn run(setting: &Setting) -> Result<Report> {
    let available = process::available_memory()?;
    if available < AVAILABLE_BYTES_MIN && !setting.quick {
        let why = format!("{available} bytes of memory are free, {AVAILABLE_BYTES_MIN} are needed");
        bail!(NotJudged(why));
    }
    let (keys, budget) = if setting.quick { (100_000, "16MiB") } else { (2_000_000, "256MiB") };
    let data = Data { keys, value: 1024 };
    let dirs = (setting.scratch()?, setting.scratch()?);
    let start = |dir: &tempfile::TempDir, memory: &str| -> Result<Server> {
        let config = format!("[[keyspace]]\nid = 0\ndurability = \"everysec\"\nmemory = \"{memory}\"\n");
        let mut server = Server::spawn_node(&setting.binary, dir.path(), Some(&config))?;
        server.wait_ready()?;
        data.store(server.port)?;
        store_mixed(server.port)?;
        Ok(server)
    };
    let small = start(&dirs.0, budget)?;
    let whole = start(&dirs.1, "5GiB")?;
    let (mut zipf, mut uniform, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    let spread = Spread::Zipf(Zipf::new(keys));
    for round in 1..=setting.rounds {
        let seconds = if setting.quick { 1 } else { LOAD_SECONDS };
        let peer = data.get_rate(whole.port, spread, seconds)?;
        let us = data.get_rate(small.port, spread, seconds)?;
        zipf.push(Pair { us, peer: Some(peer) });
        let peer = data.get_rate(whole.port, Spread::Uniform, seconds)?;
        let us = data.get_rate(small.port, Spread::Uniform, seconds)?;
        uniform.push(Pair { us, peer: Some(peer) });
        let memory = |server: &Server| process::resident(server.pid()).map(|resident| mib(resident.peak));
        let pair = Pair { us: memory(&small)?, peer: Some(memory(&whole)?) };
        eprintln!("round {round}: Zipf {:?}, uniform {:?}, peak RSS {pair:?}", zipf.last(), uniform.last());
        resident.push(pair);
    }
    let wrong = data.wrong(small.port)? + wrong_mixed(small.port)?;
    let after = mib(process::resident(small.pid())?.peak);
    resident.push(Pair { us: after, peer: Some(mib(process::resident(whole.pid())?.peak)) });
    small.stop()?;
    whole.stop()?;
    let mut report = Report::new("larger", setting.rounds);
    let works = format!("{keys} × 1 KiB in {budget}");
    #[expect(clippy::cast_precision_loss, reason = "a count of keys")]
    let wrong = vec![Pair { us: wrong as f64, peer: None }];
    report.row(&works, ("wrong", "keys"), wrong, Some(Bar::AtMost(0.0)));
    report.row(&works, ("peak RSS", "MiB"), resident, Some(Bar::AtMost(600.0)));
    report.row(&works, ("GET Zipf 0.99", "ops/s"), zipf, Some(Bar::RatioAtLeast(0.5)));
    report.row(&works, ("GET uniform", "ops/s"), uniform, Some(Bar::AtLeast(20_000.0)));
    Ok(report)
}

/// The commands that build key `n` of each type, and those that read it back whole.
fn mixed(n: u64) -> Vec<(Vec<String>, Vec<String>)> {
    let element = |e: u64| format!("{n}:{e}:{}", "x".repeat(64));
    let words = |head: &[&str], key: &str, rest: Vec<String>| {
        [
            vec![head[0].to_owned(), key.to_owned()],
            head[1..].iter().map(|word| (*word).to_owned()).collect(),
            rest,
        ]
        .concat()
    };
    let plain: Vec<String> = (0..ELEMENTS).map(element).collect();
    let fields = (0..ELEMENTS).flat_map(|e| [format!("f{e}"), element(e)]).collect();
    let scores = (0..ELEMENTS).flat_map(|e| [e.to_string(), element(e)]).collect();
    let (list, hash, set, zset) =
        (format!("list:{n}"), format!("hash:{n}"), format!("set:{n}"), format!("zset:{n}"));
    let names = (0..ELEMENTS).map(|e| format!("f{e}")).collect();
    vec![
        (words(&["RPUSH"], &list, plain.clone()), words(&["LRANGE", "0", "-1"], &list, vec![])),
        (words(&["HSET"], &hash, fields), words(&["HMGET"], &hash, names)),
        (words(&["SADD"], &set, plain.clone()), words(&["SMISMEMBER"], &set, plain)),
        (words(&["ZADD"], &zset, scores), words(&["ZRANGE", "0", "-1"], &zset, vec![])),
    ]
}

fn store_mixed(port: u16) -> Result<()> {
    let mut connection = Connection::open(port)?;
    for n in 0..MIXED {
        for (write, _) in mixed(n) {
            let reply = connection.call(&write.iter().map(String::as_str).collect::<Vec<_>>())?;
            if reply != Reply::Line(format!(":{ELEMENTS}")) {
                bail!("{} answered {reply:?}", write[0]);
            }
        }
    }
    Ok(())
}

/// How many keys of the other types did not come back whole and in order.
fn wrong_mixed(port: u16) -> Result<u64> {
    let mut connection = Connection::open(port)?;
    let mut wrong = 0;
    for n in 0..MIXED {
        for (write, read) in mixed(n) {
            let reply = connection.call(&read.iter().map(String::as_str).collect::<Vec<_>>())?;
            wrong += u64::from(reply != expected(&write).context("a type without an expectation")?);
        }
    }
    Ok(wrong)
}

/// The whole answer to the read that belongs to a write.
fn expected(write: &[String]) -> Option<Reply> {
    let bulk = |word: &String| Reply::Bulk(word.clone().into_bytes());
    let elements = &write[2..];
    Some(Reply::Array(match write[0].as_str() {
        "RPUSH" => elements.iter().map(bulk).collect(),
        "HSET" | "ZADD" => elements.iter().skip(1).step_by(2).map(bulk).collect(),
        "SADD" => elements.iter().map(|_| Reply::Line(":1".into())).collect(),
        _ => return None,
    }))
}

#[expect(clippy::cast_precision_loss, reason = "bytes below 2^52")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
