"""Strings with every option, counters and ranges."""

from harness import check, connect, equal, refused, run


@check
def set_and_get_keep_every_byte(r):
    with connect(decode_responses=False) as raw:
        for value in [b"", b"\x00", bytes(range(256)), b"\r\n", b"x" * 1_000_000]:
            equal(raw.set("k", value), True)
            equal(raw.get("k"), value)


@check
def set_nx_and_xx_ask_whether_the_key_exists(r):
    equal(r.set("k", "1", xx=True), None)
    equal(r.set("k", "1", nx=True), True)
    equal(r.set("k", "2", nx=True), None)
    equal(r.set("k", "3", xx=True), True)
    equal(r.get("k"), "3")


@check
def set_get_returns_the_old_value(r):
    equal(r.set("k", "1", get=True), None)
    equal(r.set("k", "2", get=True), "1")
    equal(r.set("k", "3", nx=True, get=True), "2")
    equal(r.get("k"), "2")
    r.rpush("l", "x")
    refused(lambda: r.execute_command("SET", "l", "1", "GET"), "wrong kind of value")


@check
def set_with_expiry_and_keepttl(r):
    r.set("k", "1", ex=100)
    assert 95 <= r.ttl("k") <= 100
    r.set("k", "2", keepttl=True)
    assert 95 <= r.ttl("k") <= 100
    r.set("k", "3")
    equal(r.ttl("k"), -1)
    r.set("k", "4", px=100_000)
    assert 95_000 <= r.pttl("k") <= 100_000
    r.set("k", "5", exat=4_000_000_000)
    equal(r.expiretime("k"), 4_000_000_000)
    r.set("k", "6", pxat=4_000_000_000_123)
    equal(r.execute_command("PEXPIRETIME", "k"), 4_000_000_000_123)
    r.set("k", "7", exat=1)
    equal(r.exists("k"), 0)


@check
def set_refuses_options_that_contradict(r):
    for words in ["NX XX", "EX 10 PX 10", "EX 10 KEEPTTL", "WHAT", "EX"]:
        refused(lambda: r.execute_command("SET", "k", "v", *words.split()), "syntax error")
    refused(lambda: r.execute_command("SET", "k", "v", "EX", "0"), "invalid expire time in 'set' command")
    refused(lambda: r.execute_command("SET", "k", "v", "PX", "-1"), "invalid expire time in 'set' command")
    refused(lambda: r.execute_command("SET", "k", "v", "EX", "9223372036854775807"), "invalid expire time")
    refused(lambda: r.execute_command("SET", "k", "v", "EX", "abc"), "not an integer or out of range")
    refused(lambda: r.execute_command("SET", "k"), "wrong number of arguments for 'set' command")


@check
def counters_stop_at_64_bits(r):
    equal(r.incr("n"), 1)
    equal(r.incrby("n", 41), 42)
    equal(r.decr("n"), 41)
    equal(r.decrby("n", 50), -9)
    r.set("n", 9223372036854775807)
    refused(lambda: r.incr("n"), "increment or decrement would overflow")
    r.set("n", -9223372036854775808)
    refused(lambda: r.decr("n"), "increment or decrement would overflow")
    refused(lambda: r.execute_command("DECRBY", "n", "-9223372036854775808"), "decrement would overflow")
    for text in ["", " 1", "1 ", "1.0", "+1", "01", "abc", "9223372036854775808"]:
        r.set("n", text)
        refused(lambda: r.incr("n"), "value is not an integer or out of range")


@check
def incrbyfloat_prints_the_shortest_decimal(r):
    r.set("f", "10.50")
    equal(r.execute_command("INCRBYFLOAT", "f", "0.1"), 10.6)
    equal(r.get("f"), "10.6")
    r.set("f", "5.0e3")
    r.execute_command("INCRBYFLOAT", "f", "2.0e2")
    equal(r.get("f"), "5200")
    r.set("f", "3")
    r.execute_command("INCRBYFLOAT", "f", "-1.5")
    equal(r.get("f"), "1.5")
    r.set("f", "abc")
    refused(lambda: r.incrbyfloat("f", 1), "value is not a valid float")
    r.set("f", "1")
    refused(lambda: r.execute_command("INCRBYFLOAT", "f", "nan"), "not a valid float")
    refused(lambda: r.execute_command("INCRBYFLOAT", "f", "inf"), "NaN or Infinity")


@check
def append_ranges_and_length(r):
    equal(r.append("k", "Hello"), 5)
    equal(r.append("k", " World"), 11)
    equal(r.strlen("k"), 11)
    for start, end, part in [(0, 4, "Hello"), (-5, -1, "World"), (0, -1, "Hello World"), (5, 3, ""), (20, 30, ""), (-100, 2, "Hel")]:
        equal(r.getrange("k", start, end), part)
    equal(r.execute_command("SUBSTR", "k", 0, 1), "He")
    equal(r.setrange("k", 6, "Redis"), 11)
    equal(r.get("k"), "Hello Redis")
    equal(r.setrange("pad", 3, "x"), 4)
    equal(r.get("pad"), "\x00\x00\x00x")
    equal(r.setrange("none", 3, ""), 0)
    equal(r.exists("none"), 0)
    refused(lambda: r.setrange("k", -1, "x"), "offset is out of range")
    refused(lambda: r.setrange("k", 536870912, "x"), "exceeds maximum allowed size")


@check
def many_keys_at_once(r):
    equal(r.mset({"a": 1, "b": 2, "c": 3}), True)
    equal(r.mget("a", "nope", "c"), ["1", None, "3"])
    equal(bool(r.msetnx({"c": 9, "d": 4})), False)
    equal(r.exists("d"), 0)
    equal(bool(r.msetnx({"d": 4, "e": 5})), True)
    refused(lambda: r.execute_command("MSET", "a", 1, "b"), "wrong number of arguments for 'mset' command")
    r.rpush("list", 1)
    equal(r.mget("a", "list"), ["1", None])


@check
def getdel_getex_getset_and_setnx(r):
    r.set("k", "v")
    equal(r.getex("k", ex=100), "v")
    assert 95 <= r.ttl("k") <= 100
    equal(r.getex("k", persist=True), "v")
    equal(r.ttl("k"), -1)
    equal(r.getex("none", ex=1), None)
    equal(r.getset("k", "w"), "v")
    equal(r.getdel("k"), "w")
    equal(r.getdel("k"), None)
    equal(bool(r.setnx("k", 1)), True)
    equal(bool(r.setnx("k", 2)), False)
    equal(r.setex("k", 100, "x"), True)
    equal(r.psetex("k", 100_000, "y"), True)
    refused(lambda: r.setex("k", 0, "x"), "invalid expire time in 'setex' command")


@check
def lcs_gives_text_length_and_places(r):
    r.mset({"a": "ohmytext", "b": "mynewtext"})
    equal(r.execute_command("LCS", "a", "b"), "mytext")
    equal(r.execute_command("LCS", "a", "b", "LEN"), 6)
    answer = r.execute_command("LCS", "a", "b", "IDX", "MINMATCHLEN", "4", "WITHMATCHLEN")
    flat = dict(zip(answer[::2], answer[1::2])) if isinstance(answer, list) else answer
    equal(flat["matches"], [[[4, 7], [5, 8], 4]])
    equal(flat["len"], 6)


@check
def a_command_for_another_type_is_refused(r):
    r.rpush("l", 1)
    for call in [lambda: r.get("l"), lambda: r.incr("l"), lambda: r.append("l", "x"), lambda: r.strlen("l"), lambda: r.getrange("l", 0, 1)]:
        refused(call, "Operation against a key holding the wrong kind of value")


run()
