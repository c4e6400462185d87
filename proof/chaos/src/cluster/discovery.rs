//! Services while the network is cut in two: every side goes on finding what it can reach, and takes new registrations.
//!
//! Each node has instances of one service, and says over Consul's API which it knows. During a cut a node must find those of its
//! own side as passing and those beyond as critical; its own are never anything but passing. What is registered or taken back
//! on a side, also on the smaller one, is so at once there and unknown beyond. After the cut all nodes know the same again.
//! Nothing is said about how long that takes, which is the membership's affair; it is reported.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kernel::Rng;
use serde_json::{Value, json};

use super::net::Host;
use super::plan::Weather;
use super::{Cluster, NEVER};
use crate::campaign::{Failure, Figure, Report, Scratch, Setting};

/// The port for Consul's clients, on each host.
const CONSUL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8500);
/// An answer that has not come after so long is asked for again.
const ANSWER: Duration = Duration::from_secs(5);
/// The service that all nodes have instances of.
const SERVICE: &str = "web";
/// What the configuration of each node says besides.
const CONFIG: &str = "[services]\nenabled = true\n";
/// What a judge says who finds that a cut was none.
pub const BEYOND: &str = "what was registered beyond the cut";

/// What this campaign is told besides.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nodes, as many as [`super::NODES_ALLOWED`].
    pub nodes: usize,
    /// The last cut lets everything through, so that the judge can be seen to find it.
    pub leak: bool,
}

/// Instances by id, each with the node that has it.
type Owned = BTreeMap<String, usize>;
/// What a node lists: each instance, and whether it is passing.
type Listing = BTreeMap<String, bool>;

/// What is registered, and what was changed during the cut.
#[derive(Default)]
struct Known {
    /// Since before the cut, and still.
    stays: Owned,
    /// Registered during it.
    new: Owned,
    /// Taken back during it.
    gone: Owned,
}

/// Runs the campaign, one cut a round; `progress` hears a line for each.
pub fn run(setting: &Setting, options: &Options, progress: &mut dyn FnMut(&str)) -> Report {
    let result = Scratch::new().and_then(|scratch| {
        let rng = Rng::new(setting.seed);
        let gathered =
            Cluster::gather(&setting.binary, options.nodes, scratch.path(), CONFIG, rng.fork(u64::MAX));
        let result = gathered.and_then(|mut cluster| {
            let result = rounds(&mut cluster, setting, *options, &rng, progress);
            cluster.keep_pages(result)
        });
        let found = |failure: &Failure| failure.to_string().contains(BEYOND);
        let known = options.leak && result.as_ref().is_err_and(found);
        if known { result } else { scratch.end(result) }
    });
    Report { name: "discovery", setting: setting.clone(), result }
}

fn rounds(
    cluster: &mut Cluster,
    setting: &Setting,
    options: Options,
    rng: &Rng,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Figure>, Failure> {
    let mut known = Known::default();
    for node in 0..options.nodes {
        let id = format!("{SERVICE}-{node}");
        register(cluster, node, &id)?;
        known.stays.insert(id, node);
    }
    let (mut changes, mut apart, mut one) = (0, 0, 0);
    for round in 1..=setting.rounds {
        let mut rng = rng.fork(round);
        let sides = sides(&mut rng, options.nodes);
        let weather =
            [Weather::Fair, Weather::Slow, Weather::Lossy, Weather::Doubling][rng.below(4) as usize];
        let named = |failure| match failure {
            Failure::Broken(what) => Failure::Broken(format!("round {round}: {what}")),
            other => other,
        };
        let whole = |cluster: &mut Cluster, known: &Known| {
            look(cluster, "all nodes know all instances as passing", |_, seen| Ok(is_whole(seen, known)))
        };
        whole(cluster, &known).map_err(named)?;
        let leaks = options.leak && round == setting.rounds;
        cluster.hosts.set(weather, &if leaks { Vec::new() } else { blocked(&sides) });
        for node in 0..options.nodes {
            changes += change(cluster, &mut known, round, node).map_err(named)?;
        }
        let what = "each side knows its own instances as passing and those beyond as critical";
        let apart_ms = look(cluster, what, |node, seen| judge(seen, node, &sides, &known)).map_err(named)?;
        cluster.hosts.set(Weather::Fair, &[]);
        let one_ms = whole(cluster, &known).map_err(named)?;
        known.stays.append(&mut known.new);
        known.gone.clear();
        progress(&format!(
            "round {round}/{}: {weather:?}, {sides:?}: told apart after {apart_ms} ms, one again after {one_ms} ms",
            setting.rounds
        ));
        (apart, one) = (apart.max(apart_ms), one.max(one_ms));
    }
    let counts = cluster.hosts.router.switch().counts;
    Ok(vec![
        ("cuts", setting.rounds, "cuts"),
        ("registered and taken back during cuts", changes, "instances"),
        ("of a node's own that it did not find", 0, "instances"),
        ("known beyond a cut", 0, "instances"),
        ("longest until each side knew what it cannot reach", apart, "ms"),
        ("longest until all nodes knew all again", one, "ms"),
        ("packets lost to cuts", counts.blocked, "packets"),
    ])
}

/// What a node registers and takes back during a cut; how many changes.
fn change(cluster: &mut Cluster, known: &mut Known, round: u64, node: usize) -> Result<u64, Failure> {
    let id = format!("{SERVICE}-{node}-{round}");
    register(cluster, node, &id)?;
    known.new.insert(id, node);
    // What it registered in the round before.
    let old = format!("{SERVICE}-{node}-{}", round - 1);
    if known.stays.remove(&old).is_none() {
        return Ok(1);
    }
    put(cluster, node, Change::Deregister(&old))?;
    known.gone.insert(old, node);
    Ok(2)
}

/// Which nodes are on the first side and which on the other; on each there is one at least.
fn sides(rng: &mut Rng, nodes: usize) -> Vec<bool> {
    let drawn = 1 + rng.below((1 << nodes) - 2);
    (0..nodes).map(|node| drawn >> node & 1 == 1).collect()
}

/// The ways between the sides, from and to.
fn blocked(sides: &[bool]) -> Vec<(usize, usize)> {
    let pairs = |from| (0..sides.len()).map(move |to| (from, to));
    (0..sides.len()).flat_map(pairs).filter(|&(from, to)| sides[from] != sides[to]).collect()
}

/// Whether a node knows what there is, as passing, and nothing else.
fn is_whole(seen: &Listing, known: &Known) -> bool {
    seen.len() == known.stays.len() + known.new.len()
        && known.stays.keys().chain(known.new.keys()).all(|id| seen.get(id) == Some(&true))
}

/// Whether a node knows what it has to during a cut; an error if it knows what it cannot, or not its own.
fn judge(seen: &Listing, node: usize, sides: &[bool], known: &Known) -> Result<bool, String> {
    let is_near = |owner: usize| sides[owner] == sides[node];
    if let Some((id, _)) = known.new.iter().find(|(id, owner)| !is_near(**owner) && seen.contains_key(*id)) {
        return Err(format!("node {node} knows {BEYOND}: {id}"));
    }
    let mut present = known.stays.iter().chain(&known.new);
    if let Some((id, _)) = present.find(|(id, owner)| **owner == node && seen.get(*id) != Some(&true)) {
        return Err(format!("node {node} does not find its own {id}: {:?}", seen.get(id)));
    }
    let stays = |(id, owner): (&String, &usize)| seen.get(id) == Some(&is_near(*owner));
    let new = |(id, owner): (&String, &usize)| !is_near(*owner) || seen.get(id) == Some(&true);
    // Nobody beyond was told that they are taken back.
    let gone = |(id, owner): (&String, &usize)| seen.get(id).copied() == (!is_near(*owner)).then_some(false);
    Ok(known.stays.iter().all(stays) && known.new.iter().all(new) && known.gone.iter().all(gone))
}

/// Looks at what all nodes list until each does as `judge` wants it; after how many milliseconds.
fn look(
    cluster: &mut Cluster,
    what: &str,
    judge: impl Fn(usize, &Listing) -> Result<bool, String>,
) -> Result<u64, Failure> {
    let began = Instant::now();
    let mut last = String::new();
    let done = cluster.until(what, |cluster| {
        for node in 0..cluster.members.len() {
            let Some(seen) = list(cluster.hosts.host(node))? else { return Ok(None) };
            if !judge(node, &seen).map_err(Failure::Broken)? {
                last = format!("node {node} lists {seen:?}");
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    match done {
        Ok(()) => Ok(began.elapsed().as_millis() as u64),
        Err(Failure::Broken(why)) if began.elapsed() > NEVER => {
            Err(Failure::Broken(format!("{why}; {last}")))
        }
        Err(other) => Err(other),
    }
}

/// What a node lists; `None` if it does not say.
fn list(host: &Host) -> Result<Option<Listing>, Failure> {
    let answer = ask(host, "GET", &format!("/v1/health/service/{SERVICE}"), "")?;
    Ok(answer.ok().filter(|(code, _)| *code == 200).and_then(|(_, text)| listing(&text)))
}

fn listing(text: &str) -> Option<Listing> {
    let all: Value = serde_json::from_str(text).ok()?;
    let one = |entry: &Value| {
        let checks = entry["Checks"].as_array()?;
        let passing = checks.iter().all(|check| check["Status"] == "passing");
        Some((entry["Service"]["ID"].as_str()?.to_owned(), passing))
    };
    all.as_array()?.iter().map(one).collect()
}

fn register(cluster: &mut Cluster, node: usize, id: &str) -> Result<(), Failure> {
    put(cluster, node, Change::Register(id))
}

/// What a node is to do with an instance.
#[derive(Clone, Copy, Debug)]
enum Change<'a> {
    Register(&'a str),
    Deregister(&'a str),
}

impl Change<'_> {
    fn target(self) -> String {
        match self {
            Change::Register(_) => "/v1/agent/service/register".to_owned(),
            Change::Deregister(id) => format!("/v1/agent/service/deregister/{id}"),
        }
    }

    fn body(self) -> String {
        match self {
            Change::Register(id) => json!({"Name": SERVICE, "ID": id, "Port": 80}).to_string(),
            Change::Deregister(_) => String::new(),
        }
    }

    /// Whether an answer says that it is done. With `again` it was asked before, and that answer was lost: what was taken back
    /// then is not there any more.
    const fn is_done(self, code: u16, again: bool) -> bool {
        match self {
            Change::Register(_) => code == 200,
            Change::Deregister(_) => code == 200 || again && code == 404,
        }
    }
}

/// Has a node do something; it must, however the network is. A connection that breaks says nothing, and it is asked again.
fn put(cluster: &mut Cluster, node: usize, change: Change<'_>) -> Result<(), Failure> {
    let (target, body) = (change.target(), change.body());
    let mut again = false;
    cluster.until(&format!("node {node} answers a change"), |cluster| {
        match ask(cluster.hosts.host(node), "PUT", &target, &body)? {
            Ok((code, _)) if change.is_done(code, again) => Ok(Some(())),
            Ok((code, text)) => {
                Err(Failure::Broken(format!("node {node} answers {target} with {code} {}", text.trim())))
            }
            Err(_) => {
                again = true;
                Ok(None)
            }
        }
    })
}

/// Status and body of an answer.
fn ask(host: &Host, method: &str, target: &str, body: &str) -> Result<io::Result<(u16, String)>, Failure> {
    let stream = host.inside(|| TcpStream::connect_timeout(&CONSUL, ANSWER))?;
    Ok(stream.and_then(|stream| exchange(stream, method, target, body)))
}

fn exchange(mut stream: TcpStream, method: &str, target: &str, body: &str) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let head = format!("{method} {target} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let parts = text.split_once("\r\n\r\n");
    let code = parts.and_then(|(head, _)| head.split(' ').nth(1)?.parse().ok());
    let (code, (_, body)) = code.zip(parts).ok_or_else(|| io::Error::other("no answer"))?;
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_cut_have_somebody_and_no_way_leads_across() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let nodes = 3 + rng.below(7) as usize;
            let sides = sides(&mut rng, nodes);
            assert!(sides.contains(&true) && sides.contains(&false), "{sides:?}");
            let near = sides.iter().filter(|side| **side).count();
            assert_eq!(blocked(&sides).len(), 2 * near * (nodes - near), "{sides:?}");
        }
    }

    #[test]
    fn a_side_knows_its_own_and_nothing_that_came_to_be_beyond() {
        let owned =
            |pairs: &[(&str, usize)]| pairs.iter().map(|(id, node)| ((*id).to_owned(), *node)).collect();
        let known = Known {
            stays: owned(&[("a", 0), ("b", 1), ("c", 2)]),
            new: owned(&[("an", 0), ("bn", 1), ("cn", 2)]),
            gone: owned(&[("ag", 0), ("cg", 2)]),
        };
        // Node 0 is alone with node 1.
        let sides = [true, true, false];
        let own = [("a", true), ("an", true)];
        let right = [&own[..], &[("b", true), ("bn", true), ("c", false), ("cg", false)]].concat();
        let with = |change: &[(&'static str, bool)]| [&right[..], change].concat();
        let without = |id: &str| right.iter().copied().filter(|one| one.0 != id).collect::<Vec<_>>();
        #[rustfmt::skip] // columns
        let table = [
            (right.clone(),                  Ok(true)),
            (own.to_vec(),                   Ok(false)),
            (with(&[("c", true)]),           Ok(false)), // not known to be dead yet
            (with(&[("b", false)]),          Ok(false)),
            (with(&[("cg", true)]),          Ok(false)),
            (with(&[("ag", true)]),          Ok(false)), // taken back on this side
            (without("c"),                   Ok(false)), // who is dead is not forgotten
            (without("cg"),                  Ok(false)),
            (without("bn"),                  Ok(false)),
            (with(&[("cn", true)]),          Err(BEYOND)),
            (with(&[("cn", false)]),         Err(BEYOND)),
            (with(&[("a", false)]),          Err("its own a")),
            (without("an"),                  Err("its own an")),
        ];
        for (seen, expected) in table {
            let listed: Listing = seen.iter().map(|(id, passing)| ((*id).to_owned(), *passing)).collect();
            let said = judge(&listed, 0, &sides, &known);
            match (&said, expected) {
                (Ok(settled), Ok(expected)) => assert_eq!(*settled, expected, "{seen:?}"),
                (Err(why), Err(word)) => assert!(why.contains(word), "{why} lacks {word}"),
                _ => panic!("{seen:?}: {said:?}"),
            }
        }
        let after = [("a", true), ("b", true), ("c", true), ("an", true), ("bn", true), ("cn", true)];
        let listed =
            |all: &[(&str, bool)]| all.iter().map(|(id, passing)| ((*id).to_owned(), *passing)).collect();
        assert!(is_whole(&listed(&after), &known));
        assert!(!is_whole(&listed(&[&after[..], &[("cg", true)]].concat()), &known));
        assert!(!is_whole(&listed(&[&after[..5], &[("cn", false)]].concat()), &known));
    }

    #[test]
    fn what_was_taken_back_by_a_lost_answer_is_done_when_it_is_not_there_any_more() {
        #[rustfmt::skip] // columns
        let table = [
            (Change::Register("a"),   200, false, true),
            (Change::Register("a"),   200, true,  true),
            (Change::Register("a"),   404, true,  false),
            (Change::Register("a"),   500, false, false),
            (Change::Deregister("a"), 200, false, true),
            (Change::Deregister("a"), 200, true,  true),
            (Change::Deregister("a"), 404, true,  true),
            // Nobody else takes anything back.
            (Change::Deregister("a"), 404, false, false),
            (Change::Deregister("a"), 500, true,  false),
        ];
        for (change, code, again, expected) in table {
            assert_eq!(change.is_done(code, again), expected, "{change:?} {code} {again}");
        }
    }

    #[test]
    fn a_listing_has_ids_and_whether_all_checks_pass() {
        let check = |status: &str| json!({"Status": status});
        let one = |id: &str, checks: &[Value]| json!({"Service": {"ID": id}, "Checks": checks});
        let all = json!([
            one("a", &[check("passing"), check("passing")]),
            one("b", &[check("critical"), check("passing")])
        ]);
        let expected: Listing = [("a".to_owned(), true), ("b".to_owned(), false)].into();
        assert_eq!(listing(&all.to_string()), Some(expected));
        assert_eq!(listing("[]"), Some(Listing::new()));
        assert_eq!(listing("{}"), None);
        assert_eq!(listing("[{}]"), None);
    }
}
