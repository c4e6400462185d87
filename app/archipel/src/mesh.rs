//! `archipel mesh`: the services that a running node knows, and registering one, over its port for Consul's clients; its
//! proxy's routes and figures, and what all members' proxies should do, over the admin port.

mod desired;
mod proxied;
mod top;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::options::Options;

use self::desired::{ApplyArgs, RollbackArgs, SettingsArgs};
use self::proxied::EffectiveArgs;
use self::top::TopArgs;

/// How long the node may take to answer.
const SECONDS_MAX: u64 = 20;
/// Longest answer that is taken, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// What is done with services.
#[derive(Subcommand, Clone, Debug)]
pub enum MeshCommand {
    /// Print the services that are registered at any member, with how many instances are well.
    #[command(after_help = "\
Examples:
  archipel mesh services
  archipel mesh services --json | jq -r '.services[].name'

The node needs services.enabled = true.")]
    Services,
    /// Print the instances of a service, one a line.
    #[command(after_help = "\
Examples:
  archipel mesh instances web
  archipel mesh instances web --passing --json

Exit code 1 if there is none.")]
    Instances {
        /// The service.
        service: String,
        /// Only those that are passing.
        #[arg(long)]
        passing: bool,
    },
    /// Register an instance at this node, or replace it. It is found when this returns.
    #[command(after_help = "\
Examples:
  archipel mesh register web --port 8080 --check-http http://127.0.0.1:8080/health
  archipel mesh register db --id db1 --address 10.0.0.7 --port 5432 --check-tcp 10.0.0.7:5432
  archipel mesh register worker --check-ttl 30s                        renew it with
  curl -X PUT 127.0.0.1:8500/v1/agent/check/pass/service:worker")]
    Register(RegisterArgs),
    /// Take an instance of this node back.
    #[command(after_help = "\
Examples:
  archipel mesh deregister db1")]
    Deregister {
        /// Its id; the name of its service, if it was registered without one.
        id: String,
    },
    /// Have nobody sent to an instance of this node, or to all of it, and leave it registered.
    #[command(after_help = "\
Examples:
  archipel mesh drain db1 --reason upgrade
  archipel mesh drain --node
  archipel mesh drain db1 --end")]
    Drain {
        /// Its id.
        #[arg(required_unless_present = "node", conflicts_with = "node")]
        id: Option<String>,
        /// All instances of the node.
        #[arg(long)]
        node: bool,
        /// Let it serve again.
        #[arg(long)]
        end: bool,
        /// Why, for who looks.
        #[arg(long, default_value = "drained")]
        reason: String,
    },
    /// Print the proxy's routes as they are followed, in the order of the configuration.
    #[command(after_help = "\
Examples:
  archipel mesh routes
  archipel mesh routes --json | jq '.services[].endpoints'")]
    Routes,
    /// Tell what a request to the proxy would come to: its route, services and endpoints, and with --explain why.
    #[command(after_help = "\
Examples:
  archipel mesh effective /api/users
  archipel mesh effective https://shop.example.org/cart -X POST -H 'x-beta: yes' --explain

Exit code 1 if no route takes it.")]
    Effective(EffectiveArgs),
    /// Have the proxies of all members follow a file, from one moment on and without losing a request.
    #[command(after_help = "\
Examples:
  archipel mesh apply shop.toml --dry-run
  archipel mesh apply shop.toml --if-revision 6 --by ann
  archipel mesh settings --toml | sed 's/tries = 2/tries = 3/' | archipel mesh apply -

A file has [[proxy.listener]], [[proxy.service]] and [[proxy.route]], as in archipel.toml, and says
all of them: what it does not have is no more. Without a listener each node listens where its own
file says. A member that cannot follow it stays with what it had, and `archipel mesh settings` says
why.

Exit code 1 if it was refused, or a member that is up cannot follow it; 2 if the file is wrong.")]
    Apply(ApplyArgs),
    /// Print the settings of all members' proxies that are in force, their revision, and who follows it.
    #[command(after_help = "\
Examples:
  archipel mesh settings
  archipel mesh settings --toml > shop.toml
  archipel mesh settings --json | jq -r '.nodes[] | select(.state != \"follows\") | .why'

As long as there is no revision, each node does what [proxy] of its own file says.")]
    Settings(SettingsArgs),
    /// Have the proxies of all members follow again what an earlier revision said.
    #[command(after_help = "\
Examples:
  archipel mesh rollback 5 --dry-run
  archipel mesh rollback 5
  archipel mesh rollback 0        each node does what its own file says

It makes another revision, which says the same.")]
    Rollback(RollbackArgs),
    /// Show requests/s, errors and p99 of the proxy's routes, services and endpoints.
    #[command(after_help = "\
Examples:
  archipel mesh top
  archipel mesh top --interval 10 --count 6 --json

On a terminal it goes on until it is interrupted; otherwise it prints once.")]
    Top(TopArgs),
}

/// An instance.
#[derive(Args, Clone, Debug)]
pub struct RegisterArgs {
    /// The service.
    service: String,
    /// The instance's id; without one the name of the service.
    #[arg(long)]
    id: Option<String>,
    /// Where it is, if that is not the node's address.
    #[arg(long)]
    address: Option<String>,
    /// Its port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A tag; may be given several times.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// A pair of metadata, KEY=VALUE; may be given several times.
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// How often it is picked, compared with others.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    weight: u32,
    /// It is well when this URL answers 2xx.
    #[arg(long, value_name = "URL", conflicts_with_all = ["check_tcp", "check_ttl"])]
    check_http: Option<String>,
    /// It is well when this HOST:PORT takes connections.
    #[arg(long, value_name = "PLACE", conflicts_with = "check_ttl")]
    check_tcp: Option<String>,
    /// It is well as long as somebody says so within this time, such as 30s.
    #[arg(long, value_name = "TIME")]
    check_ttl: Option<String>,
    /// Time between two checks.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    interval: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "it is KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs the verb.
pub fn run(options: &Options, what: MeshCommand) -> Result<Exit, Failure> {
    let loaded = options.load().map_err(Failure::usage)?;
    let token = loaded.config.consul.own_token().map(|secret| secret.expose().to_owned());
    let (port, json) = (Port { address: loaded.config.consul_address(), token }, options.json);
    let admin = loaded.config.admin_address();
    Ok(match what {
        MeshCommand::Services => services(&port, json),
        MeshCommand::Instances { service, passing } => instances(&port, &service, passing, json),
        MeshCommand::Register(args) => register(&port, args, json),
        MeshCommand::Deregister { id } => port
            .put(&format!("/v1/agent/service/deregister/{}", encoded(&id)), None)
            .map(|()| told(json, &format!("{id} is registered no more"))),
        MeshCommand::Drain { id, node: _, end, reason } => drain(&port, id.as_deref(), end, &reason, json),
        MeshCommand::Routes => proxied::routes(admin, json),
        MeshCommand::Effective(args) => proxied::effective(admin, &args, json),
        MeshCommand::Apply(args) => return desired::apply(admin, &args, json),
        MeshCommand::Settings(args) => desired::settings(admin, &args, json),
        MeshCommand::Rollback(args) => return desired::rollback(admin, &args, json),
        MeshCommand::Top(args) => top::run(admin, &args, json),
    }?)
}

fn told(json: bool, text: &str) -> Exit {
    if json {
        println!("{}", json!({ "done": true }));
    } else {
        println!("{text}");
    }
    Exit::Holds
}

/// The node's port for Consul's clients.
struct Port {
    address: SocketAddr,
    /// What it is shown, if the configuration has tokens.
    token: Option<String>,
}

impl Port {
    fn get(&self, target: &str) -> Result<Value> {
        let body = self.ask("GET", target, "")?;
        serde_json::from_str(&body).context("the node's answer is not JSON")
    }

    fn put(&self, target: &str, body: Option<&Value>) -> Result<()> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.ask("PUT", target, &body).map(drop)
    }

    /// HTTP/1.0, so that the answer is not cut into chunks and ends with the connection.
    fn ask(&self, method: &str, target: &str, body: &str) -> Result<String> {
        let (address, limit) = (self.address, Duration::from_secs(SECONDS_MAX));
        let nobody = || {
            format!(
                "no node answers at http://{address}; is it started with services.enabled = true, and with which --port-offset?"
            )
        };
        let mut stream = TcpStream::connect_timeout(&address, limit).with_context(nobody)?;
        stream.set_read_timeout(Some(limit))?;
        let token =
            self.token.as_ref().map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: {address}\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.take(BYTES_MAX).read_to_string(&mut answer).with_context(nobody)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the node's answer breaks off")?;
        let code: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        if (200..300).contains(&code) {
            return Ok(body.to_owned());
        }
        let said = body.trim();
        if said.is_empty() { bail!("the node answered {code}") } else { bail!("{said}") }
    }
}

/// A word as it stands in a target.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

fn services(port: &Port, json: bool) -> Result<Exit> {
    let known = port.get("/v1/catalog/services")?;
    let mut list = Vec::new();
    for (name, tags) in known.as_object().into_iter().flatten() {
        let all = port.get(&format!("/v1/health/service/{}", encoded(name)))?;
        let mut by_health: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in all.as_array().into_iter().flatten() {
            *by_health.entry(health(entry)).or_default() += 1;
        }
        let count = |word: &str| by_health.get(word).copied().unwrap_or_default();
        let (passing, warning, critical) = (count("passing"), count("warning"), count("critical"));
        list.push(
            json!({"name": name, "tags": tags, "passing": passing, "warning": warning, "critical": critical}),
        );
    }
    if json {
        println!("{}", json!({ "services": list }));
        return Ok(Exit::Holds);
    }
    println!("{:<32}  {:>7}  {:>7}  {:>8}  tags", "service", "passing", "warning", "critical");
    for one in &list {
        let tags: Vec<&str> =
            one["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let name = text(one, "name");
        println!(
            "{name:<32}  {:>7}  {:>7}  {:>8}  {}",
            one["passing"],
            one["warning"],
            one["critical"],
            tags.join(",")
        );
    }
    Ok(Exit::Holds)
}

/// How an instance is: its worst check.
fn health(entry: &Value) -> &'static str {
    let is = |word: &str| {
        entry["Checks"].as_array().into_iter().flatten().any(|check| text(check, "Status") == word)
    };
    if is("critical") {
        "critical"
    } else if is("warning") {
        "warning"
    } else {
        "passing"
    }
}

fn instances(port: &Port, service: &str, passing: bool, json: bool) -> Result<Exit> {
    let only = if passing { "?passing=1" } else { "" };
    let all = port.get(&format!("/v1/health/service/{}{only}", encoded(service)))?;
    let list: Vec<Value> = (all.as_array().into_iter().flatten())
        .map(|entry| {
            let (node, it) = (&entry["Node"], &entry["Service"]);
            let own = text(it, "Address");
            json!({
                "id": it["ID"],
                "node": node["Node"],
                "address": if own.is_empty() { text(node, "Address") } else { own },
                "port": it["Port"],
                "health": health(entry),
                "weight": it["Weights"]["Passing"],
                "tags": it["Tags"],
                "meta": it["Meta"],
                "index": it["ModifyIndex"],
            })
        })
        .collect();
    let exit = if list.is_empty() { Exit::Fails } else { Exit::Holds };
    if json {
        println!("{}", json!({ "service": service, "instances": list }));
        return Ok(exit);
    }
    for one in &list {
        let place = format!("{}:{}", text(one, "address"), one["port"]);
        println!("{:<24}  {:<22}  {:<8}  {}", text(one, "id"), place, text(one, "health"), text(one, "node"));
    }
    if list.is_empty() {
        eprintln!("no instance of {service} is registered{}", if passing { " and passing" } else { "" });
    }
    Ok(exit)
}

fn register(port: &Port, args: RegisterArgs, json: bool) -> Result<Exit> {
    let check = match (&args.check_http, &args.check_tcp, &args.check_ttl) {
        (Some(url), _, _) => Some(json!({"HTTP": url, "Interval": args.interval})),
        (_, Some(place), _) => Some(json!({"TCP": place, "Interval": args.interval})),
        (_, _, Some(ttl)) => Some(json!({"TTL": ttl})),
        (None, None, None) => None,
    };
    let meta: BTreeMap<String, String> = args.meta.into_iter().collect();
    let id = args.id.unwrap_or_else(|| args.service.clone());
    let body = json!({
        "Name": args.service,
        "ID": id,
        "Address": args.address.unwrap_or_default(),
        "Port": args.port,
        "Tags": args.tags,
        "Meta": meta,
        "Weights": {"Passing": args.weight, "Warning": 1},
        "Check": check,
    });
    port.put("/v1/agent/service/register?replace-existing-checks=true", Some(&body))?;
    Ok(told(json, &format!("{id} is registered")))
}

fn drain(port: &Port, id: Option<&str>, end: bool, reason: &str, json: bool) -> Result<Exit> {
    let query = format!("enable={}&reason={}", !end, encoded(reason));
    let (target, what) = match id {
        Some(id) => (format!("/v1/agent/service/maintenance/{}?{query}", encoded(id)), id),
        None => (format!("/v1/agent/maintenance?{query}"), "the node"),
    };
    port.put(&target, None)?;
    Ok(told(json, &if end { format!("{what} serves again") } else { format!("{what} gets nobody any more") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_encoded_and_pairs_are_divided() {
        assert_eq!(encoded("a b/ü"), "a%20b%2F%C3%BC");
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err());
    }

    #[test]
    fn an_instance_is_as_its_worst_check() {
        let of = |words: &[&str]| json!({"Checks": words.iter().map(|word| json!({"Status": word})).collect::<Vec<_>>()});
        assert_eq!(health(&of(&["passing", "warning", "critical"])), "critical");
        assert_eq!(health(&of(&["passing", "warning"])), "warning");
        assert_eq!(health(&of(&[])), "passing");
    }
}
