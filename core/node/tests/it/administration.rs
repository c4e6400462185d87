//! CLIENT, CONFIG, SHUTDOWN, SLOWLOG and the like.

use gateway::resp::Request;

use crate::harness::Node;

#[test]
pub fn refusals_read_as_in_redis() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
            ("CLIENT foo", "-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n"),
            ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
            (
                "CLIENT SETNAME 'a b'",
                "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
            ),
            ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
            ("CLIENT LIST ID x", "-ERR Invalid client ID\r\n"),
            ("CLIENT LIST FOO", "-ERR syntax error\r\n"),
            ("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL FOO BAR", "-ERR syntax error\r\n"),
            ("CLIENT KILL 1.1.1.1:1", "-ERR No such client\r\n"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
            ("CLIENT KILL USER foo", "-ERR No such user 'foo'\r\n"),
            ("CLIENT KILL SKIPME foo", "-ERR syntax error\r\n"),
            ("CLIENT KILL ID 99", ":0\r\n"),
            ("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range\r\n"),
            ("CLIENT PAUSE -1", "-ERR timeout is negative\r\n"),
            ("CLIENT PAUSE 1 foo", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n"),
            ("CLIENT UNBLOCK x", "-ERR value is not an integer or out of range\r\n"),
            ("CLIENT UNBLOCK 5 foo", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n"),
            ("CLIENT UNBLOCK 5", ":0\r\n"),
            ("CLIENT NO-EVICT foo", "-ERR syntax error\r\n"),
            ("CLIENT GETREDIR", ":-1\r\n"),
            ("CLIENT GETNAME", "$-1\r\n"),
            ("REPLICAOF a b", "-ERR Invalid master port\r\n"),
            ("REPLICAOF no one", "+OK\r\n"),
            ("WAIT a 1", "-ERR value is not an integer or out of range\r\n"),
            ("WAIT 1 -1", "-ERR timeout is negative\r\n"),
            ("WAIT 0 x", "-ERR timeout is not an integer or out of range\r\n"),
            ("WAIT 0 0", ":0\r\n"),
            ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            ("SLOWLOG GET x", "-ERR count should be greater than or equal to -1\r\n"),
            ("SLOWLOG FOO", "-ERR unknown subcommand 'FOO'. Try SLOWLOG HELP.\r\n"),
            ("LATENCY GRAPH foo", "-ERR No samples available for event 'foo'\r\n"),
            ("LATENCY HISTORY foo", "*0\r\n"),
            ("ACL CAT foo", "-ERR Unknown category 'foo'\r\n"),
            ("ACL GETUSER nope", "$-1\r\n"),
            ("READONLY", "-ERR This instance has cluster support disabled\r\n"),
            ("CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n"),
            ("MODULE LIST", "*0\r\n"),
            ("SHUTDOWN foo", "-ERR syntax error\r\n"),
            ("SHUTDOWN ABORT", "-ERR No shutdown in progress.\r\n"),
            ("XADD s * a b", "-ERR the command 'xadd' (stream) is not offered by this server\r\n"),
            ("BGSAVE FOO", "-ERR syntax error\r\n"),
            ("TIME", "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n"),
        ],
    );
}

#[test]
pub fn settings_are_read_by_patterns_and_changed_all_or_none() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n"),
            ("CONFIG GET nosuch", "*0\r\n"),
            ("CONFIG GET timeout HZ tim*", "*4\r\n$2\r\nhz\r\n$2\r\n10\r\n$7\r\ntimeout\r\n$1\r\n0\r\n"),
            ("CONFIG SET a", "-ERR wrong number of arguments for 'config|set' command\r\n"),
            ("CONFIG SET a b c", "-ERR syntax error\r\n"),
            ("CONFIG SET nosuch 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'\r\n"),
            (
                "CONFIG SET maxmemory foo",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory \
                 value\r\n",
            ),
            (
                "CONFIG SET maxmemory 1 maxmemory 2",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - duplicate parameter\r\n",
            ),
            (
                "CONFIG SET databases 1",
                "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config\r\n",
            ),
            (
                "CONFIG SET timeout -1",
                "-ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and \
                 2147483647 inclusive\r\n",
            ),
            (
                "CONFIG SET timeout foo",
                "-ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed \
                 into an integer\r\n",
            ),
            ("CONFIG SET maxmemory 1mb timeout 7", "+OK\r\n"),
            ("CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$7\r\n1048576\r\n"),
        ],
    );
}

#[test]
pub fn requests_reach_the_process_once() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("SAVE", "+OK\r\n"),
            ("BGSAVE", "+Background saving started\r\n"),
            ("BGREWRITEAOF", "+Background append only file rewriting started\r\n"),
            ("LASTSAVE", ":0\r\n"),
        ],
    );
    assert_eq!(node.requests(), [Request::Checkpoint]);
    assert_eq!(node.ask(client, "SHUTDOWN NOSAVE"), "");
    assert_eq!(node.requests(), [Request::Stop { save: false }]);
}

#[test]
pub fn clients_are_listed_and_cut() {
    let mut node = Node::new();
    let (a, b, c) = (node.client(), node.client(), node.client());
    node.ask(b, "CLIENT SETNAME bee");
    node.ask(c, "SUBSCRIBE x");
    let list = node.ask(a, "CLIENT LIST");
    let lines: Vec<&str> = list.lines().filter(|line| line.starts_with("id=")).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains("id=1 addr=127.0.0.1:1000 ") && lines[0].contains(" cmd=client|list "));
    assert!(lines[1].contains(" name=bee ") && lines[1].contains(" flags=N "));
    assert!(lines[2].contains(" flags=P ") && lines[2].contains(" sub=1 "));
    assert_eq!(
        node.ask(a, "CLIENT LIST TYPE pubsub").lines().filter(|line| line.contains("id=3")).count(),
        1
    );
    assert_eq!(node.ask(a, "CLIENT KILL ID 2"), ":1\r\n");
    assert!(node.output(b).1);
    assert_eq!(node.ask(b, "PING"), "");
    assert_eq!(node.ask(a, "CLIENT KILL TYPE pubsub"), ":1\r\n");
    assert_eq!(node.ask(a, "PUBLISH x y"), ":0\r\n");
    assert_eq!(node.ask(a, "CLIENT KILL TYPE normal"), ":0\r\n");
    node.feed(a, "CLIENT KILL 127.0.0.1:1000\r\nPING\r\n");
    node.settle();
    assert_eq!(node.output(a), ("+OK\r\n".into(), true));
}

#[test]
pub fn a_pause_holds_back_what_it_says() {
    for (mode, get) in [("WRITE", "$-1\r\n"), ("ALL", "")] {
        let mut node = Node::new();
        let (a, b) = (node.client(), node.client());
        assert_eq!(node.ask(a, &format!("CLIENT PAUSE 100 {mode}")), "+OK\r\n");
        assert_eq!(node.ask(a, "GET k"), get, "{mode}");
        assert_eq!(node.ask(b, "SET k v"), "", "{mode}");
        node.pass(50);
        assert_eq!(node.read(b), "", "{mode}");
        node.pass(50);
        assert_eq!(node.read(b), "+OK\r\n", "{mode}");
    }
    let mut node = Node::new();
    let (a, b) = (node.client(), node.client());
    node.ask(a, "CLIENT PAUSE 100000 WRITE");
    assert_eq!(node.ask(b, "SET k v\r\nGET k"), "");
    assert_eq!(node.ask(a, "CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!(node.read(b), "+OK\r\n$1\r\nv\r\n");
}

#[test]
pub fn debug_sleep_holds_only_its_own_connection() {
    let mut node = Node::new();
    let (a, b) = (node.client(), node.client());
    assert_eq!(node.ask(a, "DEBUG SLEEP 0.2\r\nPING"), "");
    assert_eq!(node.ask(b, "PING"), "+PONG\r\n");
    node.pass(199);
    assert_eq!(node.read(a), "");
    node.pass(1);
    assert_eq!(node.read(a), "+OK\r\n+PONG\r\n");
}

#[test]
pub fn idle_clients_are_cut_when_asked_for() {
    let mut node = Node::new();
    let (a, b, listener) = (node.client(), node.client(), node.client());
    node.ask(listener, "SUBSCRIBE x");
    node.ask(a, "CONFIG SET timeout 5");
    for _ in 0..6 {
        node.pass(1000);
        assert_eq!(node.ask(a, "PING"), "+PONG\r\n");
    }
    assert!(node.output(b).1);
    assert!(!node.output(listener).1);
    assert!(!node.output(a).1);
}

#[test]
pub fn slow_turns_name_their_heaviest_command() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "CLIENT SETNAME me");
    node.feed(client, "GET a\r\nSET a 1\r\nFLUSHDB ASYNC\r\nGET a\r\n");
    node.settle();
    node.read(client);
    node.worker.turn_took(node.now, 9_999);
    assert_eq!(node.ask(client, "SLOWLOG LEN"), ":0\r\n");
    node.feed(client, "GET a\r\nFLUSHDB ASYNC\r\nSET a 1\r\n");
    node.settle();
    node.read(client);
    node.worker.turn_took(node.now, 20_000);
    node.table(
        client,
        &[
            (
                "SLOWLOG GET",
                "*1\r\n*6\r\n:0\r\n:1700000000\r\n:20000\r\n*2\r\n$7\r\nflushdb\r\n$5\r\nASYNC\r\n\
                 $14\r\n127.0.0.1:1000\r\n$2\r\nme\r\n",
            ),
            ("SLOWLOG RESET", "+OK\r\n"),
            ("SLOWLOG LEN", ":0\r\n"),
            ("LATENCY LATEST", "*0\r\n"),
            ("CONFIG SET latency-monitor-threshold 10", "+OK\r\n"),
        ],
    );
    node.worker.spike("log-sync", node.now, 15);
    node.worker.spike("log-sync", node.now, 9);
    node.table(
        client,
        &[
            ("LATENCY LATEST", "*1\r\n*4\r\n$8\r\nlog-sync\r\n:1700000000\r\n:15\r\n:15\r\n"),
            ("LATENCY HISTORY log-sync", "*1\r\n*2\r\n:1700000000\r\n:15\r\n"),
            ("LATENCY RESET nosuch", ":0\r\n"),
            ("LATENCY RESET", ":1\r\n"),
        ],
    );
}
