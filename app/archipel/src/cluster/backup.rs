//! `archipel cluster backup`: asks nodes for their partitions, and keeps those of who leads them.

mod still;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use server::backup::{
    Group, History, Incoming, Keep, Keyspace, Manifest, Origin, Point, Span, TIME_UNKNOWN, Writer,
};
use server::config::Loaded;
use server::kernel::{GroupId, Index, KeyspaceId, Micros, Millis, Term};

use super::rounds;
use crate::admin::ask_raw;
use crate::exit::{Exit, Failure};
use crate::moment::{now, utc};

/// How long a node may take for a step: it may have to write a large checkpoint.
const STEP_SECONDS_MAX: u64 = 300;
/// Why a round that was ended has come to nothing.
const ENDED: &str = "the backup was ended: there is none of this round";
/// The header that says where the next lot begins.
const NEXT_HEADER: &str = "x-archipel-next";

/// A node that gives what it has.
struct Source {
    address: SocketAddr,
    password: Option<String>,
}

/// What a node says that it has.
struct Told {
    origin: Origin,
    keyspaces: Vec<Keyspace>,
    copies: Vec<Copy>,
}

/// A node's copy of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    group: GroupId,
    applied: u64,
    leads: bool,
}

/// Where a partition is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    source: usize,
    copy: Copy,
}

/// What is asked for.
pub struct Wish {
    /// The directory of the backups.
    pub dir: PathBuf,
    /// Admin ports of other members.
    pub also: Vec<SocketAddr>,
    /// Again and again, so long after the beginning of the one before.
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: Keep,
}

/// A backup that was made.
struct Made {
    manifest: Manifest,
    written: u64,
    reused: u64,
}

/// Runs the verb.
pub fn run(loaded: &Loaded, as_json: bool, wish: &Wish) -> Result<Exit, Failure> {
    let password = server::password(&loaded.config).map(str::to_owned);
    let addresses = [loaded.config.admin_address()].into_iter().chain(wish.also.iter().copied());
    let sources: Vec<Source> =
        addresses.map(|address| Source { address, password: password.clone() }).collect();
    let mut behind = BTreeSet::new();
    let mut round = |ended: &dyn Fn() -> bool| {
        let made = back_up(&sources, wish, as_json, ended)?;
        made.print(&wish.dir, as_json);
        let is_news = renews(&mut behind, made.behind());
        if is_news && !as_json {
            eprintln!("{}", advice(&behind));
        }
        Ok(())
    };
    match wish.every {
        Some(every) => rounds::run(every, as_json, &mut round),
        None => {
            round(&|| false)?;
            Ok(Exit::Holds)
        }
    }
}

/// Makes one backup; if it is ended on the way there is none.
fn back_up(sources: &[Source], wish: &Wish, as_json: bool, ended: &dyn Fn() -> bool) -> Result<Made> {
    let at = now();
    let told = sources.iter().map(Source::begin).collect::<Result<Vec<Told>>>()?;
    let first = told.first().context("there is a first node")?;
    if let Some(strange) = told.iter().position(|other| other.origin != first.origin) {
        let (one, other) = (sources[0].address, sources[strange].address);
        bail!("the nodes at {one} and {other} are not of one cluster");
    }
    known_to_first(sources, &told)?;
    let choices = choose(&told);
    whole(first, &choices)?;
    let mut writer = Writer::begin(&wish.dir, wish.keep)?;
    if let Some(before) = writer.before().filter(|before| before.origin != first.origin) {
        let whose = if before.origin.is_cluster { "another cluster" } else { "another node" };
        bail!("{} has backups of {whose}: give another directory", wish.dir.display());
    }
    let bar = bar(as_json, choices.len() as u64);
    let mut until = at;
    for choice in choices.values() {
        ensure!(!ended(), ENDED);
        bar.set_message(name(choice.copy.group));
        until = until.max(sources[choice.source].keep(choice.copy, &mut writer, ended)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (written, reused) = (writer.written, writer.reused);
    let manifest = writer.finish(Span { at, until, skew_ms: 0 }, first.origin, first.keyspaces.clone())?;
    Ok(Made { manifest, written, reused })
}

impl Made {
    fn print(&self, dir: &Path, as_json: bool) {
        let Made { manifest, written, reused } = self;
        let objects: u64 = manifest.groups.iter().map(Group::objects).sum();
        let behind = self.behind().len();
        if as_json {
            let groups: Vec<Value> = manifest.groups.iter().map(described).collect();
            println!(
                "{}",
                json!({"schema": 1, "number": manifest.number, "at_ms": manifest.at.0,
                    "until_ms": manifest.until.map(|until| until.0), "objects": objects, "written_bytes": written,
                    "reused_bytes": reused, "from_followers": behind, "partitions": groups})
            );
            return;
        }
        let followers = match behind {
            0 => String::new(),
            some => format!(" ({some} not from their leaders)"),
        };
        println!(
            "backup {} in {} of {} UTC: {objects} keys in {} partitions{followers}, {written} bytes written, {reused} \
             bytes there already",
            manifest.number,
            dir.display(),
            utc(manifest.at),
            manifest.groups.len(),
        );
    }

    /// The partitions that do not come from who leads them.
    fn behind(&self) -> BTreeSet<GroupId> {
        self.manifest.groups.iter().filter(|group| !group.leads).map(|group| group.group).collect()
    }
}

/// Takes what was found in this round, and says whether it is worth telling: round after round it is mostly the same.
fn renews(known: &mut BTreeSet<GroupId>, found: BTreeSet<GroupId>) -> bool {
    let is_news = !found.is_empty() && found != *known;
    *known = found;
    is_news
}

/// What to do about partitions that do not come from their leaders.
fn advice(behind: &BTreeSet<GroupId>) -> String {
    let names: Vec<String> = behind.iter().map(|group| name(*group)).collect();
    format!(
        "{} partitions were taken from copies that do not lead and may lack the last moments: {}; with the admin \
         ports of the other members as --also they come from their leaders",
        names.len(),
        names.join(", ")
    )
}

/// A partition of a backup, for scripts.
pub fn described(group: &Group) -> Value {
    json!({
        "keyspace": group.group.keyspace().0, "partition": group.group.partition(), "index": group.index.0,
        "term": group.term.0, "leads": group.leads, "objects": group.objects(), "bytes": group.bytes,
    })
}

/// A partition for people: its keyspace and number.
fn name(group: GroupId) -> String {
    format!("{}/{}", group.keyspace(), group.partition())
}

/// Refuses if the first node asked does not know of a keyspace that another knows: it may be long behind the others, and a
/// backup without that keyspace would be taken for whole.
fn known_to_first(sources: &[Source], told: &[Told]) -> Result<()> {
    let Some((first, others)) = told.split_first() else { return Ok(()) };
    let lacks = |other: &Told| other.keyspaces.iter().find(|it| !first.keyspaces.contains(it)).copied();
    let Some((at, lacking)) = others.iter().enumerate().find_map(|(at, other)| Some((at, lacks(other)?)))
    else {
        return Ok(());
    };
    bail!(
        "the node at {} knows keyspace {} as it is, and the node at {} does not: it was changed just now, or that node is \
         behind; ask again, or name another member first",
        sources[at + 1].address,
        lacking.id,
        sources[0].address
    )
}

/// Each partition from who leads it, or else from who has come furthest. Copies of what the first node asked did not know of
/// when it named its keyspaces were made since then, and are not in this backup.
fn choose(told: &[Told]) -> BTreeMap<GroupId, Choice> {
    let keyspaces = told.iter().take(1).flat_map(|first| &first.keyspaces);
    let partitions: BTreeMap<KeyspaceId, u16> = keyspaces.map(|it| (it.id, it.partitions)).collect();
    let is_known =
        |group: GroupId| partitions.get(&group.keyspace()).is_some_and(|count| group.partition() < *count);
    let mut choices: BTreeMap<GroupId, Choice> = BTreeMap::new();
    for (source, one) in told.iter().enumerate() {
        for &copy in one.copies.iter().filter(|copy| is_known(copy.group)) {
            let rank = |copy: &Copy| (copy.leads, copy.applied);
            match choices.get(&copy.group) {
                Some(known) if rank(&known.copy) >= rank(&copy) => {}
                Some(_) | None => drop(choices.insert(copy.group, Choice { source, copy })),
            }
        }
    }
    choices
}

/// Refuses unless every partition of a cluster is there.
fn whole(told: &Told, choices: &BTreeMap<GroupId, Choice>) -> Result<()> {
    // A node of its own has all that it has.
    if !told.origin.is_cluster {
        return Ok(());
    }
    let all = told
        .keyspaces
        .iter()
        .flat_map(|keyspace| (0..keyspace.partitions).map(|partition| GroupId::new(keyspace.id, partition)));
    let missing: BTreeSet<GroupId> = all.filter(|group| !choices.contains_key(group)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    bail!(
        "{} partitions have no copy at the nodes that were asked, such as {}: name the admin ports of other members \
         with --also",
        missing.len(),
        name(*first)
    )
}

fn bar(as_json: bool, partitions: u64) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(partitions);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} partitions, {msg} ({elapsed})");
    bar.set_style(style.expect("the template is sound"));
    bar
}

impl Source {
    fn ask(&self, path: &str) -> Result<(Vec<u8>, Option<String>)> {
        let headers: Vec<(&str, &str)> =
            self.password.iter().map(|password| ("X-Archipel-Password", password.as_str())).collect();
        ask_raw(self.address, path, STEP_SECONDS_MAX, &headers)?.good(NEXT_HEADER)
    }

    fn ask_json(&self, path: &str) -> Result<Value> {
        let (body, _) = self.ask(path)?;
        serde_json::from_slice(&body).context("the node's answer is not JSON")
    }

    fn begin(&self) -> Result<Told> {
        let told = self.ask_json("/backup/begin")?;
        understood(&told).with_context(|| format!("what {} says of itself is not understood", self.address))
    }

    /// Has one partition held and keeps it: when it was held.
    fn keep(&self, copy: Copy, writer: &mut Writer, ended: &dyn Fn() -> bool) -> Result<Millis> {
        let group = copy.group;
        let cut = self.ask_json(&format!("/backup/cut?group={}&after={}", group.0, copy.applied))?;
        let at = now();
        let number = |name: &str| cut[name].as_u64().with_context(|| format!("`{name}` is missing"));
        // A node of the version before gives no ticket.
        let ticket = cut["ticket"].as_u64().unwrap_or_default();
        let held = format!("group={}&generation={}&ticket={ticket}", group.0, number("generation")?);
        let (index, term) = (Index(number("index")?), Term(number("term")?));
        let (point, time) = (Point { index, term }, cut["time_us"].as_u64().map_or(TIME_UNKNOWN, Micros));
        let announced = Group {
            group,
            index,
            term,
            leads: copy.leads,
            bytes: number("bytes")?,
            checksum: number("checksum")?,
            chunks: Vec::new(),
            history: Some(History::at((point, time), point)),
        };
        let taken =
            if writer.unchanged(&announced) { Ok(()) } else { self.take(announced, &held, writer, ended) };
        // The node lets it go by itself when it needs the place.
        let _ = self.ask(&format!("/backup/release?{held}"));
        taken.with_context(|| format!("partition {} at {}", name(group), self.address)).map(|()| at)
    }

    fn take(
        &self,
        announced: Group,
        held: &str,
        writer: &mut Writer,
        ended: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut left = announced.bytes;
        let mut incoming = Incoming::new(announced);
        let mut cursor = Some(String::new());
        while let Some(at) = cursor {
            ensure!(!ended(), ENDED);
            let path = format!("/backup/lot?{held}&cursor={at}");
            let (bytes, next) = self.ask(&path)?;
            ensure!(bytes.len() as u64 <= left && !bytes.is_empty(), "the node sends more than it announced");
            left -= bytes.len() as u64;
            writer.push(&mut incoming, &bytes)?;
            cursor = next;
        }
        Ok(writer.end(incoming)?)
    }
}

/// What a node says of itself.
fn understood(told: &Value) -> Option<Told> {
    let hex = told["origin"].as_str().filter(|hex| hex.len() == 32 && hex.is_ascii())?;
    let id = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
    let origin = Origin { id, is_cluster: told["is_cluster"].as_bool()? };
    let small = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let keyspace = |it: &Value| {
        Some(Keyspace {
            id: KeyspaceId(small(&it[0])?),
            partitions: small(&it[1]).filter(|count| *count > 0)?,
            mark: None,
        })
    };
    let copy = |it: &Value| {
        let group = GroupId(u32::try_from(it[0].as_u64()?).ok()?);
        Some(Copy { group, applied: it[1].as_u64()?, leads: it[2].as_bool()? })
    };
    Some(Told {
        origin,
        keyspaces: told["keyspaces"].as_array()?.iter().map(keyspace).collect::<Option<_>>()?,
        copies: told["copies"].as_array()?.iter().map(copy).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(copies: &[(u16, u64, bool)]) -> Told {
        let copy = |&(partition, applied, leads): &(u16, u64, bool)| Copy {
            group: GroupId::new(KeyspaceId(1), partition),
            applied,
            leads,
        };
        Told {
            origin: Origin { id: [1; 16], is_cluster: true },
            keyspaces: vec![Keyspace { id: KeyspaceId(1), partitions: 3, mark: None }],
            copies: copies.iter().map(copy).collect(),
        }
    }

    #[test]
    fn each_partition_is_taken_from_its_leader_or_from_who_has_most() {
        let all = [
            told(&[(0, 9, true), (1, 5, false), (2, 7, false)]),
            told(&[(0, 10, false), (1, 4, true), (2, 8, false)]),
        ];
        let sources: Vec<usize> = choose(&all).values().map(|choice| choice.source).collect();
        assert_eq!(sources, [0, 1, 1]);
        assert!(whole(&all[0], &choose(&all)).is_ok());
        let few = [told(&[(0, 9, true)])];
        let error = whole(&few[0], &choose(&few)).unwrap_err().to_string();
        assert!(error.starts_with("2 partitions have no copy") && error.contains("1/1"), "{error}");
        let alone = [Told { origin: Origin { id: [1; 16], is_cluster: false }, ..told(&[(0, 9, true)]) }];
        assert!(whole(&alone[0], &choose(&alone)).is_ok(), "a node of its own has all there is");
        let mut later = told(&[(0, 9, false)]);
        later.copies.push(Copy { group: GroupId::new(KeyspaceId(2), 0), applied: 1, leads: true });
        let grown = [told(&[(0, 9, true), (1, 5, true), (2, 7, true)]), later];
        assert!(choose(&grown).keys().all(|group| group.keyspace() == KeyspaceId(1)), "the second is newer");
        let source = || Source { address: "127.0.0.1:1".parse().unwrap(), password: None };
        assert!(known_to_first(&[source(), source()], &grown).is_ok());
        let mut ahead = told(&[(0, 9, true)]);
        ahead.keyspaces.push(Keyspace { id: KeyspaceId(2), partitions: 1, mark: None });
        let behind = [told(&[(0, 9, true)]), ahead];
        let error = known_to_first(&[source(), source()], &behind).unwrap_err().to_string();
        assert!(error.contains("knows keyspace") && error.contains('2'), "{error}");
    }

    #[test]
    fn partitions_that_do_not_come_from_their_leaders_are_told_once() {
        let mut known = BTreeSet::new();
        let rounds =
            [(&[][..], false), (&[1, 2], true), (&[1, 2], false), (&[2], true), (&[], false), (&[2], true)];
        for (row, (partitions, is_news)) in rounds.into_iter().enumerate() {
            let found = partitions.iter().map(|&it| GroupId::new(KeyspaceId(1), it)).collect();
            assert_eq!(renews(&mut known, found), is_news, "row {row}");
        }
    }

    #[test]
    fn what_a_node_says_is_understood_or_refused() {
        let good = json!({
            "origin": "000102030405060708090a0b0c0d0e0f", "is_cluster": true,
            "keyspaces": [[0, 1], [9, 64]], "copies": [[65536, 7, true]],
        });
        let told = understood(&good).unwrap();
        assert_eq!((told.origin.id[15], told.keyspaces[1].partitions), (15, 64));
        assert_eq!(told.copies[0].group, GroupId::new(KeyspaceId(1), 0));
        type Change = fn(&mut Value);
        let changes: [Change; 5] = [
            |it| it["origin"] = "00".into(),
            |it| it["is_cluster"] = 1.into(),
            |it| it["keyspaces"][0] = json!([70_000, 1]),
            |it| it["keyspaces"][0] = json!([0, 0]),
            |it| it["copies"][0] = json!([-1, 7, true]),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut it = good.clone();
            change(&mut it);
            assert!(understood(&it).is_none(), "row {row}");
        }
    }
}
