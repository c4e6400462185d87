//! The moment at which a keyspace's partitions are backed up together: who leads each of them is asked to propose nothing
//! more, and only when all have said up to which entry they have come do any of them go on.
//!
//! So there is a moment at which every partition stood still, and what any of them acknowledged before it is within what it
//! said. A write that was sent after another was acknowledged is in a backup only with that other. Writers wait from their
//! leader's hold until its confirmation begins: no entry is waited for, and no disk. What is decided when is
//! [`server::moment`]'s; here are the connections, and the patience.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use server::backup::Keyspace;
use server::kernel::{GroupId, Index, Micros, Millis, Term};
use server::moment::{Act, Attempt, Failure, Heard, Wanted};
use server::standstill::Still;

use super::party::Party;
use super::source::{ENDED, NOT_FOUND, Source};
use crate::admin::Line;
use crate::moment::now;

/// How long leaders stand still at most, in milliseconds, if they are not told to go on.
const HOLD_MS: u64 = 400;
/// How long their confirmation may take, in milliseconds: writers go on meanwhile.
const CONFIRM_MS: u64 = 5000;
/// How much longer than that an answer may be on its way.
const WAY_MAX: Duration = Duration::from_secs(2);
/// Attempts for a keyspace of several partitions; writers wait so many times [`HOLD_MS`] at most.
const ATTEMPTS_MAX: u32 = 5;
/// The pause behind the first attempt; it doubles with each, as a leader may have to be elected.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause is so many times as long as writers waited, at least.
const PAUSE_RATIO: u32 = 3;

/// Up to where a keyspace's partitions belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// When they stood still, by this machine's clock.
    pub moment: Millis,
    /// How far the clocks of the nodes may differ from this machine's, in milliseconds: the largest difference that was
    /// seen, and what the way there and back leaves open.
    pub skew_ms: u64,
    /// Each partition of the keyspace, once: which of the nodes that were asked led it, and where it stood. All up to its
    /// `index` is committed, and applied at that node.
    pub groups: BTreeMap<GroupId, (usize, Still)>,
}

/// The connections to the nodes that are asked, kept from one keyspace to the next.
pub struct Lines {
    /// Those of the party, in its order.
    lines: Vec<Line>,
    /// Who gave no answer, and why: they are asked no more. What they led, another one leads, or will.
    lost: BTreeMap<usize, String>,
}

/// What a node answered to a hold.
struct Held {
    stills: Vec<Still>,
    /// How far its clock may be from this machine's, in milliseconds.
    skew_ms: u64,
}

/// An attempt that came to nothing.
struct Missed {
    /// Why, for the operator.
    why: String,
    /// How long writers may have waited.
    stood: Duration,
    /// Another one would be no better.
    for_good: bool,
}

impl Lines {
    /// Connects to nobody yet.
    pub(super) fn new(party: &Party) -> Lines {
        let lines = party.sources.iter().map(|it| Line::new(it.address, it.password.clone())).collect();
        let why = |it: &Source| Some(party.absent.get(&it.address)?.clone());
        let lost = party.sources.iter().enumerate().filter_map(|(at, it)| Some((at, why(it)?)));
        Lines { lines, lost: lost.collect() }
    }

    /// Who gave no answer, by its place in the party, and why.
    pub fn lost(self) -> BTreeMap<usize, String> {
        self.lost
    }

    /// Those who are asked.
    fn here(&self) -> BTreeSet<usize> {
        (0..self.lines.len()).filter(|at| !self.lost.contains_key(at)).collect()
    }

    /// Marks the partitions of `keyspace`, all at one moment, each at `at_least` or later.
    ///
    /// Writers of the keyspace wait some milliseconds, if it has several partitions; none fails. Then it tries anew if a leader
    /// changes meanwhile, or a node is slow; without those that give no answer.
    ///
    /// # Errors
    /// There was no such moment: the text names the partition, the node and the reason. Nobody is held then.
    pub fn mark(
        &mut self,
        keyspace: Keyspace,
        at_least: &BTreeMap<GroupId, Index>,
        ended: &dyn Fn() -> bool,
    ) -> Result<Marked> {
        let mut pause = PAUSE;
        // One partition alone is as good at its checkpoint, so whoever asks need not wait for its leader.
        let attempts = if keyspace.partitions > 1 { ATTEMPTS_MAX } else { 1 };
        for left in (0..attempts).rev() {
            ensure!(!ended(), ENDED);
            let ticket = RandomState::new().hash_one(keyspace.id.0);
            let missed = match self.attempt(keyspace, at_least, ticket) {
                Ok(marked) => return Ok(marked),
                Err(missed) => missed,
            };
            if missed.for_good || left == 0 {
                let tried = attempts - left;
                bail!(
                    "keyspace {} could not be held at one moment in {tried} attempts: {}; `--loose` backs up each \
                     partition at its own moment",
                    keyspace.id,
                    missed.why
                );
            }
            let pause_now = pause.max(missed.stood * PAUSE_RATIO);
            // Somebody else may try in step with this.
            std::thread::sleep(pause_now + pause_now.mul_f64((ticket % 256) as f64 / 512.0));
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(
        &mut self,
        keyspace: Keyspace,
        at_least: &BTreeMap<GroupId, Index>,
        ticket: u64,
    ) -> Result<Marked, Missed> {
        // Whoever is first held is not to wait for a connection to another.
        for (source, opened) in self.at_once(&self.here(), |line| line.open(WAY_MAX)) {
            self.lost.extend(opened.err().map(|error| (source, error.root_cause().to_string())));
        }
        let wanted =
            Wanted { keyspace: keyspace.id, partitions: keyspace.partitions, at_least: at_least.clone() };
        let mut attempt = Attempt::new(wanted, self.lines.len());
        // A partition that is alone belongs together with itself at any moment.
        let ms = if keyspace.partitions > 1 { HOLD_MS } else { 0 };
        let path = format!("/backup/hold?ticket={ticket}&keyspace={}&ms={ms}", keyspace.id.0);
        let began = Instant::now();
        let (mut acts, mut skew_ms, mut for_good) = (Vec::new(), 0, false);
        // Who is not asked holds nothing. If it leads after all, nobody else does, or can confirm it.
        for &source in self.lost.keys() {
            acts.extend(attempt.next(now(), Heard::Held { source, said: Ok(Vec::new()) }));
        }
        // All have answered when this is done, which is what the machine waits for too.
        for (source, said) in self.at_once(&self.here(), |line| hold(line, &path, ms)) {
            let said = match said {
                Ok(held) => {
                    skew_ms = skew_ms.max(held.skew_ms);
                    Ok(held.stills)
                }
                Err(Refused { why, fault }) => {
                    for_good |= fault == Fault::Version;
                    // The next attempt does without.
                    self.lost.extend((fault == Fault::Silence).then(|| (source, why.clone())));
                    Err(why)
                }
            };
            acts.extend(attempt.next(now(), Heard::Held { source, said }));
        }
        let stood = began.elapsed();
        let is_asked = |act: &Act| if let Act::Confirm(source) = act { Some(*source) } else { None };
        let asked: BTreeSet<usize> = acts.iter().filter_map(is_asked).collect();
        let path = format!("/backup/confirm?ticket={ticket}&ms={CONFIRM_MS}");
        for (source, said) in self.at_once(&asked, |line| confirm(line, &path)) {
            let said = said.map_err(|error| format!("{error:#}"));
            acts.extend(attempt.next(now(), Heard::Confirmed { source, said }));
        }
        self.end(acts, ticket, skew_ms).map_err(|why| Missed { why, stood, for_good })
    }

    /// Does what is left to do, and says how it ended.
    fn end(&mut self, acts: Vec<Act>, ticket: u64, skew_ms: u64) -> Result<Marked, String> {
        let mut leaves = BTreeSet::new();
        let mut ended = None;
        for act in acts {
            match act {
                Act::Confirm(_) => {}
                Act::Leave(source) => drop(leaves.insert(source)),
                Act::Done(marked) => {
                    ended = Some(Ok(Marked { moment: marked.moment, skew_ms, groups: marked.groups }));
                }
                Act::Fail(failure) => ended = Some(Err(self.told(&failure))),
            }
        }
        let path = format!("/backup/leave?ticket={ticket}");
        // Who does not hear it goes on by itself, soon.
        leaves.retain(|source| !self.lost.contains_key(source));
        drop(self.at_once(&leaves, |line| line.ask(&path, b"", WAY_MAX)));
        ended.expect("an attempt ends when all that were asked have been heard")
    }

    fn told(&self, failure: &Failure) -> String {
        match failure.node().and_then(|node| self.lines.get(node)) {
            Some(line) => format!("the node at {}: {failure}", line.address()),
            None => format!("{failure}: name the admin ports of all members with --also"),
        }
    }

    /// Asks these nodes at the same time.
    fn at_once<T: Send>(
        &mut self,
        which: &BTreeSet<usize>,
        ask: impl Fn(&mut Line) -> T + Sync,
    ) -> Vec<(usize, T)> {
        let ask = &ask;
        std::thread::scope(|scope| {
            let lines = self.lines.iter_mut().enumerate().filter(|(source, _)| which.contains(source));
            let asked: Vec<_> =
                lines.map(|(source, line)| (source, scope.spawn(move || ask(line)))).collect();
            let said = |(source, thread): (usize, std::thread::ScopedJoinHandle<'_, T>)| {
                (source, thread.join().expect("asking does not panic"))
            };
            asked.into_iter().map(said).collect()
        })
    }
}

/// Why a node does not hold what it leads.
struct Refused {
    why: String,
    fault: Fault,
}

/// What lies behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It gave no answer in time.
    Silence,
    /// It does not know of holding.
    Version,
    /// It is in no state to, now.
    State,
}

fn hold(line: &mut Line, path: &str, ms: u64) -> Result<Held, Refused> {
    let sent = now();
    let said = line.ask(path, b"", Duration::from_millis(ms) + WAY_MAX);
    let got = now();
    let said =
        said.map_err(|error| Refused { why: error.root_cause().to_string(), fault: Fault::Silence })?;
    if said.code() == NOT_FOUND {
        let why = "it cannot hold writes, as it runs an older archipel: exchange it".to_owned();
        return Err(Refused { why, fault: Fault::Version });
    }
    let refused = |error: anyhow::Error| Refused { why: format!("{error:#}"), fault: Fault::State };
    let (body, _) = said.good("").map_err(refused)?;
    held(&body, sent, got).context("what it holds is not understood").map_err(refused)
}

fn held(body: &[u8], sent: Millis, got: Millis) -> Option<Held> {
    let told: Value = serde_json::from_slice(body).ok()?;
    let clock = told["clock_us"].as_u64()? / 1000;
    let (middle, way) = (u64::midpoint(sent.0, got.0), got.0.saturating_sub(sent.0));
    // Each clock was cut down to milliseconds.
    let skew_ms = clock.abs_diff(middle).saturating_add(way.div_ceil(2) + 1);
    Some(Held { stills: stills(&told)?, skew_ms })
}

fn confirm(line: &mut Line, path: &str) -> Result<Vec<Still>> {
    let said = line.ask(path, b"", Duration::from_millis(CONFIRM_MS) + WAY_MAX)?;
    let (body, _) = said.good("")?;
    let told: Value = serde_json::from_slice(&body).context("the node's answer is not JSON")?;
    stills(&told).context("what it confirms is not understood")
}

/// The partitions that a node names.
fn stills(told: &Value) -> Option<Vec<Still>> {
    let one = |it: &Value| {
        let number = |at: usize| it[at].as_u64();
        Some(Still {
            group: GroupId(u32::try_from(number(0)?).ok()?),
            index: Index(number(1)?),
            term: Term(number(2)?),
            applied: Index(number(3)?),
            time: Micros(number(4)?),
        })
    };
    told["groups"].as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use serde_json::json;
    use server::kernel::KeyspaceId;

    use super::*;

    /// A node that answers every request with this, on as many connections as are made; and one that takes connections and
    /// answers nothing.
    fn node(answer: Option<&'static str>) -> Source {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let source = Source { address: listener.local_addr().unwrap(), password: None };
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(answer) = answer else {
                    silent.push(stream);
                    continue;
                };
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                    let mut writer = stream;
                    // The requests have no bodies.
                    while lines.any(|line| line.is_empty()) {
                        writer.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        source
    }

    fn party(sources: Vec<Source>) -> Party {
        let told = |_: &Source| super::super::source::Told {
            origin: server::backup::Origin { id: [1; 16], is_cluster: true },
            keyspaces: Vec::new(),
            copies: Vec::new(),
        };
        Party {
            told: sources.iter().map(told).collect(),
            keeping: vec![true; sources.len()],
            sources,
            absent: BTreeMap::new(),
            given_up: BTreeMap::new(),
        }
    }

    const REFUSES: &str = "HTTP/1.1 409 Conflict\r\ncontent-length: 25\r\n\r\npartition 9/0: it is busy";
    const OLDER: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    const LEADS_NOTHING: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n{\"schema\":1,\"clock_us\":5000000,\"groups\":[]}";

    #[test]
    fn why_there_was_no_moment_is_said_with_the_node_that_it_lies_with() {
        #[rustfmt::skip] // columns
        let table = [
            // the second node  partitions  attempts  what is said                       is it lost
            (Some(REFUSES),     1,          1,        "partition 9/0: it is busy",       false),
            (Some(OLDER),       1,          1,        "older archipel: exchange it",     false),
            // Nothing is tried again with it.
            (Some(OLDER),       2,          1,        "older archipel: exchange it",     false),
            (Some(LEADS_NOTHING), 1,        1,        "nobody who was asked leads",      false),
            (None,              1,          1,        "it took too long",                true),
        ];
        for (row, (answer, partitions, attempts, why, is_lost)) in table.into_iter().enumerate() {
            let party = party(vec![node(Some(LEADS_NOTHING)), node(answer)]);
            let address = party.sources[1].address.to_string();
            let keyspace = Keyspace { id: KeyspaceId(9), partitions, mark: None };
            let mut lines = Lines::new(&party);
            let error = lines.mark(keyspace, &BTreeMap::new(), &|| false).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains(&format!("in {attempts} attempts")),
                "row {row}: {error}"
            );
            assert!(error.contains(&address) || answer == Some(LEADS_NOTHING), "row {row}: {error}");
            assert_eq!(lines.lost().contains_key(&1), is_lost, "row {row}");
        }
    }

    #[test]
    fn whoever_gave_no_answer_is_asked_for_no_further_keyspace() {
        let mut party = party(vec![node(Some(LEADS_NOTHING)), node(Some(REFUSES))]);
        party.is_gone(1, "it is dead".to_owned());
        let mut lines = Lines::new(&party);
        let keyspace = Keyspace { id: KeyspaceId(9), partitions: 1, mark: None };
        let error = lines.mark(keyspace, &BTreeMap::new(), &|| false).unwrap_err().to_string();
        assert!(error.contains("nobody who was asked leads partition 9/0"), "{error}");
        assert_eq!(lines.lost(), BTreeMap::from([(1, "it is dead".to_owned())]));
    }

    #[test]
    fn what_a_node_holds_is_understood_or_refused() {
        let good = json!({"schema": 1, "clock_us": 5_000_999, "groups": [[589_826, 7, 2, 6, 4_000_000]]});
        let of =
            |told: &Value, sent: u64, got: u64| held(told.to_string().as_bytes(), Millis(sent), Millis(got));
        let held = of(&good, 5000, 5000).unwrap();
        let group = GroupId::new(KeyspaceId(9), 2);
        let (index, applied) = (Index(7), Index(6));
        assert_eq!(held.stills, [Still { group, index, term: Term(2), applied, time: Micros(4_000_000) }]);
        #[rustfmt::skip] // columns
        let table = [
            // sent  got   may differ by
            (5000, 5000, 1),
            (4990, 5010, 11),
            (5000, 5021, 22), // the middle is 5010
            (9000, 9000, 4001),
            (9000, 8000, 3501), // the clock was set back
        ];
        for (sent, got, skew_ms) in table {
            assert_eq!(of(&good, sent, got).unwrap().skew_ms, skew_ms, "{sent} {got}");
        }
        type Change = fn(&mut Value);
        let changes: [Change; 5] = [
            |it| it["clock_us"] = Value::Null,
            |it| it["groups"] = 1.into(),
            |it| it["groups"][0] = json!([1, 2, 3, 4]),
            |it| it["groups"][0][0] = (1_u64 << 32).into(),
            |it| it["groups"][0][1] = (-1).into(),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            let mut it = good.clone();
            change(&mut it);
            assert!(of(&it, 0, 0).is_none(), "row {row}");
        }
    }
}
