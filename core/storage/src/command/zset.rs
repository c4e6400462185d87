//! Sorted sets: scores, ranks, pops and random choices. Ranges are in `zset_range`, the algebra of
//! several sets in `zset_store`, and pops that wait in `zset_blocking`.

use kernel::hash::KeyHasher;
use smallvec::SmallVec;

use crate::command::argument::{ScanOptions, at_least, count, counted_keys, signed_count};
use crate::command::generic::cursor;
use crate::command::list::OtherType;
use crate::command::{Command, Flags, Keys, ONE, sample};
use crate::object::Zset;
use crate::object::number::{Text, parse_float};
use crate::object::zset::{Change, Score};
use crate::{Exec, Fault, Reply, Store};

const GROWS: Flags = Flags::DENY_OOM;
const FAST: Flags = Flags::FAST;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x600, "zadd", -4, ONE, zadd).with(GROWS.and(FAST)),
    Command::write(0x601, "zincrby", 4, ONE, zincrby).with(GROWS.and(FAST)),
    Command::write(0x602, "zrem", -3, ONE, zrem).with(FAST),
    Command::read(0x603, "zcard", 2, ONE, zcard).with(FAST),
    Command::read(0x604, "zscore", 3, ONE, zscore).with(FAST),
    Command::read(0x605, "zmscore", -3, ONE, zmscore).with(FAST),
    Command::read(0x606, "zrank", 3, ONE, zrank).with(FAST),
    Command::read(0x607, "zrevrank", 3, ONE, zrevrank).with(FAST),
    Command::write(0x608, "zpopmin", -2, ONE, zpopmin).with(FAST),
    Command::write(0x609, "zpopmax", -2, ONE, zpopmax).with(FAST),
    Command::write(0x60A, "zmpop", -4, Keys::Counted(1), zmpop),
    Command::read(0x60B, "zrandmember", -2, ONE, zrandmember),
    Command::read(0x60C, "zscan", -3, ONE, zscan),
];

// --- adding ------------------------------------------------------------------------------------

/// What `ZADD` was asked to do with members and scores.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked(u8);

/// Scores, each with its member.
type Pairs<'s, 'a> = &'s [[&'a [u8]; 2]];

impl Asked {
    const NOTHING: Asked = Asked(0);
    const NX: Asked = Asked(1);
    const XX: Asked = Asked(2);
    const GT: Asked = Asked(4);
    const LT: Asked = Asked(8);
    const CH: Asked = Asked(16);
    const INCR: Asked = Asked(32);

    const fn has(self, other: Asked) -> bool {
        self.0 & other.0 != 0
    }

    /// True if every pair is simply set.
    const fn is_plain(self) -> bool {
        self.0 & !Asked::CH.0 == 0
    }

    #[inline]
    fn option(word: &[u8]) -> Option<Asked> {
        Some(match word {
            [b'n' | b'N', b'x' | b'X'] => Asked::NX,
            [b'x' | b'X', b'x' | b'X'] => Asked::XX,
            [b'g' | b'G', b't' | b'T'] => Asked::GT,
            [b'l' | b'L', b't' | b'T'] => Asked::LT,
            [b'c' | b'C', b'h' | b'H'] => Asked::CH,
            word if word.eq_ignore_ascii_case(b"incr") => Asked::INCR,
            _ => return None,
        })
    }

    /// Reads options, then pairs of score and member; `self` is what the command's name says.
    fn parse<'s, 'a>(self, mut args: &'s [&'a [u8]]) -> Result<(Asked, Pairs<'s, 'a>), Fault> {
        let mut asked = self;
        while let [word, rest @ ..] = args
            && let Some(option) = Asked::option(word)
        {
            asked.0 |= option.0;
            args = rest;
        }
        let (pairs, []) = args.as_chunks::<2>() else { return Err(Fault::Syntax) };
        let both = |a, b| asked.has(a) && asked.has(b);
        if pairs.is_empty() {
            Err(Fault::Syntax)
        } else if both(Asked::NX, Asked::XX) {
            Err(Fault::Text("ERR XX and NX options at the same time are not compatible"))
        } else if both(Asked::NX, Asked::GT) || both(Asked::NX, Asked::LT) || both(Asked::GT, Asked::LT) {
            Err(Fault::Text("ERR GT, LT, and/or NX options at the same time are not compatible"))
        } else if asked.has(Asked::INCR) && pairs.len() > 1 {
            Err(Fault::Text("ERR INCR option supports a single increment-element pair"))
        } else {
            Ok((asked, pairs))
        }
    }

    /// Whether a member with score `old` may get `new`.
    fn allows(self, old: Option<Score>, new: Score) -> bool {
        let forbidden = match old {
            None => self.has(Asked::XX),
            Some(old) => {
                self.has(Asked::NX)
                    || (self.has(Asked::GT) && new <= old)
                    || (self.has(Asked::LT) && new >= old)
            }
        };
        !forbidden
    }

    #[inline]
    fn insert(self, zset: &mut Zset, member: &[u8], score: Score, hasher: &KeyHasher) -> Change {
        if self.is_plain() || self.allows(zset.score(member), score) {
            zset.insert(member, score, hasher)
        } else {
            Change::Unchanged
        }
    }
}

fn zadd(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    add(exec, args, Asked::NOTHING)
}

fn zincrby(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    add(exec, args, Asked::INCR)
}

#[inline]
fn add(exec: &mut Exec<'_>, args: &[&[u8]], asked: Asked) -> Result<(), Fault> {
    let key = args[0];
    let (asked, pairs) = asked.parse(&args[1..])?;
    if asked.has(Asked::INCR) {
        return increment(exec, key, pairs[0], asked);
    }
    let mut scores: SmallVec<[Score; 8]> = SmallVec::with_capacity(pairs.len());
    for [score, _] in pairs {
        scores.push(parse_float(score).and_then(Score::new).ok_or(Fault::NotFloat)?);
    }
    let hasher = exec.store.hasher();
    let guard = if asked.has(Asked::XX) {
        exec.store.edit::<Zset>(key)?
    } else {
        Some(exec.store.edit_or_new(key, Zset::new)?)
    };
    let (mut added, mut updated) = (0, 0);
    if let Some(mut guard) = guard {
        let zset = &mut *guard;
        for ([_, member], &score) in pairs.iter().zip(&scores) {
            match asked.insert(zset, member, score, &hasher) {
                Change::Added => added += 1,
                Change::Updated => updated += 1,
                Change::Unchanged => {}
            }
        }
        if added + updated == 0 {
            guard.unchanged();
        }
    }
    exec.reply.int(if asked.has(Asked::CH) { added + updated } else { added });
    Ok(())
}

/// `ZINCRBY`, and `ZADD` with `INCR`: the new score, or null if an option forbids it.
fn increment(exec: &mut Exec<'_>, key: &[u8], pair: [&[u8]; 2], asked: Asked) -> Result<(), Fault> {
    let [delta, member] = pair;
    let delta = parse_float(delta).ok_or(Fault::NotFloat)?;
    let Exec { store, reply, .. } = exec;
    let hasher = store.hasher();
    let guard = if asked.has(Asked::XX) {
        store.edit::<Zset>(key)?
    } else {
        Some(store.edit_or_new(key, Zset::new)?)
    };
    let Some(mut zset) = guard else {
        reply.null();
        return Ok(());
    };
    let old = zset.score(member);
    let sum = old.map_or(delta, |old| if asked.has(Asked::NX) { delta } else { old.get() + delta });
    let score = Score::new(sum).ok_or(Fault::Text("ERR resulting score is not a number (NaN)"))?;
    if !asked.allows(old, score) {
        reply.null();
        return Ok(());
    }
    if old != Some(score) {
        zset.insert(member, score, &hasher);
    }
    // Not the stored score: Redis answers the sum, where a zero can have a sign.
    reply.double(sum);
    Ok(())
}

// --- members -----------------------------------------------------------------------------------

fn zrem(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let removed = exec.store.edit::<Zset>(args[0])?.map_or(0, |mut guard| {
        let zset = &mut *guard;
        let removed = args[1..].iter().filter(|member| zset.remove(member).is_some()).count();
        if removed == 0 {
            guard.unchanged();
        }
        removed
    });
    exec.reply.int(removed as i64);
    Ok(())
}

fn zcard(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let len = exec.store.get::<Zset>(args[0])?.map_or(0, Zset::len);
    exec.reply.int(len as i64);
    Ok(())
}

fn reply_score(reply: &mut dyn Reply, score: Option<Score>) {
    match score {
        Some(score) => reply.double(score.get()),
        None => reply.null(),
    }
}

fn zscore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let score = exec.store.get::<Zset>(args[0])?.and_then(|zset| zset.score(args[1]));
    reply_score(exec.reply, score);
    Ok(())
}

fn zmscore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let zset = store.get::<Zset>(args[0])?;
    reply.array(args.len() - 1);
    for member in &args[1..] {
        reply_score(*reply, zset.and_then(|zset| zset.score(member)));
    }
    Ok(())
}

fn reply_rank(reply: &mut dyn Reply, rank: Option<usize>) {
    match rank {
        Some(rank) => reply.int(rank as i64),
        None => reply.null(),
    }
}

fn zrank(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let rank = exec.store.get::<Zset>(args[0])?.and_then(|zset| zset.rank(args[1]));
    reply_rank(exec.reply, rank);
    Ok(())
}

fn zrevrank(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let rank = exec.store.get::<Zset>(args[0])?.and_then(|zset| zset.rev_rank(args[1]));
    reply_rank(exec.reply, rank);
    Ok(())
}

/// Whether members are answered with their scores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// Members alone.
    Members,
    /// Members and scores: in RESP3 as pairs, in RESP2 alternately.
    Scores,
}

/// Answers an array of members.
pub(super) fn reply_members<'z>(
    reply: &mut dyn Reply,
    show: Show,
    members: impl ExactSizeIterator<Item = (&'z [u8], f64)>,
) {
    let nested = show == Show::Scores && reply.resp3();
    reply.array(if show == Show::Scores && !nested { 2 * members.len() } else { members.len() });
    for (member, score) in members {
        if nested {
            reply.array(2);
        }
        reply.bulk(member);
        if show == Show::Scores {
            reply.double(score);
        }
    }
}

/// A member and its score as a number, for [`reply_members`].
#[inline]
pub(super) fn plain((member, score): (&[u8], Score)) -> (&[u8], f64) {
    (member, score.get())
}

// --- popping -----------------------------------------------------------------------------------

/// One of a sorted set's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `MIN`: the lowest scores.
    Min,
    /// `MAX`: the highest scores.
    Max,
}

impl End {
    fn parse(argument: &[u8]) -> Result<End, Fault> {
        if argument.eq_ignore_ascii_case(b"min") {
            Ok(End::Min)
        } else if argument.eq_ignore_ascii_case(b"max") {
            Ok(End::Max)
        } else {
            Err(Fault::Syntax)
        }
    }

    /// Takes out `count` members, which there are, and gives them to `give`, from the end inwards.
    pub(super) fn take(self, zset: &mut Zset, count: usize, mut give: impl FnMut(&[u8], Score)) {
        let len = zset.len();
        match self {
            End::Min => {
                zset.range(0..count).for_each(|(member, score)| give(member, score));
                zset.remove_ranks(0..count);
            }
            End::Max => {
                zset.range(len - count..len).rev().for_each(|(member, score)| give(member, score));
                zset.remove_ranks(len - count..len);
            }
        }
    }
}

fn zpopmin(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    pop(exec, args, End::Min)
}

fn zpopmax(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    pop(exec, args, End::Max)
}

fn pop(exec: &mut Exec<'_>, args: &[&[u8]], end: End) -> Result<(), Fault> {
    let (key, most) = match args {
        [key] => (key, None),
        [key, most] => (key, Some(count(most)?)),
        _ => return Err(Fault::Syntax),
    };
    let Exec { store, reply, .. } = exec;
    let guard = store.edit::<Zset>(key)?;
    let count = guard.as_ref().map_or(0, |zset| most.unwrap_or(1).min(zset.len()));
    let nested = most.is_some() && reply.resp3();
    reply.array(if nested { count } else { 2 * count });
    if let Some(mut zset) = guard.filter(|_| count > 0) {
        end.take(&mut zset, count, |member, score| {
            if nested {
                reply.array(2);
            }
            reply.bulk(member);
            reply.double(score.get());
        });
    }
    Ok(())
}

/// `numkeys key … MIN|MAX [COUNT n]` of `ZMPOP` and `BZMPOP`.
pub(super) struct PopMany<'s, 'a> {
    pub keys: &'s [&'a [u8]],
    end: End,
    most: usize,
}

impl<'s, 'a> PopMany<'s, 'a> {
    /// Reads `numkeys` and what follows.
    pub(super) fn parse(args: &'s [&'a [u8]]) -> Result<PopMany<'s, 'a>, Fault> {
        let (keys, rest) = counted_keys(args)?;
        let end = End::parse(rest.first().ok_or(Fault::Syntax)?)?;
        let (most, rest) = match &rest[1..] {
            [option, most, rest @ ..] if option.eq_ignore_ascii_case(b"count") => {
                (at_least(1, most, "ERR count should be greater than 0")?, rest)
            }
            rest => (1, rest),
        };
        if rest.is_empty() { Ok(PopMany { keys, end, most }) } else { Err(Fault::Syntax) }
    }

    /// Pops from the first sorted set there is and answers; false, and no answer, if there is none.
    pub(super) fn run(&self, exec: &mut Exec<'_>, other: OtherType) -> Result<bool, Fault> {
        let Some(key) = first_zset(exec.store, self.keys, other)? else { return Ok(false) };
        let Exec { store, reply, .. } = exec;
        if let Some(mut zset) = store.edit::<Zset>(key)? {
            let count = self.most.min(zset.len());
            reply.array(2);
            reply.bulk(key);
            reply.array(count);
            self.end.take(&mut zset, count, |member, score| {
                reply.array(2);
                reply.bulk(member);
                reply.double(score.get());
            });
        }
        Ok(true)
    }
}

/// The first of `keys` that holds a sorted set.
pub(super) fn first_zset<'a>(
    store: &mut Store,
    keys: &[&'a [u8]],
    other: OtherType,
) -> Result<Option<&'a [u8]>, Fault> {
    for key in keys {
        match store.get::<Zset>(key) {
            Ok(Some(_)) => return Ok(Some(key)),
            Ok(None) => {}
            Err(Fault::WrongType) if other == OtherType::PassOver => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}

fn zmpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    if !PopMany::parse(args)?.run(exec, OtherType::Refuse)? {
        exec.reply.null_array();
    }
    Ok(())
}

// --- choosing and scanning ---------------------------------------------------------------------

fn zrandmember(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let [key, count, rest @ ..] = args else {
        let Exec { store, reply, rng, .. } = exec;
        match store.get::<Zset>(args[0])? {
            Some(zset) => {
                let member = zset.get_rank(sample::one(rng, zset.len()));
                reply.bulk(member.expect("the rank is below the length").0);
            }
            None => reply.null(),
        }
        return Ok(());
    };
    let count = signed_count(count)?;
    let show = match rest {
        [] => Show::Members,
        [option] if option.eq_ignore_ascii_case(b"withscores") => Show::Scores,
        _ => return Err(Fault::Syntax),
    };
    if show == Show::Scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Fault::OutOfRange);
    }
    let Exec { store, reply, rng, .. } = exec;
    let Some(zset) = store.get::<Zset>(key)? else {
        reply.array(0);
        return Ok(());
    };
    let chosen = sample::choose(rng, zset.len(), count)?;
    let member = |rank| plain(zset.get_rank(rank).expect("the rank is below the length"));
    reply_members(*reply, show, chosen.into_iter().map(member));
    Ok(())
}

fn zscan(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let from = cursor(args[1])?;
    let Exec { store, reply, .. } = exec;
    let Some(zset) = store.get::<Zset>(args[0])? else {
        reply.array(2);
        reply.bulk(b"0");
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[2..])?;
    // Once to count, once to answer: nothing is copied.
    let mut found = 0;
    let next = zset.scan(from, options.count, |member, _| found += usize::from(options.wants(member)));
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    reply.array(2 * found);
    zset.scan(from, options.count, |member, score| {
        if options.wants(member) {
            reply.bulk(member);
            // A byte string in RESP3 too, as in Redis.
            reply.bulk(Text::new().double(score.get()));
        }
    });
    Ok(())
}
