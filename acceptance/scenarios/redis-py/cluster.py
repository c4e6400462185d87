"""Three nodes as one: writes by one member and reads by the others, and what is left when leaders are killed under load."""

import threading

import redis
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY, Member

CONFIG = """
[storage]
segment_bytes = "1MiB"
[[keyspace]]
id = 1
partitions = 8
"""
#: The answer that says that a command was perhaps run.
PERHAPS = "UNKNOWN"

_members = []


def cluster():
    """Three members that have all copies."""
    if not BINARY:
        raise Skip("the server that runs is in no cluster")
    if not _members:
        _members.append(Member("a", config=CONFIG))
        for zone in ("b", "c"):
            _members.append(Member(zone, peer=_members[0], config=CONFIG))
    until(lambda: _members[0].is_whole(3), "three members have all copies", 60)
    return _members


def patient(member, call, seconds=PATIENCE_SECONDS):
    """What `call` with a client of the member gives, once somebody leads."""
    answers = []

    def answered():
        with member.connect() as client:
            try:
                answers.append(call(client))
            except (redis.exceptions.ConnectionError, redis.exceptions.ClusterDownError):
                return False
            except redis.exceptions.ResponseError as error:
                assert f"{error}".startswith(PERHAPS), error
                return False
        return True

    until(answered, "the cluster answers", seconds)
    return answers[-1]


class Writer(threading.Thread):
    """Writes numbered keys at the members in turn until it is stopped; remembers which were acknowledged."""

    def __init__(self, members, prefix):
        super().__init__(daemon=True)
        self.members = members
        self.prefix = prefix
        self.acknowledged = []
        self.ended = threading.Event()

    def run(self):
        number = 0
        while not self.ended.is_set():
            number += 1
            member = self.members[number % len(self.members)]
            try:
                with redis.Redis(port=member.port, socket_timeout=PATIENCE_SECONDS, retry=None) as client:
                    if client.set(f"{self.prefix}:{number}", number):
                        self.acknowledged.append(number)
            except redis.exceptions.RedisError:
                continue

    def stop(self):
        self.ended.set()
        self.join(PATIENCE_SECONDS)


@check
def what_one_member_takes_the_others_have(_):
    one, two, three = cluster()
    for database in (0, 1):
        for number in range(20):
            patient(one, lambda client: client.execute_command("SELECT", database) and client.set(f"k:{number}", number))
            equal(patient(two, lambda client: client.execute_command("SELECT", database) and client.get(f"k:{number}")), f"{number}")
            equal(patient(three, lambda client: client.execute_command("SELECT", database) and client.expire(f"k:{number}", 1000)), True)


@check
def the_status_names_members_zones_and_leaders(_):
    one, two, _ = cluster()
    text = two.ask("status")
    for word in ("zone", "alive", "voter", "leaders", "db15"):
        assert word in text, f"{word!r} is not in\n{text}"
    equal(len(two.ask("members").splitlines()), 3)
    status = one.status()
    equal(sorted(member["zone"] for member in status["members"]), ["a", "b", "c"])
    equal([member["copies"] for member in status["members"]], [23, 23, 23])


@check
def leaders_that_are_killed_lose_no_acknowledged_write(_):
    members = cluster()
    for round in range(3):
        victim = members[round]
        others = [member for member in members if member is not victim]
        writer = Writer(members, f"round{round}")
        writer.start()
        until(lambda: len(writer.acknowledged) > 100, "writes are acknowledged")
        victim.kill()
        killed = len(writer.acknowledged)
        until(lambda: len(writer.acknowledged) > killed + 100, "writes are acknowledged without it", 60)
        writer.stop()
        for number in writer.acknowledged:
            equal(patient(others[number % 2], lambda client: client.get(f"round{round}:{number}")), f"{number}")
        victim.start()
        until(lambda: others[0].is_whole(3), "it is a member again", 60)
        last = writer.acknowledged[-1]
        equal(patient(victim, lambda client: client.get(f"round{round}:{last}")), f"{last}")


@check
def a_planned_stop_and_a_return_keep_everything(_):
    members = cluster()
    patient(members[0], lambda client: client.set("kept", "yes"))
    for member in members:
        member.stop()
        others = [other for other in members if other is not member]
        equal(patient(others[0], lambda client: client.get("kept")), "yes")
        member.start()
        until(lambda: others[0].is_whole(3), "it is a member again", 60)
    equal(patient(members[2], lambda client: client.get("kept")), "yes")


@check
def who_was_away_gets_what_it_missed_from_the_log(_):
    """More than leaders keep in memory, and less than the log has: no snapshot of everything for a short absence."""
    members = cluster()
    away = members[2]
    away.kill()
    value = "v" * 64_000
    for number in range(200):
        equal(patient(members[0], lambda client: client.set(f"missed:{number}", f"{number}{value}")), True)
    away.start()
    until(lambda: members[0].is_whole(3), "it is a member again", 60)
    own = away.status()["node"]
    members[0].ask("move-leader", "0", "0", own)
    until(lambda: list(away.status()["keyspaces"][0]["leaders"]) == [own], "it leads")
    equal(patient(away, lambda client: client.get("missed:199")), f"199{value}")
    read = sum(member.metric("archipel_log_entries_read_total") for member in members[:2])
    assert read > 0, "no entry was read from a log"
    equal(away.metric("archipel_snapshots_installed_total"), 0)


@check
def leadership_moves_when_it_is_asked_for(_):
    one, two, _ = cluster()
    status = one.status()
    (leader,) = next(iter(status["keyspaces"][5]["leaders"])),
    other = next(member["node"] for member in status["members"] if member["node"] != leader)
    two.ask("move-leader", "5", "0", other)
    until(lambda: list(one.status()["keyspaces"][5]["leaders"]) == [other], "the other one leads")


@check
def a_member_that_leaves_is_removed_and_the_others_have_all(_):
    members = cluster()
    patient(members[0], lambda client: client.set("stays", "here"))
    leaver = members[2]
    own = leaver.status()["node"]
    leaver.ask("leave")

    def empty():
        mine = [member for member in members[0].status()["members"] if member["node"] == own]
        return mine[0]["copies"] == 0 and mine[0]["role"] != "voter"

    until(empty, "it has no copies", 60)
    until(lambda: "is removed" in members[0].ask("remove", own), "it is removed")
    leaver.kill()
    equal(patient(members[1], lambda client: client.get("stays")), "here")
    standing = [member["standing"] for member in members[0].status()["members"] if member["node"] == own]
    equal(standing, ["removed"])


run()
