//! `SORT`: a list, set or sorted set by its elements or by keys they name.

mod order;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::command::{Command, Flags, Keys, ONE};
use crate::object::number::parse_float;
use crate::object::{Hash, List, Value, parse_canonical};
use crate::store::long::Steps;
use crate::store::{Store, Ttl, Typed};
use crate::{Exec, Fault, Origin};

use order::{Order, Strings, Weights};

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(SORT, "sort", -2, Keys::OneAndStored, sort).with(Flags::DENY_OOM),
    Command::read(SORT_RO, "sort_ro", -2, ONE, sort_ro),
];

/// The id of `SORT`.
pub const SORT: u16 = 0x288;
/// The id of `SORT_RO`.
pub const SORT_RO: u16 = 0x289;

/// Whether a `SORT` with `args` stores nothing for certain: then it is a `SORT_RO`, which needs no log.
#[must_use]
pub fn only_reads(args: &[&[u8]]) -> bool {
    args.iter().skip(1).all(|arg| !arg.eq_ignore_ascii_case(b"store"))
}

/// What is asked besides the key.
struct Options<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    offset: i64,
    count: i64,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(mut rest: &[&'a [u8]]) -> Result<Options<'a>, Fault> {
        let mut options = Options {
            by: None,
            get: Vec::new(),
            offset: 0,
            count: -1,
            descending: false,
            alpha: false,
            store: None,
        };
        while let [option, tail @ ..] = rest {
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            rest = match tail {
                tail if is(b"asc") || is(b"desc") => {
                    options.descending = is(b"desc");
                    tail
                }
                tail if is(b"alpha") => {
                    options.alpha = true;
                    tail
                }
                [offset, count, tail @ ..] if is(b"limit") => {
                    options.offset = parse_canonical(offset).ok_or(Fault::NotInteger)?;
                    options.count = parse_canonical(count).ok_or(Fault::NotInteger)?;
                    tail
                }
                [pattern, tail @ ..] if is(b"by") => {
                    options.by = Some(pattern);
                    tail
                }
                [pattern, tail @ ..] if is(b"get") => {
                    options.get.push(pattern);
                    tail
                }
                [key, tail @ ..] if is(b"store") => {
                    options.store = Some(key);
                    tail
                }
                _ => return Err(Fault::Syntax),
            };
        }
        Ok(options)
    }

    /// First place and number of places of `LIMIT` among `len`.
    fn window(&self, len: usize) -> (usize, usize) {
        let first = usize::try_from(self.offset).unwrap_or(0).min(len);
        let count = usize::try_from(self.count).unwrap_or(len).min(len - first);
        (first, count)
    }
}

/// What `SORT` names besides its key, which is the first of `args`: where the answer is stored, and the
/// patterns of keys that it reads. Nothing if its options are wrong.
pub(crate) fn other_keys<'a>(args: &[&'a [u8]]) -> (Option<&'a [u8]>, Vec<&'a [u8]>) {
    let Ok(options) = Options::parse(&args[1..]) else { return (None, Vec::new()) };
    let patterns = options.by.into_iter().chain(options.get).filter(|pattern| pattern.contains(&b'*'));
    (options.store, patterns.collect())
}

fn sort(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let options = Options::parse(&args[1..])?;
    run(exec, args[0], options)
}

fn sort_ro(exec: &mut Exec<'_>, args: &[&[u8]]) -> Result<(), Fault> {
    let options = Options::parse(&args[1..])?;
    if options.store.is_some() {
        return Err(Fault::Syntax);
    }
    run(exec, args[0], options)
}

fn run(exec: &mut Exec<'_>, key: &[u8], mut options: Options<'_>) -> Result<(), Fault> {
    if let Some(target) = options.store {
        exec.store.check_key(target)?;
    }
    let mut unsorted = options.by.is_some_and(|pattern| !pattern.contains(&b'*'));
    let (elements, from_set) = elements(exec.store, key)?;
    // A set has no order of its own that a stored list or a script could rely on.
    if unsorted && from_set && (options.store.is_some() || exec.origin == Origin::Script) {
        (unsorted, options.alpha, options.by) = (false, true, None);
    }
    let weights = if unsorted { Weights::None } else { weights(exec.store, &elements, &options)? };
    let window = options.window(elements.len());
    let descending = options.descending && !(unsorted && from_set);
    let mut order = Order::new(elements, weights, descending);
    order.window = window;
    let themselves = options.get.iter().all(|pattern| *pattern == b"#");
    if themselves && options.store.is_none() {
        order.times = options.get.len().max(1);
        return exec.answer_long(Box::new(order));
    }
    // What it names or stores belongs to one moment, and is found in one go.
    order.sort(&mut Steps::new(usize::MAX))?;
    let answers = answers(exec.store, &order, &options.get)?;
    let Some(target) = options.store else {
        exec.reply.array(answers.len());
        for answer in &answers {
            match answer {
                Some(bytes) => exec.reply.bulk(bytes),
                None => exec.reply.null(),
            }
        }
        return Ok(());
    };
    if answers.is_empty() {
        exec.store.remove(target);
    } else {
        let mut list = List::new();
        answers.iter().for_each(|answer| list.push_back(answer.as_deref().unwrap_or_default()));
        exec.store.set(target, list.into_value(), Ttl::Clear)?;
    }
    exec.reply.int(answers.len() as i64);
    Ok(())
}

/// A copy of the elements to sort, and whether they come from a set.
fn elements(store: &mut Store, key: &[u8]) -> Result<(Strings, bool), Fault> {
    let mut elements = Strings::default();
    let mut from_set = false;
    match store.value(key)? {
        None => {}
        Some(Value::List(list)) => list.iter().for_each(|element| elements.push(element)),
        Some(Value::Set(set)) => {
            set.iter().for_each(|member| elements.push(&member));
            from_set = true;
        }
        Some(Value::Zset(zset)) => zset.iter().for_each(|(member, _)| elements.push(member)),
        Some(Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) | Value::Hash(_) | Value::Evicted(_)) => {
            return Err(Fault::WrongType);
        }
    }
    Ok((elements, from_set))
}

/// What the elements are compared by. What other keys say of them is read now.
fn weights(store: &mut Store, elements: &Strings, options: &Options<'_>) -> Result<Weights, Fault> {
    let Some(pattern) = options.by else {
        return Ok(if options.alpha { Weights::Themselves } else { Weights::Numbers(Vec::new()) });
    };
    let mut all = (0..elements.len()).map(|at| named(store, pattern, elements.get(at)));
    if options.alpha {
        return all.collect::<Result<_, _>>().map(Weights::OtherTexts);
    }
    let weight = |text: Result<Option<Vec<u8>>, Fault>| text?.map_or(Ok(0.0), |text| number(&text));
    all.by_ref().map(weight).collect::<Result<_, _>>().map(Weights::OtherNumbers)
}

/// A weight as `strtod` reads it: white space may stand before it, and nothing at all is 0.
fn number(text: &[u8]) -> Result<f64, Fault> {
    match text {
        [] => Ok(0.0),
        text => parse_float(text.trim_ascii_start())
            .ok_or(Fault::Text("ERR One or more scores can't be converted into double")),
    }
}

/// For each element of the window what the `GET` patterns name, or the element itself if there are none.
fn answers(store: &mut Store, order: &Order, get: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    let (first, count) = order.window;
    let elements = (first..first + count).map(|place| order.element(place));
    if get.is_empty() {
        return Ok(elements.map(|element| Some(element.into())).collect());
    }
    let mut answers = Vec::with_capacity(count * get.len());
    for element in elements {
        for pattern in get {
            answers.push(named(store, pattern, element)?);
        }
    }
    Ok(answers)
}

/// The value that `pattern` names for `element`: `#` is the element; otherwise the string at the key
/// that comes of putting it for the first `*`, or, after `->`, a field of the hash there.
fn named(store: &mut Store, pattern: &[u8], element: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    if pattern == b"#" {
        return Ok(Some(Vec::from(element)));
    }
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else { return Ok(None) };
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = after.windows(2).position(|two| two == b"->").filter(|at| at + 2 < after.len());
    let (after, field) = match arrow {
        Some(at) => (&after[..at], Some(&after[at + 2..])),
        None => (after, None),
    };
    let key = [before, element, after].concat();
    let found = match field {
        Some(field) => {
            store.get::<Hash>(&key).map(|hash| hash.and_then(|hash| hash.get(field)).map(Vec::from))
        }
        None => store.string(&key, &mut itoa::Buffer::new()).map(|bytes| bytes.map(Vec::from)),
    };
    match found {
        Err(Fault::WrongType) => Ok(None),
        found => found,
    }
}
