//! `archipel mesh apply`, `settings` and `rollback`: what all members' proxies should do, over the admin port of any of them.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use server::admin::OPERATOR;
use server::kernel::Millis;
use server::proxy::desired::read;

use super::text;
use crate::admin::{Line, SECONDS_MAX, ask};
use crate::exit::{Exit, Failure};
use crate::moment::utc;

/// How long the cluster may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How often it is looked how far the members are.
const LOOK: Duration = Duration::from_millis(100);

/// On which terms the settings are changed.
#[derive(Args, Clone, Debug)]
pub struct Terms {
    /// Show what would be different, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Only if this revision is in force (0: none is yet); otherwise nothing is changed, and the exit code is 1.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Who asks, for those who look later; without it the variable USER.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// How long to wait until all members that are up follow it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

/// A file that all members' proxies should follow.
#[derive(Args, Clone, Debug)]
pub struct ApplyArgs {
    /// The file, or `-` for stdin: [[proxy.listener]], [[proxy.service]] and [[proxy.route]] as in archipel.toml, which may
    /// be that file itself. Other settings in it are left alone.
    file: PathBuf,
    #[command(flatten)]
    terms: Terms,
}

/// A revision that they should follow again.
#[derive(Args, Clone, Debug)]
pub struct RollbackArgs {
    /// Which; 0 has each node do what its own file says.
    revision: u64,
    #[command(flatten)]
    terms: Terms,
}

/// How the settings are shown.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
    /// Print only what is in force, as a file that can be changed and applied.
    #[arg(long)]
    toml: bool,
}

impl Terms {
    fn query(&self) -> Result<String> {
        let is_plain = |name: &str| {
            let letters = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
            (1..=64).contains(&name.len()) && letters
        };
        let by = match &self.by {
            Some(name) if is_plain(name) => name.clone(),
            Some(name) => {
                bail!("{name:?} is no name for --by: use at most 64 letters, digits, `.`, `_` and `-`")
            }
            None => std::env::var("USER")
                .ok()
                .filter(|name| is_plain(name))
                .unwrap_or_else(|| OPERATOR.to_owned()),
        };
        let after = self.if_revision.map(|after| format!("&if_revision={after}")).unwrap_or_default();
        Ok(format!("by={by}&dry_run={}{after}", self.dry_run))
    }
}

/// Has all members' proxies follow a file.
pub fn apply(admin: SocketAddr, args: &ApplyArgs, json: bool) -> Result<Exit, Failure> {
    let said = if args.file == Path::new("-") {
        let mut said = String::new();
        std::io::stdin().read_to_string(&mut said).context("stdin cannot be read as text")?;
        said
    } else {
        let unreadable = || format!("{} cannot be read", args.file.display());
        std::fs::read_to_string(&args.file).with_context(unreadable).map_err(Failure::usage)?
    };
    // What is wrong with the file itself is said with its name, and without asking anybody.
    read(&args.file, &said).map_err(Failure::usage)?;
    let path = format!("/proxy/settings/apply?{}", args.terms.query().map_err(Failure::usage)?);
    Ok(change(admin, &path, &said, &args.terms, json)?)
}

/// Has them follow what an earlier revision said.
pub fn rollback(admin: SocketAddr, args: &RollbackArgs, json: bool) -> Result<Exit, Failure> {
    let query = args.terms.query().map_err(Failure::usage)?;
    let path = format!("/proxy/settings/rollback?to={}&{query}", args.revision);
    Ok(change(admin, &path, "", &args.terms, json)?)
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// It follows when it is back.
    Dead,
    /// It follows this revision.
    Follows(u64),
    /// It stays with this one, and says why; 0 is what its file says.
    Refuses(u64),
    /// It has not heard of the newest, and is at this one.
    Behind(u64),
    /// No revision counts.
    File,
    /// Nothing was heard of it.
    Unknown,
}

impl Member {
    fn of(node: &Value) -> Member {
        let follows = node["follows"].as_u64().unwrap_or_default();
        match (text(node, "health"), text(node, "state")) {
            ("dead", _) => Member::Dead,
            (_, "refuses") => Member::Refuses(follows),
            (_, "follows") => Member::Follows(follows),
            (_, "behind") => Member::Behind(follows),
            (_, "file") => Member::File,
            _ => Member::Unknown,
        }
    }

    const fn follows(self) -> bool {
        matches!(self, Member::Follows(_))
    }

    /// Whether it is known what will become of it without waiting longer.
    const fn is_settled(self) -> bool {
        matches!(self, Member::Dead | Member::Follows(_) | Member::Refuses(_))
    }
}

fn change(admin: SocketAddr, path: &str, body: &str, terms: &Terms, json: bool) -> Result<Exit> {
    let answer = Line::new(admin, None).ask(path, body.as_bytes(), ANSWER)?.good("")?.0;
    let mut told: Value = serde_json::from_slice(&answer).context("the node's answer is not JSON")?;
    let nodes = if terms.dry_run { Value::Null } else { followed(admin, terms.wait)? };
    let mut members = nodes.as_array().into_iter().flatten().map(Member::of);
    let refuses = members.any(|member| matches!(member, Member::Refuses(_)));
    let exit = if refuses { Exit::Fails } else { Exit::Holds };
    if json {
        told["nodes"] = nodes;
        println!("{told}");
        return Ok(exit);
    }
    for line in difference(&told) {
        println!("{line}");
    }
    let left: Vec<&str> =
        told["left_alone"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !left.is_empty() {
        eprintln!("left alone, since they are each node's own: {}", left.join(", "));
    }
    if terms.dry_run {
        eprintln!("nothing was changed; {} is in force", called(&told));
        return Ok(exit);
    }
    println!("{} is in force", called(&told));
    let lagging: Vec<&Value> =
        nodes.as_array().into_iter().flatten().filter(|node| !Member::of(node).follows()).collect();
    if lagging.is_empty() {
        eprintln!("all members follow it");
    } else {
        lagging.into_iter().for_each(|node| eprintln!("{}", node_line(node)));
    }
    Ok(exit)
}

fn called(told: &Value) -> String {
    match told["revision"].as_u64().unwrap_or_default() {
        0 => "what each node's own file says".to_owned(),
        number => format!("revision {number}"),
    }
}

fn settings_of(admin: SocketAddr) -> Result<Value> {
    let body = ask(admin, "GET", "/proxy/settings", SECONDS_MAX)?.good()?;
    serde_json::from_str(&body).context("the node's answer is not JSON")
}

/// The members, once all that are up follow or say why not, or the time is over.
fn followed(admin: SocketAddr, seconds: u64) -> Result<Value> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let nodes = settings_of(admin)?["nodes"].take();
        let waits = nodes.as_array().into_iter().flatten().any(|node| !Member::of(node).is_settled());
        if !waits || Instant::now() >= end {
            return Ok(nodes);
        }
        std::thread::sleep(LOOK);
    }
}

/// What is different, a part after the other.
fn difference(told: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for one in told["changes"].as_array().into_iter().flatten() {
        let (mark, kind, name) = match text(one, "change") {
            "added" => ("+", text(one, "kind"), text(one, "name").to_owned()),
            "removed" => ("-", text(one, "kind"), text(one, "name").to_owned()),
            "changed" => ("~", text(one, "kind"), text(one, "name").to_owned()),
            _ => ("~", "order of each", text(one, "kind").to_owned()),
        };
        lines.push(format!("{mark} {kind} {name}"));
        let own = one["lines"].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.extend(own.map(|line| format!("    {line}")));
    }
    if lines.is_empty() {
        lines.push("nothing differs".to_owned());
    }
    lines
}

/// Prints what is in force, and how far the members are.
pub fn settings(admin: SocketAddr, args: &SettingsArgs, json: bool) -> Result<Exit> {
    let told = settings_of(admin)?;
    if json {
        println!("{told}");
        return Ok(Exit::Holds);
    }
    if args.toml {
        print!("{}", text(&told, "text"));
        return Ok(Exit::Holds);
    }
    for line in settings_lines(&told) {
        println!("{line}");
    }
    Ok(Exit::Holds)
}

fn settings_lines(told: &Value) -> Vec<String> {
    let count = |key: &str| told[key].as_array().map_or(0, Vec::len);
    let at = |of: &Value| utc(Millis(of["at"].as_u64().unwrap_or_default()));
    let number = told["revision"].as_u64().unwrap_or_default();
    let (listeners, services, routes) = (count("listeners"), count("services"), count("routes"));
    let says = format!("{listeners} listeners, {services} services, {routes} routes");
    let mut lines = Vec::new();
    let whose = format!("by {} at {} UTC", text(told, "by"), at(told));
    lines.push(match (number, told["from_files"] == true) {
        (0, _) if told["clustered"] != true => {
            format!("this node is in no cluster; its own file says: {says}")
        }
        (0, _) => format!("no revision: each node does what its own file says; here: {says}"),
        (_, true) => {
            format!("revision {number} {whose}: each node does what its own file says; here: {says}")
        }
        (_, false) if listeners == 0 => {
            format!("revision {number} {whose}: {says}; each node listens as its own file says")
        }
        (_, false) => format!("revision {number} {whose}: {says}"),
    });
    lines.extend(node_lines(&told["nodes"]));
    let history: Vec<&Value> = told["history"].as_array().into_iter().flatten().collect();
    if history.len() > 1 {
        lines.push("remembered".to_owned());
    }
    for one in history.iter().rev().filter(|_| history.len() > 1) {
        let restores = one["restores"].as_u64().map(|to| format!(", as revision {to}")).unwrap_or_default();
        let number = one["revision"].as_u64().unwrap_or_default();
        let (by, says) = (text(one, "by"), text(one, "says"));
        lines.push(format!("{number:>6}  {} UTC  {by:<12}  {says}{restores}", at(one)));
    }
    lines
}

fn node_lines(nodes: &Value) -> Vec<String> {
    nodes.as_array().into_iter().flatten().map(node_line).collect()
}

fn node_line(node: &Value) -> String {
    let state = match Member::of(node) {
        Member::Dead => "dead; it follows when it is back".to_owned(),
        Member::Refuses(0) => format!("stays with what its file says: {}", text(node, "why")),
        Member::Refuses(number) => format!("stays with revision {number}: {}", text(node, "why")),
        Member::Follows(number) => format!("follows {number}"),
        Member::Behind(number) => format!("behind, at {number}"),
        Member::File => "does what its file says".to_owned(),
        Member::Unknown => "not heard of".to_owned(),
    };
    format!("{}  {:<12}  {state}", text(node, "node"), text(node, "zone"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn terms(if_revision: Option<u64>, by: Option<&str>) -> Terms {
        Terms { dry_run: true, if_revision, by: by.map(str::to_owned), wait: 1 }
    }

    #[test]
    fn terms_are_asked_for_as_the_node_reads_them() {
        assert_eq!(terms(Some(3), Some("ann")).query().unwrap(), "by=ann&dry_run=true&if_revision=3");
        assert!(terms(None, Some("ci.job-7")).query().unwrap().starts_with("by=ci.job-7&"));
        for name in ["", "a b", "a&b", &"x".repeat(65)] {
            assert!(terms(None, Some(name)).query().is_err(), "{name:?}");
        }
    }

    #[test]
    fn differences_are_shown_by_part() {
        let told = json!({"changes": [
            {"kind": "service", "name": "shop", "change": "changed", "lines": ["- tries = 2", "+ tries = 3"]},
            {"kind": "route", "name": "all", "change": "removed", "lines": ["- name = \"all\""]},
            {"kind": "route", "name": "", "change": "moved", "lines": []}]});
        let expected = [
            "~ service shop",
            "    - tries = 2",
            "    + tries = 3",
            "- route all",
            "    - name = \"all\"",
            "~ order of each route",
        ];
        assert_eq!(difference(&told), expected);
        assert_eq!(difference(&json!({"changes": []})), ["nothing differs"]);
    }

    #[test]
    fn who_does_not_follow_says_why() {
        let node = |state: &str, health: &str| json!({"node": "12D3", "zone": "a", "state": state, "health": health, "follows": 6, "why": "no port"});
        #[rustfmt::skip] // columns
        let table = [
            (node("follows", "alive"),   "follows 6"),
            (node("refuses", "alive"),   "stays with revision 6: no port"),
            (node("behind", "alive"),    "behind, at 6"),
            (node("unknown", "alive"),   "not heard of"),
            (node("unknown", "dead"),    "dead; it follows when it is back"),
        ];
        for (node, expected) in table {
            let lines = node_lines(&json!([node]));
            assert!(lines[0].ends_with(expected), "{}", lines[0]);
        }
        // Whatever a member says of itself in words, it is its state that counts.
        let mut teller = node("refuses", "alive");
        teller["why"] = "the file  follows another".into();
        assert!(!Member::of(&teller).follows() && Member::of(&teller).is_settled());
        let told = json!({
            "clustered": true, "revision": 7, "by": "ann", "at": 0, "from_files": false, "listeners": [],
            "services": ["a"], "routes": ["r"], "nodes": [node("follows", "alive")],
            "history": [{"revision": 6, "by": "bob", "at": 0, "restores": 2, "says": "x"},
                        {"revision": 7, "by": "ann", "at": 0, "restores": null, "says": "y"}],
        });
        let lines = settings_lines(&told);
        assert!(
            lines[0].starts_with("revision 7 by ann at 1970-01-01")
                && lines[0].ends_with("each node listens as its own file says"),
            "{lines:?}"
        );
        assert!(lines[3].starts_with("     7") && lines[4].ends_with("x, as revision 2"), "{lines:?}");
    }
}
