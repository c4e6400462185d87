//! How a thread takes a plan: what it names keeps its place and what was learnt of it, what it does not name ends.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kernel::hash::KeyHasher;
use mesh::balance::Endpoint as Balanced;
use mesh::limit::Keyed;
use mesh::upstream::{Told, Upstream};
use mio::net::TcpListener;
use mio::{Interest, Token};

use super::{Endpoint, KIND_SHIFT, LISTENER, Listening, Loop, RouteState, Service, Table};
use crate::access::AccessLog;
use crate::plan::{EndpointPlan, ListenerPlan, Plan, RatePlan, ServicePlan};
use crate::slab::Key;

impl Loop {
    /// Takes a plan: from the next request on it is this one's.
    pub(super) fn follow(
        &mut self,
        plan: Arc<Plan>,
        number: u64,
        sockets: Vec<(ListenerPlan, std::net::TcpListener)>,
    ) {
        let (mut services, mut routes) = (Vec::new(), Vec::new());
        for service in &plan.services {
            services.push(self.take_service(service));
        }
        let named: Vec<u32> = services.clone();
        for slot in 0..self.services.len() as u32 {
            if !named.contains(&slot) {
                self.set_endpoints(slot, &[]);
            }
        }
        for route in &plan.routes {
            routes.push(self.take_route(&route.name, route.rate.as_ref()));
        }
        // Requests of a route that is not named any more were counted when they came.
        for (slot, state) in (0..).zip(&mut self.routes) {
            if !routes.contains(&slot) {
                state.keyed = None;
            }
        }
        if self.table.plan.telling.access_log != plan.telling.access_log {
            self.access = plan.telling.access_log.as_ref().and_then(|path| {
                let opened = AccessLog::open(path);
                opened
                    .inspect_err(|error| tracing::error!(%error, path = %path.display(), "no access log"))
                    .ok()
            });
        }
        self.clients_max = (plan.limits.clients_max / self.workers as usize).max(1);
        self.take_listeners(&plan, sockets);
        let introduces = plan.services.iter().any(|service| service.send_proxy.is_some());
        self.table = Rc::new(Table { plan, services, routes, introduces });
        self.follow_members();
        self.meters.generation.set(number);
        self.tell();
    }

    fn take_listeners(&mut self, plan: &Plan, sockets: Vec<(ListenerPlan, std::net::TcpListener)>) {
        for key in self.listeners.keys() {
            let Some(listening) = self.listeners.get(key) else { continue };
            match plan.listeners.iter().find(|one| one.is_same_socket(&listening.plan)) {
                Some(one) => listening.plan = Rc::new(one.clone()),
                None => drop(self.listeners.remove(key)),
            }
        }
        for (plan, socket) in sockets {
            let key = self.listeners.reserve();
            let mut socket = TcpListener::from_std(socket);
            let token = Token(LISTENER << KIND_SHIFT | key.to_bits());
            match self.poll.registry().register(&mut socket, token, Interest::READABLE) {
                Ok(()) => self.listeners.fill(key, Listening { plan: Rc::new(plan), socket }),
                Err(error) => {
                    tracing::error!(%error, name = plan.name, "a listener of the proxy cannot be used");
                    self.listeners.remove(key);
                }
            }
        }
    }

    fn take_service(&mut self, plan: &ServicePlan) -> u32 {
        let slot = match self.service_names.get(&plan.name) {
            Some(&slot) => {
                let service = &mut self.services[slot as usize];
                service.upstream.set_options(self.now, plan.options);
                let asked_as = |plan: &ServicePlan| (plan.tls.clone(), plan.http2, plan.send_proxy);
                let asked_otherwise = asked_as(&service.plan) != asked_as(plan);
                service.plan = plan.clone();
                if asked_otherwise {
                    self.drop_all_idle(slot);
                }
                slot
            }
            None => {
                let upstream = Upstream::new(plan.options, self.now, self.rng.next_u64());
                let meters = self.all_meters.service(&plan.name);
                let sticky_ids = BTreeMap::new();
                self.services.push(Service { plan: plan.clone(), upstream, sticky_ids, meters });
                let slot = self.services.len() as u32 - 1;
                self.service_names.insert(plan.name.clone(), slot);
                slot
            }
        };
        self.set_endpoints(slot, &plan.endpoints);
        // There may be more room than there was.
        self.grant(slot);
        slot
    }

    /// Connections that wait are secured as an earlier plan said.
    fn drop_all_idle(&mut self, slot: u32) {
        let of_service = self.endpoints.iter_mut().flatten().filter(|one| one.service == slot);
        let idle: Vec<Key> = of_service.flat_map(|one| std::mem::take(&mut one.idle)).collect();
        idle.into_iter().for_each(|key| self.remove_conn(key));
        for id in 0..self.endpoints.len() as u32 {
            if self.endpoints[id as usize].as_ref().is_some_and(|one| one.service == slot) {
                self.finish_trunks(id);
            }
        }
    }

    /// These are the endpoints of a service from now on. Those that go finish what they have.
    fn set_endpoints(&mut self, slot: u32, wanted: &[EndpointPlan]) {
        let (mut told, mut named) = (Vec::new(), Vec::new());
        let mut gone = Vec::new();
        for (id, endpoint) in (0..).zip(&mut self.endpoints) {
            let Some(endpoint) = endpoint.as_mut().filter(|one| one.service == slot) else { continue };
            let stays = wanted.contains(&endpoint.plan());
            if !stays && !endpoint.retired {
                endpoint.retired = true;
                endpoint.users += 1;
                gone.push(id);
            } else if stays {
                // It may come back while it has something to finish.
                endpoint.retired = false;
            }
        }
        for plan in wanted {
            let same = |one: &Endpoint| one.service == slot && one.plan() == *plan;
            let known = self.endpoints.iter().position(|one| one.as_ref().is_some_and(same));
            let id = known.map_or_else(|| self.new_endpoint(slot, plan), |at| at as u32);
            let EndpointPlan { address, weight, .. } = *plan;
            let name = KeyHasher::new(0).hash(address.to_string().as_bytes());
            named.push((id, address));
            told.push(Told { id, endpoint: Balanced { name, weight, zone: 0 }, healthy: true });
        }
        self.services[slot as usize].upstream.set_endpoints(self.now, &told);
        self.name_endpoints(slot, &named);
        for id in gone {
            for key in std::mem::take(&mut self.endpoint(id).idle) {
                self.remove_conn(key);
            }
            self.finish_trunks(id);
            self.let_go(id);
        }
    }

    fn new_endpoint(&mut self, service: u32, plan: &EndpointPlan) -> u32 {
        let EndpointPlan { address, weight, node } = *plan;
        let (idle, trunks) = (Vec::new(), Vec::new());
        let endpoint =
            Endpoint { service, address, weight, node, idle, trunks, users: 0, retired: false, meters: None };
        if let Some(id) = self.free_endpoints.pop() {
            self.endpoints[id as usize] = Some(endpoint);
            return id;
        }
        self.endpoints.push(Some(endpoint));
        self.endpoints.len() as u32 - 1
    }

    fn take_route(&mut self, name: &str, rate: Option<&RatePlan>) -> u32 {
        let slot = self.route_names.get(name).copied().unwrap_or_else(|| {
            self.routes.push(RouteState { name: name.to_owned(), keyed: None, meters: None });
            let slot = self.routes.len() as u32 - 1;
            self.route_names.insert(name.to_owned(), slot);
            slot
        });
        let state = &mut self.routes[slot as usize];
        if state.keyed.as_ref().map(|(rate, _)| rate) != rate {
            state.keyed = rate.map(|rate| (rate.clone(), Keyed::new(rate.rate, rate.keys_max)));
        }
        slot
    }

    pub fn is_retired(&mut self, id: u32) -> bool {
        self.endpoint(id).retired
    }
}
