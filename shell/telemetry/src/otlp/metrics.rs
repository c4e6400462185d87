//! A page of metrics as an `ExportMetricsServiceRequest`.

use super::{Export, Resource, json};
use crate::exposition::{Buckets, Family, Kind, Point, Value};
use crate::{Exposition, Number};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: each point counts from the process's start.
const CUMULATIVE: &str = "\"aggregationTemporality\":2";

/// The time that sums count from, and the time of all points, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

/// A page as it was at `now_nanos` of a process that counts since `start_nanos`, both since 1970. Names are those of the page,
/// so that both are one metric where both are kept. Metrics without values are left out.
#[must_use]
pub fn metrics(page: &Exposition, resource: &Resource, start_nanos: u64, now_nanos: u64) -> Export {
    let times = Times { start: start_nanos, now: now_nanos };
    let mut body = String::new();
    let families = || page.families().iter().filter(|family| !family.points.is_empty());
    resource.write(["resourceMetrics", "scopeMetrics", "metrics"], &mut body, |out| {
        json::list(families(), out, |one, out| family(one, times, out));
    });
    Export { body, count: families().map(|family| family.points.len() as u64).sum() }
}

/// What the name says of the unit, in the words of UCUM.
fn unit(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = [("_seconds", "s"), ("_bytes", "By")];
    units.iter().find(|(end, _)| name.ends_with(end)).map(|(_, unit)| *unit)
}

fn family(family: &Family, times: Times, out: &mut String) {
    out.push_str("{\"name\":");
    json::text(&family.name, out);
    out.push_str(",\"description\":");
    json::text(&family.help, out);
    if let Some(unit) = unit(&family.name) {
        out.push_str(&format!(",\"unit\":\"{unit}\""));
    }
    out.push_str(match family.kind {
        Kind::Counter => ",\"sum\":{\"isMonotonic\":true,",
        Kind::Gauge => ",\"gauge\":{",
        Kind::Histogram => ",\"histogram\":{",
    });
    if family.kind != Kind::Gauge {
        out.push_str(CUMULATIVE);
        out.push(',');
    }
    out.push_str("\"dataPoints\":");
    json::list(&family.points, out, |one, out| point(one, family.kind, times, out));
    out.push_str("}}");
}

fn point(point: &Point, kind: Kind, times: Times, out: &mut String) {
    out.push_str("{\"attributes\":");
    json::list(&point.labels, out, |(name, value), out| json::text_attribute(name, value, out));
    if kind != Kind::Gauge {
        out.push_str(&format!(",\"startTimeUnixNano\":\"{}\"", times.start));
    }
    out.push_str(&format!(",\"timeUnixNano\":\"{}\"", times.now));
    match &point.value {
        Value::One(Number::Whole(n)) => {
            // A count that large is one that nobody counted.
            let n = i64::try_from(*n).unwrap_or(i64::MAX);
            out.push_str(&format!(",\"asInt\":\"{n}\""));
        }
        Value::One(Number::Real(x)) => {
            out.push_str(",\"asDouble\":");
            json::real(*x, out);
        }
        Value::Buckets(buckets) => histogram(buckets, out),
    }
    out.push('}');
}

/// The bounds are inclusive in both forms; here each bucket counts for itself, and the last one has no bound.
fn histogram(buckets: &Buckets, out: &mut String) {
    let Buckets { bounds, below, sum, count } = buckets;
    out.push_str(&format!(",\"count\":\"{count}\",\"sum\":"));
    json::number(*sum, out);
    out.push_str(",\"explicitBounds\":");
    json::list(bounds, out, |bound, out| json::number(*bound, out));
    out.push_str(",\"bucketCounts\":");
    let mut before = 0;
    json::list(below.iter().chain([count]), out, |&below, out| {
        out.push_str(&format!("\"{}\"", below - before));
        before = below;
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::otlp::resource;
    use crate::{Histogram, Unit};

    fn sent(page: &Exposition) -> (Json, u64) {
        let Export { body, count } = metrics(page, &resource(), 5, 7);
        let whole: Json = serde_json::from_str(&body).unwrap();
        (whole["resourceMetrics"][0].clone(), count)
    }

    #[test]
    fn a_page_says_who_tells_and_what() {
        let mut page = Exposition::default();
        page.counter("a_seconds_total", "What a counts.", 3u64);
        page.family("b", "gauge", "By \"name\".");
        page.sample("b", &[("name", "x\"\\\n\u{1}é")], 0.5);
        page.sample("b", &[("name", "y"), ("id", "1")], u64::MAX);
        page.family("c_total", "counter", "None.");
        let (whole, count) = sent(&page);
        let text = |key: &str, text: &str| json!({ "key": key, "value": { "stringValue": text } });
        let attributes = [
            text("service.name", "archipel"),
            text("service.instance.id", "a\"b"),
            text("service.version", "1.2"),
        ];
        assert_eq!(whole["resource"]["attributes"], json!(attributes));
        let scope = &whole["scopeMetrics"][0];
        assert_eq!(scope["scope"], json!({ "name": "archipel", "version": "1.2" }));
        let sum = json!({
            "isMonotonic": true,
            "aggregationTemporality": 2,
            "dataPoints": [{ "attributes": [], "startTimeUnixNano": "5", "timeUnixNano": "7", "asInt": "3" }],
        });
        let gauge = json!({ "dataPoints": [
            { "attributes": [text("name", "x\"\\\n\u{1}é")], "timeUnixNano": "7", "asDouble": 0.5 },
            { "attributes": [text("name", "y"), text("id", "1")], "timeUnixNano": "7", "asInt": i64::MAX.to_string() },
        ] });
        let expected = json!([
            { "name": "a_seconds_total", "description": "What a counts.", "unit": "s", "sum": sum },
            { "name": "b", "description": "By \"name\".", "gauge": gauge },
        ]);
        assert_eq!(scope["metrics"], expected);
        assert_eq!(count, 3);
    }

    #[test]
    fn buckets_count_for_themselves_and_have_one_more_than_bounds() {
        let histogram = Histogram::default();
        [1, 3, 3, 1 << 39].into_iter().for_each(|value| histogram.record(value));
        let mut page = Exposition::default();
        page.histogram("t_seconds", "Times.", Unit::Micros, &histogram.distribution());
        page.histogram("n", "Things.", Unit::Count, &histogram.distribution());
        let (whole, count) = sent(&page);
        assert_eq!(count, 2);
        let metrics = &whole["scopeMetrics"][0]["metrics"];
        for (at, second) in [(0, 0.000_002), (1, 1.0)] {
            assert_eq!(metrics[at]["histogram"]["aggregationTemporality"], 2);
            let point = &metrics[at]["histogram"]["dataPoints"][0];
            let bounds: Vec<f64> =
                point["explicitBounds"].as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect();
            assert!(bounds.is_sorted() && bounds[1] == second, "{bounds:?}");
            let counts = point["bucketCounts"].as_array().unwrap();
            let counts: Vec<u64> = counts.iter().map(|one| one.as_str().unwrap().parse().unwrap()).collect();
            assert_eq!(counts.len(), bounds.len() + 1);
            assert_eq!((&counts[..4], counts[counts.len() - 1]), (&[0, 1, 2, 0][..], 1));
            assert_eq!((counts.iter().sum::<u64>(), &point["count"]), (4, &json!("4")));
            assert!(point["sum"].is_number());
        }
    }
}
