//! A page of metrics: families with their values, and the text of them that Prometheus scrapes (exposition format 0.0.4).
//! What a collector is sent of the same page is [`crate::otlp`]'s.

use std::fmt::{self, Display, Write};

use crate::Distribution;

/// What the values of a distribution are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds, told in seconds.
    Micros,
    /// Things.
    Count,
}

/// The highest power of two with a bucket of its own; what is above is in the last.
const fn bits_max(unit: Unit) -> u32 {
    match unit {
        // A minute.
        Unit::Micros => 26,
        Unit::Count => 16,
    }
}

/// A value of a metric. It is written as the number that it was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number; wide enough for all that are counted.
    Whole(i128),
    /// Any.
    Real(f64),
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(n) => n.fmt(f),
            Number::Real(x) => x.fmt(f),
        }
    }
}

/// Numbers, and references to them, as lists of figures are walked through.
macro_rules! numbers {
    ($($kind:ty => $variant:ident as $wide:ty),*) => {
        $(
            impl From<$kind> for Number {
                fn from(n: $kind) -> Number {
                    Number::$variant(n as $wide)
                }
            }

            impl From<&$kind> for Number {
                fn from(n: &$kind) -> Number {
                    Number::from(*n)
                }
            }
        )*
    };
}

numbers!(
    u8 => Whole as i128, u16 => Whole as i128, u32 => Whole as i128, u64 => Whole as i128, usize => Whole as i128,
    i32 => Whole as i128, i64 => Whole as i128, f64 => Real as f64
);

/// What becomes of a metric's values in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Counter, Kind::Gauge, Kind::Histogram];

    const fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric with all of its values.
#[derive(Debug)]
pub(crate) struct Family {
    pub name: String,
    pub kind: Kind,
    pub help: String,
    pub points: Vec<Point>,
}

/// A value of a metric under its labels.
#[derive(Debug)]
pub(crate) struct Point {
    pub labels: Vec<(String, String)>,
    pub value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    One(Number),
    Buckets(Buckets),
}

/// A distribution as it is told. `bounds` and `below` are as many.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// The largest value of each bucket, rising.
    pub bounds: Vec<Number>,
    /// How many values are at most each bound.
    pub below: Vec<u64>,
    pub sum: Number,
    pub count: u64,
}

impl Buckets {
    fn of(unit: Unit, values: &Distribution) -> Buckets {
        let bound = |bits: u32| match unit {
            // A whole number of microseconds below 2^bits was a time of at most that.
            Unit::Micros => seconds(1 << bits).into(),
            Unit::Count => ((1u64 << bits) - 1).into(),
        };
        Buckets {
            bounds: (0..=bits_max(unit)).map(bound).collect(),
            below: (0..=bits_max(unit)).map(|bits| values.below_power(bits)).collect(),
            sum: match unit {
                Unit::Micros => seconds(values.sum()).into(),
                Unit::Count => values.sum().into(),
            },
            count: values.count(),
        }
    }
}

/// A page of metrics being written.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<Family>,
}

impl Exposition {
    /// Begins the metric `name`: `kind` is `counter`, `gauge` or `histogram`, `help` one line.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let kind = Kind::ALL.into_iter().find(|one| one.word() == kind);
        let kind = kind.expect("a metric is a counter, a gauge or a histogram");
        let (name, help) = (name.to_owned(), help.to_owned());
        self.families.push(Family { name, kind, help, points: Vec::new() });
    }

    /// One value of the metric just begun.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.point(name, labels, Value::One(value.into()));
    }

    /// A metric with one value that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A metric with one value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A distribution, in one bucket for each power of two.
    pub fn histogram(&mut self, name: &str, help: &str, unit: Unit, values: &Distribution) {
        self.family(name, "histogram", help);
        self.buckets(name, &[], unit, values);
    }

    /// One distribution of the metric just begun.
    pub fn buckets(&mut self, name: &str, labels: &[(&str, &str)], unit: Unit, values: &Distribution) {
        self.point(name, labels, Value::Buckets(Buckets::of(unit, values)));
    }

    /// The page as text.
    #[must_use]
    pub fn finish(self) -> String {
        let mut text = Text::default();
        self.families.iter().for_each(|family| text.family(family));
        text.out
    }

    pub(crate) fn families(&self) -> &[Family] {
        &self.families
    }

    fn point(&mut self, name: &str, labels: &[(&str, &str)], value: Value) {
        let family = self.families.last_mut().expect("a metric is begun before it has values");
        debug_assert_eq!(family.name, name, "a value is of the metric just begun");
        let labels = labels.iter().map(|&(label, value)| (label.to_owned(), value.to_owned())).collect();
        family.points.push(Point { labels, value });
    }
}

/// The text of a page.
#[derive(Default)]
struct Text {
    out: String,
}

impl Text {
    fn family(&mut self, family: &Family) {
        let Family { name, kind, help, points } = family;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {}", kind.word()));
        for Point { labels, value } in points {
            match value {
                Value::One(value) => self.sample(name, labels, *value),
                Value::Buckets(buckets) => self.buckets(name, labels, buckets),
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &[(String, String)], value: Number) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let text: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{name}{{{}}} {value}", text.join(",")));
    }

    fn buckets(&mut self, name: &str, labels: &[(String, String)], buckets: &Buckets) {
        let mut text = String::new();
        for (label, value) in labels {
            text.push_str(&format!("{label}=\"{}\",", escaped(value)));
        }
        let Buckets { bounds, below, sum, count } = buckets;
        for (bound, below) in bounds.iter().zip(below) {
            self.line(format_args!("{name}_bucket{{{text}le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{name}_bucket{{{text}le=\"+Inf\"}} {count}"));
        self.sample(&format!("{name}_sum"), labels, *sum);
        self.sample(&format!("{name}_count"), labels, Number::from(count));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.out.write_fmt(line).expect("text takes what is written to it");
        self.out.push('\n');
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Histogram;

    #[test]
    fn a_page_is_written_as_prometheus_reads_it() {
        let mut page = Exposition::default();
        page.counter("a_total", "What a counts.", 3);
        page.family("b", "gauge", "By name.");
        page.sample("b", &[("name", "x\"y\\z\n"), ("id", "1")], 0.5);
        let expected = "# HELP a_total What a counts.\n# TYPE a_total counter\na_total 3\n\
                        # HELP b By name.\n# TYPE b gauge\nb{name=\"x\\\"y\\\\z\\n\",id=\"1\"} 0.5\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn labels_stand_before_the_bound_of_a_bucket() {
        let histogram = Histogram::default();
        histogram.record(1);
        let mut page = Exposition::default();
        page.family("t_seconds", "histogram", "Times.");
        page.buckets("t_seconds", &[("route", "a\"b")], Unit::Micros, &histogram.distribution());
        let page = page.finish();
        for line in [
            "t_seconds_bucket{route=\"a\\\"b\",le=\"0.000002\"} 1",
            "t_seconds_sum{route=\"a\\\"b\"} 0.000001",
            "t_seconds_count{route=\"a\\\"b\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn buckets_of_a_histogram_are_cumulative_and_end_with_all() {
        let histogram = Histogram::default();
        [1, 3, 1_000_000, 1 << 39].into_iter().for_each(|value| histogram.record(value));
        let mut page = Exposition::default();
        page.histogram("t_seconds", "Times.", Unit::Micros, &histogram.distribution());
        let page = page.finish();
        for line in [
            "t_seconds_bucket{le=\"0.000001\"} 0",
            "t_seconds_bucket{le=\"0.000002\"} 1",
            "t_seconds_bucket{le=\"0.000004\"} 2",
            "t_seconds_bucket{le=\"0.524288\"} 2",
            "t_seconds_bucket{le=\"1.048576\"} 3",
            "t_seconds_bucket{le=\"67.108864\"} 3",
            "t_seconds_bucket{le=\"+Inf\"} 4",
            "t_seconds_count 4",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
