"""Commands that wait for data, with the waiters in threads."""

from harness import Waiter, blocked, check, equal, refused, run


@check
def blpop_takes_what_is_there_from_the_first_key(r):
    r.rpush("b", 1, 2)
    equal(r.blpop(["a", "b"], timeout=1), ("b", "1"))
    equal(r.brpop(["a", "b"], timeout=1), ("b", "2"))


@check
def blpop_waits_and_gets_the_push(r):
    waiter = Waiter(lambda c: c.blpop(["a", "b"], timeout=0))
    blocked(r)
    equal(r.rpush("b", "x"), 1)
    equal(waiter.result(), ("b", "x"))
    equal(r.exists("b"), 0)


@check
def waiters_are_served_in_the_order_they_came(r):
    waiters = []
    for n in range(3):
        waiters.append(Waiter(lambda c: c.blpop("q", timeout=0)))
        blocked(r, n + 1)
    r.rpush("q", 1, 2, 3)
    equal([waiter.result()[1] for waiter in waiters], ["1", "2", "3"])


@check
def a_timeout_gives_nothing(r):
    equal(r.blpop("none", timeout=0.05), None)
    equal(r.blmove("none", "b", 0.05, "LEFT", "LEFT"), None)
    equal(r.bzpopmin("none", timeout=0.05), None)
    refused(lambda: r.blpop("none", timeout=-1), "timeout is negative")
    refused(lambda: r.execute_command("BLPOP", "none", "abc"), "timeout is not a float or out of range")


@check
def blmove_hands_on_and_wakes_the_next_waiter(r):
    first = Waiter(lambda c: c.blmove("a", "b", 0, "LEFT", "RIGHT"))
    blocked(r, 1)
    second = Waiter(lambda c: c.blpop("b", timeout=0))
    blocked(r, 2)
    r.rpush("a", "x")
    equal(first.result(), "x")
    equal(second.result(), ("b", "x"))
    equal(r.dbsize(), 0)


@check
def brpoplpush_and_blmpop_wait_too(r):
    waiter = Waiter(lambda c: c.brpoplpush("a", "b", timeout=0))
    blocked(r)
    r.lpush("a", "x")
    equal(waiter.result(), "x")
    waiter = Waiter(lambda c: c.blmpop(0, 2, "p", "q", direction="LEFT", count=2))
    blocked(r)
    r.rpush("q", 1, 2, 3)
    equal(waiter.result(), ["q", ["1", "2"]])
    equal(r.lrange("q", 0, -1), ["3"])


@check
def sorted_sets_have_waiters(r):
    waiter = Waiter(lambda c: c.bzpopmin(["a", "z"], timeout=0))
    blocked(r)
    r.zadd("z", {"one": 1, "two": 2})
    equal(waiter.result(), ("z", "one", 1.0))
    waiter = Waiter(lambda c: c.bzpopmax("y", timeout=0))
    blocked(r)
    r.zadd("y", {"one": 1, "two": 2})
    equal(waiter.result(), ("y", "two", 2.0))
    waiter = Waiter(lambda c: c.execute_command("BZMPOP", 0, 1, "w", "MIN", "COUNT", 2))
    blocked(r)
    r.zadd("w", {"one": 1, "two": 2, "three": 3})
    equal(waiter.result()[0], "w")
    equal(r.zrange("w", 0, -1), ["three"])


@check
def a_push_inside_a_transaction_serves_after_exec(r):
    waiter = Waiter(lambda c: c.blpop("q", timeout=0))
    blocked(r)
    with r.pipeline(transaction=True) as pipe:
        equal(pipe.rpush("q", 1, 2).lpop("q").execute(), [2, "1"])
    equal(waiter.result(), ("q", "2"))


@check
def inside_a_transaction_nothing_waits(r):
    with r.pipeline(transaction=True) as pipe:
        equal(pipe.blpop("none", timeout=0).set("k", 1).execute(), [None, True])


@check
def a_key_of_another_type_does_not_wake_a_waiter(r):
    waiter = Waiter(lambda c: c.blpop("q", timeout=0))
    blocked(r)
    r.set("q", "text")
    r.delete("q")
    r.rpush("q", "x")
    equal(waiter.result(), ("q", "x"))


@check
def rename_and_scripts_wake_waiters(r):
    waiter = Waiter(lambda c: c.blpop("q", timeout=0))
    blocked(r)
    r.rpush("other", "x")
    r.rename("other", "q")
    equal(waiter.result(), ("q", "x"))
    waiter = Waiter(lambda c: c.blpop("q", timeout=0))
    blocked(r)
    r.eval("return redis.call('RPUSH', KEYS[1], 'y')", 1, "q")
    equal(waiter.result(), ("q", "y"))


@check
def client_unblock_ends_the_wait(r):
    ids = []

    def wait(c):
        ids.append(c.client_id())
        return c.blpop("q", timeout=0)

    waiter = Waiter(wait)
    blocked(r)
    equal(bool(r.client_unblock(ids[0])), True)
    equal(waiter.result(), None)
    waiter = Waiter(wait)
    blocked(r)
    equal(bool(r.client_unblock(ids[1], error=True)), True)
    refused(waiter.result, "client unblocked via CLIENT UNBLOCK")


run()
