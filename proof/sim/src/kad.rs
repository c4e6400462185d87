//! What Kademlia's papers promise, measured on `p2p::kad` in the swarm: each with its bounds and a control that must fail.
//!
//! Virtual time only; how fast the simulator runs is told by the command (`--bin overlay`), not judged here.

pub mod churn;
pub mod eclipse;
pub mod kademlia;
pub mod network;

use serde_json::{Value, json};

/// What a figure must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// It is told only.
    None,
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// One measured number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it must keep to.
    pub bound: Bound,
}

impl Figure {
    /// True if it keeps to its bound. What is not a number keeps to none.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::None => true,
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
        }
    }

    fn json(&self) -> Value {
        let bound = match self.bound {
            Bound::None => Value::Null,
            Bound::AtMost(most) => json!({ "at_most": most }),
            Bound::AtLeast(least) => json!({ "at_least": least }),
        };
        json!({ "name": self.name, "value": self.value, "unit": self.unit, "bound": bound })
    }
}

/// What one run of a claim measured, and the same with the rule broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its name.
    pub name: &'static str,
    /// The figures.
    pub figures: Vec<Figure>,
    /// The same figures of the negative control.
    pub control: Vec<Figure>,
    /// The trace's hash.
    pub hash: u64,
    /// Messages delivered in the run that counts.
    pub delivered: u64,
}

impl Claim {
    /// True if every figure keeps to its bound.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.figures.iter().all(Figure::holds)
    }

    /// True if the control breaks a bound, as it must.
    #[must_use]
    pub fn control_fails(&self) -> bool {
        !self.control.iter().all(Figure::holds)
    }

    /// The run as one object.
    #[must_use]
    pub fn json(&self, seed: u64, params: &Value) -> Value {
        let told = |figures: &[Figure]| figures.iter().map(Figure::json).collect::<Vec<_>>();
        json!({
            "schema": 1,
            "name": self.name,
            "seed": seed,
            "params": params,
            "verdict": if self.holds() && self.control_fails() { "holds" } else { "fails" },
            "figures": told(&self.figures),
            "control": {
                "verdict": if self.control_fails() { "fails, as it must" } else { "holds, so the claim shows nothing" },
                "figures": told(&self.control),
            },
            "trace_hash": format!("{:016x}", self.hash),
            "delivered": self.delivered,
        })
    }
}
