//! How a node moves the walkers that come by, and minds its own walks.

use alloc::vec::Vec;

use kernel::Micros;

use super::message::{Command, Drawn, Errand, Message, Outcome, Tag, Turn, WalkId, Walker};
use super::{
    NEIGHBOURS_MAX, STEP_MICROS_MAX, STEPS_MAX, STRIDE_MAX, WALKERS_MAX, WALKS_MAX, Waiting, Walk, Walks,
};
use crate::protocol::{Contact, Effect, EffectOf, Input, InputOf, Keys, Protocol};

type Out<C> = Vec<EffectOf<Walks<C>>>;

/// So many walkers with so many steps each, checked every `stride` steps.
#[derive(Clone, Copy, Debug)]
struct Sending {
    count: u8,
    steps: u16,
    stride: u8,
    errand: Errand,
}

impl<C> Walker<C> {
    /// Is it within the limits? Nobody moves one that is not.
    pub(super) fn is_sound(&self) -> bool {
        self.left.saturating_add(self.hops) <= STEPS_MAX
            && (1..=STRIDE_MAX).contains(&self.stride)
            && self.free < self.stride
    }
}

impl<C: Contact> Walks<C> {
    /// A walker takes a step to us.
    fn arrive(&mut self, from: C, walker: Walker<C>, out: &mut Out<C>) {
        if !walker.is_sound() {
            return;
        }
        match walker.errand {
            Errand::Search { key, .. } if self.holds(key) => return self.end(walker, true, out),
            Errand::Sample { drawn: Drawn::Evenly, degree } if self.refuses(degree) => {
                return out.push(Effect::Tell { to: from, body: Message::Stay(walker) });
            }
            Errand::Search { .. } | Errand::Sample { .. } => {}
        }
        self.go_on(Some(from), walker, out);
    }

    /// Metropolis & Hastings: the step is taken with the probability min(1, degree there / degree here).
    fn refuses(&mut self, degree: u8) -> bool {
        self.rng.below(self.neighbours.len() as u64) >= u64::from(degree)
    }

    /// A walker stands here: it ends, waits for a check, or leaves.
    fn go_on(&mut self, from: Option<C>, walker: Walker<C>, out: &mut Out<C>) {
        if walker.left == 0 {
            return self.end(walker, false, out);
        }
        if walker.free > 0 {
            return self.leave(from, Walker { free: walker.free - 1, ..walker }, out);
        }
        let checked = Walker { free: walker.stride - 1, ..walker };
        if walker.origin == self.me {
            if self.goes(walker.walk) {
                self.leave(from, checked, out);
            } else {
                self.ended(self.me, walker.walk, None, out);
            }
            return;
        }
        // With as many waiting as may, this one is lost.
        if let Some(id) = self.waiting.issue(walker.origin, Waiting { walker: checked, from }) {
            out.push(Effect::Ask { to: walker.origin, id, body: Message::Check(walker.walk) });
        }
    }

    /// A walker goes to a drawn neighbour.
    fn leave(&mut self, from: Option<C>, walker: Walker<C>, out: &mut Out<C>) {
        let back = match walker.errand {
            Errand::Search { turn: Turn::Onward, .. } => from,
            Errand::Search { turn: Turn::Any, .. } | Errand::Sample { .. } => None,
        };
        let Some(to) = self.draw(back) else { return self.end(walker, false, out) };
        let errand = match walker.errand {
            Errand::Search { .. } => walker.errand,
            Errand::Sample { drawn, .. } => Errand::Sample { drawn, degree: self.neighbours.len() as u8 },
        };
        let (left, hops) = (walker.left - 1, walker.hops + 1);
        out.push(Effect::Tell { to, body: Message::Step(Walker { left, hops, errand, ..walker }) });
    }

    /// A neighbour, but not `back` if there is another; `None` without neighbours.
    fn draw(&mut self, back: Option<C>) -> Option<C> {
        let known = back.and_then(|back| self.neighbours.iter().position(|own| *own == back));
        let Some(known) = known.filter(|_| self.neighbours.len() > 1) else {
            let at = self.rng.below(self.neighbours.len() as u64) as usize;
            return self.neighbours.get(at).copied();
        };
        let at = self.rng.below(self.neighbours.len() as u64 - 1) as usize;
        self.neighbours.get(at + usize::from(at >= known)).copied()
    }

    /// A walker ends here: its origin is told.
    fn end(&mut self, walker: Walker<C>, holds: bool, out: &mut Out<C>) {
        let Walker { walk, origin, hops, .. } = walker;
        let here = holds || matches!(walker.errand, Errand::Sample { .. });
        if origin == self.me {
            return self.ended(self.me, walk, here.then_some(hops), out);
        }
        let body = if here { Message::Here { walk, hops } } else { Message::Nothing(walk) };
        out.push(Effect::Tell { to: origin, body });
    }

    fn goes(&self, id: WalkId) -> bool {
        self.walks.iter().any(|walk| walk.id == id && walk.open)
    }

    /// A walker of ours has ended at `at`, with its steps if that is what was wanted.
    fn ended(&mut self, at: C, id: WalkId, hops: Option<u16>, out: &mut Out<C>) {
        let Some(index) = self.walks.iter().position(|walk| walk.id == id) else { return };
        let walk = &mut self.walks[index];
        walk.out = walk.out.saturating_sub(1);
        if let Some(hops) = hops.filter(|_| walk.open) {
            if walk.search {
                walk.open = false;
                out.push(Effect::Report(Outcome::Found { tag: walk.tag, holder: at, hops }));
            } else {
                walk.sample.push(at);
            }
        }
        if walk.out == 0 {
            self.close(index, out);
        }
    }

    /// The walk at `index` is over.
    fn close(&mut self, index: usize, out: &mut Out<C>) {
        let walk = self.walks.swap_remove(index);
        let tag = walk.tag;
        if !walk.search {
            out.push(Effect::Report(Outcome::Sampled { tag, nodes: walk.sample }));
        } else if walk.open {
            out.push(Effect::Report(Outcome::NotFound { tag }));
        }
    }

    fn begin(&mut self, now: Micros, tag: Tag, sending: Sending, out: &mut Out<C>) {
        let Sending { count, steps, stride, errand } = sending;
        let sound = (1..=WALKERS_MAX).contains(&count)
            && (1..=STEPS_MAX).contains(&steps)
            && (1..=STRIDE_MAX).contains(&stride);
        if !sound || self.walks.len() >= WALKS_MAX {
            return out.push(Effect::Report(Outcome::Refused { tag }));
        }
        let id = WalkId(self.rng.next_u64());
        let checks = u64::from(steps) / u64::from(stride);
        // A refused step is two messages, a check is two.
        let until = now + (u64::from(steps) + checks + 1) * 2 * STEP_MICROS_MAX;
        let search = matches!(errand, Errand::Search { .. });
        let sample = Vec::with_capacity(if search { 0 } else { usize::from(count) });
        self.walks.push(Walk { id, tag, open: true, out: count, sample, until, search });
        let walker =
            Walker { walk: id, origin: self.me, left: steps, hops: 0, stride, free: stride - 1, errand };
        for _ in 0..count {
            self.leave(None, walker, out);
        }
    }

    fn command(&mut self, now: Micros, command: Command<C>, out: &mut Out<C>) {
        let refused = Effect::Report(Outcome::Refused { tag: Tag::default() });
        match command {
            Command::Search { tag, key, .. } if self.holds(key) => {
                out.push(Effect::Report(Outcome::Found { tag, holder: self.me, hops: 0 }));
            }
            Command::Search { tag, key, walkers, steps, stride, turn } => {
                let errand = Errand::Search { key, turn };
                self.begin(now, tag, Sending { count: walkers, steps, stride, errand }, out);
            }
            Command::Sample { tag, count, steps, drawn } => {
                let errand = Errand::Sample { drawn, degree: 0 };
                self.begin(now, tag, Sending { count, steps, stride: STRIDE_MAX, errand }, out);
            }
            Command::Hold(key) => {
                if !self.hold(key) {
                    out.push(refused);
                }
            }
            Command::Connect(peer) if self.neighbours.contains(&peer) => {}
            Command::Connect(_) if self.neighbours.len() >= NEIGHBOURS_MAX => out.push(refused),
            Command::Connect(peer) => self.neighbours.push(peer),
            Command::Disconnect(peer) => self.neighbours.retain(|own| *own != peer),
        }
    }

    fn told(&mut self, from: C, body: Message<C>, out: &mut Out<C>) {
        match body {
            Message::Step(walker) => self.arrive(from, walker, out),
            // The proposed step is over; the walker is where it was.
            Message::Stay(walker) if walker.is_sound() => self.go_on(None, walker, out),
            Message::Here { walk, hops } => self.ended(from, walk, Some(hops), out),
            Message::Nothing(walk) => self.ended(from, walk, None, out),
            Message::Stay(_) | Message::Check(_) | Message::Goes(_) => {}
        }
    }
}

impl<C: Contact> Protocol for Walks<C> {
    type Contact = C;
    type Message = Message<C>;
    type Command = Command<C>;
    type Outcome = Outcome<C>;

    fn step(&mut self, now: Micros, _: &impl Keys<C>, input: InputOf<Self>, out: &mut Out<C>) {
        match input {
            Input::Told { from, body } => self.told(from, body, out),
            Input::Asked { from, id, body: Message::Check(walk) } => {
                let body = Message::Goes(self.goes(walk));
                // The asker ends the walker, so we hear no more of it.
                if body == Message::Goes(false) {
                    self.ended(from, walk, None, out);
                }
                out.push(Effect::Answer { to: from, id, body });
            }
            Input::Answered { from, id, body } => {
                if let (Some(waiting), Message::Goes(true)) = (self.waiting.settle(from, id), body) {
                    self.leave(waiting.from, waiting.walker, out);
                }
            }
            // Its origin is gone: nobody wants it any more.
            Input::Failed { to, id } => drop(self.waiting.settle(to, id)),
            Input::Asked { .. } => {}
            Input::Parted { peer } => self.neighbours.retain(|own| *own != peer),
            Input::Commanded(command) => self.command(now, command, out),
        }
    }

    fn deadline(&self) -> Option<Micros> {
        self.walks.iter().map(|walk| walk.until).min()
    }

    fn wake(&mut self, now: Micros, _: &impl Keys<C>, out: &mut Out<C>) {
        while let Some(index) = self.walks.iter().position(|walk| walk.until <= now) {
            self.close(index, out);
        }
    }
}
