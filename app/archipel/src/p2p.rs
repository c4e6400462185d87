//! `archipel p2p`: asks the overlay of a running node, over its admin port.

mod client;
mod messages;

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};
use server::config::Loaded;

use self::client::Client;
use crate::command::{OverlayKind, P2pCommand, TraceWhat};
use crate::exit::{Exit, Failure};
use crate::options::Options;
use crate::output::Stdout;

/// Largest value that is read from stdin, in bytes; the node's own limit is lower.
const VALUE_BYTES_MAX: u64 = 16 * 1024;

/// Runs the verb.
pub fn run(options: &Options, what: P2pCommand) -> Result<Exit, Failure> {
    let loaded = options.load().map_err(Failure::usage)?;
    let shown = Shown { client: client(&loaded), json: options.json };
    match what {
        P2pCommand::Id => shown.id(),
        P2pCommand::Peers => shown.peers(),
        P2pCommand::Ping { peer } => shown.reach("ping", &peer, |result| {
            let millis = result["micros"].as_u64().unwrap_or_default() as f64 / 1000.0;
            format!("{} answered in {millis:.3} ms", text(result, "peer"))
        }),
        P2pCommand::Connect { address } => {
            shown.reach("connect", &address, |result| format!("connected to {}", text(result, "peer")))
        }
        P2pCommand::Disconnect { peer } => {
            shown.reach("disconnect", &peer, |result| format!("disconnected from {}", text(result, "peer")))
        }
        P2pCommand::Send { peer, message } => shown.send(&peer, &given(message)?),
        P2pCommand::Broadcast { message, via } => shown.broadcast(&given(message)?, via),
        P2pCommand::Listen { count } => shown.listen(count),
        P2pCommand::Walk { walkers, steps, content } => shown.walk(walkers, steps, content.as_deref()),
        P2pCommand::Find { peer, overlay } => {
            shown.seek("find", &json!({"peer": peer, "overlay": overlay.name()}), |result| {
                find(result, overlay)
            })
        }
        P2pCommand::Get { name, overlay } => {
            shown.seek("get", &json!({"name": name, "overlay": overlay.name()}), get)
        }
        P2pCommand::Put { name, value, lifetime_seconds, overlay } => {
            let wanted = json!({
                "name": name,
                "value_hex": hex(&given(value)?),
                "lifetime_seconds": lifetime_seconds,
                "overlay": overlay.name(),
            });
            shown.seek("put", &wanted, |result| {
                let keeps = match (&result["stored"], overlay) {
                    (stored, _) if *stored == 1 => "1 node keeps it".to_owned(),
                    (stored, OverlayKind::Kad) => format!("{stored} nodes keep it"),
                    (stored, OverlayKind::Chord) => {
                        format!("{stored} nodes keep it, and another copy may follow")
                    }
                };
                Ok(say(format!("{}\n{keeps}", text(result, "name"))))
            })
        }
        P2pCommand::Provide { name } => shown.seek("provide", &json!({"name": name}), |result| {
            Ok(say(format!("{}\n{} nodes were told", text(result, "name"), result["told"])))
        }),
        P2pCommand::Providers { name } => shown.seek("providers", &json!({"name": name}), |result| {
            nodes(&result["providers"]);
            Ok(if result["providers"] == json!([]) { Exit::Fails } else { Exit::Holds })
        }),
        P2pCommand::Trace { name, what, overlay } => shown.trace(&name, what, overlay),
    }
}

fn client(loaded: &Loaded) -> Client {
    Client { address: loaded.config.admin_address() }
}

/// Asks, and shows the answer.
struct Shown {
    client: Client,
    json: bool,
}

impl Shown {
    fn id(&self) -> Result<Exit, Failure> {
        let status = self.client.get("/p2p")?;
        if self.json {
            println!(
                "{}",
                json!({"peer": status["peer"], "addresses": status["addresses"], "reachable": status["reachable"]})
            );
            return Ok(Exit::Holds);
        }
        println!("{}", text(&status, "peer"));
        for address in strings(&status["addresses"]) {
            // An address at a relay names the node itself already.
            let whole = address.ends_with(text(&status, "peer"));
            println!(
                "{address}{}",
                if whole { String::new() } else { format!("/p2p/{}", text(&status, "peer")) }
            );
        }
        eprintln!("reachable: {}", text(&status, "reachable"));
        Ok(Exit::Holds)
    }

    fn peers(&self) -> Result<Exit, Failure> {
        let status = self.client.get("/p2p")?;
        if self.json {
            println!("{status}");
            return Ok(Exit::Holds);
        }
        let size =
            status["network_size"].as_f64().map_or("too few to tell".to_owned(), |size| format!("{size:.0}"));
        println!("contacts      {}", status["contacts"]);
        println!("known         {}", status["known"]);
        println!("values kept   {} ({} bytes)", status["values"], status["value_bytes"]);
        println!("network size  {size}");
        println!("ring          {}", ring(&status["ring"]));
        for peer in status["connected"].as_array().into_iter().flatten() {
            let serves = match peer["serves"].as_bool() {
                Some(true) => "serves",
                Some(false) => "asks only",
                None => "unknown",
            };
            let address = strings(&peer["addresses"]).next().unwrap_or_default();
            let relayed = if peer["relayed"] == true { "  by a relay" } else { "" };
            println!("{}  {serves:<9}  {address}{relayed}", text(peer, "peer"));
        }
        Ok(Exit::Holds)
    }

    fn reach(&self, verb: &str, to: &str, show: impl Fn(&Value) -> String) -> Result<Exit, Failure> {
        let answer = self.client.post(verb, &json!({"to": to}))?.last()?;
        if self.json {
            println!("{}", answer["result"]);
        } else {
            println!("{}", show(&answer["result"]));
        }
        Ok(Exit::Holds)
    }

    /// A lookup: its questions are counted while it goes on, its result is shown.
    fn seek(
        &self,
        verb: &str,
        wanted: &Value,
        show: impl Fn(&Value) -> Result<Exit>,
    ) -> Result<Exit, Failure> {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(target);
        let mut lines = self.client.post(verb, wanted)?;
        let (mut asked, mut nearest) = (0, 0);
        let answer = loop {
            let line = lines.next_line()?;
            let Some(hop) = line.get("hop") else { break line };
            asked += 1;
            nearest = nearest.max(hop["shared_bits"].as_u64().unwrap_or_default());
            bar.set_message(format!("{asked} questions, nearest shares {nearest} bits"));
            bar.tick();
        };
        bar.finish_and_clear();
        let answer = client::checked(answer)?;
        if self.json {
            println!("{answer}");
            let nothing = answer["result"].is_null() || answer["result"]["found"] == false;
            return Ok(if nothing || answer["result"]["providers"] == json!([]) {
                Exit::Fails
            } else {
                Exit::Holds
            });
        }
        Ok(show(&answer["result"])?)
    }

    /// Every question of a lookup with its time and distance, as it is answered.
    fn trace(&self, name: &str, what: TraceWhat, overlay: OverlayKind) -> Result<Exit, Failure> {
        let overlay = overlay.name();
        let mut lines = match what {
            TraceWhat::Value => self.client.post("get", &json!({"name": name, "overlay": overlay}))?,
            TraceWhat::Node => self.client.post("find", &json!({"peer": name, "overlay": overlay}))?,
            TraceWhat::Providers => {
                self.client.post("providers", &json!({"name": name, "overlay": overlay}))?
            }
        };
        if !self.json {
            println!("{:>10}  {:>10}  {:>6}  {:<52}  end", "after ms", "took ms", "shared", "peer");
        }
        loop {
            let line = lines.next_line()?;
            let Some(hop) = line.get("hop") else {
                let answer = client::checked(line)?;
                if self.json {
                    println!("{answer}");
                } else {
                    let cost = &answer["cost"];
                    println!("{} hops, {} questions", cost["hops"], cost["asked"]);
                }
                return Ok(Exit::Holds);
            };
            if self.json {
                println!("{line}");
                continue;
            }
            let millis = |name: &str| hop[name].as_u64().unwrap_or_default() as f64 / 1000.0;
            let end = match hop["closer"].as_u64() {
                Some(closer) => format!("told of {closer}"),
                None => text(hop, "end").to_owned(),
            };
            println!(
                "{:>10.3}  {:>10.3}  {:>6}  {:<52}  {end}",
                millis("after_micros"),
                millis("took_micros"),
                hop["shared_bits"],
                text(hop, "peer"),
            );
        }
    }
}

/// The node's place on the ring.
fn ring(status: &Value) -> String {
    match status["successors"].as_u64() {
        None => "not entered (p2p.chord=false)".to_owned(),
        Some(0) => "alone".to_owned(),
        Some(successors) => {
            format!("{successors} successors, {} values ({} bytes)", status["values"], status["value_bytes"])
        }
    }
}

fn find(result: &Value, overlay: OverlayKind) -> Result<Exit> {
    nodes(&result["nodes"]);
    if result["found"] == true {
        return Ok(Exit::Holds);
    }
    match overlay {
        OverlayKind::Kad => {
            eprintln!("the peer itself was not found; these are the nearest to its place that answered");
        }
        OverlayKind::Chord => eprintln!("the peer itself is not on the ring; this node owns its place"),
    }
    Ok(Exit::Fails)
}

fn get(result: &Value) -> Result<Exit> {
    if result.is_null() {
        eprintln!("no valid value was found");
        return Ok(Exit::Fails);
    }
    let value = unhex(text(result, "value_hex")).context("the node's answer is damaged")?;
    Stdout.write_all(&value)?;
    if std::io::stdout().is_terminal() {
        writeln!(Stdout)?;
    }
    Ok(Exit::Holds)
}

fn nodes(list: &Value) {
    for node in list.as_array().into_iter().flatten() {
        let addresses: Vec<&str> = strings(&node["addresses"]).collect();
        println!("{}  {}", text(node, "peer"), addresses.join(" "));
    }
}

fn say(text: String) -> Exit {
    println!("{text}");
    Exit::Holds
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What was given, or what stdin has in its place.
fn given(text: String) -> Result<Vec<u8>> {
    if text == "-" { stdin() } else { Ok(text.into_bytes()) }
}

fn stdin() -> Result<Vec<u8>> {
    let mut value = Vec::new();
    std::io::stdin().lock().take(VALUE_BYTES_MAX + 1).read_to_end(&mut value)?;
    if value.len() as u64 > VALUE_BYTES_MAX {
        bail!("the value on stdin is longer than {VALUE_BYTES_MAX} bytes");
    }
    Ok(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}
