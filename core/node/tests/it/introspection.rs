//! INFO and COMMAND.

use crate::harness::Node;

#[test]
pub fn info_has_the_fields_that_clients_parse() {
    let mut node = Node::new();
    let client = node.client();
    node.ask(client, "SET a 1\r\nSELECT 3\r\nSET b 2 EX 100\r\nSET c 3");
    node.pass(2000);
    let info = node.ask(client, "INFO");
    for line in [
        "# Server",
        "redis_version:7.0.15",
        "redis_mode:standalone",
        "uptime_in_seconds:2",
        "# Clients",
        "connected_clients:1",
        "maxmemory:0",
        "loading:0",
        "aof_enabled:1",
        "role:master",
        "total_connections_received:1",
        "# CPU",
        "cluster_enabled:0",
        "# Keyspace",
        "db0:keys=1,expires=0,avg_ttl=0",
        "db3:keys=2,expires=1,avg_ttl=0",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{line} is not in {info}");
    }
    let section = node.ask(client, "INFO keyspace CLUSTER");
    let body = section.split_once("\r\n").expect("it is a bulk string").1;
    assert_eq!(
        body,
        "# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\
         db3:keys=2,expires=1,avg_ttl=0\r\n\r\n"
    );
    assert_eq!(node.ask(client, "INFO nosuch"), "$0\r\n\r\n");
}

#[test]
pub fn functions_can_be_cleared_and_listed_though_there_is_never_one() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("FUNCTION FLUSH", "+OK\r\n"),
            ("FUNCTION FLUSH ASYNC", "+OK\r\n"),
            ("FUNCTION FLUSH now", "-ERR FUNCTION FLUSH only supports SYNC|ASYNC option\r\n"),
            ("FUNCTION LIST", "*0\r\n"),
            ("FUNCTION LIST LIBRARYNAME a* WITHCODE", "*0\r\n"),
            ("FUNCTION LIST LIBRARYNAME", "-ERR library name argument was not given\r\n"),
            ("FUNCTION LIST foo", "-ERR Unknown argument foo\r\n"),
            ("FUNCTION DELETE lib", "-ERR Library not found\r\n"),
            ("FUNCTION KILL", "-NOTBUSY No scripts in execution right now.\r\n"),
            ("FUNCTION LOAD code", "-ERR FUNCTION LOAD is not offered by this server\r\n"),
            ("FUNCTION STATS", "-ERR unknown subcommand 'STATS'. Try FUNCTION HELP.\r\n"),
        ],
    );
}

#[test]
pub fn commands_are_told_from_the_tables() {
    let mut node = Node::new();
    let client = node.client();
    node.table(
        client,
        &[
            ("COMMAND COUNT x", "-ERR wrong number of arguments for 'command|count' command\r\n"),
            ("COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP.\r\n"),
            ("COMMAND INFO nosuch archipel.tick xadd", "*3\r\n$-1\r\n$-1\r\n$-1\r\n"),
            ("COMMAND GETKEYS nosuch a", "-ERR Invalid command specified\r\n"),
            ("COMMAND GETKEYS ping a", "-ERR The command has no key arguments\r\n"),
            ("COMMAND GETKEYS get a", "*1\r\n$1\r\na\r\n"),
            ("COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command\r\n"),
            ("COMMAND GETKEYS copy a b DB 1", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ("COMMAND GETKEYSANDFLAGS set a b", "*1\r\n*2\r\n$1\r\na\r\n*1\r\n+RW\r\n"),
            ("COMMAND LIST FILTERBY foo bar", "-ERR syntax error\r\n"),
            ("COMMAND LIST FILTERBY PATTERN mult*", "*1\r\n$5\r\nmulti\r\n"),
            ("COMMAND LIST FOO", "-ERR syntax error\r\n"),
            ("COMMAND DOCS nosuch", "*0\r\n"),
            (
                "COMMAND DOCS hget bitpos",
                "*4\r\n$4\r\nhget\r\n*4\r\n$7\r\nsummary\r\n$27\r\nTells the value of a field.\r\n\
                 $5\r\ngroup\r\n$4\r\nhash\r\n$6\r\nbitpos\r\n*4\r\n$7\r\nsummary\r\n\
                 $53\r\nFinds the first bit that is set or clear in a string.\r\n\
                 $5\r\ngroup\r\n$6\r\nbitmap\r\n",
            ),
            ("SCRIPT|LOAD x", "-ERR unknown command 'SCRIPT|LOAD', with args beginning with: 'x' \r\n"),
            ("CLIENT|ID", "-ERR unknown command 'CLIENT|ID', with args beginning with: \r\n"),
            ("SCRIPT EXISTS x", "*1\r\n:0\r\n"),
            (
                "COMMAND DOCS echo",
                "*2\r\n$4\r\necho\r\n*6\r\n$7\r\nsummary\r\n$21\r\nAnswers its argument.\r\n$5\r\nsince\r\n\
                 $5\r\n1.0.0\r\n$5\r\ngroup\r\n$10\r\nconnection\r\n",
            ),
        ],
    );
    let get = node.ask(client, "COMMAND INFO GET");
    assert!(
        get.starts_with("*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n")
    );
    let subs = node.ask(client, "COMMAND INFO config|get");
    assert!(subs.starts_with("*1\r\n*10\r\n$10\r\nconfig|get\r\n:-3\r\n"));
    let all = node.ask(client, "COMMAND");
    let count = node.ask(client, "COMMAND COUNT");
    assert_eq!(all.split_once("\r\n").expect("an array").0[1..], count.trim_end()[1..]);
}

#[test]
pub fn every_container_has_help() {
    let mut node = Node::new();
    let client = node.client();
    for name in
        ["ACL", "CLIENT", "COMMAND", "CONFIG", "DEBUG", "LATENCY", "MEMORY", "MODULE", "PUBSUB", "SLOWLOG"]
    {
        let help = node.ask(client, &format!("{name} HELP"));
        let lines: Vec<&str> = help.lines().collect();
        assert_eq!(lines[0], format!("*{}", lines.len() - 1), "{name}");
        assert!(lines[1].starts_with(&format!("+{name} <subcommand> ")), "{name}");
    }
}
