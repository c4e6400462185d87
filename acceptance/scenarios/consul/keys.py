"""Keys, sessions, locks, transactions and events by Consul's HTTP API: python-consul2, three nodes, and one of them that dies."""

import base64
import json
import os
import subprocess
import threading
import time

from harness import PATIENCE_SECONDS, check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - keys of Consul's clients: the server under test is not a node")
else:
    import consul
    import redis
    from processes import BINARY
    from services import ServiceMember

    FIRST = ServiceMember("a")
    SECOND = ServiceMember("b", FIRST)
    THIRD = ServiceMember("c", FIRST)
    MEMBERS = [FIRST, SECOND, THIRD]

    def kv(member):
        return consul.Consul(host="127.0.0.1", port=member.consul_port).kv

    def session(member):
        return consul.Consul(host="127.0.0.1", port=member.consul_port).session

    def value(member, key):
        found = kv(member).get(key)[1]
        return found and found["Value"]

    def refuses(member):
        try:
            member.connect().get("any")
        except redis.AuthenticationError:
            return True
        return False

    @check
    def keys_are_the_same_at_all_members(_):
        until(lambda: FIRST.is_whole(3), "the cluster is whole", 60)
        # The first change of all is one, too.
        index = FIRST.ask("GET", "/v1/kv/first")[1]["X-Consul-Index"]
        assert kv(FIRST).put("first", "1")
        status, headers, _ = FIRST.ask("GET", f"/v1/kv/first?index={index}&wait=60s", seconds=20)
        equal(status, 200)
        assert int(headers["X-Consul-Index"]) > int(index)
        assert kv(FIRST).put("app/one", "1")
        for member in MEMBERS:
            equal(value(member, "app/one"), b"1")
        kv(SECOND).put("app/two/deep", b"\x00\xff", flags=7)
        equal(value(THIRD, "app/two/deep"), b"\x00\xff")
        equal(kv(THIRD).get("app/", keys=True, separator="/")[1], ["app/one", "app/two/"])
        equal([one["Key"] for one in kv(THIRD).get("app/", recurse=True)[1]], ["app/one", "app/two/deep"])
        equal(kv(THIRD).get("app/two/deep")[1]["Flags"], 7)
        kv(THIRD).delete("app/", recurse=True)
        equal(kv(FIRST).get("app/", recurse=True)[1], None)

    @check
    def a_write_that_compares_is_done_once(_):
        kv(FIRST).put("count", "0")
        done = []

        def count(member):
            for _ in range(10):
                while True:
                    found = kv(member).get("count")[1]
                    if kv(member).put("count", str(int(found["Value"]) + 1), cas=found["ModifyIndex"]):
                        done.append(1)
                        break

        threads = [threading.Thread(target=count, args=(member,)) for member in MEMBERS]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]
        equal(len(done), 30)
        equal(value(FIRST, "count"), b"30")

    @check
    def what_is_not_there_is_deleted_whatever_its_index(_):
        for _ in range(2):
            equal(FIRST.ask("DELETE", "/v1/kv/never?cas=7")[::2], (200, "true"))
        kv(FIRST).put("there", "v")
        equal(FIRST.ask("DELETE", "/v1/kv/there?cas=1")[::2], (200, "false"))

    @check
    def a_query_waits_for_its_key_at_another_member(_):
        kv(FIRST).put("waited", "old")
        index = kv(SECOND).get("waited")[0]
        seen = []
        waiter = threading.Thread(target=lambda: seen.append(kv(SECOND).get("waited", index=index, wait="60s")))
        waiter.start()
        kv(FIRST).put("another", "x")
        kv(FIRST).put("waited", "new")
        waiter.join(20)
        equal(seen[0][1]["Value"], b"new")
        assert int(seen[0][0]) > int(index)

    @check
    def one_session_has_a_lock_until_it_ends(_):
        mine = session(FIRST).create("mine", ttl=60, lock_delay=0)
        other = session(SECOND).create("other", ttl=60, lock_delay=0)
        assert kv(FIRST).put("lock", "mine", acquire=mine)
        assert not kv(SECOND).put("lock", "other", acquire=other)
        equal(kv(THIRD).get("lock")[1]["Session"], mine)
        assert kv(FIRST).put("lock", "mine", release=mine)
        assert kv(SECOND).put("lock", "other", acquire=other)
        session(SECOND).destroy(other)
        assert kv(FIRST).put("lock", "mine", acquire=mine)
        session(FIRST).destroy(mine)

    @check
    def a_session_that_is_not_renewed_ends_and_its_keys_may_go_with_it(_):
        short = session(FIRST).create("short", ttl=10, lock_delay=0, behavior="delete")
        FIRST.put("/v1/session/destroy/" + short)
        status, _, text = FIRST.ask("PUT", "/v1/session/create", {"TTL": "1s", "LockDelay": "0s", "Behavior": "delete"})
        equal(status, 200)
        brief = text.split('"')[3]
        assert kv(FIRST).put("leader", "me", acquire=brief)
        until(lambda: value(SECOND, "leader") is None, "the session has ended")
        equal(FIRST.get(f"/v1/session/info/{brief}"), [])

    @check
    def a_transaction_is_done_whole_or_not_at_all(_):
        def transact(member, *operations):
            client = consul.Consul(host="127.0.0.1", port=member.consul_port)
            return client.txn.put([{"KV": operation} for operation in operations])

        def encoded(text):
            return base64.b64encode(text.encode()).decode()

        told = transact(FIRST, {"Verb": "set", "Key": "t/a", "Value": encoded("1")}, {"Verb": "set", "Key": "t/b", "Value": encoded("2")})
        equal(told["Errors"], None)
        equal(len({one["KV"]["ModifyIndex"] for one in told["Results"]}), 1)
        stale = {"Verb": "cas", "Key": "t/b", "Value": encoded("4"), "Index": 1}
        body = [{"KV": one} for one in ({"Verb": "set", "Key": "t/a", "Value": encoded("3")}, {"Verb": "delete-tree", "Key": "t/"}, stale)]
        status, _, text = SECOND.ask("PUT", "/v1/txn", body)
        equal(status, 409)
        equal(json.loads(text)["Errors"], [{"OpIndex": 2, "What": 'failed to set key "t/b", index is stale'}])
        equal([value(THIRD, "t/a"), value(THIRD, "t/b")], [b"1", b"2"])
        told = transact(THIRD, {"Verb": "get-tree", "Key": "t/"}, {"Verb": "check-not-exists", "Key": "t/c"})
        equal([one["KV"]["Value"] for one in told["Results"]], [encoded("1"), encoded("2")])

    @check
    def transfers_between_keys_keep_their_sum_whoever_makes_them(_):
        def encoded(number):
            return base64.b64encode(str(number).encode()).decode()

        def both(member):
            status, _, text = member.ask("PUT", "/v1/txn", [{"KV": {"Verb": "get", "Key": f"sum/{name}"}} for name in "ab"])
            equal(status, 200)
            told = [one["KV"] for one in json.loads(text)["Results"]]
            return [(int(base64.b64decode(one["Value"])), one["ModifyIndex"]) for one in told]

        kv(FIRST).put("sum/a", "100")
        kv(FIRST).put("sum/b", "0")
        sums, done = [], []

        def transfer(member):
            for _ in range(10):
                while True:
                    (a, at_a), (b, at_b) = both(member)
                    sums.append(a + b)
                    operations = [{"Verb": "cas", "Key": "sum/a", "Value": encoded(a - 1), "Index": at_a}]
                    operations += [{"Verb": "cas", "Key": "sum/b", "Value": encoded(b + 1), "Index": at_b}]
                    if member.ask("PUT", "/v1/txn", [{"KV": one} for one in operations])[0] == 200:
                        done.append(1)
                        break

        threads = [threading.Thread(target=transfer, args=(member,)) for member in MEMBERS]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]
        equal((len(done), set(sums)), (30, {100}))
        equal([amount for amount, _ in both(FIRST)], [70, 30])

    @check
    def an_event_is_told_at_all_members(_):
        def event(member):
            return consul.Consul(host="127.0.0.1", port=member.consul_port).event

        index, events = event(SECOND).list("deploy")
        equal(events, [])
        seen = []
        waiter = threading.Thread(target=lambda: seen.append(event(SECOND).list("deploy", index=index, wait="60s")))
        waiter.start()
        assert event(FIRST).fire("deploy", "v2")
        waiter.join(20)
        equal([one["Payload"] for one in seen[0][1]], ["djI="])
        equal([one["Name"] for one in THIRD.get("/v1/event/list")], ["deploy"])

    @check
    def users_of_the_cluster_do_not_lock_the_node_out_of_its_keys(_):
        def user(*words):
            command = [BINARY, "cluster", "user", *words, "--port-offset", f"{FIRST.offset}"]
            told = subprocess.run(command, input="secret\n", check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
            equal(told.returncode, 0)

        user("set", "ann")
        until(lambda: refuses(FIRST), "a password is asked for")
        assert kv(FIRST).put("with/users", "v")
        equal(value(FIRST, "with/users"), b"v")
        user("remove", "ann")

    @check
    def the_lock_of_a_member_that_dies_is_free_again_and_keys_stay(_):
        kv(THIRD).put("kept", "v")
        theirs = session(THIRD).create("theirs", lock_delay=0)
        assert kv(THIRD).put("lock", "theirs", acquire=theirs)
        ours = session(FIRST).create("ours", ttl=3600, lock_delay=0)
        assert not kv(FIRST).put("lock", "ours", acquire=ours)
        THIRD.kill()

        def acquired():
            try:
                return kv(FIRST).put("lock", "ours", acquire=ours)
            except consul.base.ConsulException:
                # Partitions that the dead member led have no leader for a moment.
                return False

        until(acquired, "the lock is free again")
        equal(value(SECOND, "kept"), b"v")
        equal(value(SECOND, "lock"), b"ours")

    try:
        run()
    finally:
        for member in MEMBERS:
            member.kill()
