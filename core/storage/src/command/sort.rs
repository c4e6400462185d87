//! `SORT`: a list, set or sorted set by its elements or by keys they name.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::command::{Command, Flags, ONE};
use crate::object::number::parse_float;
use crate::object::{Hash, List, Value, parse_canonical};
use crate::store::{Store, Ttl, Typed};
use crate::{Exec, Fault, Origin};

/// The id of `SORT`.
pub const SORT: u16 = 0x288;
/// The id of `SORT_RO`.
pub const SORT_RO: u16 = 0x289;

/// This family's rows.
pub const COMMANDS: &[Command] = &[
    Command::write(SORT, "sort", -2, ONE, sort).with(Flags::DENY_OOM),
    Command::read(SORT_RO, "sort_ro", -2, ONE, sort_ro),
];

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
    let mut elements = if unsorted { elements } else { sorted(exec.store, elements, &options)? };
    if options.descending && !(unsorted && from_set) {
        elements.reverse();
    }
    let (first, count) = options.window(elements.len());
    let window = &elements[first..first + count];
    let answers = answers(exec.store, window, &options.get)?;
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

/// The elements to sort, and whether they come from a set.
fn elements(store: &mut Store, key: &[u8]) -> Result<(Vec<Vec<u8>>, bool), Fault> {
    Ok(match store.value(key)? {
        None => (Vec::new(), false),
        Some(Value::List(list)) => (list.iter().map(Vec::from).collect(), false),
        Some(Value::Set(set)) => (set.iter().map(|member| Vec::from(&*member)).collect(), true),
        Some(Value::Zset(zset)) => (zset.iter().map(|(member, _)| Vec::from(member)).collect(), false),
        Some(Value::Int(_) | Value::Bytes(_) | Value::Buffer(_) | Value::Hash(_) | Value::Evicted(_)) => {
            return Err(Fault::WrongType);
        }
    })
}

/// What an element is compared by.
enum Weight {
    Number(f64),
    Text(Option<Vec<u8>>),
}

/// The elements in ascending order.
fn sorted(store: &mut Store, elements: Vec<Vec<u8>>, options: &Options<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let mut weighted = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match options.by {
            None => Some(element.clone()),
            Some(pattern) => named(store, pattern, &element)?,
        };
        let weight = if options.alpha {
            Weight::Text(text)
        } else {
            Weight::Number(text.map_or(Ok(0.0), |text| number(&text))?)
        };
        weighted.push((weight, element));
    }
    weighted.sort_by(|(a, element_a), (b, element_b)| match (a, b) {
        (Weight::Number(a), Weight::Number(b)) => {
            a.partial_cmp(b).unwrap_or(Ordering::Equal).then_with(|| element_a.cmp(element_b))
        }
        (Weight::Text(a), Weight::Text(b)) => a.cmp(b),
        (Weight::Number(_), Weight::Text(_)) | (Weight::Text(_), Weight::Number(_)) => {
            unreachable!("one SORT weighs all elements alike")
        }
    });
    Ok(weighted.into_iter().map(|(_, element)| element).collect())
}

/// A weight as `strtod` reads it: white space may stand before it, and nothing at all is 0.
fn number(text: &[u8]) -> Result<f64, Fault> {
    match text {
        [] => Ok(0.0),
        text => parse_float(text.trim_ascii_start())
            .ok_or(Fault::Text("ERR One or more scores can't be converted into double")),
    }
}

/// For each element what the `GET` patterns name, or the element itself if there are none.
fn answers(store: &mut Store, elements: &[Vec<u8>], get: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    if get.is_empty() {
        return Ok(elements.iter().cloned().map(Some).collect());
    }
    let mut answers = Vec::with_capacity(elements.len() * get.len());
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
