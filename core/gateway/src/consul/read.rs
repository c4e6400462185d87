//! Registrations as Consul's clients write them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mesh::health::{Definition, How, INTERVAL_MS_MIN, TIMEOUT_MS_MAX};
use mesh::registry::{Health, Instance, Weights};

use super::Refused;
use super::json::Json;

/// Nanoseconds of a duration such as `1m30s`, or a number of nanoseconds, in milliseconds. Below one is one.
pub fn millis(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(nanos) = text.parse::<u64>() {
        return Some(nanos.div_ceil(1_000_000));
    }
    let (mut rest, mut nanos) = (text, 0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        nanos += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    let millis = nanos / 1e6;
    // Beyond a century nothing is meant; a fraction counts as one.
    if millis > 3.2e12 { None } else { Some(if millis > 0.0 && millis < 1.0 { 1 } else { millis as u64 }) }
}

fn text(of: &Json, key: &'static str) -> Result<String, Refused> {
    match of.get(key) {
        None => Ok(String::new()),
        Some(Json::Text(text)) => Ok(text.clone()),
        Some(_) => Err(Refused::bad(format!("{key} must be a text"))),
    }
}

fn number(of: &Json, key: &'static str, most: u64) -> Result<Option<u64>, Refused> {
    match of.get(key) {
        None => Ok(None),
        Some(Json::Int(number)) if (0..=i64::try_from(most).unwrap_or(i64::MAX)).contains(number) => {
            Ok(Some(number.unsigned_abs()))
        }
        Some(_) => Err(Refused::bad(format!("{key} must be a number from 0 to {most}"))),
    }
}

fn duration(of: &Json, key: &'static str) -> Result<Option<u64>, Refused> {
    let wrong = || Refused::bad(format!("{key} must be a duration such as 10s"));
    match of.get(key) {
        None => Ok(None),
        Some(Json::Text(text)) if text.is_empty() => Ok(None),
        Some(Json::Text(text)) => millis(text).map(Some).ok_or_else(wrong),
        Some(Json::Int(nanos)) => {
            u64::try_from(*nanos).map(|nanos| Some(nanos.div_ceil(1_000_000))).map_err(|_| wrong())
        }
        Some(_) => Err(wrong()),
    }
}

fn texts(of: &Json, key: &'static str) -> Result<Vec<String>, Refused> {
    let wrong = || Refused::bad(format!("{key} must be a list of texts"));
    match of.get(key) {
        None => Ok(Vec::new()),
        Some(Json::List(list)) => {
            list.iter().map(|it| it.text().map(String::from).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn pairs(of: &Json, key: &'static str) -> Result<BTreeMap<String, String>, Refused> {
    let wrong = || Refused::bad(format!("{key} must be an object of texts"));
    match of.get(key) {
        None => Ok(BTreeMap::new()),
        Some(Json::Object(pairs)) => pairs
            .iter()
            .map(|(key, it)| Ok((key.clone(), it.text().ok_or_else(wrong)?.to_string())))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// A service and its checks.
///
/// # Errors
/// What is wrong with it, or not offered.
pub fn service(of: &Json) -> Result<(Instance, Vec<Definition>), Refused> {
    if !matches!(of, Json::Object(_)) {
        return Err(Refused::bad("a service is a JSON object"));
    }
    let service = if of.get("Name").is_some() { text(of, "Name")? } else { text(of, "Service")? };
    if service.is_empty() {
        return Err(Refused::bad("Missing service name"));
    }
    for key in ["Connect", "Proxy"] {
        if of.get(key).is_some_and(|it| *it != Json::Object(Vec::new())) {
            return Err(Refused::not_offered(format!("{key} of a service: there are no sidecars here")));
        }
    }
    let kind = text(of, "Kind")?;
    if !kind.is_empty() {
        return Err(Refused::not_offered(format!("services of kind {kind}")));
    }
    let mut id = text(of, "ID")?;
    if id.is_empty() {
        id.clone_from(&service);
    }
    let mut weights = Weights::default();
    if let Some(given) = of.get("Weights") {
        let weight =
            |key, usual: u32| Ok::<u32, Refused>(number(given, key, 65_535)?.map_or(usual, |it| it as u32));
        weights = Weights { passing: weight("Passing", 1)?, warning: weight("Warning", 1)? };
    }
    let port = number(of, "Port", 65_535)?.unwrap_or(0) as u16;
    let (tags, meta) = (texts(of, "Tags")?, pairs(of, "Meta")?);
    let address = text(of, "Address")?;
    let instance = Instance { id, service, address, port, tags, meta, weights, checks: Vec::new() };
    let mut checks = Vec::new();
    let many = match of.get("Checks") {
        None => &[][..],
        Some(Json::List(list)) => list,
        Some(_) => return Err(Refused::bad("Checks must be a list")),
    };
    for (at, given) in of.get("Check").into_iter().chain(many).enumerate() {
        // Consul's own names for checks that have none.
        let single = if many.len() + usize::from(of.get("Check").is_some()) == 1 {
            format!("service:{}", instance.id)
        } else {
            format!("service:{}:{}", instance.id, at + 1)
        };
        let mut definition = check(given, &single)?.1;
        if definition.name == definition.id {
            definition.name = format!("Service '{}' check", instance.service);
        }
        checks.push(definition);
    }
    Ok((instance, checks))
}

/// A check, and the id of the service that it is of.
///
/// # Errors
/// What is wrong with it, or not offered.
pub fn check(of: &Json, usual_id: &str) -> Result<(String, Definition), Refused> {
    if !matches!(of, Json::Object(_)) {
        return Err(Refused::bad("a check is a JSON object"));
    }
    for (key, why) in [
        ("Args", "checks that start programs: a registration over the network would run them"),
        ("Script", "checks that start programs: a registration over the network would run them"),
        ("DockerContainerID", "checks within containers"),
        ("UDP", "UDP checks"),
        ("H2PING", "HTTP/2 ping checks"),
        ("OSService", "checks of the system's services"),
        ("AliasNode", "checks that follow another node's service"),
    ] {
        if of.get(key).is_some_and(|it| *it != Json::from("") && *it != Json::List(Vec::new())) {
            return Err(Refused::not_offered(why.to_string()));
        }
    }
    let service = text(of, "ServiceID")?;
    let mut id = text(of, "CheckID")?;
    if id.is_empty() {
        id = text(of, "ID")?;
    }
    let name = text(of, "Name")?;
    if id.is_empty() {
        id = if usual_id.is_empty() { name.clone() } else { usual_id.to_string() };
    }
    if id.is_empty() {
        return Err(Refused::bad("Missing check name"));
    }
    let how = how(of)?;
    let interval = duration(of, "Interval")?;
    let status = match text(of, "Status")?.as_str() {
        "" => Health::Critical,
        word => {
            Health::of_word(word).ok_or_else(|| Refused::bad(format!("{word:?} is no status of a check")))?
        }
    };
    if interval.is_none() && matches!(how, How::Http { .. } | How::Tcp { .. } | How::Grpc { .. }) {
        return Err(Refused::bad("Interval must be > 0 for HTTP, TCP and gRPC checks"));
    }
    let interval_ms = interval.unwrap_or(10_000).max(INTERVAL_MS_MIN);
    let timeout_ms = duration(of, "Timeout")?.filter(|ms| *ms > 0).unwrap_or(10_000).min(TIMEOUT_MS_MAX);
    let run = |key| Ok::<u32, Refused>(number(of, key, 100)?.map_or(1, |it| it as u32).max(1));
    let definition = Definition {
        name: if name.is_empty() { id.clone() } else { name },
        id,
        notes: text(of, "Notes")?,
        how,
        interval_ms,
        timeout_ms,
        rise: run("SuccessBeforePassing")?,
        fall: run("FailuresBeforeCritical")?,
        deregister_ms: duration(of, "DeregisterCriticalServiceAfter")?.unwrap_or(0),
        status,
    };
    Ok((service, definition))
}

fn how(of: &Json) -> Result<How, Refused> {
    let is_set = |key: &str| of.get(key).is_some_and(|it| *it != Json::from(""));
    if is_set("HTTP") {
        let url = text(of, "HTTP")?;
        if url.starts_with("https://") {
            return Err(Refused::not_offered("HTTPS checks".to_string()));
        }
        let mut headers = Vec::new();
        if let Some(Json::Object(pairs)) = of.get("Header") {
            for (name, values) in pairs {
                let Json::List(values) = values else {
                    return Err(Refused::bad("Header must be an object of lists"));
                };
                headers.extend(
                    values.iter().filter_map(|value| Some((name.clone(), value.text()?.to_string()))),
                );
            }
        }
        let method = text(of, "Method")?;
        let method = if method.is_empty() { "GET".to_string() } else { method.to_ascii_uppercase() };
        return Ok(How::Http { url, method, headers, body: text(of, "Body")? });
    }
    if is_set("TCP") {
        return Ok(How::Tcp { address: text(of, "TCP")? });
    }
    if is_set("GRPC") {
        if of.get("GRPCUseTLS") == Some(&Json::Bool(true)) {
            return Err(Refused::not_offered("gRPC checks with TLS".to_string()));
        }
        return Ok(How::Grpc { address: text(of, "GRPC")? });
    }
    if of.get("AliasService").is_some() {
        return Ok(How::Alias { service: text(of, "AliasService")? });
    }
    match duration(of, "TTL")? {
        Some(ttl_ms) if ttl_ms > 0 => Ok(How::Ttl { ttl_ms }),
        Some(_) | None => Err(Refused::bad("a check has one of HTTP, TCP, GRPC, TTL and AliasService")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        #[rustfmt::skip] // columns
        let table = [
            ("10s", Some(10_000)), ("1m30s", Some(90_000)), ("1.5s", Some(1500)), ("250ms", Some(250)), ("1h", Some(3_600_000)),
            ("10us", Some(1)), ("1000000000", Some(1000)), ("0s", Some(0)), ("", None), ("s", None), ("10", Some(1)),
            ("10 s", None), ("-1s", None), ("1d", None), ("9999999999h", None),
        ];
        for (text, expected) in table {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn a_service_is_read_in_the_spellings_of_clients() {
        let text = br#"{"Name":"web","ID":"web1","tags":["a"],"Port":80,"Address":"10.0.0.1","meta":{"v":"1"},
            "Check":{"http":"http://10.0.0.1/","interval":"5s","timeout":"1s","DeregisterCriticalServiceAfter":"1m"},
            "weights":{"passing":3,"warning":1},"EnableTagOverride":false}"#;
        let (instance, checks) = service(&Json::parse(text).unwrap()).unwrap();
        assert_eq!((instance.id.as_str(), instance.service.as_str(), instance.port), ("web1", "web", 80));
        assert_eq!((instance.weights.passing, instance.tags.len(), instance.meta["v"].as_str()), (3, 1, "1"));
        let check = &checks[0];
        assert_eq!((check.id.as_str(), check.name.as_str()), ("service:web1", "Service 'web' check"));
        assert_eq!((check.interval_ms, check.timeout_ms, check.deregister_ms), (5000, 1000, 60_000));
    }

    #[test]
    fn what_is_wrong_is_400_and_what_is_not_offered_501() {
        #[rustfmt::skip] // columns
        let table = [
            (r#"{}"#,                                                    400),
            (r#"[]"#,                                                    400),
            (r#"{"Name":7}"#,                                            400),
            (r#"{"Name":"a","Port":65536}"#,                             400),
            (r#"{"Name":"a","Port":-1}"#,                                400),
            (r#"{"Name":"a","Tags":[1]}"#,                               400),
            (r#"{"Name":"a","Check":{}}"#,                               400),
            (r#"{"Name":"a","Check":{"TCP":"a:1"}}"#,                    400),
            (r#"{"Name":"a","Check":{"TTL":"soon"}}"#,                   400),
            (r#"{"Name":"a","Check":{"TTL":"1s","Status":"good"}}"#,     400),
            (r#"{"Name":"a","Kind":"connect-proxy"}"#,                   501),
            (r#"{"Name":"a","Connect":{"Native":true}}"#,                501),
            (r#"{"Name":"a","Check":{"Args":["x"],"Interval":"1s"}}"#,   501),
            (r#"{"Name":"a","Check":{"HTTP":"https://a/","Interval":"1s"}}"#, 501),
        ];
        for (text, code) in table {
            let refused = service(&Json::parse(text.as_bytes()).unwrap()).unwrap_err();
            assert_eq!(refused.code, code, "{text}");
        }
    }
}
