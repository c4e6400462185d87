//! Requests of Consul's clients: whatever path, query and body come, there is an answer, and what is said to be JSON is.
#![no_main]

use fuzz::Bytes;
use gateway::consul::access::Grant;
use gateway::consul::kv::{self, Reply};
use gateway::consul::{About, Answer, Method, Request, answer};
use kernel::{Micros, NodeId, Rng};
use libfuzzer_sys::fuzz_target;
use mesh::health::{Agent, Saved};
use mesh::registry::{Node, Registry};

const NOW: Micros = Micros(1_700_000_000_000_000);
/// How many of them follow one another.
const REQUESTS_MAX: usize = 16;

const PATHS: &[&str] = &[
    "/v1/agent/service/register", "/v1/agent/service/deregister/a", "/v1/agent/check/register", "/v1/agent/check/update/a",
    "/v1/agent/checks", "/v1/agent/services", "/v1/catalog/register", "/v1/catalog/deregister", "/v1/catalog/services",
    "/v1/health/service/a", "/v1/health/state/any", "/v1/kv/a", "/v1/session/create", "/prometheus/targets", "/v1/txn",
    "/v1/event/fire/a",
];

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    let node = Node { name: "n".into(), address: "10.0.0.1".into(), ..Node::default() };
    let registry = Registry::new(NOW, NodeId([1; 32]), 1, 0, node, Rng::new(1)).expect("it is a node");
    let mut agent = Agent::new(registry, Rng::new(1));
    let about = About { datacenter: "dc1".into(), version: "1".into(), leader: String::new(), peers: Vec::new() };
    let mut now = NOW;
    for _ in 0..REQUESTS_MAX {
        if input.is_empty() {
            break;
        }
        let choice = usize::from(input.byte());
        let own = String::from_utf8_lossy(input.piece()).into_owned();
        let path = PATHS.get(choice).map_or(own, |path| (*path).to_owned());
        let method = [Method::Get, Method::Put, Method::Delete, Method::Other][usize::from(input.byte() % 4)];
        let query = String::from_utf8_lossy(input.piece()).into_owned();
        let request = Request { method, path: &path, query: &query, body: input.piece() };
        let index = agent.registry().view().index();
        let Answer::Now(response) = answer(&mut agent, &about, now, &request, &Grant::all(), true) else {
            panic!("what has waited is answered");
        };
        assert!((200..600).contains(&response.code));
        if response.is_json {
            let text = std::str::from_utf8(&response.body).expect("JSON is text");
            serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
        }
        assert!(agent.registry().view().index() >= index, "an index fell");
        if let Ok(task) = kv::plan(&request, "n", "dc1", [1; 16]) {
            let _ = task.answer(&Reply::Int(1));
        }
        now = now.plus_millis(input.u64() % 100_000);
        agent.wake(now);
    }
    let saved = Saved::of(&agent, 1).encode();
    assert!(Saved::decode(&saved).is_ok(), "what is kept is read again");
});
