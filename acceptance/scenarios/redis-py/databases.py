"""SWAPDB: two databases change places at once."""

import threading

from harness import check, connect, equal, refused, run, until


@check
def two_databases_change_places(r):
    with connect(db=1) as one:
        r.set("a", "zero")
        one.set("b", "one", ex=100)
        equal(r.swapdb(0, 1), True)
        equal((r.keys(), one.keys()), (["b"], ["a"]))
        assert 90 < r.ttl("b") <= 100
        equal({db: r.info("keyspace")[db]["keys"] for db in ("db0", "db1")}, {"db0": 1, "db1": 1})
        equal(r.swapdb(1, 0), True)
        equal((r.keys(), one.keys()), (["a"], ["b"]))


@check
def wrong_numbers_are_refused(r):
    refused(lambda: r.execute_command("SWAPDB", "x", 1), "invalid first DB index")
    refused(lambda: r.execute_command("SWAPDB", 0, "x"), "invalid second DB index")
    refused(lambda: r.execute_command("SWAPDB", 0, 99), "DB index is out of range")
    equal(r.execute_command("SWAPDB", 3, 3), True)


@check
def a_blocked_client_is_served_by_what_comes_with_the_other_database(r):
    got = []
    with connect(db=9) as waiter, connect(db=1) as other:
        thread = threading.Thread(target=lambda: got.append(waiter.brpop("k", 15)))
        thread.start()
        until(lambda: r.info("clients")["blocked_clients"] == 1, "it waits")
        other.rpush("k", "hello")
        r.swapdb(1, 9)
        thread.join()
    equal(got, [("k", "hello")])


@check
def a_watch_is_broken_by_an_exchange_of_its_key(r):
    for here, there, holds in [(1, 0, False), (0, 1, False), (0, 0, True)]:
        r.flushall()
        with connect(db=1) as one:
            if here:
                r.set("x", 1)
            if there:
                one.set("x", 1)
        with connect() as watcher, watcher.pipeline() as pipe:
            pipe.watch("x")
            r.swapdb(0, 1)
            pipe.multi()
            pipe.ping()
            try:
                answer = pipe.execute()
            except Exception as error:
                answer = type(error).__name__
        equal(answer, [True] if holds else "WatchError")


@check
def nobody_sees_half_an_exchange(r):
    """Each database has all of its keys under one name; a transaction never sees two names."""
    with connect(db=1) as one:
        for n in range(50):
            r.set(f"k{n}", "zero")
            one.set(f"k{n}", "one")
    done, seen, wrong = threading.Event(), set(), []

    def read():
        with connect() as reader:
            while not done.is_set():
                values = set(reader.mget([f"k{n}" for n in range(50)]))
                seen.update(values)
                if len(values) != 1:
                    wrong.append(values)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        r.swapdb(0, 1)
    until(lambda: len(seen) == 2, "both were seen")
    done.set()
    for thread in threads:
        thread.join()
    equal((wrong, seen), ([], {"zero", "one"}))


run()
