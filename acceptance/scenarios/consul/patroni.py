"""Patroni keeps a PostgreSQL with a standby, and has its leader's lock in our keys: Debian's packages, one node, a leader that is killed."""

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request

from harness import PATIENCE_SECONDS, Skip, check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - patroni: the server under test is not a node")
else:
    from processes import SCRATCH
    from services import Node

    NODE = Node("node")

    CONFIG = """
scope: demo
name: {name}
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
consul: {{host: "127.0.0.1:{consul}", register_service: true}}
bootstrap:
  dcs: {{ttl: 20, loop_wait: 1, retry_timeout: 5, maximum_lag_on_failover: 1048576}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}]
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {home}/data
  bin_dir: {binaries}
  pgpass: {home}/pgpass
  use_unix_socket: false
  authentication:
    superuser: {{username: postgres, password: secret}}
    replication: {{username: copier, password: secret}}
  parameters: {{unix_socket_directories: "{home}", shared_buffers: 16MB, max_connections: 20}}
  pg_hba:
    - host all all 127.0.0.1/32 md5
    - host replication copier 127.0.0.1/32 md5
"""

    def free_port():
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return probe.getsockname()[1]

    class Patroni:
        """One that looks after a PostgreSQL of its own, as the user of Debian's package."""

        def __init__(self, name):
            self.name, self.rest, self.port = name, free_port(), free_port()
            self.home = os.path.join(HOME, name)
            os.makedirs(self.home, mode=0o700)
            binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
            config = os.path.join(self.home, "patroni.yml")
            with open(config, "w") as file:
                words = dict(name=name, rest=self.rest, port=self.port, home=self.home, binaries=binaries)
                file.write(CONFIG.format(consul=NODE.consul_port, **words))
            user = pwd.getpwnam("postgres")
            for path in (self.home, config):
                os.chown(path, user.pw_uid, user.pw_gid)
            self.log = open(os.path.join(SCRATCH, f"{name}.log"), "ab")
            rights = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            self.process = subprocess.Popen(
                ["patroni", config], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.home, start_new_session=True, **rights
            )

        def status(self):
            """What it says of itself; nothing if it does not."""
            assert self.process.poll() is None, open(self.log.name).read()[-2000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/patroni", timeout=5) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                return json.load(error)
            except OSError:
                return {}

        def is_leader(self):
            told = self.status()
            return told.get("role") in ("master", "primary") and told.get("state") == "running"

        def is_copying(self):
            told = self.status()
            return told.get("role") == "replica" and told.get("state") in ("running", "streaming")

        def kill(self):
            """Patroni and its PostgreSQL, at once: both are in sessions of their own."""
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait(PATIENCE_SECONDS)
            try:
                with open(os.path.join(self.home, "data", "postmaster.pid")) as file:
                    os.kill(int(file.readline()), signal.SIGQUIT)
            except (OSError, ValueError):
                pass

    def leader():
        status, _, text = NODE.ask("GET", "/v1/kv/service/demo/leader?raw")
        return text if status == 200 else None

    HOME = os.path.join("/tmp", f"archipel-patroni-{os.getpid()}")
    ALL = []

    @check
    def the_lock_makes_one_leader_and_goes_to_the_standby_when_that_dies(_):
        if shutil.which("patroni") is None or not glob.glob("/usr/lib/postgresql/*/bin/postgres"):
            raise Skip("there is no patroni, or no PostgreSQL")
        if os.getuid() != 0:
            raise Skip("only root can start PostgreSQL as its user")
        os.makedirs(HOME, mode=0o755)
        first = Patroni("one")
        ALL.append(first)
        # It says so of its PostgreSQL before it has the lock.
        until(lambda: first.is_leader() and leader() == "one", "the first leads", 60)
        second = Patroni("two")
        ALL.append(second)
        until(second.is_copying, "the second copies", 60)
        equal(leader(), "one")
        members = NODE.get("/v1/kv/service/demo/members/?keys")
        equal(members, ["service/demo/members/one", "service/demo/members/two"])
        first.kill()
        until(lambda: second.is_leader() and leader() == "two", "the second leads", 60)
        until(lambda: "service/demo/members/one" not in NODE.get("/v1/kv/service/demo/members/?keys"), "its session has ended", 60)

    try:
        with NODE:
            run()
    finally:
        for one in ALL:
            one.kill()
        shutil.rmtree(HOME, ignore_errors=True)
