//! Clients that write down what they ask and what they are told, each on one connection to some node.

mod told;

use std::collections::{BTreeMap, VecDeque};

use kernel::{ConnId, Rng};

use crate::cell::{Answer, Ask, Cell};
use crate::linear::{Operation, Verdict, judge};
use crate::reply;
use told::{answer, fault};

/// A key in a keyspace.
pub type Name = (u16, String);

/// Where an operation is in the history of its key.
type Place = (Name, usize);

/// Everything that was asked, by key.
#[derive(Default)]
pub struct History {
    keys: BTreeMap<Name, Vec<Entry>>,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations of which nothing is known.
    pub unknown: u64,
    /// Operations that surely did not run.
    pub refused: u64,
    /// Everything that has ended, in that order.
    pub ended: Vec<Ended>,
    tag: u64,
}

/// An operation that has ended, for who looks at when clients were told what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Who asked.
    pub client: u64,
    /// When.
    pub called: u64,
    /// When it ended.
    pub at: u64,
    /// How.
    pub how: How,
}

/// How an operation ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// With an answer.
    Answered,
    /// It is not known whether it ran.
    Unknown,
    /// It surely did not run.
    Refused,
}

struct Entry {
    operation: Operation<Ask, Answer>,
    /// It surely did not run, or says nothing.
    void: bool,
}

impl History {
    fn ask(&mut self, client: u64, name: Name, ask: Ask, called: u64) -> Place {
        let entries = self.keys.entry(name.clone()).or_default();
        let operation = Operation { client, ask, called, returned: None };
        entries.push(Entry { operation, void: false });
        (name, entries.len() - 1)
    }

    fn entry(&mut self, (name, at): &Place) -> &mut Entry {
        self.keys.get_mut(name).and_then(|entries| entries.get_mut(*at)).expect("it was asked")
    }

    fn end(&mut self, place: &Place, now: u64, told: Told) {
        let entry = self.entry(place);
        let (client, called) = (entry.operation.client, entry.operation.called);
        let how = match told {
            Told::Answer(answer) => {
                entry.operation.returned = Some((now, answer));
                self.answered += 1;
                How::Answered
            }
            Told::Unknown => {
                self.unknown += 1;
                How::Unknown
            }
            Told::NotRun => {
                entry.void = true;
                self.refused += 1;
                How::Refused
            }
        };
        self.ended.push(Ended { client, called, at: now, how });
    }

    /// The keys that somebody asked for.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.keys.keys()
    }

    /// Judges every key.
    ///
    /// # Errors
    /// What no order of the operations explains.
    pub fn judge(&self) -> Result<u64, String> {
        let mut hard = 0;
        for ((db, key), entries) in &self.keys {
            let history: Vec<_> =
                entries.iter().filter(|entry| !entry.void).map(|entry| entry.operation.clone()).collect();
            match judge(&Cell, &history) {
                Verdict::Linearizable(_) => {}
                Verdict::TooHard => hard += 1,
                Verdict::Violated { longest, stuck } => {
                    return Err(explain(*db, key, &history, &longest, stuck));
                }
            }
        }
        Ok(hard)
    }
}

/// The operations around the one that nothing explains, in order of their calls.
fn explain(
    db: u16,
    key: &str,
    history: &[Operation<Ask, Answer>],
    longest: &[usize],
    stuck: usize,
) -> String {
    let told = |operation: &Operation<Ask, Answer>| {
        let Operation { client, ask, called, returned } = operation;
        let returned = match returned {
            Some((at, answer)) => format!("{at} {answer:?}"),
            None => "unknown".into(),
        };
        format!("    client {client} {called}..{returned}: {ask:?}\n")
    };
    let mut text = format!("keyspace {db}, key {key}: nothing explains\n{}", told(&history[stuck]));
    text.push_str("  after (the end of the longest order found)\n");
    for &at in &longest[longest.len().saturating_sub(12)..] {
        text.push_str(&told(&history[at]));
    }
    text.push_str("  not in that order, called before it\n");
    let before = |at: &usize| !longest.contains(at) && history[*at].called <= history[stuck].called;
    for at in (0..history.len()).filter(before).rev().take(12) {
        text.push_str(&told(&history[at]));
    }
    text
}

/// What a reply says of an operation.
enum Told {
    Answer(Answer),
    Unknown,
    NotRun,
}

/// What the next reply is to.
enum Pending {
    /// `OK`, or `QUEUED`: nothing to write down.
    Word,
    Operation(Place),
    /// The `GET` of an exchange, whose second half follows.
    Look(Place),
    /// The `EXEC` of an exchange.
    Exchange(Place),
}

/// How clients ask.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Keys of each kind.
    pub keys: u64,
    /// Most commands on their way.
    pub pipeline: u64,
    /// It changes nothing: so it waits for nobody where a leader that is cut off would still answer reads.
    pub reads: bool,
    /// They give up after so many microseconds; else they are patient.
    pub patience: Option<u64>,
    /// Part of the names of their keys.
    pub round: u64,
    /// They only set and get texts: the register of which theorems speak.
    pub register: bool,
    /// They say `READONLY`: what a copy has will do, however old.
    pub copies: bool,
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Strings.
    Text,
    /// Numbers.
    Number,
    /// Lists.
    List,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Text, Kind::Number, Kind::List];
}

/// What a client at the end wants to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The keyspace.
    pub db: u16,
    /// The number of the key.
    pub key: u64,
    /// Its kind.
    pub kind: Kind,
    /// Where it connects.
    pub node: usize,
}

/// One client.
pub struct Client {
    /// Its number, another one after each connection.
    pub number: u64,
    /// Its connection: the node and its name there.
    pub conn: Option<(usize, ConnId)>,
    /// When it does something next.
    pub next: u64,
    /// Bytes that its node has not taken.
    pub outbox: Vec<u8>,
    /// Since when it waits for the reply that comes next.
    pub waits_since: u64,
    /// How long a blocking command that it sent may rightly take, in microseconds.
    pub blocks: u64,
    /// Its words, for the trace.
    pub said: Vec<String>,
    /// Its node takes nothing at the moment.
    pub held: bool,
    /// Answers since it last began to ask for everything, whether one was an error, and how often it began.
    pub served: u64,
    /// See [`Client::served`].
    pub refused: bool,
    /// See [`Client::served`].
    pub rounds: u64,
    /// At the end: what it wants.
    pub wish: Option<Wish>,
    /// Everything that it asked for at the end was answered.
    pub content: bool,
    manner: Manner,
    inbox: Vec<u8>,
    pending: VecDeque<Pending>,
    db: u16,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub const fn new(number: u64, manner: Manner) -> Client {
        Client {
            number,
            conn: None,
            next: 0,
            outbox: Vec::new(),
            waits_since: 0,
            blocks: 0,
            said: Vec::new(),
            held: false,
            served: 0,
            refused: false,
            rounds: 0,
            wish: None,
            content: false,
            manner,
            inbox: Vec::new(),
            pending: VecDeque::new(),
            db: 0,
        }
    }

    /// It has a connection now, to a keyspace.
    pub fn connected(&mut self, now: u64, conn: (usize, ConnId), db: u16) {
        (self.conn, self.db) = (Some(conn), db);
        self.say(now, &["SELECT", &db.to_string()], Pending::Word);
        if self.manner.copies {
            self.say(now, &["READONLY"], Pending::Word);
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub const fn only_reads(&self) -> bool {
        self.manner.reads
    }

    /// Whether it waits for a reply.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// When it gives up, if it waits.
    #[must_use]
    pub fn gives_up(&self) -> Option<u64> {
        let patience = self.manner.patience.filter(|_| self.waits() && self.conn.is_some())?;
        Some(self.waits_since + self.blocks + patience)
    }

    /// The connection is gone: what it waited for is not known.
    pub fn lost(&mut self, now: u64, history: &mut History) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Word => {}
                Pending::Operation(place) | Pending::Look(place) | Pending::Exchange(place) => {
                    history.end(&place, now, Told::Unknown);
                }
            }
        }
        self.conn = None;
        self.outbox.clear();
        self.inbox.clear();
        self.blocks = 0;
    }

    fn say(&mut self, now: u64, words: &[&str], pending: Pending) {
        if self.pending.is_empty() {
            self.waits_since = now;
        }
        self.said.push(words.join(" "));
        self.outbox.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.outbox.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.pending.push_back(pending);
    }

    fn one(&mut self, now: u64, history: &mut History, key: &str, ask: Ask, words: &[&str]) {
        let place = history.ask(self.number, (self.db, key.to_owned()), ask, now);
        self.say(now, words, Pending::Operation(place));
    }

    /// Does something new.
    pub fn act(&mut self, now: u64, history: &mut History, rng: &mut Rng) {
        if self.waits() {
            return;
        }
        for _ in 0..1 + rng.below(self.manner.pipeline) {
            let key = rng.below(self.manner.keys);
            if self.manner.register {
                self.register(now, history, rng, &self.name(Kind::Text, key));
                continue;
            }
            if self.manner.reads {
                self.look(now, history, rng, key);
                continue;
            }
            match rng.below(10) {
                0..=4 => {
                    if self.text(now, history, rng, &self.name(Kind::Text, key)) {
                        return;
                    }
                }
                5..=7 => self.number(now, history, rng, &self.name(Kind::Number, key)),
                _ => {
                    if self.list(now, history, rng, &self.name(Kind::List, key)) {
                        return;
                    }
                }
            }
        }
    }

    fn name(&self, kind: Kind, key: u64) -> String {
        let round = self.manner.round;
        match kind {
            Kind::Text => format!("s{round}-{key}"),
            Kind::Number => format!("n{round}-{key}"),
            Kind::List => format!("l{round}-{key}"),
        }
    }

    fn fresh(history: &mut History) -> String {
        history.tag += 1;
        history.tag.to_string()
    }

    fn look(&mut self, now: u64, history: &mut History, rng: &mut Rng, key: u64) {
        let name = |kind: Kind| self.name(kind, key);
        let (text, number, list) = (name(Kind::Text), name(Kind::Number), name(Kind::List));
        match rng.below(4) {
            0 => self.one(now, history, &text, Ask::Get, &["GET", &text]),
            1 | 2 => self.one(now, history, &number, Ask::Get, &["GET", &number]),
            _ => self.one(now, history, &list, Ask::Items, &["LRANGE", &list, "0", "-1"]),
        }
    }

    fn register(&mut self, now: u64, history: &mut History, rng: &mut Rng, key: &str) {
        if self.manner.reads || rng.chance(0.5) {
            return self.one(now, history, key, Ask::Get, &["GET", key]);
        }
        let value = Client::fresh(history);
        let ask = Ask::Set { value: value.clone().into(), expires: false };
        self.one(now, history, key, ask, &["SET", key, &value]);
    }

    /// True if nothing may follow before the answer.
    fn text(&mut self, now: u64, history: &mut History, rng: &mut Rng, key: &str) -> bool {
        let value = Client::fresh(history);
        let bytes = value.clone().into_bytes();
        match rng.below(12) {
            0..=4 => self.one(now, history, key, Ask::Get, &["GET", key]),
            5 | 6 => {
                self.one(now, history, key, Ask::Set { value: bytes, expires: false }, &["SET", key, &value]);
            }
            7 => {
                let millis = (50 + rng.below(3000)).to_string();
                let ask = Ask::Set { value: bytes, expires: true };
                self.one(now, history, key, ask, &["SET", key, &value, "PX", &millis]);
            }
            8 => {
                let more = format!("-{value}");
                self.one(now, history, key, Ask::Append(more.clone().into()), &["APPEND", key, &more]);
            }
            9 => self.one(now, history, key, Ask::Delete, &["DEL", key]),
            _ => {
                self.say(now, &["WATCH", key], Pending::Word);
                let place = history.ask(self.number, (self.db, key.to_owned()), Ask::Get, now);
                self.say(now, &["GET", key], Pending::Look(place));
                return true;
            }
        }
        false
    }

    fn number(&mut self, now: u64, history: &mut History, rng: &mut Rng, key: &str) {
        match rng.below(8) {
            0..=3 => self.one(now, history, key, Ask::Increment, &["INCR", key]),
            4 | 5 => self.one(now, history, key, Ask::Get, &["GET", key]),
            6 => self.one(now, history, key, Ask::Delete, &["DEL", key]),
            _ => {
                for words in [&["MULTI"][..], &["INCR", key], &["GET", key], &["INCR", key]] {
                    self.say(now, words, Pending::Word);
                }
                let ask = Ask::All(vec![Ask::Increment, Ask::Get, Ask::Increment]);
                self.one(now, history, key, ask, &["EXEC"]);
            }
        }
    }

    /// True if nothing may follow before the answer.
    fn list(&mut self, now: u64, history: &mut History, rng: &mut Rng, key: &str) -> bool {
        match rng.below(8) {
            0..=2 => {
                let value = Client::fresh(history);
                self.one(now, history, key, Ask::Push(value.clone().into()), &["RPUSH", key, &value]);
            }
            3 => self.one(now, history, key, Ask::Pop, &["LPOP", key]),
            4 => self.one(now, history, key, Ask::Length, &["LLEN", key]),
            5 => self.one(now, history, key, Ask::Items, &["LRANGE", key, "0", "-1"]),
            _ => {
                let millis = 50 + rng.below(2000);
                self.blocks = millis * 1000;
                let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
                self.one(now, history, key, Ask::Pop, &["BLPOP", key, &seconds]);
                return true;
            }
        }
        false
    }

    /// Reads the key of this number, and changes it: whoever is well answers.
    pub fn ask_for(&mut self, now: u64, history: &mut History, key: u64, kind: Kind) {
        self.look_for(now, history, key, kind);
        self.change(now, history, key, kind);
    }

    /// Reads the key of this number.
    pub fn look_for(&mut self, now: u64, history: &mut History, key: u64, kind: Kind) {
        let key = self.name(kind, key);
        match kind {
            Kind::Text | Kind::Number => self.one(now, history, &key, Ask::Get, &["GET", &key]),
            Kind::List => self.one(now, history, &key, Ask::Items, &["LRANGE", &key, "0", "-1"]),
        }
    }

    /// Changes the key of this number, so that it does not expire any more.
    pub fn change(&mut self, now: u64, history: &mut History, key: u64, kind: Kind) {
        let value = Client::fresh(history);
        let key = self.name(kind, key);
        match kind {
            Kind::Text => {
                let ask = Ask::Set { value: value.clone().into(), expires: false };
                self.one(now, history, &key, ask, &["SET", &key, &value]);
            }
            Kind::Number => self.one(now, history, &key, Ask::Increment, &["INCR", &key]),
            Kind::List => {
                self.one(now, history, &key, Ask::Push(value.clone().into()), &["RPUSH", &key, &value]);
            }
        }
    }

    /// Bytes came. How many replies were answers, and whether all were.
    ///
    /// # Errors
    /// A reply that nobody may be given.
    pub fn told(&mut self, now: u64, bytes: &[u8], history: &mut History) -> Result<(u64, bool), String> {
        self.inbox.extend_from_slice(bytes);
        let (mut answers, mut all) = (0, true);
        while let Some(end) = reply::first(&self.inbox)? {
            let whole: Vec<u8> = self.inbox.drain(..end).collect();
            let Some(pending) = self.pending.pop_front() else {
                return Err(format!("{} answers nothing that was asked", reply::shown(&whole)));
            };
            self.waits_since = now;
            if self.pending.is_empty() {
                self.blocks = 0;
            }
            let answered = self.reply(now, pending, &whole, history)?;
            answers += u64::from(answered);
            all &= answered;
        }
        Ok((answers, all))
    }

    fn reply(
        &mut self,
        now: u64,
        pending: Pending,
        whole: &[u8],
        history: &mut History,
    ) -> Result<bool, String> {
        let error = if whole.starts_with(b"-") { Some(fault(whole)?) } else { None };
        match (pending, error) {
            (Pending::Word, _) => return Ok(true),
            (Pending::Operation(place), Some(told)) => history.end(&place, now, told),
            (Pending::Look(place), Some(told)) => {
                history.end(&place, now, told);
                self.say(now, &["UNWATCH"], Pending::Word);
            }
            (Pending::Exchange(place), Some(told)) => history.end(&place, now, told),
            (Pending::Operation(place), None) => {
                let ask = &history.entry(&place).operation.ask;
                let told = match answer(ask, whole)? {
                    Some(answer) => Told::Answer(answer),
                    None => Told::NotRun,
                };
                history.end(&place, now, told);
                return Ok(true);
            }
            (Pending::Look(place), None) => {
                let Some(Answer::Text(old)) = answer(&Ask::Get, whole)? else {
                    return Err(format!("GET is answered {}", reply::shown(whole)));
                };
                history.end(&place, now, Told::Answer(Answer::Text(old.clone())));
                let new = Client::fresh(history);
                let key = place.0.1.clone();
                self.say(now, &["MULTI"], Pending::Word);
                self.say(now, &["SET", &key, &new], Pending::Word);
                let place = history.ask(self.number, place.0, Ask::Exchange { old, new: new.into() }, now);
                self.say(now, &["EXEC"], Pending::Exchange(place));
                return Ok(true);
            }
            (Pending::Exchange(place), None) => {
                let told = match whole {
                    b"*1\r\n+OK\r\n" => Told::Answer(Answer::Exchanged),
                    b"*-1\r\n" => Told::NotRun,
                    other => return Err(format!("EXEC is answered {}", reply::shown(other))),
                };
                history.end(&place, now, told);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
