//! A node's proxy follows what its file says, and what the cluster says in its place.
//!
//! What cannot be followed here (a port is taken, a file is not there) changes nothing: the last good plan stays in force, the
//! reason is told, and it is tried again now and then, and when the file is read again.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use control::{MeshSettings, Revision};
use proxy::{Meters, Plan, Proxy};
use runtime::{Control, Remote};

use super::desired::{laid_over, overlaid, shown};
use super::{Proxied, plan};
use crate::cluster::board::{News, Standing};
use crate::cluster::desk::Desk;
use crate::config::{self, Config, ConfigError, Loaded};
use crate::serve::ServeError;

/// What could not be followed is tried again after this, and others are told again how far this node is.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a node that starts waits for its loop to say what the cluster's settings are.
const ANSWER: Duration = Duration::from_secs(30);

/// What is followed, and what should be.
struct Followed {
    /// What the file says, as it was last read and could be followed.
    file: Loaded,
    /// The revision that is followed; none if only the file is.
    revision: Option<Arc<Revision>>,
    /// The revision that should be.
    wanted: Option<Arc<Revision>>,
    /// Why it is not.
    why: Option<String>,
}

impl Followed {
    fn standing(&self) -> Standing {
        let number = |revision: &Option<Arc<Revision>>| revision.as_ref().map_or(0, |one| one.number);
        Standing { follows: number(&self.revision), wanted: number(&self.wanted), why: self.why.clone() }
    }
}

/// A node's proxy, and what it follows. All who change it go through here.
#[derive(Clone)]
pub struct Steering(Arc<Inner>);

struct Inner {
    proxied: Proxied,
    meters: Arc<Meters>,
    followed: Mutex<Followed>,
}

/// What `loaded` comes to in a revision.
fn planned(loaded: &Loaded, revision: Option<&Revision>) -> Result<(Loaded, Plan), ConfigError> {
    let over = revision.map_or_else(|| Ok(loaded.clone()), |revision| overlaid(loaded, revision))?;
    let plan = plan(&over, workers(&over.config))?;
    Ok((over, plan))
}

/// Threads that the proxy has, or would have.
const fn workers(config: &Config) -> u64 {
    config.proxy.workers.get()
}

impl Steering {
    /// Of a proxy that follows the file `loaded`, or will.
    pub(crate) fn new(loaded: &Loaded, proxied: Proxied, meters: Arc<Meters>) -> Steering {
        let followed = Mutex::new(Followed { file: loaded.clone(), revision: None, wanted: None, why: None });
        Steering(Arc::new(Inner { proxied, meters, followed }))
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        // What is followed changes whole.
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far this node is.
    #[must_use]
    pub(crate) fn standing(&self) -> Standing {
        self.followed().standing()
    }

    /// What is planned is followed.
    fn try_out(
        &self,
        file: &Loaded,
        revision: Option<&Revision>,
        before: impl FnOnce(&Config, &Plan) -> Result<(), ServeError>,
    ) -> Result<(), ServeError> {
        let (over, plan) = planned(file, revision)?;
        before(&over.config, &plan)?;
        let listens = !plan.listeners.is_empty();
        self.put(&over.config, plan, listens)
    }

    /// Whether this node could follow `settings`, as far as that is known before it does: ports may be taken.
    ///
    /// # Errors
    /// [`ConfigError`]: why not.
    pub(crate) fn judge(&self, settings: &MeshSettings) -> Result<(), ConfigError> {
        let followed = self.followed();
        let over = laid_over(&followed.file, settings, "the settings")?;
        plan(&over, workers(&over.config)).map(drop)
    }

    /// Has the proxy follow `plan`; or begins it, if it is to listen.
    fn put(&self, config: &Config, plan: Plan, listens: bool) -> Result<(), ServeError> {
        let mut proxy = self.0.proxied.lock();
        match proxy.as_mut() {
            Some(proxy) => proxy.follow(plan)?,
            None if !listens => {}
            None => {
                let workers = usize::try_from(workers(config)).expect("there are at most 16 workers");
                *proxy = Some(Proxy::start(plan, workers, Arc::clone(&self.0.meters))?);
            }
        }
        Ok(())
    }

    /// Begins with the newest of `revisions` that can be followed here, which is what was followed before; or with the file.
    /// `ready` is called once the proxy knows its services and listens nowhere yet.
    ///
    /// # Errors
    /// [`ServeError`]: not even the file can be followed.
    pub(crate) fn begin(
        &self,
        revisions: &VecDeque<Arc<Revision>>,
        ready: impl FnOnce(&Proxied),
    ) -> Result<(), ServeError> {
        // Not held meanwhile: `ready` may take a while.
        let file = self.followed().file.clone();
        let (mut ready, mut why) = (Some(ready), None);
        for revision in revisions.iter().rev() {
            match self.try_out(&file, Some(revision), |config, plan| self.quietly(config, plan, &mut ready)) {
                Ok(()) => {
                    self.begun(Some(revision), revisions.back(), why);
                    return Ok(());
                }
                Err(error) => {
                    why.get_or_insert(error.to_string());
                }
            }
        }
        self.try_out(&file, None, |config, plan| self.quietly(config, plan, &mut ready))?;
        self.begun(None, revisions.back(), why);
        Ok(())
    }

    /// Has the proxy know its services before it listens, and calls `ready` then, once.
    fn quietly(
        &self,
        config: &Config,
        plan: &Plan,
        ready: &mut Option<impl FnOnce(&Proxied)>,
    ) -> Result<(), ServeError> {
        let Some(ready) = ready.take() else { return Ok(()) };
        let quiet = Plan { listeners: Vec::new(), ..plan.clone() };
        self.put(config, quiet, !plan.listeners.is_empty())?;
        ready(&self.0.proxied);
        Ok(())
    }

    fn begun(&self, revision: Option<&Arc<Revision>>, wanted: Option<&Arc<Revision>>, why: Option<String>) {
        let mut followed = self.followed();
        (followed.revision, followed.wanted, followed.why) = (revision.cloned(), wanted.cloned(), why);
        self.tell_trouble(&followed, None);
    }

    /// Follows a revision. False if it cannot; then what was followed stays.
    pub(crate) fn follow(&self, revision: Arc<Revision>) -> bool {
        let mut followed = self.followed();
        let tried = self.try_out(&followed.file, Some(&revision), |_, _| Ok(()));
        let before = followed.why.take();
        followed.wanted = Some(Arc::clone(&revision));
        match tried {
            Ok(()) => {
                tracing::info!(revision = revision.number, by = %revision.by, "the proxy follows the cluster's settings");
                followed.revision = Some(revision);
            }
            Err(error) => followed.why = Some(error.to_string()),
        }
        self.tell_trouble(&followed, before.as_deref());
        followed.why.is_none()
    }

    /// Tries again what could not be followed. Whether something changed.
    fn again(&self) -> bool {
        let before = self.standing();
        let wanted = self.followed().wanted.clone();
        if let Some(revision) = wanted.filter(|_| before.why.is_some()) {
            self.follow(revision);
        }
        self.standing() != before
    }

    /// Says what is wrong, once for each reason.
    fn tell_trouble(&self, followed: &Followed, before: Option<&str>) {
        let Standing { follows, wanted, why } = followed.standing();
        if let Some(why) = why.filter(|why| before != Some(why.as_str())) {
            self.0.meters.refused.increment();
            tracing::error!(
                wanted,
                follows,
                why,
                "this node cannot follow the cluster's settings of the proxy; the last good ones stay"
            );
        }
    }

    /// Follows what the file says now; the cluster's revision, if there is one, stays in its place.
    ///
    /// # Errors
    /// [`ServeError`]; nothing changes.
    pub(crate) fn reload(&self, loaded: &Loaded) -> Result<(), ServeError> {
        let mut followed = self.followed();
        let mut file = loaded.clone();
        if self.0.proxied.lock().is_some() {
            // Its threads stay as many as they are.
            file.config.proxy.workers = followed.file.config.proxy.workers;
        }
        // The file may bring what a revision lacked here.
        let mut candidates = vec![followed.wanted.clone()];
        if followed.why.is_some() {
            candidates.push(followed.revision.clone());
        }
        let mut refused = None;
        for revision in candidates {
            match self.try_out(&file, revision.as_deref(), |_, _| Ok(())) {
                Ok(()) => {
                    let is_other = shown(&file.config.proxy) != shown(&followed.file.config.proxy);
                    let counts = revision.as_deref().filter(|one| one.settings.is_some());
                    if let Some(Revision { number, .. }) = counts.filter(|_| is_other) {
                        tracing::warn!(
                            revision = number,
                            "listeners, services or routes of the file have changed, and the cluster's revision counts in their place"
                        );
                    }
                    followed.file = file;
                    followed.revision = revision;
                    followed.why = refused.map(|error: ServeError| error.to_string());
                    return Ok(());
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.expect("at least one was tried, and none could be followed"))
    }

    /// The proxy's settings of the file, as they are followed.
    pub(crate) fn file(&self) -> config::Proxy {
        self.followed().file.config.proxy.clone()
    }
}

/// What the cluster of a member that has just started says by now, as its disk knows it.
pub(crate) fn revisions(remote: &Remote) -> VecDeque<Arc<Revision>> {
    let (tell, told) = channel();
    remote.send(Control::Call(Box::new(move |worker| {
        let known = worker.mind().map(|mind| mind.state().revisions().clone());
        // The starting thread waits for it, or not any more.
        let _ = tell.send(known.unwrap_or_default());
    })));
    // A loop that does not answer is told of later.
    told.recv_timeout(ANSWER).unwrap_or_default()
}

/// The thread that has a member's proxy follow its cluster, and tells other members how far it is.
pub(crate) struct Follower {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Starts it.
    pub fn start(steering: Steering, desk: Arc<Desk>, remote: Remote) -> io::Result<Follower> {
        let of_thread = Arc::clone(&desk);
        let run = move || run(&steering, &of_thread, &remote);
        let thread = std::thread::Builder::new().name("settings".into()).spawn(run)?;
        Ok(Follower { desk, thread })
    }

    /// Ends it.
    pub fn stop(self) {
        self.desk.board.end();
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows the cluster's settings ended badly");
        }
    }
}

fn run(steering: &Steering, desk: &Desk, remote: &Remote) {
    let mut asks = true;
    loop {
        match desk.board.wait(AGAIN) {
            News::End => return,
            News::Revision(revision) if is_new(steering, &revision) => {
                steering.follow(revision);
            }
            News::Revision(_) | News::Nothing => {
                steering.again();
            }
        }
        let standing = steering.standing();
        if standing.wanted != 0 {
            // What is lost on the way is told again; who has just begun wants to know of the others.
            desk.board.tell(&standing, asks, remote);
            asks = false;
        }
    }
}

/// Whether a revision is not the one that is followed: a node that starts has begun with it already.
fn is_new(steering: &Steering, revision: &Revision) -> bool {
    let standing = steering.standing();
    standing.follows != revision.number || standing.wanted != revision.number
}
