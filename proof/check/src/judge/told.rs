//! One reply: whether it is what the log, a refusal or time says.

use std::collections::BTreeMap;

use kernel::{GroupId, Micros};

use super::{Call, Group, Pending, REPLY, Seen};
use crate::join::{Join, Part};
use crate::reply::shown;
use crate::{Violation, violated};

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
            Call::Parts { parts, writes, join } => {
                self.judge_parts(groups, pending, (parts, *writes), join, reply)
            }
            Call::Read { .. } if pending.seen[0].allowed.iter().any(|allowed| allowed == reply) => Ok(()),
            Call::Read { .. } if pending.allows(reply) => Ok(()),
            Call::Read { .. } => {
                let allowed = pending.seen[0].allowed.iter();
                let allowed: Vec<String> = allowed.map(|allowed| shown(allowed)).collect();
                violated(REPLY, format!("told {}, possible were {}", shown(reply), allowed.join(" or ")))
            }
            Call::Watch { group, keys } => {
                let position = groups[group].position;
                self.watched.extend(keys.iter().map(|key| (*group, key.clone(), position)));
                if reply == b"+OK\r\n" { Ok(()) } else { violated(REPLY, format!("told {}", shown(reply))) }
            }
            Call::Write { group, encoded, unique, timeout_ms } => {
                let id = *group;
                let group = groups.get_mut(&id).expect("the judge was told of every group");
                match group.tell(encoded, reply, pending.seen[0].from) {
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
                let Some(position) = group.tell(encoded, reply, pending.seen[0].from) else {
                    if pending.allows(reply) {
                        return not_applied(group, encoded, true);
                    }
                    return refusal(group, encoded, true, reply);
                };
                for (of, key, from) in watched {
                    if of == id && group.changed(&key, from, position) {
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
        // Of a write, a part that could be done may be done.
        if reply.starts_with(b"-") && pending.allows(reply) {
            return Ok(());
        }
        if writes && reply.starts_with(b"-MISCONF") {
            return refused_part(groups, parts, reply);
        }
        let told = |(part, seen): (&Part, &Seen)| -> Vec<Vec<u8>> {
            match &seen.read {
                Some(_) => seen.allowed.clone(),
                None => groups[&part.group].given(&part.encoded, seen.from),
            }
        };
        let possible: Vec<Vec<Vec<u8>>> = parts.iter().zip(&pending.seen).map(told).collect();
        let Some(chosen) = join.choose(&possible, reply) else {
            let all: Vec<String> = possible
                .iter()
                .map(|part| part.iter().map(|answer| shown(answer)).collect::<Vec<_>>().join(" or "))
                .collect();
            return violated(REPLY, format!("told {}, the parts give {}", shown(reply), all.join("; ")));
        };
        for ((part, seen), answer) in parts.iter().zip(&pending.seen).zip(&chosen).filter(|_| writes) {
            let group = groups.get_mut(&part.group).expect("the judge was told of every group");
            let position = group.tell(&part.encoded, answer, seen.from).expect("it was just found");
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
fn refused_part(
    groups: &mut BTreeMap<GroupId, Group>,
    parts: &[Part],
    reply: &[u8],
) -> Result<(), Violation> {
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
