//! What one client is told, and whether it may be.

use std::collections::BTreeMap;

use kernel::codec::Reader;
use kernel::{GroupId, Micros};
use storage::Registry;
use storage::command::generic::TICK;
use storage::entry::{Args, next_command, put_command};

use super::{Call, Group, Look, Pending, REPLY, Transfer};
use crate::join::{Join, Part};
use crate::reply::shown;
use crate::{Violation, violated};

type Groups = BTreeMap<GroupId, Group>;

impl Pending {
    fn possible(&self) -> String {
        let all: Vec<String> =
            self.looks.iter().flat_map(|look| &look.allowed).map(|allowed| shown(allowed)).collect();
        all.join(" or ")
    }
}

/// A client that is being told something.
pub(super) struct Told<'a> {
    pub now: Micros,
    pub watched: &'a mut Vec<(GroupId, Vec<u8>, u64)>,
    pub last: &'a mut BTreeMap<GroupId, u64>,
}

impl Told<'_> {
    pub fn judge(
        mut self,
        groups: &mut BTreeMap<GroupId, Group>,
        pending: &Pending,
        reply: &[u8],
    ) -> Result<(), Violation> {
        match &pending.call {
            Call::Local(expected) if reply == *expected => Ok(()),
            Call::Local(expected) => {
                violated(REPLY, format!("told {}, not {}", shown(reply), shown(expected)))
            }
            Call::Read { .. } if pending.looks.iter().any(|look| look.may_be(reply)) => Ok(()),
            Call::Read { .. } if pending.allows(reply) => Ok(()),
            Call::Read { .. } => {
                violated(REPLY, format!("told {}, possible were {}", shown(reply), pending.possible()))
            }
            Call::Parts { parts, writes, join } => {
                self.judge_parts(groups, pending, (parts, *writes), join, reply)
            }
            Call::Everywhere { encoded } => everywhere(groups, pending, encoded, reply),
            Call::Transfer(transfer) => transfer.judge(groups, pending, reply),
            Call::Watch { group, keys } => {
                let position = groups[group].position;
                self.watched.extend(keys.iter().map(|key| (*group, key.clone(), position)));
                if reply == b"+OK\r\n" { Ok(()) } else { violated(REPLY, format!("told {}", shown(reply))) }
            }
            Call::Write { group, encoded, unique, timeout_ms } => {
                let id = *group;
                let group = groups.get_mut(&id).expect("the judge was told of every group");
                match group.tell(encoded, reply, pending.from[&id]) {
                    Some(position) if *unique => self.in_order(id, position),
                    Some(_) => Ok(()),
                    None if self.waited_in_vain(pending, *timeout_ms, reply) => Ok(()),
                    None if pending.allows(reply) => not_applied(group, encoded, *unique),
                    None => refusal(group, encoded, *unique, reply),
                }
            }
            Call::Exec { group, encoded } => {
                let watched = std::mem::take(self.watched);
                let id = *group;
                let group = groups.get_mut(&id).expect("the judge was told of every group");
                if reply == b"*-1\r\n" && !watched.is_empty() {
                    return match group.untold.get(encoded) {
                        None => Ok(()),
                        Some(_) => violated("a broken watch discards EXEC", "it was applied".into()),
                    };
                }
                let Some(position) = group.tell(encoded, reply, pending.from[&id]) else {
                    if pending.allows(reply) {
                        return not_applied(group, encoded, true);
                    }
                    return refusal(group, encoded, true, reply);
                };
                for (of, key, from) in watched {
                    // Of another keyspace, what was acknowledged before EXEC was sent counts, and no more.
                    let to = if of == id { position } else { pending.from[&of] + 1 };
                    if groups[&of].changed(&key, from, to) {
                        let what = format!("{} changed between WATCH and EXEC", shown(&key));
                        return violated("a changed key breaks its watch", what);
                    }
                }
                self.in_order(id, position)
            }
        }
    }

    fn in_order(&mut self, group: GroupId, position: u64) -> Result<(), Violation> {
        let last = self.last.insert(group, position).unwrap_or(0);
        if last < position {
            return Ok(());
        }
        let what = format!("applied at {position}, an earlier command of the client at {last}");
        violated("a connection's commands are applied in order", what)
    }

    /// Each part by itself: what it answered must be what the log says, and the whole what that makes.
    fn judge_parts(
        &mut self,
        groups: &mut BTreeMap<GroupId, Group>,
        pending: &Pending,
        (parts, writes): (&[Part], bool),
        join: &Join,
        reply: &[u8],
    ) -> Result<(), Violation> {
        // Of a write, a part that could be done may be done; of a read, the others have answered.
        if (reply.starts_with(b"-") || !writes) && pending.allows(reply) {
            return Ok(());
        }
        if writes && reply.starts_with(b"-MISCONF") {
            return refused_part(groups, parts, reply);
        }
        let told = |part: &Part| groups[&part.group].given(&part.encoded, pending.from[&part.group]);
        let seen = |look: &Look| look.allowed.clone();
        let possible: Vec<Vec<Vec<u8>>> =
            if writes { parts.iter().map(told).collect() } else { pending.looks.iter().map(seen).collect() };
        let Some(chosen) = join.choose(&possible, reply) else {
            let all: Vec<String> = possible
                .iter()
                .map(|part| part.iter().map(|answer| shown(answer)).collect::<Vec<_>>().join(" or "))
                .collect();
            return violated(REPLY, format!("told {}, the parts give {}", shown(reply), all.join("; ")));
        };
        for (part, answer) in parts.iter().zip(&chosen).filter(|_| writes) {
            let group = groups.get_mut(&part.group).expect("the judge was told of every group");
            let from = pending.from[&part.group];
            let position = group.tell(&part.encoded, answer, from).expect("it was just found");
            if part.unique {
                self.in_order(part.group, position)?;
            }
        }
        Ok(())
    }

    fn waited_in_vain(&self, pending: &Pending, timeout_ms: Option<u64>, reply: &[u8]) -> bool {
        let null = reply == b"*-1\r\n" || reply == b"$-1\r\n";
        null && timeout_ms.is_some_and(|ms| ms > 0 && self.now >= pending.sent.plus_millis(ms))
    }
}

/// A write that was refused before it was logged: it must not be applied.
fn not_applied(group: &mut Group, encoded: &[u8], unique: bool) -> Result<(), Violation> {
    if unique && group.untold.contains_key(encoded) {
        return violated("a refused write is not applied", "it was".into());
    }
    if unique {
        group.denied.insert(encoded.to_vec());
    }
    Ok(())
}

/// A reply that the model did not give must be that of a refused write.
fn refusal(group: &mut Group, encoded: &[u8], unique: bool, reply: &[u8]) -> Result<(), Violation> {
    if reply.starts_with(b"-MISCONF")
        && let Some(left) = group.refused.get_mut(encoded).filter(|left| **left > 0)
    {
        *left -= 1;
        if unique && reply.starts_with(b"-MISCONF the disk is full") {
            group.denied.insert(encoded.to_vec());
        }
        return Ok(());
    }
    violated(REPLY, format!("told {}, but {}", shown(reply), group.explain(encoded)))
}

/// A write on several partitions was refused: at least one of its parts was, others may be done.
fn refused_part(groups: &mut Groups, parts: &[Part], reply: &[u8]) -> Result<(), Violation> {
    let mut refused = 0;
    for part in parts {
        let group = groups.get_mut(&part.group).expect("the judge was told of every group");
        if let Some(left) = group.refused.get_mut(&part.encoded).filter(|left| **left > 0) {
            *left -= 1;
            refused += 1;
        }
    }
    if refused > 0 { Ok(()) } else { violated(REPLY, format!("told {}, no part was refused", shown(reply))) }
}

/// All groups have it, or the log refused it to one of them.
fn everywhere(groups: &mut Groups, pending: &Pending, encoded: &[u8], reply: &[u8]) -> Result<(), Violation> {
    if reply.starts_with(b"-MISCONF") {
        let refused = groups.values_mut().find_map(|group| {
            group.refused.get_mut(encoded).filter(|left| **left > 0).map(|left| *left -= 1)
        });
        return match refused {
            Some(()) => Ok(()),
            None => violated(REPLY, format!("told {}, and no group's log refused it", shown(reply))),
        };
    }
    for (id, group) in groups.iter_mut() {
        if group.tell(encoded, reply, pending.from[id]).is_none() {
            return violated(
                REPLY,
                format!("told {}, but of {id}: {}", shown(reply), group.explain(encoded)),
            );
        }
    }
    Ok(())
}

impl Transfer {
    fn encode(registry: &Registry, words: &[&[u8]]) -> Vec<u8> {
        let command = registry.find(words[0]).expect("who can move keys has the commands for it");
        let mut encoded = Vec::new();
        put_command(&mut encoded, command.id, &words[1..]);
        encoded
    }

    /// What it depends on: the value and its expiry here, and whether the key exists there.
    pub(super) fn looks(&self, registry: &Registry) -> [(GroupId, Vec<u8>); 3] {
        let [key, new_key] = &self.keys;
        [
            (self.from, Self::encode(registry, &[b"dump", key])),
            (self.from, Self::encode(registry, &[b"pexpiretime", key])),
            (self.to, Self::encode(registry, &[b"exists", new_key])),
        ]
    }

    fn judge(&self, groups: &mut Groups, pending: &Pending, reply: &[u8]) -> Result<(), Violation> {
        let [value, expiry, there] = &pending.looks[..] else {
            return violated(REPLY, "a transfer looks at three things".into());
        };
        let possible = match reply {
            b":0\r\n" => value.may_be(b"$-1\r\n") || !self.replace && there.may_be(b":1\r\n"),
            b":1\r\n" => self.replace || there.may_be(b":0\r\n"),
            _ if pending.allows(reply) => return Ok(()),
            _ if reply.starts_with(b"-MISCONF") => return self.refused(groups, pending, reply),
            _ => false,
        };
        if !possible {
            return violated(REPLY, format!("told {}, possible were {}", shown(reply), pending.possible()));
        }
        if reply == b":0\r\n" {
            return Ok(());
        }
        let (to, from) = (self.to, self.from);
        let group = groups.get_mut(&to).expect("the judge was told of every group");
        let since = pending.from[&to];
        // One from before may be the same.
        let is_new = |one: &Vec<u8>| self.is_arrival(group, one) && !group.given(one, since).is_empty();
        let arrived: Vec<Vec<u8>> = group.untold.keys().filter(|one| is_new(one)).cloned().collect();
        let right = arrived.iter().find(|encoded| {
            let mut args = Args::new();
            let read = next_command(&mut Reader::new(encoded), &mut args);
            let bulk = [format!("${}\r\n", args[2].len()).as_bytes(), args[2], b"\r\n"].concat();
            let time: &[u8] = if args[1] == b"0" { b"-1" } else { args[1] };
            read.is_ok() && value.may_be(&bulk) && expiry.may_be(&[b":", time, b"\r\n"].concat())
        });
        let Some(encoded) = right.cloned() else {
            let seen: Vec<String> = arrived.iter().map(|encoded| shown(encoded)).collect();
            let what = format!("what arrived is none of {}: {}", pending.possible(), seen.join(" or "));
            return violated("a key arrives as it was", what);
        };
        if group.tell(&encoded, b"+OK\r\n", since).is_none() {
            return violated(REPLY, format!("told {}, but {}", shown(reply), group.explain(&encoded)));
        }
        if self.remove {
            let group = groups.get_mut(&from).expect("the judge was told of every group");
            let removed = Self::encode(group.model.registry(), &[b"del", &self.keys[0]]);
            // It may have expired in the instant of its removal.
            let told =
                [b":1\r\n", b":0\r\n"].iter().find_map(|one| group.tell(&removed, *one, pending.from[&from]));
            if told.is_none() {
                return violated("a moved key is removed", group.explain(&removed));
            }
        }
        Ok(())
    }

    /// Whether an applied command is the arrival of a key of this name.
    fn is_arrival(&self, group: &Group, encoded: &[u8]) -> bool {
        let mut args = Args::new();
        let Ok(id) = next_command(&mut Reader::new(encoded), &mut args) else { return false };
        let restore = group.model.registry().find(b"restore").map(|command| command.id);
        Some(id) == restore && args.len() == 5 && args[0] == self.keys[1]
    }

    /// The log refused the arrival, the removal behind it, or the time at which the key is known to have
    /// expired.
    fn refused(&self, groups: &mut Groups, pending: &Pending, reply: &[u8]) -> Result<(), Violation> {
        let group = groups.get_mut(&self.to).expect("the judge was told of every group");
        let mut refused: Vec<(GroupId, Vec<u8>)> = group
            .refused
            .keys()
            .filter(|one| self.is_arrival(group, one))
            .map(|one| (self.to, one.clone()))
            .collect();
        let registry = group.model.registry();
        if self.remove {
            refused.push((self.from, Self::encode(registry, &[b"del", &self.keys[0]])));
        }
        for (id, encoded) in refused {
            let group = groups.get_mut(&id).expect("the judge was told of every group");
            if let Some(left) = group.refused.get_mut(&encoded).filter(|left| **left > 0) {
                *left -= 1;
                return Ok(());
            }
        }
        let mut tick = Vec::new();
        put_command(&mut tick, TICK, &[]);
        let ticks = groups[&self.from].refused.get(&tick);
        if pending.unlogged.is_some() && ticks.is_some_and(|left| *left > 0) {
            return Ok(());
        }
        violated(REPLY, format!("told {}, and the log refused nothing of it", shown(reply)))
    }
}
