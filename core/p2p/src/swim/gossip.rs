//! News that rides on messages: each a logarithmic number of times, the newest first (SWIM, section 4.1).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kernel::NodeId;

use super::message::{UPDATES_MAX, Update};

/// How often news is told, times the logarithm (base 2) of the number of members.
const RETELLINGS: u32 = 3;

/// One piece of news for each member, at most: a newer one takes its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Gossip {
    news: BTreeMap<NodeId, News>,
}

#[derive(Clone, Copy, Debug)]
struct News {
    update: Update,
    told: u32,
}

impl Gossip {
    /// Has `update` told from now on, instead of what was told of its member.
    pub fn add(&mut self, update: Update) {
        self.news.insert(update.node, News { update, told: 0 });
    }

    pub fn forget(&mut self, node: NodeId) {
        self.news.remove(&node);
    }

    /// What the next message carries among `members` members: what was told least, after `first`.
    pub fn take(&mut self, members: usize, first: Option<Update>) -> Vec<Update> {
        let mut updates: Vec<Update> = first.into_iter().collect();
        if self.news.is_empty() {
            return updates;
        }
        let often = RETELLINGS * (usize::BITS - members.leading_zeros()).max(1);
        let mut order: Vec<(u32, NodeId)> = self.news.iter().map(|(&node, news)| (news.told, node)).collect();
        order.sort_unstable();
        for (_, node) in order {
            if updates.len() == UPDATES_MAX {
                break;
            }
            if first.is_some_and(|update| update.node == node) {
                continue;
            }
            let news = self.news.get_mut(&node).expect("it was just listed");
            updates.push(news.update);
            news.told += 1;
            if news.told >= often {
                self.news.remove(&node);
            }
        }
        updates
    }
}
