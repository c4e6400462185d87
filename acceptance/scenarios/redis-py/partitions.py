"""A database of several partitions: what is divided, what is refused as in a cluster, SCAN, MULTI with hash tags."""

import redis
from harness import Skip, check, equal, refused, run
from processes import BINARY, Server

CONFIG = """
[storage]
workers = 2
[[keyspace]]
id = 0
partitions = 8
"""
CROSS = "Keys in request don't hash to the same slot"

_server = None


def divided():
    """A client of a node whose database 0 has eight partitions on two workers, empty."""
    global _server
    if not BINARY:
        raise Skip("the server that runs has no partitions")
    _server = _server or Server("partitions", config=CONFIG)
    client = _server.connect()
    client.flushall()
    return client


def some(count):
    return {f"key:{number}": f"value:{number}" for number in range(count)}


@check
def commands_on_many_keys_are_divided(_):
    with divided() as r:
        pairs = some(500)
        equal(r.mset(pairs), True)
        equal(r.mget(list(pairs)), list(pairs.values()))
        equal(r.mget(["none", "key:7", "key:7"]), [None, "value:7", "value:7"])
        equal(r.exists(*pairs, "none"), 500)
        equal(r.touch("key:1", "key:2", "none"), 2)
        equal(r.dbsize(), 500)
        equal(r.info("keyspace")["db0"]["keys"], 500)
        assert r.randomkey() in pairs
        equal(r.unlink("key:0", "key:1", "none"), 2)
        equal(r.delete(*pairs), 498)
        equal(r.dbsize(), 0)


@check
def other_commands_on_several_partitions_are_refused_as_in_a_cluster(_):
    with divided() as r:
        r.mset({"a": 1, "b": 2})
        refused(lambda: r.rename("a", "b"), CROSS)
        refused(lambda: r.msetnx({"c": 1, "d": 2}), CROSS)
        refused(lambda: r.sinterstore("x", "y", "z"), CROSS)
        refused(lambda: r.blpop(["a", "b"], 1), CROSS)
        refused(lambda: r.eval("return 1", 2, "a", "b"), CROSS)
        refused(lambda: r.swapdb(0, 1), "several partitions")
        equal(r.rename("a", "{a}2"), True)
        equal(r.eval("return redis.call('get', KEYS[1])", 1, "{a}2"), "1")
        refused(lambda: r.eval("return redis.call('get', 'b')", 1, "{a}2"), "another partition")


@check
def a_scan_finds_every_key(_):
    with divided() as r:
        pairs = some(1000)
        r.mset(pairs)
        equal(sorted(r.scan_iter()), sorted(pairs))
        equal(sorted(r.scan_iter(count=1)), sorted(pairs))
        equal(sorted(r.scan_iter(match="key:99*", count=500)), sorted(key for key in pairs if key.startswith("key:99")))
        equal(sorted(r.keys("key:1*")), sorted(key for key in pairs if key.startswith("key:1")))


@check
def transactions_stay_in_a_partition(_):
    with divided() as r:
        with r.pipeline() as pipe:
            pipe.set("{user}:name", "ann").incr("{user}:visits").get("{user}:name")
            equal(pipe.execute(), [True, 1, "ann"])
        with r.pipeline() as pipe:
            pipe.set("a", 1).set("b", 1)
            refused(pipe.execute, CROSS)
        equal(r.exists("a", "b"), 0)
        with r.pipeline() as pipe:
            pipe.watch("{user}:visits")
            r.incr("{user}:visits")
            pipe.multi()
            pipe.set("{user}:name", "bob")
            try:
                pipe.execute()
            except redis.exceptions.WatchError:
                pass
            else:
                raise AssertionError("the watch was not broken")
        equal(r.get("{user}:name"), "ann")


@check
def pipelines_keep_their_order(_):
    with divided() as r:
        with r.pipeline(transaction=False) as pipe:
            for number in range(200):
                pipe.set(f"key:{number}", number)
                pipe.mget(f"key:{number}", f"key:{number - 1}")
            answers = pipe.execute()
        equal(answers[0::2], [True] * 200)
        expected = [[f"{number}", f"{number - 1}" if number else None] for number in range(200)]
        equal(answers[1::2], expected)


@check
def scripts_are_loaded_into_every_partition(_):
    with divided() as r:
        script = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        equal([script(keys=[f"key:{number}"], args=[number]) for number in range(20)], list(range(20)))
        equal(r.script_exists(script.sha), [True])


@check
def nothing_is_lost_by_a_kill_and_every_key_is_found_again(_):
    with divided() as r:
        r.mset(some(300))
    _server.kill()
    _server.start()
    with _server.connect() as r:
        equal(r.mget(list(some(300))), list(some(300).values()))
        equal(r.dbsize(), 300)


run()
