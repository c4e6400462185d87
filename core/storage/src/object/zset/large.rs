//! A large sorted set: a dense table from member to score, and the order over the table's positions.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::tree::{Item, Tree};
use super::{Change, Score};
use crate::object::set::table::Table;
use crate::store::Pieces;

/// Invariant: `order` holds one item for each entry of `table`, with its position and score.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    table: Table<Score>,
    order: Tree,
}

/// How an item stands to (score, member).
fn against<'a>(table: &'a Table<Score>, score: Score, member: &'a [u8]) -> impl Fn(Item) -> Ordering + 'a {
    move |item| item.score().cmp(&score).then_with(|| table.key(item.at()).cmp(member))
}

impl Large {
    /// The set of a table's members with their scores. O(n log n).
    pub(crate) fn from_table(table: Table<Score>) -> Large {
        let mut items: Vec<Item> =
            table.entries().iter().enumerate().map(|(at, entry)| Item::new(entry.value, at)).collect();
        items.sort_unstable_by(|a, b| {
            a.score().cmp(&b.score()).then_with(|| table.key(a.at()).cmp(table.key(b.at())))
        });
        let order = Tree::from_sorted(&items);
        Large { table, order }
    }

    /// Frees it member by member, then node by node.
    pub(crate) fn into_pieces(self) -> Pieces {
        Box::new(self.table.into_pieces(0).chain(self.order.into_pieces()))
    }

    /// Members with scores, by position.
    pub(crate) fn table(&self) -> &Table<Score> {
        &self.table
    }

    /// The order.
    pub(crate) fn order(&self) -> &Tree {
        &self.order
    }

    /// The member and score of an item.
    #[inline]
    pub(crate) fn resolve(&self, item: Item) -> (&[u8], Score) {
        (self.table.key(item.at()), item.score())
    }

    /// The score of `member`.
    #[inline]
    pub(crate) fn score(&self, member: &[u8]) -> Option<Score> {
        self.table.find(member).map(|at| self.table.entries()[at].value)
    }

    /// Adds `member` or changes its score.
    pub(crate) fn insert(&mut self, member: &[u8], score: Score) -> Change {
        let (at, new) = self.table.find_or_insert(member, || score);
        if !new {
            let old = self.table.entries()[at].value;
            if old == score {
                return Change::Unchanged;
            }
            self.order.remove(against(&self.table, old, member));
            *self.table.value_mut(at) = score;
        }
        self.order.insert(Item::new(score, at), against(&self.table, score, member));
        if new { Change::Added } else { Change::Updated }
    }

    /// How many members are before (score, member).
    pub(crate) fn rank(&self, score: Score, member: &[u8]) -> usize {
        let compare = against(&self.table, score, member);
        self.order.partition(|item| compare(item) == Ordering::Less)
    }

    /// Takes out the member at a position of the table.
    pub(crate) fn remove_at(&mut self, at: usize) -> Score {
        let table = &self.table;
        let score = table.entries()[at].value;
        self.order.remove(against(table, score, table.key(at)));
        // The table is about to move its last entry here. The order learns it first, while both
        // positions can still be read.
        let last = table.len() - 1;
        if at != last {
            let score = table.entries()[last].value;
            self.order.replace(Item::new(score, at), against(table, score, table.key(last)));
        }
        self.table.swap_remove(at).value
    }

    /// Takes out the member with a rank that exists.
    pub(crate) fn remove_rank(&mut self, rank: usize) {
        self.remove_at(self.order.get(rank).at());
    }

    /// Bytes of memory, estimated. O(1).
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Tree>() + self.table.memory_bytes() + self.order.memory_bytes()
    }
}
