//! Lists: pushes, pops, ranges and moves that do not wait. Those that wait are in `list_blocking`.

use smallvec::SmallVec;

use crate::command::argument::{at_least, count, counted_keys, integer, place, places, signed_count};
use crate::command::{Command, Flags, Keys, ONE, TWO};
use crate::object::List;
use crate::object::list::Side;
use crate::{Exec, Fault, Reply, Store};

const GROWS: Flags = Flags::DENY_OOM;
const FAST: Flags = Flags::FAST;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(0x300, "lpush", -3, ONE, lpush).with(GROWS.and(FAST)),
    Command::write(0x301, "rpush", -3, ONE, rpush).with(GROWS.and(FAST)),
    Command::write(0x302, "lpushx", -3, ONE, lpushx).with(GROWS.and(FAST)),
    Command::write(0x303, "rpushx", -3, ONE, rpushx).with(GROWS.and(FAST)),
    Command::write(0x304, "lpop", -2, ONE, lpop).with(FAST),
    Command::write(0x305, "rpop", -2, ONE, rpop).with(FAST),
    Command::read(0x306, "llen", 2, ONE, llen).with(FAST),
    Command::read(0x307, "lindex", 3, ONE, lindex),
    Command::write(0x308, "lset", 4, ONE, lset).with(GROWS),
    Command::write(0x309, "linsert", 5, ONE, linsert).with(GROWS),
    Command::read(0x30A, "lrange", 4, ONE, lrange),
    Command::write(0x30B, "lrem", 4, ONE, lrem),
    Command::write(0x30C, "ltrim", 4, ONE, ltrim),
    Command::read(0x30D, "lpos", -3, ONE, lpos),
    Command::write(0x30E, "lmove", 5, TWO, lmove).with(GROWS),
    Command::write(0x30F, "rpoplpush", 3, TWO, rpoplpush).with(GROWS),
    Command::write(0x310, "lmpop", -4, Keys::Counted(1), lmpop),
];

/// One of a list's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `LEFT`.
    Front,
    /// `RIGHT`.
    Back,
}

impl End {
    pub(super) fn parse(argument: &[u8]) -> Result<End, Fault> {
        if argument.eq_ignore_ascii_case(b"left") {
            Ok(End::Front)
        } else if argument.eq_ignore_ascii_case(b"right") {
            Ok(End::Back)
        } else {
            Err(Fault::Syntax)
        }
    }

    #[inline]
    fn push(self, list: &mut List, element: &[u8]) {
        match self {
            End::Front => list.push_front(element),
            End::Back => list.push_back(element),
        }
    }

    #[inline]
    pub(super) fn pop<R>(self, list: &mut List, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match self {
            End::Front => list.pop_front(read),
            End::Back => list.pop_back(read),
        }
    }

    fn peek(self, list: &List) -> Option<&[u8]> {
        match self {
            End::Front => list.front(),
            End::Back => list.back(),
        }
    }

    /// Takes out up to `most` elements and answers an array of them.
    pub(super) fn pop_many(self, list: &mut List, most: usize, reply: &mut dyn Reply) {
        let count = most.min(list.len());
        reply.array(count);
        for _ in 0..count {
            self.pop(list, |element| reply.bulk(element));
        }
    }
}

/// Whether a push may make the list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

fn lpush(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    push(exec, args, End::Front, Missing::Make)
}

fn rpush(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    push(exec, args, End::Back, Missing::Make)
}

fn lpushx(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    push(exec, args, End::Front, Missing::Refuse)
}

fn rpushx(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    push(exec, args, End::Back, Missing::Refuse)
}

#[inline]
fn push(exec: &mut Exec<'_>, args: &[&[u8]], end: End, missing: Missing) -> Result<(), Fault> {
    let guard = match missing {
        Missing::Make => Some(exec.store.edit_or_new(args[0], List::new)?),
        Missing::Refuse => exec.store.edit::<List>(args[0])?,
    };
    let len = guard.map_or(0, |mut guard| {
        let list = &mut *guard;
        args[1..].iter().for_each(|element| end.push(list, element));
        list.len()
    });
    exec.reply.int(len as i64);
    Ok(())
}

fn lpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [key] => pop_one(exec, key, End::Front),
        [key, count] => pop_counted(exec, key, count, End::Front),
        _ => Err(Fault::Arity("lpop")),
    }
}

fn rpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    match args {
        [key] => pop_one(exec, key, End::Back),
        [key, count] => pop_counted(exec, key, count, End::Back),
        _ => Err(Fault::Arity("rpop")),
    }
}

#[inline]
fn pop_one(exec: &mut Exec<'_>, key: &[u8], end: End) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    match store.edit::<List>(key)? {
        Some(mut list) => end.pop(&mut list, |element| reply.bulk(element)).unwrap_or_default(),
        None => reply.null(),
    }
    Ok(())
}

fn pop_counted(exec: &mut Exec<'_>, key: &[u8], most: &[u8], end: End) -> Result<(), Fault> {
    let most = count(most)?;
    let Exec { store, reply, .. } = exec;
    match store.edit::<List>(key)? {
        None => reply.null_array(),
        Some(_) if most == 0 => reply.array(0),
        Some(mut list) => end.pop_many(&mut list, most, &mut **reply),
    }
    Ok(())
}

fn llen(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let len = exec.store.get::<List>(args[0])?.map_or(0, List::len);
    exec.reply.int(len as i64);
    Ok(())
}

fn lindex(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let Exec { store, reply, .. } = exec;
    let Some(list) = store.get::<List>(args[0])? else {
        reply.null();
        return Ok(());
    };
    match place(integer(args[1])?, list.len()).and_then(|index| list.get(index)) {
        Some(element) => reply.bulk(element),
        None => reply.null(),
    }
    Ok(())
}

fn lset(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let mut list = exec.store.edit::<List>(args[0])?.ok_or(Fault::NoSuchKey)?;
    let index = place(integer(args[1])?, list.len()).ok_or(Fault::IndexOutOfRange)?;
    list.set(index, args[2]);
    drop(list);
    exec.reply.ok();
    Ok(())
}

fn linsert(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let side = if args[1].eq_ignore_ascii_case(b"before") {
        Side::Before
    } else if args[1].eq_ignore_ascii_case(b"after") {
        Side::After
    } else {
        return Err(Fault::Syntax);
    };
    let answer = match exec.store.edit::<List>(args[0])? {
        None => 0,
        Some(mut list) => {
            if list.insert(side, args[2], args[3]) {
                list.len() as i64
            } else {
                list.unchanged();
                -1
            }
        }
    };
    exec.reply.int(answer);
    Ok(())
}

fn lrange(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (start, stop) = (integer(args[1])?, integer(args[2])?);
    let Exec { store, reply, .. } = exec;
    let Some(list) = store.get::<List>(args[0])? else {
        reply.array(0);
        return Ok(());
    };
    let range = places(start, stop, list.len());
    reply.array(range.len());
    list.range(range).for_each(|element| reply.bulk(element));
    Ok(())
}

fn lrem(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let count = integer(args[1])?;
    let removed = exec.store.edit::<List>(args[0])?.map_or(0, |mut list| {
        let removed = list.remove(count, args[2]);
        if removed == 0 {
            list.unchanged();
        }
        removed
    });
    exec.reply.int(removed as i64);
    Ok(())
}

fn ltrim(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let (start, stop) = (integer(args[1])?, integer(args[2])?);
    if let Some(mut list) = exec.store.edit::<List>(args[0])? {
        let keep = places(start, stop, list.len());
        if keep.len() < list.len() {
            list.trim(keep);
        }
    }
    exec.reply.ok();
    Ok(())
}

/// What `LPOS` was asked besides the element.
struct Search {
    /// The match to begin with, counted from 1; negative from the back.
    rank: i64,
    /// `COUNT`: how many matches, 0 for all; without it one, not in an array.
    count: Option<usize>,
    /// Elements to compare at most, 0 for all.
    max_len: usize,
}

impl Search {
    fn parse(mut rest: &[&[u8]]) -> Result<Search, Fault> {
        let mut search = Search { rank: 1, count: None, max_len: 0 };
        while let [option, value, tail @ ..] = rest {
            rest = tail;
            if option.eq_ignore_ascii_case(b"rank") {
                search.rank = signed_count(value)?;
                if search.rank == 0 {
                    return Err(Fault::Text(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second \
                         ... or use negative to start from the end of the list",
                    ));
                }
            } else if option.eq_ignore_ascii_case(b"count") {
                search.count = Some(at_least(0, value, "ERR COUNT can't be negative")?);
            } else if option.eq_ignore_ascii_case(b"maxlen") {
                search.max_len = at_least(0, value, "ERR MAXLEN can't be negative")?;
            } else {
                return Err(Fault::Syntax);
            }
        }
        if rest.is_empty() { Ok(search) } else { Err(Fault::Syntax) }
    }

    /// The indices found, as many as are wanted.
    fn run(&self, list: &List, element: &[u8]) -> SmallVec<[usize; 8]> {
        let len = list.len();
        let compared = if self.max_len == 0 { len } else { self.max_len.min(len) };
        let skip = usize::try_from(self.rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
        let most = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        if self.rank > 0 {
            list.positions(0..compared, element).skip(skip).take(most).collect()
        } else {
            list.positions(len - compared..len, element).rev().skip(skip).take(most).collect()
        }
    }
}

fn lpos(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let search = Search::parse(&args[2..])?;
    let list = exec.store.get::<List>(args[0])?;
    let found = list.map(|list| search.run(list, args[1])).unwrap_or_default();
    match (search.count, found.first()) {
        (Some(_), _) => {
            exec.reply.array(found.len());
            found.iter().for_each(|&index| exec.reply.int(index as i64));
        }
        (None, Some(&index)) => exec.reply.int(index as i64),
        (None, None) => exec.reply.null(),
    }
    Ok(())
}

fn lmove(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let course = Course { from: End::parse(args[2])?, to: End::parse(args[3])? };
    if !move_element(exec, args[0], args[1], course)? {
        exec.reply.null();
    }
    Ok(())
}

fn rpoplpush(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    if !move_element(exec, args[0], args[1], Course { from: End::Back, to: End::Front })? {
        exec.reply.null();
    }
    Ok(())
}

/// From which end of the source to which end of the target an element moves.
#[derive(Clone, Copy)]
pub(super) struct Course {
    pub from: End,
    pub to: End,
}

/// Moves one element and answers it; false, and no answer, if there is no source.
pub(super) fn move_element(
    exec: &mut Exec<'_>,
    source: &[u8],
    target: &[u8],
    course: Course,
) -> Result<bool, Fault> {
    let Some(list) = exec.store.get::<List>(source)? else { return Ok(false) };
    // A copy, because the source and the target cannot be borrowed at once.
    let element = course.from.peek(list).expect("a list that exists has elements");
    let element: SmallVec<[u8; 128]> = SmallVec::from_slice(element);
    if source == target {
        if let Some(mut list) = exec.store.edit::<List>(source)? {
            course.from.pop(&mut list, |_| ());
            course.to.push(&mut list, &element);
        }
    } else {
        // The target first: if it cannot be, nothing has changed.
        course.to.push(&mut *exec.store.edit_or_new(target, List::new)?, &element);
        if let Some(mut list) = exec.store.edit::<List>(source)? {
            course.from.pop(&mut list, |_| ());
        }
    }
    exec.reply.bulk(&element);
    Ok(true)
}

/// `key … LEFT|RIGHT [COUNT n]` of `LMPOP` and `BLMPOP`.
pub(super) struct PopMany<'s, 'a> {
    pub keys: &'s [&'a [u8]],
    pub end: End,
    pub most: usize,
}

impl<'s, 'a> PopMany<'s, 'a> {
    /// Reads `numkeys` and what follows.
    pub(super) fn parse(args: &'s [&'a [u8]]) -> Result<PopMany<'s, 'a>, Fault> {
        let (keys, rest) = counted_keys(args)?;
        let end = End::parse(rest.first().ok_or(Fault::Syntax)?)?;
        let most = match &rest[1..] {
            [] => 1,
            [option, most] if option.eq_ignore_ascii_case(b"count") => {
                at_least(1, most, "ERR count should be greater than 0")?
            }
            _ => return Err(Fault::Syntax),
        };
        Ok(PopMany { keys, end, most })
    }

    /// Pops from the first list there is and answers; false, and no answer, if there is none.
    pub(super) fn run(&self, exec: &mut Exec<'_>, other: OtherType) -> Result<bool, Fault> {
        let Some(key) = first_list(exec.store, self.keys, other)? else { return Ok(false) };
        let Exec { store, reply, .. } = exec;
        if let Some(mut list) = store.edit::<List>(key)? {
            reply.array(2);
            reply.bulk(key);
            self.end.pop_many(&mut list, self.most, &mut **reply);
        }
        Ok(true)
    }
}

fn lmpop(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    if !PopMany::parse(args)?.run(exec, OtherType::Refuse)? {
        exec.reply.null_array();
    }
    Ok(())
}

/// What a key of another type means to a search for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherType {
    /// The command is refused.
    Refuse,
    /// It is passed over: the client waits for the key to become a list.
    PassOver,
}

/// The first of `keys` that holds a list.
pub(super) fn first_list<'a>(
    store: &mut Store,
    keys: &[&'a [u8]],
    other: OtherType,
) -> Result<Option<&'a [u8]>, Fault> {
    for key in keys {
        match store.get::<List>(key) {
            Ok(Some(_)) => return Ok(Some(key)),
            Ok(None) => {}
            Err(Fault::WrongType) if other == OtherType::PassOver => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}
