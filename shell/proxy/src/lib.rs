//! The proxy's data plane: HTTP/1.1, HTTP/2, TLS and TCP between clients and the endpoints of services.
//!
//! Each thread has an event loop of its own and shares nothing with the others: its own listeners (`SO_REUSEPORT`), clients,
//! connections to endpoints, and its own view of breakers, balancing and budgets (`mesh::upstream`). What HTTP is, is
//! `wire::http1`'s affair; which endpoint, when again and when not at all, is `mesh`'s. Here are sockets, bytes and time.
//!
//! A [`Plan`] is followed as a whole. Requests under way keep the one that they began with; endpoints that a new one does
//! not name finish what they have.

mod access;
mod answer;
mod buffers;
mod conn;
mod greet;
mod h2;
mod introduce;
mod members;
mod meters;
mod mirror;
mod mutual;
mod plan;
mod queue;
mod serve;
mod slab;
mod socket;
mod spans;
mod start;
mod sticky;
mod telling;
mod timers;
mod tls;
mod transfer;
mod tries;
mod tunnel;
mod worker;

pub use answer::Reason;
pub use meters::{EndpointFigures, LoopMeters, Meters, RouteFigures, RouteMeters, ServiceMeters};
pub use mutual::{Allowed, NodeTls, Roster};
pub use plan::{
    EndpointPlan, KeyOf, Limits, ListenerKind, ListenerPlan, MirrorPlan, Plan, RatePlan, RoutePlan,
    ServicePlan, Sources, SpanPlan, StickyPlan, Telling, TlsPlan,
};
pub use start::{Passed, Proxy, ProxyError};
pub use tls::{CERTIFICATES_MAX, ClientTls, Inside, Keys, PairFiles, ServerTls, TlsError};
