//! Reads bodies from the engine for a worker, on threads of their own.
//!
//! A turn's questions go in one batch to a queue; each thread takes a share, reads it, and hands the answers
//! to the worker's loop in one piece. The worker bounds how many are on their way.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use disk::engine::Engine;
use node::{Fetch, Fetched, Worker};
use runtime::{Control, Remote};
use telemetry::StorageMeters;

/// Threads that read for one worker: a second one while the first waits for the disk.
const FETCH_THREADS: usize = 2;
/// Bodies that a thread reads before it hands them over, at most.
const BATCH_MAX: usize = 32;
/// Bodies that are worth waking a further thread for.
const SHARE_MIN: usize = 4;

/// The worker's end: takes what it asks for.
pub struct Fetchers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    taken: Vec<Fetch>,
}

/// Where the answers go.
pub struct AnswersTo(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
    remote: OnceLock<Remote>,
}

#[derive(Default)]
struct Waiting {
    fetches: VecDeque<Fetch>,
    /// Threads with nothing to do.
    idle: usize,
    ended: bool,
}

impl Fetchers {
    /// Starts the threads. They answer to the loop that [`AnswersTo::answer_to`] names.
    ///
    /// # Errors
    /// A thread cannot be started; those before it end.
    pub fn start(engine: &Arc<Engine>, meters: &Arc<StorageMeters>) -> io::Result<(Fetchers, AnswersTo)> {
        let queue = Arc::<Queue>::default();
        let mut fetchers = Fetchers { queue: Arc::clone(&queue), threads: Vec::new(), taken: Vec::new() };
        for number in 0..FETCH_THREADS {
            let (queue, engine, meters) = (Arc::clone(&queue), Arc::clone(engine), Arc::clone(meters));
            let thread = std::thread::Builder::new()
                .name(format!("fetch-{number}"))
                .spawn(move || queue.serve(&engine, &meters));
            match thread {
                Ok(thread) => fetchers.threads.push(thread),
                Err(error) => {
                    fetchers.end();
                    return Err(error);
                }
            }
        }
        Ok((fetchers, AnswersTo(queue)))
    }

    /// Takes what the worker asks for and wakes threads for it.
    pub fn take(&mut self, worker: &mut Worker) {
        worker.take_fetches(&mut self.taken);
        let mut waiting = self.queue.lock();
        waiting.fetches.extend(self.taken.drain(..));
        let wanted = waiting.fetches.len().div_ceil(SHARE_MIN).min(waiting.idle);
        drop(waiting);
        for _ in 0..wanted {
            self.queue.more.notify_one();
        }
    }

    /// Ends the threads. What was not read yet is not answered.
    pub fn end(&mut self) {
        self.queue.lock().ended = true;
        self.queue.more.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that reads bodies ended badly");
            }
        }
    }
}

impl AnswersTo {
    /// The loop that takes the answers.
    pub fn answer_to(self, remote: Remote) {
        // It is told once: this takes the only value of its kind.
        let _ = self.0.remote.set(remote);
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // A list of questions is whole at every moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, engine: &Engine, meters: &StorageMeters) {
        let mut batch = Vec::new();
        while self.next(&mut batch) {
            meters.misses.add_among_others(batch.len() as u64);
            let answers: Vec<Fetched> = batch.drain(..).map(|fetch| read(engine, fetch)).collect();
            let call = Control::Call(Box::new(move |worker: &mut Worker| worker.fetched(answers)));
            // A loop that has ended has nobody to answer.
            let _ = self.remote.wait().send(call);
        }
    }

    /// Waits for questions and takes a share of them. False at the end.
    fn next(&self, batch: &mut Vec<Fetch>) -> bool {
        let mut waiting = self.lock();
        while waiting.fetches.is_empty() {
            if waiting.ended {
                return false;
            }
            waiting.idle += 1;
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
        if waiting.ended {
            return false;
        }
        let share = waiting.fetches.len().div_ceil(FETCH_THREADS).clamp(SHARE_MIN, BATCH_MAX);
        let share = share.min(waiting.fetches.len());
        batch.extend(waiting.fetches.drain(..share));
        true
    }
}

fn read(engine: &Engine, fetch: Fetch) -> Fetched {
    let (group, generation, key) = (fetch.group, fetch.generation, fetch.key.clone());
    let mut fetch = Some(fetch);
    let mut answer = |body: Result<&[u8], String>| fetch.take().expect("a body is read once").answer(body);
    match engine.with_body(group, generation, &key, |body| answer(Ok(body))) {
        Ok(Some(fetched)) => fetched,
        Ok(None) => answer(Err("the engine does not have it".into())),
        Err(error) => answer(Err(error.to_string())),
    }
}
