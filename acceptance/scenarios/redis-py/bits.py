"""Bit operations on strings."""

from harness import check, connect, equal, refused, run


@check
def single_bits(r):
    equal(r.setbit("b", 7, 1), 0)
    equal(r.setbit("b", 7, 0), 1)
    equal(r.getbit("b", 7), 0)
    equal(r.getbit("b", 1000), 0)
    equal(r.setbit("b", 100, 1), 0)
    equal(r.strlen("b"), 13)
    refused(lambda: r.setbit("b", 4294967296, 1), "bit offset is not an integer or out of range")
    refused(lambda: r.setbit("b", -1, 1), "bit offset is not an integer or out of range")
    refused(lambda: r.execute_command("SETBIT", "b", 1, 2), "bit is not an integer or out of range")


@check
def counting_by_bytes_and_by_bits(r):
    r.set("b", "foobar")
    equal(r.bitcount("b"), 26)
    equal(r.bitcount("b", 0, 0), 4)
    equal(r.bitcount("b", 1, 1), 6)
    equal(r.bitcount("b", -2, -1), 7)
    equal(r.bitcount("b", 5, 30, "BIT"), 17)
    equal(r.bitcount("none"), 0)
    refused(lambda: r.execute_command("BITCOUNT", "b", 1), "syntax error")


@check
def positions(r):
    with connect(decode_responses=False) as raw:
        raw.set("b", b"\xff\xf0\x00")
        equal(r.bitpos("b", 0), 12)
        equal(r.bitpos("b", 1), 0)
        equal(r.bitpos("b", 1, 2), -1)
        equal(r.execute_command("BITPOS", "b", 0, 0, -1, "BIT"), 12)
        raw.set("ones", b"\xff\xff")
        equal(r.bitpos("ones", 0), 16)
        equal(r.bitpos("ones", 0, 0, 1), -1)
        equal(r.bitpos("none", 1), -1)
        equal(r.bitpos("none", 0), 0)


@check
def combining_strings_of_different_lengths(r):
    with connect(decode_responses=False) as raw:
        raw.mset({"x": b"\xf0\x0f\xaa", "y": b"\xff\x00"})
        for operation, keys, result in [
            ("AND", ["x", "y"], b"\xf0\x00\x00"),
            ("OR", ["x", "y"], b"\xff\x0f\xaa"),
            ("XOR", ["x", "y"], b"\x0f\x0f\xaa"),
            ("NOT", ["x"], b"\x0f\xf0\x55"),
        ]:
            equal(raw.bitop(operation, "d", *keys), 3)
            equal(raw.get("d"), result)
        equal(raw.bitop("AND", "d", "none"), 0)
        equal(raw.exists("d"), 0)
    refused(lambda: r.bitop("NOT", "d", "x", "y"), "BITOP NOT must be called with a single source key")


@check
def bit_fields_wrap_saturate_and_fail(r):
    run = lambda *words: r.execute_command("BITFIELD", "f", *words)
    equal(run("SET", "u8", 0, 255, "GET", "u8", 0), [0, 255])
    equal(run("INCRBY", "u8", 0, 1), [0])
    equal(run("SET", "i8", 0, 127), [0])
    equal(run("OVERFLOW", "SAT", "INCRBY", "i8", 0, 10), [127])
    equal(run("OVERFLOW", "FAIL", "INCRBY", "i8", 0, 10), [None])
    equal(run("OVERFLOW", "WRAP", "INCRBY", "i8", 0, 1), [-128])
    equal(run("SET", "i5", "#3", -7, "GET", "i5", "#3"), [0, -7])
    equal(r.execute_command("BITFIELD_RO", "f", "GET", "u4", 0), [8])
    refused(lambda: run("GET", "u64", 0), "Invalid bitfield type")
    refused(lambda: r.execute_command("BITFIELD_RO", "f", "SET", "u4", 0, 1), "BITFIELD_RO only supports the GET subcommand")


run()
