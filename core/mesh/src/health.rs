//! How instances of this node are: checks that are made from time to time, that somebody must renew, or that follow another
//! service.
//!
//! An [`Agent`] is the node's own part of the registry: what is registered here, with its checks. It says which probes to
//! make and is told how they ended; the host has the sockets. A check that succeeds becomes passing after `rise` successes,
//! one that fails critical after `fall` failures. Probes are spread by chance, and each is one at a time: a slow answer is a
//! failure at its timeout, and what still comes of it is nobody's. An instance that was critical for as long as its owner
//! said is taken back.
//!
//! Programs are not started as checks: a registration over the network would run them.

mod codec;
mod definition;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use kernel::{Micros, NodeId, Rng};

use crate::registry::record::CHECKS_MAX;
use crate::registry::{Check, Health, Instance, RecordError, RegisterError, Registry};

pub use self::codec::Saved;
pub use self::definition::{
    BODY_BYTES_MAX, CheckError, Definition, HEADERS_MAX, How, INTERVAL_MS_MIN, RUN_MAX, TARGET_BYTES_MAX,
    TIME_MS_MAX, TIMEOUT_MS_MAX,
};

/// Checks of one node, at most.
pub const NODE_CHECKS_MAX: usize = 32_768;
/// The first probe comes within this time, in milliseconds.
const FIRST_MS: u64 = 200;
/// Part of an interval by which it is longer or shorter, by chance.
const JITTER: u64 = 10;
/// The check of an instance, and its id behind it, that says that it is being maintained.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
/// The check of a node that says that it is being maintained.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";

/// A probe to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The id of its check.
    pub check: String,
    /// Which of its probes; it comes back with the result.
    pub number: u64,
    /// How.
    pub how: How,
    /// How long it may take. What comes later is not counted.
    pub timeout: Duration,
}

/// Where a check is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next probe is made then.
    Waiting(Micros),
    /// One is under way, and failed at that time.
    Probing(Micros),
    /// It was renewed, and that counts until then.
    Renewed(Micros),
    /// It follows another, or nobody renewed it.
    Idle,
}

#[derive(Clone, Debug)]
struct State {
    /// The instance; empty is the node.
    service: String,
    definition: Definition,
    phase: Phase,
    number: u64,
    successes: u32,
    failures: u32,
    status: Health,
    critical_since: Option<Micros>,
}

impl State {
    fn due(&self) -> Option<Micros> {
        let phase = match self.phase {
            Phase::Waiting(at) | Phase::Probing(at) | Phase::Renewed(at) => Some(at),
            Phase::Idle => None,
        };
        phase.into_iter().chain(self.leaves_at()).min()
    }

    /// When its instance is taken back.
    fn leaves_at(&self) -> Option<Micros> {
        let after = self.definition.deregister_ms;
        self.critical_since
            .filter(|_| after > 0 && !self.service.is_empty())
            .map(|since| since.plus_millis(after))
    }
}

/// See the module's text. A copy of it is what it was, to go back to: O(all that is registered).
#[derive(Clone, Debug)]
pub struct Agent {
    registry: Registry,
    checks: BTreeMap<String, State>,
    due: BTreeSet<(Micros, String)>,
    /// Those that follow another service.
    aliases: BTreeSet<String>,
    rng: Rng,
    probes: Vec<Probe>,
    /// Registrations were changed since this was asked last.
    changed: bool,
}

impl Agent {
    /// Nothing is registered yet at the node of `registry`.
    #[must_use]
    pub const fn new(registry: Registry, rng: Rng) -> Agent {
        Agent {
            registry,
            checks: BTreeMap::new(),
            due: BTreeSet::new(),
            aliases: BTreeSet::new(),
            rng,
            probes: Vec::new(),
            changed: false,
        }
    }

    /// What all nodes have registered.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The same, to receive, wait and wake. Instances of this node are registered by the agent's own methods.
    pub const fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.registry.me()
    }

    /// The checks of this node with the instances that they are of.
    pub fn checks(&self) -> impl Iterator<Item = (&str, &Definition)> {
        self.checks.values().map(|state| (state.service.as_str(), &state.definition))
    }

    /// A check of this node, and the instance that it is of.
    #[must_use]
    pub fn check(&self, id: &str) -> Option<(&str, &Definition)> {
        self.checks.get(id).map(|state| (state.service.as_str(), &state.definition))
    }

    /// Registers an instance with checks, or replaces it. Checks that it has already keep what is known of them; those that are not
    /// in `checks` are dropped when `replace` says so. `instance.checks` is not looked at.
    ///
    /// # Errors
    /// [`CheckError`]; nothing has changed.
    pub fn register(
        &mut self,
        now: Micros,
        mut instance: Instance,
        checks: Vec<Definition>,
        replace: bool,
    ) -> Result<(), CheckError> {
        let id = instance.id.clone();
        for definition in &checks {
            definition.valid()?;
            self.is_free(&definition.id, &id)?;
        }
        if self.checks.len() + checks.len() > NODE_CHECKS_MAX {
            return Err(CheckError::Full);
        }
        let old = self.registry.instance(&id).map(|it| it.checks.clone()).unwrap_or_default();
        let is_new = |check: &&Check| checks.iter().any(|definition| definition.id == check.id);
        let is_maintenance = |check: &Check| check.id.starts_with(SERVICE_MAINTENANCE);
        let stays = |check: &&Check| !is_new(check) && (!replace || is_maintenance(check));
        instance.checks = old.iter().filter(stays).cloned().collect();
        instance.checks.extend(checks.iter().map(|definition| {
            let known = old.iter().find(|check| check.id == definition.id);
            let (status, output) =
                known.map_or((definition.status, String::new()), |it| (it.status, it.output.clone()));
            definition.check(status, output)
        }));
        if instance.checks.len() > CHECKS_MAX {
            let (what, count, limit) = ("checks", instance.checks.len(), CHECKS_MAX);
            return Err(RecordError::TooMany { what, count, limit }.into());
        }
        let kept: BTreeSet<String> = instance.checks.iter().map(|check| check.id.clone()).collect();
        self.registry.register(now, instance)?;
        let dropped: Vec<String> = (self.checks.values())
            .filter(|state| state.service == id && !kept.contains(&state.definition.id))
            .map(|state| state.definition.id.clone())
            .collect();
        dropped.iter().for_each(|check| self.forget(check));
        checks.into_iter().for_each(|definition| self.begin(now, &id, definition));
        self.changed = true;
        Ok(())
    }

    /// Takes an instance back, and its checks.
    ///
    /// # Errors
    /// [`RegisterError::Unknown`]
    pub fn deregister(&mut self, now: Micros, id: &str) -> Result<(), RegisterError> {
        self.registry.deregister(now, id)?;
        let ids: Vec<String> = (self.checks.iter())
            .filter(|(_, state)| state.service == id)
            .map(|(check, _)| check.clone())
            .collect();
        ids.iter().for_each(|check| self.forget(check));
        self.changed = true;
        self.follow(now);
        Ok(())
    }

    /// Adds a check to an instance, or with the empty id to the node.
    ///
    /// # Errors
    /// [`CheckError`]
    pub fn add_check(
        &mut self,
        now: Micros,
        service: &str,
        definition: Definition,
    ) -> Result<(), CheckError> {
        definition.valid()?;
        self.is_free(&definition.id, service)?;
        if self.checks.len() >= NODE_CHECKS_MAX {
            return Err(CheckError::Full);
        }
        let known = self.shown(service, &definition.id);
        let (status, output) = known.map_or((definition.status, String::new()), |it| (it.status, it.output));
        self.registry.set_check(now, service, definition.check(status, output))?;
        self.begin(now, service, definition);
        self.changed = true;
        Ok(())
    }

    /// Takes a check away.
    ///
    /// # Errors
    /// [`CheckError::Unknown`]
    pub fn remove_check(&mut self, now: Micros, id: &str) -> Result<(), CheckError> {
        let unknown = || CheckError::Unknown { id: id.into() };
        let service = self.checks.get(id).map(|state| state.service.clone()).ok_or_else(unknown)?;
        self.forget(id);
        self.registry.drop_check(now, &service, id);
        self.changed = true;
        Ok(())
    }

    /// Somebody says how a check with a TTL is, for as long as that.
    ///
    /// # Errors
    /// [`CheckError::Unknown`], [`CheckError::NoTtl`]
    pub fn renew(&mut self, now: Micros, id: &str, status: Health, output: String) -> Result<(), CheckError> {
        let state = self.checks.get_mut(id).ok_or_else(|| CheckError::Unknown { id: id.into() })?;
        let How::Ttl { ttl_ms } = state.definition.how else {
            return Err(CheckError::NoTtl { id: id.into() });
        };
        self.unplan(id);
        let state = self.checks.get_mut(id).expect("it was there");
        state.phase = Phase::Renewed(now.plus_millis(ttl_ms));
        self.set(now, id, status, output);
        Ok(())
    }

    /// Whether an instance, or with the empty id the node, is being maintained: it is critical as long as that.
    ///
    /// # Errors
    /// [`RegisterError`]
    pub fn maintain(&mut self, now: Micros, service: &str, on: Option<&str>) -> Result<(), RegisterError> {
        if !service.is_empty() && self.registry.instance(service).is_none() {
            return Err(RegisterError::Unknown { id: service.into() });
        }
        let id = maintenance(service);
        match on {
            Some(reason) => {
                let name =
                    if service.is_empty() { "Node Maintenance Mode" } else { "Service Maintenance Mode" };
                let mut check = Check {
                    id,
                    name: name.to_string(),
                    kind: "maintenance".to_string(),
                    status: Health::Critical,
                    notes: reason.to_string(),
                    output: String::new(),
                };
                check.cut();
                self.registry.set_check(now, service, check)?;
            }
            None => drop(self.registry.drop_check(now, service, &id)),
        }
        self.changed = true;
        self.follow(now);
        Ok(())
    }

    /// Whether an instance, or with the empty id the node, is being maintained.
    #[must_use]
    pub fn is_maintained(&self, service: &str) -> bool {
        self.shown(service, &maintenance(service)).is_some()
    }

    /// How a probe ended.
    pub fn probed(&mut self, now: Micros, check: &str, number: u64, status: Health, output: String) {
        let is_awaited = |state: &State| state.number == number && matches!(state.phase, Phase::Probing(_));
        if self.checks.get(check).is_some_and(is_awaited) {
            self.end_probe(now, check, status, output);
        }
    }

    /// Probes to make.
    pub fn take_probes(&mut self, out: &mut Vec<Probe>) {
        out.append(&mut self.probes);
    }

    /// Whether what is registered here changed since this was asked last.
    pub const fn take_changed(&mut self) -> bool {
        core::mem::replace(&mut self.changed, false)
    }

    /// When [`Agent::wake`] must next be called.
    #[must_use]
    pub fn deadline(&self) -> Micros {
        let registry = self.registry.deadline();
        self.due.first().map_or(registry, |(at, _)| registry.min(*at))
    }

    /// Lets everything due at `now` happen.
    pub fn wake(&mut self, now: Micros) {
        self.registry.wake(now);
        while let Some((at, id)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.due.remove(&(at, id.clone()));
            self.attend(now, &id);
        }
        self.follow(now);
    }

    fn attend(&mut self, now: Micros, id: &str) {
        let Some(state) = self.checks.get_mut(id) else { return };
        if let Some(service) = state.leaves_at().filter(|at| *at <= now).map(|_| state.service.clone()) {
            // It was registered when its check was begun, and goes with it.
            let _ = self.deregister(now, &service);
            return;
        }
        match state.phase {
            Phase::Waiting(at) if at <= now => {
                state.number += 1;
                state.phase = Phase::Probing(now.plus_millis(state.definition.timeout_ms));
                self.probes.push(Probe {
                    check: id.into(),
                    number: state.number,
                    how: state.definition.how.clone(),
                    timeout: Duration::from_millis(state.definition.timeout_ms),
                });
                self.plan(id);
            }
            Phase::Probing(at) if at <= now => {
                let output = alloc::format!("no answer within {} ms", state.definition.timeout_ms);
                self.end_probe(now, id, Health::Critical, output);
            }
            Phase::Renewed(at) if at <= now => {
                state.phase = Phase::Idle;
                self.set(now, id, Health::Critical, "TTL expired".to_string());
            }
            Phase::Waiting(_) | Phase::Probing(_) | Phase::Renewed(_) | Phase::Idle => self.plan(id),
        }
    }

    fn end_probe(&mut self, now: Micros, id: &str, status: Health, output: String) {
        self.unplan(id);
        let state = self.checks.get_mut(id).expect("who ends a probe has looked");
        let interval = state.definition.interval_ms;
        let jitter = interval / JITTER;
        let pause = interval - jitter + self.rng.below(2 * jitter + 1);
        state.phase = Phase::Waiting(now.plus_millis(pause));
        let (rise, fall) = (state.definition.rise, state.definition.fall);
        if status == Health::Critical {
            (state.successes, state.failures) = (0, state.failures.saturating_add(1));
        } else {
            (state.successes, state.failures) = (state.successes.saturating_add(1), 0);
        }
        let counts = match status {
            Health::Critical => state.failures >= fall,
            Health::Passing | Health::Warning => state.status != Health::Critical || state.successes >= rise,
        };
        let status = if counts { status } else { state.status };
        self.set(now, id, status, output);
    }

    /// Has the registry know it, and plans what follows.
    fn set(&mut self, now: Micros, id: &str, status: Health, output: String) {
        self.unplan(id);
        let state = self.checks.get_mut(id).expect("who sets a check has looked");
        state.status = status;
        state.critical_since = match status {
            Health::Critical => state.critical_since.or(Some(now)),
            Health::Passing | Health::Warning => None,
        };
        let (service, check) = (state.service.clone(), state.definition.check(status, output));
        self.plan(id);
        // What it is of is registered as long as its check is known, and its text is cut.
        let _ = self.registry.set_check(now, &service, check);
    }

    /// Lets checks that are as good as another service be so.
    fn follow(&mut self, now: Micros) {
        let target = |id: &String| match &self.checks.get(id)?.definition.how {
            How::Alias { service } => Some((id.clone(), service.clone())),
            How::Http { .. } | How::Tcp { .. } | How::Grpc { .. } | How::Ttl { .. } => None,
        };
        let aliases: Vec<(String, String)> = self.aliases.iter().filter_map(target).collect();
        for (id, service) in aliases {
            let checks = if service.is_empty() {
                Some(self.registry.node().checks.clone())
            } else {
                self.registry.instance(&service).map(|it| it.checks.clone())
            };
            let (status, output) = match checks {
                None => (Health::Critical, "the service that it follows is not registered"),
                Some(checks) => {
                    let others = checks.iter().filter(|check| check.id != id);
                    let worst = others.map(|check| check.status).max().unwrap_or(Health::Passing);
                    (worst, "as the service that it follows")
                }
            };
            if self.checks.get(&id).is_some_and(|state| state.status != status || state.phase == Phase::Idle)
            {
                self.set(now, &id, status, output.to_string());
            }
        }
    }

    fn begin(&mut self, now: Micros, service: &str, definition: Definition) {
        let id = definition.id.clone();
        let shown = self.shown(service, &id).map_or(definition.status, |check| check.status);
        let old = self.checks.get(&id).filter(|old| old.definition == definition).map(|old| old.phase);
        let first = || now.plus_millis(self.rng.clone().below(FIRST_MS.min(definition.interval_ms)));
        let phase = old.unwrap_or_else(|| match definition.how {
            How::Http { .. } | How::Tcp { .. } | How::Grpc { .. } => Phase::Waiting(first()),
            // Whoever registered it has a first turn to say how it is.
            How::Ttl { ttl_ms } => Phase::Renewed(now.plus_millis(ttl_ms)),
            How::Alias { .. } => Phase::Idle,
        });
        self.rng.next_u64();
        self.unplan(&id);
        let number = self.checks.get(&id).map_or(0, |old| old.number);
        let critical_since = Some(now).filter(|_| shown == Health::Critical);
        let state = State {
            service: service.into(),
            definition,
            phase,
            number,
            successes: 0,
            failures: 0,
            status: shown,
            critical_since,
        };
        if matches!(state.definition.how, How::Alias { .. }) {
            self.aliases.insert(id.clone());
        } else {
            self.aliases.remove(&id);
        }
        self.checks.insert(id.clone(), state);
        self.plan(&id);
        self.follow(now);
    }

    fn forget(&mut self, id: &str) {
        self.unplan(id);
        self.checks.remove(id);
        self.aliases.remove(id);
    }

    fn plan(&mut self, id: &str) {
        if let Some(at) = self.checks.get(id).and_then(State::due) {
            self.due.insert((at, id.into()));
        }
    }

    fn unplan(&mut self, id: &str) {
        if let Some(at) = self.checks.get(id).and_then(State::due) {
            self.due.remove(&(at, id.into()));
        }
    }

    fn is_free(&self, id: &str, service: &str) -> Result<(), CheckError> {
        match self.checks.get(id) {
            Some(state) if state.service != service => Err(CheckError::Taken { id: id.into() }),
            Some(_) | None => Ok(()),
        }
    }

    /// A check as the registry has it.
    fn shown(&self, service: &str, id: &str) -> Option<Check> {
        let find = |checks: &[Check]| checks.iter().find(|check| check.id == id).cloned();
        if service.is_empty() {
            find(&self.registry.node().checks)
        } else {
            self.registry.instance(service).and_then(|it| find(&it.checks))
        }
    }
}

fn maintenance(service: &str) -> String {
    if service.is_empty() {
        NODE_MAINTENANCE.to_string()
    } else {
        alloc::format!("{SERVICE_MAINTENANCE}{service}")
    }
}
