//! What concerns a whole node when its connections are spread over several workers: what all of them
//! tell, and what all of them are told.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::Micros;
use storage::object::glob::{Case, matches};
use storage::{Fault, Reply};

use super::call::{Call, Done, Place};
use super::client::Client;
use super::histogram::Histograms;
use super::host::Pause;
use super::info::Facts;
use super::latency::Latency;
use super::slowlog::Slowlog;

/// What a worker, or several, tell about themselves.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Figures.
    pub facts: Facts,
    /// Connections.
    pub clients: Vec<Client>,
    /// Channels that are listened to, with the number of those who do.
    pub channels: BTreeMap<Box<[u8]>, usize>,
    /// Patterns that are listened to, with the number of those who do.
    pub patterns: BTreeMap<Box<[u8]>, usize>,
    /// Slow commands.
    pub slowlog: Slowlog,
    /// Spikes.
    pub latency: Latency,
    /// How long commands took.
    pub histograms: Histograms,
}

impl Survey {
    /// Takes in what another worker tells. What is of the process stays as it is.
    pub fn add(&mut self, other: Survey) {
        self.facts.add(&other.facts);
        self.clients.extend(other.clients);
        for (own, others) in [(&mut self.channels, other.channels), (&mut self.patterns, other.patterns)] {
            for (name, count) in others {
                *own.entry(name).or_default() += count;
            }
        }
        self.slowlog.add(other.slowlog);
        self.latency.add(other.latency);
        self.histograms.add(other.histograms);
        (self.facts.channels, self.facts.patterns) = (self.channels.len(), self.patterns.len());
    }

    /// How many would get a message on `channel`.
    #[must_use]
    pub fn receivers(&self, channel: &[u8]) -> usize {
        let matching = self.patterns.iter().filter(|(pattern, _)| matches(pattern, channel, Case::Exact));
        self.channels.get(channel).copied().unwrap_or_default()
            + matching.map(|(_, count)| count).sum::<usize>()
    }
}

/// A setting's name and its value.
pub type Setting = (Box<[u8]>, Box<[u8]>);

/// What every worker of the node is told to do, in the same order.
#[derive(Clone, Debug)]
pub enum Order {
    /// Change settings; they were checked.
    Configure(Vec<Setting>),
    /// Hold back commands of all clients until that time.
    Pause(Pause, Micros),
    /// Set the counters of `INFO` back to 0.
    ResetCounters,
    /// Forget slow commands.
    ResetSlowlog,
    /// Forget the spikes of these events, or of all if there are none.
    ResetLatency(Vec<Box<[u8]>>),
}

/// What is answered when all workers have followed an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// `OK`.
    Ok,
    /// A number.
    Int(i64),
}

/// Whether what was asked of the node is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is; the caller answers.
    Done,
    /// The connection is answered when it is.
    Underway,
}

impl Call<'_> {
    /// Gives an order to the node and answers. In a transaction nobody waits for the other workers.
    pub(super) fn order(&mut self, order: Order, then: Then) -> Result<Done, Fault> {
        let waits = (self.place == Place::Direct).then_some(then);
        match (self.host.order(order, waits), then) {
            (Progress::Underway, _) => return Ok(Done::Silent),
            (Progress::Done, Then::Ok) => self.reply.ok(),
            (Progress::Done, Then::Int(value)) => self.reply.int(value),
        }
        Ok(Done::Answered)
    }
}
