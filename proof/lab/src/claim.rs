//! What a claim is, and the list of them.

pub mod balance;
pub mod cap;
pub mod chord;
pub mod churn;
pub mod eclipse;
pub mod flood;
pub mod hashing;
pub mod kademlia;
pub mod mesh_latency;
pub mod overload;
pub mod walk;

use std::fmt;

use sim::swarm::Counts;
use thiserror::Error;

use crate::plot::Plot;

/// Every claim, in the order of the report.
pub const ALL: &[&Claim] = &[
    &flood::CLAIM,
    &walk::CLAIM,
    &chord::CLAIM,
    &kademlia::CLAIM,
    &churn::CLAIM,
    &eclipse::CLAIM,
    &hashing::CLAIM,
    &cap::CLAIM,
    &mesh_latency::CLAIM,
    &balance::CLAIM,
    &overload::CLAIM,
];

/// The claim called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Claim> {
    ALL.iter().copied().find(|claim| claim.name == name)
}

/// A statement that a run either bears out or refutes.
pub struct Claim {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it says, in full sentences.
    pub statement: &'static str,
    /// Who said so first, or where it is proved.
    pub reference: &'static str,
    /// What can be set.
    pub parameters: &'static [Parameter],
    /// Values of parameters with which a test of it takes a second, as they stand on the command line.
    pub small: &'static [(&'static str, &'static str)],
    /// Measures.
    pub run: fn(&Run<'_>) -> Findings,
    /// What the same judge must refuse.
    pub control: Control,
}

/// The negative control of a claim: a rule is broken, and at least one bound must be.
pub struct Control {
    /// What is broken.
    pub statement: &'static str,
    /// Measures, with the bounds of the claim.
    pub run: fn(&Run<'_>) -> Findings,
}

/// Something that can be set for a run.
pub struct Parameter {
    /// Its name; `--name` on the command line.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// What it takes.
    pub kind: Kind,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Count {
        /// Without being told.
        default: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A number from `0` to `max`.
    Share {
        /// Without being told.
        default: f64,
        /// The most.
        max: f64,
    },
    /// One of these words; the first without being told.
    Choice(&'static [&'static str]),
}

/// A parameter's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of a [`Kind::Count`].
    Count(u64),
    /// Of a [`Kind::Share`].
    Share(f64),
    /// Of a [`Kind::Choice`].
    Choice(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(n) => n.fmt(f),
            Value::Share(x) => x.fmt(f),
            Value::Choice(word) => word.fmt(f),
        }
    }
}

/// Why a parameter cannot be set so.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ParameterError {
    /// The claim has none of that name.
    #[error("{claim} has no parameter {name}; see `archipel lab run {claim} --help`")]
    Unknown {
        /// The claim.
        claim: &'static str,
        /// What was asked for.
        name: String,
    },
    /// It is not of its kind, or out of range.
    #[error("--{name} is {text}; it must be {range}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        text: String,
        /// What it takes.
        range: String,
    },
}

impl Parameter {
    /// The value that `text` stands for.
    ///
    /// # Errors
    /// [`ParameterError::Value`] if it is none of this parameter's.
    pub fn parse(&self, text: &str) -> Result<Value, ParameterError> {
        let value = match self.kind {
            Kind::Count { min, max, .. } => {
                text.parse().ok().filter(|n| (min..=max).contains(n)).map(Value::Count)
            }
            Kind::Share { max, .. } => {
                text.parse().ok().filter(|x| (0.0..=max).contains(x)).map(Value::Share)
            }
            Kind::Choice(words) => words.iter().find(|word| **word == text).copied().map(Value::Choice),
        };
        value.ok_or_else(|| ParameterError::Value {
            name: self.name,
            text: text.to_owned(),
            range: self.range(),
        })
    }

    /// What it takes, in words.
    #[must_use]
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Count { min, max, .. } => format!("a whole number from {min} to {max}"),
            Kind::Share { max, .. } => format!("a number from 0 to {max}"),
            Kind::Choice(words) => words.join(" or "),
        }
    }

    /// What it is without being told.
    #[must_use]
    pub const fn default(&self) -> Value {
        match self.kind {
            Kind::Count { default, .. } => Value::Count(default),
            Kind::Share { default, .. } => Value::Share(default),
            Kind::Choice(words) => Value::Choice(words[0]),
        }
    }
}

/// One run: its seed, its parameters, and who wants to know how far it is.
pub struct Run<'a> {
    /// Decides everything.
    pub seed: u64,
    values: Vec<(&'static str, Value)>,
    progress: &'a dyn Fn(Progress<'_>),
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What is done now.
    pub what: &'a str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub of: u64,
    /// Messages that the swarm has delivered up to now, where one runs: how fast it is, is the watcher's affair.
    pub delivered: Option<u64>,
}

impl<'a> Run<'a> {
    /// A run of `claim` with its defaults, and `told` instead of some of them.
    ///
    /// # Errors
    /// A parameter that the claim does not have, or that cannot have this value.
    pub fn new(
        claim: &Claim,
        seed: u64,
        told: &[(&str, &str)],
        progress: &'a dyn Fn(Progress<'_>),
    ) -> Result<Run<'a>, ParameterError> {
        let mut values: Vec<_> =
            claim.parameters.iter().map(|parameter| (parameter.name, parameter.default())).collect();
        for (name, text) in told {
            let at = claim.parameters.iter().position(|parameter| parameter.name == *name);
            let at = at.ok_or_else(|| ParameterError::Unknown { claim: claim.name, name: (*name).into() })?;
            values[at].1 = claim.parameters[at].parse(text)?;
        }
        Ok(Run { seed, values, progress })
    }

    /// A run with the size of a test.
    ///
    /// # Panics
    /// If the claim's `small` values are none of its own, which its test finds.
    #[must_use]
    pub fn small(claim: &Claim, seed: u64) -> Run<'static> {
        Run::new(claim, seed, claim.small, &|_| ()).expect("a claim's small values are its own")
    }

    /// The whole number called `name`.
    ///
    /// # Panics
    /// If the claim has no such parameter.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Count(n) => n,
            other @ (Value::Share(_) | Value::Choice(_)) => panic!("{name} is {other}, and no count"),
        }
    }

    /// The share called `name`.
    ///
    /// # Panics
    /// If the claim has no such parameter.
    #[must_use]
    pub fn share(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Share(x) => x,
            other @ (Value::Count(_) | Value::Choice(_)) => panic!("{name} is {other}, and no share"),
        }
    }

    /// The word chosen for `name`.
    ///
    /// # Panics
    /// If the claim has no such parameter, or one of another kind.
    #[must_use]
    pub fn choice(&self, name: &str) -> &'static str {
        match self.value(name) {
            Value::Choice(word) => word,
            other @ (Value::Count(_) | Value::Share(_)) => panic!("{name} is {other}, and no choice"),
        }
    }

    /// Every parameter with its value.
    #[must_use]
    pub fn values(&self) -> &[(&'static str, Value)] {
        &self.values
    }

    /// Tells how far it is.
    pub fn progress(&self, what: &str, done: u64, of: u64) {
        (self.progress)(Progress { what, done, of, delivered: None });
    }

    /// Tells how far a swarm is, and what it has delivered.
    pub fn swarm(&self, what: &str, done: u64, of: u64, counts: Counts) {
        (self.progress)(Progress { what, done, of, delivered: Some(counts.delivered) });
    }

    fn value(&self, name: &str) -> Value {
        let value = self.values.iter().find(|(own, _)| *own == name);
        value.expect("a claim asks for its own parameters").1
    }
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
    /// From the first to the second.
    Within(f64, f64),
    /// This, to the last digit.
    Exactly(f64),
    /// Anything: it is only told.
    Told,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(x) => write!(f, "≤ {}", number(*x)),
            Bound::AtLeast(x) => write!(f, "≥ {}", number(*x)),
            Bound::Within(low, high) => write!(f, "{} … {}", number(*low), number(*high)),
            Bound::Exactly(x) => write!(f, "= {}", number(*x)),
            Bound::Told => Ok(()),
        }
    }
}

/// A number as people read it: at most four digits behind the point, none that say nothing.
#[must_use]
pub fn number(x: f64) -> String {
    if x.fract() == 0.0 && x.abs() < 1e15 {
        return format!("{x:.0}");
    }
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Something measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What it must be.
    pub bound: Bound,
}

impl Figure {
    /// Something measured.
    #[must_use]
    pub const fn new(name: &'static str, value: f64, unit: &'static str, bound: Bound) -> Figure {
        Figure { name, value, unit, bound }
    }

    /// Is it what it must be? What is not a number never is.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(x) => self.value <= x,
            Bound::AtLeast(x) => self.value >= x,
            Bound::Within(low, high) => (low..=high).contains(&self.value),
            Bound::Exactly(x) => self.value == x,
            Bound::Told => true,
        }
    }
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The figures, in the order in which they are told.
    pub figures: Vec<Figure>,
    /// What was measured beside what was foretold.
    pub plot: Option<Plot>,
    /// The hash over everything that happened.
    pub trace_hash: u64,
}

impl Findings {
    /// Does each figure hold?
    #[must_use]
    pub fn hold(&self) -> bool {
        self.figures.iter().all(Figure::holds)
    }
}

/// The median, of two in the middle the upper one; NaN of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_at_their_edges_and_never_for_what_is_no_number() {
        #[rustfmt::skip] // columns
        let table = [
            (Bound::AtMost(2.0),      2.0,      true),
            (Bound::AtMost(2.0),      2.1,      false),
            (Bound::AtLeast(2.0),     2.0,      true),
            (Bound::AtLeast(2.0),     f64::NAN, false),
            (Bound::Within(1.0, 2.0), 2.0,      true),
            (Bound::Within(1.0, 2.0), 0.9,      false),
            (Bound::Exactly(3.0),     3.0,      true),
            (Bound::Exactly(3.0),     f64::NAN, false),
            (Bound::AtMost(2.0),      f64::NAN, false),
        ];
        for (bound, value, holds) in table {
            assert_eq!(Figure::new("x", value, "", bound).holds(), holds, "{bound} {value}");
        }
    }

    #[test]
    fn a_parameter_out_of_range_is_refused_by_name() {
        let claim = &flood::CLAIM;
        let refused = |name, text| Run::new(claim, 1, &[(name, text)], &|_| ()).err().unwrap().to_string();
        assert_eq!(refused("nodes", "no"), "--nodes is no; it must be a whole number from 16 to 1000000");
        assert!(refused("nothing", "1").starts_with("flood has no parameter nothing"));
        assert!(refused("dead", "1.5").contains("from 0 to"));
        let refused = Run::new(&cap::CLAIM, 1, &[("mode", "both")], &|_| ()).err().unwrap().to_string();
        assert_eq!(refused, "--mode is both; it must be primary");
    }

    #[test]
    fn numbers_are_short() {
        let table = [(3.0, "3"), (0.25, "0.25"), (1.0 / 3.0, "0.3333"), (1e6, "1000000"), (0.1 + 0.2, "0.3")];
        for (x, text) in table {
            assert_eq!(number(x), text);
        }
    }
}
