//! What is told of requests that are over: to the meters, the access log, and who keeps traces.

use std::net::{IpAddr, Ipv4Addr};

use crate::access::Line;
use crate::answer::{Answer, Reason};
use crate::conn::{Exchange, State};
use crate::slab::Key;
use crate::spans::{Ending, Recorded, span};
use crate::worker::Loop;

/// What is known of a request that goes nowhere; nothing of one that could not be read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Refused<'a> {
    pub client: Option<IpAddr>,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub route: &'a str,
    pub recorded: Option<Recorded>,
}

impl Loop {
    /// Whether the request that has just come has a line in the access log.
    pub fn is_logged(&self) -> bool {
        let sample = u64::from(self.table.plan.telling.access_sample.max(1));
        self.access.is_some() && self.requests.is_multiple_of(sample)
    }

    /// Tells of a request that goes nowhere, if it is one of those of which something is told.
    pub fn tell_refused(&mut self, key: Key, answer: &Answer, asked: Refused<'_>) {
        let (is_logged, recorded) = (self.is_logged(), asked.recorded);
        if !is_logged && recorded.is_none() {
            return;
        }
        let now = self.now;
        let client = self.clients.get(key);
        let is_secured = client.as_ref().is_some_and(|client| client.is_secured);
        let (peer, member) = client.map(|client| (client.peer, client.member.clone())).unzip();
        let member = member.flatten();
        let line = Line {
            now,
            client: asked.client.or(peer).unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            member: member.as_ref().map(|member| member.name.as_str()),
            method: asked.method,
            host: asked.host,
            path: asked.path,
            route: asked.route,
            service: "",
            endpoint: None,
            status: answer.status,
            micros: 0,
            tries: 0,
            reason: Some(answer.reason.word()),
        };
        if let Some(access) = self.access.as_mut().filter(|_| is_logged) {
            access.note(&line);
        }
        if let Some(recorded) = recorded {
            self.spans.note(span(recorded, Ending { is_secured, is_cut: false }, &line));
        }
    }

    /// Counts a request that is over, and tells of it if it is one of those of which something is told.
    pub fn tell_of(&mut self, x: &Exchange, reason: Option<Reason>) {
        let Some(&slot) = x.table.routes.get(x.route as usize) else { return };
        let micros = self.now.since(x.began);
        let class = usize::from(x.status / 100).min(5);
        let meters = self.route_meters(slot);
        meters.classes[class].increment();
        meters.micros.record(micros);
        let Some(told) = &x.told else { return };
        let Loop { access, spans, services, now, .. } = self;
        let line = Line {
            now: *now,
            client: told.client,
            member: told.member.as_ref().map(|member| member.name.as_str()),
            method: &told.method,
            host: &told.host,
            path: &told.path,
            route: &x.table.plan.routes[x.route as usize].name,
            service: &services[x.service as usize].plan.name,
            endpoint: told.endpoint,
            status: x.status,
            micros,
            tries: x.tries,
            reason: reason.map(Reason::word),
        };
        let is_cut = reason.is_some() && x.state == State::Responding;
        if let Some(access) = access.as_mut().filter(|_| told.is_logged) {
            access.note(&line);
        }
        if let Some(recorded) = told.recorded {
            spans.note(span(recorded, Ending { is_secured: told.is_secured, is_cut }, &line));
        }
    }
}
