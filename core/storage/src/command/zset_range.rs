//! Sorted sets by rank, by score and by member: listing, counting, storing and removing ranges.

use core::ops::Range;

use crate::command::argument::{integer, places};
use crate::command::zset::{Show, plain, reply_members};
use crate::command::zset_store::put;
use crate::command::{Command, Flags, ONE, TWO};
use crate::object::Zset;
use crate::object::number::parse_float;
use crate::object::zset::{LexBound, Score, ScoreBound};
use crate::{Exec, Fault};

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::read(0x620, "zrange", -4, ONE, zrange),
    Command::write(0x621, "zrangestore", -5, TWO, zrangestore).with(Flags::DENY_OOM),
    Command::read(0x622, "zrevrange", -4, ONE, zrevrange),
    Command::read(0x623, "zrangebyscore", -4, ONE, zrangebyscore),
    Command::read(0x624, "zrevrangebyscore", -4, ONE, zrevrangebyscore),
    Command::read(0x625, "zrangebylex", -4, ONE, zrangebylex),
    Command::read(0x626, "zrevrangebylex", -4, ONE, zrevrangebylex),
    Command::read(0x627, "zcount", 4, ONE, zcount).with(Flags::FAST),
    Command::read(0x628, "zlexcount", 4, ONE, zlexcount).with(Flags::FAST),
    Command::write(0x629, "zremrangebyrank", 4, ONE, zremrangebyrank),
    Command::write(0x62A, "zremrangebyscore", 4, ONE, zremrangebyscore),
    Command::write(0x62B, "zremrangebylex", 4, ONE, zremrangebylex),
];

// --- bounds ------------------------------------------------------------------------------------

/// What orders the range's two ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// Where a range begins and ends; both are part of it unless they say otherwise.
#[derive(Clone, Copy)]
enum Bounds<'a> {
    /// Negative ranks count from the end.
    Ranks(i64, i64),
    Scores(ScoreBound, ScoreBound),
    Members(LexBound<'a>, LexBound<'a>),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, Fault> {
        Ok(match by {
            By::Rank => Bounds::Ranks(integer(min)?, integer(max)?),
            By::Score => {
                let bound = |text| score_bound(text).ok_or(Fault::Text("ERR min or max is not a float"));
                Bounds::Scores(bound(min)?, bound(max)?)
            }
            By::Lex => {
                let fault = Fault::Text("ERR min or max not valid string range item");
                lex_bound(min).zip(lex_bound(max)).map(|(min, max)| Bounds::Members(min, max)).ok_or(fault)?
            }
        })
    }

    /// The ranks of the members within, counted from the lowest.
    fn ranks(self, zset: &Zset, order: Order) -> Range<usize> {
        match (self, order) {
            (Bounds::Ranks(start, stop), Order::Ascending) => places(start, stop, zset.len()),
            (Bounds::Ranks(start, stop), Order::Descending) => {
                let from_end = places(start, stop, zset.len());
                zset.len() - from_end.end..zset.len() - from_end.start
            }
            (Bounds::Scores(min, max), _) => zset.ranks_by_score(min, max),
            (Bounds::Members(min, max), _) => zset.ranks_by_lex(min, max),
        }
    }
}

/// `5`, `(5`, `-inf`: a score as C's `strtod` reads it.
fn score_bound(text: &[u8]) -> Option<ScoreBound> {
    Some(match text {
        [b'(', number @ ..] => ScoreBound::Excluded(Score::new(lenient_float(number)?)?),
        number => ScoreBound::Included(Score::new(lenient_float(number)?)?),
    })
}

/// As [`parse_float`], but Redis is not as strict with bounds: nothing is 0, white space may come
/// first, and what is too large or too small for a double becomes infinite or zero.
fn lenient_float(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let number = &text[text.iter().take_while(|byte| blank(byte)).count()..];
    parse_float(number).or_else(|| {
        let digits = number.strip_prefix(b"-").or_else(|| number.strip_prefix(b"+")).unwrap_or(number);
        // Not the words that only Rust reads as numbers, nor a second sign.
        let begins = digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.');
        begins.then(|| core::str::from_utf8(number).ok()?.parse().ok()).flatten()
    })
}

fn lex_bound(text: &[u8]) -> Option<LexBound<'_>> {
    match text {
        b"-" => Some(LexBound::Min),
        b"+" => Some(LexBound::Max),
        [b'[', member @ ..] => Some(LexBound::Included(member)),
        [b'(', member @ ..] => Some(LexBound::Excluded(member)),
        _ => None,
    }
}

// --- listing -----------------------------------------------------------------------------------

/// The direction in which members are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// What becomes of the members.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    Stored,
}

/// What a command's name says; what it leaves open, options may say.
struct Form {
    by: Option<By>,
    order: Option<Order>,
    outcome: Outcome,
}

/// A range that was asked for.
struct Query<'a> {
    bounds: Bounds<'a>,
    order: Order,
    show: Show,
    offset: i64,
    /// Negative for all.
    limit: i64,
}

impl<'a> Query<'a> {
    /// Reads `min max [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`.
    fn parse(args: &[&'a [u8]], mut form: Form) -> Result<Query<'a>, Fault> {
        let (from, to, mut rest) = (args[0], args[1], &args[2..]);
        let (mut show, mut offset, mut limit) = (Show::Members, 0, -1);
        while let [option, tail @ ..] = rest {
            rest = tail;
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            if is(b"withscores") && form.outcome == Outcome::Answered {
                show = Show::Scores;
            } else if let ([start, count, tail @ ..], true) = (tail, is(b"limit")) {
                rest = tail;
                (offset, limit) = (integer(start)?, integer(count)?);
            } else if is(b"rev") && form.order.is_none() {
                form.order = Some(Order::Descending);
            } else if is(b"bylex") && form.by.is_none() {
                form.by = Some(By::Lex);
            } else if is(b"byscore") && form.by.is_none() {
                form.by = Some(By::Score);
            } else {
                return Err(Fault::Syntax);
            }
        }
        let (by, order) = (form.by.unwrap_or(By::Rank), form.order.unwrap_or(Order::Ascending));
        if limit != -1 && by == By::Rank {
            return Err(Fault::Text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if show == Show::Scores && by == By::Lex {
            return Err(Fault::Text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        // From high to low the higher bound comes first; ranks are then counted from the end.
        let swapped = order == Order::Descending && by != By::Rank;
        let (min, max) = if swapped { (to, from) } else { (from, to) };
        Ok(Query { bounds: Bounds::parse(by, min, max)?, order, show, offset, limit })
    }

    /// The ranks of the members asked for, counted from the lowest.
    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let Range { start, end } = self.bounds.ranks(zset, self.order);
        if matches!(self.bounds, Bounds::Ranks(..)) {
            return start..end;
        }
        let Ok(offset) = usize::try_from(self.offset) else { return 0..0 };
        let skip = offset.min(end - start);
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let count = most.min(end - start - skip);
        match self.order {
            Order::Ascending => start + skip..start + skip + count,
            Order::Descending => end - skip - count..end - skip,
        }
    }

    fn answer(&self, exec: &mut Exec<'_>, key: &[u8]) -> Result<(), Fault> {
        let Exec { store, reply, .. } = exec;
        let Some(zset) = store.get::<Zset>(key)? else {
            reply.array(0);
            return Ok(());
        };
        let members = zset.range(self.ranks(zset));
        match self.order {
            Order::Ascending => reply_members(*reply, self.show, members.map(plain)),
            Order::Descending => reply_members(*reply, self.show, members.rev().map(plain)),
        }
        Ok(())
    }
}

fn list(exec: &mut Exec<'_>, args: &[&[u8]], by: By, order: Order) -> Result<(), Fault> {
    let form = Form { by: Some(by), order: Some(order), outcome: Outcome::Answered };
    Query::parse(&args[1..], form)?.answer(exec, args[0])
}

fn zrange(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let form = Form { by: None, order: None, outcome: Outcome::Answered };
    Query::parse(&args[1..], form)?.answer(exec, args[0])
}

fn zrevrange(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    list(exec, args, By::Rank, Order::Descending)
}

fn zrangebyscore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    list(exec, args, By::Score, Order::Ascending)
}

fn zrevrangebyscore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    list(exec, args, By::Score, Order::Descending)
}

fn zrangebylex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    list(exec, args, By::Lex, Order::Ascending)
}

fn zrevrangebylex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    list(exec, args, By::Lex, Order::Descending)
}

fn zrangestore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let form = Form { by: None, order: None, outcome: Outcome::Stored };
    let query = Query::parse(&args[2..], form)?;
    let hasher = exec.store.hasher();
    let mut result = Zset::new();
    if let Some(zset) = exec.store.get::<Zset>(args[1])? {
        for (member, score) in zset.range(query.ranks(zset)) {
            result.insert(member, score, &hasher);
        }
    }
    put(exec, args[0], result)
}

// --- counting and removing ---------------------------------------------------------------------

fn number_of(exec: &mut Exec<'_>, args: &[&[u8]], by: By) -> Result<(), Fault> {
    let bounds = Bounds::parse(by, args[1], args[2])?;
    let zset = exec.store.get::<Zset>(args[0])?;
    let count = zset.map_or(0, |zset| bounds.ranks(zset, Order::Ascending).len());
    exec.reply.int(count as i64);
    Ok(())
}

fn zcount(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    number_of(exec, args, By::Score)
}

fn zlexcount(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    number_of(exec, args, By::Lex)
}

fn remove(exec: &mut Exec<'_>, args: &[&[u8]], by: By) -> Result<(), Fault> {
    let bounds = Bounds::parse(by, args[1], args[2])?;
    let removed = exec.store.edit::<Zset>(args[0])?.map_or(0, |mut zset| {
        let ranks = bounds.ranks(&zset, Order::Ascending);
        if ranks.is_empty() { 0 } else { zset.remove_ranks(ranks) }
    });
    exec.reply.int(removed as i64);
    Ok(())
}

fn zremrangebyrank(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    remove(exec, args, By::Rank)
}

fn zremrangebyscore(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    remove(exec, args, By::Score)
}

fn zremrangebylex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    remove(exec, args, By::Lex)
}
