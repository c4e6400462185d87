"""Connections and the server: CLIENT, CONFIG, INFO, COMMAND, errors in requests."""

import resource
import socket

from harness import HOST, PORT, check, connect, equal, refused, run, until


@check
def ping_echo_time_and_select(r):
    equal(r.ping(), True)
    equal(r.echo("text"), "text")
    seconds, micros = r.time()
    assert seconds > 1_600_000_000 and 0 <= micros < 1_000_000
    equal(r.execute_command("SELECT", 1), True)
    refused(lambda: r.execute_command("SELECT", "abc"), "value is not an integer or out of range")


@check
def clients_have_names_ids_and_a_list(r):
    with connect() as other:
        equal(other.client_setname("worker"), True)
        equal(other.client_getname(), "worker")
        refused(lambda: other.client_setname("a b"), "Client names cannot contain spaces")
        own = other.client_id()
        assert own != r.client_id()
        listed = {int(client["id"]): client for client in r.client_list()}
        equal(listed[own]["name"], "worker")
        assert "addr" in listed[own] and "db" in listed[own] and "cmd" in listed[own]
        equal(r.client_list(client_id=[own])[0]["name"], "worker")
        equal(other.client_info()["name"], "worker")
        equal(r.client_kill_filter(_id=own), 1)
        until(lambda: own not in {int(client["id"]) for client in r.client_list()}, "the client is gone")


@check
def client_reply_and_no_evict(r):
    with socket.create_connection((HOST, PORT)) as raw:
        raw.settimeout(20)
        raw.sendall(b"CLIENT REPLY OFF\r\nSET a 1\r\nCLIENT REPLY ON\r\n")
        stream = raw.makefile("rb")
        equal(stream.readline(), b"+OK\r\n")
        raw.sendall(b"CLIENT REPLY SKIP\r\nSET a 2\r\nGET a\r\n")
        equal(stream.readline(), b"$1\r\n")
    equal(r.execute_command("CLIENT", "NO-EVICT", "ON"), "OK")


@check
def config_reads_and_sets(r):
    config = r.config_get("*")
    assert "maxmemory" in config and "appendfsync" in config, sorted(config)
    equal(set(r.config_get("maxmemory", "databases")), {"maxmemory", "databases"})
    equal(r.config_get("databases"), {"databases": "16"})
    equal(r.config_get("no-such-setting"), {})
    refused(lambda: r.config_set("no-such-setting", 1), "Unknown option")
    equal(r.config_resetstat(), True)


@check
def info_has_its_sections(r):
    everything = r.info()
    for field in ["redis_version", "uptime_in_seconds", "connected_clients", "used_memory", "total_commands_processed", "role", "process_id"]:
        assert field in everything, field
    assert everything["redis_version"].startswith("7."), everything["redis_version"]
    r.set("k", 1, ex=100)
    equal({name: r.info("keyspace")["db0"][name] for name in ["keys", "expires"]}, {"keys": 1, "expires": 1})
    assert "connected_clients" in r.info("clients")


@check
def commands_describe_themselves(r):
    assert r.command_count() > 150
    get = r.execute_command("COMMAND INFO", "get")
    described = get["get"] if isinstance(get, dict) else get[0]
    text = str(described)
    assert "readonly" in text and "fast" in text, text
    docs = r.execute_command("COMMAND DOCS", "set")
    assert "summary" in str(docs), docs
    equal(r.execute_command("COMMAND GETKEYS", "MSET", "a", 1, "b", 2), ["a", "b"])
    assert "get" in r.execute_command("COMMAND LIST")


@check
def slow_log_latency_and_memory_answer(r):
    equal(r.slowlog_reset(), True)
    assert r.slowlog_len() >= 0
    assert isinstance(r.slowlog_get(10), list)
    equal(r.execute_command("LATENCY", "LATEST"), [])
    equal(r.execute_command("LATENCY", "RESET"), 0)
    r.set("measured", 1)
    histogram = r.execute_command("LATENCY", "HISTOGRAM", "set", "nosuch")
    name, described = histogram[0], histogram[1]
    equal(name, "set")
    equal([described[0], described[2]], ["calls", "histogram_usec"])
    assert described[1] >= 1 and described[3][-1] == described[1], described
    equal(r.wait(0, 10), 0)


@check
def wrong_requests_get_the_errors_of_redis(r):
    for words, text in [
        (["NOSUCH", "a", "b"], "unknown command 'NOSUCH', with args beginning with: 'a' 'b'"),
        (["GET"], "wrong number of arguments for 'get' command"),
        (["CLIENT", "NOSUCH"], "unknown subcommand 'NOSUCH'. Try CLIENT HELP."),
        (["CLIENT", "SETNAME"], "wrong number of arguments for 'client|setname' command"),
        (["CONFIG", "GET"], "wrong number of arguments for 'config|get' command"),
        (["OBJECT", "NOSUCH", "k"], "unknown subcommand 'NOSUCH'. Try OBJECT HELP."),
    ]:
        refused(lambda: r.execute_command(*words), text)
    answer = exchange(b"AUTH secret\r\n")
    assert answer.startswith(b"-ERR AUTH <password> called without any password configured"), answer


def exchange(request, size=65536):
    """Sends raw bytes; what comes back until the server closes or a line is complete."""
    with socket.create_connection((HOST, PORT)) as raw:
        raw.settimeout(20)
        raw.sendall(request)
        return raw.recv(size)


@check
def broken_frames_are_refused_and_hurt_nobody_else(r):
    for request, reply in [
        (b"*abc\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*99999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$abc\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$999999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n:1\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (b'SET a "unbalanced\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    ]:
        equal(exchange(request), reply)
    equal(r.ping(), True)


@check
def inline_commands_and_empty_requests(r):
    equal(exchange(b"SET a 'one two'\r\n"), b"+OK\r\n")
    equal(r.get("a"), "one two")
    equal(exchange(b'SET a "x\\x41\\n"\r\n'), b"+OK\r\n")
    equal(r.get("a"), "xA\n")
    equal(exchange(b"\r\n*0\r\n*-1\r\nPING\r\n"), b"+PONG\r\n")


@check
def bytes_may_arrive_one_at_a_time(r):
    with socket.create_connection((HOST, PORT)) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(20)
        for byte in b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nx\r\nyz\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n":
            raw.sendall(bytes([byte]))
        stream = raw.makefile("rb")
        equal(stream.read(5 + 11), b"+OK\r\n$5\r\nx\r\nyz\r\n")


@check
def a_command_of_many_arguments(r):
    words = [f"v{n}" for n in range(100_000)]
    equal(r.rpush("l", *words), 100_000)
    equal(r.lrange("l", -1, -1), ["v99999"])
    equal(r.delete(*words), 0)


@check
def quit_answers_and_closes(r):
    with socket.create_connection((HOST, PORT)) as raw:
        raw.settimeout(20)
        raw.sendall(b"QUIT\r\n")
        equal(raw.makefile("rb").read(), b"+OK\r\n")


@check
def a_thousand_connections_are_served(r):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048 if hard == resource.RLIM_INFINITY else min(2048, hard), hard))
    connections = []
    try:
        for _ in range(1000):
            connections.append(socket.create_connection((HOST, PORT)))
        for raw in connections:
            raw.sendall(b"INCR n\r\n")
        for raw in connections:
            raw.settimeout(20)
            assert raw.recv(64).startswith(b":")
        equal(r.get("n"), "1000")
    finally:
        for raw in connections:
            raw.close()


run()
