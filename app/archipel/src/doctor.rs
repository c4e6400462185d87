//! `archipel doctor`: the examination's findings, for people or as JSON.

use serde_json::json;
use server::doctor::{Verdict, examine};

use crate::exit::{Exit, Failure};
use crate::options::Options;

/// Runs the verb.
pub fn run(options: &Options) -> Result<Exit, Failure> {
    let loaded = options.load().map_err(Failure::usage)?;
    let findings = examine(&loaded.config);
    let exit = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    if options.json {
        let list: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "name": finding.name,
                    "verdict": finding.verdict.word(),
                    "found": finding.found,
                    "advice": finding.advice,
                    "figures": finding
                        .figures
                        .iter()
                        .map(|(name, value, unit)| json!({"name": name, "value": value, "unit": unit}))
                        .collect::<Vec<_>>(),
                })
            })
            .collect();
        println!("{}", json!({"schema": 1, "verdict": exit.word(), "findings": list}));
    } else {
        for finding in &findings {
            println!("{:<10} {:<12} {}", finding.verdict.word(), finding.name, finding.found);
            if let Some(advice) = &finding.advice {
                println!("{:<10} {:<12} {advice}", "", "");
            }
        }
    }
    Ok(match exit {
        Verdict::Good | Verdict::Better => Exit::Holds,
        Verdict::NotJudged => Exit::NotJudged,
        Verdict::Bad => Exit::Fails,
    })
}
