//! The text that Prometheus scrapes (exposition format 0.0.4).

use std::fmt::{Display, Write};

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

/// A page of metrics being written.
#[derive(Debug, Default)]
pub struct Exposition {
    out: String,
}

impl Exposition {
    /// Begins the metric `name`: `kind` is `counter`, `gauge` or `histogram`, `help` one line.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One value of the metric just begun.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let text: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{name}{{{}}} {value}", text.join(",")));
    }

    /// A metric with one value that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A metric with one value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
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
        let mut text = String::new();
        for (label, value) in labels {
            text.push_str(&format!("{label}=\"{}\",", escaped(value)));
        }
        for bits in 0..=bits_max(unit) {
            let below = values.below_power(bits);
            match unit {
                // A whole number of microseconds below 2^bits was a time of at most that.
                Unit::Micros => {
                    let seconds = seconds(1 << bits);
                    self.line(format_args!("{name}_bucket{{{text}le=\"{seconds}\"}} {below}"));
                }
                Unit::Count => {
                    let most = (1u64 << bits) - 1;
                    self.line(format_args!("{name}_bucket{{{text}le=\"{most}\"}} {below}"));
                }
            }
        }
        let count = values.count();
        self.line(format_args!("{name}_bucket{{{text}le=\"+Inf\"}} {count}"));
        match unit {
            Unit::Micros => self.sample(&format!("{name}_sum"), labels, seconds(values.sum())),
            Unit::Count => self.sample(&format!("{name}_sum"), labels, values.sum()),
        }
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
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
