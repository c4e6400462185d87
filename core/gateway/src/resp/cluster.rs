//! CLUSTER, READONLY, READWRITE, ASKING: what clients that know Redis Cluster ask for, so that they go straight to
//! the leader of a key's partition.
//!
//! Such clients know one keyspace and use a port of their own, on which commands for keys led elsewhere are answered
//! `MOVED`. They read `CLUSTER SLOTS` (redis-py, ioredis), `SHARDS` or `NODES` (redis-cli) first. In Redis a node is
//! a master or a replica; here it leads some partitions and follows in others. `ASK` is never answered: who leads a
//! partition has all of it, also while copies of it move.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use kernel::{KeyspaceId, Micros, NodeId};
use placement::{Partitions, Slot};
use storage::command::keys::{SLOT_COUNT, SLOT_KEYS};
use storage::{Fault, Reply};

use super::call::{Call, Done, integer};
use super::table::{Row, Traits, help};

const DISABLED: Fault = Fault::Text("ERR This instance has cluster support disabled");

/// What a cluster client is told that asks the wrong node: who leads `slot`.
#[must_use]
pub fn moved(slot: Slot, address: &Address) -> Fault {
    Fault::Said(format!("MOVED {} {}:{}", slot.number(), address.host, address.port))
}

/// Where clients reach a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// The port of cluster clients.
    pub port: u16,
}

/// A member, as clients are told of it.
#[derive(Clone, Debug)]
pub struct ClusterNode {
    /// Its key.
    pub id: NodeId,
    /// Where cluster clients reach it; `None` if it has not said.
    pub address: Option<Address>,
    /// Where other nodes reach it.
    pub link_port: u16,
    /// It is not known to be down.
    pub up: bool,
    /// Since when there is a link to it. `None`: there is none, or it is this node.
    pub linked: Option<Micros>,
}

/// The copies of a partition, by the places of their nodes in [`ClusterView::nodes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Who leads; `None` if nobody is known to.
    pub leader: Option<usize>,
    /// Who else has a copy.
    pub others: Vec<usize>,
}

/// The cluster, as clients are told of it for one keyspace.
///
/// Invariant: `own` and all places in `copies` are below the number of nodes; `copies` has one for each partition.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// The members.
    pub nodes: Vec<ClusterNode>,
    /// Which of them this is.
    pub own: usize,
    /// Counts the changes of the placement.
    pub epoch: u64,
    /// How the keyspace is divided.
    pub partitions: Partitions,
    /// Where its partitions are, by their numbers.
    pub copies: Vec<Copies>,
}

/// Neighbouring slots with the same copies: the first and the last.
struct Range<'a> {
    slots: (u16, u16),
    copies: &'a Copies,
}

/// The name by which clients know a node: Redis's have 40 hexadecimal digits, a key has 64.
fn name(id: NodeId) -> String {
    let mut name = String::with_capacity(40);
    for byte in &id.0[..20] {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

impl ClusterView {
    fn ranges(&self) -> Vec<Range<'_>> {
        let mut ranges: Vec<Range<'_>> = Vec::new();
        for (partition, copies) in (0..).zip(&self.copies) {
            let (first, end) = self.partitions.slots(partition);
            match ranges.last_mut().filter(|last| last.copies == copies) {
                Some(last) => last.slots.1 = end - 1,
                None => ranges.push(Range { slots: (first, end - 1), copies }),
            }
        }
        ranges
    }

    /// A node that can be named to clients.
    fn reachable(&self, at: usize) -> Option<(&ClusterNode, &Address)> {
        let node = &self.nodes[at];
        node.address.as_ref().map(|address| (node, address))
    }

    /// `CLUSTER SLOTS`: for each range the leader and then the others.
    ///
    /// A range that nobody leads at the moment is given to a copy that is up, which will know the next leader first. Redis
    /// too goes on naming somebody, and clients (redis-py) give up a cluster of which a slot is missing.
    ///
    /// Clients take a node for what they see it as first (redis-py), and send commands on whole keyspaces to masters
    /// only; here most nodes are both. So before all else each leader is named with one slot and no replica. All other ranges
    /// name all their copies: redis-py counts on as many of one range as of another of the same leader.
    pub fn slots(&self, reply: &mut dyn Reply) {
        let up = |at: &&usize| self.reachable(**at).is_some_and(|(node, _)| node.up);
        let first = |copies: &Copies| {
            let head = copies.leader.or_else(|| copies.others.iter().find(up).copied());
            head.filter(|&at| self.reachable(at).is_some())
        };
        let served: Vec<_> =
            self.ranges().into_iter().filter_map(|range| Some((first(range.copies)?, range))).collect();
        let mut leaders: BTreeMap<usize, u16> = BTreeMap::new();
        for (head, range) in &served {
            leaders.entry(*head).or_insert(range.slots.0);
        }
        if leaders.len() < 2 {
            leaders.clear();
        }
        let mut told: Vec<((u16, u16), Vec<usize>)> = Vec::new();
        told.extend(leaders.iter().map(|(&head, &slot)| ((slot, slot), alloc::vec![head])));
        for (head, Range { slots: (begin, end), copies }) in served {
            let begin = begin + u16::from(leaders.get(&head) == Some(&begin));
            if begin <= end {
                let others = copies.others.iter().filter(up).copied().filter(|&other| other != head);
                told.push(((begin, end), core::iter::once(head).chain(others).collect()));
            }
        }
        reply.array(told.len());
        for ((begin, end), nodes) in told {
            reply.array(2 + nodes.len());
            reply.int(begin.into());
            reply.int(end.into());
            for (node, address) in nodes.into_iter().filter_map(|at| self.reachable(at)) {
                reply.array(4);
                reply.bulk(address.host.as_bytes());
                reply.int(address.port.into());
                reply.bulk(name(node.id).as_bytes());
                reply.array(0);
            }
        }
    }

    /// `CLUSTER SHARDS`: ranges with the same copies together.
    pub fn shards(&self, reply: &mut dyn Reply) {
        let mut shards: Vec<(&Copies, Vec<(u16, u16)>)> = Vec::new();
        for Range { slots, copies } in self.ranges() {
            match shards.iter_mut().find(|(other, _)| *other == copies) {
                Some((_, ranges)) => ranges.push(slots),
                None => shards.push((copies, alloc::vec![slots])),
            }
        }
        reply.array(shards.len());
        for (copies, ranges) in shards {
            reply.map(2);
            reply.bulk(b"slots");
            reply.array(2 * ranges.len());
            for (first, last) in ranges {
                reply.int(first.into());
                reply.int(last.into());
            }
            reply.bulk(b"nodes");
            let leader = copies.leader.map(|at| (at, "master"));
            let others = copies.others.iter().map(|&at| (at, "replica"));
            let nodes: Vec<_> = leader.into_iter().chain(others).collect();
            reply.array(nodes.len());
            nodes.into_iter().for_each(|(at, role)| self.shard_node(at, role, reply));
        }
    }

    fn shard_node(&self, at: usize, role: &str, reply: &mut dyn Reply) {
        let node = &self.nodes[at];
        let nowhere = Address::default();
        let address = node.address.as_ref().unwrap_or(&nowhere);
        reply.map(7);
        for (key, value) in [("id", &*name(node.id)), ("ip", &address.host), ("endpoint", &address.host)] {
            reply.bulk(key.as_bytes());
            reply.bulk(value.as_bytes());
        }
        for (key, value) in [("port", i64::from(address.port)), ("replication-offset", 0)] {
            reply.bulk(key.as_bytes());
            reply.int(value);
        }
        for (key, value) in [("role", role), ("health", if node.up { "online" } else { "fail" })] {
            reply.bulk(key.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }

    /// `CLUSTER NODES`: a line for each. All are masters: each may lead.
    #[must_use]
    pub fn lines(&self) -> String {
        let ranges = self.ranges();
        let mut text = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let nowhere = Address::default();
            let Address { host, port } = node.address.as_ref().unwrap_or(&nowhere);
            let own = at == self.own;
            let flags = match (own, node.up, node.address.is_some()) {
                (true, ..) => "myself,master",
                (false, true, true) => "master",
                (false, true, false) => "master,noaddr",
                (false, false, _) => "master,fail",
            };
            let link = if own || node.linked.is_some() { "connected" } else { "disconnected" };
            let (name, link_port, epoch) = (name(node.id), node.link_port, self.epoch);
            let _ = write!(text, "{name} {host}:{port}@{link_port} {flags} - 0 0 {epoch} {link}");
            for Range { slots: (first, last), .. } in
                ranges.iter().filter(|one| one.copies.leader == Some(at))
            {
                let _ =
                    if first == last { write!(text, " {first}") } else { write!(text, " {first}-{last}") };
            }
            text.push('\n');
        }
        text
    }

    /// `CLUSTER INFO`.
    #[must_use]
    pub fn info(&self) -> String {
        let slots = |led: bool| {
            let of = |range: &Range<'_>| u32::from(range.slots.1 - range.slots.0) + 1;
            self.ranges().iter().filter(|one| one.copies.leader.is_some() == led).map(of).sum::<u32>()
        };
        let (served, lost) = (slots(true), slots(false));
        let mut leaders: Vec<usize> = self.copies.iter().filter_map(|copies| copies.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        let fields = [
            ("cluster_slots_assigned", u64::from(Slot::COUNT)),
            ("cluster_slots_ok", served.into()),
            ("cluster_slots_pfail", 0),
            ("cluster_slots_fail", lost.into()),
            ("cluster_known_nodes", self.nodes.len() as u64),
            ("cluster_size", leaders.len() as u64),
            ("cluster_current_epoch", self.epoch),
            ("cluster_my_epoch", self.epoch),
        ];
        let state = if lost == 0 { "ok" } else { "fail" };
        let mut text = format!("cluster_state:{state}\r\n");
        for (name, value) in fields {
            let _ = write!(text, "{name}:{value}\r\n");
        }
        text
    }

    /// `CLUSTER LINKS`: both directions of each.
    pub fn links(&self, reply: &mut dyn Reply) {
        let linked: Vec<_> = self.nodes.iter().filter_map(|node| Some((node, node.linked?))).collect();
        reply.array(2 * linked.len());
        for (node, since) in linked {
            for direction in ["to", "from"] {
                reply.map(6);
                for (key, value) in [("direction", direction), ("node", &*name(node.id)), ("events", "rw")] {
                    reply.bulk(key.as_bytes());
                    reply.bulk(value.as_bytes());
                }
                let created = (since.0 / 1000) as i64;
                let sizes = [("create-time", created), ("send-buffer-allocated", 0), ("send-buffer-used", 0)];
                for (key, value) in sizes {
                    reply.bulk(key.as_bytes());
                    reply.int(value);
                }
            }
        }
    }
}

const FAST: Traits = Traits::FAST;

/// This family's rows.
pub(super) const ROWS: &[Row] = &[
    Row::new("readonly", 1, "cluster", readonly)
        .with(FAST)
        .since("3.0.0")
        .about("Lets this connection read copies that may be behind."),
    Row::new("readwrite", 1, "cluster", readwrite)
        .with(FAST)
        .since("3.0.0")
        .about("Has this connection read the leader's state again."),
    Row::new("asking", 1, "cluster", asking).with(FAST).since("3.0.0").about("Needs nothing here."),
    Row::container("cluster", "cluster", CLUSTER).since("3.0.0").about("Tells about the cluster."),
];

const CLUSTER: &[Row] = &[
    Row::new("cluster|countkeysinslot", 3, "cluster", count_keys)
        .since("3.0.0")
        .syntax("<slot>")
        .about("Keys of a slot at this node. Walks all keys of the partition."),
    Row::new("cluster|getkeysinslot", 4, "cluster", get_keys)
        .since("3.0.0")
        .syntax("<slot> <count>")
        .about("Some keys of a slot at this node. Walks all keys of the partition."),
    Row::new("cluster|info", 2, "cluster", |call| told(call, |view, reply| reply.verbatim(&view.info())))
        .since("3.0.0")
        .about("The state of the cluster."),
    Row::new("cluster|keyslot", 3, "cluster", keyslot)
        .since("3.0.0")
        .syntax("<key>")
        .about("The slot of a key."),
    Row::new("cluster|links", 2, "cluster", |call| told(call, |view, reply| view.links(reply)))
        .since("7.0.0")
        .about("Links to other nodes."),
    Row::new("cluster|myid", 2, "cluster", |call| {
        told(call, |view, reply| reply.bulk(name(view.nodes[view.own].id).as_bytes()))
    })
    .since("3.0.0")
    .about("The node's name."),
    Row::new("cluster|nodes", 2, "cluster", |call| told(call, |view, reply| reply.verbatim(&view.lines())))
        .since("3.0.0")
        .about("The members and their slots."),
    Row::new("cluster|shards", 2, "cluster", |call| told(call, |view, reply| view.shards(reply)))
        .since("7.0.0")
        .about("Slots by where they are."),
    Row::new("cluster|slots", 2, "cluster", |call| told(call, |view, reply| view.slots(reply)))
        .since("3.0.0")
        .about("Ranges of slots and their nodes."),
    Row::new("cluster|help", 2, "cluster", |call| {
        view(call)?;
        help(call)
    })
    .since("5.0.0"),
];

fn view(call: &Call<'_>) -> Result<ClusterView, Fault> {
    call.host.cluster(call.session.db).ok_or(DISABLED)
}

fn told(call: &mut Call<'_>, tell: impl FnOnce(&ClusterView, &mut dyn Reply)) -> Result<Done, Fault> {
    let view = view(call)?;
    tell(&view, &mut call.reply);
    Ok(Done::Answered)
}

fn set_readonly(call: &mut Call<'_>, readonly: bool) -> Result<Done, Fault> {
    view(call)?;
    call.host.io().readonly = readonly;
    call.ok()
}

fn readonly(call: &mut Call<'_>) -> Result<Done, Fault> {
    set_readonly(call, true)
}

fn readwrite(call: &mut Call<'_>) -> Result<Done, Fault> {
    set_readonly(call, false)
}

fn asking(call: &mut Call<'_>) -> Result<Done, Fault> {
    view(call)?;
    call.ok()
}

fn keyslot(call: &mut Call<'_>) -> Result<Done, Fault> {
    view(call)?;
    call.int(Slot::of(call.args[0]).number().into())
}

fn slot(word: &[u8]) -> Result<Slot, Fault> {
    let number = integer(word).map_err(|_| Fault::Text("ERR Invalid or out of range slot"))?;
    let slot = u16::try_from(number).ok().and_then(Slot::new);
    slot.ok_or(Fault::Text("ERR Invalid slot"))
}

fn count_keys(call: &mut Call<'_>) -> Result<Done, Fault> {
    let view = view(call)?;
    in_slot(call, &view, SLOT_COUNT, slot(call.args[0])?)
}

fn get_keys(call: &mut Call<'_>) -> Result<Done, Fault> {
    let view = view(call)?;
    let slot = slot(call.args[0])?;
    if integer(call.args[1]).is_ok_and(|count| count < 0) {
        return Err(Fault::Text("ERR Invalid number of keys"));
    }
    integer(call.args[1])?;
    in_slot(call, &view, SLOT_KEYS, slot)
}

/// Runs `id` in the slot's partition if it is led here; elsewhere are no keys of it, as cluster clients see it.
fn in_slot(call: &mut Call<'_>, view: &ClusterView, id: u16, slot: Slot) -> Result<Done, Fault> {
    let partition = view.partitions.of(slot);
    if view.copies[usize::from(partition)].leader != Some(view.own) {
        if id == SLOT_COUNT {
            call.reply.int(0)
        } else {
            call.reply.array(0)
        }
        return Ok(Done::Answered);
    }
    let command = call.host.registry().by_id(id).expect("the store knows its own commands");
    let db: KeyspaceId = call.session.db;
    Ok(Done::Stored(call.host.submit_in(db, partition, command, call.args)))
}

#[cfg(test)]
mod tests {
    use wire::resp::Encoder;

    use super::super::RespReply;
    use super::*;

    fn node(number: u8) -> ClusterNode {
        let address = Address { host: format!("10.0.0.{number}"), port: 6380 };
        ClusterNode {
            id: NodeId([number; 32]),
            address: Some(address),
            link_port: 7000,
            up: true,
            linked: (number > 1).then_some(Micros(5_000_000)),
        }
    }

    /// Three nodes, and `copies` as (leader, others).
    fn seen(copies: &[(Option<usize>, &[usize])]) -> ClusterView {
        ClusterView {
            nodes: (1..=3).map(node).collect(),
            own: 0,
            epoch: 9,
            partitions: Partitions::new(copies.len() as u16).unwrap(),
            copies: copies
                .iter()
                .map(|&(leader, others)| Copies { leader, others: others.to_vec() })
                .collect(),
        }
    }

    fn told(tell: impl FnOnce(&mut dyn Reply)) -> String {
        let mut bytes = Vec::new();
        tell(&mut RespReply(Encoder::new(&mut bytes, false)));
        String::from_utf8(bytes).unwrap().replace("\r\n", " ")
    }

    fn bulk(text: &str) -> String {
        format!("${} {text} ", text.len())
    }

    fn described(number: u8) -> String {
        let id = format!("{number:02x}").repeat(20);
        format!("*4 {}:6380 {}*0 ", bulk(&format!("10.0.0.{number}")), bulk(&id))
    }

    #[test]
    fn slots_name_leaders_alone_first_and_then_all_copies() {
        let view = seen(&[(Some(0), &[1, 2]), (Some(0), &[1, 2]), (Some(1), &[0, 2]), (None, &[0])]);
        let (one, two, three) = (described(1), described(2), described(3));
        // Node 3 leads nothing, and nobody the last range.
        let expected = format!(
            "*5 *3 :0 :0 {one}*3 :8192 :8192 {two}*5 :1 :8191 {one}{two}{three}*5 :8193 :12287 {two}{one}{three}\
             *3 :12288 :16383 {one}"
        );
        assert_eq!(told(|reply| view.slots(reply)), expected);
        // Where one leads all, nobody else is to be taken for a master.
        let view = seen(&[(Some(0), &[1, 2]), (Some(0), &[1])]);
        let expected = format!("*2 *5 :0 :8191 {one}{two}{three}*4 :8192 :16383 {one}{two}");
        assert_eq!(told(|reply| view.slots(reply)), expected);
    }

    #[test]
    fn who_has_no_address_or_is_down_is_not_offered() {
        let mut view = seen(&[(Some(0), &[1, 2]), (Some(2), &[])]);
        view.nodes[1].up = false;
        view.nodes[2].address = None;
        assert_eq!(told(|reply| view.slots(reply)), format!("*1 *3 :0 :8191 {}", described(1)));
    }

    #[test]
    fn shards_join_ranges_with_the_same_copies() {
        let view = seen(&[(Some(0), &[1]), (Some(1), &[]), (Some(0), &[1]), (None, &[])]);
        let text = told(|reply| view.shards(reply));
        assert!(text.starts_with("*3 *4 $5 slots *4 :0 :4095 :8192 :12287 $5 nodes *2 *14 $2 id "), "{text}");
        let node = "$4 role $6 master $6 health $6 online ";
        assert_eq!(text.matches(node).count(), 2, "{text}");
        assert!(text.ends_with("*4 $5 slots *2 :12288 :16383 $5 nodes *0 "), "{text}");
    }

    #[test]
    fn nodes_are_lines_with_their_slots() {
        let mut view = seen(&[(Some(0), &[1]), (Some(1), &[]), (Some(0), &[1]), (None, &[])]);
        view.nodes[2].up = false;
        view.nodes[2].linked = None;
        let expected = "\
            0101010101010101010101010101010101010101 10.0.0.1:6380@7000 myself,master - 0 0 9 connected 0-4095 8192-12287\n\
            0202020202020202020202020202020202020202 10.0.0.2:6380@7000 master - 0 0 9 connected 4096-8191\n\
            0303030303030303030303030303030303030303 10.0.0.3:6380@7000 master,fail - 0 0 9 disconnected\n";
        assert_eq!(view.lines(), expected);
        let info = view.info();
        assert!(
            info.starts_with(
                "cluster_state:fail\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:12288\r\n"
            )
        );
        assert!(
            info.contains("cluster_slots_fail:4096\r\ncluster_known_nodes:3\r\ncluster_size:2\r\n"),
            "{info}"
        );
        assert!(seen(&[(Some(0), &[])]).info().starts_with("cluster_state:ok\r\n"));
    }

    #[test]
    fn links_are_told_both_ways() {
        let text = told(|reply| seen(&[(Some(0), &[])]).links(reply));
        assert!(text.starts_with("*4 *12 $9 direction $2 to $4 node $40 0202"), "{text}");
        assert!(text.contains("$11 create-time :5000 "), "{text}");
    }

    #[test]
    fn a_client_is_sent_where_the_slot_is() {
        let address = Address { host: "10.0.0.2".into(), port: 6380 };
        assert_eq!(format!("{}", moved(Slot::of(b"foo"), &address)), "MOVED 12182 10.0.0.2:6380");
    }
}
