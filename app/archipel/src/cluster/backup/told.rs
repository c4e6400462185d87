//! What is told of a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use server::backup::{Group, Keyspace, Manifest};
use server::kernel::{GroupId, Millis};

use crate::moment::{utc, utc_millis};

/// A backup that was made.
pub(super) struct Made {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were there.
    pub reused: u64,
    /// Partitions whose entries do not go on where the backup before ends.
    pub gaps: BTreeSet<GroupId>,
    /// Nodes that gave no answer, and why: it is made of what the others have.
    pub absent: BTreeMap<SocketAddr, String>,
    /// What nodes were to keep for it, and had to give up.
    pub given_up: Option<GivenUp>,
}

/// Partitions whose log nodes had to give up, although it was to be kept for the next backup.
pub(super) struct GivenUp {
    /// At which nodes.
    pub at: BTreeMap<SocketAddr, BTreeSet<GroupId>>,
    /// It was to be kept from the backup of this number on, which was begun then.
    pub since: (u64, Millis),
}

impl Made {
    /// Prints what was made.
    pub fn print(&self, dir: &Path, as_json: bool) {
        let Made { manifest, written, reused, gaps, absent, given_up } = self;
        let objects: u64 = manifest.groups.iter().map(Group::objects).sum();
        let behind = self.behind().len();
        let histories = manifest.groups.iter().filter_map(|group| group.history.as_ref());
        let entries: u64 = histories.map(|history| history.bytes).sum();
        if as_json {
            let groups: Vec<Value> = manifest.groups.iter().map(described).collect();
            let absent = absent.iter().map(|(at, why)| json!({"address": at.to_string(), "why": why}));
            let given_up = given_up.iter().flat_map(GivenUp::described);
            println!(
                "{}",
                json!({"schema": 1, "number": manifest.number, "at_ms": manifest.at.0,
                    "until_ms": manifest.until.map(|until| until.0), "objects": objects, "written_bytes": written,
                    "reused_bytes": reused, "entry_bytes": entries, "from_followers": behind,
                    "skew_ms": manifest.skew_ms, "marks": marks(manifest), "gaps": names(gaps),
                    "absent": absent.collect::<Vec<Value>>(), "given_up": given_up.collect::<Vec<Value>>(),
                    "partitions": groups})
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
        for Keyspace { id, partitions, mark } in manifest.keyspaces.iter().filter(|it| it.partitions > 1) {
            match mark {
                Some(moment) => println!(
                    "keyspace {id}: all {partitions} partitions as they were together at {} UTC",
                    utc_millis(*moment)
                ),
                None => println!("keyspace {id}: each of {partitions} partitions at a moment of its own"),
            }
        }
        for (address, why) in absent {
            println!(
                "without the node at {address}, which gave no answer ({why}): this is what the others have"
            );
        }
    }

    /// The partitions that do not come from who leads them.
    pub fn behind(&self) -> BTreeSet<GroupId> {
        self.manifest.groups.iter().filter(|group| !group.leads).map(|group| group.group).collect()
    }
}

impl GivenUp {
    /// For scripts.
    fn described(&self) -> impl Iterator<Item = Value> {
        let (number, at) = self.since;
        let one = move |(address, groups): (&SocketAddr, &BTreeSet<GroupId>)| {
            json!({"address": address.to_string(), "partitions": names(groups), "since": number,
                "since_ms": at.0})
        };
        self.at.iter().map(one)
    }

    /// What it means and what to do, for people: a line for each node.
    pub fn told(&self) -> String {
        let (number, at) = self.since;
        let one = |(address, groups): (&SocketAddr, &BTreeSet<GroupId>)| {
            format!(
                "the node at {address} had to give up the log of {} partitions that it kept since backup {number} of {} UTC: \
                 {}; entries that no other node has are missing. Back up more often, give it a larger \
                 storage.archived_log_bytes (or storage.disk_quota), or more space on its disk",
                groups.len(),
                utc(at),
                names(groups).join(", ")
            )
        };
        self.at.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

/// The moments at which keyspaces stood still, for scripts.
pub fn marks(manifest: &Manifest) -> Vec<Value> {
    let marked = manifest.keyspaces.iter().filter_map(|it| Some((it.id, it.mark?)));
    marked.map(|(id, moment)| json!({"keyspace": id.0, "moment_ms": moment.0})).collect()
}

/// Takes what was found in this round, and says whether it is worth telling: round after round it is mostly the same.
pub(super) fn renews(known: &mut BTreeSet<GroupId>, found: BTreeSet<GroupId>) -> bool {
    let is_news = !found.is_empty() && found != *known;
    *known = found;
    is_news
}

/// What to do about partitions that do not come from their leaders.
pub(super) fn advice(behind: &BTreeSet<GroupId>) -> String {
    format!(
        "{} partitions were taken from copies that do not lead and may lack the last moments: {}; with the admin \
         ports of the other members as --also they come from their leaders",
        behind.len(),
        names(behind).join(", ")
    )
}

/// What it means that entries do not go on where the backup before ends.
pub(super) fn warning(gaps: &BTreeSet<GroupId>) -> String {
    format!(
        "of {} partitions the entries since the backup before are not to be had any more: {}; this backup is whole, but \
         no moment between the two can be restored (storage.archived_log_bytes says how much nodes keep for it)",
        gaps.len(),
        names(gaps).join(", ")
    )
}

fn names(groups: &BTreeSet<GroupId>) -> Vec<String> {
    groups.iter().map(|group| name(*group)).collect()
}

/// A partition of a backup, for scripts.
pub fn described(group: &Group) -> Value {
    json!({
        "keyspace": group.group.keyspace().0, "partition": group.group.partition(), "index": group.index.0,
        "term": group.term.0, "leads": group.leads, "objects": group.objects(), "bytes": group.bytes,
        "to": group.restores_to().0, "entries": group.history.as_ref().map(|history| history.entries),
    })
}

/// A partition for people: its keyspace and number.
pub fn name(group: GroupId) -> String {
    format!("{}/{}", group.keyspace(), group.partition())
}

#[cfg(test)]
mod tests {
    use server::kernel::KeyspaceId;

    use super::*;

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
}
