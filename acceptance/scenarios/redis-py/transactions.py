"""MULTI, EXEC, DISCARD, WATCH and pipelines."""

import redis
from harness import Waiter, check, connect, equal, refused, run


@check
def a_transaction_answers_in_order(r):
    with r.pipeline(transaction=True) as pipe:
        answers = pipe.set("a", 1).incr("a").rpush("l", "x", "y").lrange("l", 0, -1).get("none").execute()
    equal(answers, [True, 2, 2, ["x", "y"], None])


@check
def an_error_at_run_time_does_not_stop_the_rest(r):
    r.set("text", "abc")
    with r.pipeline(transaction=True) as pipe:
        answers = pipe.set("a", 1).incr("text").set("b", 2).execute(raise_on_error=False)
    equal([answers[0], answers[2]], [True, True])
    assert "not an integer" in str(answers[1]), answers[1]
    equal(r.mget("a", "b"), ["1", "2"])


@check
def an_error_while_queueing_aborts_the_transaction(r):
    with connect() as one:
        connection = one.connection_pool.get_connection()
        say = lambda *words: (connection.send_command(*words), connection.read_response())[1]
        equal(say("MULTI"), "OK")
        equal(say("SET", "a", 1), "QUEUED")
        refused(lambda: say("NOSUCH"), "unknown command 'NOSUCH'")
        refused(lambda: say("SET", "a"), "wrong number of arguments for 'set' command")
        refused(lambda: say("EXEC"), "Transaction discarded because of previous errors")
        equal(say("GET", "a"), None)
        refused(lambda: say("EXEC"), "EXEC without MULTI")
        refused(lambda: say("DISCARD"), "DISCARD without MULTI")
        say("MULTI")
        refused(lambda: say("MULTI"), "MULTI calls can not be nested")
        refused(lambda: say("WATCH", "a"), "WATCH inside MULTI is not allowed")
        equal(say("DISCARD"), "OK")
        connection.disconnect()


@check
def a_watched_key_that_changed_aborts(r):
    for change in [
        lambda: r.set("k", "other"),
        lambda: r.delete("k"),
        lambda: r.expire("k", 0),
        lambda: r.append("k", "x"),
        lambda: r.rename("k", "k2"),
        lambda: r.flushdb(),
        lambda: r.eval("redis.call('SET', KEYS[1], 'lua')", 1, "k"),
    ]:
        r.set("k", "v")
        with r.pipeline() as pipe:
            pipe.watch("k")
            change()
            pipe.multi()
            pipe.set("done", 1)
            try:
                pipe.execute()
            except redis.WatchError:
                pass
            else:
                raise AssertionError("the transaction was not aborted")
        equal(r.exists("done"), 0)


@check
def a_watched_key_that_did_not_change_does_not_abort(r):
    r.set("k", "v")
    for quiet in [
        lambda: r.get("k"),
        lambda: r.set("other", 1),
        lambda: r.set("k", "v", nx=True),
        lambda: r.persist("k"),
        lambda: connect(db=1).set("k", 1),
        lambda: r.delete("none"),
    ]:
        with r.pipeline() as pipe:
            pipe.watch("k", "none")
            quiet()
            pipe.multi()
            pipe.get("k")
            equal(pipe.execute(), ["v"])
    with r.pipeline() as pipe:
        pipe.watch("k")
        r.set("k", "w")
        pipe.unwatch()
        pipe.multi()
        pipe.get("k")
        equal(pipe.execute(), ["w"])


@check
def counters_with_watch_lose_no_increment(r):
    r.set("n", 0)

    def add(client):
        for _ in range(50):
            client.transaction(lambda pipe: (lambda n: (pipe.multi(), pipe.set("n", n + 1)))(int(pipe.get("n"))), "n")

    waiters = [Waiter(add) for _ in range(4)]
    for waiter in waiters:
        waiter.result()
    equal(r.get("n"), "200")


@check
def nobody_sees_half_a_transaction(r):
    r.mset({"a": 0, "b": 0})

    def move(client):
        for n in range(1, 301):
            with client.pipeline(transaction=True) as pipe:
                pipe.set("a", n).set("b", n).execute()

    waiter = Waiter(move)
    last = 0
    while last < 300:
        a, b = r.mget("a", "b")
        equal(a, b)
        assert int(a) >= last
        last = int(a)
    waiter.result()


@check
def a_pipeline_of_ten_thousand_answers_in_order(r):
    with r.pipeline(transaction=False) as pipe:
        for n in range(10_000):
            pipe.set(f"k{n}", n)
            pipe.get(f"k{n}")
        answers = pipe.execute()
    equal(answers[1::2], [f"{n}" for n in range(10_000)])


@check
def a_pipeline_mixes_databases_errors_and_types(r):
    with r.pipeline(transaction=False) as pipe:
        pipe.execute_command("SELECT", 2)
        pipe.set("k", 1).lpush("k", 1).execute_command("NOSUCH").incr("k")
        pipe.execute_command("SELECT", 0)
        pipe.get("k")
        answers = pipe.execute(raise_on_error=False)
    assert "WRONGTYPE" in str(answers[2]) or "wrong kind" in str(answers[2]), answers[2]
    assert "unknown command" in str(answers[3]), answers[3]
    equal(answers[4], 2)
    equal(answers[6], None)


@check
def blocking_commands_do_not_wait_in_a_multi(r):
    with r.pipeline(transaction=True) as pipe:
        pipe.blpop("l", 0).brpop("l", 0).brpoplpush("l", "m", 0).blmove("l", "m", 0, "LEFT", "LEFT")
        pipe.bzpopmin("z", 0).bzpopmax("z", 0).blmpop(0, 1, "l", direction="LEFT").bzmpop(0, 1, ["z"], min=True)
        equal(pipe.execute(), [None] * 8)


@check
def set_commands_of_redis_py_in_a_multi(r):
    with r.pipeline(transaction=True) as pipe:
        pipe.hset("h", mapping={"a": 1}).hgetall("h").zadd("z", {"m": 1.5}).zrange("z", 0, -1, withscores=True)
        pipe.sadd("s", "x").smembers("s").expire("s", 10).ttl("s")
        answers = pipe.execute()
    equal(answers[1], {"a": "1"})
    equal(answers[3], [("m", 1.5)])
    equal(answers[5], {"x"})


run()
