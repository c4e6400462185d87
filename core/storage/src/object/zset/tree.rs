//! An ordered sequence of (score, table position) with ranks: a B+ tree that counts.
//!
//! Comer, "The Ubiquitous B-Tree" (1979), with the number of items below each child, so that rank and
//! position are both O(log n). Members are not stored: an item names its entry in the table, and the
//! caller's comparison reads the member there. Underfull nodes are merged with a neighbour when both fit
//! comfortably, which bounds waste without rebalancing at every removal.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::Score;

/// Most items of a leaf: 1.5 KiB, so that shifting them stays cheap.
const LEAF_ITEMS_MAX: usize = 128;
/// Most children of an inner node.
const CHILDREN_MAX: usize = 64;

/// A score, and the position in the table of the member that has it. 12 bytes, not 16.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(crate) struct Item {
    score: Score,
    at: u32,
}

const _: () = assert!(size_of::<Item>() == 12);

impl Item {
    /// The item of the member at table position `at`.
    #[inline]
    pub(crate) fn new(score: Score, at: usize) -> Item {
        Item { score, at: u32::try_from(at).expect("a table has at most 2^32 entries") }
    }

    /// The score.
    #[inline]
    pub(crate) fn score(self) -> Score {
        self.score
    }

    /// The position of the member in the table.
    #[inline]
    pub(crate) fn at(self) -> usize {
        self.at as usize
    }
}

/// The sequence. Comparisons tell how an item stands to the one that is sought.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Node,
    len: usize,
    nodes: usize,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Vec<Item>),
    /// Never empty, but for a moment during removal.
    Inner(Vec<Child>),
}

/// Invariant: `min` and `count` are the first item below `node` and how many there are; `count > 0`.
#[derive(Clone, Debug)]
struct Child {
    min: Item,
    count: u32,
    node: Box<Node>,
}

impl Tree {
    /// The sequence of `items`, which are in order. O(n).
    pub(crate) fn from_sorted(items: &[Item]) -> Tree {
        // Not full, so that the first insertions do not split every leaf.
        let mut level: Vec<Node> =
            items.chunks(LEAF_ITEMS_MAX * 3 / 4).map(|chunk| Node::Leaf(chunk.to_vec())).collect();
        let mut nodes = level.len().max(1);
        while level.len() > 1 {
            let mut children = level.into_iter().map(Child::of).peekable();
            let mut above = Vec::new();
            while children.peek().is_some() {
                above.push(Node::Inner(children.by_ref().take(CHILDREN_MAX * 3 / 4).collect()));
            }
            nodes += above.len();
            level = above;
        }
        let root = level.pop().unwrap_or(Node::Leaf(Vec::new()));
        Tree { root, len: items.len(), nodes }
    }

    /// Frees it node by node; tells the bytes of each.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = usize> + Send {
        let mut left = alloc::vec![self.root];
        core::iter::from_fn(move || {
            Some(match left.pop()? {
                Node::Leaf(items) => items.capacity() * size_of::<Item>(),
                Node::Inner(children) => {
                    let bytes = children.capacity() * size_of::<Child>();
                    left.extend(children.into_iter().map(|child| *child.node));
                    bytes
                }
            })
        })
    }

    /// Bytes of memory, estimated from the number of nodes and items.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.nodes * (size_of::<Child>() + size_of::<Node>() + 16) + self.len * (size_of::<Item>() * 5 / 4)
    }

    /// Adds `item` before the first one that does not compare `Less`.
    pub(crate) fn insert(&mut self, item: Item, compare: impl Fn(Item) -> Ordering) {
        self.len += 1;
        if let Some(right) = self.root.insert(item, &compare, &mut self.nodes) {
            let left = core::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            self.root = Node::Inner(alloc::vec![Child::of(left), Child::of(right)]);
            self.nodes += 1;
        }
    }

    /// Takes out the item that compares `Equal`; it is there.
    pub(crate) fn remove(&mut self, compare: impl Fn(Item) -> Ordering) {
        self.root.remove(&compare, &mut self.nodes);
        self.len -= 1;
        while let Node::Inner(children) = &mut self.root {
            match children.len() {
                0 => self.root = Node::Leaf(Vec::new()),
                1 => {
                    let only = children.pop().expect("there is one child");
                    self.root = *only.node;
                    self.nodes -= 1;
                }
                _ => break,
            }
        }
    }

    /// Replaces the item that compares `Equal`, which is there, by one with the same order.
    pub(crate) fn replace(&mut self, item: Item, compare: impl Fn(Item) -> Ordering) {
        self.root.replace(item, &compare);
    }

    /// How many items satisfy `below`, which holds for a first part of them.
    pub(crate) fn partition(&self, below: impl Fn(Item) -> bool) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(items) => return rank + items.partition_point(|&item| below(item)),
                Node::Inner(children) => {
                    let i = children.partition_point(|child| below(child.min));
                    let Some(last) = i.checked_sub(1) else { return rank };
                    rank += children[..last].iter().map(|child| child.count as usize).sum::<usize>();
                    node = &children[last].node;
                }
            }
        }
    }

    /// The leaf with item number `rank`, which exists, and that item's index in it.
    pub(crate) fn leaf(&self, rank: usize) -> (&[Item], usize) {
        assert!(rank < self.len);
        let (mut node, mut left) = (&self.root, rank);
        loop {
            match node {
                Node::Leaf(items) => return (items, left),
                Node::Inner(children) => {
                    let child = children
                        .iter()
                        .find(|child| match left.checked_sub(child.count as usize) {
                            Some(rest) => {
                                left = rest;
                                false
                            }
                            None => true,
                        })
                        .expect("the counts of children add up to the length");
                    node = &child.node;
                }
            }
        }
    }

    /// The item number `rank`, which exists.
    pub(crate) fn get(&self, rank: usize) -> Item {
        let (items, index) = self.leaf(rank);
        items[index]
    }
}

impl Child {
    fn of(node: Node) -> Child {
        let count = match &node {
            Node::Leaf(items) => items.len() as u32,
            Node::Inner(children) => children.iter().map(|child| child.count).sum(),
        };
        Child { min: node.min(), count, node: Box::new(node) }
    }
}

/// The child below which an item that compares `Equal` is, or belongs.
#[inline]
fn route(children: &[Child], compare: &impl Fn(Item) -> Ordering) -> usize {
    children.partition_point(|child| compare(child.min) != Ordering::Greater).saturating_sub(1)
}

/// Where to cut a full node in which something was put at `at`: in half, but behind the last place, so
/// that members which arrive in order leave full nodes behind.
fn cut(at: usize, len: usize) -> usize {
    if at + 1 == len { len - 1 } else { len / 2 }
}

impl Node {
    /// The first item; the node is not empty.
    fn min(&self) -> Item {
        match self {
            Node::Leaf(items) => items[0],
            Node::Inner(children) => children[0].min,
        }
    }

    fn width(&self) -> usize {
        match self {
            Node::Leaf(items) => items.len(),
            Node::Inner(children) => children.len(),
        }
    }

    /// Adds `item`; the right half if the node had to be split.
    fn insert(&mut self, item: Item, compare: &impl Fn(Item) -> Ordering, nodes: &mut usize) -> Option<Node> {
        match self {
            Node::Leaf(items) => {
                let at = items.partition_point(|&other| compare(other) == Ordering::Less);
                items.insert(at, item);
                (items.len() > LEAF_ITEMS_MAX).then(|| {
                    *nodes += 1;
                    Node::Leaf(items.split_off(cut(at, items.len())))
                })
            }
            Node::Inner(children) => {
                let at = route(children, compare);
                let child = &mut children[at];
                let split = child.node.insert(item, compare, nodes);
                child.count += 1;
                child.min = child.node.min();
                let right = Child::of(split?);
                child.count -= right.count;
                children.insert(at + 1, right);
                (children.len() > CHILDREN_MAX).then(|| {
                    *nodes += 1;
                    Node::Inner(children.split_off(cut(at + 1, children.len())))
                })
            }
        }
    }

    fn remove(&mut self, compare: &impl Fn(Item) -> Ordering, nodes: &mut usize) {
        match self {
            Node::Leaf(items) => {
                let at = items.partition_point(|&other| compare(other) == Ordering::Less);
                assert!(compare(items[at]) == Ordering::Equal, "what is removed is in the sequence");
                items.remove(at);
            }
            Node::Inner(children) => {
                let at = route(children, compare);
                let child = &mut children[at];
                child.node.remove(compare, nodes);
                child.count -= 1;
                if child.count == 0 {
                    *nodes -= 1 + child.node.width();
                    children.remove(at);
                    return;
                }
                child.min = child.node.min();
                if child.node.is_sparse() {
                    let left = at.saturating_sub(1);
                    if left + 1 < children.len() && merge(children, left) {
                        *nodes -= 1;
                    }
                }
            }
        }
    }

    fn replace(&mut self, item: Item, compare: &impl Fn(Item) -> Ordering) {
        match self {
            Node::Leaf(items) => {
                let at = items.partition_point(|&other| compare(other) == Ordering::Less);
                assert!(compare(items[at]) == Ordering::Equal, "what is replaced is in the sequence");
                items[at] = item;
            }
            Node::Inner(children) => {
                let at = route(children, compare);
                let child = &mut children[at];
                child.node.replace(item, compare);
                child.min = child.node.min();
            }
        }
    }

    fn is_sparse(&self) -> bool {
        match self {
            Node::Leaf(items) => items.len() < LEAF_ITEMS_MAX / 4,
            Node::Inner(children) => children.len() < CHILDREN_MAX / 4,
        }
    }
}

/// Moves what is below the child after `left` into `left` if the two leave some room; false if not.
fn merge(children: &mut Vec<Child>, left: usize) -> bool {
    let [a, b] = &mut children[left..left + 2] else { return false };
    match (&mut *a.node, &mut *b.node) {
        (Node::Leaf(x), Node::Leaf(y)) if x.len() + y.len() <= LEAF_ITEMS_MAX * 3 / 4 => x.append(y),
        (Node::Inner(x), Node::Inner(y)) if x.len() + y.len() <= CHILDREN_MAX * 3 / 4 => x.append(y),
        _ => return false,
    }
    a.count += b.count;
    children.remove(left + 1);
    true
}
