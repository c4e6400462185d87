"""Sets of integers and of strings."""

from harness import check, equal, refused, run


@check
def members_come_and_go(r):
    equal(r.sadd("s", "a", "b", "a"), 2)
    equal(r.sadd("s", "b", "c"), 1)
    equal(r.smembers("s"), {"a", "b", "c"})
    equal(r.scard("s"), 3)
    equal(bool(r.sismember("s", "a")), True)
    equal(bool(r.sismember("s", "z")), False)
    equal(r.smismember("s", ["a", "z", "c"]), [1, 0, 1])
    equal(r.srem("s", "a", "z"), 1)
    equal(bool(r.smove("s", "t", "b")), True)
    equal(bool(r.smove("s", "t", "nope")), False)
    equal(r.smembers("t"), {"b"})
    equal(r.srem("s", "c"), 1)
    equal(r.exists("s"), 0)


@check
def algebra_and_its_stored_forms(r):
    r.sadd("a", 1, 2, 3, 4)
    r.sadd("b", 3, 4, 5)
    r.sadd("c", 4, "x")
    equal(r.sinter("a", "b"), {"3", "4"})
    equal(r.sinter("a", "b", "c"), {"4"})
    equal(r.sinter("a", "none"), set())
    equal(r.sunion("a", "b", "c", "none"), {"1", "2", "3", "4", "5", "x"})
    equal(r.sdiff("a", "b", "none"), {"1", "2"})
    equal(r.sintercard(2, ["a", "b"]), 2)
    equal(r.sintercard(2, ["a", "b"], limit=1), 1)
    equal(r.sinterstore("d", "a", "b"), 2)
    equal(r.smembers("d"), {"3", "4"})
    equal(r.sunionstore("d", "a", "c"), 5)
    equal(r.sdiffstore("d", "a", "a"), 0)
    equal(r.exists("d"), 0)
    r.set("text", 1)
    refused(lambda: r.sinter("a", "text"), "wrong kind of value")
    equal(r.sunionstore("text", "a"), 4)
    equal(r.type("text"), "set")


@check
def random_members_are_members(r):
    members = {f"{n}" for n in range(50)}
    r.sadd("s", *members)
    assert r.srandmember("s") in members
    equal(len(set(r.srandmember("s", 10))), 10)
    equal(set(r.srandmember("s", 100)), members)
    equal(len(r.srandmember("s", -100)), 100)
    popped = r.spop("s", 20)
    equal(len(set(popped)), 20)
    equal(r.smembers("s"), members - set(popped))
    assert r.spop("s") in members
    equal(len(r.spop("s", 100)), 29)
    equal(r.exists("s"), 0)
    equal(r.spop("s"), None)
    refused(lambda: r.execute_command("SPOP", "s", -1), "value is out of range, must be positive")


@check
def encodings_change_and_members_stay(r):
    r.sadd("s", *range(400))
    equal(r.object("encoding", "s"), "intset")
    r.sadd("s", 9223372036854775807, -9223372036854775808)
    equal(r.scard("s"), 402)
    r.sadd("s", *range(400, 3000))
    equal(r.object("encoding", "s"), "hashtable")
    r.sadd("s", "text", "9223372036854775808", "007")
    equal(r.scard("s"), 3005)
    equal(bool(r.sismember("s", "7")), True)
    equal(bool(r.sismember("s", "007")), True)
    equal(set(r.sscan_iter("s", count=50)), r.smembers("s"))


run()
