//! LATENCY HISTOGRAM: which commands are measured, and under which names. What is measured is the host's.

use crate::harness::Node;

/// What is answered of commands that were run so often, in RESP2.
fn told(runs: &[(&str, u64)]) -> String {
    let one = |(name, calls): &(&str, u64)| {
        format!(
            "${}\r\n{name}\r\n*4\r\n$5\r\ncalls\r\n:{calls}\r\n$14\r\nhistogram_usec\r\n*2\r\n:2\r\n:{calls}\r\n",
            name.len()
        )
    };
    format!("*{}\r\n{}", 2 * runs.len(), runs.iter().map(one).collect::<String>())
}

#[test]
pub fn every_command_is_in_its_histogram() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET k v\r\nGET k\r\nGET k\r\nSELECT 3\r\nSET k v\r\nGET k\r\nSELECT 0\r\nPING");
    node.ask(client, "CONFIG GET port");
    node.ask(client, "GET too many words\r\nNOSUCH");
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM nosuch"), "*0\r\n");
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM SET"), told(&[("set", 2)]));
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM get nosuch ping"), told(&[("get", 3), ("ping", 1)]));
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM config"), told(&[("config|get", 1)]));
    let all =
        [("config|get", 1), ("get", 3), ("latency|histogram", 4), ("ping", 1), ("select", 2), ("set", 2)];
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM"), told(&all));
    node.ask(client, "HELLO 3");
    let told = "%1\r\n$3\r\nset\r\n%2\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n%1\r\n:2\r\n:2\r\n";
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM set"), told);
}

#[test]
pub fn who_waits_is_measured_when_served_and_a_transaction_as_one() {
    let mut node = Node::new();
    let (client, other) = (node.client(), node.client());
    node.ask(client, "BLPOP l 0");
    assert_eq!(node.ask(other, "LATENCY HISTOGRAM blpop"), "*0\r\n");
    node.ask(other, "RPUSH l a");
    assert_eq!(node.read(client), "*2\r\n$1\r\nl\r\n$1\r\na\r\n");
    node.ask(other, "MULTI\r\nSET k v\r\nGET k\r\nEXEC");
    let runs = told(&[("blpop", 1), ("rpush", 1), ("exec", 1)]);
    assert_eq!(node.ask(other, "LATENCY HISTOGRAM blpop rpush exec set"), runs);
    // Expiry is the node's own work.
    node.ask(other, "SET k v PX 1");
    node.pass(10);
    assert_eq!(node.ask(other, "EXISTS k"), ":0\r\n");
    assert!(!node.ask(other, "LATENCY HISTOGRAM").contains("archipel"));
}

#[test]
pub fn histograms_are_forgotten_with_the_counters() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET k v\r\nSELECT 1\r\nSET k v");
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM set"), told(&[("set", 2)]));
    node.ask(client, "CONFIG RESETSTAT");
    assert_eq!(node.ask(client, "LATENCY HISTOGRAM set"), "*0\r\n");
}
