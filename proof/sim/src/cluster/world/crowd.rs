//! What clients do: they connect somewhere, ask, lose patience, and at the end want everything answered.

use std::net::SocketAddr;

use kernel::{KeyspaceId, Term};
use node::Partition;

use super::World;
use crate::cluster::split;
use check::client::Wish;

/// Whoever is connected to a process that runs is answered within so many microseconds: a command waits for a leader
/// five seconds where it was sent, and five more where it was logged; the rest is the net's and the disk's.
const ANSWER_MICROS_MAX: u64 = 14_000_000;
/// How often the same client may be refused at the end before the next pause, in microseconds.
const RETRY_MICROS: u64 = 100_000;

impl World<'_> {
    /// A client's own doing.
    pub(super) fn client(&mut self, at: usize) -> Result<(), String> {
        let client = &self.clients[at];
        let Some((node, conn)) = client.conn else {
            if client.next <= self.now {
                self.connect(at);
            }
            return Ok(());
        };
        if client.gives_up().is_some_and(|due| due <= self.now) {
            self.trace.event(self.now, format_args!("client {} gives up", client.number));
            if let Some(life) = &mut self.machines[node].life {
                life.worker.disconnect(conn);
                life.again = Some(self.now);
            }
            self.lose(at);
            return Ok(());
        }
        let since = client.waits_since.max(self.machines[node].paused_until);
        if client.waits() && self.now > since + client.blocks + ANSWER_MICROS_MAX {
            return Err(format!("client {} waits at node {node} since {since}", client.number));
        }
        if client.next > self.now || client.waits() {
            return Ok(());
        }
        let (now, think) = (self.now, self.plan.think_micros);
        let client = &mut self.clients[at];
        if let Some(wish) = client.wish {
            client.next = now + RETRY_MICROS;
            if client.rounds == 0 || client.refused {
                self.wish(at, wish);
            } else {
                client.content = client.served > 0;
                client.next = u64::MAX;
            }
            return Ok(());
        }
        let rests = self.rng.chance(0.05);
        let pause = if rests { 500_000 + self.rng.below(3_000_000) } else { self.rng.below(think) };
        client.next = now + 1 + pause;
        let refused = std::mem::take(&mut client.refused);
        if refused && self.plan.split.is_none() && self.rng.chance(0.3) {
            // It looks for a node that leads.
            if let Some(life) = &mut self.machines[node].life {
                life.worker.disconnect(conn);
                life.again = Some(now);
            }
            self.lose(at);
            return Ok(());
        }
        let client = &mut self.clients[at];
        client.act(now, &mut self.history, &mut self.rng);
        Ok(())
    }

    /// Asks again. Who was refused asks elsewhere.
    fn wish(&mut self, at: usize, wish: Wish) {
        let (now, client) = (self.now, &mut self.clients[at]);
        if client.refused {
            let Some((node, conn)) = client.conn else { return };
            if let Some(life) = &mut self.machines[node].life {
                life.worker.disconnect(conn);
                life.again = Some(now);
            }
            client.lost(now, &mut self.history);
            client.wish = Some(Wish { node: wish.node + 1, ..wish });
            (client.refused, client.served, client.rounds) = (false, 0, 0);
            return;
        }
        (client.rounds, client.served) = (client.rounds + 1, 0);
        client.ask_for(now, &mut self.history, wish.key, wish.kind);
    }

    /// The highest term in which a node leads a partition of a keyspace, as far as it knows.
    fn term(&self, node: usize, db: u16) -> Option<Term> {
        let life = self.machines[node].life.as_ref()?;
        let own = |partition: &&Partition| partition.leads() && partition.keyspace() == KeyspaceId(db);
        life.worker.partitions().iter().filter(own).map(Partition::term).max()
    }

    fn connect(&mut self, at: usize) {
        let db = match self.clients[at].wish {
            Some(wish) => wish.db,
            None => self.rng.below(self.plan.keyspaces.len() as u64) as u16,
        };
        // A node without a replica knows nobody to hand commands to: this world has no directory.
        let serves = |&node: &usize| {
            let mut groups = self.seats.groups().into_iter();
            groups.all(|group| group.keyspace() != KeyspaceId(db) || self.partition(node, group).is_some())
        };
        let mut running: Vec<usize> = (0..self.machines.len()).filter(serves).collect();
        if self.plan.split.is_some() && self.clients[at].wish.is_none() {
            // Each side of a split has its clients.
            let own = split::node_of(self.clients[at].number, self.machines.len());
            running.retain(|&node| node == own);
        }
        let (now, wait) = (self.now, self.rng.below(100_000));
        if running.is_empty() {
            self.clients[at].next = now + 1 + wait;
            return;
        }
        let node = match self.clients[at].wish {
            Some(Wish { node, .. }) => running[node % running.len()],
            None => {
                let any = running[self.rng.below(running.len() as u64) as usize];
                // Of two that believe they lead, readers try the old one and writers the new one.
                let leaders = running.iter().copied().filter(|&node| self.term(node, db).is_some());
                let term = |node: &usize| self.term(*node, db);
                let leader = if self.clients[at].only_reads() {
                    leaders.min_by_key(term)
                } else {
                    leaders.max_by_key(term)
                };
                leader.filter(|_| self.rng.chance(0.7)).unwrap_or(any)
            }
        };
        let clock = self.machines[node].clock(now);
        let Some(life) = &mut self.machines[node].life else { return };
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let conn = life.worker.connect(clock, peer).expect("there are few clients");
        self.trace.event(now, format_args!("client {} connects to {node}", self.clients[at].number));
        self.clients[at].connected(now, (node, conn), db);
        self.clients[at].next = now;
    }
}
