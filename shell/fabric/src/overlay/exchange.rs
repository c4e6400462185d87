//! What we ask and tell on its way: a line to each peer for each protocol, a few streams on it, and patience that ends.
//!
//! A stream carries one question at a time and is used again for the next. One that had rested may have been given up
//! by its peer meanwhile: a question that finds it so is asked once more, on a fresh one.

use std::collections::{BTreeSet, HashMap, VecDeque};

use futures::AsyncWriteExt;
use kernel::Micros;
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{DialError, Stream, Swarm};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::behaviour::Behaviour;
use super::directory::{Contact, Directory};
use super::frames::Frames;
use super::streams::{Spoken, Ticket};

/// Streams of ours to one peer at once, in one protocol.
pub(super) const PEER_STREAMS_MAX: usize = 4;
/// How long a question may take with all that it needs: a dial, a stream, the answer.
pub(super) const PATIENCE_MS: u64 = 10_000;
/// A stream that was not used for this long is closed: peers close theirs after ten seconds.
const REST_MS: u64 = 5_000;

/// Most that is told and not asked that waits at once; further is left out, as any may be.
pub(super) const TELLS_MAX: usize = 1024;

/// To whom, and in which protocol.
pub(super) type Way = (Contact, Spoken);

/// Our name for a question on its way, or for something told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Errand(pub u64);

/// How an errand ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With this answer, without its length; empty for what was only told.
    Answered(Vec<u8>),
    /// The peer closed or reset the stream in place of an answer.
    Refused,
    /// The peer is out of reach, does not serve, or took too long. It may have heard.
    Failed,
}

/// What a task on a stream tells.
#[derive(Debug)]
pub(super) struct Returned {
    way: Way,
    errand: Errand,
    result: Result<(Vec<u8>, Option<Stream>), ()>,
}

#[derive(Debug)]
struct Underway {
    way: Way,
    bytes: Vec<u8>,
    wants_answer: bool,
    deadline: Micros,
    /// The task that has it, if it is on a stream; and whether that stream had rested before.
    task: Option<(AbortHandle, Used)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    First,
    Again,
}

#[derive(Debug, Default)]
struct Line {
    /// Streams asked for and not there yet.
    opening: usize,
    /// Streams with an errand.
    busy: usize,
    /// Streams without one, and since when; the last used is the last.
    resting: Vec<(Stream, Micros)>,
    waiting: VecDeque<Errand>,
    dialling: bool,
}

/// All lines of a node.
#[derive(Debug)]
pub(super) struct Exchange {
    lines: HashMap<Way, Line>,
    tells: usize,
    errands: HashMap<Errand, Underway>,
    deadlines: BTreeSet<(Micros, Errand)>,
    returns: mpsc::Sender<Returned>,
    ended: Vec<(Contact, Errand, Ended)>,
}

impl Exchange {
    /// One without errands, whose tasks tell `returns`.
    pub fn new(returns: mpsc::Sender<Returned>) -> Exchange {
        Exchange {
            lines: HashMap::new(),
            tells: 0,
            errands: HashMap::new(),
            deadlines: BTreeSet::new(),
            returns,
            ended: Vec::new(),
        }
    }

    /// True if nothing more may be told for now: what is asked is bounded by who asks.
    pub const fn is_full(&self) -> bool {
        self.tells >= TELLS_MAX
    }

    /// Sends `bytes` to a peer, over a connection that is dialled if there is none.
    pub fn begin(
        &mut self,
        now: Micros,
        net: &mut Net<'_>,
        (errand, way): (Errand, Way),
        bytes: Vec<u8>,
        wants_answer: bool,
    ) {
        let deadline = now.plus_millis(PATIENCE_MS);
        self.deadlines.insert((deadline, errand));
        self.tells += usize::from(!wants_answer);
        self.errands.insert(errand, Underway { way, bytes, wants_answer, deadline, task: None });
        self.lines.entry(way).or_default().waiting.push_back(errand);
        self.drive(net, way);
    }

    /// What has ended since this was last asked.
    pub fn take_ended(&mut self) -> Vec<(Contact, Errand, Ended)> {
        std::mem::take(&mut self.ended)
    }

    /// Peers that something is on its way to.
    pub fn peers(&self) -> impl Iterator<Item = Contact> {
        self.lines.keys().map(|(to, _)| *to)
    }

    fn ways(&self, to: Contact) -> Vec<Way> {
        let all = Spoken::ALL.into_iter().map(|spoken| (to, spoken));
        all.filter(|way| self.lines.contains_key(way)).collect()
    }

    /// Gives what waits a stream, asks for more streams, or for a connection.
    fn drive(&mut self, net: &mut Net<'_>, way: Way) {
        let (to, spoken) = way;
        let Some(line) = self.lines.get_mut(&way) else { return };
        let Some(peer) = net.directory.get(to) else { return };
        if peer.connections == 0 {
            line.resting.clear();
            if line.waiting.is_empty() || line.dialling {
                return;
            }
            let dial = DialOpts::peer_id(peer.id)
                .addresses(peer.dialable())
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            match net.swarm.dial(dial) {
                // One that goes on already, or has just come through, will do.
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => line.dialling = true,
                Err(_) => self.unreachable(to),
            }
            return;
        }
        while let Some((stream, errand)) = matched(&mut line.resting, &mut line.waiting) {
            launch(&mut self.errands, line, &self.returns, errand, (stream, Used::Again));
        }
        let most = PEER_STREAMS_MAX - (line.busy + line.opening).min(PEER_STREAMS_MAX);
        for _ in 0..line.waiting.len().saturating_sub(line.opening).min(most) {
            line.opening += 1;
            net.swarm.behaviour_mut().streams.open(peer.id, Ticket::Line(to, spoken), spoken.protocol());
        }
    }

    /// A connection to the peer is there.
    pub fn connected(&mut self, net: &mut Net<'_>, to: Contact) {
        for way in self.ways(to) {
            if let Some(line) = self.lines.get_mut(&way) {
                line.dialling = false;
                self.drive(net, way);
            }
        }
    }

    /// Dialling the peer came to nothing.
    pub fn unreachable(&mut self, to: Contact) {
        for way in self.ways(to) {
            let Some(line) = self.lines.get_mut(&way) else { continue };
            line.dialling = false;
            let waiting = std::mem::take(&mut line.waiting);
            waiting.into_iter().for_each(|errand| self.end(errand, Ended::Failed));
            self.tidy(way);
        }
    }

    /// The last connection to the peer is gone, and with it all its streams. What waits is dialled for.
    pub fn parted(&mut self, net: &mut Net<'_>, to: Contact) {
        for way in self.ways(to) {
            if let Some(line) = self.lines.get_mut(&way) {
                line.opening = 0;
                line.resting.clear();
                self.drive(net, way);
            }
        }
    }

    /// A stream that was asked for is there, or will not be.
    pub fn opened(&mut self, now: Micros, net: &mut Net<'_>, way: Way, stream: Option<Stream>) {
        let Some(line) = self.lines.get_mut(&way) else { return };
        line.opening = line.opening.saturating_sub(1);
        match (stream, line.waiting.pop_front()) {
            (Some(stream), Some(errand)) => {
                launch(&mut self.errands, line, &self.returns, errand, (stream, Used::First));
            }
            (Some(stream), None) => line.resting.push((stream, now)),
            (None, Some(errand)) => {
                self.end(errand, Ended::Failed);
                self.drive(net, way);
            }
            (None, None) => {}
        }
        self.tidy(way);
    }

    /// A task has come back.
    pub fn returned(&mut self, now: Micros, net: &mut Net<'_>, returned: Returned) {
        let Returned { way, errand, result } = returned;
        let Some(underway) = self.errands.get_mut(&errand) else { return };
        let Some((_, used)) = underway.task.take() else { return };
        let Some(line) = self.lines.get_mut(&way) else { return };
        line.busy -= 1;
        match (result, used) {
            (Ok((answer, stream)), _) => {
                line.resting.extend(stream.map(|stream| (stream, now)));
                self.end(errand, Ended::Answered(answer));
            }
            (Err(()), Used::Again) => {
                // Those that rest beside it are likely to have gone with it.
                line.resting.clear();
                line.waiting.push_front(errand);
            }
            (Err(()), Used::First) => self.end(errand, Ended::Refused),
        }
        self.drive(net, way);
        self.tidy(way);
    }

    /// When [`Exchange::wake`] must next be called.
    pub fn deadline(&self) -> Option<Micros> {
        let patience = self.deadlines.first().map(|(at, _)| *at);
        let rest = self.lines.values().filter_map(|line| line.resting.first());
        let rest = rest.map(|(_, since)| since.plus_millis(REST_MS)).min();
        [patience, rest].into_iter().flatten().min()
    }

    /// Ends what took too long, and closes streams that rested too long.
    pub fn wake(&mut self, now: Micros, net: &mut Net<'_>) {
        while let Some(&(at, errand)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, errand));
            let Some(underway) = self.errands.get_mut(&errand) else { continue };
            let (way, task) = (underway.way, underway.task.take());
            if let Some(line) = self.lines.get_mut(&way) {
                line.waiting.retain(|other| *other != errand);
                line.busy -= usize::from(task.is_some());
            }
            if let Some((task, _)) = task {
                task.abort();
            }
            self.end(errand, Ended::Failed);
            self.drive(net, way);
            self.tidy(way);
        }
        self.lines.retain(|_, line| {
            line.resting.retain(|(_, since)| since.plus_millis(REST_MS) > now);
            !line.is_over()
        });
    }

    fn end(&mut self, errand: Errand, ended: Ended) {
        if let Some(underway) = self.errands.remove(&errand) {
            self.deadlines.remove(&(underway.deadline, errand));
            self.tells -= usize::from(!underway.wants_answer);
            self.ended.push((underway.way.0, errand, ended));
        }
    }

    fn tidy(&mut self, way: Way) {
        if self.lines.get(&way).is_some_and(Line::is_over) {
            self.lines.remove(&way);
        }
    }
}

impl Line {
    fn is_over(&self) -> bool {
        self.opening == 0 && self.busy == 0 && self.resting.is_empty() && self.waiting.is_empty()
    }
}

/// The stream that was used last, for who waits longest; nothing is taken from either if the other is empty.
fn matched<S>(resting: &mut Vec<(S, Micros)>, waiting: &mut VecDeque<Errand>) -> Option<(S, Errand)> {
    if resting.is_empty() {
        return None;
    }
    let errand = waiting.pop_front()?;
    resting.pop().map(|(stream, _)| (stream, errand))
}

/// What the exchange acts on.
pub(super) struct Net<'a> {
    pub swarm: &'a mut Swarm<Behaviour>,
    pub directory: &'a Directory,
}

/// Sends an errand on its way over `stream`.
fn launch(
    errands: &mut HashMap<Errand, Underway>,
    line: &mut Line,
    returns: &mpsc::Sender<Returned>,
    errand: Errand,
    (stream, used): (Stream, Used),
) {
    let Some(underway) = errands.get_mut(&errand) else { return };
    let (way, bytes, wants_answer) = (underway.way, underway.bytes.clone(), underway.wants_answer);
    let returns = returns.clone();
    let task = tokio::spawn(async move {
        let result = converse(stream, &bytes, wants_answer).await.map_err(|error| {
            tracing::debug!(%error, "a question was not answered");
        });
        // The host that does not listen any more has ended.
        let _ = returns.send(Returned { way, errand, result }).await;
    });
    underway.task = Some((task.abort_handle(), used));
    line.busy += 1;
}

/// Sends `bytes` and reads the answer. Gives the stream back if it is good for another question.
async fn converse(
    mut stream: Stream,
    bytes: &[u8],
    wants_answer: bool,
) -> std::io::Result<(Vec<u8>, Option<Stream>)> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    if !wants_answer {
        return Ok((Vec::new(), Some(stream)));
    }
    let mut frames = Frames::default();
    let answer = frames.next(&mut stream).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    // Nobody may answer what was not asked.
    let keep = (!frames.has_rest()).then_some(stream);
    Ok((answer, keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_rests_until_something_waits_and_waiting_goes_on_until_one_rests() {
        let mut resting = vec![('a', Micros(1)), ('b', Micros(2))];
        let mut waiting = VecDeque::new();
        assert_eq!(matched(&mut resting, &mut waiting), None);
        assert_eq!(resting.len(), 2);
        waiting.extend([Errand(1), Errand(2), Errand(3)]);
        assert_eq!(matched(&mut resting, &mut waiting), Some(('b', Errand(1))));
        assert_eq!(matched(&mut resting, &mut waiting), Some(('a', Errand(2))));
        assert_eq!(matched(&mut resting, &mut waiting), None);
        assert_eq!(waiting, [Errand(3)]);
    }
}
