//! How many requests a service takes at once, learned from how many of them it ends and from how long they take.
//!
//! A service that can work on `n` requests at once ends more in a second the more it has, up to `n`; beyond that each only
//! takes longer. The limit looks for that bend. It is never still: in turn it is an eighth lower and an eighth higher. Where
//! the higher one ends as many more requests as it lets in there is room, and it rises; where they only take longer it
//! falls (the "incremental steps" of Heiss and Wagner, Adaptive load control in transaction processing systems, VLDB
//! 1991). A sudden growth of the latency beyond its usual cuts it at once, as the gradient limiters of Netflix's
//! concurrency-limits do.
//!
//! No traffic is held back to find out what an idle service takes (Envoy's minRTT windows), and the limit does not drift up
//! in an overload that lasts, as it does where the long-term latency passes for that of an idle service (Gradient2Limit).
//! The turns are those of the clock: proxies of one service go up and down together, so that each sees the bend of the
//! service and not only its own share of it, which grows whenever it asks for more than the others.
//!
//! Not for requests whose length is no work, such as long polls: they leave with [`Adaptive::withdraw`].

use kernel::Micros;
use kernel::planted::{Bug, is};

use crate::Outcome;

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveOptions {
    /// The limit at the start.
    pub first: u32,
    /// It never falls below; at least 1.
    pub least: u32,
    /// It never rises above; at least `least`.
    pub most: u32,
}

impl Default for AdaptiveOptions {
    /// From 20, within 1 and 1024.
    fn default() -> AdaptiveOptions {
        AdaptiveOptions { first: 20, least: 1, most: 1024 }
    }
}

/// How important a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// It is sent away first.
    Low,
    /// As most are.
    Normal,
    /// It goes first.
    High,
}

impl Priority {
    /// All of them, the least important first.
    pub const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    /// As settings and metrics name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }
}

/// How far the limit goes to either side of its middle.
const SWING: f64 = 1.0 / 8.0;
/// Of one per cent more requests let in, so much of a per cent more must be ended for the limit to rise.
const WORTH: f64 = 0.3;
/// Above this the latency at the lower limit is what a request takes without waiting.
const FREE: f64 = 0.6;
/// How far the middle goes for a whole per cent of difference, and how many steps in one direction make it faster.
const GAIN: f64 = 0.1;
const HASTE_MAX: i32 = 4;
/// The middle goes by no more than this share in one step.
const STEP_MAX: f64 = 0.25;
/// A limit is taken for used up when so much of it is, on the average: below that fewer have come, and more would be ended
/// under any limit.
const FULL: f64 = 0.9;
/// So many times the usual latency is too much at once.
const TOLERANCE: f64 = 2.0;
/// What a cut leaves of the limit, at least.
const CUT_MIN: f64 = 0.5;
/// Requests that a judgement needs of each turn, and of the present latency.
const SAMPLES: u32 = 64;
/// The weight of a new latency in the usual one.
const USUAL: f64 = 1.0 / 16.0;
/// Turns last so many times the present latency, and 2 to the power of this of microseconds: 0.13 s to 33 s.
const LATENCIES: f64 = 8.0;
const BITS_MIN: u32 = 17;
const BITS_MAX: u32 = 25;

/// The limit of one service.
#[derive(Clone, Debug)]
pub struct Adaptive {
    options: AdaptiveOptions,
    /// Between the limits of both turns.
    middle: f64,
    /// The one that is in force.
    limit: u32,
    under_way: u32,
    /// Since when so many are.
    touched: Micros,
    /// The present turn: the time in units of 2 to the power of `bits` microseconds.
    turn: u64,
    bits: u32,
    /// Until then the turn is like the one before.
    settled: Micros,
    /// What was seen in lower and higher turns since the limit moved.
    seen: [Seen; 2],
    recent: Recent,
    /// Microseconds that a request usually takes when it does not wait at the service; 0: nothing is known.
    usual: f64,
    /// The same of late.
    present: f64,
    /// Steps up (positive) or down in a row.
    haste: i32,
    /// The last cut, if latency has been too much ever since.
    cut: Option<Cut>,
}

/// A limit that was cut, and perhaps is cut again.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Where it was before the first cut, and before this one.
    first: f64,
    from: f64,
    /// Requests that were ended in a microsecond before this cut, of those behind an earlier one; 0: there was none.
    rate: f64,
}

/// Turns of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ended: u32,
    samples: u32,
    micros: f64,
    /// Microseconds that were looked at, and the sum over them of how many were under way.
    span: u64,
    area: f64,
}

/// The latest requests that have entered since the limit was cut.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    since: Micros,
    /// When the first of them had ended.
    began: Micros,
    samples: u32,
    micros: f64,
    /// Most that were under way.
    beside: u32,
}

/// A request that is under way.
#[must_use]
#[derive(Debug)]
pub struct Entered {
    at: Micros,
    /// How many were under way with it.
    beside: u32,
}

impl Adaptive {
    /// With no experience yet.
    #[must_use]
    pub fn new(options: AdaptiveOptions, now: Micros) -> Adaptive {
        assert!(options.least > 0, "one request is let in at least");
        assert!(options.most >= options.least, "the most is no less than the least");
        let middle = f64::from(options.first.clamp(options.least, options.most));
        let mut one = Adaptive {
            options,
            middle,
            limit: 0,
            under_way: 0,
            touched: now,
            turn: now.0 >> BITS_MIN,
            bits: BITS_MIN,
            settled: now,
            seen: [Seen::default(); 2],
            recent: Recent::default(),
            usual: 0.0,
            present: 0.0,
            haste: 0,
            cut: None,
        };
        one.settle(now);
        one
    }

    /// How many may be under way now; within the bounds.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// How many are.
    #[must_use]
    pub const fn under_way(&self) -> u32 {
        self.under_way
    }

    /// A request goes on its way. Whether there is room says [`Adaptive::limit`]; who was promised room before the limit
    /// fell may enter beyond it.
    pub fn enter(&mut self, now: Micros) -> Entered {
        self.touch(now);
        self.under_way += 1;
        Entered { at: now, beside: self.under_way }
    }

    /// A request turns out to be none whose length says something: it is counted no more.
    pub fn withdraw(&mut self, now: Micros, _: Entered) {
        assert!(self.under_way > 0, "who withdraws has entered");
        self.touch(now);
        self.under_way -= 1;
    }

    /// It has ended. Failures that come at once say nothing of the load, and what was given up is no sample; a timeout is
    /// one of the time that it took. O(1); the limit may be another one afterwards.
    pub fn leave(&mut self, now: Micros, entered: Entered, outcome: Outcome) {
        assert!(self.under_way > 0, "who leaves has entered");
        self.touch(now);
        self.under_way -= 1;
        let ended = match outcome {
            Outcome::Success => 1,
            Outcome::Timeout => 0,
            Outcome::Failure | Outcome::Abandoned if is(Bug::FailureIsSample) => 1,
            Outcome::Failure | Outcome::Abandoned => return,
        };
        let micros = now.since(entered.at).max(1) as f64;
        self.turn(now);
        if now >= self.settled {
            let seen = &mut self.seen[(self.turn & 1) as usize];
            seen.ended += ended;
            seen.samples += 1;
            seen.micros += micros;
        }
        // What entered before a cut has waited behind what is let in no more.
        if entered.at >= self.recent.since {
            if self.recent.samples == 0 {
                self.recent.began = now;
            }
            self.recent.samples += 1;
            self.recent.micros += micros;
            self.recent.beside = self.recent.beside.max(entered.beside);
            if self.recent.samples >= SAMPLES.max(self.limit) {
                self.compare(now);
            }
        }
    }

    /// The limits of the lower and of the higher turns. They differ unless the bounds do not.
    fn limits(&self) -> [u32; 2] {
        let AdaptiveOptions { least, most, .. } = self.options;
        let near = |x: f64| (x + 0.5) as u32;
        let low = near(self.middle * (1.0 - SWING)).clamp(least, most);
        let high = near(self.middle * (1.0 + SWING)).max(low + 1).min(most);
        let low = if low == high { high.saturating_sub(1).max(least) } else { low };
        if is(Bug::LimitBelowLeast) { [low / 2, high / 2] } else { [low, high] }
    }

    /// As many are under way as there were until now.
    fn touch(&mut self, now: Micros) {
        let end = now.min(Micros((self.turn + 1) << self.bits));
        let micros = end.since(self.touched.max(self.settled));
        self.seen[(self.turn & 1) as usize].area += f64::from(self.under_way) * micros as f64;
        self.touched = now;
    }

    /// The clock may be in another turn than at the last request's end.
    fn turn(&mut self, now: Micros) {
        let turn = now.0 >> self.bits;
        if turn == self.turn {
            return;
        }
        let end = Micros(((self.turn + 1) << self.bits).min(now.0));
        self.seen[(self.turn & 1) as usize].span += end.since(self.settled);
        if self.seen.iter().all(|seen| seen.samples >= SAMPLES) {
            self.judge();
            self.seen = [Seen::default(); 2];
        }
        let wanted = LATENCIES * self.present;
        let length = (1_u64 << self.bits) as f64;
        let longer = wanted > length && self.bits < BITS_MAX;
        let shorter = wanted < length / 4.0 && self.bits > BITS_MIN;
        if longer || shorter {
            self.bits = if longer { self.bits + 1 } else { self.bits - 1 };
            self.seen = [Seen::default(); 2];
        }
        self.turn = now.0 >> self.bits;
        self.settle(now);
    }

    /// The limit is that of the present turn, and what enters from now on tells of it.
    fn settle(&mut self, now: Micros) {
        self.limit = self.limits()[(self.turn & 1) as usize];
        self.settled = now + (2.0 * self.present) as u64;
    }

    /// Whether more requests are ended where more are let in.
    fn judge(&mut self) {
        let limits = self.limits().map(f64::from);
        let [low, high] = self.seen;
        let used = |seen: &Seen, limit: f64| seen.area / seen.span.max(1) as f64 / limit;
        if limits[0] >= limits[1] || used(&low, limits[0]) < FULL || used(&high, limits[1]) < FULL {
            self.haste = 0;
            return;
        }
        let rate = |seen: &Seen| f64::from(seen.ended.max(1)) / seen.span.max(1) as f64;
        let worth = libm::log(rate(&high) / rate(&low)) / libm::log(limits[1] / limits[0]);
        let worth = if is(Bug::MoreIsAlwaysWorth) { 1.0 } else { worth.clamp(-1.0, 2.0) };
        if worth > FREE && !is(Bug::UsualNeverRises) {
            self.usual += (low.micros / f64::from(low.samples) - self.usual) / 2.0;
        }
        let over = worth - WORTH;
        let same = (over > 0.0) == (self.haste > 0);
        self.haste = match (over > 0.0, same) {
            (true, true) => (self.haste + 1).min(HASTE_MAX),
            (true, false) => 1,
            (false, true) => (self.haste - 1).max(-HASTE_MAX),
            (false, false) => -1,
        };
        let step = (GAIN * f64::from(self.haste.abs()) * over).clamp(-STEP_MAX, STEP_MAX);
        self.go_to(self.middle * libm::exp(step));
    }

    /// Whether requests take much longer of late than they usually do.
    fn compare(&mut self, now: Micros) {
        let Recent { samples, micros, beside, .. } = self.recent;
        let present = micros / f64::from(samples);
        self.present = present;
        let Recent { since, began, .. } = self.recent;
        self.recent = Recent { since, began, ..Recent::default() };
        if self.usual == 0.0 {
            self.usual = present;
        }
        // A limit that is reached may be what they wait for; below it they take what they take.
        if present < self.usual || beside < self.limit {
            self.usual += (present - self.usual).min(self.usual) * USUAL;
        }
        if present > self.usual * TOLERANCE && !is(Bug::GrowthIgnored) {
            self.cut(now, samples, beside);
        } else {
            self.cut = None;
        }
    }

    /// Cuts the limit, unless cuts have cost as many requests as they kept out: then it is not them that is too much.
    fn cut(&mut self, now: Micros, samples: u32, beside: u32) {
        let rate = f64::from(samples) / now.since(self.recent.began).max(1) as f64;
        let (before, present) = (self.middle, self.present);
        let lost = |cut: &Cut| libm::log(cut.rate / rate) / libm::log(cut.from / before);
        match self.cut {
            Some(cut)
                if cut.rate > 0.0 && cut.from > before && lost(&cut) > FREE && !is(Bug::UsualNeverRises) =>
            {
                self.usual = present;
                self.cut = None;
                self.go_to(cut.first);
            }
            cut => {
                let left = (self.usual * TOLERANCE / present).max(CUT_MIN);
                // What is not reached is not what they wait for, and is kept for when it is.
                let kept = if beside < self.limit { beside.max(self.options.first) } else { 0 };
                self.go_to((before * left).max(before.min(f64::from(kept))));
                let (first, rate) = cut.map_or((before, 0.0), |cut| (cut.first, rate));
                self.cut = Some(Cut { first, from: before, rate });
            }
        }
        if self.middle == before {
            return;
        }
        self.haste = 0;
        self.seen = [Seen::default(); 2];
        self.recent.since = now;
        self.settle(now);
    }

    fn go_to(&mut self, middle: f64) {
        let AdaptiveOptions { least, most, .. } = self.options;
        self.middle = middle.clamp(f64::from(least), f64::from(most));
    }
}

#[cfg(test)]
mod tests;
