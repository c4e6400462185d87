//! Which of two connections between two nodes stays, when both have dialled.
//!
//! The one that the node with the smaller id dialled. The rule only speaks where both are known to work: a dial
//! that has not come as far as its greeting gives way to a greeting that has arrived, because the other direction
//! may be closed for good. A link that the peer must have lost (it restarted, or dials long after the link
//! came up) gives way to a new one.

use kernel::NodeId;

/// A peer that dials so long after a link came up, in milliseconds, has lost that link: its own dials of that
/// time have failed by then.
pub const SETTLED_MS: u64 = 5_000;

/// What there is of our own on the lane that a peer's greeting arrives for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Nothing, or a dial that waits.
    Nothing,
    /// A dial that has not sent its greeting.
    Dialling,
    /// A dial whose greeting was sent and is not answered.
    Greeted,
    /// A link that is up.
    Up(Link),
}

/// A link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which side dialled it.
    pub dialled: Side,
    /// The peer's incarnation: drawn when its process started.
    pub incarnation: u64,
    /// For how long, in milliseconds.
    pub age_ms: u64,
}

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Us,
    /// The other node.
    Peer,
}

/// What becomes of the peer's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the link; what there is of our own on this lane is closed.
    Take,
    /// It is closed; ours is, or will be, the link.
    Refuse,
}

/// Judges a greeting of `peer`, whose process has this `incarnation`, beside our `own`.
#[must_use]
pub fn settle(us: NodeId, peer: NodeId, own: Own, incarnation: u64) -> Verdict {
    match own {
        Own::Nothing | Own::Dialling => Verdict::Take,
        Own::Greeted if us < peer => Verdict::Refuse,
        Own::Greeted => Verdict::Take,
        // It dials again, so it knows that the last one is gone.
        Own::Up(Link { dialled: Side::Peer, .. }) => Verdict::Take,
        Own::Up(link) if link.incarnation != incarnation || link.age_ms >= SETTLED_MS => Verdict::Take,
        Own::Up(_) => Verdict::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SMALL: NodeId = NodeId([1; 32]);
    const LARGE: NodeId = NodeId([2; 32]);

    #[test]
    fn a_greeting_is_judged_beside_our_own() {
        let up = |dialled, incarnation, age_ms| Own::Up(Link { dialled, incarnation, age_ms });
        #[rustfmt::skip] // columns
        let table = [
            // own                                   we are smaller    we are larger
            (Own::Nothing,                           Verdict::Take,    Verdict::Take),
            (Own::Dialling,                          Verdict::Take,    Verdict::Take),
            (Own::Greeted,                           Verdict::Refuse,  Verdict::Take),
            (up(Side::Peer, 7, 0),                   Verdict::Take,    Verdict::Take),
            (up(Side::Us, 7, 0),                     Verdict::Refuse,  Verdict::Refuse),
            (up(Side::Us, 7, SETTLED_MS - 1),        Verdict::Refuse,  Verdict::Refuse),
            (up(Side::Us, 7, SETTLED_MS),            Verdict::Take,    Verdict::Take),
            (up(Side::Us, 8, 0),                     Verdict::Take,    Verdict::Take), // it restarted
        ];
        for (own, smaller, larger) in table {
            assert_eq!(settle(SMALL, LARGE, own, 7), smaller, "{own:?}, smaller");
            assert_eq!(settle(LARGE, SMALL, own, 7), larger, "{own:?}, larger");
        }
    }

    /// Two nodes that both dial at one moment, as a model: what each has, and what is under way.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct World {
        /// The dial of each node: of the smaller (0) and of the larger (1).
        dials: [Dial; 2],
        /// The connection that each node takes for the link: by who dialled it.
        links: [Option<usize>; 2],
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Dial {
        Begun,
        /// The greeting is under way.
        Greeted,
        /// The answer is under way.
        Answered,
        Done,
        /// Closed by the end that dialled, while the greeting was under way or not.
        Closed {
            greeting: bool,
        },
        /// Refused by the other end; the closing is under way.
        Refused,
    }

    type Rule = fn(NodeId, NodeId, Own, u64) -> Verdict;

    fn own(world: &World, node: usize) -> Own {
        let up = |dialled| Own::Up(Link { dialled, incarnation: 7, age_ms: 0 });
        match (world.links[node], world.dials[node]) {
            (Some(dialler), _) => up(if dialler == node { Side::Us } else { Side::Peer }),
            (None, Dial::Begun) => Own::Dialling,
            (None, Dial::Greeted | Dial::Answered | Dial::Refused) => Own::Greeted,
            (None, Dial::Done | Dial::Closed { .. }) => Own::Nothing,
        }
    }

    /// The worlds that can follow, each by one thing that happens.
    fn next(world: &World, rule: Rule) -> Vec<World> {
        let mut after = Vec::new();
        for dialler in 0..2 {
            let other = 1 - dialler;
            let mut new = world.clone();
            match world.dials[dialler] {
                Dial::Begun => new.dials[dialler] = Dial::Greeted,
                Dial::Greeted | Dial::Closed { greeting: true } => {
                    let ids = [SMALL, LARGE];
                    let closed = world.dials[dialler] != Dial::Greeted;
                    match rule(ids[other], ids[dialler], own(world, other), 7) {
                        Verdict::Take => {
                            // What the other end had of its own is closed.
                            new.dials[other] = match world.dials[other] {
                                Dial::Greeted => Dial::Closed { greeting: true },
                                _ => Dial::Closed { greeting: false },
                            };
                            // A connection that its dialler closed is found to be closed after the greeting.
                            new.links[other] = (!closed).then_some(dialler);
                            new.dials[dialler] = if closed { Dial::Done } else { Dial::Answered };
                        }
                        Verdict::Refuse => {
                            new.dials[dialler] = if closed { Dial::Done } else { Dial::Refused };
                        }
                    }
                }
                Dial::Answered => {
                    new.dials[dialler] = Dial::Done;
                    new.links[dialler] = Some(dialler);
                }
                Dial::Refused => new.dials[dialler] = Dial::Done,
                Dial::Done | Dial::Closed { greeting: false } => continue,
            }
            after.push(new);
        }
        after
    }

    /// The links that each node has in the end, over all orders of events.
    fn ends(rule: Rule) -> BTreeSet<[Option<usize>; 2]> {
        let mut open = vec![World { dials: [Dial::Begun; 2], links: [None; 2] }];
        let (mut seen, mut ends) = (BTreeSet::new(), BTreeSet::new());
        while let Some(world) = open.pop() {
            if !seen.insert(world.clone()) {
                continue;
            }
            let after = next(&world, rule);
            if after.is_empty() {
                ends.insert(world.links);
            }
            open.extend(after);
        }
        ends
    }

    #[test]
    fn both_nodes_end_with_the_same_one_link_in_every_order_of_events() {
        assert_eq!(ends(settle), BTreeSet::from([[Some(0), Some(0)], [Some(1), Some(1)]]));
        // Controls: rules that two nodes which dial at once do not survive.
        let take: Rule = |_, _, _, _| Verdict::Take;
        assert!(ends(take).iter().any(|[a, b]| a != b || a.is_none()));
        let refuse: Rule = |_, _, own, _| if own == Own::Nothing { Verdict::Take } else { Verdict::Refuse };
        assert!(ends(refuse).iter().any(|[a, b]| a != b || a.is_none()));
    }
}
