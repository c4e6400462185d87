//! `archipel mesh routes` and `effective`: the proxy of a running node as it is followed, over the admin port.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::{encoded, text};
use crate::admin::{SECONDS_MAX, ask};
use crate::exit::Exit;

/// A request that is asked about.
#[derive(Args, Clone, Debug)]
pub struct EffectiveArgs {
    /// Its path with its query, or a URL.
    target: String,
    /// Its method.
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// Its host, if that is not the URL's.
    #[arg(long)]
    host: Option<String>,
    /// A header, `NAME: VALUE`; may be given several times.
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// Say of each route and endpoint why it is taken or not.
    #[arg(long)]
    explain: bool,
}

/// Prints the routes that are followed, in the order of the configuration.
pub fn routes(address: SocketAddr, json: bool) -> Result<Exit> {
    let body = ask(address, "GET", "/proxy", SECONDS_MAX)?.good()?;
    if json {
        println!("{body}");
        return Ok(Exit::Holds);
    }
    let told: Value = serde_json::from_str(&body).context("the node's answer is not JSON")?;
    for line in route_lines(&told) {
        println!("{line}");
    }
    Ok(Exit::Holds)
}

fn list<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of[key].as_array().into_iter().flatten()
}

fn texts(of: &Value, key: &str) -> Vec<String> {
    list(of, key).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `shop`, or `shop 75 %, next 25 %`.
fn shares(of: &Value) -> String {
    let all: Vec<(&str, f64)> = list(of, "services")
        .map(|one| (text(one, "service"), one["percent"].as_f64().unwrap_or_default()))
        .collect();
    match all[..] {
        [(only, _)] => only.to_owned(),
        _ => {
            all.iter().map(|(name, percent)| format!("{name} {percent:.0} %")).collect::<Vec<_>>().join(", ")
        }
    }
}

fn route_lines(told: &Value) -> Vec<String> {
    let mut lines = vec![format!("{:<24}  {:<40}  {:<28}  more", "route", "host and path", "to")];
    for one in list(told, "routes") {
        let exact = if one["exact"] == true { " alone" } else { "" };
        let place = format!("{} {}{exact}", text(one, "host"), text(one, "path"));
        let mut more = texts(one, "methods");
        more.extend(texts(one, "headers"));
        if let Some(by) = one["rewrite"].as_str() {
            more.push(format!("as {by}"));
        }
        if one["mirror"].is_object() {
            more.push(format!(
                "copied to {} {} %",
                text(&one["mirror"], "service"),
                one["mirror"]["percent"]
            ));
        }
        lines.push(format!(
            "{:<24}  {place:<40}  {:<28}  {}",
            text(one, "route"),
            shares(one),
            more.join("; ")
        ));
    }
    lines
}

/// Prints what a request would come to. Fails if no route takes it.
pub fn effective(address: SocketAddr, args: &EffectiveArgs, json: bool) -> Result<Exit> {
    let body = ask(address, "GET", &page(args)?, SECONDS_MAX)?.good()?;
    let told: Value = serde_json::from_str(&body).context("the node's answer is not JSON")?;
    if json {
        println!("{body}");
    } else {
        for line in effective_lines(&told, args.explain) {
            println!("{line}");
        }
    }
    Ok(if told["route"].is_null() { Exit::Fails } else { Exit::Holds })
}

/// What the admin port is asked.
fn page(args: &EffectiveArgs) -> Result<String> {
    let (host, path) = match args.target.split_once("://") {
        None => ("", args.target.clone()),
        Some((_, rest)) => match rest.find(['/', '?']) {
            None => (rest, "/".to_owned()),
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
        },
    };
    if !path.starts_with('/') {
        bail!("`{}` is neither a path nor a URL; a path begins with a slash", args.target);
    }
    let host = args.host.as_deref().unwrap_or(host);
    let mut page = format!(
        "/proxy/effective?method={}&host={}&path={}",
        encoded(&args.method),
        encoded(host),
        encoded(&path)
    );
    for header in &args.headers {
        page.push_str(&format!("&header={}", encoded(header)));
    }
    Ok(page)
}

/// Which requests were not sent to spare a service, if any were.
fn shed(of: &Value) -> String {
    let known = ["high", "normal", "low"].map(|class| (of[class].as_u64().unwrap_or_default(), class));
    let told: Vec<String> = known
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, class)| format!("{count} {class}"))
        .collect();
    if told.is_empty() { String::new() } else { format!(", shed so far: {}", told.join(", ")) }
}

fn effective_lines(told: &Value, explain: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if told["route"].is_null() {
        lines.push(format!("no route takes it: it is answered {}", told["answer"]["status"]));
    } else {
        lines.push(format!("route     {}", text(told, "route")));
        lines.push(format!("path      {}", text(told, "path")));
    }
    for one in list(told, "services") {
        lines.push(format!(
            "service   {}, {:.0} % of requests, {}, breaker {}, {} under way of {}{}, {} waiting{}",
            text(one, "service"),
            one["percent"].as_f64().unwrap_or_default(),
            text(one, "policy"),
            text(one, "breaker"),
            one["under_way"],
            one["limit"],
            if one["adaptive"] == true { " as learnt" } else { "" },
            one["waiting"],
            shed(&one["shed"])
        ));
        for end in list(one, "endpoints") {
            let (mark, why) = (if end["in"] == true { "in " } else { "out" }, text(end, "why"));
            let who = end["instance"].as_str().map_or_else(String::new, |id| format!("  {id}"));
            let why = if explain { format!("  {why}") } else { String::new() };
            lines.push(format!("  {mark}  {:<24}  weight {}{who}{why}", text(end, "address"), end["weight"]));
        }
    }
    if told["mirror"].is_object() {
        let mirror = &told["mirror"];
        lines.push(format!("copied to {}, {} % of requests", text(mirror, "service"), mirror["percent"]));
    }
    if explain {
        lines.push("routes".to_owned());
        for one in list(told, "considered") {
            let mark = if one["taken"] == true { "->" } else { "  " };
            lines.push(format!("  {mark}  {:<24}  {}", text(one, "route"), text(one, "why")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(target: &str) -> EffectiveArgs {
        let (method, target) = ("GET".to_owned(), target.to_owned());
        EffectiveArgs { target, method, host: None, headers: Vec::new(), explain: false }
    }

    #[test]
    fn a_path_and_a_url_are_asked_about() {
        let asked = |args: &EffectiveArgs| page(args).map_err(|error| error.to_string());
        let of = |host: &str, path: &str| Ok(format!("/proxy/effective?method=GET&host={host}&path={path}"));
        assert_eq!(asked(&args("/a b?c")), of("", "%2Fa%20b%3Fc"));
        assert_eq!(asked(&args("https://a.example:8/x")), of("a.example%3A8", "%2Fx"));
        assert_eq!(asked(&args("http://a.example")), of("a.example", "%2F"));
        assert_eq!(asked(&args("http://a.example?x")), of("a.example", "%2F%3Fx"));
        assert!(asked(&args("a.example")).unwrap_err().contains("neither a path nor a URL"));
        let one = EffectiveArgs {
            host: Some("b".into()),
            headers: vec!["x: y".into(), "z".into()],
            ..args("http://a/")
        };
        assert_eq!(asked(&one), of("b", "%2F&header=x%3A%20y&header=z"));
    }

    #[test]
    fn what_is_told_is_printed_with_reasons_if_they_are_asked_for() {
        let told = json!({
            "route": "api", "path": "/v2", "mirror": null,
            "services": [{"service": "one", "percent": 75.0, "policy": "least", "breaker": "open", "under_way": 1,
                "limit": 8, "adaptive": true, "waiting": 2, "shed": {"high": 0, "normal": 3, "low": 4}, "endpoints": [
                    {"address": "10.0.0.1:80", "weight": 3, "in": true, "why": "well"},
                    {"address": "10.0.0.2:80", "weight": 1, "in": false, "why": "critical", "instance": "i"}]}],
            "considered": [{"route": "api", "taken": true, "why": "it takes it"}],
        });
        let plain = effective_lines(&told, false).join("\n");
        assert!(
            plain.contains("in   10.0.0.1:80")
                && plain.contains("out  10.0.0.2:80")
                && plain.contains(
                    "breaker open, 1 under way of 8 as learnt, 2 waiting, shed so far: 3 normal, 4 low"
                )
        );
        assert!(!plain.contains("critical") && !plain.contains("routes"), "{plain}");
        let explained = effective_lines(&told, true).join("\n");
        assert!(explained.contains("i  critical") && explained.contains("->  api"), "{explained}");
        let nobody = effective_lines(&json!({"route": null, "answer": {"status": 404}}), false);
        assert_eq!(nobody, ["no route takes it: it is answered 404"]);
    }

    #[test]
    fn routes_are_printed_one_a_line() {
        let told = json!({"routes": [
            {"route": "api", "host": "*", "path": "/api", "exact": true, "methods": ["GET"], "headers": ["x-beta"],
             "rewrite": "/v2", "mirror": {"service": "shadow", "percent": 5},
             "services": [{"service": "one", "percent": 75.0}, {"service": "two", "percent": 25.0}]}]});
        let lines = route_lines(&told);
        assert_eq!(lines.len(), 2);
        for part in ["* /api alone", "one 75 %, two 25 %", "GET; x-beta; as /v2; copied to shadow 5 %"] {
            assert!(lines[1].contains(part), "{}", lines[1]);
        }
    }
}
