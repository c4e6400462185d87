//! Spans between who makes them and who sends them on: as many as fit, and no more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::Span;
use crate::Counter;

/// Spans that wait at once; what comes then is dropped and counted.
pub const SPANS_MAX: usize = 4096;
/// Spans that are sent together. Who waits for them is told when so many are there.
pub const BATCH_SPANS: usize = 512;

/// A queue that all threads of a proxy put into. One lock, which is held for a move of spans.
#[derive(Default)]
pub struct SpanQueue {
    waiting: Mutex<VecDeque<Span>>,
    dropped: Counter,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl SpanQueue {
    /// Takes all of `spans` that fit; the rest is dropped.
    pub fn put(&self, spans: &mut Vec<Span>) {
        let mut waiting = self.waiting();
        let before = waiting.len();
        let room = SPANS_MAX.saturating_sub(before).min(spans.len());
        let dropped = spans.len() - room;
        waiting.extend(spans.drain(..).take(room));
        let is_many = before < BATCH_SPANS && waiting.len() >= BATCH_SPANS;
        drop(waiting);
        if dropped > 0 {
            self.dropped.add_among_others(dropped as u64);
        }
        if let Some(bell) = self.bell.get().filter(|_| is_many) {
            bell();
        }
    }

    /// The oldest, [`BATCH_SPANS`] at most.
    #[must_use]
    pub fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting();
        let n = waiting.len().min(BATCH_SPANS);
        waiting.drain(..n).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has `bell` called, by the thread that puts, when a whole batch has come to wait. The first one counts.
    pub fn on_batch(&self, bell: impl Fn() + Send + Sync + 'static) {
        // There is one who sends.
        let _ = self.bell.set(Box::new(bell));
    }

    /// How many did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Span>> {
        // What is behind it is a list that is whole at any time.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SpanQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, dropped) = (self.len(), self.dropped());
        f.debug_struct("SpanQueue").field("waiting", &waiting).field("dropped", &dropped).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::trace::{SpanId, TraceId};

    fn spans(n: usize) -> Vec<Span> {
        let span = |at: usize| Span {
            trace: TraceId::new([1; 16]).unwrap(),
            own: SpanId::new([1; 8]).unwrap(),
            parent: None,
            name: at.to_string(),
            start_nanos: 0,
            end_nanos: 0,
            attributes: Vec::new(),
            failed: false,
        };
        (0..n).map(span).collect()
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = SpanQueue::default();
        queue.put(&mut spans(SPANS_MAX - 1));
        let mut more = spans(3);
        queue.put(&mut more);
        assert_eq!((more.len(), queue.len(), queue.dropped()), (0, SPANS_MAX, 2));
        let taken = queue.take();
        assert_eq!((taken.len(), &*taken[1].name, queue.len()), (BATCH_SPANS, "1", SPANS_MAX - BATCH_SPANS));
        queue.put(&mut spans(1));
        assert_eq!((queue.len(), queue.dropped()), (SPANS_MAX - BATCH_SPANS + 1, 2), "there is room again");
    }

    #[test]
    fn who_waits_is_told_once_of_a_batch() {
        let (queue, rung) = (SpanQueue::default(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&rung);
        queue.on_batch(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for (n, expected) in [(BATCH_SPANS - 1, 0), (1, 1), (1, 1)] {
            queue.put(&mut spans(n));
            assert_eq!(rung.load(Ordering::Relaxed), expected);
        }
        assert_eq!(queue.take().len(), BATCH_SPANS);
        assert_eq!(queue.take().len(), 1);
        assert!(queue.take().is_empty() && queue.is_empty());
    }
}
