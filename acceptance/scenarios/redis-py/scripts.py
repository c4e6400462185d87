"""Lua: EVAL, scripts by hash, redis-py's locks, cjson and cmsgpack."""

import redis
from harness import Waiter, check, connect, equal, refused, run


@check
def values_are_converted_in_both_directions(r):
    for script, answer in [
        ("return 1", 1),
        ("return 3.99", 3),
        ("return 'text'", "text"),
        ("return {1, 2, {3, 'x'}}", [1, 2, [3, "x"]]),
        ("return {1, nil, 3}", [1]),
        ("return true", 1),
        ("return false", None),
        ("return nil", None),
        ("return redis.status_reply('FINE')", "FINE"),
        ("return {ok = 'GOOD'}", "GOOD"),
        ("return redis.call('GET', 'none') == false", 1),
        ("return redis.call('SET', 'a', 1).ok", "OK"),
        ("return type(redis.call('INCR', 'a'))", "number"),
        ("return #redis.call('LRANGE', 'none', 0, -1)", 0),
        ("return tostring(3.0)", "3"),
    ]:
        equal(r.eval(script, 0), answer)


@check
def keys_and_arguments_are_given(r):
    equal(r.eval("return {KEYS[1], KEYS[2], ARGV[1], ARGV[2], #KEYS, #ARGV}", 2, "a", "b", "x", "y"), ["a", "b", "x", "y", 2, 2])
    with connect(decode_responses=False) as raw:
        equal(raw.eval("return ARGV[1]", 0, bytes(range(256))), bytes(range(256)))
    refused(lambda: r.execute_command("EVAL", "return 1", -1), "Number of keys can't be negative")
    refused(lambda: r.execute_command("EVAL", "return 1", 3, "a"), "Number of keys can't be greater than number of args")


@check
def errors_come_back_as_errors(r):
    r.set("text", "abc")
    refused(lambda: r.eval("return redis.call('INCR', 'text')", 0), "value is not an integer or out of range")
    refused(lambda: r.eval("return redis.error_reply('MINE it broke')", 0), "MINE it broke")
    refused(lambda: r.eval("error('boom')", 0), "boom")
    refused(lambda: r.eval("this is not lua", 0), "Error compiling script")
    refused(lambda: r.eval("return nosuch", 0), "nosuch")
    refused(lambda: r.eval("newglobal = 1", 0), "Attempt to modify a readonly table")
    refused(lambda: r.eval("return redis.call('NOSUCH')", 0), "Unknown Redis command")
    equal(r.eval("local e = redis.pcall('INCR', 'text'); return type(e.err)", 0), "string")
    equal(r.eval("local ok = pcall(redis.call, 'INCR', 'text'); return ok == false", 0), 1)
    equal(r.ping(), True)


@check
def what_was_written_before_an_error_stays(r):
    refused(lambda: r.eval("redis.call('SET', 'a', 1); error('after')", 0), "after")
    equal(r.get("a"), "1")


@check
def scripts_by_hash(r):
    digest = r.script_load("return ARGV[1]")
    equal(r.evalsha(digest, 0, "x"), "x")
    equal(r.script_exists(digest, "0" * 40), [True, False])
    equal(r.execute_command("EVALSHA", digest.upper(), 0, "y"), "y")
    equal(r.eval("return redis.sha1hex('')", 0), "da39a3ee5e6b4b0d3255bfef95601890afd80709")
    r.script_flush()
    equal(r.script_exists(digest), [False])
    refused(lambda: r.evalsha(digest, 0, "x"), "No matching script")
    r.eval("return 7", 0)
    import hashlib

    equal(r.evalsha(hashlib.sha1(b"return 7").hexdigest(), 0), 7)


@check
def register_script_reloads_after_a_flush(r):
    take = r.register_script("local n = redis.call('INCRBY', KEYS[1], ARGV[1]); return n * 2")
    equal(take(keys=["n"], args=[5]), 10)
    r.script_flush()
    equal(take(keys=["n"], args=[1]), 12)
    with r.pipeline() as pipe:
        take(keys=["n"], args=[1], client=pipe)
        pipe.get("n")
        equal(pipe.execute(), [14, "7"])


@check
def a_lock_excludes_others_and_can_be_extended(r):
    lock = r.lock("lock", timeout=30)
    equal(lock.acquire(), True)
    equal(r.lock("lock", blocking=False).acquire(), False)
    equal(lock.locked(), True)
    equal(lock.owned(), True)
    equal(bool(lock.extend(60)), True)
    assert r.ttl("lock") > 60
    equal(bool(lock.reacquire()), True)
    assert r.ttl("lock") <= 30
    lock.release()
    equal(lock.locked(), False)
    lock.acquire()
    r.set("lock", "somebody else")
    refused(lock.release, "no longer own")


@check
def a_lock_guards_a_counter_between_threads(r):
    r.set("n", 0)

    def add(client):
        for _ in range(10):
            with client.lock("lock", timeout=30, sleep=0.002):
                client.set("n", int(client.get("n")) + 1)

    waiters = [Waiter(add) for _ in range(3)]
    for waiter in waiters:
        waiter.result()
    equal(r.get("n"), "30")


@check
def cjson_reads_and_writes(r):
    for script, answer in [
        ("return cjson.encode({1, 2, 'x'})", '[1,2,"x"]'),
        ("return cjson.encode({a = true})", '{"a":true}'),
        ("return cjson.encode(cjson.null)", "null"),
        ("return cjson.decode(ARGV[1]).a[2].b", "deep"),
        ("return cjson.decode(ARGV[1]).none == cjson.null", 1),
        ("return cjson.encode('\\n\"')", '"\\n\\""'),
        ("return cjson.encode({})", "{}"),
        ("return cjson.decode('[1e3]')[1]", 1000),
    ]:
        equal(r.eval(script, 0, '{"a": [1, {"b": "deep"}], "none": null}'), answer)
    refused(lambda: r.eval("return cjson.decode('{')", 0), "Expected")


@check
def cmsgpack_comes_back_as_it_went(r):
    script = """
        local data = {1, -1, 300, 70000, 1.5, 'text', true, {a = {b = 'c'}}}
        return cjson.encode(cmsgpack.unpack(cmsgpack.pack(data)))
    """
    equal(r.eval(script, 0), '[1,-1,300,70000,1.5,"text",true,{"a":{"b":"c"}}]')
    with connect(decode_responses=False) as raw:
        equal(raw.eval("return cmsgpack.pack({1, 'a'})", 0), b"\x92\x01\xa1a")
        equal(raw.eval("return {cmsgpack.unpack(ARGV[1])}", 0, b"\x01\x02"), [1, 2])


@check
def the_bit_and_struct_libraries_are_there(r):
    equal(r.eval("return bit.band(0xff, 0x0f)", 0), 15)
    equal(r.eval("return bit.tohex(255, 4)", 0), "00ff")
    with connect(decode_responses=False) as raw:
        equal(raw.eval("return struct.pack('>I2', 258)", 0), b"\x01\x02")


@check
def the_sandbox_has_no_world(r):
    for name in ["io", "require", "dofile", "loadfile", "print"]:
        refused(lambda: r.eval(f"return {name}('x')", 0), name)
    refused(lambda: r.eval("return os.execute('true')", 0))


@check
def a_read_only_script_cannot_write(r):
    refused(lambda: r.execute_command("EVAL_RO", "return redis.call('SET', 'a', 1)", 0), "Write commands are not allowed from read-only scripts")
    equal(r.execute_command("EVAL_RO", "return redis.call('GET', 'a')", 0), None)


@check
def a_script_is_atomic(r):
    r.mset({"a": 0, "b": 0})

    def bump(client):
        for _ in range(100):
            client.eval("redis.call('INCR', 'a'); for i = 1, 100 do local x = i end; redis.call('INCR', 'b')", 0)

    waiters = [Waiter(bump) for _ in range(2)]
    last = 0
    while last < 200:
        a, b = r.mget("a", "b")
        equal(a, b)
        last = int(a)
    for waiter in waiters:
        waiter.result()


@check
def a_rate_limiter_in_a_transaction(r):
    script = """
        local used = redis.call('ZCOUNT', KEYS[1], ARGV[1] - 10, '+inf')
        if used >= tonumber(ARGV[2]) then return {0, used} end
        redis.call('ZADD', KEYS[1], ARGV[1], ARGV[3])
        redis.call('EXPIRE', KEYS[1], 10)
        return {1, used + 1}
    """
    limit = r.register_script(script)
    answers = [limit(keys=["rate"], args=[100, 3, f"id{n}"]) for n in range(5)]
    equal(answers, [[1, 1], [1, 2], [1, 3], [0, 3], [0, 3]])


run()
