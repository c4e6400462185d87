"""Lists without waiting."""

from harness import check, equal, refused, run


@check
def both_ends_push_and_pop(r):
    equal(r.rpush("l", "b", "c"), 2)
    equal(r.lpush("l", "a", "z"), 4)
    equal(r.lrange("l", 0, -1), ["z", "a", "b", "c"])
    equal(r.lpop("l"), "z")
    equal(r.rpop("l"), "c")
    equal(r.lpop("l", 5), ["a", "b"])
    equal(r.exists("l"), 0)
    equal(r.lpop("l"), None)
    equal(r.lpop("l", 2), None)
    equal(r.execute_command("LPOP", "l", 0), None)
    refused(lambda: r.execute_command("LPOP", "l", -1), "value is out of range, must be positive")
    equal(r.lpushx("l", "a"), 0)
    equal(r.rpushx("l", "a"), 0)
    equal(r.exists("l"), 0)


@check
def ranges_and_indexes_count_from_both_ends(r):
    r.rpush("l", *range(10))
    for start, end, part in [(0, 2, [0, 1, 2]), (-3, -1, [7, 8, 9]), (5, 100, [5, 6, 7, 8, 9]), (3, 2, []), (-100, 0, [0])]:
        equal(r.lrange("l", start, end), [f"{n}" for n in part])
    equal(r.lindex("l", 0), "0")
    equal(r.lindex("l", -1), "9")
    equal(r.lindex("l", 10), None)
    equal(r.llen("l"), 10)
    equal(r.lset("l", -1, "x"), True)
    equal(r.lindex("l", 9), "x")
    refused(lambda: r.lset("l", 10, "x"), "index out of range")
    refused(lambda: r.lset("none", 0, "x"), "no such key")
    equal(r.ltrim("l", 2, -3), True)
    equal(r.lrange("l", 0, -1), ["2", "3", "4", "5", "6", "7"])
    r.ltrim("l", 5, 1)
    equal(r.exists("l"), 0)


@check
def elements_are_inserted_removed_and_found(r):
    r.rpush("l", *"abcabc")
    equal(r.linsert("l", "before", "b", "X"), 7)
    equal(r.linsert("l", "after", "b", "Y"), 8)
    equal(r.lrange("l", 0, -1), list("aXbYcabc"))
    equal(r.linsert("l", "before", "nope", "Z"), -1)
    equal(r.linsert("none", "before", "a", "Z"), 0)
    equal(r.lpos("l", "c"), 4)
    equal(r.lpos("l", "c", rank=2), 7)
    equal(r.lpos("l", "c", rank=-1), 7)
    equal(r.lpos("l", "c", count=0), [4, 7])
    equal(r.lpos("l", "c", maxlen=3), None)
    equal(r.lpos("l", "nope", count=2), [])
    refused(lambda: r.lpos("l", "c", rank=0), "RANK can't be zero")
    equal(r.lrem("l", 1, "a"), 1)
    equal(r.lrem("l", -1, "c"), 1)
    equal(r.lrem("l", 0, "b"), 2)
    equal(r.lrange("l", 0, -1), list("XYca"))


@check
def moves_between_lists_and_within_one(r):
    r.rpush("a", 1, 2, 3)
    equal(r.rpoplpush("a", "b"), "3")
    equal(r.lmove("a", "b", "LEFT", "RIGHT"), "1")
    equal(r.lrange("b", 0, -1), ["3", "1"])
    equal(r.lmove("b", "b", "LEFT", "RIGHT"), "3")
    equal(r.lrange("b", 0, -1), ["1", "3"])
    equal(r.lmove("none", "b", "LEFT", "RIGHT"), None)
    r.set("s", 1)
    refused(lambda: r.lmove("a", "s", "LEFT", "LEFT"), "wrong kind of value")
    equal(r.lrange("a", 0, -1), ["2"])


@check
def lmpop_takes_from_the_first_list_that_has_something(r):
    r.rpush("b", 1, 2, 3)
    equal(r.lmpop(2, "a", "b", direction="LEFT", count=2), ["b", ["1", "2"]])
    equal(r.lmpop(2, "a", "b", direction="RIGHT"), ["b", ["3"]])
    equal(r.lmpop(2, "a", "b", direction="RIGHT"), None)
    refused(lambda: r.execute_command("LMPOP", 0, "a", "LEFT"), "numkeys should be greater than 0")
    refused(lambda: r.execute_command("LMPOP", 1, "a", "UP"), "syntax error")


@check
def long_lists_and_long_elements_stay_in_order(r):
    values = [f"{n}:" + "x" * (n % 300) for n in range(5000)]
    for start in range(0, 5000, 1000):
        r.rpush("l", *values[start : start + 1000])
    equal(r.lrange("l", 0, -1), values)
    equal(r.lindex("l", 2500), values[2500])
    equal(r.linsert("l", "before", values[2500], "here"), 5001)
    equal(r.lindex("l", 2500), "here")
    r.rpush("big", "y" * 100_000, "z")
    equal(len(r.lindex("big", 0)), 100_000)


run()
