//! Commands on several partitions of one keyspace: a part for each, and one answer when all have answered.
//!
//! Each part is a command of its own in its partition: what a connection reads afterwards in one of them waits
//! for its part there. The whole is not atomic: others may see some parts done and not yet the others, and
//! when a part is refused the others are done all the same.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use gateway::resp::{Io, RespReply, Submitted};
use kernel::codec::Reader;
use kernel::planted::{Bug, is};
use kernel::{ConnId, KeyspaceId, Rng};
use storage::command::generic::{self, DBSIZE, EXEC, EXEC_READ, RANDOMKEY, SCAN};
use storage::command::script;
use storage::entry::{Args, next_command, put_command};
use storage::object::table::CURSOR_BITS;
use storage::reach::{self, CROSS_SLOT};
use storage::{Command, Fault, Flags, Keys, Kind, Reply};

use crate::errand::{Abroad, PENDING_MAX, protocol};
use crate::fetching::{Readiness, refuse_unreadable};
use crate::parcel::{Asker, Guest, Parcel, Request};
use crate::replica::copies::Answers;
use crate::route::{Place, Spread};
use crate::worker::Worker;

/// Whose command it is: the connection, taken out of the worker.
pub(crate) type Own<'a> = (ConnId, &'a mut Io, &'a mut Abroad);

/// A command whose parts are under way.
#[derive(Debug)]
pub(crate) struct Gather {
    join: Join,
    kind: Kind,
    /// Parts that have not answered.
    left: usize,
    /// What the parts have answered, in the order of their partitions.
    answers: Vec<Vec<u8>>,
}

/// How the answers of the parts become one.
#[derive(Debug, PartialEq, Eq)]
enum Join {
    /// By their form: numbers add up, arrays follow each other, and anything else is the same everywhere.
    Form,
    /// Each key of the command has one element, which is the next of that part's array.
    Keys(Vec<u16>),
    /// Element by element the smallest: what all have.
    Least,
    /// A random one of `[element, weight]`.
    Random,
    /// A cursor of this partition, and what it found; behind its end comes the next partition.
    Scan { partition: u16, count: u16 },
}

/// What becomes of a command in a keyspace of several partitions.
enum Division {
    /// It runs in one of them.
    One(u16),
    /// It runs in several: what each runs, encoded.
    Parts(Vec<Piece>, Join),
}

/// What one partition runs.
struct Piece {
    partition: u16,
    command: &'static Command,
    encoded: Vec<u8>,
}

impl Worker {
    /// Runs `command` in a keyspace of several partitions.
    pub(crate) fn submit_spread(
        &mut self,
        (id, io, abroad): Own<'_>,
        watched: &[(KeyspaceId, alloc::boxed::Box<[u8]>)],
        db: KeyspaceId,
        command: &'static Command,
        args: &[&[u8]],
    ) -> Submitted {
        let spread = self.routes.spread(db).expect("the keyspace has several partitions");
        match self.divide(spread, command, args, io.cluster) {
            Ok(Division::One(partition)) => match spread.places[usize::from(partition)] {
                Place::Own(at) => self.submit_own_client((id, io), at, command, args),
                Place::Other(_) if !watched.is_empty() => {
                    self.send_request((id, io, abroad), watched, (db, partition), command, args)
                }
                Place::Other(_) => match self.who_answers(io, db, partition, command) {
                    Answers::Copy(at) => self.read_copy((id, io), at, command, args),
                    Answers::Nobody(text) => Worker::refuse_stale(io, &text),
                    Answers::Leader => {
                        self.send_request((id, io, abroad), watched, (db, partition), command, args)
                    }
                },
            },
            Ok(Division::Parts(pieces, join)) => {
                self.scatter((id, io, abroad), db, command.kind, pieces, join)
            }
            Err(fault) => {
                let sequence = io.begin();
                io.answer(sequence, |reply| reply.fault(&fault));
                Submitted::Accepted
            }
        }
    }

    /// `led`: what concerns the keyspace concerns what is led here, as cluster clients expect.
    fn divide(
        &self,
        spread: &Spread,
        command: &'static Command,
        args: &[&[u8]],
        led: bool,
    ) -> Result<Division, Fault> {
        if let Keys::Range { first: 1, last: 1, .. } = command.keys
            && !matches!(command.id, storage::command::sort::SORT | storage::command::sort::SORT_RO)
        {
            return Ok(Division::One(spread.of(args[0])));
        }
        if command.id == EXEC || command.id == EXEC_READ {
            return self.place_of_steps(spread, args).map(|place| Division::One(place.unwrap_or(0)));
        }
        if command.flags.has(Flags::KEYSPACE) {
            return Ok(self.divide_whole(spread, command, args, led));
        }
        if command.flags.has(Flags::SESSION) && command.name.starts_with("script|") {
            let join = if command.id == script::EXISTS { Join::Least } else { Join::Form };
            return Ok(everywhere(spread, command, args, join, led));
        }
        match reach::place(command, args, spread.partitions) {
            Ok(place) => Ok(Division::One(place.unwrap_or(0))),
            Err(fault) if fault != CROSS_SLOT || !command.flags.has(Flags::DIVISIBLE) => Err(fault),
            Err(_) => divide_keys(spread, command, args),
        }
    }

    /// The partition of a transaction's commands, which were checked when they were queued.
    fn place_of_steps(&self, spread: &Spread, steps: &[&[u8]]) -> Result<Option<u16>, Fault> {
        for step in steps {
            let mut args = Args::new();
            let id =
                next_command(&mut Reader::new(step), &mut args).expect("a session encodes what it queues");
            let command = self.registry.by_id(id).expect("a session queues commands of this version");
            if let Some(place) = reach::place_in_transaction(command, &args, spread.partitions)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn divide_whole(
        &self,
        spread: &Spread,
        command: &'static Command,
        args: &[&[u8]],
        led: bool,
    ) -> Division {
        match command.id {
            SCAN => divide_scan(spread, command, args, led),
            RANDOMKEY => {
                // Each partition tells one of its keys and how many it has.
                let id = EXEC_READ;
                let read = self.registry.by_id(id).expect("the store knows its own commands");
                let steps = [RANDOMKEY, DBSIZE].map(|id| {
                    let mut step = Vec::new();
                    put_command(&mut step, id, &[]);
                    step
                });
                everywhere(spread, read, &[&steps[0], &steps[1]], Join::Random, led)
            }
            _ => everywhere(spread, command, args, Join::Form, led),
        }
    }

    fn scatter(
        &mut self,
        (id, io, abroad): Own<'_>,
        db: KeyspaceId,
        kind: Kind,
        pieces: Vec<Piece>,
        join: Join,
    ) -> Submitted {
        if kind == Kind::Write {
            for piece in &pieces {
                if self.holds_writers(db, piece.partition, id) {
                    return Submitted::Paused;
                }
            }
        }
        if io.pending() >= PENDING_MAX {
            return Submitted::Later;
        }
        let own = self.own_parts(db, &pieces);
        let ready = self.fetch_parts(id, kind, &own);
        let places: Vec<usize> = own.iter().map(|(at, ..)| *at).collect();
        drop(own);
        let submitted = match ready {
            Readiness::Waits => Submitted::Later,
            Readiness::Unreadable(text) => {
                let sequence = io.begin();
                io.answer(sequence, |reply| refuse_unreadable(reply, &text));
                Submitted::Accepted
            }
            Readiness::Ready => self.send_parts_of((id, io, abroad), db, kind, pieces, join),
        };
        places.into_iter().for_each(|at| self.partitions[at].store.forget_failures());
        submitted
    }

    /// What of it runs in this worker's partitions.
    fn own_parts<'a>(&self, db: KeyspaceId, pieces: &'a [Piece]) -> Vec<(usize, &'static Command, Args<'a>)> {
        let mut own = Vec::new();
        for Piece { partition, command, encoded } in pieces {
            if let Place::Own(at) = self.routes.place(db, *partition)
                && self.partitions[at].store.evicts()
            {
                own.push((at, *command, decoded(encoded)));
            }
        }
        own
    }

    fn send_parts_of(
        &mut self,
        (id, io, abroad): Own<'_>,
        db: KeyspaceId,
        kind: Kind,
        pieces: Vec<Piece>,
        join: Join,
    ) -> Submitted {
        self.reading = false;
        let (alone, protocol) = (io.pending() == 0, protocol(io));
        let sequence = io.begin();
        let answers = alloc::vec![Vec::new(); pieces.len()];
        let gather = Gather { join, kind, left: pieces.len(), answers };
        abroad.gathers.insert(sequence, gather);
        for (number, Piece { partition, command, encoded }) in pieces.into_iter().enumerate() {
            let part = Some(u16::try_from(number).expect("a keyspace has at most 1024 partitions"));
            let asker = Asker { conn: id, sequence, guest: Guest::of(protocol, part) };
            let request =
                Request { asker, db, partition, command, encoded, alone, watching: false, tag: None };
            match self.routes.place(db, partition) {
                Place::Own(at) => self.run_ready(&request, at, &decoded(&request.encoded)),
                Place::Other(owner) => {
                    self.others.push(owner, Parcel::Request(alloc::boxed::Box::new(request)));
                }
            }
        }
        Submitted::Accepted
    }

    /// Whether writers of a partition wait; then `id` is one of them.
    pub(crate) fn holds_writers(&mut self, db: KeyspaceId, partition: u16, id: ConnId) -> bool {
        match self.routes.place(db, partition) {
            Place::Own(at) => {
                let partition = &mut self.partitions[at];
                let holds = partition.stalled && partition.store.damaged().is_none();
                if holds {
                    partition.stalled_writers.push(id);
                }
                holds
            }
            Place::Other(_) => match self.others.stalled.get_mut(&(db, partition)) {
                Some(held) => {
                    held.push(id);
                    true
                }
                None => false,
            },
        }
    }
}

/// A part's arguments.
fn decoded(encoded: &[u8]) -> Args<'_> {
    let mut args = Args::new();
    next_command(&mut Reader::new(encoded), &mut args).expect("a worker encodes what it sends");
    args
}

/// The same for every partition; with `led`, for those led here, if there are any.
fn everywhere(spread: &Spread, command: &'static Command, args: &[&[u8]], join: Join, led: bool) -> Division {
    let mut encoded = Vec::new();
    put_command(&mut encoded, command.id, args);
    let led = led && (0..spread.partitions.count()).any(|partition| is_led(spread, partition));
    let concerned = (0..spread.partitions.count()).filter(|&partition| !led || is_led(spread, partition));
    let piece = |partition| Piece { partition, command, encoded: encoded.clone() };
    Division::Parts(concerned.map(piece).collect(), join)
}

fn is_led(spread: &Spread, partition: u16) -> bool {
    matches!(spread.places.get(usize::from(partition)), Some(Place::Own(_)))
}

/// To each partition the keys that it has, each with what stands between it and the next.
fn divide_keys(spread: &Spread, command: &'static Command, args: &[&[u8]]) -> Result<Division, Fault> {
    let positions = command.key_positions(args);
    let step = positions.get(1).map_or(args.len(), |second| second - positions[0]);
    if !args.len().is_multiple_of(step) {
        return Err(Fault::Arity(command.name));
    }
    let mut shares: alloc::collections::BTreeMap<u16, Vec<&[u8]>> = alloc::collections::BTreeMap::new();
    let mut order = Vec::with_capacity(positions.len());
    for unit in args.chunks_exact(step) {
        let partition = spread.of(unit[0]);
        shares.entry(partition).or_default().extend_from_slice(unit);
        order.push(partition);
    }
    let numbers: Vec<u16> = shares.keys().copied().collect();
    for partition in &mut order {
        let at = numbers.binary_search(partition).expect("it has a share");
        *partition = at as u16;
    }
    let pieces = shares.into_iter().map(|(partition, share)| {
        let mut encoded = Vec::new();
        put_command(&mut encoded, command.id, &share);
        Piece { partition, command, encoded }
    });
    Ok(Division::Parts(pieces.collect(), Join::Keys(order)))
}

/// The partition is what the cursor has above its own bits. One of no partition is at the end.
fn divide_scan(spread: &Spread, command: &'static Command, args: &[&[u8]], led: bool) -> Division {
    // What is no cursor is refused by whoever runs it.
    let mut cursor = generic::cursor(args[0]).unwrap_or(0);
    let count = spread.partitions.count();
    let mut place = u16::try_from(cursor >> CURSOR_BITS).ok().filter(|place| *place < count);
    if let Some(first) = place.filter(|&place| led && !is_led(spread, place)) {
        (place, cursor) = ((first..count).find(|&next| is_led(spread, next)), 0);
    }
    let partition = place.unwrap_or(count - 1);
    let inner = if place.is_some() { cursor & ((1 << CURSOR_BITS) - 1) } else { (1 << CURSOR_BITS) - 1 };
    let mut digits = itoa::Buffer::new();
    let mut args: Vec<&[u8]> = args.to_vec();
    if generic::cursor(args[0]).is_ok() {
        args[0] = digits.format(inner).as_bytes();
    }
    let mut encoded = Vec::new();
    put_command(&mut encoded, command.id, &args);
    let piece = Piece { partition, command, encoded };
    Division::Parts(alloc::vec![piece], Join::Scan { partition, count })
}

impl Gather {
    /// Takes what a part answered. True when all have.
    pub fn take(&mut self, part: u16, bytes: Vec<u8>) -> bool {
        self.answers[usize::from(part)] = bytes;
        self.left -= 1;
        self.left == 0 || self.kind == Kind::Write && is(Bug::ScatterAnswersEarly)
    }

    /// The answer of the whole.
    pub fn answer(&self, reply: &mut RespReply<'_>, rng: &mut Rng) {
        if let Some(error) = self.answers.iter().find(|answer| answer.first() == Some(&b'-')) {
            return self.refuse(error, reply);
        }
        let answers = self.answers.iter().filter(|answer| !answer.is_empty());
        let first = answers.clone().next().map_or(&[][..], Vec::as_slice);
        match (&self.join, first.first()) {
            (Join::Form | Join::Keys(_), Some(b':')) => {
                reply.int(answers.map(|answer| number(answer)).sum());
            }
            (Join::Form, Some(b'*')) => {
                let parts: Vec<_> = answers.map(|answer| elements(answer)).collect();
                reply.array(parts.iter().map(Vec::len).sum());
                parts.iter().flatten().for_each(|element| reply.raw(element));
            }
            (Join::Keys(order), Some(b'*')) => {
                let mut parts: Vec<_> =
                    self.answers.iter().map(|answer| elements(answer).into_iter()).collect();
                reply.array(order.len());
                for &part in order {
                    // One of another node may lack some.
                    match parts[usize::from(part)].next() {
                        Some(element) => reply.raw(element),
                        None => reply.null(),
                    }
                }
            }
            (Join::Least, Some(b'*')) => least(answers.map(|answer| elements(answer)), reply),
            (Join::Random, Some(b'*')) => draw(answers.map(|answer| elements(answer)), reply, rng),
            (&Join::Scan { partition, count }, Some(b'*')) => {
                let parts = &*elements(first);
                let [cursor, found] = *parts else { return reply.raw(first) };
                let inner = bulk(cursor).and_then(|digits| generic::cursor(digits).ok()).unwrap_or(0);
                let next = match inner {
                    0 if partition + 1 < count => u64::from(partition + 1) << CURSOR_BITS,
                    0 => 0,
                    inner => u64::from(partition) << CURSOR_BITS | inner,
                };
                reply.array(2);
                reply.bulk(itoa::Buffer::new().format(next).as_bytes());
                reply.raw(found);
            }
            (Join::Form | Join::Keys(_) | Join::Least | Join::Random | Join::Scan { .. }, _) => {
                reply.raw(first)
            }
        }
    }

    /// One part failed. Of a write, others may be done.
    fn refuse(&self, error: &[u8], reply: &mut RespReply<'_>) {
        let text = error.strip_prefix(b"-").and_then(|text| text.strip_suffix(b"\r\n")).unwrap_or(error);
        let text = String::from_utf8_lossy(text);
        let refused = self.answers.iter().filter(|answer| answer.first() == Some(&b'-')).count();
        if self.kind == Kind::Write && refused < self.answers.len() {
            let all = self.answers.len();
            reply
                .error(&format!("{text} ({refused} of {all} partitions refused their part of this command)"));
        } else {
            reply.error(&text);
        }
    }
}

/// The number that is answered.
fn number(answer: &[u8]) -> i64 {
    let digits = answer.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    let digits = digits.and_then(|digits| core::str::from_utf8(digits).ok());
    // Another node's answer has the right form, and may say nonsense.
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The bytes of a bulk string.
fn bulk(element: &[u8]) -> Option<&[u8]> {
    let end = line(element);
    element.starts_with(b"$").then(|| &element[end..element.len().saturating_sub(2).max(end)])
}

/// Where the first line ends, its end included.
fn line(bytes: &[u8]) -> usize {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n");
    end.expect("an answer has whole lines") + 2
}

fn length(line: &[u8]) -> usize {
    let digits = core::str::from_utf8(&line[1..line.len() - 2]).ok();
    digits.and_then(|digits| digits.parse::<i64>().ok()).map_or(0, |length| length.max(0) as usize)
}

/// Each element of an encoded array, encoded.
fn elements(answer: &[u8]) -> Vec<&[u8]> {
    let mut at = line(answer);
    let mut all = Vec::with_capacity(length(&answer[..at]).min(answer.len()));
    while at < answer.len() {
        let range = element(answer, at);
        at = range.end;
        all.push(&answer[range]);
    }
    all
}

/// The element that begins at `start`: of the forms that the commands here answer with.
fn element(bytes: &[u8], start: usize) -> Range<usize> {
    let end = start + line(&bytes[start..]);
    let head = &bytes[start..end];
    match head[0] {
        b'$' if head[1] != b'-' => start..end + length(head) + 2,
        b'*' => {
            let inside = (0..length(head)).fold(end, |at, _| element(bytes, at).end);
            start..inside
        }
        _ => start..end,
    }
}

fn least<'a>(parts: impl Iterator<Item = Vec<&'a [u8]>>, reply: &mut RespReply<'_>) {
    let least =
        parts.map(|part| part.into_iter().map(number).collect::<Vec<_>>()).reduce(|mut least, part| {
            least.iter_mut().zip(part).for_each(|(least, other)| *least = other.min(*least));
            least
        });
    let least = least.unwrap_or_default();
    reply.array(least.len());
    least.into_iter().for_each(|value| reply.int(value));
}

/// One of the elements, each as likely as it weighs; one that is there is preferred to none.
fn draw<'a>(parts: impl Iterator<Item = Vec<&'a [u8]>>, reply: &mut RespReply<'_>, rng: &mut Rng) {
    let found: Vec<(&[u8], u64)> = parts
        .filter_map(|part| Some((*part.first()?, u64::try_from(number(part.get(1)?)).unwrap_or(0))))
        .filter(|(key, _)| bulk(key).is_some() && !key.starts_with(b"$-"))
        .collect();
    let total: u64 = found.iter().map(|(_, weight)| weight).sum();
    let mut at = if total > 0 { rng.below(total) } else { 0 };
    for (key, weight) in found {
        if at < weight.max(1) {
            return reply.raw(key);
        }
        at -= weight;
    }
    reply.null();
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use wire::resp::Encoder;

    use super::*;

    fn joined(join: Join, kind: Kind, answers: &[&str]) -> String {
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.as_bytes().to_vec()).collect();
        let gather = Gather { join, kind, left: 0, answers };
        let mut bytes = Vec::new();
        gather.answer(&mut RespReply(Encoder::new(&mut bytes, false)), &mut Rng::new(1));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_answers_of_parts_become_one() {
        let read = |join, answers: &[&str]| joined(join, Kind::Read, answers);
        let scan = |partition| Join::Scan { partition, count: 3 };
        #[rustfmt::skip] // columns
        let table = [
            (read(Join::Form, &[":1\r\n", ":41\r\n"]),                                    ":42\r\n"),
            (read(Join::Form, &["+OK\r\n", "+OK\r\n"]),                                   "+OK\r\n"),
            (read(Join::Form, &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$2\r\n\r\n\r\n"]),  "*2\r\n$1\r\na\r\n$2\r\n\r\n\r\n"),
            (read(Join::Keys(vec![1, 0, 1]), &["*1\r\n$1\r\na\r\n", "*2\r\n$-1\r\n$1\r\nb\r\n"]),
                                                                                          "*3\r\n$-1\r\n$1\r\na\r\n$1\r\nb\r\n"),
            (read(Join::Keys(vec![0, 1]), &[":1\r\n", ":1\r\n"]),                         ":2\r\n"),
            (read(Join::Least, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"]),            "*2\r\n:0\r\n:1\r\n"),
            (read(Join::Random, &["*2\r\n$-1\r\n:0\r\n", "*2\r\n$1\r\nk\r\n:7\r\n"]),     "$1\r\nk\r\n"),
            (read(Join::Random, &["*2\r\n$-1\r\n:0\r\n", "*2\r\n$-1\r\n:3\r\n"]),         "$-1\r\n"),
            (read(scan(0), &["*2\r\n$1\r\n7\r\n*0\r\n"]),                                 "*2\r\n$1\r\n7\r\n*0\r\n"),
            (read(scan(0), &["*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"]),                      "*2\r\n$13\r\n8796093022208\r\n*1\r\n$1\r\nk\r\n"),
            (read(scan(1), &["*2\r\n$1\r\n7\r\n*0\r\n"]),                                 "*2\r\n$13\r\n8796093022215\r\n*0\r\n"),
            (read(scan(2), &["*2\r\n$1\r\n0\r\n*0\r\n"]),                                 "*2\r\n$1\r\n0\r\n*0\r\n"),
        ];
        for (at, (found, expected)) in table.into_iter().enumerate() {
            assert_eq!(found, expected, "row {at}");
        }
    }

    #[test]
    fn one_part_that_fails_is_the_answer_of_the_whole() {
        let answers = ["+OK\r\n", "-MISCONF no space\r\n", "+OK\r\n"];
        let told = joined(Join::Form, Kind::Write, &answers);
        assert_eq!(told, "-MISCONF no space (1 of 3 partitions refused their part of this command)\r\n");
        let told = joined(Join::Form, Kind::Read, &["*0\r\n", "-ERR damaged\r\n"]);
        assert_eq!(told, "-ERR damaged\r\n");
        let told = joined(Join::Form, Kind::Write, &["-MISCONF no\r\n", "-MISCONF no\r\n"]);
        assert_eq!(told, "-MISCONF no\r\n");
    }

    #[test]
    fn a_cursor_of_a_double_has_room_for_every_partition() {
        let bits = CURSOR_BITS + (crate::route::PARTITIONS_MAX - 1).ilog2() + 1;
        assert_eq!(bits, 53);
    }
}
