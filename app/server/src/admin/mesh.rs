//! The proxy as it is followed (`archipel mesh routes`), and what would become of a request (`archipel mesh effective`).

use std::net::SocketAddr;

use hyper::{Method, Request, StatusCode};
use mesh::registry::View;
use mesh::route::{Ask, FieldRule, HostRule, PathRule, Rule, Standing, rewritten};
use proxy::{Allowed, EndpointFigures, ListenerKind, ListenerPlan, Meters, Plan, RoutePlan, ServicePlan};
use serde_json::{Value, json};

use super::Subject;
use super::answer::{JSON, Page, TEXT, not_allowed, page};
use super::proxied::SHED;
use crate::config::items::Item;
use crate::config::proxy::{Balance, FieldItem, Host};
use crate::proxy::judged;

/// Most headers of a request that is asked about.
const HEADERS_MAX: usize = 64;

/// The pages below `/proxy`.
pub(super) fn answer<B>(subject: &Subject, request: &Request<B>) -> Page {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    let followed = subject.proxied.lock().as_ref().map(|proxy| (proxy.plan(), proxy.generation()));
    let Some((plan, generation)) = followed else {
        return page(StatusCode::CONFLICT, TEXT, "this node has no proxy; give it a [[proxy.listener]]\n");
    };
    let told = match request.uri().path() {
        "/proxy" => routes(&plan, generation),
        "/proxy/effective" => match Asked::of(request.uri().query().unwrap_or_default()) {
            Ok(asked) => {
                let view = subject.services.as_ref().map(crate::services::Handle::view);
                let seen = Seen { meters: &subject.proxy, view: view.as_deref() };
                effective(&plan, generation, &asked, &seen)
            }
            Err(why) => return page(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        },
        _ => return page(StatusCode::NOT_FOUND, TEXT, "there are GET /proxy and /proxy/effective\n"),
    };
    page(StatusCode::OK, JSON, told.to_string())
}

fn routes(plan: &Plan, generation: u64) -> Value {
    let routes: Vec<Value> = (0..).zip(&plan.routes).map(|(at, one)| route(plan, at, one)).collect();
    let services: Vec<Value> = plan
        .services
        .iter()
        .map(|one| {
            let endpoints: Vec<Value> = (one.endpoints.iter())
                .map(|end| json!({"address": end.address.to_string(), "weight": end.weight}))
                .collect();
            json!({"service": one.name, "policy": policy(one), "registered": one.discovered, "endpoints": endpoints})
        })
        .collect();
    json!({
        "schema": 1,
        "generation": generation,
        "listeners": plan.listeners.iter().map(|one| listener(plan, one)).collect::<Vec<Value>>(),
        "routes": routes,
        "services": services,
    })
}

fn listener(plan: &Plan, one: &ListenerPlan) -> Value {
    let (protocol, service) = match one.kind {
        ListenerKind::Http => ("http", None),
        ListenerKind::Tcp { service } => ("tcp", Some(name(plan, service))),
    };
    let trusted: Vec<String> =
        one.sources.iter().flat_map(|sources| &sources.trusted).map(ToString::to_string).collect();
    json!({
        "name": one.name,
        "address": one.address.to_string(),
        "protocol": protocol,
        "service": service,
        "tls": one.tls.as_ref().is_some_and(|tls| tls.terminate.is_some()),
        "trusted": trusted,
        "accept_proxy": one.sources.as_ref().is_some_and(|sources| sources.accept_proxy),
    })
}

fn name(plan: &Plan, service: u32) -> &str {
    &plan.services[service as usize].name
}

fn policy(service: &ServicePlan) -> &'static str {
    let known = Balance::ALL.iter().find(|one| one.policy() == service.options.policy);
    known.map_or("", |one| one.word())
}

/// A route's services, each with its part.
fn parts<'a>(plan: &'a Plan, route: &RoutePlan) -> Vec<(&'a ServicePlan, f64)> {
    let sum: u64 = route.split.parts().map(|(_, part)| part).sum();
    let percent = |part: u64| part as f64 * 100.0 / sum as f64;
    route.split.parts().map(|(service, part)| (&plan.services[service as usize], percent(part))).collect()
}

fn route(plan: &Plan, at: u32, one: &RoutePlan) -> Value {
    let services: Vec<Value> = parts(plan, one)
        .into_iter()
        .map(|(service, percent)| json!({"service": service.name, "percent": percent}))
        .collect();
    let mirror =
        one.mirror.map(|mirror| json!({"service": name(plan, mirror.service), "percent": mirror.percent}));
    let mut told = json!({
        "route": one.name,
        "services": services,
        "mirror": mirror,
        "rewrite": one.rewrite.as_ref().map(|(_, by)| by),
    });
    if let Some(rule) = plan.index.rule(at) {
        told["host"] = host(&rule.host).into();
        (told["path"], told["exact"]) = match &rule.path {
            PathRule::Exact(path) => (path.to_string().into(), true.into()),
            // `/` is kept without its slash.
            PathRule::Prefix(path) if path.is_empty() => ("/".into(), false.into()),
            PathRule::Prefix(path) => (path.to_string().into(), false.into()),
        };
        told["methods"] = rule.methods.iter().map(ToString::to_string).collect::<Vec<String>>().into();
        told["headers"] = rule.fields.iter().map(field).collect::<Vec<String>>().into();
    }
    told
}

fn host(rule: &HostRule) -> String {
    Host(rule.clone()).show()
}

fn field(rule: &FieldRule) -> String {
    FieldItem { name: rule.name.to_string(), value: rule.value.as_deref().map(str::to_owned) }.show()
}

/// A request that is asked about.
struct Asked {
    method: String,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// From `method=GET&host=a.example&path=%2Fx&header=x-beta:yes`.
    fn of(query: &str) -> Result<Asked, String> {
        let mut asked =
            Asked { method: "GET".into(), host: String::new(), path: "/".into(), headers: Vec::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("`{key}` is no text with %-escapes"))?;
            match key {
                "method" => asked.method = value,
                "host" => asked.host = value,
                "path" if value.starts_with('/') => asked.path = value,
                "path" => return Err(format!("`path` is {value:?}, which does not begin with a slash")),
                "header" if asked.headers.len() == HEADERS_MAX => {
                    return Err(format!("more than {HEADERS_MAX} headers"));
                }
                "header" => {
                    let (name, value) = value.split_once(':').unwrap_or((&value, ""));
                    asked.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                _ => return Err(format!("there is no `{key}`; there are method, host, path and header")),
            }
        }
        Ok(asked)
    }

    fn has(&self, rule: &FieldRule) -> bool {
        self.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(&rule.name)
                && rule.value.as_ref().is_none_or(|wanted| **wanted == **value)
        })
    }
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// What is known besides the plan.
struct Seen<'a> {
    meters: &'a Meters,
    view: Option<&'a View>,
}

fn effective(plan: &Plan, generation: u64, asked: &Asked, seen: &Seen<'_>) -> Value {
    let ask = Ask { host: &asked.host, path: &asked.path, method: &asked.method };
    let has = |rule: &FieldRule| asked.has(rule);
    let taken = plan.index.find(&ask, &has);
    let considered: Vec<Value> = (0..)
        .zip(&plan.routes)
        .map(|(at, one)| {
            let rule = plan.index.rule(at);
            let standing = plan.index.standing(at, &ask, &has);
            json!({"route": one.name, "taken": taken == Some(at), "why": why(rule, standing)})
        })
        .collect();
    let mut told = json!({
        "schema": 1,
        "generation": generation,
        "asked": {"method": asked.method, "host": asked.host, "path": asked.path, "headers": asked.headers},
        "route": Value::Null,
        "considered": considered,
    });
    let Some(route) = taken.map(|at| &plan.routes[at as usize]) else {
        told["answer"] = json!({"status": 404, "reason": "no-route"});
        return told;
    };
    told["route"] = route.name.as_str().into();
    if route.allow != Allowed::Anybody {
        told["allow"] = match &route.allow {
            Allowed::Anybody | Allowed::Members => json!(["members"]),
            Allowed::These(nodes) => nodes.iter().map(ToString::to_string).collect(),
        };
    }
    if asked.method == "CONNECT" && !route.connect {
        told["answer"] = json!({"status": 405, "reason": "no-connect"});
        return told;
    }
    let rewritten = route.rewrite.as_ref().map(|(prefix, by)| rewritten(&asked.path, prefix, by));
    told["path"] = rewritten.map_or_else(|| asked.path.clone(), |(one, rest)| format!("{one}{rest}")).into();
    let figures = seen.meters.endpoints();
    told["services"] = parts(plan, route)
        .into_iter()
        .map(|(service, percent)| {
            let mut told = of_service(service, seen, &figures);
            told["percent"] = percent.into();
            told
        })
        .collect::<Vec<Value>>()
        .into();
    told["mirror"] = route.mirror.map_or(
        Value::Null,
        |mirror| json!({"service": name(plan, mirror.service), "percent": mirror.percent}),
    );
    told
}

/// A sentence about a route and a request.
fn why(rule: Option<&Rule>, standing: Option<Standing<'_>>) -> String {
    let Some((rule, standing)) = rule.zip(standing) else { return String::new() };
    match standing {
        Standing::Taken => "it takes the request".to_owned(),
        Standing::Host => format!("it is for the host {}", host(&rule.host)),
        Standing::Path => match &rule.path {
            PathRule::Exact(path) => format!("it is for the path {path} alone"),
            PathRule::Prefix(path) => format!("it is for {path} and paths below"),
        },
        Standing::Method => format!("it is for {}", rule.methods.join(", ")),
        Standing::Field(lacking) => format!("the request lacks the header `{}`", field(lacking)),
        Standing::OtherHost => {
            "the host has routes of its own, and what they do not take goes nowhere else".to_owned()
        }
        Standing::Behind => {
            "another route that takes the request is more specific, or stands before it".to_owned()
        }
    }
}

fn of_service(service: &ServicePlan, seen: &Seen<'_>, figures: &[EndpointFigures]) -> Value {
    let figure = |figure: fn(&proxy::ServiceMeters) -> u64, largest| {
        let all = seen.meters.services(figure, largest);
        all.into_iter().find(|(name, _)| *name == service.name).map_or(0, |(_, value)| value)
    };
    let shed = SHED.map(|(class, of)| (class.word().to_owned(), Value::from(figure(of, false))));
    let shed: serde_json::Map<String, Value> = shed.into_iter().collect();
    let breaker = ["closed", "half-open", "open"];
    let state = figure(|meters| meters.breaker.get(), true) as usize;
    let mut endpoints: Vec<Value> = (service.endpoints.iter())
        .map(|one| {
            let known = figures.iter().find(|other| is_of(other, service, one.address));
            let (takes, why) = standing(known);
            json!({"address": one.address.to_string(), "weight": one.weight, "in": takes, "why": why})
        })
        .collect();
    if service.discovered {
        add_registered(service, seen.view, &mut endpoints);
    }
    json!({
        "service": service.name,
        "policy": policy(service),
        "breaker": breaker.get(state).copied().unwrap_or("open"),
        "under_way": figure(|meters| meters.requests.get(), false),
        "limit": figure(|meters| meters.limit.get(), false),
        "adaptive": service.options.adaptive.is_some(),
        "waiting": figure(|meters| meters.waiting.get(), false),
        "shed": shed,
        "endpoints": endpoints,
    })
}

fn is_of(figures: &EndpointFigures, service: &ServicePlan, address: SocketAddr) -> bool {
    figures.service == service.name && figures.address == address.to_string()
}

/// Whether requests go to an endpoint, and why.
fn standing(figures: Option<&EndpointFigures>) -> (bool, String) {
    let Some(figures) = figures else { return (true, "it has had no request yet".to_owned()) };
    let [tries, failures, _] = figures.counts;
    let told = format!("{failures} of {tries} tries failed, {} are under way", figures.under_way);
    match figures.out {
        (0, _) => (true, told),
        (out, threads) if out < threads => {
            (true, format!("{told}; {out} of {threads} threads leave it out for a while"))
        }
        _ => (false, format!("it is left out for a while, because it failed too often: {told}")),
    }
}

/// Says who the endpoints of a registered service are, and which instances are none.
fn add_registered(service: &ServicePlan, view: Option<&View>, endpoints: &mut Vec<Value>) {
    let entries = view.and_then(|view| view.service(&service.name));
    for entry in entries.iter().flat_map(|service| &service.entries) {
        let (id, node) = (entry.instance.id.as_str(), entry.host.node.name.as_str());
        let (address, why) = match judged(entry) {
            Ok(endpoint) => {
                let known = endpoints.iter_mut().find(|one| one["address"] == endpoint.address.to_string());
                if let Some(known) = known {
                    (known["instance"], known["node"]) = (id.into(), node.into());
                    continue;
                }
                (endpoint.address.to_string(), "the proxy has not heard of it yet".to_owned())
            }
            Err(why) => (format!("{}:{}", entry.address(), entry.port()), why.to_owned()),
        };
        endpoints.push(json!({
            "address": address, "weight": entry.weight(), "in": false, "why": why, "instance": id, "node": node,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, Sources};

    fn plan(text: &str) -> Plan {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("archipel.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = Loaded::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        crate::proxy::plan(&loaded, 1).unwrap()
    }

    const TEXT: &str = "[[proxy.listener]]\nname = \"web\"\n\
        [[proxy.service]]\nname = \"one\"\nendpoints = [\"127.0.0.1:1\", \"127.0.0.1:2 3\"]\n\
        [[proxy.service]]\nname = \"two\"\nendpoints = \"127.0.0.1:3\"\n\
        [[proxy.route]]\nservice = [\"one 3\", \"two\"]\nname = \"api\"\npath = \"/api\"\nrewrite = \"/v2\"\nmirror = \"two 5\"\n\
        [[proxy.route]]\nservice = \"two\"\nname = \"beta\"\npath = \"/api\"\nheaders = \"x-beta: yes\"\nmethods = \"PUT\"\n";

    fn asked(plan: &Plan, query: &str) -> Value {
        let meters = Meters::default();
        effective(plan, 7, &Asked::of(query).unwrap(), &Seen { meters: &meters, view: None })
    }

    #[test]
    fn a_request_is_told_its_route_its_services_and_why_not_the_others() {
        let plan = plan(TEXT);
        let told = asked(&plan, "path=%2Fapi%2Fx%3Fy&host=a");
        assert_eq!((&told["route"], &told["path"]), (&json!("api"), &json!("/v2/x?y")));
        assert_eq!(
            (&told["services"][0]["percent"], &told["services"][1]["service"]),
            (&json!(75.0), &json!("two"))
        );
        let second = &told["services"][0]["endpoints"][1];
        assert_eq!(
            (&second["address"], &second["weight"], &second["in"]),
            (&json!("127.0.0.1:2"), &json!(3), &json!(true))
        );
        assert_eq!(told["mirror"], json!({"service": "two", "percent": 5}));
        assert_eq!(told["considered"][1]["why"], "it is for PUT");
        let told = asked(&plan, "method=PUT&path=/api&header=X-Beta:%20yes");
        assert_eq!(told["route"], "beta");
        assert_eq!(told["considered"][0]["taken"], false);
        let told = asked(&plan, "method=PUT&path=/api&header=X-Beta:no");
        assert_eq!(
            (&told["route"], &told["considered"][1]["why"]),
            (&json!("api"), &json!("the request lacks the header `x-beta: yes`"))
        );
        let told = asked(&plan, "path=/apix");
        assert_eq!((&told["route"], &told["answer"]["status"]), (&Value::Null, &json!(404)));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        for (query, expected) in [
            ("path=api", "does not begin with a slash"),
            ("host=%zz", "`host` is no text"),
            ("hots=a", "there is no `hots`"),
        ] {
            let refused = Asked::of(query).err().unwrap();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn the_routes_are_told_as_they_are_followed() {
        let told = routes(&plan(TEXT), 3);
        assert_eq!(told["generation"], 3);
        assert_eq!(told["routes"][1]["headers"], json!(["x-beta: yes"]));
        assert_eq!((&told["routes"][0]["host"], &told["routes"][0]["path"]), (&json!("*"), &json!("/api")));
        assert_eq!(told["services"][0]["policy"], "peak-ewma");
        assert_eq!(told["listeners"][0]["protocol"], "http");
    }

    #[test]
    fn an_endpoint_is_out_when_all_threads_leave_it_out() {
        let figures = |out| EndpointFigures {
            service: "a".into(),
            address: "b".into(),
            counts: [9, 5, 0],
            under_way: 2,
            out,
            micros: telemetry::Distribution::default(),
        };
        assert!(standing(None).0 && standing(Some(&figures((0, 2)))).0 && standing(Some(&figures((1, 2)))).0);
        let (takes, why) = standing(Some(&figures((2, 2))));
        assert!(!takes && why.contains("5 of 9 tries failed"), "{why}");
    }
}
