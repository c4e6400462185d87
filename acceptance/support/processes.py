"""Servers that a scenario starts itself: the node's binary, or redis-server with the same promise when the
scenarios run against another server.
"""

import json
import os
import random
import signal
import socket
import subprocess
import urllib.request

import redis
from harness import PATIENCE_SECONDS, equal, until

SCRATCH = os.environ["SCRATCH"]
BINARY = os.environ.get("ARCHIPEL_BIN")


def free_offset():
    """An offset at which the ports that matter here are free."""
    for offset in random.sample(range(15_780, 24_100, 10), 800):
        try:
            for port in (6379, 6380, 7400, 7401, 8080, 8500, 8600):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + offset))
            return offset
        except OSError:
            continue
    raise AssertionError("no free ports")


class Process:
    """Something whose `process` ends with the block that it is used in."""

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Server(Process):
    """A server whose data outlives it, with at most `clients` clients; a node with this configuration."""

    keeps_ports = False

    def __init__(self, name, clients=10_000, config="", verb=()):
        self.clients = clients
        self.verb = list(verb)
        self.dir = os.path.join(SCRATCH, name)
        os.makedirs(self.dir)
        self.config = os.path.join(self.dir, "archipel.toml")
        with open(self.config, "w") as file:
            file.write(config)
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.offset = None
        self.start()

    def start(self):
        if self.offset is None or not self.keeps_ports:
            self.offset = free_offset()
        offset = self.offset
        self.port = 6379 + offset
        self.admin = 7400 + offset
        if BINARY:
            command = [BINARY, "--data-dir", os.path.join(self.dir, "data"), "--port-offset", f"{offset}"]
            command += ["--config", self.config] + self.verb
        else:
            command = ["redis-server", "--port", f"{self.port}", "--bind", "127.0.0.1", "--save", "", "--dir", self.dir]
            command += ["--appendonly", "yes", "--appendfsync", "always"]
            command += ["--maxclients", f"{self.clients}"]
        environment = {**os.environ, "ARCHIPEL_REDIS__CLIENTS_MAX": f"{self.clients}"}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(self.answers, "the server answers")

    def connect(self):
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=PATIENCE_SECONDS, retry=None)

    def answers(self):
        assert self.process.poll() is None, "the server ended at its start"
        try:
            with self.connect() as client:
                return client.ping()
        except redis.exceptions.RedisError:
            return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        equal(self.process.wait(PATIENCE_SECONDS), 0)

    def __exit__(self, *_):
        self.kill()
        self.log.close()

    def resident_bytes(self):
        """What the process holds in memory."""
        return resident_bytes(self.process.pid)


class Member(Server):
    """A node of a cluster: the first of a new one, or one that joins that of `peer`. It keeps its ports."""

    keeps_ports = True

    def __init__(self, name, peer=None, config=""):
        verb = ["node", "start", "--zone", name]
        verb += ["--join", peer.token()] if peer else ["--cluster"]
        super().__init__(name, config=config, verb=verb)
        # Its data directory knows from now on.
        self.verb = ["node", "start", "--zone", name]

    def ask(self, *words):
        """What a verb of `archipel cluster` prints."""
        command = [BINARY, "cluster", *words, "--port-offset", f"{self.offset}"]
        told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert told.returncode == 0, f"{' '.join(words)}: {told.stderr.strip() or told.stdout.strip()}"
        return told.stdout

    def token(self):
        return self.ask("token").strip()

    def status(self):
        """What it sees of the cluster."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/cluster", timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def metric(self, name):
        """A whole figure of the page for Prometheus that has no labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=PATIENCE_SECONDS) as page:
            lines = page.read().decode().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def is_whole(self, members):
        """So many members are up and have all their copies, and every partition is led."""
        status = self.status()
        partitions = sum(one["partitions"] for one in status["keyspaces"])
        return (
            len(status["members"]) == members
            and all(one["copies"] == partitions for one in status["members"])
            and all(one["standing"] == "active" and one["health"] == "alive" for one in status["members"])
            and not status["moves"]
            and status["waiting"] == 0
            and all(one["led"] == one["partitions"] for one in status["keyspaces"])
        )


def resident_bytes(pid):
    """What a process of this machine holds in memory."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
