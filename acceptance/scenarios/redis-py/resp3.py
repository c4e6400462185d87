"""The third protocol: maps, sets, doubles, nulls and pushes as types."""

from harness import check, connect, equal, refused, run, until


@check
def hello_switches_the_protocol(r):
    with connect() as one:
        connection = one.connection_pool.get_connection()
        say = lambda *words: (connection.send_command(*words), connection.read_response())[1]
        answer = say("HELLO", 2)
        fields = dict(zip(answer[::2], answer[1::2]))
        equal((fields["proto"], fields["mode"], fields["role"]), (2, "standalone", "master"))
        refused(lambda: say("HELLO", 4), "unsupported protocol version")
        refused(lambda: say("HELLO", "abc"), "Protocol version is not an integer or out of range")
        refused(lambda: say("HELLO", 2, "WHAT"), "Syntax error in HELLO option")
        connection.disconnect()
    with connect(protocol=3) as three:
        answer = three.execute_command("HELLO", 3, "SETNAME", "me")
        equal(answer["proto"], 3)
        equal(three.client_getname(), "me")


@check
def replies_have_their_types(r):
    with connect(protocol=3) as three:
        three.hset("h", mapping={"a": 1, "b": 2})
        equal(three.hgetall("h"), {"a": "1", "b": "2"})
        three.sadd("s", "x", "y")
        equal(set(three.smembers("s")), {"x", "y"})
        three.zadd("z", {"a": 1.5, "b": float("inf")})
        equal(three.zscore("z", "a"), 1.5)
        equal(three.zscore("z", "b"), float("inf"))
        assert [list(pair) for pair in three.zrange("z", 0, -1, withscores=True)] == [["a", 1.5], ["b", float("inf")]]
        equal(three.get("none"), None)
        equal(three.lpop("none", 2), None)
        equal(three.zincrby("z", 1, "a"), 2.5)
        assert isinstance(three.config_get("maxmemory"), dict)


@check
def the_bytes_are_those_of_the_specification(r):
    import socket
    from harness import HOST, PORT

    with socket.create_connection((HOST, PORT)) as raw:
        raw.settimeout(20)
        stream = raw.makefile("rb")
        raw.sendall(b"HELLO 3\r\n")
        head = stream.readline()
        assert head.startswith(b"%"), head
        pending = int(head[1:]) * 2
        while pending:
            line = stream.readline()
            if line[:1] in b"$":
                stream.readline()
            elif line[:1] in b"*%~":
                pending += int(line[1:]) * (2 if line[:1] == b"%" else 1)
            pending -= 1
        for request, reply in [
            (b"GET none\r\n", b"_\r\n"),
            (b"ZADD z 1.5 a\r\n", b":1\r\n"),
            (b"ZSCORE z a\r\n", b",1.5\r\n"),
            (b"HSET h f v\r\n", b":1\r\n"),
            (b"HGETALL h\r\n", b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n"),
            (b"SADD s m\r\n", b":1\r\n"),
            (b"SMEMBERS s\r\n", b"~1\r\n$1\r\nm\r\n"),
            (b"ZRANGE z 0 -1 WITHSCORES\r\n", b"*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"),
            (b"SUBSCRIBE c\r\n", b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
            (b"PING\r\n", b"+PONG\r\n"),
        ]:
            raw.sendall(request)
            equal(stream.read(len(reply)), reply)


@check
def pushes_arrive_beside_replies(r):
    with connect(protocol=3) as three, three.pubsub() as subscriber:
        subscriber.subscribe("c")
        until(lambda: (subscriber.get_message(timeout=0.05) or {}).get("type") == "subscribe", "subscribed")
        equal(r.publish("c", "x"), 1)
        found = []
        until(lambda: found.append(subscriber.get_message(timeout=0.05)) or any(found), "the message")
        equal([message for message in found if message][0]["data"], "x")


@check
def transactions_scripts_and_blocking_pops_work_too(r):
    with connect(protocol=3) as three:
        with three.pipeline(transaction=True) as pipe:
            equal(pipe.set("a", 1).incr("a").execute(), [True, 2])
        equal(three.eval("redis.setresp(3); return redis.call('HGETALL', KEYS[1])", 1, "none"), {})
        three.rpush("l", 1)
        equal(list(three.blpop("l", timeout=1)), ["l", "1"])


run()
