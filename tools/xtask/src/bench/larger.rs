//! Bar 3: a keyspace that holds eight times its memory budget answers every key, within its memory, at a
//! fair share of the speed of the same node with everything in memory. And one that holds four times its
//! budget in strings, lists, hashes, sets and sorted sets alike answers every element of them.

use super::load::{Connection, Data, Reply, Spread, Zipf};
use super::report::{Bar, Pair, Report};
use super::{NotJudged, Setting, process};
use crate::server::Server;
use anyhow::{Context, Result, bail};

/// Seconds of load for each figure.
const LOAD_SECONDS: u64 = 5;

/// Free memory that the node with everything in memory needs, beside the budgeted one.
const AVAILABLE_BYTES_MIN: u64 = 6 << 30;

/// Keys of each type in the keyspace of all types, for each mebibyte of its budget: about four times that.
const MIXED_PER_MIB: u64 = 280;

/// Mebibytes of that budget.
const MIXED_MIB: u64 = 64;

/// Elements in each of its keys.
const ELEMENTS: u64 = 40;

/// Neighbours in the second reading are not neighbours in the first: a prime, so it permutes.
const STRIDE: u64 = 1_000_003;

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
        Ok(server)
    };
    let (mixed_wrong, mixed_peak, mixed_works) = run_mixed(setting, &start)?;
    let small = start(&dirs.0, budget)?;
    data.store(small.port)?;
    let whole = start(&dirs.1, "5GiB")?;
    data.store(whole.port)?;
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
    let wrong = data.wrong(small.port)?;
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
    #[expect(clippy::cast_precision_loss, reason = "a count of keys")]
    let wrong = vec![Pair { us: mixed_wrong as f64, peer: None }];
    report.row(&mixed_works, ("wrong", "keys"), wrong, Some(Bar::AtMost(0.0)));
    let peak = vec![Pair { us: mixed_peak, peer: None }];
    report.row(&mixed_works, ("peak RSS", "MiB"), peak, None);
    Ok(report)
}

/// Starts a server in a directory with a budget of memory.
type Start<'a> = &'a dyn Fn(&tempfile::TempDir, &str) -> Result<Server>;

/// Stores keys of all types, about four times their budget, and reads all of them twice, the second time
/// scattered. How many answers were wrong, the peak of memory, and what was done.
fn run_mixed(setting: &Setting, start: Start<'_>) -> Result<(u64, f64, String)> {
    let mib_budget = if setting.quick { MIXED_MIB / 8 } else { MIXED_MIB };
    let keys = mib_budget * MIXED_PER_MIB;
    let dir = setting.scratch()?;
    let server = start(&dir, &format!("{mib_budget}MiB"))?;
    let parts = Data { keys, value: 0 };
    parts.each_part(|numbers| store_mixed(server.port, numbers))?;
    let wrong = parts.each_part(|numbers| wrong_mixed(server.port, numbers))?
        + parts.each_part(|numbers| wrong_mixed(server.port, numbers.map(|n| n * STRIDE % keys)))?;
    let peak = mib(process::resident(server.pid())?.peak);
    server.stop()?;
    Ok((wrong, peak, format!("{keys} keys of each of 5 types in {mib_budget}MiB")))
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
    let (list, hash, set, zset, string) = (
        format!("list:{n}"),
        format!("hash:{n}"),
        format!("set:{n}"),
        format!("zset:{n}"),
        format!("string:{n}"),
    );
    let names = (0..ELEMENTS).map(|e| format!("f{e}")).collect();
    vec![
        (words(&["SET"], &string, vec![plain.concat()]), words(&["GET"], &string, vec![])),
        (words(&["RPUSH"], &list, plain.clone()), words(&["LRANGE", "0", "-1"], &list, vec![])),
        (words(&["HSET"], &hash, fields), words(&["HMGET"], &hash, names)),
        (words(&["SADD"], &set, plain.clone()), words(&["SMISMEMBER"], &set, plain)),
        (words(&["ZADD"], &zset, scores), words(&["ZRANGE", "0", "-1"], &zset, vec![])),
    ]
}

fn put(connection: &mut Connection, words: &[String]) {
    connection.put(&words.iter().map(String::as_bytes).collect::<Vec<_>>());
}

/// Stores the keys of these numbers; those of one number go in one batch.
fn store_mixed(port: u16, numbers: impl Iterator<Item = u64>) -> Result<u64> {
    let mut connection = Connection::open(port)?;
    for n in numbers {
        let all = mixed(n);
        all.iter().for_each(|(write, _)| put(&mut connection, write));
        connection.send()?;
        for (write, _) in all {
            let reply = connection.reply()?;
            let expected = if write[0] == "SET" { "+OK".to_owned() } else { format!(":{ELEMENTS}") };
            if reply != Reply::Line(expected) {
                bail!("{} answered {reply:?}", write[0]);
            }
        }
    }
    Ok(0)
}

/// How many keys of these numbers did not come back whole and in order.
fn wrong_mixed(port: u16, numbers: impl Iterator<Item = u64>) -> Result<u64> {
    let mut connection = Connection::open(port)?;
    let mut wrong = 0;
    for n in numbers {
        let all = mixed(n);
        all.iter().for_each(|(_, read)| put(&mut connection, read));
        connection.send()?;
        for (write, _) in all {
            let reply = connection.reply()?;
            wrong += u64::from(reply != expected(&write).context("a type without an expectation")?);
        }
    }
    Ok(wrong)
}

/// The whole answer to the read that belongs to a write.
fn expected(write: &[String]) -> Option<Reply> {
    let bulk = |word: &String| Reply::Bulk(word.clone().into_bytes());
    let elements = &write[2..];
    if write[0] == "SET" {
        return Some(bulk(&write[2]));
    }
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
