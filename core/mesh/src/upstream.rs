//! One service as a proxy's thread sees it: its breaker, its endpoints, who of them is left out, and its budget for retries.
//!
//! A try enters and leaves; what it was let through as is its [`Ticket`]. Endpoints are known by ids that are never given to
//! another while tickets name them, so endpoints may come and go while requests are under way: a report on one that is gone
//! counts for the service and for nobody else. Options are exchanged with all endpoints kept, and what is learnt of them.

use alloc::vec::Vec;

use kernel::planted::{Bug, is};
use kernel::{Micros, Rng};
use thiserror::Error;

use crate::Outcome;
use crate::balance::{Ask, Balancer, Endpoint, Policy, Zones};
use crate::breaker::{self, Breaker, BreakerOptions, Pass, Refused};
use crate::limit::adaptive::Entered;
use crate::limit::{Adaptive, AdaptiveOptions, Priority};
use crate::outlier::{OutlierOptions, Outliers};
use crate::queue::{NoPlace, Place, Queue, QueueOptions, Waits};
use crate::retry::{Budget, RetryOptions, Try, Verdict, verdict};

/// What is decided for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// How its endpoints are chosen.
    pub policy: Policy,
    /// How long new endpoints have less than their share, in milliseconds; 0: not.
    pub slow_start_ms: u64,
    /// Its breaker.
    pub breaker: BreakerOptions,
    /// When endpoints are left out.
    pub outliers: OutlierOptions,
    /// How many requests it takes at once is learnt, within these bounds and those of the breaker.
    pub adaptive: Option<AdaptiveOptions>,
    /// Who waits when as many are under way as may be.
    pub queue: QueueOptions,
    /// Retries that each request earns, in hundredths.
    pub budget_percent: u8,
    /// Most retries that are kept.
    pub budget_max: u16,
}

impl Default for UpstreamOptions {
    /// The defaults of its parts, and no slow start.
    fn default() -> UpstreamOptions {
        UpstreamOptions {
            policy: Policy::default(),
            slow_start_ms: 0,
            breaker: BreakerOptions::default(),
            outliers: OutlierOptions::default(),
            adaptive: None,
            queue: QueueOptions::default(),
            budget_percent: 20,
            budget_max: 10,
        }
    }
}

/// An endpoint as its owner tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The owner's number for it. It is not used again while a ticket may name it.
    pub id: u32,
    /// What it is to the balancer.
    pub endpoint: Endpoint,
    /// It is not known to be down.
    pub healthy: bool,
}

/// Why a request does not go to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Its breaker.
    #[error(transparent)]
    Breaker(#[from] Refused),
    /// It has no endpoint, or none that may be used.
    #[error("the service has no usable endpoint")]
    NoEndpoint,
}

/// What a try was let through as. It is given back with [`Upstream::leave`], exactly once.
#[must_use]
#[derive(Debug)]
pub struct Ticket {
    /// The endpoint that it goes to.
    pub id: u32,
    serial: u64,
    place: usize,
    pass: Pass,
    begun: Micros,
    /// Below the learnt limit, if there is one.
    entered: Option<Entered>,
    life: u32,
}

/// What a try asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// A hash of what should stay at one endpoint, for policies that hash.
    pub key: Option<u64>,
    /// The endpoint that it should go to, whatever the policy, if that may be used.
    pub stays: Option<u32>,
    /// The endpoint that has just failed.
    pub except: Option<u32>,
    /// Whose turn it is.
    pub turn: Turn,
}

/// Whether a try has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// It has just come: those who wait go first.
    #[default]
    New,
    /// It was granted room, which it has used by entering.
    Granted,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    told: Told,
    /// Its own, also when its id comes back.
    serial: u64,
    /// The balancer may pick it.
    usable: bool,
}

/// A service. See the module's text.
#[derive(Clone, Debug)]
pub struct Upstream {
    options: UpstreamOptions,
    seed: u64,
    breaker: Breaker,
    balancer: Balancer,
    outliers: Outliers,
    budget: Budget,
    adaptive: Option<Adaptive>,
    queue: Queue,
    rng: Rng,
    members: Vec<Member>,
    /// Healthy ones, and those of them that are not left out.
    counts: (usize, usize),
    /// The next member's.
    serial: u64,
    /// Tickets of earlier lives are not reported on.
    life: u32,
}

impl Upstream {
    /// No endpoints yet.
    #[must_use]
    pub fn new(options: UpstreamOptions, now: Micros, seed: u64) -> Upstream {
        Upstream {
            options,
            seed,
            breaker: Breaker::new(options.breaker),
            balancer: Balancer::new(options.policy, Zones::default(), options.slow_start_ms, seed),
            outliers: Outliers::new(options.outliers, 0, now),
            budget: Budget::new(options.budget_percent, options.budget_max),
            adaptive: options.adaptive.map(|options| Adaptive::new(options, now)),
            queue: Queue::new(options.queue),
            rng: Rng::new(seed).fork(1),
            members: Vec::new(),
            counts: (0, 0),
            serial: 0,
            life: 0,
        }
    }

    /// Other options from now on. What was learnt is forgotten if they differ, and tickets that are out mean nothing. Who
    /// waits goes on to, and may have room now.
    pub fn set_options(&mut self, now: Micros, options: UpstreamOptions) {
        if options == self.options {
            return;
        }
        let members: Vec<Told> = self.members.iter().map(|member| member.told).collect();
        let life = self.life.wrapping_add(1);
        let queue = core::mem::take(&mut self.queue).with(options.queue);
        *self = Upstream { life, queue, ..Upstream::new(options, now, self.seed) };
        self.set_endpoints(now, &members);
    }

    /// These are its endpoints from now on, each id once. Those that stay keep what is known of them. O(n²).
    pub fn set_endpoints(&mut self, now: Micros, told: &[Told]) {
        for place in (0..self.members.len()).rev() {
            let old = self.members[place].told;
            let stays = told.iter().any(|new| new.id == old.id && new.endpoint == old.endpoint);
            if !stays {
                self.members.swap_remove(place);
                self.balancer.swap_remove(place);
                self.outliers.swap_remove(place);
            }
        }
        for new in told {
            match self.members.iter_mut().find(|member| member.told.id == new.id) {
                Some(member) => member.told.healthy = new.healthy,
                None => {
                    self.serial += 1;
                    self.members.push(Member { told: *new, serial: self.serial, usable: true });
                    self.balancer.add(now, new.endpoint);
                    self.outliers.add(now);
                }
            }
        }
        self.refresh(now);
    }

    /// What its breaker is.
    #[must_use]
    pub fn standing(&self, now: Micros) -> breaker::Standing {
        self.breaker.standing(now)
    }

    /// Tries under way.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        self.breaker.requests()
    }

    /// Tries that may be under way now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let most = self.options.breaker.requests_max;
        self.adaptive.as_ref().map_or(most, |adaptive| adaptive.limit().min(most))
    }

    /// Tries that count, and how many of them may be under way: by the bound that leaves less room.
    #[inline]
    fn bound(&self) -> (u32, u32) {
        let (requests, most) = (self.breaker.requests(), self.options.breaker.requests_max);
        let Some(adaptive) = &self.adaptive else { return (requests, most) };
        let (entered, limit) = (adaptive.under_way(), adaptive.limit());
        let less = limit.saturating_sub(entered) < most.saturating_sub(requests);
        if less { (entered, limit) } else { (requests, most) }
    }

    /// Endpoints; those that may be picked; those left out; ejections so far; picks in a panic so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let (ejections, panics) = self.outliers.counted();
        let (endpoints, usable) = (self.members.len(), self.balancer.usable());
        Counted { endpoints, usable, out: self.outliers.out(), ejections, panics }
    }

    /// Its endpoints and how they are, in no order. O(endpoints).
    pub fn members(&self) -> impl Iterator<Item = Standing> + '_ {
        self.members.iter().enumerate().map(|(place, member)| Standing {
            id: member.told.id,
            under_way: self.balancer.under_way(place),
            usable: member.usable,
        })
    }

    /// A request came that is no retry: it earns a part of one.
    pub const fn request(&mut self) {
        self.budget.request();
    }

    /// A try: where it goes. `key` is a hash of what should stay at one endpoint, `except` the endpoint that has just failed.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is to be given back. [`Refused::TooMany`] also if others wait for their turn.
    pub fn enter(&mut self, now: Micros, key: Option<u64>, except: Option<u32>) -> Result<Ticket, Refusal> {
        self.enter_as(now, &Wanted { key, except, ..Wanted::default() })
    }

    /// The same, as is wanted in more detail.
    ///
    /// # Errors
    /// [`Refusal`]. The room of a try that was granted any is free then, see [`Upstream::grant`].
    pub fn enter_as(&mut self, now: Micros, wanted: &Wanted) -> Result<Ticket, Refusal> {
        match wanted.turn {
            Turn::New => {
                let (requests, limit) = self.bound();
                if requests >= limit || self.queue.comes_first(requests, limit) {
                    return Err(Refusal::Breaker(Refused::TooMany { limit }));
                }
            }
            Turn::Granted => self.queue.spend(),
        }
        if now >= self.outliers.deadline() {
            self.outliers.wake(now);
            self.refresh(now);
        }
        let pass = self.breaker.enter(now)?;
        let place = |id: u32| self.members.iter().position(|member| member.told.id == id);
        let except = wanted.except.and_then(place);
        let stays = wanted.stays.and_then(place).filter(|&at| self.members[at].usable && Some(at) != except);
        let picked = match stays {
            Some(at) => Some(self.balancer.pick_at(at)),
            None => self.balancer.pick(&Ask { now, key: wanted.key, except }),
        };
        let Some(place) = picked else {
            self.breaker.leave(now, pass, Outcome::Abandoned);
            return Err(Refusal::NoEndpoint);
        };
        let (healthy, left) = self.counts;
        // Counts it, if the others are used only because too few are left.
        let _ = self.outliers.panics(healthy, left);
        let Member { told: Told { id, .. }, serial, .. } = self.members[place];
        let entered = self.adaptive.as_mut().map(|adaptive| adaptive.enter(now));
        Ok(Ticket { id, serial, place, pass, begun: now, entered, life: self.life })
    }

    /// A try has become a tunnel, whose length says nothing: the learnt limit does not count it any more. Who may enter then
    /// says [`Upstream::grant`].
    pub fn lasts(&mut self, now: Micros, ticket: &mut Ticket) {
        if ticket.life != self.life || is(Bug::TunnelKeepsRoom) {
            return;
        }
        if let (Some(adaptive), Some(entered)) = (&mut self.adaptive, ticket.entered.take()) {
            adaptive.withdraw(now, entered);
        }
    }

    /// A try has ended. Returns how long it took, in microseconds.
    pub fn leave(&mut self, now: Micros, ticket: Ticket, outcome: Outcome) -> u64 {
        let micros = now.since(ticket.begun);
        if ticket.life != self.life {
            return micros;
        }
        self.breaker.leave(now, ticket.pass, outcome);
        if let (Some(adaptive), Some(entered)) = (&mut self.adaptive, ticket.entered) {
            adaptive.leave(now, entered, outcome);
        }
        let place = if is(Bug::ReportOnSuccessor) {
            Some(ticket.place).filter(|&at| at < self.members.len() && self.balancer.under_way(at) > 0)
        } else {
            self.place(ticket.place, ticket.serial)
        };
        if let Some(place) = place {
            self.balancer.report(now, place, micros, outcome);
            let before = self.outliers.counted().0;
            self.outliers.report(now, place, outcome);
            if self.outliers.counted().0 != before && !is(Bug::EjectedStillPicked) {
                self.refresh(now);
            }
        }
        micros
    }

    /// A request that was refused with [`Refused::TooMany`] waits for room. `who` is told by [`Upstream::grant`].
    ///
    /// # Errors
    /// [`NoPlace`]; it does not wait.
    pub fn queue(&mut self, now: Micros, class: Priority, who: u64) -> Result<Waits, NoPlace> {
        self.queue.wait(now, class, who)
    }

    /// It waits no more. If it was granted room already that is free again, see [`Upstream::grant`].
    pub fn unqueue(&mut self, place: Place) {
        if !self.queue.leave(place) {
            self.queue.spend();
        }
    }

    /// Who may enter now, as [`Turn::Granted`]; to be asked until it is nobody, after [`Upstream::leave`] and
    /// whatever else may have made room.
    #[inline]
    pub fn grant(&mut self, now: Micros) -> Option<u64> {
        let (requests, limit) = self.bound();
        self.queue.grant(now, requests, limit)
    }

    /// Who waits.
    #[must_use]
    pub const fn waiting(&self) -> &Queue {
        &self.queue
    }

    /// A try that waits for its connection.
    ///
    /// # Errors
    /// [`Refused::TooManyPending`]; it does not wait.
    pub fn wait(&mut self) -> Result<(), Refused> {
        self.breaker.wait()
    }

    /// It waits no more. `ticket` is its own.
    pub fn waited(&mut self, ticket: &Ticket) {
        if ticket.life == self.life {
            self.breaker.waited();
        }
    }

    /// What to do after a try has failed. Spends what it decides from the budget.
    pub fn again(&mut self, now: Micros, options: &RetryOptions, last: &Try) -> Verdict {
        verdict(now, options, &mut self.budget, &mut self.rng, last)
    }

    /// Where the endpoint is now, which was there before.
    fn place(&self, hint: usize, serial: u64) -> Option<usize> {
        if self.members.get(hint).is_some_and(|member| member.serial == serial) {
            return Some(hint);
        }
        self.members.iter().position(|member| member.serial == serial)
    }

    /// Tells the balancer who may be picked.
    fn refresh(&mut self, now: Micros) {
        let healthy = self.members.iter().filter(|member| member.told.healthy).count();
        let left = |(place, member): (usize, &Member)| member.told.healthy && self.outliers.is_in(place);
        let left = self.members.iter().enumerate().filter(|&one| left(one)).count();
        self.counts = (healthy, left);
        // Asked without an account: what is counted are requests.
        let panics = self.outliers.would_panic(healthy, left);
        for (place, member) in self.members.iter_mut().enumerate() {
            let usable = member.told.healthy && (panics || self.outliers.is_in(place));
            if usable != member.usable {
                member.usable = usable;
                self.balancer.set_usable(now, place, usable);
            }
        }
    }
}

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The owner's number for it.
    pub id: u32,
    /// Tries under way there.
    pub under_way: u32,
    /// It may be picked.
    pub usable: bool,
}

/// What there is to count of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Endpoints.
    pub endpoints: usize,
    /// Those that may be picked.
    pub usable: usize,
    /// Those that misbehave and are left out.
    pub out: usize,
    /// How often one was left out.
    pub ejections: u64,
    /// Requests that went to all because too few were left.
    pub panics: u64,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::outlier::Panic;
    use Outcome::{Failure, Success};

    const NOW: Micros = Micros(1_000_000_000);

    fn told(id: u32) -> Told {
        Told { id, endpoint: Endpoint { name: u64::from(id), weight: 1, zone: 0 }, healthy: true }
    }

    fn upstream(options: UpstreamOptions, ids: &[u32]) -> Upstream {
        let mut upstream = Upstream::new(options, NOW, 7);
        upstream.set_endpoints(NOW, &ids.iter().map(|&id| told(id)).collect::<Vec<_>>());
        upstream
    }

    fn robin() -> UpstreamOptions {
        UpstreamOptions { policy: Policy::RoundRobin, ..UpstreamOptions::default() }
    }

    #[test]
    fn who_fails_is_left_out_and_comes_back() {
        let mut one = upstream(robin(), &[1, 2, 3]);
        let mut picks = Vec::new();
        for _ in 0..60 {
            let ticket = one.enter(NOW, None, None).unwrap();
            let outcome = if ticket.id == 2 { Failure } else { Success };
            picks.push(ticket.id);
            one.leave(NOW, ticket, outcome);
        }
        assert_eq!(picks.iter().filter(|&&id| id == 2).count(), 5, "it is out after five failures");
        assert_eq!(one.counted(), Counted { endpoints: 3, usable: 2, out: 1, ejections: 1, panics: 0 });
        let later = NOW.plus_millis(OutlierOptions::default().eject_ms);
        let ids: Vec<u32> = (0..3)
            .map(|_| {
                let ticket = one.enter(later, None, None).unwrap();
                let id = ticket.id;
                one.leave(later, ticket, Success);
                id
            })
            .collect();
        assert!(ids.contains(&2), "{ids:?}");
    }

    #[test]
    fn a_report_on_who_is_gone_counts_for_nobody_else() {
        let mut one = upstream(robin(), &[1, 2]);
        let tickets: Vec<Ticket> = (0..12).map(|_| one.enter(NOW, None, None).unwrap()).collect();
        one.set_endpoints(NOW, &[told(2), told(3)]);
        for ticket in tickets {
            let outcome = if ticket.id == 1 { Failure } else { Success };
            one.leave(NOW, ticket, outcome);
        }
        assert_eq!((one.counted().out, one.requests()), (0, 0));
        // It came back while a request to its earlier life was under way.
        let mut one = upstream(robin(), &[1]);
        let ticket = one.enter(NOW, None, None).unwrap();
        one.set_endpoints(NOW, &[]);
        one.set_endpoints(NOW, &[told(1)]);
        one.leave(NOW, ticket, Success);
        assert_eq!(one.requests(), 0);
    }

    #[test]
    fn who_is_down_is_not_picked_and_of_none_there_is_none() {
        let mut one = upstream(robin(), &[1, 2]);
        one.set_endpoints(NOW, &[Told { healthy: false, ..told(1) }, told(2)]);
        for _ in 0..5 {
            let ticket = one.enter(NOW, None, None).unwrap();
            assert_eq!(ticket.id, 2);
            one.leave(NOW, ticket, Success);
        }
        one.set_endpoints(NOW, &[Told { healthy: false, ..told(1) }]);
        assert_eq!(one.enter(NOW, None, None).unwrap_err(), Refusal::NoEndpoint);
        assert_eq!(one.requests(), 0, "who is refused is not under way");
        assert_eq!(upstream(robin(), &[]).enter(NOW, None, None).unwrap_err(), Refusal::NoEndpoint);
    }

    #[test]
    fn panic_is_explicit_and_its_requests_are_counted() {
        let outliers = OutlierOptions {
            consecutive: 1,
            out_percent_max: 100,
            panic: Panic::UseAllBelow(50),
            ..OutlierOptions::default()
        };
        let mut one = upstream(UpstreamOptions { outliers, ..robin() }, &[1, 2, 3]);
        for _ in 0..3 {
            let ticket = one.enter(NOW, None, None).unwrap();
            one.leave(NOW, ticket, Failure);
        }
        assert!(one.counted().out >= 2, "{:?}", one.counted());
        let ids: Vec<u32> = (0..3).map(|_| one.enter(NOW, None, None).unwrap().id).collect();
        assert!([1, 2, 3].iter().all(|id| ids.contains(id)), "{ids:?}");
        assert!(one.counted().panics >= 3);
    }

    #[test]
    fn other_options_keep_the_endpoints_and_drop_what_is_out() {
        let mut one = upstream(robin(), &[1, 2]);
        let ticket = one.enter(NOW, None, None).unwrap();
        one.set_options(NOW, UpstreamOptions { budget_percent: 1, ..robin() });
        assert_eq!((one.counted().usable, one.requests()), (2, 0));
        one.leave(NOW, ticket, Failure);
        assert_eq!(one.requests(), 0);
        let before = one.life;
        one.set_options(NOW, UpstreamOptions { budget_percent: 1, ..robin() });
        assert_eq!(one.life, before, "the same options change nothing");
    }

    #[test]
    fn who_stays_does_so_unless_the_endpoint_is_gone_out_or_has_just_failed() {
        let mut one = upstream(robin(), &[1, 2, 3]);
        let wanted = Wanted { stays: Some(2), ..Wanted::default() };
        let go = |one: &mut Upstream, wanted: &Wanted, outcome| {
            let ticket = one.enter_as(NOW, wanted).unwrap();
            let id = ticket.id;
            one.leave(NOW, ticket, outcome);
            id
        };
        assert_eq!([(); 4].map(|()| go(&mut one, &wanted, Success)), [2; 4]);
        assert_ne!(go(&mut one, &Wanted { except: Some(2), ..wanted }, Success), 2);
        assert_ne!(go(&mut one, &Wanted { stays: Some(9), ..wanted }, Success), 9);
        assert_eq!([(); 5].map(|()| go(&mut one, &wanted, Failure)), [2; 5]);
        assert_ne!(go(&mut one, &wanted, Success), 2, "it is left out");
        one.set_endpoints(NOW, &[told(1)]);
        assert_eq!(go(&mut one, &wanted, Success), 1);
    }

    #[test]
    fn who_waits_is_not_overtaken_and_not_forgotten_by_other_options() {
        let breaker = BreakerOptions { requests_max: 1, ..BreakerOptions::default() };
        let options = UpstreamOptions { breaker, queue: QueueOptions { places: 9, wait_ms: 1 }, ..robin() };
        let mut one = upstream(options, &[1]);
        let too_many = |one: &mut Upstream| {
            matches!(one.enter(NOW, None, None), Err(Refusal::Breaker(Refused::TooMany { limit: 1 })))
        };
        let first = one.enter(NOW, None, None).unwrap();
        assert!(too_many(&mut one));
        let [_, third, fourth] = [2, 3, 4].map(|who| one.queue(NOW, Priority::Normal, who).unwrap().place);
        assert_eq!(one.grant(NOW), None);
        one.leave(NOW, first, Success);
        assert!(too_many(&mut one), "it is not the turn of who comes now");
        assert_eq!((one.grant(NOW), one.grant(NOW)), (Some(2), None));
        assert!(too_many(&mut one), "the room is granted");
        let ticket = one.enter_as(NOW, &Wanted { turn: Turn::Granted, ..Wanted::default() }).unwrap();
        one.leave(NOW, ticket, Success);
        one.unqueue(third);
        assert_eq!(one.grant(NOW), Some(4));
        // Its client has gone before it entered.
        one.unqueue(fourth);
        assert!(one.enter(NOW, None, None).map(|ticket| one.leave(NOW, ticket, Success)).is_ok());
        one.queue(NOW, Priority::Normal, 5).unwrap();
        one.set_options(NOW, UpstreamOptions { queue: QueueOptions::default(), ..options });
        assert_eq!((one.waiting().len(), one.grant(NOW)), (1, Some(5)));
    }

    #[test]
    fn a_learnt_limit_bounds_what_is_under_way_and_tunnels_are_not_counted() {
        let adaptive = Some(AdaptiveOptions { first: 4, least: 4, most: 4 });
        let breaker = BreakerOptions { requests_max: 6, ..BreakerOptions::default() };
        let queue = QueueOptions { places: 1, wait_ms: 1 };
        let mut one = upstream(UpstreamOptions { adaptive, breaker, queue, ..robin() }, &[1, 2]);
        let fill = |one: &mut Upstream| -> Vec<Ticket> {
            core::iter::from_fn(|| one.enter(NOW, None, None).ok()).collect()
        };
        let mut all = fill(&mut one);
        assert_eq!((all.len(), one.limit()), (4, 4));
        one.queue(NOW, Priority::Normal, 9).unwrap();
        one.lasts(NOW, &mut all[0]);
        one.lasts(NOW, &mut all[0]);
        assert_eq!((one.grant(NOW), one.grant(NOW)), (Some(9), None), "a tunnel's room is another's");
        all.push(one.enter_as(NOW, &Wanted { turn: Turn::Granted, ..Wanted::default() }).unwrap());
        all.iter_mut().for_each(|ticket| one.lasts(NOW, ticket));
        all.extend(fill(&mut one));
        assert_eq!((all.len(), one.requests()), (6, 6), "the breaker counts them all");
        all.into_iter().for_each(|ticket| _ = one.leave(NOW, ticket, Success));
        assert_eq!((one.requests(), one.adaptive.as_ref().unwrap().under_way()), (0, 0));
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_what_entered_leaves(
            steps in prop::collection::vec((0u8..4, any::<u32>()), 1..80),
            policy in 0usize..8,
        ) {
            use Policy::{LeastRequests, Maglev, PeakEwma, Random, Ring, RoundRobin, TwoChoices, WeightedRoundRobin};
            let policies =
                [RoundRobin, WeightedRoundRobin, Random, LeastRequests, TwoChoices, PeakEwma, Maglev, Ring];
            let options = UpstreamOptions { policy: policies[policy], ..UpstreamOptions::default() };
            let (mut one, mut out, mut now) = (upstream(options, &[1, 2, 3]), vec![], NOW);
            for (step, value) in steps {
                now = now.plus_millis(u64::from(value % 3000));
                match step {
                    0 => {
                        if let Ok(ticket) = one.enter(now, Some(u64::from(value)), Some(value % 6)) {
                            prop_assert!(one.members.iter().any(|member| member.told.id == ticket.id));
                            out.push(ticket);
                        }
                    }
                    1 if !out.is_empty() => {
                        let ticket = out.swap_remove(value as usize % out.len());
                        one.leave(now, ticket, if value & 64 == 0 { Failure } else { Success });
                    }
                    2 => {
                        let ids: Vec<Told> = (0..6)
                            .filter(|id| value >> id & 1 == 1)
                            .map(|id| Told { healthy: value >> (id + 8) & 1 == 1, ..told(id) })
                            .collect();
                        one.set_endpoints(now, &ids);
                    }
                    _ => {}
                }
                prop_assert_eq!(one.requests() as usize, out.len());
                prop_assert_eq!(one.balancer.len(), one.members.len());
            }
        }
    }
}
