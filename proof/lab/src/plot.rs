//! A plot as SVG text: axes with ticks, measured points, lines of theory, a legend.
//!
//! Deliberately small. Colours are told by the page's scheme, so that it reads on light and on dark; series are
//! told apart by their shape too.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::claim::number;

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What is on it, with its unit.
    pub label: String,
    /// Logarithmic, with ticks at powers of ten.
    pub log: bool,
}

impl Axis {
    /// An even axis.
    #[must_use]
    pub fn linear(label: &str) -> Axis {
        Axis { label: label.to_owned(), log: false }
    }

    /// A logarithmic axis; what is not above 0 is not drawn.
    #[must_use]
    pub fn log(label: &str) -> Axis {
        Axis { label: label.to_owned(), log: true }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Measured.
    Points,
    /// Foretold.
    Line,
    /// A bound.
    Dashes,
}

/// Numbers that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the legend says.
    pub name: String,
    /// How it is drawn.
    pub mark: Mark,
    /// Its numbers.
    pub points: Vec<(f64, f64)>,
}

/// What was measured beside what was foretold.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: Axis,
    /// Beside it.
    pub y: Axis,
    /// In it.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 90.0;
/// Ticks of an even axis, about.
const TICKS: f64 = 6.0;

const STYLE: &str = "\
.plot{font:13px system-ui,sans-serif;--ink:#1b1f24;--faint:#d5dae0;--paper:#fff;\
--c0:#0b5cad;--c1:#b3420a;--c2:#24733c;--c3:#7a3fa0}\
@media(prefers-color-scheme:dark){.plot{--ink:#e8eaed;--faint:#3c434b;--paper:#14171a;\
--c0:#6cb2ff;--c1:#ffa06b;--c2:#7ddb95;--c3:#d0a3f0}}\
.plot text{fill:var(--ink)}.plot .title{font-weight:600;font-size:15px}\
.plot .grid{stroke:var(--faint)}.plot .axis{stroke:var(--ink)}";

/// One axis with its range, mapped to a stretch of the paper.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let seen = values.filter(|x| x.is_finite() && (!axis.log || *x > 0.0));
        let (mut low, mut high) =
            seen.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if axis.log {
            low = 10f64.powf(low.log10().floor());
            high = 10f64.powf(high.log10().ceil()).max(low * 10.0);
        } else {
            // From zero if that does not squeeze the rest, and some air above.
            if low > 0.0 && low < high * 0.6 {
                low = 0.0;
            }
            let air = (high - low).max(high.abs() * 0.05).max(1e-9) * 0.06;
            high += air;
            if low != 0.0 {
                low -= air;
            }
        }
        Scale { log: axis.log, low, high, from, to }
    }

    fn place(&self, x: f64) -> Option<f64> {
        if !x.is_finite() || self.log && x <= 0.0 {
            return None;
        }
        let share = if self.log {
            (x / self.low).log10() / (self.high / self.low).log10()
        } else {
            (x - self.low) / (self.high - self.low)
        };
        Some(self.from + share * (self.to - self.from))
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10().round() as i32;
            let first = self.low.log10().round() as i32;
            return (0..=decades).map(|n| 10f64.powi(first + n)).collect();
        }
        let rough = (self.high - self.low) / TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }

    fn label(&self, x: f64) -> String {
        if self.log && x >= 1e4 { format!("10^{}", x.log10().round()) } else { number(x) }
    }
}

impl Plot {
    /// The plot as one SVG element, complete in itself.
    #[must_use]
    pub fn svg(&self) -> String {
        let every = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Scale::new(&self.x, every().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Scale::new(&self.y, every().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <title>{title}</title><style>{STYLE}</style>\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"var(--paper)\"/>\
             <text class=\"title\" x=\"{LEFT}\" y=\"22\">{title}</text>",
            title = escape(&self.title)
        );
        self.axes(&mut svg, &x, &y);
        for (n, series) in self.series.iter().enumerate() {
            draw(&mut svg, n, series, &x, &y);
        }
        self.legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// The numbers of the plot.
    #[must_use]
    pub fn json(&self) -> Json {
        let axis = |axis: &Axis| json!({"label": axis.label, "log": axis.log});
        let series: Vec<Json> = self
            .series
            .iter()
            .map(|series| {
                let mark = match series.mark {
                    Mark::Points => "points",
                    Mark::Line => "line",
                    Mark::Dashes => "dashes",
                };
                json!({"name": series.name, "mark": mark, "points": series.points})
            })
            .collect();
        json!({"title": self.title, "x": axis(&self.x), "y": axis(&self.y), "series": series})
    }

    fn axes(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        // Writing to a string does not fail, here and below.
        for tick in x.ticks() {
            let Some(at) = x.place(tick) else { continue };
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                x.label(tick)
            );
        }
        for tick in y.ticks() {
            let Some(at) = y.place(tick) else { continue };
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                y.label(tick)
            );
        }
        let middle = f64::midpoint(TOP, bottom);
        let _ = write!(
            svg,
            "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            bottom + 40.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn legend(&self, svg: &mut String) {
        let mut at = LEFT;
        let y = HEIGHT - 18.0;
        for (n, series) in self.series.iter().enumerate() {
            let colour = n % 4;
            let _ = match series.mark {
                Mark::Points => write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{y}\" r=\"4\" fill=\"var(--c{colour})\"/>",
                    at + 11.0
                ),
                Mark::Line | Mark::Dashes => write!(
                    svg,
                    "<line x1=\"{at:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"var(--c{colour})\" \
                     stroke-width=\"2\"{}/>",
                    at + 22.0,
                    dash(series.mark)
                ),
            };
            let _ =
                write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", at + 28.0, y + 4.0, escape(&series.name));
            at += 28.0 + 7.2 * series.name.chars().count() as f64 + 18.0;
        }
    }
}

fn dash(mark: Mark) -> &'static str {
    if mark == Mark::Dashes { " stroke-dasharray=\"6 4\"" } else { "" }
}

fn draw(svg: &mut String, n: usize, series: &Series, x: &Scale, y: &Scale) {
    let colour = n % 4;
    let places = series.points.iter().filter_map(|point| Some((x.place(point.0)?, y.place(point.1)?)));
    match series.mark {
        Mark::Points => {
            for (x, y) in places {
                let _ =
                    write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"var(--c{colour})\"/>");
            }
        }
        Mark::Line | Mark::Dashes => {
            let path: String = places.map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"var(--c{colour})\" stroke-width=\"2\"{} points=\"{}\"/>",
                dash(series.mark),
                path.trim_end()
            );
        }
    }
}

/// Text as it may stand in SVG and HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log: bool, points: Vec<(f64, f64)>) -> Plot {
        let axis = |label: &str| Axis { label: label.into(), log };
        let series = vec![
            Series { name: "seen <here>".into(), mark: Mark::Points, points: points.clone() },
            Series { name: "bound".into(), mark: Mark::Dashes, points },
        ];
        Plot { title: "A & B".into(), x: axis("x"), y: axis("y"), series }
    }

    #[test]
    fn everything_drawn_is_within_the_paper_and_nothing_is_not_a_number() {
        for log in [false, true] {
            for points in [
                vec![],
                vec![(5.0, 5.0)],
                vec![(0.0, 0.0), (-3.0, 1e9)],
                vec![(1e3, 4.9), (1e6, 10.8), (f64::NAN, 1.0)],
            ] {
                let svg = plot(log, points.clone()).svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{log} {points:?}");
                assert!(svg.contains("A &amp; B") && svg.contains("seen &lt;here&gt;"));
                for part in svg.split("cx=\"").skip(1) {
                    let x: f64 = part.split('"').next().unwrap().parse().unwrap();
                    assert!((0.0..=WIDTH).contains(&x), "{log} {points:?}: {x}");
                }
            }
        }
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        let scale = |log, values: &[f64]| {
            Scale::new(&Axis { label: String::new(), log }, values.iter().copied(), 0.0, 1.0).ticks()
        };
        assert_eq!(scale(true, &[900.0, 1e6]), [100.0, 1e3, 1e4, 1e5, 1e6]);
        assert_eq!(scale(false, &[0.0, 11.0]), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }
}
