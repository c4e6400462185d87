"""Hashes, small and large."""

from harness import check, equal, refused, run


@check
def fields_are_set_read_and_deleted(r):
    equal(r.hset("h", "a", 1), 1)
    equal(r.hset("h", "a", 2), 0)
    equal(r.hset("h", mapping={"b": 3, "c": 4}), 2)
    equal(r.hget("h", "a"), "2")
    equal(r.hget("h", "z"), None)
    equal(r.hmget("h", "a", "z", "c"), ["2", None, "4"])
    equal(r.hgetall("h"), {"a": "2", "b": "3", "c": "4"})
    equal(r.hlen("h"), 3)
    equal(bool(r.hexists("h", "a")), True)
    equal(sorted(r.hkeys("h")), ["a", "b", "c"])
    equal(sorted(r.hvals("h")), ["2", "3", "4"])
    equal(r.hdel("h", "a", "b", "z"), 2)
    equal(r.hdel("h", "c"), 1)
    equal(r.exists("h"), 0)
    equal(r.hgetall("h"), {})


@check
def hsetnx_hmset_and_hstrlen(r):
    equal(bool(r.hsetnx("h", "a", "xyz")), True)
    equal(bool(r.hsetnx("h", "a", "no")), False)
    equal(r.hstrlen("h", "a"), 3)
    equal(r.hstrlen("h", "none"), 0)
    equal(r.execute_command("HMSET", "h", "b", "1", "c", "2"), True)
    refused(lambda: r.execute_command("HSET", "h", "b"), "wrong number of arguments for 'hset' command")
    refused(lambda: r.execute_command("HMSET", "h", "b", "1", "c"), "wrong number of arguments for 'hmset' command")


@check
def counters_in_fields(r):
    equal(r.hincrby("h", "n", 5), 5)
    equal(r.hincrby("h", "n", -7), -2)
    equal(r.hincrbyfloat("h", "f", 1.5), 1.5)
    equal(r.hincrbyfloat("h", "f", 0.25), 1.75)
    r.hset("h", "t", "abc")
    refused(lambda: r.hincrby("h", "t", 1), "hash value is not an integer")
    refused(lambda: r.hincrbyfloat("h", "t", 1), "hash value is not a float")
    r.hset("h", "n", 9223372036854775807)
    refused(lambda: r.hincrby("h", "n", 1), "increment or decrement would overflow")


@check
def random_fields(r):
    fields = {f"f{n}": f"{n}" for n in range(20)}
    r.hset("h", mapping=fields)
    assert r.hrandfield("h") in fields
    some = r.hrandfield("h", 5)
    equal(len(set(some)), 5)
    equal(len(r.hrandfield("h", 100)), 20)
    many = r.hrandfield("h", -100)
    equal(len(many), 100)
    pairs = r.hrandfield("h", 3, withvalues=True)
    equal(len(pairs), 6)
    assert all(fields[pairs[n]] == pairs[n + 1] for n in range(0, 6, 2))
    equal(r.hrandfield("none"), None)
    equal(r.hrandfield("none", 3), [])


@check
def a_hash_grows_over_its_small_encoding_and_keeps_everything(r):
    fields = {f"field:{n}": "v" * (n % 100) for n in range(5000)}
    r.hset("h", mapping=fields)
    equal(r.hgetall("h"), fields)
    equal(r.hlen("h"), 5000)
    r.hdel("h", *[f"field:{n}" for n in range(0, 5000, 2)])
    equal(r.hlen("h"), 2500)
    equal(r.hget("h", "field:4999"), "v" * 99)


@check
def hscan_gives_every_field(r):
    for size in [10, 3000]:
        fields = {f"f{n}": f"{n}" for n in range(size)}
        r.hset(f"h{size}", mapping=fields)
        equal(dict(r.hscan_iter(f"h{size}", count=100)), fields)
    equal(dict(r.hscan_iter("h3000", match="f29?9")), {f"f29{n}9": f"29{n}9" for n in range(10)})


run()
