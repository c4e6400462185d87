"""Three members whose proxies do what one of them was told: with curl, while the settings change, and when one was away."""

import json
import os
import subprocess
import tempfile
import threading

from backends import Backend, services
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY, Member

_members = []


def cluster():
    """Three members whose files say nothing of a proxy."""
    if not BINARY:
        raise Skip("the server that runs is in no cluster")
    if not _members:
        _members.append(Member("a"))
        for zone in ("b", "c"):
            _members.append(Member(zone, peer=_members[0]))
    until(lambda: _members[0].is_whole(3), "three members have all copies", 60)
    return _members


def mesh(member, *words):
    """A verb of `archipel mesh` at a member: its exit code, and what it printed."""
    command = [BINARY, "mesh", *words, "--port-offset", f"{member.offset}"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    return told.returncode, told.stdout + told.stderr


def apply(member, text, *words):
    with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as file:
        file.write(text)
    try:
        return mesh(member, "apply", file.name, *words)
    finally:
        os.unlink(file.name)


def curl(member, path="/"):
    """The status and the body that the member's proxy answers."""
    url = f"http://127.0.0.1:{8080 + member.offset}{path}"
    told = subprocess.run(["curl", "-sS", "-w", "%{stderr}%{http_code}", url], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    return told.stderr[-3:], told.stdout


def shop(backend, more=""):
    """A listener, a service with more lines, and a route."""
    return services(shop=[backend.port]) + more + '[[proxy.route]]\nname = "all"\nservice = "shop"\n'


def states(member):
    code, told = mesh(member, "settings", "--json")
    equal(code, 0)
    return sorted(node["state"] for node in json.loads(told)["nodes"])


@check
def all_members_serve_what_one_was_told(_):
    members = cluster()
    with Backend("one") as one, Backend("two") as two:
        code, told = apply(members[1], shop(one), "--by", "ann")
        assert code == 0 and "is in force" in told, told
        for member in members:
            until(lambda member=member: curl(member) == ("200", "one GET / "), "it follows")
        # While one asks without a pause, the endpoint changes at each member in turn.
        ended, failed, count = threading.Event(), [], [0]

        def load(member):
            while not ended.is_set():
                status, body = curl(member)
                count[0] += 1
                if status != "200" or not body.endswith(" GET / "):
                    failed.append((status, body))

        threads = [threading.Thread(target=load, args=(member,), daemon=True) for member in members]
        for thread in threads:
            thread.start()
        for number in range(10):
            code, told = apply(members[number % 3], shop([one, two][number % 2]))
            assert code == 0, told
        ended.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        equal(failed, [])
        assert count[0] > 10, count
        code, told = mesh(members[2], "settings")
        assert code == 0 and "follows" in told and "ann" in told, told


@check
def who_was_away_follows_when_it_is_back(_):
    members = cluster()
    with Backend("one") as one, Backend("two") as two:
        equal(apply(members[0], shop(one))[0], 0)
        members[2].stop()
        code, told = apply(members[0], shop(two), "--wait", "0")
        assert code == 0, told
        members[2].start()
        until(lambda: curl(members[2]) == ("200", "two GET / "), "it has what came meanwhile")
        until(lambda: states(members[0]) == ["follows"] * 3, "all know that")


@check
def what_is_wrong_is_refused_and_changes_nothing(_):
    members = cluster()
    with Backend("one") as one:
        equal(apply(members[0], shop(one))[0], 0)
        _, before = mesh(members[0], "settings", "--toml")
        code, told = apply(members[1], shop(one, "tires = 3\n"))
        assert code == 2 and "there is no setting" in told, told
        code, told = apply(members[1], shop(one), "--if-revision", "0")
        assert code == 1 and "archipel mesh settings" in told, told
        code, told = apply(members[1], shop(one, "tries = 2\n"), "--dry-run")
        assert code == 0 and "+ tries = 2" in told, told
        _, after = mesh(members[2], "settings", "--toml")
        equal(after, before)
        # A file at one member only: that one is asked and would follow, the others say what they lack.
        with tempfile.TemporaryDirectory() as own:
            code, told = apply(members[1], shop(one, f'tls = true\ntls_ca = "{own}/none.pem"\n'))
        assert code == 1 and "none.pem" in told, told
        until(lambda: curl(members[0]) == ("200", "one GET / "), "the last good one stays")


run()
