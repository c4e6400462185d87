//! `archipel node status`: asks the admin port and prints what it tells.

use anyhow::{Context, Result};
use serde_json::Value;
use server::config::Loaded;

use crate::admin::{SECONDS_MAX, ask};
use crate::exit::Exit;

/// Prints it. Fails if no node answers or it does not serve.
pub fn run(loaded: &Loaded, as_json: bool) -> Result<Exit> {
    let address = loaded.config.admin_address();
    let body = ask(address, "GET", "/status", SECONDS_MAX)?.good()?;
    let status: Value = serde_json::from_str(&body).context("the node's answer is not JSON")?;
    if as_json {
        println!("{body}");
    } else {
        print!("{}", table(&status));
    }
    Ok(if status["state"] == "serving" { Exit::Holds } else { Exit::Fails })
}

fn table(status: &Value) -> String {
    let text = |name: &str| match &status[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let micros = |name: &str| format!("p50 {} µs, p99 {} µs", status[name]["p50"], status[name]["p99"]);
    let rows = [
        ("state", text("state")),
        ("version", format!("{}, process {}", text("version"), text("pid"))),
        ("up", format!("{} s", number("uptime_seconds"))),
        ("memory", size(number("memory_bytes"))),
        ("clients", format!("{} ({} since the start)", number("clients"), number("clients_accepted"))),
        ("commands", text("commands")),
        ("turns", micros("turn_micros")),
        ("syncs", micros("sync_micros")),
        ("log", size(number("log_bytes"))),
        ("directory", size(number("directory_bytes"))),
        ("checkpoints", text("checkpoints")),
    ];
    let mut out = String::new();
    for (name, value) in rows {
        out.push_str(&format!("{name:<12} {value}\n"));
    }
    for (name, trouble) in [
        ("log_refusing", "the log refuses writes: the disk is full or above its quota, or it failed"),
        ("checkpoint_failed", "the last checkpoint failed; the log grows until one succeeds"),
    ] {
        if status[name] == true {
            out.push_str(&format!("{:<12} {trouble}\n", "trouble"));
        }
    }
    out.push_str(&keyspaces(status));
    out
}

fn keyspaces(status: &Value) -> String {
    let Some(all) = status["keyspaces"].as_array() else { return String::new() };
    let number = |one: &Value, name: &str| one[name].as_u64().unwrap_or_default();
    let used: Vec<&Value> = all.iter().filter(|one| number(one, "keys") > 0).collect();
    if used.is_empty() {
        return "keyspaces    all empty\n".to_owned();
    }
    let mut out = format!(
        "\n{:>3}  {:<16} {:>10} {:>12} {:>12} {:>12}\n",
        "id", "keyspace", "partitions", "keys", "expiring", "memory"
    );
    for one in used {
        let name = one["name"].as_str().unwrap_or_default();
        out.push_str(&format!(
            "{:>3}  {name:<16} {:>10} {:>12} {:>12} {:>12}\n",
            number(one, "id"),
            number(one, "partitions"),
            number(one, "keys"),
            number(one, "expiring"),
            size(number(one, "memory_bytes")),
        ));
    }
    out
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_for_people() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (bytes, expected) in table {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn trouble_is_told() {
        let healthy = serde_json::json!({"state": "serving", "log_refusing": false});
        assert!(!table(&healthy).contains("trouble"));
        let refusing = serde_json::json!({"state": "serving", "log_refusing": true});
        assert!(table(&refusing).contains("refuses writes"));
    }
}
