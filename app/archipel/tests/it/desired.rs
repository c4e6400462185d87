//! What all members' proxies should do: told to one, followed by all, and what one cannot follow leaves it with what it had.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::cluster::{is_whole, token};
use crate::process::{Node, PATIENCE, code, stderr, stdout};
use crate::takeover::{Clients, endpoint, free_port};

/// A member's directory, the file that it is started with, and where its proxy listens by that.
struct Home {
    dir: PathBuf,
    file: PathBuf,
    port: u16,
    /// The port of its links: it stays where the others look for it.
    links: String,
}

impl Home {
    fn new(dir: &Path, number: usize) -> Home {
        let port = free_port();
        let (file, links) = (dir.join(format!("{number}.toml")), format!("cluster.port={}", free_port()));
        std::fs::write(&file, format!("[[proxy.listener]]\nname = \"web\"\nport = {port}\n")).unwrap();
        Home { dir: dir.join(number.to_string()), file, port, links }
    }

    fn start(&self, how: &[&str], set: &[&str]) -> Node {
        let mut last = vec!["--config", self.file.to_str().unwrap(), "--set", &self.links];
        set.iter().for_each(|set| last.extend(["--set", set]));
        Node::start_last(&self.dir, how, &last)
    }
}

/// Three members; the third finds no services that are registered, the others do.
fn three(dir: &Path) -> ([Home; 3], [Node; 3]) {
    let homes = [0, 1, 2].map(|number| Home::new(dir, number));
    let finds = ["services.enabled=true", "consul.port=0", "dns.port=0"];
    let one = homes[0].start(&["--cluster", "--zone", "a"], &finds);
    let join =
        |at: usize, zone, set: &[&str]| homes[at].start(&["--join", &token(&one), "--zone", zone], set);
    let nodes = [join(1, "b", &finds), join(2, "c", &[])];
    one.until("three members have all copies", |node| is_whole(node, 3));
    let [two, three] = nodes;
    (homes, [one, two, three])
}

/// The status of a request's answer; none if nobody listens there.
fn get(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Waits until a request is answered so: who follows has told its threads, which take it with their next turn.
fn until_get(port: u16, path: &str, status: Option<u16>) {
    let end = Instant::now() + PATIENCE;
    while get(port, path) != status {
        assert!(Instant::now() < end, "{path} is answered {:?} and not {status:?}", get(port, path));
        std::thread::yield_now();
    }
}

fn shop(endpoint: u16, more: &str) -> String {
    format!(
        "[[proxy.service]]\nname = \"shop\"\nendpoints = \"127.0.0.1:{endpoint}\"\n\
         [[proxy.route]]\nname = \"all\"\nservice = \"shop\"\n{more}"
    )
}

fn settings(of: &Node) -> Value {
    let output = of.run(&["mesh", "settings", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Each member's word, in the order of zones.
fn states(of: &Node) -> Vec<String> {
    let mut nodes: Vec<Value> = settings(of)["nodes"].as_array().unwrap().clone();
    nodes.sort_by_key(|node| node["zone"].as_str().unwrap().to_owned());
    nodes.iter().map(|node| node["state"].as_str().unwrap().to_owned()).collect()
}

/// Has `node` apply `text`.
fn apply(node: &Node, dir: &Path, text: &str, more: &[&str]) -> std::process::Output {
    let file = dir.join("shop.toml");
    std::fs::write(&file, text).unwrap();
    node.run(&[&["mesh", "apply", file.to_str().unwrap()], more].concat())
}

#[test]
fn members_follow_what_one_is_told_and_lose_no_request_while_fifty_revisions_come() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (homes, nodes) = three(dir);
    let endpoint = endpoint();
    for one in &homes {
        assert_eq!(get(one.port, "/"), Some(404), "its file has no route");
    }
    let none = settings(&nodes[1]);
    assert_eq!((&none["revision"], &none["from_files"]), (&0.into(), &true.into()));
    // What is only tried changes nothing.
    let first = shop(endpoint, "");
    let tried = apply(&nodes[1], dir, &first, &["--dry-run"]);
    assert!(code(&tried) == 0 && stdout(&tried).contains("+ route all"), "{}", stdout(&tried));
    assert_eq!(settings(&nodes[1])["revision"], 0);
    let applied = apply(&nodes[1], dir, &first, &["--if-revision", "0", "--by", "ann"]);
    assert_eq!(code(&applied), 0, "{}", stderr(&applied));
    assert!(stdout(&applied).contains("revision 1 is in force"), "{}", stdout(&applied));
    for (one, node) in homes.iter().zip(&nodes) {
        until_get(one.port, "/", Some(200));
        assert_eq!(node.metric("archipel_proxy_revision"), Some(1.0));
        let told = settings(node);
        assert_eq!((&told["revision"], &told["by"]), (&1.into(), &"ann".into()));
        node.until("it knows how far all are", |node| states(node) == ["follows"; 3]);
    }
    // Somebody was first; and a file that is wrong is not even asked about.
    let late = apply(&nodes[2], dir, &shop(endpoint, "tries = 2\n"), &["--if-revision", "0"]);
    assert!(code(&late) == 1 && stderr(&late).contains("at revision 1"), "{}", stderr(&late));
    let wrong = apply(&nodes[2], dir, &shop(endpoint, "tires = 2\n"), &[]);
    assert!(code(&wrong) == 2 && stderr(&wrong).contains("shop.toml:7"), "{}", stderr(&wrong));
    let clients: Vec<Clients> = homes.iter().map(|one| Clients::start(one.port)).collect();
    for round in 1..=50_usize {
        let more =
            format!("tries = {}\n[[proxy.route]]\npath = \"/{round}\"\nservice = \"shop\"\n", 1 + round % 9);
        let applied = apply(&nodes[round % 3], dir, &shop(endpoint, &more), &[]);
        assert_eq!(code(&applied), 0, "{}", stderr(&applied));
        until_get(homes[(round + 1) % 3].port, &format!("/{round}"), Some(200));
        clients[round % 3].await_more(1);
    }
    clients.iter().for_each(|clients| clients.await_more(10));
    clients.into_iter().for_each(Clients::end);
    assert_eq!(settings(&nodes[0])["revision"], 51);
    // Back to what is remembered, and no further.
    let back = nodes[0].run(&["mesh", "rollback", "1"]);
    assert!(code(&back) == 1 && stderr(&back).contains("revisions 36 to 51"), "{}", stderr(&back));
    let back = nodes[0].run(&["mesh", "rollback", "0"]);
    assert_eq!(code(&back), 0, "{}", stderr(&back));
    for one in &homes {
        until_get(one.port, "/", Some(404));
    }
    // Who has not heard of the last revision yet changes it as well as others do.
    let [one, two] = ["/one", "/two"].map(|path| paths(endpoint, &[path]));
    for _ in 0..10 {
        for (node, text) in [(&nodes[0], &one), (&nodes[2], &two)] {
            let applied = apply(node, dir, text, &["--wait", "0"]);
            assert_eq!(code(&applied), 0, "{}", stderr(&applied));
        }
    }
    assert_eq!(settings(&nodes[2])["revision"], 72);
    let trail: Value = serde_json::from_str(&nodes[2].http("GET", "/cluster/audit").1).unwrap();
    let by_ann = trail["operations"].as_array().unwrap().iter().find(|line| line["by"] == "ann");
    assert_eq!(by_ann.unwrap()["what"], "set the proxies: 0 listeners, 1 services, 1 routes");
    nodes.into_iter().for_each(Node::stop);
}

/// Routes for these paths, and nothing else.
fn paths(endpoint: u16, paths: &[&str]) -> String {
    let service = format!("[[proxy.service]]\nname = \"shop\"\nendpoints = \"127.0.0.1:{endpoint}\"\n");
    let route = |path: &&str| format!("[[proxy.route]]\npath = \"{path}\"\nservice = \"shop\"\n");
    service + &paths.iter().map(route).collect::<String>()
}

#[test]
fn who_was_away_or_cannot_follow_keeps_the_last_good_and_comes_after() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (homes, [one, two, three]) = three(dir);
    let endpoint = endpoint();
    let applied = apply(&one, dir, &paths(endpoint, &["/one"]), &[]);
    assert_eq!(code(&applied), 0, "{}", stderr(&applied));
    // It is away while a route comes, and has it when it is back.
    three.stop();
    let applied = apply(&one, dir, &paths(endpoint, &["/one", "/new"]), &["--wait", "0"]);
    assert_eq!(code(&applied), 0, "{}", stderr(&applied));
    let three = homes[2].start(&[], &[]);
    // What it knew when it was stopped it follows from its first moment on.
    assert_eq!(get(homes[2].port, "/one"), Some(200));
    three.until("it follows", |node| node.metric("archipel_proxy_revision") == Some(2.0));
    until_get(homes[2].port, "/new", Some(200));
    for node in [&one, &two, &three] {
        node.until("all know that", |node| states(node) == ["follows"; 3]);
    }
    // A service without endpoints is looked for in the registry, which the third does not have.
    let found = paths(endpoint, &["/one"]) + "[[proxy.service]]\nname = \"found\"\n";
    let applied = apply(&one, dir, &found, &[]);
    let said = stderr(&applied);
    assert!(code(&applied) == 1 && said.contains("`proxy.service[1].endpoints` is missing"), "{said}");
    assert!(said.contains("stays with revision 2"), "{said}");
    two.until("all know why", |node| states(node) == ["follows", "follows", "refuses"]);
    assert_eq!(three.metric("archipel_proxy_revision_refused"), Some(1.0));
    let new = || homes.each_ref().map(|one| get(one.port, "/new"));
    assert_eq!(new(), [Some(404), Some(404), Some(200)], "the last good one stays");
    // So it does when it starts, and who is asked there says what it cannot.
    three.stop();
    let three = homes[2].start(&[], &[]);
    assert_eq!(new(), [Some(404), Some(404), Some(200)]);
    let here = apply(&three, dir, &found, &["--if-revision", "3"]);
    assert!(code(&here) == 1 && stderr(&here).contains("this node could not follow it"), "{}", stderr(&here));
    // A port that another holds: nobody can, until it is free.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let listener = format!("[[proxy.listener]]\nname = \"more\"\nport = {port}\n");
    let applied = apply(&one, dir, &shop(endpoint, &listener), &[]);
    assert!(
        code(&applied) == 1 && stderr(&applied).contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{}",
        stderr(&applied)
    );
    let stays = homes.each_ref().map(|one| get(one.port, "/one"));
    assert_eq!(stays, [Some(200); 3], "the last good ones stay");
    drop(holder);
    // All are on this machine, so one of them gets it, and listens where the revision says and nowhere else.
    let follow = |node: &Node| states(node).iter().filter(|state| *state == "follows").count();
    two.until("it is free, and one follows", |node| follow(node) == 1);
    until_get(port, "/", Some(200));
    let listen = homes.iter().filter(|one| get(one.port, "/one").is_some()).count();
    assert_eq!(listen, 2, "the others stay where they are");
    [one, two, three].into_iter().for_each(Node::stop);
}

#[test]
fn a_node_in_no_cluster_says_what_to_do_and_in_one_of_its_own_it_is_done() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::start(&home.path().join("data"), &[]);
    let refused = apply(&node, home.path(), &shop(1, ""), &[]);
    assert_eq!(code(&refused), 1);
    for part in ["in no cluster", "SIGHUP", "node start --cluster"] {
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
    }
    assert_eq!(settings(&node)["clustered"], false);
    // What a page of a browser could send changes nothing.
    let (status, _) = node.ask("POST", "/proxy/settings/apply", "Content-Length: 0\r\n");
    assert_eq!(status, 403);
    assert_eq!(node.http("DELETE", "/proxy/settings").0, 405);
    node.stop();
    // A cluster of one will do.
    let node = Node::start_as(&home.path().join("data"), &["--cluster"], &[]);
    let port = free_port();
    let listener = format!("[[proxy.listener]]\nname = \"web\"\nport = {port}\n");
    let text = shop(endpoint(), &listener);
    let applied = apply(&node, home.path(), &text, &[]);
    assert_eq!(code(&applied), 0, "{}", stderr(&applied));
    until_get(port, "/", Some(200));
    let again = apply(&node, home.path(), &text, &[]);
    assert!(code(&again) == 0 && stdout(&again).contains("nothing differs"), "{}", stdout(&again));
    assert_eq!((settings(&node)["revision"].as_u64(), states(&node)), (Some(1), vec!["follows".to_owned()]));
    // What is printed can be applied.
    let printed = stdout(&node.run(&["mesh", "settings", "--toml"]));
    let again = apply(&node, home.path(), &printed, &["--if-revision", "1"]);
    assert!(code(&again) == 0 && stdout(&again).contains("nothing differs"), "{}", stdout(&again));
    node.stop();
}
