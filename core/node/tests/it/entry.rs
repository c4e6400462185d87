//! HELLO, AUTH, RESET, QUIT, and what may be sent before them.

use gateway::resp::{Secret, Users};
use node::Settings;

use crate::harness::{Node, START};

fn guarded() -> Node {
    let users = Users::open()
        .with(b"default", Secret::Plain(b"secret".as_slice().into()))
        .with(b"ann", Secret::Plain(b"apple".as_slice().into()));
    Node::with(Settings { users, started: START, ..Settings::default() })
}

#[test]
pub fn a_node_without_passwords_answers_as_redis_does() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("PING", "+PONG\r\n"),
            ("PING hi", "$2\r\nhi\r\n"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
            ("ECHO", "-ERR wrong number of arguments for 'echo' command\r\n"),
            ("FOO a b c", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' 'c' \r\n"),
            ("archipel.tick", "-ERR unknown command 'archipel.tick', with args beginning with: \r\n"),
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n"),
            ("HELLO 3 AUTH a b", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            (
                "HELLO 2 SETNAME 'a b'",
                "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
            ),
            (
                "AUTH x",
                "-ERR AUTH <password> called without any password configured for the default user. Are you sure \
                 your configuration is correct?\r\n",
            ),
            ("AUTH", "-ERR wrong number of arguments for 'auth' command\r\n"),
            ("AUTH a b c", "-ERR syntax error\r\n"),
            ("AUTH default x", "+OK\r\n"),
            ("AUTH nobody x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("ACL WHOAMI", "$7\r\ndefault\r\n"),
            ("ACL LIST", "*1\r\n$34\r\nuser default on nopass ~* &* +@all\r\n"),
            (
                "HELLO 2",
                "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:2\r\n\
                 $2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
                 $7\r\nmodules\r\n*0\r\n",
            ),
        ],
    );
    assert!(node.ask(client, "HELLO 3").starts_with("%7\r\n"));
    assert_eq!(node.ask(client, "GET nothing"), "_\r\n");
}

#[test]
pub fn nothing_but_entry_is_allowed_before_authentication() {
    const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
    let mut node = guarded();
    let client = node.client();
    node.table(
        client,
        &[
            ("GET a", NOAUTH),
            ("SET a b", NOAUTH),
            ("PING", NOAUTH),
            ("CLIENT ID", NOAUTH),
            ("CONFIG GET *", NOAUTH),
            ("SUBSCRIBE a", NOAUTH),
            ("MULTI", NOAUTH),
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n"),
            ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("AUTH ann secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("RESET", "+RESET\r\n"),
            ("AUTH secret", "+OK\r\n"),
            ("ACL WHOAMI", "$7\r\ndefault\r\n"),
            ("AUTH ann apple", "+OK\r\n"),
            ("ACL WHOAMI", "$3\r\nann\r\n"),
            ("RESET", "+RESET\r\n"),
            ("GET a", NOAUTH),
        ],
    );
    assert!(node.ask(client, "HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(node.ask(client, "HELLO 3 AUTH ann apple SETNAME me").starts_with("%7\r\n"));
    assert_eq!(node.ask(client, "CLIENT GETNAME"), "$2\r\nme\r\n");
}

#[test]
pub fn quit_answers_what_is_pending_and_closes() {
    let mut node = Node::new();
    let client = node.client();
    node.feed(client, "SET a 1\r\nQUIT\r\nPING\r\n");
    assert!(!node.output(client).1, "a write is not answered yet");
    node.settle();
    assert_eq!(node.output(client), ("+OK\r\n+OK\r\n".into(), true));
}

#[test]
pub fn replies_are_muted_as_asked() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("CLIENT REPLY FOO", "-ERR syntax error\r\n"),
            ("CLIENT REPLY SKIP", ""),
            ("SET a 1", ""),
            ("GET a", "$1\r\n1\r\n"),
            ("CLIENT REPLY OFF", ""),
            ("PING", ""),
            ("NOSUCH", ""),
            ("CLIENT REPLY ON", "+OK\r\n"),
            ("PING", "+PONG\r\n"),
        ],
    );
    assert_eq!(node.ask(client, "SET a 2\r\nCLIENT REPLY SKIP\r\nSET a 3\r\nGET a"), "+OK\r\n$1\r\n3\r\n");
}

#[test]
pub fn a_command_split_anywhere_is_the_same_command() {
    let text = "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\nPING\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1\r\nb\r\n";
    for at in 1..text.len() {
        let mut node = Node::new();
        let client = node.client();
        node.feed(client, &text[..at]);
        node.settle();
        node.feed(client, &text[at..]);
        node.settle();
        assert_eq!(node.read(client), ":1\r\n+PONG\r\n:0\r\n", "split at {at}");
    }
}
