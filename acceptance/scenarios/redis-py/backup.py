"""Backups of nodes that serve, what is restored from them, and a cluster that goes on from one survivor."""

import json
import os
import subprocess

import redis
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY, SCRATCH, Member, Server


def is_not_done(error):
    """Whether an answer says that a command was surely not run, or perhaps; the client takes the code of the first away."""
    return isinstance(error, redis.exceptions.ClusterDownError) or f"{error}".startswith("UNKNOWN")


def command(*words):
    """What a verb of `archipel cluster` prints; it must succeed."""
    if not BINARY:
        raise Skip("the server that runs makes no backups")
    told = subprocess.run([BINARY, "cluster", *words], check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, f"{' '.join(words)}: {told.stderr.strip()}"
    return told.stdout


class Restored(Server):
    """A node on what was restored from a backup before it starts."""

    def __init__(self, name, backups, *flags):
        self.restore = (backups, *flags)
        super().__init__(name)

    def start(self):
        command("restore", *self.restore, "--data-dir", os.path.join(self.dir, "data"))
        super().start()


def everything(client):
    """All keys of a database: type, value, and the moment at which they expire."""
    readers = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {
        key: (kind := client.type(key), readers[kind](key), client.execute_command("PEXPIRETIME", key))
        for key in client.scan_iter(count=1000)
    }


@check
def a_backup_has_every_type_value_and_expiry_of_its_moment(_):
    backups = os.path.join(SCRATCH, "backups")
    if not BINARY:
        raise Skip("the server that runs makes no backups")
    with Server("origin") as server, server.connect() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(500):
            pipe.set(f"string:{number}", number, px=10_000_000 if number % 3 else None)
            pipe.rpush(f"list:{number}", *range(number % 40 + 1))
            pipe.sadd(f"set:{number}", *range(number % 40 + 1))
            pipe.hset(f"hash:{number}", mapping={f"f{n}": n for n in range(number % 40 + 1)})
            pipe.zadd(f"zset:{number}", {f"m{n}": n / 4 for n in range(number % 40 + 1)})
        pipe.set("large", "x" * 1_000_000)
        pipe.execute()
        first = everything(client)
        port = ("--port-offset", f"{server.offset}")
        told = json.loads(command("backup", backups, *port, "--json"))
        equal((told["number"], told["objects"]), (1, len(first)))
        client.delete("string:7")
        client.set("new", "value")
        second = everything(client)
        told = json.loads(command("backup", backups, *port, "--json"))
        # Of the data; the entries since the backup before, one of a million bytes among them, are written besides.
        assert told["written_bytes"] - told["entry_bytes"] < told["reused_bytes"], told
    command("restore", backups, "--verify")
    for number, expected in ((1, first), (2, second)):
        with Restored(f"restored{number}", backups, "--number", f"{number}") as server, server.connect() as client:
            equal(everything(client), expected)


def patient(member, call):
    """What `call` with a client of the member gives, once somebody leads."""
    answers = []

    def answered():
        with member.connect() as client:
            try:
                answers.append(call(client))
            except redis.exceptions.ConnectionError:
                return False
            except redis.exceptions.ResponseError as error:
                assert is_not_done(error), error
                return False
        return True

    until(answered, "the cluster answers", 60)
    return answers[-1]


def is_whole(member, members):
    """So many members are there and have all copies; removed ones do not count."""
    status = member.status()
    present = [one for one in status["members"] if one["standing"] != "removed"]
    partitions = sum(one["partitions"] for one in status["keyspaces"])
    return (
        len(present) == members
        and all((one["standing"], one["health"], one["copies"]) == ("active", "alive", partitions) for one in present)
        and not status["moves"]
        and status["waiting"] == 0
        and all(one["led"] == one["partitions"] for one in status["keyspaces"])
    )


@check
def a_cluster_that_lost_its_majority_goes_on_with_all_that_the_survivor_had(_):
    if not BINARY:
        raise Skip("the server that runs is in no cluster")
    one = Member("a")
    two, three = Member("b", peer=one), Member("c", peer=one)
    until(lambda: is_whole(one, 3), "three members have all copies", 90)
    for number in range(20):
        patient(one, lambda client: client.set(f"k:{number}", number))
    three.kill()
    # Two of three are a majority only together: what is acknowledged now, the survivor has.
    for number in range(20, 40):
        patient(one, lambda client: client.set(f"k:{number}", number))
    two.kill()
    one.kill()
    directory = ("--data-dir", os.path.join(one.dir, "data"))
    shown = json.loads(command("recover", *directory, "--dry-run", "--json"))
    equal(len(shown["partitions"]), 16)
    assert "others acknowledged" in shown["partitions"][0]["copy"]["may_lack"], shown["partitions"][0]
    command("recover", *directory, "--confirm", shown["cluster"])
    one.start()
    keys = [f"k:{number}" for number in range(40)]
    equal(patient(one, lambda client: client.exists(*keys)), 40)
    four = Member("d", peer=one)
    until(lambda: is_whole(one, 2), "the new member has all copies", 60)
    # A lost member that comes back on its old ports is in no cluster with them.
    two.start()
    with two.connect() as client:
        client.ping()
        try:
            client.set("k:0", "stale")
            raise AssertionError("a lost member took a write")
        except redis.exceptions.ResponseError as error:
            assert is_not_done(error), error
    equal(patient(four, lambda client: client.mget("k:0", "k:39")), ["0", "39"])
    for member in (one, two, four):
        member.kill()


run()
