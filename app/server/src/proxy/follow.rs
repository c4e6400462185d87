//! A node's proxy follows what its file says, and what the cluster says in its place.
//!
//! What cannot be followed here (a port is taken, a file is not there) changes nothing: the last good plan stays in force, the
//! reason is told, and it is tried again now and then, and when the file is read again.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use control::{MeshSettings, Revision};
use proxy::{Meters, NodeTls, Plan, Proxy};
use runtime::{Control, Remote};

use super::desired::{laid_over, overlaid, shown};
use super::tls::Own;
use super::{Proxied, plan_of};
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
    /// Held for a moment only: whoever asks how far this node is must not wait for a plan of thousands of services.
    followed: Mutex<Followed>,
    /// Who has it changes what is followed, and plans meanwhile.
    turn: Mutex<()>,
    /// What this node proves to others, once it is known to be a member.
    node: OnceLock<Arc<NodeTls>>,
}

/// Threads that the proxy has, or would have.
const fn workers(config: &Config) -> u64 {
    config.proxy.workers.get()
}

impl Steering {
    /// Of a proxy that follows the file `loaded`, or will.
    pub(crate) fn new(loaded: &Loaded, proxied: Proxied, meters: Arc<Meters>) -> Steering {
        let followed = Mutex::new(Followed { file: loaded.clone(), revision: None, wanted: None, why: None });
        Steering(Arc::new(Inner { proxied, meters, followed, turn: Mutex::default(), node: OnceLock::new() }))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node is a member, and this is what it proves. What is planned from now on may need it.
    pub(crate) fn prove(&self, node: NodeTls) {
        // A node is one member as long as it runs.
        let _ = self.0.node.set(Arc::new(node));
    }

    fn own(&self) -> Own<'_> {
        self.0.node.get().map_or(Own::Nobody, Own::Member)
    }

    /// What `loaded` comes to in a revision.
    fn planned(&self, loaded: &Loaded, revision: Option<&Revision>) -> Result<(Loaded, Plan), ConfigError> {
        let over = revision.map_or_else(|| Ok(loaded.clone()), |revision| overlaid(loaded, revision))?;
        let plan = plan_of(&over, workers(&over.config), self.own())?;
        Ok((over, plan))
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
        let (over, plan) = self.planned(file, revision)?;
        before(&over.config, &plan)?;
        let listens = !plan.listeners.is_empty();
        self.put(&over.config, plan, listens)
    }

    /// Whether this node could follow `settings`, as far as that is known before it does: ports may be taken. O(settings), and
    /// nobody waits for it meanwhile but who asks.
    ///
    /// # Errors
    /// [`ConfigError`]: why not.
    pub(crate) fn judge(&self, settings: &MeshSettings) -> Result<(), ConfigError> {
        let file = self.followed().file.clone();
        let over = laid_over(&file, settings, "the settings")?;
        plan_of(&over, workers(&over.config), self.own()).map(drop)
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
    /// `ready` is called of each that is tried, once the proxy knows its services and listens nowhere yet.
    ///
    /// # Errors
    /// [`ServeError`]: not even the file can be followed.
    pub(crate) fn begin(
        &self,
        revisions: &VecDeque<Arc<Revision>>,
        mut ready: impl FnMut(&Proxied),
    ) -> Result<(), ServeError> {
        let _turn = self.turn();
        let file = self.followed().file.clone();
        let mut why = None;
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

    /// Has the proxy know its services before it listens, and calls `ready` then.
    fn quietly(
        &self,
        config: &Config,
        plan: &Plan,
        ready: &mut impl FnMut(&Proxied),
    ) -> Result<(), ServeError> {
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

    /// Follows a revision; if that cannot be, what was followed stays.
    pub(crate) fn follow(&self, revision: Arc<Revision>) {
        let _turn = self.turn();
        let file = self.followed().file.clone();
        let tried = self.try_out(&file, Some(&revision), |_, _| Ok(()));
        let mut followed = self.followed();
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
    }

    /// Tries again what could not be followed.
    fn again(&self) {
        let followed = self.followed();
        let revision = followed.wanted.clone().filter(|_| followed.why.is_some());
        drop(followed);
        if let Some(revision) = revision {
            self.follow(revision);
        }
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
        let _turn = self.turn();
        let mut file = loaded.clone();
        let followed = self.followed();
        let before = followed.why.clone();
        // The file may bring what a revision lacked here.
        let mut candidates = vec![followed.wanted.clone()];
        if before.is_some() {
            candidates.push(followed.revision.clone());
        }
        let workers = followed.file.config.proxy.workers;
        // Who sends spans on is as the node began.
        file.config.otlp.endpoint.clone_from(&followed.file.config.otlp.endpoint);
        // What is kept with the data stays where the data is.
        file.config.data_dir.clone_from(&followed.file.config.data_dir);
        drop(followed);
        if self.0.proxied.lock().is_some() {
            // Its threads stay as many as they are.
            file.config.proxy.workers = workers;
        }
        let mut refused = None;
        for revision in candidates {
            match self.try_out(&file, revision.as_deref(), |_, _| Ok(())) {
                Ok(()) => {
                    let mut followed = self.followed();
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
                    self.tell_trouble(&followed, before.as_deref());
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

    /// Puts all settings of the file that are followed by now into `config`.
    pub(crate) fn tell(&self, config: &mut Config) {
        let followed = self.followed();
        config.proxy.clone_from(&followed.file.config.proxy);
        config.otlp.sample = followed.file.config.otlp.sample;
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
            News::Revision(revision) if is_new(steering, &revision) => steering.follow(revision),
            News::Revision(_) | News::Nothing => steering.again(),
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;

    use control::Name;
    use control::mesh::Source;
    use kernel::Millis;

    use super::*;
    use crate::config::Sources;
    use crate::proxy::desired::read;

    const SERVICE: &str = "[[proxy.service]]\nname = \"shop\"\nendpoints = \"127.0.0.1:1\"\n";

    fn loaded(text: &str) -> Loaded {
        Loaded::layered(Some((Path::new("node.toml"), text)), &Sources::default()).unwrap()
    }

    fn steering(text: &str) -> Steering {
        Steering::new(&loaded(text), Proxied::default(), Arc::default())
    }

    fn settings(text: &str) -> MeshSettings {
        read(Path::new("mesh.toml"), text).unwrap().settings
    }

    fn revision(number: u64, text: &str) -> Arc<Revision> {
        let (by, settings) = (Name::new("ann").unwrap(), Some(settings(text)));
        Arc::new(Revision { number, version: number, by, at: Millis(0), source: Source::Given, settings })
    }

    fn web(port: u16) -> String {
        format!("[[proxy.listener]]\nname = \"web\"\nport = {port}\n")
    }

    #[test]
    fn nobody_waits_for_a_plan_but_who_asked_for_it() {
        let steering = steering(SERVICE);
        // As while a revision is planned.
        let _turn = steering.turn();
        assert!(steering.judge(&settings(SERVICE)).is_ok());
        assert_eq!(steering.standing(), Standing { follows: 0, wanted: 0, why: None });
        assert_eq!(steering.file().service.len(), 1);
    }

    #[test]
    fn each_revision_that_is_tried_at_the_start_knows_its_services_before_it_listens() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (free, taken_port) = (web(0), web(taken.local_addr().unwrap().port()));
        let cart = SERVICE.replace("shop", "cart");
        let revisions = VecDeque::from([
            revision(1, &format!("{free}{SERVICE}")),
            revision(2, &format!("{taken_port}{cart}")),
        ]);
        let steering = steering("");
        let mut known = Vec::new();
        let begun = steering.begin(&revisions, |proxied| {
            let proxied = proxied.lock();
            let proxy = proxied.as_ref().unwrap();
            assert_eq!(proxy.addresses(), []);
            known.push(proxy.plan().services[0].name.clone());
        });
        begun.unwrap();
        assert_eq!(known, ["cart", "shop"]);
        let Standing { follows, wanted, why } = steering.standing();
        assert_eq!((follows, wanted), (1, 2));
        assert!(why.is_some_and(|why| why.contains("web")));
    }

    #[test]
    fn a_file_that_is_read_again_tells_what_still_cannot_be_followed() {
        let file = |offset: u32| format!("port_offset = {offset}\n");
        let steering = steering(&file(50_000));
        steering.follow(revision(1, SERVICE));
        steering.follow(revision(2, &web(20_000)));
        let told = |steering: &Steering| steering.0.meters.refused.get();
        assert_eq!(told(&steering), 1);
        // The same reason is told once, and another is another.
        for (offset, refused) in [(50_000, 1), (50_010, 2), (50_010, 2)] {
            steering.reload(&loaded(&file(offset))).unwrap();
            assert_eq!((steering.standing().follows, told(&steering)), (1, refused), "{offset}");
        }
    }
}
