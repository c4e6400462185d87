"""Iterators: what exists from the start to the end of a scan is returned."""

from harness import check, equal, refused, run


@check
def scan_gives_every_key(r):
    names = {f"key:{n}" for n in range(3000)}
    r.mset({name: 1 for name in names})
    for count in [None, 7, 1000]:
        equal(set(r.scan_iter(count=count)), names)


@check
def scan_filters_by_pattern_and_type(r):
    r.mset({f"s:{n}": 1 for n in range(100)})
    for n in range(50):
        r.rpush(f"l:{n}", 1)
        r.zadd(f"z:{n}", {"a": 1})
    equal(set(r.scan_iter(match="s:1?")), {f"s:1{n}" for n in range(10)})
    equal(set(r.scan_iter(_type="list")), {f"l:{n}" for n in range(50)})
    equal(set(r.scan_iter(match="z:4*", _type="zset")), {"z:4"} | {f"z:4{n}" for n in range(10)})


@check
def keys_that_stay_are_returned_while_others_come_and_go(r):
    stay = {f"stay:{n}" for n in range(1000)}
    r.mset({name: 1 for name in stay})
    seen, cursor, turn = set(), 0, 0
    while True:
        cursor, names = r.scan(cursor, count=20)
        seen.update(names)
        r.mset({f"new:{turn}:{n}": 1 for n in range(50)})
        r.delete(*[f"new:{turn - 2}:{n}" for n in range(50)])
        turn += 1
        if cursor == 0:
            break
        assert turn < 5000, "the scan does not end"
    equal(stay - seen, set())


@check
def collections_are_scanned_while_they_change(r):
    r.sadd("s", *[f"stay{n}" for n in range(1000)])
    seen, cursor, turn = set(), 0, 0
    while True:
        cursor, members = r.sscan("s", cursor, count=10)
        seen.update(members)
        r.sadd("s", f"new{turn}")
        r.srem("s", f"new{turn - 1}")
        turn += 1
        if cursor == 0:
            break
        assert turn < 5000, "the scan does not end"
    equal({f"stay{n}" for n in range(1000)} - seen, set())


@check
def bad_cursors_and_options_are_refused(r):
    refused(lambda: r.execute_command("SCAN", "abc"), "invalid cursor")
    refused(lambda: r.execute_command("SCAN", 0, "COUNT", 0), "syntax error")
    refused(lambda: r.execute_command("SCAN", 0, "COUNT", "x"), "value is not an integer or out of range")
    refused(lambda: r.execute_command("SCAN", 0, "WHAT"), "syntax error")
    r.set("k", 1)
    refused(lambda: r.sscan("k"), "wrong kind of value")
    equal(r.sscan("none"), (0, []))


run()
