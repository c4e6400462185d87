//! What a member tells of its cluster, as tables.

use serde_json::Value;

use super::member::short;

/// Width of a bar that shows how far a move has come.
const BAR_LETTERS: usize = 24;

/// Whether every partition has a leader and every member answers.
pub fn is_well(status: &Value) -> bool {
    let all = |name: &str, so: &dyn Fn(&Value) -> bool| {
        status[name].as_array().is_some_and(|list| list.iter().all(so))
    };
    let led = |keyspace: &Value| number(keyspace, "led") == number(keyspace, "partitions");
    let answers = |member: &Value| member["health"] == "alive" || member["standing"] == "removed";
    status["leader"].is_string() && all("keyspaces", &led) && all("members", &answers)
}

/// All of it.
pub fn table(status: &Value) -> String {
    let name = |value: &Value| value.as_str().map_or_else(|| "nobody".to_owned(), |id| short(id).to_owned());
    let mut out = format!(
        "cluster {}, version {}, state {}, led by {}, asked at {}\n\n",
        status["cluster"].as_str().unwrap_or("unknown"),
        number(status, "speaks"),
        number(status, "version"),
        name(&status["leader"]),
        name(&status["node"]),
    );
    out.push_str(&rows(
        ["node", "zone", "standing", "health", "control", "copies", "leads", "address"],
        status["members"].as_array().into_iter().flatten().map(|one| {
            [
                name(&one["node"]),
                text(one, "zone"),
                text(one, "standing"),
                text(one, "health"),
                text(one, "role"),
                number(one, "copies").to_string(),
                number(one, "leads").to_string(),
                addresses(one),
            ]
        }),
    ));
    out.push('\n');
    out.push_str(&rows(
        ["id", "keyspace", "partitions", "copies", "led", "leaders"],
        status["keyspaces"].as_array().into_iter().flatten().map(|one| {
            [
                number(one, "id").to_string(),
                text(one, "name"),
                number(one, "partitions").to_string(),
                number(one, "copies").to_string(),
                number(one, "led").to_string(),
                leaders(one),
            ]
        }),
    ));
    let moves: Vec<&Value> = status["moves"].as_array().into_iter().flatten().collect();
    if moves.is_empty() {
        return out;
    }
    out.push('\n');
    for one in moves {
        out.push_str(&format!(
            "{:>7} {} {}\n",
            format!("{}/{}", number(one, "keyspace"), number(one, "partition")),
            bar(one["progress"].as_f64().unwrap_or_default()),
            movement(one),
        ));
    }
    let waiting = number(status, "waiting");
    if waiting > 0 {
        out.push_str(&format!("{waiting} more copies are to be made or removed after these\n"));
    }
    out
}

/// The members, one a line: the whole id first.
pub fn members(status: &Value) -> String {
    status["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let words = ["node", "zone", "standing", "health"].map(|name| text(one, name)).join("\t");
            // Who is not linked has not said it.
            let speaks = one["speaks"].as_u64().map_or_else(|| "?".to_owned(), |version| version.to_string());
            format!("{words}\t{}\tspeaks {speaks}\n", addresses(one))
        })
        .collect()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or("?").to_owned()
}

fn addresses(member: &Value) -> String {
    let all: Vec<&str> =
        member["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    all.join(",")
}

fn leaders(keyspace: &Value) -> String {
    let one =
        |(id, count): (&String, &Value)| format!("{} {}", short(id), count.as_u64().unwrap_or_default());
    let all: Vec<String> = keyspace["leaders"].as_object().into_iter().flatten().map(one).collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

fn movement(one: &Value) -> String {
    let name = |end: &str| one[end].as_str().map(short);
    match (name("from"), name("to")) {
        (Some(from), Some(to)) => format!("from {from} to {to}"),
        (None, Some(to)) => format!("a copy more, to {to}"),
        (Some(from), None) => format!("the copy of {from} goes"),
        (None, None) => String::new(),
    }
}

fn bar(progress: f64) -> String {
    let progress = progress.clamp(0.0, 1.0);
    let full = (progress * BAR_LETTERS as f64) as usize;
    let percent = (progress * 100.0) as u32;
    format!("[{}{}] {percent:>3} %", "#".repeat(full), "-".repeat(BAR_LETTERS - full))
}

/// Columns as wide as what is in them.
pub fn rows<const N: usize>(head: [&str; N], body: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(body);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        serde_json::json!({
            "cluster": "00ff", "version": 7, "speaks": 3, "leader": "12D3KooWAAAAAAAA", "node": "12D3KooWBBBBBBBB",
            "members": [
                {"node": "12D3KooWAAAAAAAA", "zone": "a", "standing": "active", "health": "alive",
                 "role": "voter", "copies": 80, "leads": 40, "addresses": ["127.0.0.1:7401"], "speaks": 3},
                {"node": "12D3KooWBBBBBBBB", "zone": "b", "standing": "active", "health": "alive",
                 "role": "voter", "copies": 80, "leads": 40, "addresses": ["127.0.0.1:7411"]},
            ],
            "keyspaces": [{"id": 0, "name": "db0", "partitions": 80, "copies": 3, "led": 80,
                "leaders": {"12D3KooWAAAAAAAA": 40, "12D3KooWBBBBBBBB": 40}}],
            "moves": [{"keyspace": 0, "partition": 3, "from": "12D3KooWAAAAAAAA", "to": "12D3KooWBBBBBBBB",
                "progress": 0.5}],
            "waiting": 2,
        })
    }

    #[test]
    fn a_status_is_told_in_tables_with_a_bar_for_each_move() {
        let table = table(&status());
        for part in [
            "led by AAAAAA, asked at BBBBBB",
            "AAAAAA  a     active    alive   voter    80      40     127.0.0.1:7401",
            "AAAAAA 40, BBBBBB 40",
            "    0/3 [############------------]  50 % from AAAAAA to BBBBBB",
            "2 more copies",
        ] {
            assert!(table.contains(part), "{part:?} is not in\n{table}");
        }
        assert!(table.starts_with("cluster 00ff, version 3, state 7"), "{table}");
        let members = members(&status());
        let ends: Vec<&str> = members.lines().filter_map(|line| line.rsplit('\t').next()).collect();
        assert_eq!(ends, ["speaks 3", "speaks ?"]);
    }

    #[test]
    fn a_cluster_is_well_while_everybody_answers_and_everything_is_led() {
        type Change = fn(&mut Value);
        let table: [(Change, bool); 6] = [
            (|_| (), true),
            (|status| status["leader"] = Value::Null, false),
            (|status| status["keyspaces"][0]["led"] = 79.into(), false),
            (|status| status["members"][1]["health"] = "dead".into(), false),
            (|status| status["members"][1]["health"] = "suspect".into(), false),
            (|status| *status = Value::Null, false),
        ];
        for (row, (change, well)) in table.into_iter().enumerate() {
            let mut status = status();
            change(&mut status);
            assert_eq!(is_well(&status), well, "row {row}");
        }
    }
}
