//! `maxmemory` and its policy, set by clients.

use kernel::KeyspaceId;
use storage::store::Policy;

use crate::harness::Node;

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";

#[test]
pub fn a_limit_below_what_the_keys_need_refuses_writes_at_once() {
    let mut node = Node::new();
    let (client, other) = (node.client(), node.client());
    node.table(
        client,
        &[
            ("CONFIG SET maxmemory 1", "+OK\r\n"),
            ("SET a 1", OOM),
            ("CONFIG SET maxmemory 1mb", "+OK\r\n"),
            ("SET a 1", "+OK\r\n"),
            ("CONFIG SET maxmemory 1", "+OK\r\n"),
            ("CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$1\r\n1\r\n"),
            ("SET a 2", OOM),
            ("LPUSH l 1", OOM),
            ("GET a", "$1\r\n1\r\n"),
            ("EXPIRE a 100", ":1\r\n"),
            ("DEL a", ":1\r\n"),
            ("CONFIG SET maxmemory 0", "+OK\r\n"),
            ("SET a 2", "+OK\r\n"),
        ],
    );
    // All keyspaces together.
    node.ask(client, "SELECT 3\r\nMSET a 1 b 2 c 3 d 4\r\nCONFIG SET maxmemory 200");
    assert_eq!(node.ask(other, "SET a 1"), OOM);
}

#[test]
fn a_transaction_is_refused_as_in_redis_when_there_is_no_memory() {
    let mut node = Node::new();
    let (client, other) = (node.client(), node.client());
    let aborted = "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n";
    node.table(
        client,
        &[
            ("SET x value", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("GET x", "+QUEUED\r\n"),
            ("PING", "+QUEUED\r\n"),
        ],
    );
    node.ask(other, "CONFIG SET maxmemory 1");
    node.table(
        client,
        &[
            ("EXEC", "*2\r\n$5\r\nvalue\r\n+PONG\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET x 1", OOM),
            ("DISCARD", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("PING", OOM),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ],
    );
    node.ask(other, "CONFIG SET maxmemory 0");
    node.table(client, &[("MULTI", "+OK\r\n"), ("SET x 1", "+QUEUED\r\n"), ("GET x", "+QUEUED\r\n")]);
    node.ask(other, "CONFIG SET maxmemory 1");
    node.table(
        client,
        &[("EXEC", aborted), ("EXEC", "-ERR EXEC without MULTI\r\n"), ("GET x", "$5\r\nvalue\r\n")],
    );
}

#[test]
fn budgets_are_as_configured_until_a_client_gives_one_to_all() {
    let mut node = Node::with_memory(&[(0, 1000), (1, 2000)]);
    let client = node.client();
    let budgets = |node: &Node| [0, 1, 2].map(|at| node.worker.budget(at));
    assert_eq!(budgets(&node), [Some(1000), Some(2000), None]);
    node.ask(client, "CONFIG SET maxmemory-policy allkeys-lru");
    assert_eq!(budgets(&node), [Some(1000), Some(2000), None]);
    node.ask(client, "SET a 1\r\nCONFIG SET maxmemory 5000");
    let taken = node.worker.partitions()[0].store().memory_bytes();
    assert_eq!(budgets(&node), [Some(5000), Some(5000 - taken), Some(5000 - taken)]);
    // What is on its way out of one keyspace is the others' already.
    node.worker.evict(0, b"none", taken / 2);
    let left = 5000 - (taken - taken / 2);
    assert_eq!(budgets(&node), [Some(5000), Some(left), Some(left)]);
    node.settle();
    node.ask(client, "CONFIG SET maxmemory 0");
    assert_eq!(budgets(&node), [None; 3]);
}

#[test]
pub fn a_policy_holds_from_the_moment_it_is_set() {
    let mut node = Node::new();
    let client = node.client();
    let freq = "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                switching between policies at runtime LRU and LFU data will take some time to adjust.\r\n";
    let idle = "-ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                between policies at runtime LRU and LFU data will take some time to adjust.\r\n";
    node.table(
        client,
        &[
            ("CONFIG SET maxmemory-policy nosuch", "-ERR CONFIG SET failed (possibly related to argument 'maxmemory-policy') - argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction\r\n"),
            ("SET a 1", "+OK\r\n"),
            ("OBJECT FREQ a", freq),
            ("OBJECT IDLETIME a", ":0\r\n"),
            ("CONFIG SET maxmemory-policy allkeys-lfu", "+OK\r\n"),
            ("SET b 1", "+OK\r\n"),
            ("OBJECT FREQ b", ":5\r\n"),
            ("OBJECT FREQ none", "$-1\r\n"),
            ("OBJECT IDLETIME none", "$-1\r\n"),
            ("OBJECT IDLETIME b", idle),
            ("GET b", "$1\r\n1\r\n"),
            ("OBJECT FREQ b", ":6\r\n"),
        ],
    );
    for number in 0..node.shape.workers {
        let partitions = node.nth(number).partitions().iter();
        assert!(partitions.into_iter().all(|one| one.store().policy() == Policy::AllKeysLfu));
    }
    node.ask(client, "CONFIG SET maxmemory-policy noeviction");
    node.ask(client, "SET c 1");
    node.pass(7000);
    node.table(
        client,
        &[
            ("OBJECT IDLETIME c", ":7\r\n"),
            ("EXISTS c", ":1\r\n"),
            ("TYPE c", "+string\r\n"),
            ("OBJECT ENCODING c", "$3\r\nint\r\n"),
            ("OBJECT IDLETIME c", ":7\r\n"),
            ("TOUCH c none", ":1\r\n"),
            ("OBJECT IDLETIME c", ":0\r\n"),
        ],
    );
}

#[test]
pub fn info_counts_what_reads_find_and_what_goes() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(
        client,
        "SET a 1\r\nSET b 1 PX 100\r\nGET a\r\nGET none\r\nMGET a b c\r\nEXISTS a none\r\nHGET h f",
    );
    node.pass(200);
    let owner = node.owner();
    let evicted = owner.partitions().iter().position(|partition| partition.keyspace() == KeyspaceId(0));
    for _ in 0..2 {
        // The second time it is on its way out already.
        owner.evict(evicted.expect("it exists"), b"a", 100);
    }
    node.settle();
    let info = node.ask(client, "INFO stats");
    for line in ["expired_keys:1", "evicted_keys:1", "keyspace_hits:4", "keyspace_misses:4"] {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
    }
    node.ask(client, "CONFIG RESETSTAT");
    assert!(node.ask(client, "INFO stats").contains("keyspace_hits:0\r\nkeyspace_misses:0\r\n"));
}

#[test]
fn what_is_on_its_way_out_is_not_evicted_twice() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1\r\nSET b 1");
    let before = node.worker.partitions()[0].store().memory_bytes();
    node.worker.evict(0, b"a", before / 2);
    assert_eq!(node.worker.memory_after(0), before - before / 2);
    node.settle();
    assert_eq!(node.worker.memory_after(0), node.worker.partitions()[0].store().memory_bytes());
    node.log.full = true;
    node.worker.evict(0, b"b", 50);
    node.settle();
    assert_eq!(node.worker.memory_after(0), node.worker.partitions()[0].store().memory_bytes());
}
