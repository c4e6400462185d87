//! Unions, intersections and differences of sorted sets and sets, answered, stored or counted.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use kernel::hash::KeyHasher;
use smallvec::SmallVec;

use crate::command::argument::{at_least, integer};
use crate::command::zset::{Show, reply_members};
use crate::command::{Command, Flags, Keys};
use crate::object::number::parse_float;
use crate::object::set::Member;
use crate::object::table::Slot;
use crate::object::zset::Score;
use crate::object::{Set, Value, Zset};
use crate::store::Ttl;
use crate::{Exec, Fault, Store};

const COUNTED: Keys = Keys::Counted(1);
const STORED: Keys = Keys::OneAndCounted(1, 2);
const GROWS: Flags = Flags::DENY_OOM;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(0x640, "zunion", -3, COUNTED, zunion),
    Command::read(0x641, "zinter", -3, COUNTED, zinter),
    Command::read(0x642, "zdiff", -3, COUNTED, zdiff),
    Command::write(0x643, "zunionstore", -4, STORED, zunionstore).with(GROWS),
    Command::write(0x644, "zinterstore", -4, STORED, zinterstore).with(GROWS),
    Command::write(0x645, "zdiffstore", -4, STORED, zdiffstore).with(GROWS),
    Command::read(0x646, "zintercard", -3, COUNTED, zintercard),
];

// --- what is combined --------------------------------------------------------------------------

/// What a key holds.
#[derive(Clone, Copy)]
enum Members<'s> {
    Absent,
    /// Each with the score 1.
    Set(&'s Set),
    Zset(&'s Zset),
}

impl<'s> Members<'s> {
    fn len(self) -> usize {
        match self {
            Members::Absent => 0,
            Members::Set(set) => set.len(),
            Members::Zset(zset) => zset.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Members::Absent => None,
            Members::Set(set) => set.contains(member).then_some(1.0),
            Members::Zset(zset) => zset.score(member).map(Score::get),
        }
    }

    fn iter(self) -> impl Iterator<Item = (Member<'s>, f64)> {
        let (set, zset) = match self {
            Members::Absent => (None, None),
            Members::Set(set) => (Some(set), None),
            Members::Zset(zset) => (None, Some(zset)),
        };
        let ones = set.into_iter().flat_map(Set::iter).map(|member| (member, 1.0));
        let scored = zset.into_iter().flat_map(Zset::iter);
        ones.chain(scored.map(|(member, score)| (Member::of(member), score.get())))
    }
}

/// One operand.
#[derive(Clone, Copy)]
struct Source<'s> {
    members: Members<'s>,
    weight: f64,
}

type Sources<'s> = SmallVec<[Source<'s>; 4]>;

/// What the keys hold, with weights of 1.
fn sources<'s>(store: &'s mut Store, keys: &[&[u8]]) -> Result<Sources<'s>, Fault> {
    let mut slots: SmallVec<[Option<Slot>; 8]> = SmallVec::new();
    for key in keys {
        match store.value(key)? {
            None => slots.push(None),
            Some(Value::Set(_) | Value::Zset(_)) => slots.push(store.locate(key).1),
            Some(_) => return Err(Fault::WrongType),
        }
    }
    let store = &*store;
    let source = |slot: Option<Slot>| {
        let members = match slot.map(|slot| &store.entry(slot).value) {
            Some(Value::Set(set)) => Members::Set(set),
            Some(Value::Zset(zset)) => Members::Zset(zset),
            _ => Members::Absent,
        };
        Source { members, weight: 1.0 }
    };
    Ok(slots.into_iter().map(source).collect())
}

// --- combining ---------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of a member's several scores.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse(argument: &[u8]) -> Result<Aggregate, Fault> {
        let table: [(&[u8], Aggregate); 3] =
            [(b"sum", Aggregate::Sum), (b"min", Aggregate::Min), (b"max", Aggregate::Max)];
        let row = table.into_iter().find(|row| argument.eq_ignore_ascii_case(row.0));
        row.map(|row| row.1).ok_or(Fault::Syntax)
    }

    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

/// Infinity times zero, and infinity minus infinity, are 0 as in Redis.
fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// A result's members, each once, with scores that are numbers.
type Found<'s> = Vec<(Member<'s>, f64)>;

/// The members that all sources have. Looks up those of the first, the smallest, in the others.
fn intersection<'i, 's>(
    sources: &'i [Source<'s>],
    aggregate: Aggregate,
) -> impl Iterator<Item = (Member<'s>, f64)> + use<'i, 's> {
    let (smallest, others) = sources.split_first().expect("the number of keys is not 0");
    let Source { members, weight } = *smallest;
    members.iter().filter_map(move |(member, score)| {
        let score = others.iter().try_fold(number_or_zero(weight * score), |score, other| {
            Some(aggregate.of(score, other.weight * other.members.score(&member)?))
        })?;
        Some((member, score))
    })
}

/// The members of the first source that no other has.
fn difference<'s>(sources: &[Source<'s>]) -> Found<'s> {
    let (first, others) = sources.split_first().expect("the number of keys is not 0");
    let absent = |member: &Member<'_>| others.iter().all(|other| other.members.score(member).is_none());
    first.members.iter().filter(|(member, _)| absent(member)).collect()
}

/// The members that any source has.
fn union<'s>(sources: &[Source<'s>], aggregate: Aggregate, hasher: &KeyHasher) -> Found<'s> {
    let largest = sources.last().map_or(0, |source| source.members.len());
    let mut found: Found<'s> = Vec::with_capacity(largest);
    let mut places: HashTable<usize> = HashTable::with_capacity(largest);
    for source in sources {
        for (member, score) in source.members.iter() {
            let score = number_or_zero(source.weight * score);
            let hash = hasher.hash(&member);
            let place = places.entry(hash, |&at| *found[at].0 == *member, |&at| hasher.hash(&found[at].0));
            match place {
                Entry::Occupied(place) => {
                    let sum = &mut found[*place.get()].1;
                    *sum = aggregate.of(*sum, score);
                }
                Entry::Vacant(place) => {
                    place.insert(found.len());
                    found.push((member, score));
                }
            }
        }
    }
    found
}

// --- the commands ------------------------------------------------------------------------------

/// A command of this family.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    operation: Operation,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    Stored,
    Counted,
}

/// What follows the keys.
struct Options {
    aggregate: Aggregate,
    show: Show,
    limit: usize,
}

impl Options {
    /// Reads the options and gives the sources their weights.
    fn parse(form: Form, mut rest: &[&[u8]], sources: &mut [Source<'_>]) -> Result<Options, Fault> {
        let mut options = Options { aggregate: Aggregate::Sum, show: Show::Members, limit: usize::MAX };
        let weighs = form.operation != Operation::Difference && form.outcome != Outcome::Counted;
        while let [option, tail @ ..] = rest {
            rest = tail;
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            if weighs && is(b"weights") && tail.len() >= sources.len() {
                for (source, weight) in sources.iter_mut().zip(tail) {
                    let weight = parse_float(weight);
                    source.weight = weight.ok_or(Fault::Text("ERR weight value is not a float"))?;
                }
                rest = &tail[sources.len()..];
            } else if let ([aggregate, tail @ ..], true) = (tail, weighs && is(b"aggregate")) {
                options.aggregate = Aggregate::parse(aggregate)?;
                rest = tail;
            } else if is(b"withscores") && form.outcome == Outcome::Answered {
                options.show = Show::Scores;
            } else if let ([limit, tail @ ..], Outcome::Counted, true) = (tail, form.outcome, is(b"limit")) {
                let limit = at_least(0, limit, "ERR LIMIT can't be negative")?;
                options.limit = if limit == 0 { usize::MAX } else { limit };
                rest = tail;
            } else {
                return Err(Fault::Syntax);
            }
        }
        Ok(options)
    }
}

/// Reads `numkeys key … [options]`: what is to be combined, in the order to do it, and how.
fn operands<'s>(store: &'s mut Store, form: Form, args: &[&[u8]]) -> Result<(Sources<'s>, Options), Fault> {
    let count = integer(args[0])?;
    if count < 1 {
        let name = form.name;
        return Err(Fault::Said(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    let count = usize::try_from(count).map_err(|_| Fault::Syntax)?;
    let (keys, rest) = args[1..].split_at_checked(count).ok_or(Fault::Syntax)?;
    let mut sources = sources(store, keys)?;
    let options = Options::parse(form, rest, &mut sources)?;
    if form.operation != Operation::Difference {
        // Scores are added in this order, as in Redis, and floating-point sums depend on it.
        sources.sort_by_key(|source| source.members.len());
    }
    Ok((sources, options))
}

fn find<'s>(
    operation: Operation,
    sources: &[Source<'s>],
    aggregate: Aggregate,
    hasher: &KeyHasher,
) -> Found<'s> {
    match operation {
        Operation::Union => union(sources, aggregate, hasher),
        Operation::Intersection => intersection(sources, aggregate).collect(),
        Operation::Difference => difference(sources),
    }
}

fn answer(exec: &mut Exec<'_>, args: &[&[u8]], form: Form) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let (sources, options) = operands(exec.store, form, args)?;
    let mut found = find(form.operation, &sources, options.aggregate, &hasher);
    found.sort_unstable_by(|(a, score_a), (b, score_b)| {
        let order = score_a.partial_cmp(score_b).expect("scores are numbers");
        order.then_with(|| a.cmp(b))
    });
    let members = found.iter().map(|(member, score)| (&**member, *score));
    reply_members(exec.reply, options.show, members);
    Ok(())
}

fn store(exec: &mut Exec<'_>, args: &[&[u8]], form: Form) -> Result<(), Fault> {
    let hasher = exec.store.hasher();
    let (sources, options) = operands(exec.store, form, &args[1..])?;
    let mut result = Zset::new();
    for (member, score) in find(form.operation, &sources, options.aggregate, &hasher) {
        result.insert(&member, Score::new(score).expect("scores are numbers"), &hasher);
    }
    drop(sources);
    put(exec, args[0], result)
}

/// Makes `result` the value of `key`, whatever it was, and answers its size.
pub(super) fn put(exec: &mut Exec<'_>, key: &[u8], result: Zset) -> Result<(), Fault> {
    let len = result.len();
    if len == 0 {
        exec.store.remove(key);
    } else {
        exec.store.set(key, Value::Zset(Box::new(result)), Ttl::Clear)?;
    }
    exec.reply.int(len as i64);
    Ok(())
}

fn zunion(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Union, Outcome::Answered);
    answer(exec, args, Form { name: "zunion", operation, outcome })
}

fn zinter(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Intersection, Outcome::Answered);
    answer(exec, args, Form { name: "zinter", operation, outcome })
}

fn zdiff(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Difference, Outcome::Answered);
    answer(exec, args, Form { name: "zdiff", operation, outcome })
}

fn zunionstore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Union, Outcome::Stored);
    store(exec, args, Form { name: "zunionstore", operation, outcome })
}

fn zinterstore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Intersection, Outcome::Stored);
    store(exec, args, Form { name: "zinterstore", operation, outcome })
}

fn zdiffstore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Difference, Outcome::Stored);
    store(exec, args, Form { name: "zdiffstore", operation, outcome })
}

fn zintercard(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (operation, outcome) = (Operation::Intersection, Outcome::Counted);
    let form = Form { name: "zintercard", operation, outcome };
    let (sources, options) = operands(exec.store, form, args)?;
    let size = intersection(&sources, options.aggregate).take(options.limit).count();
    exec.reply.int(size as i64);
    Ok(())
}
