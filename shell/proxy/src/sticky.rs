//! Clients that stay at an endpoint: a cookie names it, and the endpoint that answers otherwise sets another.

use std::io::Write;

use mesh::sticky::Name;
use wire::http1::{Request, cookie};

use crate::conn::Exchange;
use crate::plan::StickyPlan;
use crate::slab::Key;
use crate::worker::Loop;

/// What a client's request says of where it was before.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stays {
    /// What its cookie says.
    pub name: Option<Name>,
    /// It came in TLS, to us or to a proxy that is trusted.
    pub is_secured: bool,
}

impl Stays {
    /// What a request says to a service that has such cookies.
    pub fn of(sticky: &StickyPlan, head: &Request<'_, '_>, is_secured: bool, is_trusted: bool) -> Stays {
        let told = || {
            let mut protos =
                head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("x-forwarded-proto"));
            protos.next_back().is_some_and(|field| field.value.eq_ignore_ascii_case(b"https"))
        };
        let name = cookie(head.headers, &sticky.cookie).and_then(Name::read);
        Stays { name, is_secured: is_secured || is_trusted && told() }
    }
}

impl Loop {
    /// The endpoint that a request's cookie names; `None` if it is gone.
    pub fn stays_at(&self, x: &Exchange) -> Option<u32> {
        let name = x.stays.name?;
        self.services[x.service as usize].sticky_ids.get(&name).copied()
    }

    /// Puts the cookie of who answers into a response's head, which is at the end of `out`, if the client has another.
    pub fn stick(&mut self, x: &Exchange, out: &mut Vec<u8>) {
        let service = &self.services[x.service as usize];
        let (Some(sticky), Some(ticket)) = (&service.plan.sticky, &x.ticket) else { return };
        if x.stays.name.and_then(|name| service.sticky_ids.get(&name)) == Some(&ticket.id) {
            return;
        }
        let here = service.sticky_ids.iter().find(|(_, id)| **id == ticket.id).map(|(name, _)| *name);
        // One that goes is not to be come back to.
        let Some(name) = here else { return };
        out.truncate(out.len() - 2);
        // A vector takes what is written to it.
        let _ = write!(out, "set-cookie: {}={name}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie);
        if x.stays.is_secured {
            out.extend_from_slice(b"; Secure");
        }
        if sticky.ttl_seconds > 0 {
            let _ = write!(out, "; Max-Age={}", sticky.ttl_seconds);
        }
        out.extend_from_slice(b"\r\n\r\n");
        service.count_stuck();
    }

    /// What the endpoints of a service are called from now on.
    pub fn name_endpoints(&mut self, slot: u32, ids: &[(u32, std::net::SocketAddr)]) {
        let service = &mut self.services[slot as usize];
        service.sticky_ids = match &service.plan.sticky {
            None => std::collections::BTreeMap::new(),
            Some(sticky) => {
                let named = |&(id, address): &(u32, _)| (sticky.names.name(&service.plan.name, address), id);
                ids.iter().map(named).collect()
            }
        };
    }

    /// What a request says of where it was, if its service asks that.
    pub fn stays(&mut self, key: Key, service: u32, head: &Request<'_, '_>) -> Stays {
        let Loop { services, clients, .. } = self;
        let Some(sticky) = &services[service as usize].plan.sticky else { return Stays::default() };
        let Some(client) = clients.get(key) else { return Stays::default() };
        Stays::of(sticky, head, client.is_secured, client.sources.is_some())
    }
}
