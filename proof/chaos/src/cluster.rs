//! A cluster of real nodes on hosts of their own, of which some are killed, stopped or cut off under load while packets are
//! lost, late or doubled: what clients were told must be linearizable, nothing acknowledged may be lost, everybody must be
//! answered again when the faults are over, and in the end all copies must be the same.
//!
//! The seed decides faults, their moments and what clients ask; what the kernel makes of it is its own affair. All
//! rounds are on the same cluster, and what an early round wrote must be there after the last one.

mod copies;
mod crowd;
pub mod discovery;
mod member;
mod net;
mod plan;
pub mod rolling;
mod router;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::Rng;
use rustix::process::Signal;

use self::crowd::{Crowd, Temper};
use self::member::{Begins, Member, is_whole};
use self::net::Host;
pub use self::plan::Length;
use self::plan::{Fault, Plan, Stroke, Weather};
use self::router::Router;
use crate::campaign::{Failure, Figure, Report, Scratch, Setting};

/// Nodes of a cluster, unless it is told otherwise.
pub const NODES: usize = 3;
/// How many there may be: each partition has three copies.
pub const NODES_ALLOWED: std::ops::RangeInclusive<u64> = NODES as u64..=net::HOSTS_MAX as u64;

/// What has not come to be after so long never will. No measure of speed.
const NEVER: Duration = Duration::from_secs(120);
/// What the judge of histories says of one that is not linearizable.
pub const UNEXPLAINED: &str = "nothing explains";
/// Between two looks at whether it has, in milliseconds.
const LOOK_MS: u64 = 100;
/// Load after the last fault, in milliseconds.
const CALM_MS: u64 = 300;

/// A fault that no node makes, so that the judges can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A client claims an acknowledged write that was never sent.
    Claim,
    /// All nodes are killed, and what is on their disks is exchanged for an older copy.
    Rollback,
}

/// What this campaign is told besides.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nodes, as many as [`NODES_ALLOWED`].
    pub nodes: usize,
    /// How long rounds are.
    pub length: Length,
    /// The first round: those before it are left out.
    pub from: u64,
    /// The last round is spoilt.
    pub plant: Option<Plant>,
}

/// The hosts and the network between them.
pub struct Hosts {
    hosts: Vec<Host>,
    router: Router,
}

impl Hosts {
    fn make(count: usize, rng: Rng) -> Result<Hosts, Failure> {
        let (mut hosts, mut devices) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (host, device) = net::make(number)?;
            hosts.push(host);
            devices.push(device);
        }
        Ok(Hosts { hosts, router: Router::start(devices, rng)? })
    }

    /// How many.
    fn count(&self) -> usize {
        self.hosts.len()
    }

    /// One of them.
    fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// Makes the network so, with these ways blocked.
    fn set(&self, weather: Weather, blocked: &[(usize, usize)]) {
        let mut switch = self.router.switch();
        switch.all(weather.way());
        for &(from, to) in blocked {
            switch.way(from, to).blocked = true;
        }
    }
}

/// Nodes on hosts.
struct Cluster {
    hosts: Hosts,
    members: Vec<Member>,
    binary: PathBuf,
}

/// Runs the campaign; `progress` hears a line for each round.
pub fn run(setting: &Setting, options: &Options, progress: &mut dyn FnMut(&str)) -> Report {
    let result = Scratch::new().and_then(|scratch| {
        let result = Campaign::new(setting, options, scratch.path()).and_then(|mut campaign| {
            let result = campaign.rounds(setting, progress);
            campaign.cluster.keep_pages(result)
        });
        // Who spoils a round knows what went wrong, if it is that.
        let found = |failure: &Failure| failure.to_string().contains(UNEXPLAINED);
        let known = options.plant.is_some() && result.as_ref().is_err_and(found);
        if known { result } else { scratch.end(result) }
    });
    Report { name: "cluster", setting: setting.clone(), result }
}

/// When after the last fault everybody was answered, the cluster whole, and all copies the same.
struct Stages {
    answered_ms: u64,
    whole_ms: u64,
    same_ms: u64,
}

impl std::fmt::Display for Stages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stages { answered_ms, whole_ms, same_ms } = self;
        write!(
            out,
            "all answered after {answered_ms} ms, whole after {whole_ms}, all copies the same after {same_ms}"
        )
    }
}

struct Campaign {
    cluster: Cluster,
    options: Options,
    began: Instant,
    rng: Rng,
    home: PathBuf,
    /// The clients of rounds that are over; what they wrote must stay.
    past: Vec<Crowd>,
}

impl Campaign {
    fn new(setting: &Setting, options: &Options, home: &Path) -> Result<Campaign, Failure> {
        let rng = Rng::new(setting.seed);
        let mut cluster = Cluster::gather(&setting.binary, options.nodes, home, "", rng.fork(u64::MAX))?;
        cluster.use_leases()?;
        let (options, home) = (*options, home.to_owned());
        Ok(Campaign { cluster, options, began: Instant::now(), rng, home, past: Vec::new() })
    }

    fn rounds(&mut self, setting: &Setting, progress: &mut dyn FnMut(&str)) -> Result<Vec<Figure>, Failure> {
        if member::faketime().is_none() {
            progress("all clocks are right in this run: libfaketime is not installed");
        }
        let last = self.options.from + setting.rounds - 1;
        let (mut hard, mut strokes, mut slowest) = (0, 0, 0);
        for round in self.options.from..=last {
            let named = |failure| match failure {
                Failure::Broken(what) => Failure::Broken(format!("round {round}: {what}")),
                other => other,
            };
            let plan = Plan::draw(&mut self.rng.fork(2 * round), self.options.nodes, self.options.length);
            progress(&format!("round {round}/{last}: {plan}"));
            let plant = self.options.plant.filter(|_| round == last);
            let (stages, crowd) = self.round(round, &plan, plant).map_err(named)?;
            hard += crowd.history.judge().map_err(Failure::Broken).map_err(named)?;
            let history = &crowd.history;
            progress(&format!(
                "  {} answered, {} unknown, {} refused; {stages}",
                history.answered, history.unknown, history.refused
            ));
            strokes += plan.strokes.len() as u64;
            slowest = slowest.max(stages.same_ms);
            self.past.push(crowd);
        }
        self.look_back()?;
        let sum = |count: fn(&Crowd) -> u64| self.past.iter().map(count).sum::<u64>();
        let counts = self.cluster.hosts.router.switch().counts;
        Ok(vec![
            ("rounds", setting.rounds, "rounds"),
            ("faults", strokes, "faults"),
            ("answered operations", sum(|crowd| crowd.history.answered), "operations"),
            ("of which nothing is known", sum(|crowd| crowd.history.unknown), "operations"),
            ("that surely did not run, or said nothing", sum(|crowd| crowd.history.refused), "operations"),
            ("histories that are not linearizable", 0, "keys"),
            ("acknowledged writes lost", 0, "operations"),
            ("histories too hard to judge", hard, "keys"),
            ("longest until whole and all copies the same", slowest, "ms"),
            ("packets passed", counts.passed, "packets"),
            ("packets lost by chance", counts.lost, "packets"),
            ("packets lost to cuts", counts.blocked, "packets"),
            ("packets doubled", counts.twice, "packets"),
        ])
    }

    /// A round; how the cluster recovered after it, and what its clients were told.
    fn round(&mut self, round: u64, plan: &Plan, plant: Option<Plant>) -> Result<(Stages, Crowd), Failure> {
        let mut crowd = Crowd::new(self.began, round, self.rng.fork(2 * round + 1), Temper::Mixed);
        let cluster = &mut self.cluster;
        cluster.hosts.set(plan.weather, &[]);
        for stroke in &plan.strokes {
            crowd.run(&cluster.hosts, stroke.calm_ms)?;
            cluster.begin(stroke.fault, plan.weather)?;
            crowd.run(&cluster.hosts, stroke.lasts_ms)?;
            cluster.mend(stroke.fault, plan.weather)?;
        }
        if plant == Some(Plant::Rollback) {
            cluster.roll_back(&mut crowd, &self.home)?;
        }
        crowd.run(&cluster.hosts, CALM_MS)?;
        cluster.hosts.set(Weather::Fair, &[]);
        let began = Instant::now();
        let since = || began.elapsed().as_millis() as u64;
        crowd.end(&cluster.hosts)?;
        let answered_ms = since();
        cluster.whole()?;
        let whole_ms = since();
        if plant == Some(Plant::Claim) {
            crowd.lie()?;
        }
        crowd.look(&cluster.hosts)?;
        cluster.agree(std::slice::from_ref(&crowd))?;
        Ok((Stages { answered_ms, whole_ms, same_ms: since() }, crowd))
    }

    /// What all rounds wrote is still there, at all nodes, and nothing else happened to it.
    fn look_back(&mut self) -> Result<(), Failure> {
        for crowd in &mut self.past {
            crowd.look(&self.cluster.hosts)?;
            crowd.history.judge().map_err(Failure::broken("after the last round"))?;
        }
        self.cluster.agree(&self.past)
    }
}

impl Cluster {
    /// Makes one, whole. `more` is what each node's configuration says besides.
    fn gather(binary: &Path, nodes: usize, home: &Path, more: &str, rng: Rng) -> Result<Cluster, Failure> {
        let hosts = Hosts::make(nodes, rng)?;
        let members = (0..nodes).map(|number| Member::new(number, hosts.host(number), home, more));
        let members = members.collect::<Result<_, _>>()?;
        let mut cluster = Cluster { hosts, members, binary: binary.to_owned() };
        let made = cluster.form();
        cluster.keep_pages(made)?;
        Ok(cluster)
    }

    fn form(&mut self) -> Result<(), Failure> {
        self.start(0, &Begins::First)?;
        for number in 1..self.members.len() {
            let token = self.until("the first node gives a token", |cluster| {
                let (first, host) = (&cluster.members[0], cluster.hosts.host(0));
                first.token(&cluster.binary, host)
            })?;
            self.start(number, &Begins::Joins(&token))?;
        }
        self.whole()
    }

    /// Reads of the one keyspace are by lease from now on, and of the other one by asking a majority.
    fn use_leases(&mut self) -> Result<(), Failure> {
        self.until("a keyspace is read by lease", |cluster| {
            cluster.members[0].use_leases(&cluster.binary, cluster.hosts.host(0))
        })
    }

    /// Keeps what the nodes say of themselves if `result` needs to be looked into.
    fn keep_pages<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Broken(_)) = &result {
            for (member, host) in self.members.iter().zip(&self.hosts.hosts) {
                member.keep_pages(host)?;
            }
        }
        result
    }

    fn start(&mut self, number: usize, begins: &Begins<'_>) -> Result<(), Failure> {
        self.members[number].start(&self.binary, self.hosts.host(number), begins)
    }

    /// Waits until `look` finds something; nobody may end meanwhile.
    fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Cluster) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let until = Instant::now() + NEVER;
        loop {
            self.members.iter_mut().try_for_each(Member::must_run)?;
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if Instant::now() > until {
                let host = self.hosts.host(0);
                let told = self.members[0].status(host)?.map(|status| status.to_string());
                return Err(Failure::Broken(format!(
                    "never, or not within {} s: {what}; node 0 says {}",
                    NEVER.as_secs(),
                    told.unwrap_or_else(|| "nothing".into())
                )));
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
    }

    /// Waits until every node sees a cluster in which nothing is missing.
    fn whole(&mut self) -> Result<(), Failure> {
        self.until("all nodes see the cluster whole", |cluster| {
            let mut whole = true;
            for (member, host) in cluster.members.iter().zip(&cluster.hosts.hosts) {
                let status = member.status(host)?;
                whole &= status.is_some_and(|status| is_whole(&status, cluster.members.len()));
            }
            Ok(whole.then_some(()))
        })
    }

    /// Waits until all copies of what these clients asked for are the same.
    fn agree(&mut self, crowds: &[Crowd]) -> Result<(), Failure> {
        let until = Instant::now() + NEVER;
        loop {
            let mut all = Vec::new();
            for node in 0..self.hosts.count() {
                let names = crowds.iter().flat_map(|crowd| crowd.history.names());
                all.push(copies::read(&self.hosts, node, names)?);
            }
            match copies::difference(&all) {
                None => return Ok(()),
                Some(what) if Instant::now() > until => {
                    return Err(Failure::Broken(format!("copies stay different: {what}")));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(LOOK_MS)),
            }
        }
    }

    fn begin(&mut self, fault: Fault, weather: Weather) -> Result<(), Failure> {
        match fault {
            Fault::Kill(node, _) => self.members[node].kill(),
            Fault::KillAll => self.members.iter_mut().try_for_each(Member::kill),
            Fault::Pause(node) => self.members[node].signal(Signal::STOP),
            Fault::CutOff(_) | Fault::Mute(_) | Fault::Deaf(_) | Fault::Apart(..) | Fault::OneWay(..) => {
                self.hosts.set(weather, &fault.blocks(self.members.len()));
                Ok(())
            }
        }
    }

    fn mend(&mut self, fault: Fault, weather: Weather) -> Result<(), Failure> {
        match fault {
            Fault::Kill(node, skew) => self.start(node, &Begins::Again(skew)),
            Fault::KillAll => self.start_all(),
            Fault::Pause(node) => self.members[node].signal(Signal::CONT),
            Fault::CutOff(_) | Fault::Mute(_) | Fault::Deaf(_) | Fault::Apart(..) | Fault::OneWay(..) => {
                self.hosts.set(weather, &[]);
                Ok(())
            }
        }
    }

    fn start_all(&mut self) -> Result<(), Failure> {
        (0..self.members.len()).try_for_each(|node| self.start(node, &Begins::Again(0)))
    }

    /// Takes a copy of all data, lets clients write on, and puts the copy in the data's place.
    fn roll_back(&mut self, crowd: &mut Crowd, home: &Path) -> Result<(), Failure> {
        let older = |number: usize| home.join(format!("older-{number}"));
        crowd.run(&self.hosts, CALM_MS)?;
        self.whole()?;
        self.begin(Fault::KillAll, Weather::Fair)?;
        for (number, member) in self.members.iter().enumerate() {
            copy(&member.data(), &older(number)).map_err(Failure::world("copy a node's data"))?;
        }
        self.start_all()?;
        crowd.end(&self.hosts)?;
        self.begin(Fault::KillAll, Weather::Fair)?;
        for (number, member) in self.members.iter().enumerate() {
            let swap = || {
                std::fs::remove_dir_all(member.data())?;
                std::fs::rename(older(number), member.data())
            };
            swap().map_err(Failure::world("exchange a node's data"))?;
        }
        self.start_all()
    }
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

impl std::fmt::Display for Plan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.weather)?;
        for Stroke { fault, calm_ms, lasts_ms } in &self.strokes {
            write!(out, ", {calm_ms} ms then {fault:?} for {lasts_ms} ms")?;
        }
        Ok(())
    }
}
