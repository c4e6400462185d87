//! What a bench found: rows of figures, each with its rounds, its bar and whether the bar holds.

use serde::Serialize;
use std::fmt;

/// The result of one bench, and the JSON that `--json` prints.
#[derive(Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub name: &'static str,
    pub rounds: u32,
    pub quick: bool,
    /// Of the machine, before the bench began.
    pub load_average: f64,
    pub rows: Vec<Row>,
}

/// One figure of one work, for us and, where there is one, for the peer.
#[derive(Serialize)]
pub struct Row {
    pub work: String,
    pub metric: &'static str,
    pub unit: &'static str,
    /// Median over the rounds.
    pub us: f64,
    /// Median over the rounds.
    pub peer: Option<f64>,
    /// Median of the rounds' ratios, us / peer.
    pub ratio: Option<f64>,
    /// What was promised, as text.
    pub bar: Option<String>,
    pub holds: Option<bool>,
    /// Every round's figures.
    pub figures: Vec<Pair>,
}

/// One round's figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    pub us: f64,
    pub peer: Option<f64>,
}

/// A promise about a row.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// The ratio to the peer is at least this.
    RatioAtLeast(f64),
    /// The ratio to the peer is at most this.
    RatioAtMost(f64),
    /// Our own figure is at least this.
    AtLeast(f64),
    /// Our own figure is at most this, in every round.
    AtMost(f64),
}

impl Report {
    /// An empty report.
    pub fn new(name: &'static str, rounds: u32) -> Self {
        Report { schema: "archipel-bench-1", name, rounds, quick: false, load_average: 0.0, rows: Vec::new() }
    }

    /// Adds a row from its rounds, of which there is at least one.
    pub fn row(
        &mut self,
        work: &str,
        (metric, unit): (&'static str, &'static str),
        figures: Vec<Pair>,
        bar: Option<Bar>,
    ) {
        let us = median(figures.iter().map(|pair| pair.us).collect());
        let peers: Option<Vec<f64>> = figures.iter().map(|pair| pair.peer).collect();
        let ratios = figures
            .iter()
            .map(|pair| pair.peer.filter(|peer| *peer != 0.0).map(|peer| pair.us / peer))
            .collect::<Option<Vec<f64>>>();
        let (peer, ratio) = (peers.map(median), ratios.map(median));
        // A figure that is missing or not a number holds no bar.
        let holds = bar.map(|bar| match bar {
            Bar::RatioAtLeast(limit) => ratio.is_some_and(|ratio| ratio >= limit),
            Bar::RatioAtMost(limit) => ratio.is_some_and(|ratio| ratio <= limit),
            Bar::AtLeast(limit) => us >= limit,
            Bar::AtMost(limit) => !figures.is_empty() && figures.iter().all(|pair| pair.us <= limit),
        });
        let bar = bar.map(|bar| match bar {
            Bar::RatioAtLeast(limit) => format!("≥ {limit}× of the peer"),
            Bar::RatioAtMost(limit) => format!("≤ {limit}× of the peer"),
            Bar::AtLeast(limit) => format!("≥ {limit} {unit}"),
            Bar::AtMost(limit) => format!("≤ {limit} {unit} in every round"),
        });
        self.rows.push(Row { work: work.to_owned(), metric, unit, us, peer, ratio, bar, holds, figures });
    }

    /// Does every bar hold?
    pub fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.holds != Some(false))
    }
}

/// The middle value; the mean of the two middle ones if there is no middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: medians of {} rounds, load average {:.2} at the start",
            self.name, self.rounds, self.load_average
        )?;
        writeln!(f, "{:<26} {:<16} {:>12} {:>12} {:>7}  bar", "work", "figure", "us", "peer", "ratio")?;
        for row in &self.rows {
            let number = |value: Option<f64>| value.map(short).unwrap_or_default();
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default();
            let verdict = match (&row.bar, row.holds) {
                (Some(bar), Some(true)) => format!("{bar}: holds"),
                (Some(bar), _) => format!("{bar}: DOES NOT HOLD"),
                (None, _) => String::new(),
            };
            let metric = format!("{} {}", row.metric, row.unit);
            let (us, peer) = (short(row.us), number(row.peer));
            writeln!(f, "{:<26} {metric:<16} {us:>12} {peer:>12} {ratio:>7}  {verdict}", row.work)?;
            let rounds = row.figures.iter().map(|pair| match pair.peer {
                Some(peer) => format!("{}/{}", short(pair.us), short(peer)),
                None => short(pair.us),
            });
            writeln!(f, "{:<26} rounds: {}", "", rounds.collect::<Vec<_>>().join("  "))?;
        }
        let broken = self.rows.iter().filter(|row| row.holds == Some(false)).count();
        let judged = self.rows.iter().filter(|row| row.holds.is_some()).count();
        writeln!(f, "{} of {judged} bars hold", judged - broken)
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(figures: &[(f64, Option<f64>)], bar: Bar) -> (Option<f64>, Option<bool>) {
        let mut report = Report::new("test", 1);
        let figures = figures.iter().map(|&(us, peer)| Pair { us, peer }).collect();
        report.row("work", ("speed", "ops/s"), figures, Some(bar));
        (report.rows[0].ratio, report.rows[0].holds)
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let rounds = [(10.0, Some(10.0)), (30.0, Some(10.0)), (40.0, Some(20.0))];
        assert_eq!(judged(&rounds, Bar::RatioAtLeast(2.0)), (Some(2.0), Some(true)));
        assert_eq!(judged(&rounds, Bar::RatioAtLeast(2.01)), (Some(2.0), Some(false)));
        assert_eq!(judged(&rounds, Bar::RatioAtMost(1.99)), (Some(2.0), Some(false)));
        assert_eq!(judged(&rounds[..2], Bar::RatioAtMost(2.0)), (Some(2.0), Some(true)));
    }

    #[test]
    fn a_bar_on_our_own_figure_needs_no_peer() {
        let rounds = [(1.0, None), (2.0, None), (3.0, None)];
        assert_eq!(judged(&rounds, Bar::AtLeast(2.0)), (None, Some(true)));
        assert_eq!(judged(&rounds, Bar::AtLeast(2.1)), (None, Some(false)));
        assert_eq!(judged(&rounds, Bar::AtMost(3.0)), (None, Some(true)));
        assert_eq!(judged(&rounds, Bar::AtMost(2.0)), (None, Some(false)));
    }

    #[test]
    fn what_is_missing_or_not_a_number_holds_nothing() {
        assert_eq!(judged(&[(1.0, None)], Bar::RatioAtLeast(0.0)).1, Some(false));
        assert_eq!(judged(&[(f64::NAN, None)], Bar::AtMost(1.0)).1, Some(false));
        let one_of_three = [(1.0, None), (1.0, None), (f64::NAN, None)];
        assert_eq!(judged(&one_of_three, Bar::AtMost(1.0)).1, Some(false));
        assert_eq!(judged(&[(0.0, Some(0.0))], Bar::RatioAtMost(1.0)).1, Some(false));
    }
}
