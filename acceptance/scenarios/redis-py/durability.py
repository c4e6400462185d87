"""Stops and crashes: what was acknowledged is there after the next start, what was deleted is not.

Starts servers of its own: the node's binary, or redis-server with the same promise when the scenarios run
against another server.
"""

import threading

import redis
from harness import PATIENCE_SECONDS, check, equal, run, until
from processes import Server

def write_everything(r):
    r.set("string", "v" * 1000)
    r.set("number", 41)
    r.incr("number")
    r.setbit("bits", 100, 1)
    r.rpush("list", *range(1000))
    r.ltrim("list", 10, -11)
    r.hset("hash", mapping={f"f{n}": n for n in range(1000)})
    r.hdel("hash", "f1", "f2")
    r.sadd("set", *range(1000), "text")
    r.srem("set", 5)
    r.zadd("zset", {f"m{n}": n / 3 for n in range(1000)})
    r.zincrby("zset", 0.1, "m7")
    r.set("timed", 1, pxat=4_000_000_000_000)
    r.set("gone", 1)
    r.delete("gone")
    r.set("expired", 1, px=1)
    r.rename("number", "renamed")
    r.eval("redis.call('SET', KEYS[1], ARGV[1])", 1, "scripted", "by lua")
    with r.pipeline(transaction=True) as pipe:
        pipe.set("in", "multi").lpush("pushed", "a", "b").rpop("pushed").execute()
    r.execute_command("SELECT", 5)
    r.set("in five", 1)
    r.execute_command("SELECT", 0)
    until(lambda: r.exists("expired") == 0, "the key expired")


def read_everything(r):
    found = {}
    for name in sorted(r.keys()):
        read = {
            "string": r.get,
            "list": lambda key: r.lrange(key, 0, -1),
            "hash": r.hgetall,
            "set": r.smembers,
            "zset": lambda key: r.zrange(key, 0, -1, withscores=True),
        }[r.type(name)]
        found[name] = (read(name), r.pexpiretime(name))
    r.execute_command("SELECT", 5)
    found["five"] = r.keys()
    r.execute_command("SELECT", 0)
    return found


@check
def everything_is_there_after_a_graceful_stop_and_after_a_crash(_):
    with Server("restarts") as server:
        with server.connect() as r:
            write_everything(r)
            before = read_everything(r)
        equal(sorted(before), sorted("string renamed bits list hash set zset timed scripted in pushed five".split()))
        for end in (server.stop, server.kill, server.stop):
            end()
            server.start()
            with server.connect() as r:
                equal(read_everything(r), before)


@check
def a_flush_and_an_expiry_are_not_undone(_):
    with Server("flush") as server:
        for end in (server.kill, server.stop):
            with server.connect() as r:
                write_everything(r)
                r.flushall()
                r.set("after", 1)
                r.set("short", 1, px=5)
                until(lambda: r.exists("short") == 0, "the key expired")
            end()
            server.start()
            with server.connect() as r:
                equal(r.keys(), ["after"])


class Load(threading.Thread):
    """Writes until the server is gone; remembers what was acknowledged and what may have happened."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.client = server.connect()
        self.name_ = name
        self.present = {}
        self.deleted = set()
        self.unknown = set()
        self.count = 0

    def run(self):
        r, n = self.client, 0
        try:
            while True:
                n += 1
                key = f"{self.name_}:{n}"
                self.unknown = {key}
                r.set(key, n)
                self.present[key] = f"{n}"
                self.count += 1
                if n % 3 == 0:
                    old = f"{self.name_}:{n - 1}"
                    self.unknown = {old}
                    r.delete(old)
                    del self.present[old]
                    self.deleted.add(old)
                with r.pipeline(transaction=True) as pipe:
                    self.unknown = set()
                    pipe.set(f"{self.name_}:a", n).set(f"{self.name_}:b", n).execute()
                    self.pair = n
        except redis.exceptions.RedisError:
            pass

    pair = 0


@check
def kill_9_under_load_loses_nothing_and_revives_nothing(_):
    with Server("crash") as server:
        loads = []
        for round_ in range(8):
            fresh = [Load(server, f"{round_}.{n}") for n in range(4)]
            for load in fresh:
                load.start()
            until(lambda: all(load.count >= 50 + 40 * round_ for load in fresh), "enough writes")
            server.kill()
            for load in fresh:
                load.join(PATIENCE_SECONDS)
                assert not load.is_alive(), "a client hangs on a dead server"
            loads += fresh
            server.start()
            with server.connect() as r:
                for load in loads:
                    keys = sorted(set(load.present) - load.unknown)
                    lost = [key for key, value in zip(keys, r.mget(keys)) if value != load.present[key]]
                    equal(lost, [])
                    gone = sorted(load.deleted - load.unknown)
                    equal([key for key, value in zip(gone, r.mget(gone)) if value is not None], [])
                    a, b = r.mget(f"{load.name_}:a", f"{load.name_}:b")
                    equal(a, b)
                    assert int(a) >= load.pair, f"transaction {load.pair} was lost, {a} is there"


run()
