//! Sets: members, random choices, and the algebra of several sets.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel::hash::KeyHasher;
use smallvec::SmallVec;

use crate::command::argument::{ScanOptions, at_least, count, signed_count};
use crate::command::generic::cursor;
use crate::command::{ALL, Command, Flags, Keys, ONE, TWO, sample};
use crate::object::set::{Member, Set};
use crate::object::{Value, table::Slot};
use crate::store::{Ttl, Typed};
use crate::{Exec, Fault, Store};

const GROWS: Flags = Flags::DENY_OOM;
const FAST: Flags = Flags::FAST;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x400, "sadd", -3, ONE, sadd).with(GROWS.and(FAST)),
    Command::write(0x401, "srem", -3, ONE, srem).with(FAST),
    Command::read(0x402, "sismember", 3, ONE, sismember).with(FAST),
    Command::read(0x403, "smismember", -3, ONE, smismember).with(FAST),
    Command::read(0x404, "smembers", 2, ONE, smembers),
    Command::read(0x405, "scard", 2, ONE, scard).with(FAST),
    Command::write(0x406, "spop", -2, ONE, spop).with(FAST),
    Command::read(0x407, "srandmember", -2, ONE, srandmember),
    Command::write(0x408, "smove", 4, TWO, smove).with(FAST),
    Command::read(0x409, "sinter", -2, ALL, sinter),
    Command::write(0x40A, "sinterstore", -3, ALL, sinterstore).with(GROWS),
    Command::read(0x40B, "sintercard", -3, Keys::Counted(1), sintercard),
    Command::read(0x40C, "sunion", -2, ALL, sunion),
    Command::write(0x40D, "sunionstore", -3, ALL, sunionstore).with(GROWS),
    Command::read(0x40E, "sdiff", -2, ALL, sdiff),
    Command::write(0x40F, "sdiffstore", -3, ALL, sdiffstore).with(GROWS),
    Command::read(0x410, "sscan", -3, ONE, sscan),
];

fn sadd(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let mut guard = exec.store.edit_or_new(args[0], Set::new)?;
    let set = &mut *guard;
    let added = args[1..].iter().filter(|member| set.insert(member, &hasher)).count();
    if added == 0 {
        guard.unchanged();
    }
    drop(guard);
    exec.reply.int(added as i64);
    Ok(())
}

fn srem(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let removed = exec.store.edit::<Set>(args[0])?.map_or(0, |mut guard| {
        let set = &mut *guard;
        let removed = args[1..].iter().filter(|member| set.remove(member)).count();
        if removed == 0 {
            guard.unchanged();
        }
        removed
    });
    exec.reply.int(removed as i64);
    Ok(())
}

fn sismember(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let found = exec.store.get::<Set>(args[0])?.is_some_and(|set| set.contains(args[1]));
    exec.reply.int(i64::from(found));
    Ok(())
}

fn smismember(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let set = store.get::<Set>(args[0])?;
    reply.array(args.len() - 1);
    for member in &args[1..] {
        reply.int(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let set = store.get::<Set>(args[0])?.unwrap_or(&EMPTY);
    reply.set(set.len());
    set.iter().for_each(|member| reply.bulk(&member));
    Ok(())
}

fn scard(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let len = exec.store.get::<Set>(args[0])?.map_or(0, Set::len);
    exec.reply.int(len as i64);
    Ok(())
}

fn spop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [key] => spop_one(exec, key),
        [key, most] => spop_counted(exec, key, count(most)?),
        _ => Err(Fault::Syntax),
    }
}

fn spop_one(exec: &mut Exec<'_>, key: &[u8]) -> Result<(), Fault> {
    let Exec { store, reply, rng, .. } = exec;
    match store.edit::<Set>(key)? {
        Some(mut set) => {
            let index = sample::one(rng, set.len());
            set.take_index(index, |member| reply.bulk(member)).unwrap_or_default();
        }
        None => reply.null(),
    }
    Ok(())
}

fn spop_counted(exec: &mut Exec<'_>, key: &[u8], most: usize) -> Result<(), Fault> {
    let Exec { store, reply, rng, .. } = exec;
    let set = store.get::<Set>(key)?.unwrap_or(&EMPTY);
    if most >= set.len() {
        reply.set(set.len());
        set.iter().for_each(|member| reply.bulk(&member));
        store.remove(key);
        return Ok(());
    }
    reply.set(most);
    if let Some(mut guard) = store.edit::<Set>(key)?.filter(|_| most > 0) {
        let set = &mut *guard;
        for _ in 0..most {
            let index = sample::one(rng, set.len());
            set.take_index(index, |member| reply.bulk(member));
        }
    }
    Ok(())
}

fn srandmember(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, rng, .. } = exec;
    match args {
        [key] => match store.get::<Set>(key)? {
            Some(set) => {
                let member = set.get_index(sample::one(rng, set.len()));
                reply.bulk(&member.expect("the index is below the length"));
            }
            None => reply.null(),
        },
        [key, count] => {
            let count = signed_count(count)?;
            let set = store.get::<Set>(key)?.unwrap_or(&EMPTY);
            let chosen = sample::choose(rng, set.len(), count)?;
            reply.array(chosen.len());
            for index in chosen {
                reply.bulk(&set.get_index(index).expect("the index is below the length"));
            }
        }
        _ => return Err(Fault::Syntax),
    }
    Ok(())
}

fn smove(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (source, target, member) = (args[0], args[1], args[2]);
    let Some(set) = exec.store.get::<Set>(source)? else {
        exec.reply.int(0);
        return Ok(());
    };
    let found = set.contains(member);
    exec.store.get::<Set>(target)?;
    if found && source != target {
        let hasher = exec.store.hasher();
        // The target first: if it cannot be, nothing has changed.
        let mut set = exec.store.edit_or_new(target, Set::new)?;
        if !set.insert(member, &hasher) {
            set.unchanged();
        }
        drop(set);
        if let Some(mut set) = exec.store.edit::<Set>(source)? {
            set.remove(member);
        }
    }
    exec.reply.int(i64::from(found));
    Ok(())
}

/// What a key that does not exist holds.
static EMPTY: Set = Set::new();

/// Sets to be combined.
type Sets<'s> = SmallVec<[&'s Set; 8]>;

/// The sets of `keys`, each a set or absent.
fn sets<'s>(store: &'s mut Store, keys: &[&[u8]]) -> Result<Sets<'s>, Fault> {
    let mut slots: SmallVec<[Option<Slot>; 8]> = SmallVec::new();
    for key in keys {
        let exists = store.get::<Set>(key)?.is_some();
        slots.push(if exists { store.locate(key).1 } else { None });
    }
    let store = &*store;
    let set = |slot| Set::of(&store.entry(slot).value).expect("its type has just been checked");
    Ok(slots.into_iter().map(|slot| slot.map_or(&EMPTY, set)).collect())
}

/// The members that all sets have. Looks up those of the smallest in the others.
fn intersection<'s>(mut sets: Sets<'s>) -> impl Iterator<Item = Member<'s>> {
    sets.sort_by_key(|set| set.len());
    let smallest = sets.first().copied().unwrap_or(&EMPTY);
    smallest.iter().filter(move |member| sets[1..].iter().all(|other| other.contains(member)))
}

/// The members of the first set that no other has.
fn difference<'s>(sets: Sets<'s>) -> impl Iterator<Item = Member<'s>> {
    let first = sets.first().copied().unwrap_or(&EMPTY);
    first.iter().filter(move |member| !sets[1..].iter().any(|other| other.contains(member)))
}

/// The members that any set has.
fn union(sets: &Sets<'_>, hasher: &KeyHasher) -> Set {
    let mut all = Set::new();
    sets.iter().flat_map(|set| set.iter()).for_each(|member| {
        all.insert(&member, hasher);
    });
    all
}

fn collect<'s>(members: impl Iterator<Item = Member<'s>>, hasher: &KeyHasher) -> Set {
    let mut set = Set::new();
    members.for_each(|member| {
        set.insert(&member, hasher);
    });
    set
}

fn sinter(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let members: Vec<Member<'_>> = intersection(sets(exec.store, args)?).collect();
    exec.reply.set(members.len());
    members.iter().for_each(|member| exec.reply.bulk(member));
    Ok(())
}

fn sdiff(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let members: Vec<Member<'_>> = difference(sets(exec.store, args)?).collect();
    exec.reply.set(members.len());
    members.iter().for_each(|member| exec.reply.bulk(member));
    Ok(())
}

fn sunion(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let all = union(&sets(exec.store, args)?, &hasher);
    exec.reply.set(all.len());
    all.iter().for_each(|member| exec.reply.bulk(&member));
    Ok(())
}

fn sinterstore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let result = collect(intersection(sets(exec.store, &args[1..])?), &hasher);
    put(exec, args[0], result)
}

fn sdiffstore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let result = collect(difference(sets(exec.store, &args[1..])?), &hasher);
    put(exec, args[0], result)
}

fn sunionstore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let result = union(&sets(exec.store, &args[1..])?, &hasher);
    put(exec, args[0], result)
}

/// Makes `result` the value of `key`, whatever it was, and answers its size.
fn put(exec: &mut Exec<'_>, key: &[u8], result: Set) -> Result<(), Fault> {
    let len = result.len();
    if len == 0 {
        exec.store.remove(key);
    } else {
        exec.store.set(key, Value::Set(Box::new(result)), Ttl::Clear)?;
    }
    exec.reply.int(len as i64);
    Ok(())
}

fn sintercard(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let count = at_least(1, args[0], "ERR numkeys should be greater than 0")?;
    let (keys, mut rest) = args[1..]
        .split_at_checked(count)
        .ok_or(Fault::Text("ERR Number of keys can't be greater than number of args"))?;
    let mut limit = 0;
    while let [option, value, tail @ ..] = rest {
        rest = tail;
        if !option.eq_ignore_ascii_case(b"limit") {
            return Err(Fault::Syntax);
        }
        limit = at_least(0, value, "ERR LIMIT can't be negative")?;
    }
    if !rest.is_empty() {
        return Err(Fault::Syntax);
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    let size = intersection(sets(exec.store, keys)?).take(limit).count();
    exec.reply.int(size as i64);
    Ok(())
}

fn sscan(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let from = cursor(args[1])?;
    let Exec { store, reply, .. } = exec;
    let Some(set) = store.get::<Set>(args[0])? else {
        reply.array(2);
        reply.bulk(b"0");
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[2..])?;
    // Once to count, once to answer: nothing is copied.
    let mut found = 0;
    let next = set.scan(from, options.count, |member| found += usize::from(options.wants(member)));
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    reply.array(found);
    set.scan(from, options.count, |member| {
        if options.wants(member) {
            reply.bulk(member);
        }
    });
    Ok(())
}
