"""maxmemory and its policies, set while the server runs; what OBJECT and INFO tell of it."""

from contextlib import contextmanager

import redis

from harness import check, connect, equal, refused, run, until

OOM = "command not allowed when used memory > 'maxmemory'."


@contextmanager
def limited(r, maxmemory, policy="noeviction"):
    """No limit and no policy again afterwards."""
    r.config_set("maxmemory-policy", policy)
    r.config_set("maxmemory", maxmemory)
    try:
        yield
    finally:
        r.config_set("maxmemory", 0)
        r.config_set("maxmemory-policy", "noeviction")


@check
def without_memory_writes_are_refused_at_once_and_taken_again_later(r):
    r.set("a", 1)
    with limited(r, 1):
        equal(r.config_get("maxmemory"), {"maxmemory": "1"})
        refused(lambda: r.set("b", 1), OOM)
        refused(lambda: r.lpush("l", 1), OOM)
        equal(r.get("a"), "1")
        equal(r.delete("a"), 1)
    equal(r.set("b", 1), True)


@check
def without_memory_a_transaction_is_refused_when_queued_or_when_run(r):
    with connect() as other, other.pipeline(transaction=True) as pipe:
        with limited(r, 1):
            pipe.set("a", 1)
            try:
                pipe.execute()
            except redis.exceptions.RedisError as error:
                assert OOM in str(error), error
            else:
                raise AssertionError("it was run")
            pipe.get("a").ping()
            refused(pipe.execute, OOM)
        pipe.set("a", 1).get("a")
        equal(pipe.execute(), [True, "1"])


@check
def a_cache_keeps_to_its_limit_and_loses_no_more_than_it_must(r):
    r.config_resetstat()
    with limited(r, "8mb", "allkeys-lru"):
        with r.pipeline(transaction=False) as pipe:
            for start in range(0, 20000, 500):
                for n in range(start, start + 500):
                    pipe.set(f"key:{n}", "v" * 1000)
                pipe.execute()
        left = lambda: r.dbsize()
        until(lambda: left() < 9000, "keys are evicted down to the limit")
        assert left() > 3000, f"{left()} keys are left"
        assert r.info("stats")["evicted_keys"] > 10000, r.info("stats")
        equal(r.get("key:19999"), "v" * 1000)


@check
def idle_time_and_frequency_are_told_under_their_policies(r):
    r.set("a", 1)
    refused(lambda: r.object("freq", "a"), "An LFU maxmemory policy is not selected")
    assert r.object("idletime", "a") <= 1
    with limited(r, 0, "allkeys-lfu"):
        r.set("b", "no shared integer")
        equal(r.object("freq", "b"), 5)
        refused(lambda: r.object("idletime", "b"), "An LFU maxmemory policy is selected")
        for _ in range(100):
            r.get("b")
        assert 5 < r.object("freq", "b") < 40, r.object("freq", "b")
        equal(r.object("freq", "none"), None)
        equal(r.object("idletime", "none"), None)


@check
def a_restored_key_is_as_idle_or_as_frequent_as_it_is_told_to_be(r):
    with connect(decode_responses=False) as raw:
        r.set("a", "value")
        payload = raw.dump("a")
        raw.restore("idle", 0, payload, idletime=1000)
        assert 1000 <= r.object("idletime", "idle") <= 1005
        with limited(r, 0, "volatile-lfu"):
            raw.restore("often", 0, payload, frequency=77)
            equal(r.object("freq", "often"), 77)


@check
def looking_at_a_key_is_no_use_of_it(r):
    r.set("a", 1)
    until(lambda: r.object("idletime", "a") >= 2, "time passes")
    r.exists("a"), r.type("a"), r.ttl("a"), r.object("encoding", "a")
    assert r.object("idletime", "a") >= 2
    equal(r.touch("a"), 1)
    assert r.object("idletime", "a") < 2


@check
def reads_are_counted_as_hits_and_misses(r):
    r.set("a", 1)
    r.hset("h", "f", "v")
    before = r.info("stats")
    r.get("a"), r.get("none"), r.mget("a", "b", "c"), r.exists("a", "none"), r.hget("h", "f"), r.ttl("a")
    r.set("a", 2), r.delete("b")
    after = r.info("stats")
    equal(after["keyspace_hits"] - before["keyspace_hits"], 5)
    equal(after["keyspace_misses"] - before["keyspace_misses"], 4)


@check
def expired_keys_are_counted(r):
    before = r.info("stats")["expired_keys"]
    for n in range(5):
        r.set(f"k{n}", 1, px=5)
    until(lambda: r.info("stats")["expired_keys"] == before + 5, "all have expired")


run()
