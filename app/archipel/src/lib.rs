//! Archipel within another program: a node is started in its process, and services of the program are registered at it,
//! watched over and found, here and at all members of the node's cluster.
//!
//! ```no_run
//! use archipel::service::LoadBalancer;
//! use archipel::{Beginning, Loaded, Policy, Server, Sources};
//!
//! let on = ("embedded".to_owned(), "services.enabled".to_owned(), "true".to_owned());
//! let loaded = Loaded::load(&Sources { flags: vec![on], ..Sources::default() })?;
//! let server = Server::start(&loaded, Beginning::Usual, || ())?;
//! let registry = server.services.as_ref().expect("they are enabled").handle.clone();
//! let balancer = LoadBalancer::new(registry, "web", Policy::LeastRequests);
//! if let Some(picked) = balancer.next() {
//!     println!("{}", picked.place());
//! }
//! server.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `cargo run -p archipel --example service` shows a service from its start to its end. The command of this name is what
//! operators use; it shares nothing with this but the node.

pub mod service;

pub use mesh::Outcome;
pub use mesh::balance::Policy;
pub use mesh::registry::{Entry, Health, Instance, ServiceRegistry};
pub use server::config::{Config, Loaded, Sources};
pub use server::services::Handle;
pub use server::{Beginning, ServeError, Server};
