"""Sorted sets: scores, ranges, algebra."""

from harness import check, equal, refused, run


@check
def zadd_knows_its_options(r):
    equal(r.zadd("z", {"a": 1, "b": 2}), 2)
    equal(r.zadd("z", {"a": 3}, nx=True), 0)
    equal(r.zscore("z", "a"), 1.0)
    equal(r.zadd("z", {"c": 3}, xx=True), 0)
    equal(r.zadd("z", {"a": 5, "c": 1}, ch=True), 2)
    equal(r.zadd("z", {"a": 4}, gt=True), 0)
    equal(r.zscore("z", "a"), 5.0)
    equal(r.zadd("z", {"a": 4}, lt=True, ch=True), 1)
    equal(r.zadd("z", {"a": 2}, incr=True), 6.0)
    equal(r.zadd("z", {"a": 2}, incr=True, nx=True), None)
    equal(r.zincrby("z", 1.5, "a"), 7.5)
    refused(lambda: r.execute_command("ZADD", "z", "NX", "XX", 1, "a"), "XX and NX options at the same time are not compatible")
    refused(lambda: r.execute_command("ZADD", "z", "GT", "LT", 1, "a"), "GT, LT, and/or NX options at the same time are not compatible")
    refused(lambda: r.execute_command("ZADD", "z", "nan", "a"), "value is not a valid float")
    refused(lambda: r.execute_command("ZADD", "z", 1, "a", 2), "syntax error")
    r.zadd("i", {"a": float("inf")})
    refused(lambda: r.zincrby("i", float("-inf"), "a"), "resulting score is not a number (NaN)")


@check
def scores_print_as_redis_prints_them(r):
    for given, shown in [("1", "1"), ("1.5", "1.5"), ("1e20", "1e+20"), ("123456789012", "123456789012"), ("0.1", "0.10000000000000001"), ("inf", "inf"), ("-inf", "-inf"), ("1e-7", "9.9999999999999995e-08"), ("3.0", "3")]:
        r.delete("z")
        r.zadd("z", {"m": given})
        answer = r.eval("return redis.call('ZSCORE', KEYS[1], 'm')", 1, "z")
        equal(answer, shown)


@check
def ranges_by_rank_score_and_text(r):
    r.zadd("z", {"a": 1, "b": 2, "c": 3, "d": 4})
    equal(r.zrange("z", 0, -1), ["a", "b", "c", "d"])
    equal(r.zrange("z", 1, 2, withscores=True), [("b", 2.0), ("c", 3.0)])
    equal(r.zrevrange("z", 0, 1), ["d", "c"])
    equal(r.zrange("z", 0, 1, desc=True), ["d", "c"])
    equal(r.zrangebyscore("z", 2, 3), ["b", "c"])
    equal(r.zrangebyscore("z", "(2", "+inf"), ["c", "d"])
    equal(r.zrangebyscore("z", "-inf", "(3", start=1, num=5), ["b"])
    equal(r.zrevrangebyscore("z", 3, "(1"), ["c", "b"])
    equal(r.zrange("z", 2, 4, byscore=True, offset=1, num=1), ["c"])
    equal(r.zcount("z", "(1", 3), 2)
    refused(lambda: r.zrangebyscore("z", "x", 1), "min or max is not a float")
    r.zadd("t", {name: 0 for name in ["a", "b", "c", "ca", "d"]})
    equal(r.zrangebylex("t", "[b", "(d"), ["b", "c", "ca"])
    equal(r.zrangebylex("t", "-", "+", start=3, num=2), ["ca", "d"])
    equal(r.zrevrangebylex("t", "(c", "-"), ["b", "a"])
    equal(r.zlexcount("t", "-", "(ca"), 3)
    refused(lambda: r.zrangebylex("t", "b", "d"), "min or max not valid string range item")
    equal(r.zrangestore("dst", "z", 1, 2), 2)
    equal(r.zrange("dst", 0, -1), ["b", "c"])


@check
def ranks_scores_and_counts(r):
    r.zadd("z", {"a": 1, "b": 2, "c": 2})
    equal(r.zrank("z", "c"), 2)
    equal(r.zrevrank("z", "c"), 0)
    equal(r.zrank("z", "nope"), None)
    equal(r.zcard("z"), 3)
    equal(r.zmscore("z", ["a", "nope"]), [1.0, None])
    equal(r.zscore("none", "a"), None)


@check
def removal_by_name_rank_score_and_text(r):
    r.zadd("z", {f"m{n}": n for n in range(10)})
    equal(r.zrem("z", "m0", "nope"), 1)
    equal(r.zremrangebyrank("z", 0, 1), 2)
    equal(r.zremrangebyscore("z", "(3", 5), 2)
    equal(r.zrange("z", 0, -1), ["m3", "m6", "m7", "m8", "m9"])
    equal(r.zpopmin("z"), [("m3", 3.0)])
    equal(r.zpopmax("z", 2), [("m9", 9.0), ("m8", 8.0)])
    r.zadd("t", {name: 0 for name in "abcd"})
    equal(r.zremrangebylex("t", "[b", "[c"), 2)
    equal(r.zrange("t", 0, -1), ["a", "d"])
    equal(r.zmpop(2, ["none", "t"], min=True, count=5), ["t", [["a", "0"], ["d", "0"]]])
    equal(r.exists("t"), 0)


@check
def algebra_with_weights_and_aggregates(r):
    r.zadd("a", {"x": 1, "y": 2})
    r.zadd("b", {"y": 10, "z": 20})
    equal(r.zunion(["a", "b"], withscores=True), [("x", 1.0), ("y", 12.0), ("z", 20.0)])
    equal(r.zinter(["a", "b"], withscores=True), [("y", 12.0)])
    equal(r.zdiff(["a", "b"]), ["x"])
    equal(r.zintercard(2, ["a", "b"]), 1)
    equal(r.zunionstore("d", {"a": 2, "b": 3}), 3)
    equal(r.zrange("d", 0, -1, withscores=True), [("x", 2.0), ("y", 34.0), ("z", 60.0)])
    equal(r.zunionstore("d", ["a", "b"], aggregate="MAX"), 3)
    equal(r.zscore("d", "y"), 10.0)
    equal(r.zinterstore("d", ["a", "b"], aggregate="MIN"), 1)
    equal(r.zscore("d", "y"), 2.0)
    equal(r.zdiffstore("d", ["a", "b"]), 1)
    r.sadd("s", "x", "z")
    equal(r.zunion(["a", "s"], withscores=True), [("z", 1.0), ("x", 2.0), ("y", 2.0)])


@check
def random_members(r):
    members = {f"m{n}": float(n) for n in range(30)}
    r.zadd("z", members)
    assert r.zrandmember("z") in members
    equal(len(set(r.zrandmember("z", 10))), 10)
    equal(len(r.zrandmember("z", -50)), 50)
    equal(len(r.zrandmember("z", 3, withscores=True)), 6)


@check
def a_large_set_keeps_its_order(r):
    members = {f"m{n}": (n * 7919) % 5003 for n in range(5003)}
    r.zadd("z", members)
    ordered = sorted(members, key=lambda name: (members[name], name))
    equal(r.zrange("z", 0, -1), ordered)
    for rank in [0, 1, 2500, 5002]:
        equal(r.zrank("z", ordered[rank]), rank)
    equal(r.zrange("z", 2000, 2010), ordered[2000:2011])
    r.zremrangebyrank("z", 100, 4900)
    equal(r.zrange("z", 0, -1), ordered[:100] + ordered[4901:])
    equal(dict(r.zscan_iter("z")), {name: float(members[name]) for name in ordered[:100] + ordered[4901:]})


run()
