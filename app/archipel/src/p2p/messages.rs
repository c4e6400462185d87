//! Messages to one peer and to all, what arrives, and walks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::SILENT;
use super::{Shown, hex, nodes, text, unhex};
use crate::command::BroadcastVia;
use crate::exit::{Exit, Failure};
use crate::output::Stdout;

impl Shown {
    pub(super) fn send(&self, peer: &str, message: &[u8]) -> Result<Exit, Failure> {
        let wanted = json!({"to": peer, "value_hex": hex(message)});
        let answer = self.client.post("send", &wanted)?.last()?;
        let listeners = answer["result"]["listeners"].as_u64().unwrap_or_default();
        if self.json {
            println!("{}", answer["result"]);
        } else if listeners > 0 {
            let verb = if listeners == 1 { "has" } else { "have" };
            println!("{} at {peer} {verb} it", counted(listeners, "listener"));
        } else {
            eprintln!("{peer} took it, and nobody listens there; `archipel p2p listen` does, on that node");
        }
        Ok(if listeners > 0 { Exit::Holds } else { Exit::Fails })
    }

    pub(super) fn broadcast(&self, message: &[u8], via: BroadcastVia) -> Result<Exit, Failure> {
        let wanted = json!({"value_hex": hex(message), "via": via.name()});
        let answer = self.client.post("broadcast", &wanted)?.last()?;
        let neighbours = answer["result"]["neighbours"].as_u64().unwrap_or_default();
        if self.json {
            println!("{}", answer["result"]);
        } else if neighbours > 0 {
            println!("told to {}", counted(neighbours, "neighbour"));
        } else {
            match via {
                BroadcastVia::Flood => {
                    eprintln!("no neighbour takes broadcasts; `archipel p2p connect ADDRESS` makes one");
                }
                BroadcastVia::Gossip => {
                    eprintln!(
                        "no connected peer gossips; one does that was started with --set p2p.gossip=true"
                    );
                }
            }
        }
        Ok(if neighbours > 0 { Exit::Holds } else { Exit::Fails })
    }

    pub(super) fn listen(&self, count: Option<u64>) -> Result<Exit, Failure> {
        let mut lines = self.client.listen("listen", &json!({}))?;
        let mut left = count;
        while left != Some(0) {
            let line = super::client::checked(lines.next_line()?)?;
            let Some(heard) = line.get("heard") else {
                eprintln!("listening as {}", text(&line, "listening"));
                continue;
            };
            let shown = if self.json { heard.to_string() } else { sentence(heard) };
            writeln!(Stdout, "{shown}").and_then(|()| Stdout.flush()).map_err(anyhow::Error::from)?;
            left = left.map(|left| left - 1);
        }
        Ok(Exit::Holds)
    }

    pub(super) fn walk(&self, walkers: u8, steps: u16, content: Option<&str>) -> Result<Exit, Failure> {
        let wanted = json!({"walkers": walkers, "steps": steps, "content": content});
        let answer = self.client.patient("walk", &wanted, walk_limit(steps))?.last()?;
        let result = &answer["result"];
        if self.json {
            println!("{result}");
        } else {
            nodes(&result["nodes"]);
            if let Some(hops) = result["hops"].as_u64() {
                eprintln!("found after {hops} steps");
            }
        }
        if result["nodes"] != json!([]) {
            return Ok(Exit::Holds);
        }
        eprintln!("no walker came back with anything; more --walkers or more --steps may");
        Ok(Exit::Fails)
    }
}

/// How long a walk of so many steps may take: it ends when each of them, and each check, should have taken a second.
fn walk_limit(steps: u16) -> Duration {
    SILENT + Duration::from_secs(2 * u64::from(steps))
}

/// One line for what was heard: how it came, from whom, and what.
fn sentence(heard: &Value) -> String {
    let way = match (text(heard, "via"), heard["hops"].as_u64()) {
        ("flood", Some(hops)) => format!("broadcast over {hops} edges by way of"),
        ("gossip", _) => "broadcast by".to_owned(),
        _ => "message from".to_owned(),
    };
    let bytes = unhex(text(heard, "value_hex")).unwrap_or_default();
    format!("{way} {}: {}", text(heard, "from"), printable(&bytes))
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Text as it is; what a terminal could take for commands, and what is no text, escaped.
fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("text has room");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_waited_for_longer_than_it_may_take() {
        for steps in [1, 32, 100, 4096] {
            // The node's own deadline: a second for each step, for each check of one, and for the last word.
            let most = u64::from(steps) * 2 + 1;
            assert!(walk_limit(steps) > Duration::from_secs(most), "{steps}");
        }
        assert!(walk_limit(100) > SILENT);
    }

    #[test]
    fn what_arrives_cannot_command_the_terminal() {
        #[rustfmt::skip] // columns
        let table: [(&[u8], &str); 4] = [
            ("späte Fähre".as_bytes(), "späte Fähre"),
            (b"a\x1b[2Jb",             "a\\u{1b}[2Jb"),
            (b"two\nlines",            "two\\nlines"),
            (b"\xff\x00",              "\\xff\\u{0}"),
        ];
        for (bytes, shown) in table {
            assert_eq!(printable(bytes), shown);
        }
        let heard = json!({"from": "P", "via": "flood", "hops": 3, "value_hex": "6869"});
        assert_eq!(sentence(&heard), "broadcast over 3 edges by way of P: hi");
        assert_eq!(
            sentence(&json!({"from": "P", "via": "direct", "value_hex": "6869"})),
            "message from P: hi"
        );
    }
}
