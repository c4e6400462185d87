"""What no client should send, and clients that do not read: the error is Redis's, and they alone suffer.

Where a limit is ours and not Redis's, the check needs a node.
"""

import resource
import socket

from harness import HOST, PATIENCE_SECONDS, PORT, Skip, check, connect, equal, refused, run, until
from processes import BINARY, Server, resident_bytes

MIB = 1 << 20
#: A client that takes none of its replies is cut after this time.
STALL_SECONDS = 60


def node_check(function):
    """A check of a limit that Redis does not have."""
    return check(function) if BINARY else function


def raw(**options):
    connection = socket.create_connection((HOST, PORT), **options)
    connection.settimeout(PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def deaf():
    """A connection whose kernel takes little that is not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect((HOST, PORT))
    return connection


def answer(pieces):
    """What comes back until the server closes, for bytes sent in pieces."""
    with raw() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed before all was sent; the answer is still there, or lost with the reset
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received


def command(*words):
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


BROKEN = [
    (b"*abc\r\n", b"invalid multibulk length"),
    (b"*1a\r\n", b"invalid multibulk length"),
    (b"*+1\r\n", b"invalid multibulk length"),
    (b"* 1\r\n", b"invalid multibulk length"),
    (b"*1.0\r\n", b"invalid multibulk length"),
    (b"*01\r\n", b"invalid multibulk length"),
    (b"*\r\n", b"invalid multibulk length"),
    (b"*-\r\n", b"invalid multibulk length"),
    (b"*2147483648\r\n", b"invalid multibulk length"),
    (b"*9223372036854775807\r\n", b"invalid multibulk length"),
    (b"*9223372036854775808\r\n", b"invalid multibulk length"),
    (b"*99999999999999999999999\r\n", b"invalid multibulk length"),
    (b"*1\r\n$-1\r\n", b"invalid bulk length"),
    (b"*1\r\n$-5\r\n", b"invalid bulk length"),
    (b"*1\r\n$abc\r\n", b"invalid bulk length"),
    (b"*1\r\n$\r\n", b"invalid bulk length"),
    (b"*1\r\n$+4\r\n", b"invalid bulk length"),
    (b"*1\r\n$04\r\n", b"invalid bulk length"),
    (b"*1\r\n$ 4\r\n", b"invalid bulk length"),
    (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
    (b"*1\r\n$9223372036854775807\r\n", b"invalid bulk length"),
    (b"*1\r\n$9223372036854775808\r\n", b"invalid bulk length"),
    (b"*1\r\n$-9223372036854775809\r\n", b"invalid bulk length"),
    (b"*1\r\n:4\r\n", b"expected '$', got ':'"),
    (b"*1\r\nPING\r\n", b"expected '$', got 'P'"),
    (b"*2\r\n$4\r\nPING\r\n*1\r\n", b"expected '$', got '*'"),
    (b"GET \"a\r\n", b"unbalanced quotes in request"),
    (b"GET 'a'b\r\n", b"unbalanced quotes in request"),
]


@check
def broken_lengths_get_the_errors_of_redis_and_close_the_connection(r):
    for request, text in BROKEN:
        expected = b"-ERR Protocol error: " + text + b"\r\n"
        for how, pieces in [("whole", [request]), ("by bytes", [bytes([byte]) for byte in request])]:
            found = answer(pieces)
            assert found == expected, f"{request!r} {how}: {found!r} is not {expected!r}"
    equal(r.ping(), True)


@check
def what_came_before_a_broken_frame_is_answered(r):
    equal(answer([command(b"SET", b"a", b"1") + b"*x\r\n" + command(b"SET", b"a", b"2")]),
          b"+OK\r\n-ERR Protocol error: invalid multibulk length\r\n")
    equal(r.get("a"), "1")


@check
def lines_without_end_are_refused(r):
    long = b"a" * 70_000
    for start, text in [(b"", b"too big inline request"), (b"*", b"too big mbulk count string"),
                        (b"*1\r\n$", b"too big bulk count string")]:
        found = answer([start + long.replace(b"a", b"1")])
        # A close with input unread may reset the connection before the answer was read.
        assert found in (b"-ERR Protocol error: " + text + b"\r\n", b""), found[:100]
    equal(r.ping(), True)


@check
def a_million_arguments_are_taken(r):
    with raw() as connection:
        words = b"$1\r\nk\r\n" * (MIB - 1)
        connection.sendall(b"*%d\r\n$3\r\nDEL\r\n" % MIB + words)
        equal(connection.recv(64), b":0\r\n")
    equal(r.ping(), True)


@node_check
def more_than_a_million_arguments_are_refused_before_they_are_sent(_):
    equal(answer([b"*%d\r\n" % (MIB + 1)]), b"-ERR Protocol error: invalid multibulk length\r\n")


@check
def announced_bytes_that_do_not_come_take_no_memory(r):
    pid = r.info("server")["process_id"]
    before = resident_bytes(pid)
    waiting = [raw() for _ in range(50)]
    for connection in waiting:
        connection.sendall(b"*1000000\r\n$536870912\r\n")
    with raw() as last:
        last.sendall(b"PING\r\n")
        equal(last.recv(64), b"+PONG\r\n")
    equal(r.ping(), True)
    grown = resident_bytes(pid) - before
    assert not BINARY or grown < 16 * MIB, f"{grown} bytes"
    for connection in waiting:
        connection.close()


@check
def wrong_types_are_refused_and_nothing_changes(r):
    r.set("string", "x")
    r.rpush("list", "x")
    r.sadd("set", "x")
    r.hset("hash", "x", "x")
    r.zadd("zset", {"x": 1})
    calls = {
        "string": ["GET k", "INCR k", "APPEND k x", "SETRANGE k 0 x", "GETDEL k", "SETBIT k 0 1", "STRLEN k"],
        "list": ["LPUSH k x", "LPOP k", "LRANGE k 0 -1", "LSET k 0 x", "LMOVE k other LEFT RIGHT", "BLPOP k 1"],
        "set": ["SADD k x", "SREM k x", "SMEMBERS k", "SPOP k", "SINTERSTORE other k", "SMOVE k other x"],
        "hash": ["HSET k f x", "HGETALL k", "HINCRBY k f 1", "HDEL k f", "HRANDFIELD k"],
        "zset": ["ZADD k 1 x", "ZRANGE k 0 -1", "ZINCRBY k 1 x", "ZPOPMIN k", "BZPOPMIN k 1"],
    }
    for kind in calls:
        for other in calls.keys() - {kind}:
            before = r.dump(other)
            for call in calls[kind]:
                words = [other if word == "k" else word for word in call.split()]
                refused(lambda: r.execute_command(*words), "WRONGTYPE Operation against a key holding the wrong kind of value")
            equal(r.dump(other) == before, True)


@check
def numbers_out_of_range_are_refused(r):
    top = 2**63 - 1
    r.set("n", top)
    r.set("low", -top - 1)
    r.set("text", "abc")
    r.set("float", "1.5")
    r.hset("h", mapping={"n": top, "text": "abc"})
    r.zadd("z", {"inf": "inf", "one": 1})
    r.rpush("l", "a")
    integer, overflow, decimal = "value is not an integer or out of range", "would overflow", "not a valid float"
    for call, text in [
        ("INCR n", overflow), ("INCRBY n 1", overflow), ("DECR low", overflow), ("DECRBY low 1", overflow),
        (f"DECRBY n {-top - 1}", "decrement would overflow"), (f"INCRBY n {top + 1}", integer), ("INCRBY n 1.0", integer),
        ("INCRBY n +1", integer), ("INCRBY n 01", integer), ("INCR text", integer), ("INCR float", integer),
        ("INCRBYFLOAT text 1", decimal), ("INCRBYFLOAT float nan", decimal), ("INCRBYFLOAT float inf", "NaN or Infinity"),
        ("INCRBYFLOAT float 1e5000", decimal), ("HINCRBY h n 1", overflow), ("HINCRBY h text 1", "hash value is not an integer"),
        ("HINCRBYFLOAT h text 1", "hash value is not a float"), ("ZADD z nan m", decimal), ("ZADD z abc m", decimal), ("ZADD z 1 m 1e400x n", decimal),
        ("ZADD z INCR -inf inf", "resulting score is not a number (NaN)"), ("ZINCRBY z -inf inf", "resulting score is not a number (NaN)"),
        ("ZINCRBY z nan one", decimal), ("ZRANGEBYSCORE z nan 1", "min or max is not a float"), ("ZRANGEBYLEX z a b", "min or max not valid string range item"),
        ("ZUNIONSTORE d 1 z WEIGHTS nan", "weight value is not a float"), ("ZUNIONSTORE d 0 z", "at least 1 input key"),
        ("ZUNIONSTORE d 99999999999 z", "syntax error"), ("ZUNIONSTORE d 99999999999999999999 z", integer),
        ("SETRANGE text 536870912 x", "string exceeds maximum allowed size"), ("SETRANGE text -1 x", "offset is out of range"),
        ("SETBIT text 4294967296 1", "bit offset is not an integer or out of range"), ("SETBIT text -1 1", "bit offset is not an integer"),
        ("SETBIT text 1 2", "bit is not an integer or out of range"), ("BITFIELD text GET u64 0", "Invalid bitfield type"),
        ("SET text x EX 0", "invalid expire time"), ("SET text x EX -1", "invalid expire time"), (f"SET text x EX {top}", "invalid expire time"),
        (f"EXPIRE text {top}", "invalid expire time"), (f"PEXPIRE text {top}", "invalid expire time"), ("EXPIRE text 1.5", integer),
        ("LPOP l -1", "value is out of range, must be positive"), ("LSET l 9 x", "index out of range"), ("LSET l a x", integer),
        ("SRANDMEMBER s abc", integer), ("SPOP s -1", "value is out of range, must be positive"), ("GETRANGE text a 1", integer),
        ("BLPOP l nan", "timeout is not a float"), ("BLPOP l -1", "timeout is negative"), ("SCAN abc", "invalid cursor"), ("SELECT 99999999999", "value is out of range, value must between"),
        ("SELECT 16", "DB index is out of range"), ("SELECT -1", "DB index is out of range"),
    ]:
        try:
            refused(lambda: r.execute_command(*call.split()), text)
        except AssertionError as error:
            raise AssertionError(f"{call}: {error}") from None
    equal(r.mget("n", "low", "text", "float"), [f"{top}", f"{-top - 1}", "abc", "1.5"])
    equal(r.zrange("z", 0, -1, withscores=True), [("one", 1.0), ("inf", float("inf"))])
    equal(r.exists("d"), 0)


@node_check
def keys_longer_than_the_engine_takes_are_refused(r):
    longest, longer = "k" * 60 * 1024, "k" * (60 * 1024 + 1)
    equal(r.set(longest, 1), True)
    equal(r.get(longest), "1")
    for call in [("SET", longer, "1"), ("LPUSH", longer, "1"), ("RENAME", longest, longer), ("SADD", longer, "1"),
                 ("HSET", longer, "f", "1"), ("ZADD", longer, "1", "m"), ("COPY", longest, longer), ("MSET", "a", "1", longer, "1"),
                 ("SETBIT", longer, "1", "1"), ("SUNIONSTORE", longer, "s"), ("RPOPLPUSH", "l", longer)]:
        if call[0] == "RPOPLPUSH":
            r.rpush("l", 1)
        if call[0] == "SUNIONSTORE":
            r.sadd("s", 1)
        refused(lambda: r.execute_command(*call), "key of 61441 bytes is longer than the limit")
    equal(r.get(longer), None)
    equal(r.exists("a"), 0)
    equal(r.llen("l"), 1)


@check
def a_subscriber_that_does_not_read_is_cut_and_the_others_get_everything(r):
    pid = r.info("server")["process_id"]
    payload = "x" * 100_000
    with deaf() as slow, connect() as other:
        own = other.pubsub()
        own.subscribe("news")
        slow.sendall(b"CLIENT SETNAME slow\r\nSUBSCRIBE news\r\n")
        until(lambda: dict(r.pubsub_numsub("news"))["news"] == 2, "two subscribers")
        before, receivers, sent = resident_bytes(pid), 2, 0
        while receivers == 2:
            receivers = r.publish("news", payload)
            sent += len(payload)
            message = None
            while not message or message["type"] != "message":
                message = own.get_message(timeout=PATIENCE_SECONDS)
            equal(message["data"] == payload, True)
            assert sent < 200 * MIB, "it is never cut"
        until(lambda: "slow" not in {client["name"] for client in r.client_list()}, "it is gone")
        assert sent >= 16 * MIB, f"cut after {sent} bytes"
        grown = resident_bytes(pid) - before
        assert grown < 100 * MIB, f"{grown} bytes"
        equal(r.publish("news", "last"), 1)


@node_check
def a_client_that_does_not_read_holds_little_and_hurts_nobody(r):
    r.set("big", "x" * 100_000)
    pid = r.info("server")["process_id"]
    before = resident_bytes(pid)
    slow = [deaf() for _ in range(4)]
    for connection in slow:
        connection.setblocking(False)
        for _ in range(5000):  # 500 MB of replies
            try:
                connection.sendall(b"GET big\r\n")
            except BlockingIOError:
                break
    for n in range(2000):
        r.set(f"k{n}", n)
    equal(r.get("k1999"), "1999")
    grown = resident_bytes(pid) - before
    assert grown < 32 * MIB, f"{grown} bytes"
    for connection in slow:
        connection.close()


@check
def a_slow_reader_gets_everything(r):
    r.set("big", "x" * 3_000_000)
    with deaf() as slow:
        slow.sendall(b"GET big\r\n" * 4 + b"PING\r\n")
        stream = slow.makefile("rb")
        for _ in range(4):
            equal(stream.readline(), b"$3000000\r\n")
            equal(stream.read(3_000_002) == b"x" * 3_000_000 + b"\r\n", True)
        equal(stream.readline(), b"+PONG\r\n")


@check
def ten_thousand_idle_connections_take_little_memory(_):
    count, files = 10_000, 10_300
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        if hard != resource.RLIM_INFINITY and hard < files:
            raise Skip(f"it needs {files} open files, the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    with Server("idle", clients=count + 100) as server:
        connections = []
        try:
            with server.connect() as client:
                before = server.resident_bytes()
                for _ in range(count):
                    connection = socket.create_connection(("127.0.0.1", server.port))
                    connection.settimeout(PATIENCE_SECONDS)
                    connections.append(connection)
                    connection.sendall(b"PING\r\n")
                    equal(connection.recv(16), b"+PONG\r\n")
                assert client.info("clients")["connected_clients"] > count
                each = (server.resident_bytes() - before) // count
                assert not BINARY or each <= 4096, f"{each} bytes each"
        finally:
            for connection in connections:
                connection.close()


@node_check
def a_client_that_never_reads_is_cut_in_the_end(r):
    with deaf() as slow:
        slow.sendall(b"CLIENT SETNAME deaf\r\n")
        equal(slow.recv(5), b"+OK\r\n")
        r.set("big", "x" * 3_000_000)
        slow.sendall(b"GET big\r\n" * 20)

        def is_there():
            return "deaf" in {client["name"] for client in r.client_list()}

        equal(is_there(), True)
        until(lambda: not is_there(), "it is cut", seconds=STALL_SECONDS + PATIENCE_SECONDS)
        equal(r.ping(), True)


run()
