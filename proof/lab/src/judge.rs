//! Runs a claim and its control, and says what follows.

use serde_json::{Value as Json, json};

use crate::claim::{Claim, Figure, Findings, Run, Value};

/// What follows from a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every figure is within its bound, and the control's are not.
    Holds,
    /// A figure is out of its bound.
    Fails,
    /// The control passed: a judge that sees nothing has judged nothing.
    NotJudged,
}

impl Verdict {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Fails => "fails",
            Verdict::NotJudged => "not judged",
        }
    }
}

/// A claim after its run.
pub struct Judgement {
    /// Which.
    pub claim: &'static Claim,
    /// Its seed.
    pub seed: u64,
    /// Its parameters.
    pub values: Vec<(&'static str, Value)>,
    /// What it found.
    pub findings: Findings,
    /// What its control found.
    pub control: Findings,
}

/// Runs `claim`, then its control.
#[must_use]
pub fn judge(claim: &'static Claim, run: &Run<'_>) -> Judgement {
    let findings = (claim.run)(run);
    let control = (claim.control.run)(run);
    Judgement { claim, seed: run.seed, values: run.values().to_vec(), findings, control }
}

impl Judgement {
    /// What follows.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.findings.hold(), self.control.hold()) {
            (false, _) => Verdict::Fails,
            (true, true) => Verdict::NotJudged,
            (true, false) => Verdict::Holds,
        }
    }

    /// One object with everything: the same for the same seed, parameters and commit.
    #[must_use]
    pub fn json(&self) -> Json {
        let params: serde_json::Map<String, Json> = self
            .values
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Value::Count(n) => json!(n),
                    Value::Share(x) => json!(x),
                    Value::Choice(word) => json!(word),
                };
                ((*name).to_owned(), value)
            })
            .collect();
        json!({
            "schema": 1,
            "name": self.claim.name,
            "seed": self.seed,
            "params": params,
            "verdict": self.verdict().word(),
            "figures": figures(&self.findings),
            "control": {
                "statement": self.claim.control.statement,
                "verdict": if self.control.hold() { "passed" } else { "caught" },
                "figures": figures(&self.control),
            },
            "trace_hash": format!("{:016x}", self.findings.trace_hash),
            "plot": self.findings.plot.as_ref().map(crate::plot::Plot::json),
        })
    }
}

fn figures(findings: &Findings) -> Vec<Json> {
    let told = |figure: &Figure| {
        json!({
            "name": figure.name,
            "value": figure.value,
            "unit": figure.unit,
            "bound": figure.bound.to_string(),
            "holds": figure.holds(),
        })
    };
    findings.figures.iter().map(told).collect()
}
