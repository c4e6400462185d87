//! What is read: services and nodes as they are known here, each change under an index that only grows.
//!
//! A [`View`] is a value that is replaced whole: a reader holds one and sees one moment. What did not change is shared
//! with the view before.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kernel::NodeId;

use super::record::{Health, Instance, Node};

/// A node and what is thought of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Who.
    pub id: NodeId,
    /// What it says of itself.
    pub node: Arc<Node>,
    /// Membership has declared it dead.
    pub is_down: bool,
    /// When it came, as an index.
    pub create_index: u64,
    /// When it changed last, as an index.
    pub index: u64,
}

impl Host {
    /// How the node is: critical when it is down, otherwise its worst check.
    #[must_use]
    pub fn health(&self) -> Health {
        let worst = self.node.checks.iter().map(|check| check.status).max();
        if self.is_down { Health::Critical } else { worst.unwrap_or(Health::Passing) }
    }
}

/// An instance at its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its node.
    pub host: Arc<Host>,
    /// What was registered.
    pub instance: Arc<Instance>,
    /// When it came, as an index.
    pub create_index: u64,
    /// When it changed last, as an index.
    pub index: u64,
}

impl Entry {
    /// Where it is: its own address, or its node's.
    #[must_use]
    pub fn address(&self) -> &str {
        if self.instance.address.is_empty() { &self.host.node.address } else { &self.instance.address }
    }

    /// Its port; 0 is none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.instance.port
    }

    /// What fails together with it.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.host.node.zone
    }

    /// How it is: the worst of its own checks and its node.
    #[must_use]
    pub fn health(&self) -> Health {
        let worst = self.instance.checks.iter().map(|check| check.status).max();
        worst.unwrap_or(Health::Passing).max(self.host.health())
    }

    /// How often it is picked, by how it is; 0 when it is critical.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self.health() {
            Health::Passing => self.instance.weights.passing,
            Health::Warning => self.instance.weights.warning,
            Health::Critical => 0,
        }
    }

    /// Whether it may get requests.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.health() != Health::Critical
    }

    pub(super) fn place(&self) -> (NodeId, &str) {
        (self.host.id, &self.instance.id)
    }
}

/// All instances of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// When anything of it changed last, as an index.
    pub index: u64,
    /// Its instances by node and id, whatever their health; at least one.
    pub entries: Vec<Arc<Entry>>,
}

impl Service {
    /// The instances that may get requests.
    pub fn usable(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().filter(|entry| entry.is_usable())
    }

    /// The tags of its instances, each once.
    #[must_use]
    pub fn tags(&self) -> BTreeSet<&str> {
        self.entries.iter().flat_map(|entry| entry.instance.tags.iter().map(String::as_str)).collect()
    }
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Anything of one service.
    Service(Arc<str>),
    /// Which services there are, and their tags.
    Catalog,
    /// Anything.
    All,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(super) index: u64,
    pub(super) catalog: u64,
    /// When a service lost its last instance, as an index: the index of all that there are not.
    pub(super) gone: u64,
    pub(super) services: BTreeMap<Arc<str>, Arc<Service>>,
    pub(super) hosts: BTreeMap<NodeId, Arc<Host>>,
}

impl View {
    /// When anything changed last. Never falls.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// When what `topic` names changed last. Never falls, whether or not it is there.
    #[must_use]
    pub fn index_of(&self, topic: &Topic) -> u64 {
        match topic {
            Topic::Service(name) => self.services.get(name).map_or(self.gone, |service| service.index),
            Topic::Catalog => self.catalog,
            Topic::All => self.index,
        }
    }

    /// A service, if it has an instance.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services by their names.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// A node that said who it is.
    #[must_use]
    pub fn host(&self, id: NodeId) -> Option<&Arc<Host>> {
        self.hosts.get(&id)
    }

    /// All nodes.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// The node of that name, without regard to case; the first by its id, if several call themselves so.
    #[must_use]
    pub fn host_named(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.values().find(|host| host.node.name.eq_ignore_ascii_case(name))
    }

    /// What is at a node. O(instances of all).
    pub fn at(&self, id: NodeId) -> impl Iterator<Item = &Arc<Entry>> {
        self.services.values().flat_map(|service| &service.entries).filter(move |entry| entry.host.id == id)
    }
}
