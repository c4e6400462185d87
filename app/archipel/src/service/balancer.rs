//! Which instance of a service gets the next request of this program, by the policies that the proxy has, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kernel::hash::KeyHasher;
use kernel::{Micros, NodeId};
use mesh::Outcome;
use mesh::balance::{Ask, Balancer, Endpoint, Policy, Zones};
use mesh::registry::{Entry, ServiceRegistry};

/// The instances of one service, of which each next request gets one. O(instances) for each, since it looks at the registry.
pub struct LoadBalancer<R> {
    registry: R,
    service: String,
    state: Arc<Mutex<State>>,
}

struct State {
    balancer: Balancer,
    /// At the same places as in `balancer`.
    members: Vec<Member>,
    /// What was registered when it was looked last. An entry is never changed but replaced.
    seen: Vec<Arc<Entry>>,
    /// Given to the next one that comes, so that what is picked is not taken for one that came later.
    next: u64,
    epoch: Instant,
}

struct Member {
    number: u64,
    entry: Arc<Entry>,
}

/// An instance that was picked: a request is under way there until this is reported on, or dropped.
pub struct Picked {
    /// The instance.
    pub entry: Arc<Entry>,
    number: u64,
    since: Micros,
    state: Arc<Mutex<State>>,
    outcome: Outcome,
}

impl<R: ServiceRegistry> LoadBalancer<R> {
    /// One for `service`, which need not be registered yet.
    #[must_use]
    pub fn new(registry: R, service: &str, policy: Policy) -> LoadBalancer<R> {
        let seed = KeyHasher::new(0).hash(service.as_bytes());
        let balancer = Balancer::new(policy, Zones::default(), 0, seed);
        let state = State { balancer, members: Vec::new(), seen: Vec::new(), next: 0, epoch: Instant::now() };
        LoadBalancer { registry, service: service.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    /// The instance for the next request; `None` if none may get one.
    #[must_use]
    pub fn next(&self) -> Option<Picked> {
        let found = self.registry.discover(&self.service);
        let mut state = lock(&self.state);
        let now = state.now();
        state.follow(now, found);
        let at = state.balancer.pick(&Ask { now, key: None, except: None })?;
        let Member { number, entry } = &state.members[at];
        let (number, entry, state) = (*number, Arc::clone(entry), Arc::clone(&self.state));
        Some(Picked { entry, number, since: now, state, outcome: Outcome::Abandoned })
    }
}

impl Picked {
    /// Where it is: `address:port`.
    #[must_use]
    pub fn place(&self) -> String {
        let (address, port) = (self.entry.address(), self.entry.port());
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// The request has ended so. One that is only dropped says nothing about its instance.
    pub fn report(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let now = state.now();
        // It may be gone, and nothing is said of it then.
        if let Some(at) = state.members.iter().position(|member| member.number == self.number) {
            state.balancer.report(now, at, now.since(self.since), self.outcome);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(entry: &Entry) -> (NodeId, &str) {
    (entry.host.id, &entry.instance.id)
}

impl State {
    fn now(&self) -> Micros {
        Micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Takes over what is registered now. O(instances) if that is what it was, and with a logarithm if not.
    fn follow(&mut self, now: Micros, found: Vec<Arc<Entry>>) {
        let is_known =
            found.len() == self.seen.len() && found.iter().zip(&self.seen).all(|(a, b)| Arc::ptr_eq(a, b));
        if is_known {
            return;
        }
        let usable = found.iter().filter(|entry| entry.weight() > 0);
        let mut others: BTreeMap<(NodeId, &str), &Arc<Entry>> =
            usable.map(|entry| (identity(entry), entry)).collect();
        for at in (0..self.members.len()).rev() {
            let old = Arc::clone(&self.members[at].entry);
            let same = |new: &Entry| {
                (new.address(), new.port(), new.weight()) == (old.address(), old.port(), old.weight())
            };
            match others.get(&identity(&old)).copied().filter(|new| same(new)) {
                Some(new) => {
                    self.members[at].entry = Arc::clone(new);
                    others.remove(&identity(new));
                }
                None => {
                    self.balancer.swap_remove(at);
                    self.members.swap_remove(at);
                }
            }
        }
        // In one order at all who know the same.
        for ((node, id), entry) in others {
            let name = KeyHasher::new(0).hash(&[&node.0[..], id.as_bytes()].concat());
            let weight = u16::try_from(entry.weight()).unwrap_or(u16::MAX);
            self.balancer.add(now, Endpoint { name, weight, zone: 0 });
            self.members.push(Member { number: self.next, entry: Arc::clone(entry) });
            self.next += 1;
        }
        self.seen = found;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh::registry::{Check, Health, Host, Instance, Node, RegisterError, Service, Weights};

    use super::*;

    /// A registry of what it is told.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Arc<Entry>>>>);

    impl Told {
        fn has(&self, instances: &[(&str, u32, Health)]) {
            let host = Host {
                id: NodeId([1; 32]),
                node: Arc::new(Node { name: "n".into(), address: "10.0.0.1".into(), ..Node::default() }),
                is_down: false,
                create_index: 1,
                index: 1,
            };
            let host = Arc::new(host);
            let one = |&(id, passing, status): &(&str, u32, Health)| {
                let checks = vec![Check { id: id.into(), status, ..Check::default() }];
                let weights = Weights { passing, warning: 0 };
                let instance = Instance { id: id.into(), port: 1, weights, checks, ..Instance::default() };
                Arc::new(Entry {
                    host: Arc::clone(&host),
                    instance: Arc::new(instance),
                    create_index: 1,
                    index: 1,
                })
            };
            *self.0.lock().unwrap() = instances.iter().map(one).collect();
        }
    }

    impl ServiceRegistry for Told {
        fn register(&self, _: Instance) -> Result<(), RegisterError> {
            Err(RegisterError::Full)
        }

        fn discover(&self, _: &str) -> Vec<Arc<Entry>> {
            self.0.lock().unwrap().iter().filter(|entry| entry.is_usable()).cloned().collect()
        }

        fn deregister(&self, id: &str) -> Result<(), RegisterError> {
            Err(RegisterError::Unknown { id: id.into() })
        }

        fn watch(&self, _: &str, after: u64, _: Duration) -> (u64, Option<Arc<Service>>) {
            (after, None)
        }
    }

    const UP: Health = Health::Passing;

    /// How often each is picked.
    fn picks(balancer: &LoadBalancer<Told>, count: usize) -> BTreeMap<String, usize> {
        let mut picked = BTreeMap::new();
        for _ in 0..count {
            let one = balancer.next().unwrap();
            *picked.entry(one.entry.instance.id.clone()).or_default() += 1;
            one.report(Outcome::Success);
        }
        picked
    }

    fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
        pairs.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
    }

    #[test]
    fn requests_are_divided_as_the_policy_says_over_those_that_may_get_any() {
        let told = Told::default();
        #[rustfmt::skip] // columns
        let table: [(_, &[_], &[_]); 6] = [
            (Policy::RoundRobin,         &[("a", 1, UP), ("b", 1, UP)],               &[("a", 6), ("b", 6)]),
            (Policy::WeightedRoundRobin, &[("a", 3, UP), ("b", 1, UP)],               &[("a", 9), ("b", 3)]),
            (Policy::LeastRequests,      &[("a", 1, UP), ("b", 1, UP), ("c", 1, UP)], &[("a", 4), ("b", 4), ("c", 4)]),
            (Policy::RoundRobin,         &[("a", 1, UP), ("b", 1, Health::Critical)], &[("a", 12)]),
            // Its weight is 0 as long as it is warning.
            (Policy::RoundRobin,         &[("a", 1, UP), ("b", 1, Health::Warning)],  &[("a", 12)]),
            (Policy::Random,             &[("a", 1, UP)],                             &[("a", 12)]),
        ];
        for (policy, instances, expected) in table {
            told.has(instances);
            let balancer = LoadBalancer::new(told.clone(), "web", policy);
            assert_eq!(picks(&balancer, 12), counts(expected), "{policy:?} {instances:?}");
        }
    }

    #[test]
    fn who_comes_and_goes_is_followed_and_requests_under_way_elsewhere_count_on() {
        let told = Told::default();
        let balancer = LoadBalancer::new(told.clone(), "web", Policy::LeastRequests);
        assert!(balancer.next().is_none());
        told.has(&[("a", 1, UP), ("b", 1, UP)]);
        let held: Vec<Picked> = (0..4).map(|_| balancer.next().unwrap()).collect();
        told.has(&[("b", 1, UP), ("c", 1, UP)]);
        // Two are under way at b, so c has the next ones.
        let next = [balancer.next().unwrap(), balancer.next().unwrap()];
        assert!(next.iter().all(|one| one.entry.instance.id == "c"));
        // What was under way at one that is gone is nobody's, also when another comes by its name.
        told.has(&[("a", 1, UP), ("b", 1, UP), ("c", 1, UP)]);
        let again = balancer.next().unwrap();
        assert_eq!((again.entry.instance.id.as_str(), again.place().as_str()), ("a", "10.0.0.1:1"));
        drop((held, next, again));
        assert_eq!(picks(&balancer, 6), counts(&[("a", 2), ("b", 2), ("c", 2)]));
        told.has(&[]);
        assert!(balancer.next().is_none());
    }

    #[test]
    fn thousands_are_followed_as_few_are() {
        let told = Told::default();
        let balancer = LoadBalancer::new(told.clone(), "web", Policy::RoundRobin);
        let ids: Vec<String> = (0..4000).map(|n| format!("i{n}")).collect();
        let has = |range: std::ops::Range<usize>, weight| {
            let some = &ids[range];
            told.has(&some.iter().map(|id| (id.as_str(), weight, UP)).collect::<Vec<_>>());
            some.iter().map(|id| (id.clone(), 1)).collect::<BTreeMap<_, _>>()
        };
        for (range, weight) in [(0..2000, 1), (1000..3000, 1), (1000..3000, 2), (2000..4000, 2)] {
            let expected = has(range.clone(), weight);
            assert_eq!(picks(&balancer, 2000), expected, "{range:?}");
        }
    }
}
