//! How far each member's proxy follows the cluster's revisions, as members tell each other; and the revision that this node's
//! loop has applied, for the thread that follows it.
//!
//! A member tells all others when its own standing changes and now and then, and asks for theirs when it begins; so what is
//! lost is made good. Only clusters that have a revision tell anything, and those speak a version that knows these frames.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::Revision;
use kernel::NodeId;
use kernel::codec::{DecodeError, Reader, put_bytes, put_varint};
use runtime::{Control, Remote};

/// A reason that is told, in bytes; what is longer is cut.
const WHY_BYTES_MAX: usize = 1024;
/// Members whose standings are known at once.
const STANDINGS_MAX: usize = control::MEMBERS_MAX;

/// How far a member's proxy follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The revision that it follows; 0 if it does what its own file says.
    pub follows: u64,
    /// The revision that it should follow, as far as it knows.
    pub wanted: u64,
    /// Why it does not follow that.
    pub why: Option<String>,
}

/// A frame: a standing, and whether the other's is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    standing: Standing,
    asks: bool,
}

impl Told {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.asks) | u8::from(self.standing.why.is_some()) << 1];
        put_varint(&mut out, self.standing.follows);
        put_varint(&mut out, self.standing.wanted);
        if let Some(why) = &self.standing.why {
            put_bytes(&mut out, cut(why).as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Told, DecodeError> {
        let mut reader = Reader::new(bytes);
        let bits = reader.u8()?;
        let (follows, wanted) = (reader.varint()?, reader.varint()?);
        let mut why = None;
        if bits & 2 != 0 {
            let text = reader.bytes()?;
            if text.len() > WHY_BYTES_MAX {
                return Err(DecodeError::Overflow);
            }
            why = Some(std::str::from_utf8(text).map_err(|_| DecodeError::Invalid)?.to_owned());
        }
        if bits > 3 || !reader.is_empty() {
            return Err(DecodeError::Invalid);
        }
        Ok(Told { standing: Standing { follows, wanted, why }, asks: bits & 1 != 0 })
    }
}

/// `text` in at most [`WHY_BYTES_MAX`] bytes.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(WHY_BYTES_MAX)).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// What is to be sent, and to whom: to all others, or to one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Post {
    All(Vec<u8>),
    One(NodeId, Vec<u8>),
}

#[derive(Debug, Default)]
struct Inner {
    own: Standing,
    others: BTreeMap<NodeId, Standing>,
    /// The newest revision that was applied here and not looked at yet.
    news: Option<Arc<Revision>>,
    out: Vec<Post>,
    ended: bool,
}

/// See the module's text. One for each member.
#[derive(Debug, Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// There is something to be sent: every turn of a member looks, and it must cost no lock.
    has_out: AtomicBool,
}

/// What woke a thread that waited.
#[derive(Debug)]
pub(crate) enum News {
    /// This revision is in force.
    Revision(Arc<Revision>),
    /// Nothing is new.
    Nothing,
    /// It is to end.
    End,
}

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This revision is in force here.
    pub fn revise(&self, revision: Arc<Revision>) {
        self.inner().news = Some(revision);
        self.changed.notify_all();
    }

    /// Who waits is to end.
    pub fn end(&self) {
        self.inner().ended = true;
        self.changed.notify_all();
    }

    /// Waits for a revision that was not looked at, for so long.
    pub fn wait(&self, limit: Duration) -> News {
        let until = Instant::now() + limit;
        let mut inner = self.inner();
        loop {
            if inner.ended {
                return News::End;
            }
            if let Some(revision) = inner.news.take() {
                return News::Revision(revision);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return News::Nothing;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// This node's standing from now on; all others are told, and perhaps asked for theirs.
    pub fn tell(&self, standing: &Standing, asks: bool, remote: &Remote) {
        let mut inner = self.inner();
        inner.own = standing.clone();
        let frame = Told { standing: standing.clone(), asks }.encode();
        // What was to be told before is old.
        inner.out.retain(|post| matches!(post, Post::One(..)));
        inner.out.push(Post::All(frame));
        self.has_out.store(true, Ordering::Release);
        drop(inner);
        // A loop that has ended sends nothing.
        let _ = remote.send(Control::Call(Box::new(|_| ())));
    }

    /// What is to be sent now.
    pub fn take(&self) -> Vec<Post> {
        if !self.has_out.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.inner().out)
    }

    /// A frame has come from a member.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn arrived(&self, from: NodeId, bytes: &[u8]) -> Result<(), DecodeError> {
        let Told { standing, asks } = Told::decode(bytes)?;
        let mut inner = self.inner();
        if inner.others.len() < STANDINGS_MAX || inner.others.contains_key(&from) {
            inner.others.insert(from, standing);
        }
        // Once for each who asks, however often: the answer is the same.
        if asks && !inner.out.iter().any(|post| matches!(post, Post::One(to, _) if *to == from)) {
            let answer = Told { standing: inner.own.clone(), asks: false }.encode();
            inner.out.push(Post::One(from, answer));
            self.has_out.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// What is known of other members. Who is none any more is forgotten.
    pub fn others(&self, is_member: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, Standing> {
        let mut inner = self.inner();
        inner.others.retain(|node, _| is_member(*node));
        inner.others.clone()
    }
}

#[cfg(test)]
mod tests {
    use control::Name;
    use control::mesh::Source;
    use kernel::Millis;
    use proptest::prelude::*;

    use super::*;

    fn standing(follows: u64, wanted: u64, why: Option<&str>) -> Standing {
        Standing { follows, wanted, why: why.map(str::to_owned) }
    }

    #[test]
    fn who_asks_is_answered_once_and_the_newest_standing_counts() {
        let board = Board::default();
        let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let asked = Told { standing: standing(3, 4, Some("no port")), asks: true }.encode();
        for _ in 0..2 {
            board.arrived(one, &asked).unwrap();
        }
        board.arrived(other, &Told { standing: standing(4, 4, None), asks: false }.encode()).unwrap();
        let answer = Told { standing: Standing::default(), asks: false }.encode();
        assert_eq!(board.take(), [Post::One(one, answer)]);
        assert!(board.take().is_empty());
        board.arrived(one, &Told { standing: standing(4, 4, None), asks: false }.encode()).unwrap();
        let known = board.others(|node| node == one);
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [(one, standing(4, 4, None))]);
        assert!(board.arrived(one, &[4, 0, 0]).is_err());
    }

    #[test]
    fn who_waits_is_told_the_newest_revision_once_and_the_end_always() {
        let board = Board::default();
        let revision = |number| {
            let by = Name::new("ann").unwrap();
            let (source, settings) = (Source::Given, None);
            Arc::new(Revision { number, version: 1, by, at: Millis(0), source, settings })
        };
        assert!(matches!(board.wait(Duration::ZERO), News::Nothing));
        board.revise(revision(1));
        board.revise(revision(2));
        assert!(matches!(board.wait(Duration::ZERO), News::Revision(it) if it.number == 2));
        assert!(matches!(board.wait(Duration::ZERO), News::Nothing));
        board.revise(revision(3));
        board.end();
        assert!(matches!(board.wait(Duration::from_secs(60)), News::End));
    }

    proptest! {
        #[test]
        fn what_is_told_is_read_and_nothing_shorter_or_longer(
            follows: u64, wanted: u64, why: Option<String>, asks: bool, at: usize,
        ) {
            let told = Told { standing: Standing { follows, wanted, why }, asks };
            let bytes = told.encode();
            let cut_why = told.standing.why.as_deref().map(|why| cut(why).to_owned());
            let expected = Told { standing: Standing { why: cut_why, ..told.standing }, ..told };
            prop_assert_eq!(Told::decode(&bytes), Ok(expected));
            prop_assert!(Told::decode(&bytes[..at % bytes.len()]).is_err());
            prop_assert!(Told::decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(told) = Told::decode(&bytes) {
                prop_assert_eq!(Told::decode(&told.encode()), Ok(told));
            }
        }
    }
}
