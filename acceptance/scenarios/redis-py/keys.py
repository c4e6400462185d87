"""Keys of any type: names, expiry, copies, sorting."""

import time

from harness import check, connect, equal, refused, run, until


def one_of_each(r):
    r.set("string", "v")
    r.rpush("list", 1, 2)
    r.hset("hash", "f", "v")
    r.sadd("set", "a", "b")
    r.zadd("zset", {"a": 1})
    return ["string", "list", "hash", "set", "zset"]


@check
def types_and_existence(r):
    for name in one_of_each(r):
        equal(r.type(name), name)
    equal(r.type("none"), "none")
    equal(r.exists("string", "list", "string", "none"), 3)
    equal(r.touch("string", "none"), 1)
    equal(r.dbsize(), 5)
    equal(r.delete("string", "none"), 1)
    equal(r.unlink("list", "hash"), 2)
    equal(sorted(r.keys()), ["set", "zset"])
    assert r.randomkey() in ["set", "zset"]
    equal(r.flushdb(), True)
    equal(r.randomkey(), None)


@check
def patterns_in_keys(r):
    r.mset({name: 1 for name in ["hello", "hallo", "hxllo", "hllo", "heello", "h[llo", "a*b"]})
    for pattern, names in [
        ("h?llo", ["hallo", "hello", "h[llo", "hxllo"]),
        ("h*llo", ["hallo", "heello", "hello", "hllo", "h[llo", "hxllo"]),
        ("h[ae]llo", ["hallo", "hello"]),
        ("h[^e]llo", ["hallo", "h[llo", "hxllo"]),
        ("h[a-b]llo", ["hallo"]),
        ("h\\[llo", ["h[llo"]),
        ("a\\*b", ["a*b"]),
    ]:
        equal(sorted(r.keys(pattern)), sorted(names))


@check
def expiry_is_set_read_and_removed(r):
    r.set("k", 1)
    equal(r.ttl("k"), -1)
    equal(r.ttl("none"), -2)
    equal(bool(r.expire("none", 10)), False)
    equal(bool(r.expire("k", 100)), True)
    assert 95 <= r.ttl("k") <= 100
    equal(bool(r.expire("k", 200, nx=True)), False)
    equal(bool(r.expire("k", 50, gt=True)), False)
    equal(bool(r.expire("k", 200, gt=True)), True)
    equal(bool(r.expire("k", 300, lt=True)), False)
    equal(bool(r.expire("k", 100, xx=True)), True)
    equal(bool(r.persist("k")), True)
    equal(bool(r.persist("k")), False)
    equal(bool(r.expire("k", 10, gt=True)), False)
    equal(bool(r.pexpireat("k", 4_000_000_000_400)), True)
    equal(r.expiretime("k"), 4_000_000_000)
    equal(r.pexpiretime("k"), 4_000_000_000_400)
    equal(bool(r.expireat("k", 1)), True)
    equal(r.exists("k"), 0)
    refused(lambda: r.execute_command("EXPIRE", "k", "abc"), "value is not an integer or out of range")
    refused(lambda: r.execute_command("EXPIRE", "k", 10, "NX", "XX"), "NX and XX, GT or LT options at the same time are not compatible")
    r.set("k", 1)
    refused(lambda: r.expire("k", 9223372036854775807), "invalid expire time in 'expire' command")


@check
def an_expired_key_is_gone_for_every_command(r):
    for name in one_of_each(r):
        r.pexpire(name, 1)
    until(lambda: r.exists("string", "list", "hash", "set", "zset") == 0, "all keys expired")
    equal(r.keys(), [])
    equal(r.get("string"), None)
    equal(r.rpush("list", "new"), 1)
    equal(r.hlen("hash"), 0)
    equal(r.ttl("list"), -1)


@check
def keys_that_nobody_touches_expire_too(r):
    with r.pipeline(transaction=False) as pipe:
        for n in range(2000):
            pipe.set(f"k{n}", n, px=1 + n % 50)
        pipe.execute()
    until(lambda: r.dbsize() == 0, "2000 untouched keys expired")


@check
def the_deadline_is_not_early(r):
    begin = time.time()
    r.set("k", 1, px=300)
    until(lambda: r.get("k") is None, "the key expired")
    assert time.time() - begin >= 0.29


@check
def writes_keep_or_drop_the_deadline(r):
    for write, kept in [
        (lambda: r.append("k", "x"), True),
        (lambda: r.setrange("k", 0, "1"), True),
        (lambda: r.setbit("k", 1, 1), True),
        (lambda: r.getset("k", 2), False),
        (lambda: r.incr("k"), True),
        (lambda: r.rename("k", "k2") and r.rename("k2", "k"), True),
        (lambda: r.set("k", 1), False),
    ]:
        r.set("k", "1", ex=1000)
        try:
            write()
        except Exception:
            r.set("k", "1", ex=1000)
            r.incr("k")
        equal(r.ttl("k") > 0, kept)


@check
def rename_copy_and_move(r):
    r.set("a", 1, ex=100)
    equal(r.rename("a", "b"), True)
    assert r.ttl("b") > 0
    refused(lambda: r.rename("a", "b"), "no such key")
    r.set("c", 2)
    equal(bool(r.renamenx("b", "c")), False)
    equal(bool(r.renamenx("b", "d")), True)
    equal(bool(r.copy("d", "c")), False)
    equal(bool(r.copy("d", "c", replace=True)), True)
    equal(r.get("c"), "1")
    assert r.ttl("c") > 0
    equal(bool(r.copy("d", "e", destination_db=3)), True)
    equal(bool(r.move("c", 3)), True)
    equal(bool(r.move("c", 3)), False)
    with connect(db=3) as other:
        equal(sorted(other.keys()), ["c", "e"])
        other.rpush("l", 1, 2, 3)
        other.copy("l", "l2")
        other.rpush("l", 4)
        equal(other.lrange("l2", 0, -1), ["1", "2", "3"])


@check
def databases_are_apart(r):
    for n in range(16):
        with connect(db=n) as other:
            other.set("k", n)
    for n in range(16):
        with connect(db=n) as other:
            equal(other.get("k"), f"{n}")
    refused(lambda: connect(db=16).ping(), "DB index is out of range")
    with connect(db=5) as other:
        other.flushdb()
        equal(other.dbsize(), 0)
    equal(r.dbsize(), 1)
    equal(r.flushall(), True)
    with connect(db=7) as other:
        equal(other.dbsize(), 0)


@check
def sort_by_value_weight_and_field(r):
    r.rpush("l", 3, 1, 2, 10)
    equal(r.sort("l"), ["1", "2", "3", "10"])
    equal(r.sort("l", desc=True, start=1, num=2), ["3", "2"])
    equal(r.sort("l", alpha=True), ["1", "10", "2", "3"])
    r.mset({"w1": 30, "w2": 20, "w3": 10, "w10": 0, "o1": "one", "o2": "two", "o3": "three"})
    equal(r.sort("l", by="w*"), ["10", "3", "2", "1"])
    equal(r.sort("l", by="w*", get=["o*", "#"]), [None, "10", "three", "3", "two", "2", "one", "1"])
    for n, rank in [(1, 9), (2, 8), (3, 7), (10, 6)]:
        r.hset(f"h{n}", mapping={"rank": rank, "name": f"n{n}"})
    equal(r.sort("l", by="h*->rank", get="h*->name"), ["n10", "n3", "n2", "n1"])
    equal(r.sort("l", by="nosort"), ["3", "1", "2", "10"])
    equal(r.sort("l", store="d"), 4)
    equal(r.lrange("d", 0, -1), ["1", "2", "3", "10"])
    equal(r.execute_command("SORT_RO", "l", "LIMIT", 0, 1), ["1"])
    r.sadd("s", "b", "a", "c")
    equal(r.sort("s", alpha=True), ["a", "b", "c"])
    refused(lambda: r.sort("s"), "One or more scores can't be converted into double")


@check
def dump_and_restore_bring_back_every_type(r):
    with connect(decode_responses=False) as raw:
        names = one_of_each(r)
        dumps = {name: raw.dump(name) for name in names}
        refused(lambda: raw.restore("string", 0, dumps["string"]), "BUSYKEY")
        before = {name: raw.type(name) for name in names}
        r.flushall()
        for name, dump in dumps.items():
            equal(raw.restore(name, 0, dump), b"OK")
        equal({name: raw.type(name) for name in names}, before)
        equal(r.lrange("list", 0, -1), ["1", "2"])
        equal(r.hgetall("hash"), {"f": "v"})
        equal(r.zrange("zset", 0, -1, withscores=True), [("a", 1.0)])
        raw.restore("string", 100_000, dumps["list"], replace=True)
        assert r.type("string") == "list" and r.pttl("string") > 90_000
        broken = dumps["list"][:-1] + bytes([dumps["list"][-1] ^ 1])
        refused(lambda: raw.restore("x", 0, broken), "DUMP payload version or checksum are wrong")
        equal(raw.dump("none"), None)


@check
def object_and_memory_usage(r):
    for value, encoding in [("1", "int"), ("short", "embstr"), ("x" * 100, "raw")]:
        r.set("k", value)
        equal(r.object("encoding", "k"), encoding)
    assert r.object("idletime", "k") >= 0
    equal(r.object("refcount", "k"), 1)
    assert r.memory_usage("k") >= 100
    equal(r.memory_usage("none"), None)


run()
