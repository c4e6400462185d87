//! The order of a `SORT`, found a few steps at a time: short runs, then merges of two, as in any merge sort.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::number;
use crate::Fault;
use crate::Reply;
use crate::object::table::Table;
use crate::store::long::{LongRead, Steps};

/// Elements that are sorted at once.
const RUN: usize = 256;
/// Steps that this takes for each of them: their comparisons.
const RUN_STEPS: usize = 8;

/// Byte strings, one behind another.
#[derive(Default)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }
}

/// What elements are compared by.
pub(super) enum Weights {
    /// Nothing: their order stays.
    None,
    /// Themselves, as text.
    Themselves,
    /// Themselves, as numbers, which are read in slices.
    Numbers(Vec<f64>),
    /// What another key says: a number.
    OtherNumbers(Vec<f64>),
    /// What another key says: a text.
    OtherTexts(Vec<Option<Vec<u8>>>),
}

enum Phase {
    /// Numbers are being read.
    Weigh,
    /// The runs before this place are in order.
    Runs(usize),
    /// Runs of `width` are merged into the spare order: those at `left`, from `i` and `j` on.
    Merge { width: usize, left: usize, i: usize, j: usize },
    /// In order.
    Sorted,
}

/// Elements and the order they are to be answered in.
pub(super) struct Order {
    elements: Strings,
    weights: Weights,
    order: Vec<u32>,
    spare: Vec<u32>,
    phase: Phase,
    descending: bool,
    /// First place and number of places that are answered.
    pub window: (usize, usize),
    /// How often each element is answered.
    pub times: usize,
    told: Option<usize>,
}

impl Order {
    /// Elements that `weights` put in order, then turned round if `descending`. Places are kept in 32 bits, as
    /// collections keep them.
    pub fn new(elements: Strings, weights: Weights, descending: bool) -> Order {
        let places = u32::try_from(elements.len()).expect("a collection has at most 2^32 elements");
        let phase = match weights {
            Weights::None => Phase::Sorted,
            Weights::Numbers(_) => Phase::Weigh,
            Weights::Themselves | Weights::OtherNumbers(_) | Weights::OtherTexts(_) => Phase::Runs(0),
        };
        let window = (0, elements.len());
        let order = (0..places).collect();
        Order { elements, weights, order, spare: Vec::new(), phase, descending, window, times: 1, told: None }
    }

    /// The element that is answered at a place of the whole order.
    pub fn element(&self, place: usize) -> &[u8] {
        let place = if self.descending { self.order.len() - 1 - place } else { place };
        self.elements.get(self.order[place] as usize)
    }

    /// Goes on for about `steps`; true when the order is found.
    pub fn sort(&mut self, steps: &mut Steps) -> Result<bool, Fault> {
        loop {
            if let Phase::Sorted = self.phase {
                return Ok(true);
            }
            if steps.left() == 0 {
                return Ok(false);
            }
            match self.phase {
                Phase::Weigh => self.weigh(steps)?,
                Phase::Runs(from) => self.sort_runs(from, steps),
                Phase::Merge { .. } => self.merge(steps),
                Phase::Sorted => {}
            }
        }
    }

    fn weigh(&mut self, steps: &mut Steps) -> Result<(), Fault> {
        let Weights::Numbers(numbers) = &mut self.weights else { return Ok(()) };
        let until = numbers.len().saturating_add(steps.left()).min(self.elements.len());
        steps.take(until - numbers.len());
        for at in numbers.len()..until {
            numbers.push(number(self.elements.get(at))?);
        }
        if until == self.elements.len() {
            self.phase = Phase::Runs(0);
        }
        Ok(())
    }

    fn sort_runs(&mut self, mut from: usize, steps: &mut Steps) {
        let len = self.order.len();
        while from < len && steps.left() > 0 {
            let until = (from + RUN).min(len);
            let (elements, weights) = (&self.elements, &self.weights);
            self.order[from..until].sort_by(|&a, &b| compare(elements, weights, a, b));
            steps.take((until - from) * RUN_STEPS);
            from = until;
        }
        self.phase = if from < len { Phase::Runs(from) } else { self.merge_runs(RUN) };
    }

    /// Begins to merge runs of `width`.
    fn merge_runs(&mut self, width: usize) -> Phase {
        if width >= self.order.len() {
            return Phase::Sorted;
        }
        self.spare.clear();
        self.spare.reserve_exact(self.order.len());
        Phase::Merge { width, left: 0, i: 0, j: width }
    }

    fn merge(&mut self, steps: &mut Steps) {
        let Phase::Merge { width, mut left, mut i, mut j } = self.phase else { return };
        let len = self.order.len();
        let before = self.spare.len();
        while self.spare.len() < len && self.spare.len() - before < steps.left() {
            let (middle, end) = ((left + width).min(len), (left + 2 * width).min(len));
            let right_first = j < end
                && (i == middle
                    || compare(&self.elements, &self.weights, self.order[j], self.order[i]).is_lt());
            let next = if right_first { &mut j } else { &mut i };
            self.spare.push(self.order[*next]);
            *next += 1;
            if self.spare.len() == end {
                (left, i, j) = (end, end, end + width);
            }
        }
        steps.take(self.spare.len() - before);
        self.phase = Phase::Merge { width, left, i, j };
        if self.spare.len() == len {
            core::mem::swap(&mut self.order, &mut self.spare);
            self.phase = self.merge_runs(2 * width);
        }
    }
}

/// How two elements stand to each other. Those that are equal keep their order.
fn compare(elements: &Strings, weights: &Weights, a: u32, b: u32) -> Ordering {
    let (a, b) = (a as usize, b as usize);
    let themselves = || elements.get(a).cmp(elements.get(b));
    match weights {
        Weights::None => Ordering::Equal,
        Weights::Themselves => themselves(),
        Weights::Numbers(numbers) | Weights::OtherNumbers(numbers) => {
            numbers[a].partial_cmp(&numbers[b]).unwrap_or(Ordering::Equal).then_with(themselves)
        }
        Weights::OtherTexts(texts) => texts[a].cmp(&texts[b]),
    }
}

impl LongRead for Order {
    fn find(&mut self, _: &Table, steps: &mut Steps) -> Result<bool, Fault> {
        self.sort(steps)
    }

    fn answers(&self) -> usize {
        self.window.1 * self.times
    }

    fn tell(&mut self, steps: &mut Steps, reply: &mut dyn Reply) -> bool {
        let (first, count) = self.window;
        let mut told = self.told.unwrap_or_else(|| {
            reply.array(count * self.times);
            0
        });
        while told < count && steps.left() > 0 {
            for _ in 0..self.times {
                reply.bulk(self.element(first + told));
            }
            steps.take(self.times);
            told += 1;
        }
        self.told = Some(told);
        told == count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slices_of_any_size_give_the_order_of_a_stable_sort(
            texts in prop::collection::vec(0u16..500, 0..2000),
            slice in 1usize..700,
        ) {
            let mut elements = Strings::default();
            // Numbers that differ may have the same text behind them, and the other way round.
            texts.iter().enumerate().for_each(|(n, text)| elements.push(alloc::format!("{text}:{n}").as_bytes()));
            let weights = texts.iter().map(|text| Some(alloc::format!("{}", text % 50).into_bytes())).collect();
            let mut order = Order::new(elements, Weights::OtherTexts(weights), false);
            let mut slices = 0;
            while !order.sort(&mut Steps::new(slice)).expect("texts weigh") {
                slices += 1;
            }
            prop_assert!(slices + 1 >= texts.len() / slice.max(RUN * RUN_STEPS));
            let mut model: Vec<usize> = (0..texts.len()).collect();
            model.sort_by_key(|&at| alloc::format!("{}", texts[at] % 50));
            let found: Vec<usize> = order.order.iter().map(|&at| at as usize).collect();
            prop_assert_eq!(found, model);
        }
    }
}
