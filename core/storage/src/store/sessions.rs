//! What other nodes' forwarded writes were answered, so that one that is sent again is not done again.
//!
//! A node that forwards a write numbers it (a [`Tag`]). If it hears nothing, it sends the same again, perhaps to
//! another replica: the partition then gives the answer that it gave. Only the origin knows which answers
//! arrived; each tag says so, and what is behind that is forgotten. A window of [`WINDOW_MAX`] numbers is kept for
//! each origin. The scheme is that of client sessions in Raft (Ongaro's dissertation, 6.3).
//!
//! All of it is state: logged tags change it, checkpoints and snapshots carry it. Otherwise a new leader could do
//! again what the old one did.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use kernel::planted::{Bug, is};
use kernel::{Index, NodeId};

use crate::Fault;
use crate::recorded;
use crate::store::Store;

/// Numbers that a partition remembers of one origin. An origin waits before it lets that many be unanswered.
pub const WINDOW_MAX: u64 = 4096;
/// The longest answer that is kept, in bytes as recorded.
pub const ANSWER_BYTES_MAX: usize = 1024;
/// Bytes of answers that are kept of one origin; the oldest are given up first.
pub const ANSWERS_BYTES_MAX: usize = 256 * 1024;
/// Origins that a partition remembers: more than a cluster has members. At the limit the one is forgotten that
/// has been silent for the most entries.
pub const ORIGINS_MAX: usize = 2048;

/// The write was done by an earlier try, and what it was answered is not there.
const ANSWER_GONE: Fault = Fault::Text(
    "UNKNOWN this write was done, but what it was answered was too much to be kept for a second try",
);

/// It is older than the window.
const FORGOTTEN: Fault =
    Fault::Text("UNKNOWN whether this write was done is not known any more; read before you write it again");

/// A node that forwards: the first eight bytes of its key, which are as good as random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginId(pub [u8; 8]);

impl OriginId {
    /// That of `node`.
    #[must_use]
    pub fn of(node: NodeId) -> OriginId {
        let mut id = [0; 8];
        id.copy_from_slice(&node.0[..8]);
        OriginId(id)
    }
}

/// Which write it is, of all that its origin forwards to the partition.
///
/// Invariant: `1 <= oldest <= sequence < oldest + WINDOW_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Who forwards it.
    pub origin: OriginId,
    /// Which life of the origin: each start has a higher number.
    pub incarnation: u64,
    /// Its number among those of this life for this partition, from 1.
    pub sequence: u64,
    /// The lowest number whose answer the origin still waits for. It will not send lower ones again.
    pub oldest: u64,
    /// The answer is shaped for RESP3.
    pub resp3: bool,
}

impl Tag {
    /// Appends it to `out`.
    ///
    /// # Panics
    /// If its invariant does not hold.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!((1..=self.sequence).contains(&self.oldest), "numbers begin at 1 and are waited for in order");
        assert!(self.sequence - self.oldest < WINDOW_MAX, "an origin waits at the end of its window");
        out.extend_from_slice(&self.origin.0);
        put_varint(out, self.incarnation);
        put_varint(out, self.sequence);
        put_varint(out, (self.sequence - self.oldest) << 1 | u64::from(self.resp3));
    }

    /// Reads what [`Tag::encode`] wrote, and nothing behind it.
    ///
    /// # Errors
    /// It is cut, or breaks the invariant.
    pub fn decode(bytes: &[u8]) -> Result<Tag, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tag = Tag::read(&mut reader)?;
        if reader.is_empty() { Ok(tag) } else { Err(DecodeError::Invalid) }
    }

    /// Reads what [`Tag::encode`] wrote.
    ///
    /// # Errors
    /// As [`Tag::decode`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Tag, DecodeError> {
        let origin = OriginId(reader.array()?);
        let (incarnation, sequence, rest) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let lag = rest >> 1;
        if lag >= WINDOW_MAX || lag >= sequence {
            return Err(DecodeError::Invalid);
        }
        Ok(Tag { origin, incarnation, sequence, oldest: sequence - lag, resp3: rest & 1 == 1 })
    }
}

/// What is known of a tagged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was not done.
    New,
    /// It was, and was answered this, as [recorded].
    Done(Box<[u8]>),
    /// What to answer: it was done and its answer is gone, or nobody knows.
    Gone(Fault),
}

/// What is remembered of one origin.
///
/// Invariant: all keys of `answers` are in `floor..=highest` and `highest - floor < WINDOW_MAX`; `bytes` is what
/// the answers take, and at most [`ANSWERS_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
struct Window {
    incarnation: u64,
    /// Lower numbers are forgotten.
    floor: u64,
    /// The highest number seen.
    highest: u64,
    /// The last entry that had a write of it.
    used: Index,
    /// `None`: done, and the answer is not kept.
    answers: BTreeMap<u64, Option<Box<[u8]>>>,
    bytes: usize,
}

impl Window {
    const fn new(incarnation: u64) -> Window {
        Window { incarnation, floor: 1, highest: 0, used: Index(0), answers: BTreeMap::new(), bytes: 0 }
    }

    /// Forgets what is below `floor`.
    fn raise(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        while let Some(first) = self.answers.first_entry().filter(|entry| *entry.key() < floor) {
            self.bytes -= first.remove().map_or(0, |answer| answer.len());
        }
    }

    fn keep(&mut self, sequence: u64, answer: Option<Box<[u8]>>) {
        self.bytes += answer.as_ref().map_or(0, |answer| answer.len());
        if let Some(Some(before)) = self.answers.insert(sequence, answer) {
            self.bytes -= before.len();
        }
        if self.bytes > ANSWERS_BYTES_MAX {
            self.give_up_answers();
        }
    }

    /// The oldest answers go; that their writes were done stays known.
    fn give_up_answers(&mut self) {
        for answer in self.answers.values_mut() {
            if self.bytes <= ANSWERS_BYTES_MAX / 2 {
                return;
            }
            self.bytes -= answer.take().map_or(0, |answer| answer.len());
        }
    }
}

/// What a partition remembers of all origins.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    origins: BTreeMap<OriginId, Window>,
}

impl Sessions {
    /// Origins that are remembered.
    #[must_use]
    pub fn origins(&self) -> usize {
        self.origins.len()
    }

    /// Answers and marks that are remembered, of all origins.
    #[must_use]
    pub fn len(&self) -> usize {
        self.origins.values().map(|window| window.answers.len()).sum()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a write with this tag was done, or nobody knows: it will not be done when it is applied now.
    #[must_use]
    pub fn knows(&self, tag: &Tag) -> bool {
        self.look(tag) != Seen::New
    }

    /// What is known of the write of `tag`.
    pub(crate) fn look(&self, tag: &Tag) -> Seen {
        let Some(window) = self.origins.get(&tag.origin) else { return Seen::New };
        if tag.incarnation > window.incarnation || is(Bug::WindowNotConsulted) {
            return Seen::New;
        }
        if tag.incarnation < window.incarnation || tag.sequence < window.floor {
            return Seen::Gone(FORGOTTEN);
        }
        match window.answers.get(&tag.sequence) {
            None => Seen::New,
            Some(None) => Seen::Gone(ANSWER_GONE),
            Some(Some(answer)) => Seen::Done(answer.clone()),
        }
    }

    /// Notes that a [new](Seen::New) write was done in entry `index`, and its answer unless it was too long.
    pub(crate) fn note(&mut self, tag: &Tag, answer: Option<Vec<u8>>, index: Index) {
        if !self.origins.contains_key(&tag.origin) && self.origins.len() >= ORIGINS_MAX {
            let silent = self.origins.iter().min_by_key(|(_, window)| window.used).map(|(&origin, _)| origin);
            silent.map(|origin| self.origins.remove(&origin));
        }
        let window = self.origins.entry(tag.origin).or_insert_with(|| Window::new(tag.incarnation));
        if tag.incarnation > window.incarnation {
            *window = Window::new(tag.incarnation);
        }
        window.used = index;
        window.highest = window.highest.max(tag.sequence);
        window.raise(tag.oldest.max(window.highest.saturating_add(1).saturating_sub(WINDOW_MAX)));
        window.keep(tag.sequence, answer.map(Vec::into_boxed_slice));
    }

    /// Appends all of it to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.origins.len() as u64);
        for (origin, window) in &self.origins {
            out.extend_from_slice(&origin.0);
            put_varint(out, window.incarnation);
            put_varint(out, window.floor);
            put_varint(out, window.highest);
            put_varint(out, window.used.0);
            put_varint(out, window.answers.len() as u64);
            for (sequence, answer) in &window.answers {
                put_varint(out, sequence - window.floor);
                // No recorded answer is empty.
                put_bytes(out, answer.as_deref().unwrap_or_default());
            }
        }
    }

    /// Reads what [`Sessions::encode`] wrote.
    ///
    /// # Errors
    /// It is cut, over a limit, or breaks an invariant.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Sessions, DecodeError> {
        let mut origins = BTreeMap::new();
        let count = reader.len()?;
        if count > ORIGINS_MAX {
            return Err(DecodeError::Overflow);
        }
        for _ in 0..count {
            let origin = OriginId(reader.array()?);
            if origins.insert(origin, decode_window(reader)?).is_some() {
                return Err(DecodeError::Invalid);
            }
        }
        Ok(Sessions { origins })
    }
}

fn decode_window(reader: &mut Reader<'_>) -> Result<Window, DecodeError> {
    let mut window = Window::new(reader.varint()?);
    (window.floor, window.highest) = (reader.varint()?, reader.varint()?);
    window.used = Index(reader.varint()?);
    let span = window.highest.checked_sub(window.floor).ok_or(DecodeError::Invalid)?;
    let count = reader.varint()?;
    if window.floor == 0 || span >= WINDOW_MAX || count > span + 1 {
        return Err(DecodeError::Overflow);
    }
    for _ in 0..count {
        let (offset, answer) = (reader.varint()?, reader.bytes()?);
        if offset > span || answer.len() > ANSWER_BYTES_MAX {
            return Err(DecodeError::Overflow);
        }
        let kept =
            (!answer.is_empty()).then(|| recorded::check(answer).map(|()| answer.into())).transpose()?;
        window.bytes += answer.len();
        let before = window.answers.insert(window.floor + offset, kept);
        if before.is_some() || window.bytes > ANSWERS_BYTES_MAX {
            return Err(DecodeError::Invalid);
        }
    }
    Ok(window)
}

impl Store {
    /// What forwarded writes were answered.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) const fn sessions_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn tag(origin: u8, incarnation: u64, sequence: u64, oldest: u64) -> Tag {
        Tag { origin: OriginId([origin; 8]), incarnation, sequence, oldest, resp3: false }
    }

    /// A recorded answer of `bytes` bytes of text, and a few more.
    fn answer(bytes: usize) -> Option<Vec<u8>> {
        let mut silence = crate::Silence;
        let mut recorder = recorded::Recorder::new(&mut silence, false, ANSWER_BYTES_MAX);
        crate::Reply::bulk(&mut recorder, &vec![b'x'; bytes]);
        recorder.finish()
    }

    #[test]
    fn a_write_is_new_once() {
        let mut sessions = Sessions::default();
        let done = |bytes| Seen::Done(answer(bytes).expect("it is short").into());
        sessions.note(&tag(1, 5, 1, 1), answer(1), Index(1));
        sessions.note(&tag(1, 5, 3, 1), answer(3), Index(1));
        sessions.note(&tag(1, 5, 4, 1), answer(ANSWER_BYTES_MAX), Index(2));
        #[rustfmt::skip] // columns
        let table = [
            // incarnation, sequence
            (1, 5, 1, done(1)),
            (1, 5, 2, Seen::New),
            (1, 5, 3, done(3)),
            (1, 5, 4, Seen::Gone(ANSWER_GONE)),
            (1, 5, 5, Seen::New),
            (1, 4, 5, Seen::Gone(FORGOTTEN)), // what an earlier life sent and comes late
            (1, 6, 1, Seen::New),
            (2, 5, 1, Seen::New),
        ];
        for (origin, incarnation, sequence, expected) in table {
            let tag = tag(origin, incarnation, sequence, 1);
            assert_eq!(sessions.look(&tag), expected, "{tag:?}");
            assert_eq!(sessions.knows(&tag), expected != Seen::New, "{tag:?}");
        }
        // The origin has the answers below 4.
        sessions.note(&tag(1, 5, 5, 4), answer(1), Index(3));
        assert_eq!(sessions.look(&tag(1, 5, 3, 1)), Seen::Gone(FORGOTTEN));
        assert_eq!(sessions.look(&tag(1, 5, 2, 1)), Seen::Gone(FORGOTTEN));
        assert_eq!(sessions.look(&tag(1, 5, 5, 1)), done(1));
        assert_eq!(sessions.len(), 2);
        // A new life begins anew.
        sessions.note(&tag(1, 6, 1, 1), answer(1), Index(4));
        assert_eq!(sessions.look(&tag(1, 5, 5, 1)), Seen::Gone(FORGOTTEN));
        assert_eq!((sessions.len(), sessions.origins()), (1, 1));
    }

    #[test]
    fn the_window_and_its_bytes_have_an_end() {
        let mut sessions = Sessions::default();
        let large = answer(1000);
        for sequence in 1..=WINDOW_MAX {
            sessions.note(&tag(1, 1, sequence, 1), large.clone(), Index(sequence));
            let window = &sessions.origins[&OriginId([1; 8])];
            let bytes: usize = window.answers.values().flatten().map(|answer| answer.len()).sum();
            assert_eq!(window.bytes, bytes);
            assert!(bytes <= ANSWERS_BYTES_MAX);
        }
        assert_eq!(sessions.look(&tag(1, 1, 1, 1)), Seen::Gone(ANSWER_GONE));
        assert!(matches!(sessions.look(&tag(1, 1, WINDOW_MAX, 1)), Seen::Done(_)));
        // One more than the window: the first is forgotten, and not done anew.
        sessions.note(&tag(1, 1, WINDOW_MAX + 1, 2), answer(1), Index(9000));
        assert_eq!(sessions.look(&tag(1, 1, 1, 1)), Seen::Gone(FORGOTTEN));
        assert_eq!(sessions.len() as u64, WINDOW_MAX);
        // A sender that does not wait for its window loses the old ones all the same.
        let far = tag(1, 1, 3 * WINDOW_MAX, 2 * WINDOW_MAX + 1);
        sessions.note(&far, answer(1), Index(9001));
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn of_too_many_origins_the_silent_one_goes() {
        let mut sessions = Sessions::default();
        let origin = |n: u64| Tag { origin: OriginId(n.to_le_bytes()), ..tag(0, 1, 1, 1) };
        for n in 0..ORIGINS_MAX as u64 {
            sessions.note(&origin(n), answer(1), Index(n + 1));
        }
        sessions.note(&Tag { sequence: 2, ..origin(0) }, answer(1), Index(5000));
        sessions.note(&origin(77_777), answer(1), Index(5001));
        assert_eq!(sessions.origins(), ORIGINS_MAX);
        assert!(sessions.knows(&origin(0)) && !sessions.knows(&origin(1)) && sessions.knows(&origin(2)));
    }

    #[test]
    fn tags_that_no_origin_makes_are_refused() {
        let bytes = |sequence, rest| {
            let mut out = vec![7; 8];
            [1, sequence, rest].into_iter().for_each(|value| put_varint(&mut out, value));
            out
        };
        assert!(Tag::decode(&bytes(1, 0)).is_ok());
        assert!(Tag::decode(&bytes(4096, 4095 << 1)).is_ok());
        for bad in [bytes(0, 0), bytes(1, 1 << 1), bytes(9000, 4096 << 1), bytes(5, u64::MAX)] {
            assert_eq!(Tag::decode(&bad), Err(DecodeError::Invalid), "{bad:?}");
        }
        assert_eq!(Tag::decode(&[bytes(1, 0), vec![0]].concat()), Err(DecodeError::Invalid));
        assert_eq!(Tag::decode(&bytes(1, 0)[..9]), Err(DecodeError::Short));
    }

    /// Tags as origins make them: numbers go up, the oldest follows them.
    fn life() -> impl Strategy<Value = Vec<(Tag, usize)>> {
        let step = (0u8..3, 1u64..4, 1u64..6000, 0u64..WINDOW_MAX, any::<bool>(), 0usize..1500);
        let tag = step.prop_map(|(origin, incarnation, sequence, lag, resp3, bytes)| {
            let oldest = sequence.saturating_sub(lag).max(1);
            (Tag { origin: OriginId([origin; 8]), incarnation, sequence, oldest, resp3 }, bytes)
        });
        prop::collection::vec(tag, 0..60)
    }

    proptest! {
        #[test]
        fn a_tag_reads_back((tags, rest) in (life(), any::<Vec<u8>>())) {
            for (tag, _) in tags {
                let mut bytes = Vec::new();
                tag.encode(&mut bytes);
                prop_assert_eq!(Tag::decode(&bytes), Ok(tag));
            }
            let _ = Tag::decode(&rest);
        }

        /// Whatever comes in whatever order: no number is new twice in one life, and it all reads back.
        #[test]
        fn no_write_is_new_twice_and_all_reads_back(life in life()) {
            let (mut sessions, mut done) = (Sessions::default(), Vec::new());
            for (at, (tag, bytes)) in life.iter().enumerate() {
                let name = (tag.origin, tag.incarnation, tag.sequence);
                if sessions.look(tag) == Seen::New {
                    prop_assert!(!done.contains(&name));
                    done.push(name);
                    sessions.note(tag, answer(*bytes), Index(at as u64 + 1));
                }
                let mut encoded = Vec::new();
                sessions.encode(&mut encoded);
                let mut reader = Reader::new(&encoded);
                let read = Sessions::decode(&mut reader);
                prop_assert!(reader.is_empty());
                prop_assert_eq!(read.as_ref(), Ok(&sessions));
            }
        }

        #[test]
        fn any_bytes_are_windows_or_refused(bytes: Vec<u8>) {
            if let Ok(sessions) = Sessions::decode(&mut Reader::new(&bytes)) {
                let mut encoded = Vec::new();
                sessions.encode(&mut encoded);
                prop_assert_eq!(Sessions::decode(&mut Reader::new(&encoded)), Ok(sessions));
            }
        }
    }
}
