//! `archipel mesh top`: what goes through the proxy, from two looks at the node's metrics.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::admin::{SECONDS_MAX, ask};
use crate::exit::Exit;

/// How it is shown.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Looks until it ends. Without it, one, or on a terminal all until it is interrupted.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Shows rates, errors and times of routes, services and endpoints.
pub fn run(address: SocketAddr, args: &TopArgs, json: bool) -> Result<Exit> {
    let is_terminal = std::io::stdout().is_terminal() && !json;
    let mut left = args.count.or((!is_terminal).then_some(1));
    let mut before = (Instant::now(), look(address)?);
    while left != Some(0) {
        std::thread::sleep(Duration::from_secs(args.interval));
        let now = (Instant::now(), look(address)?);
        let seconds = now.0.duration_since(before.0).as_secs_f64();
        let rates = rates(&before.1, &now.1, seconds);
        if json {
            println!("{}", told(&rates, seconds));
        } else {
            let clear = if is_terminal { "\x1b[H\x1b[2J" } else { "" };
            println!("{clear}{}", table(&rates));
        }
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(Exit::Holds)
}

fn look(address: SocketAddr) -> Result<Totals> {
    let page = ask(address, "GET", "/metrics", SECONDS_MAX)?.good()?;
    let totals = totals(&page);
    if !page.contains("archipel_proxy_generation") {
        bail!("this node has no proxy; give it a [[proxy.listener]]");
    }
    Ok(totals)
}

/// What has rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Route,
    Service,
    Endpoint,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Route, Kind::Service, Kind::Endpoint];

    const fn word(self) -> &'static str {
        match self {
            Kind::Route => "route",
            Kind::Service => "service",
            Kind::Endpoint => "endpoint",
        }
    }
}

/// Counts since the node's start.
#[derive(Clone, Debug, Default, PartialEq)]
struct Total {
    requests: f64,
    errors: f64,
    /// Up to how many seconds, and how many took at most that.
    buckets: Vec<(f64, f64)>,
    under_way: f64,
    limit: f64,
    waiting: f64,
    /// Requests that were not sent to spare a service, by [`CLASSES`].
    shed: [f64; 3],
}

/// Priorities, as the metrics name them.
const CLASSES: [&str; 3] = ["high", "normal", "low"];

/// By kind and name.
type Totals = BTreeMap<(Kind, String), Total>;

fn totals(page: &str) -> Totals {
    let mut totals = Totals::new();
    for (name, labels, value) in page.lines().filter_map(sample) {
        let label = |wanted: &str| {
            let found = labels.iter().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (service, route) = (label("service"), label("route"));
        let endpoint = label("endpoint");
        let key = match (route.is_empty(), endpoint.is_empty()) {
            (true, true) if service.is_empty() => continue,
            (false, _) => (Kind::Route, route),
            (true, true) => (Kind::Service, service),
            (true, false) => (Kind::Endpoint, format!("{service} {endpoint}")),
        };
        let Some(name) = name.strip_prefix("archipel_proxy_") else { continue };
        let (upto, is_failure) = (label("le"), label("class") == "5xx");
        let priority = label("priority");
        let one = totals.entry(key).or_default();
        match name {
            "requests_total" | "tries_total" => one.requests += value,
            "failures_total" => one.errors += value,
            "service_requests" => one.under_way += value,
            "service_limit" => one.limit += value,
            "service_waiting" => one.waiting += value,
            "service_shed_total" => {
                let of_class = CLASSES.iter().zip(&mut one.shed).find(|(class, _)| **class == priority);
                of_class.into_iter().for_each(|(_, shed)| *shed += value);
            }
            "request_seconds_bucket" | "try_seconds_bucket" => {
                one.add_bucket(upto.parse().unwrap_or(f64::INFINITY), value);
            }
            _ => {}
        }
        if name == "requests_total" && is_failure {
            one.errors += value;
        }
    }
    totals
}

impl Total {
    fn add_bucket(&mut self, upto: f64, count: f64) {
        match self.buckets.iter_mut().find(|(known, _)| known.total_cmp(&upto).is_eq()) {
            Some((_, sum)) => *sum += count,
            None => self.buckets.push((upto, count)),
        }
    }

    /// What came since `before`; of what has begun anew since then, all.
    fn since(&self, before: Option<&Total>) -> Total {
        let Some(before) = before.filter(|before| before.requests <= self.requests) else {
            return self.clone();
        };
        let mut grown = Total { buckets: Vec::new(), ..self.clone() };
        grown.requests -= before.requests;
        grown.errors = (self.errors - before.errors).max(0.0);
        grown.shed.iter_mut().zip(before.shed).for_each(|(shed, before)| *shed = (*shed - before).max(0.0));
        for &(upto, count) in &self.buckets {
            let known = before.buckets.iter().find(|(other, _)| *other == upto);
            grown.add_bucket(upto, count - known.map_or(0.0, |(_, count)| *count));
        }
        grown
    }
}

/// `name{key="value",…} 1` in its parts.
fn sample(line: &str) -> Option<(&str, Vec<(String, String)>, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let Some((name, mut rest)) = line.split_once('{') else {
        let (name, value) = line.rsplit_once(' ')?;
        return Some((name, Vec::new(), value.parse().ok()?));
    };
    let mut labels = Vec::new();
    loop {
        if let Some(value) = rest.strip_prefix('}') {
            return Some((name, labels, value.trim().parse().ok()?));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), quoted.char_indices());
        rest = loop {
            match chars.next()? {
                (at, '"') => break &quoted[at + 1..],
                (_, '\\') => match chars.next()? {
                    (_, 'n') => value.push('\n'),
                    (_, other) => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((key.to_owned(), value));
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// What went on between two looks.
#[derive(Clone, Debug, PartialEq)]
struct Rate {
    kind: Kind,
    name: String,
    per_second: f64,
    error_percent: f64,
    /// The 99th percentile, in milliseconds, within its bucket by proportion; `None`: nothing ended.
    p99_ms: Option<f64>,
    under_way: f64,
    limit: f64,
    waiting: f64,
    /// In a second, by [`CLASSES`].
    shed: [f64; 3],
}

fn rates(before: &Totals, now: &Totals, seconds: f64) -> Vec<Rate> {
    let grown = now.iter().map(|(key, total)| (key.clone(), total.since(before.get(key))));
    let mut grown: Totals = grown.collect();
    // Of a service its endpoints are summed, and not their totals: one that is gone took its own with it.
    let endpoints: Vec<(String, Total)> = (grown.iter())
        .filter(|((kind, _), _)| *kind == Kind::Endpoint)
        .filter_map(|((_, name), total)| Some((name.split_once(' ')?.0.to_owned(), total.clone())))
        .collect();
    for (service, endpoint) in endpoints {
        let total = grown.entry((Kind::Service, service)).or_default();
        total.requests += endpoint.requests;
        total.errors += endpoint.errors;
        endpoint.buckets.iter().for_each(|&(upto, count)| total.add_bucket(upto, count));
    }
    let rate = |((kind, name), grown): ((Kind, String), Total)| Rate {
        kind,
        name,
        per_second: grown.requests / seconds.max(f64::MIN_POSITIVE),
        error_percent: if grown.requests > 0.0 { grown.errors * 100.0 / grown.requests } else { 0.0 },
        p99_ms: quantile(&grown.buckets, 0.99).map(|seconds| seconds * 1e3),
        under_way: grown.under_way,
        limit: grown.limit,
        waiting: grown.waiting,
        shed: grown.shed.map(|shed| shed / seconds.max(f64::MIN_POSITIVE)),
    };
    grown.into_iter().map(rate).collect()
}

/// The quantile of cumulated counts, as Prometheus reads them: within a bucket by proportion. `None` of nothing.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let mut sorted = buckets.to_vec();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let all = sorted.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let rank = all * share;
    let at = sorted.iter().position(|(_, count)| *count >= rank)?;
    let (low, below) = if at == 0 { (0.0, 0.0) } else { sorted[at - 1] };
    let (high, count) = sorted[at];
    if high.is_infinite() {
        return Some(low);
    }
    let part = if count > below { (rank - below) / (count - below) } else { 1.0 };
    Some(low + (high - low) * part)
}

fn told(rates: &[Rate], seconds: f64) -> Value {
    let of = |kind: Kind| {
        let of_kind = rates.iter().filter(|one| one.kind == kind);
        let told = of_kind.map(|one| {
            let mut told = json!({
                kind.word(): one.name,
                "per_second": one.per_second,
                "error_percent": one.error_percent,
                "p99_ms": one.p99_ms,
            });
            if kind == Kind::Service {
                told["under_way"] = one.under_way.into();
                told["limit"] = one.limit.into();
                told["waiting"] = one.waiting.into();
                let shed = CLASSES.iter().zip(one.shed);
                told["shed_per_second"] = shed.map(|(class, shed)| (*class, shed)).collect();
            }
            told
        });
        told.collect::<Vec<Value>>()
    };
    let [routes, services, endpoints] = Kind::ALL.map(of);
    json!({"schema": 1, "seconds": seconds, "routes": routes, "services": services, "endpoints": endpoints})
}

fn table(rates: &[Rate]) -> String {
    let mut lines = Vec::new();
    for kind in Kind::ALL {
        let more =
            if kind == Kind::Service { "  under way  limit  waiting  shed/s high, normal, low" } else { "" };
        lines.push(format!("{:<48}  {:>10}  {:>7}  {:>9}{more}", kind.word(), "requests/s", "errors", "p99"));
        let mut of_kind: Vec<&Rate> = rates.iter().filter(|one| one.kind == kind).collect();
        // The busiest first; of equals by name, as they came.
        of_kind.sort_by(|one, other| other.per_second.total_cmp(&one.per_second));
        for one in of_kind {
            let p99 = one.p99_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"));
            let more = if kind == Kind::Service {
                let [high, normal, low] = one.shed;
                let (under_way, limit, waiting) = (one.under_way, one.limit, one.waiting);
                format!("  {under_way:>9}  {limit:>5}  {waiting:>7}  {high:.1}, {normal:.1}, {low:.1}")
            } else {
                String::new()
            };
            lines.push(format!(
                "{:<48}  {:>10.1}  {:>5.1} %  {p99:>9}{more}",
                one.name, one.per_second, one.error_percent
            ));
        }
        lines.push(String::new());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP x y\narchipel_proxy_generation 1\n\
        archipel_proxy_requests_total{route=\"a \\\"b\\\"\",class=\"2xx\"} 10\n\
        archipel_proxy_tries_total{service=\"s\",endpoint=\"127.0.0.1:1\"} 10\n";
    const AFTER: &str = "archipel_proxy_requests_total{route=\"a \\\"b\\\"\",class=\"2xx\"} 28\n\
        archipel_proxy_requests_total{route=\"a \\\"b\\\"\",class=\"5xx\"} 2\n\
        archipel_proxy_request_seconds_bucket{route=\"a \\\"b\\\"\",le=\"0.001\"} 0\n\
        archipel_proxy_request_seconds_bucket{route=\"a \\\"b\\\"\",le=\"0.002\"} 20\n\
        archipel_proxy_request_seconds_bucket{route=\"a \\\"b\\\"\",le=\"+Inf\"} 20\n\
        archipel_proxy_tries_total{service=\"s\",endpoint=\"127.0.0.1:1\"} 20\n\
        archipel_proxy_tries_total{service=\"s\",endpoint=\"127.0.0.1:2\"} 30\n\
        archipel_proxy_failures_total{service=\"s\",endpoint=\"127.0.0.1:2\"} 3\n\
        archipel_proxy_service_requests{service=\"s\"} 4\n\
        archipel_proxy_service_limit{service=\"s\"} 6\n\
        archipel_proxy_service_shed_total{service=\"s\",priority=\"low\"} 40\n\
        archipel_proxy_service_shed_total{service=\"s\",priority=\"high\"} 0\n\
        archipel_proxy_service_waiting{service=\"s\"} 5\n\
        archipel_other_total{service=\"s\"} 99\n";

    fn of<'a>(rates: &'a [Rate], kind: Kind, name: &str) -> &'a Rate {
        rates.iter().find(|one| one.kind == kind && one.name == name).unwrap()
    }

    #[test]
    fn two_looks_give_rates_errors_and_times() {
        assert!(totals(BEFORE).keys().all(|(_, name)| !name.is_empty()), "figures of the whole are nobody's");
        let rates = rates(&totals(BEFORE), &totals(AFTER), 2.0);
        let route = of(&rates, Kind::Route, "a \"b\"");
        assert_eq!((route.per_second, route.error_percent), (10.0, 10.0));
        assert!((route.p99_ms.unwrap() - 1.99).abs() < 1e-9, "{route:?}");
        let (one, two) =
            (of(&rates, Kind::Endpoint, "s 127.0.0.1:1"), of(&rates, Kind::Endpoint, "s 127.0.0.1:2"));
        assert_eq!((one.per_second, two.per_second, two.error_percent), (5.0, 15.0, 10.0));
        let service = of(&rates, Kind::Service, "s");
        assert_eq!((service.per_second, service.under_way, service.waiting), (20.0, 4.0, 5.0));
        assert_eq!((service.limit, service.shed), (6.0, [0.0, 0.0, 20.0]));
        assert_eq!(service.p99_ms, None);
        let text = table(&rates);
        assert!(text.contains("a \"b\"") && text.contains("1.99 ms") && text.contains("10.0 %"), "{text}");
        let told = told(&rates, 2.0);
        assert_eq!(
            (&told["services"][0]["waiting"], &told["routes"][0]["per_second"]),
            (&json!(5.0), &json!(10.0))
        );
        assert_eq!(told["services"][0]["shed_per_second"], json!({"high": 0.0, "normal": 0.0, "low": 20.0}));
    }

    #[test]
    fn an_endpoint_that_is_gone_makes_nobody_seem_busy() {
        let page = |one: u32, two: &str| {
            let tries = "archipel_proxy_tries_total{service=\"s\",endpoint";
            format!("{tries}=\"127.0.0.1:1\"}} {one}\n{two}")
        };
        let gone = "archipel_proxy_tries_total{service=\"s\",endpoint=\"127.0.0.1:2\"} 500000\n";
        for (before, now) in [(500_000, 500_010), (0, 10), (600_000, 600_010)] {
            let rates = rates(&totals(&page(before, gone)), &totals(&page(now, "")), 1.0);
            assert_eq!(of(&rates, Kind::Service, "s").per_second, 10.0, "{before}");
        }
    }

    #[test]
    fn a_node_that_has_started_again_counts_from_its_start() {
        let rates = rates(&totals(AFTER), &totals(BEFORE), 1.0);
        assert_eq!(of(&rates, Kind::Route, "a \"b\"").per_second, 10.0);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let infinite = f64::INFINITY;
        #[rustfmt::skip] // columns
        let table = [
            (vec![],                                          None),
            (vec![(1.0, 0.0), (infinite, 0.0)],               None),
            (vec![(1.0, 100.0), (infinite, 100.0)],           Some(0.99)),
            (vec![(2.0, 100.0), (1.0, 98.0)],                 Some(1.5)),
            (vec![(1.0, 50.0), (infinite, 100.0)],            Some(1.0)), // it took longer than is counted
        ];
        for (buckets, expected) in table {
            assert_eq!(quantile(&buckets, 0.99), expected, "{buckets:?}");
        }
    }

    #[test]
    fn lines_that_are_no_samples_are_passed_over() {
        for line in ["", "# TYPE a counter", "a{b=\"c\" 1", "a{b=\"c} 1", "a b"] {
            assert_eq!(sample(line), None, "{line}");
        }
        assert_eq!(sample("a 1.5"), Some(("a", vec![], 1.5)));
    }
}
