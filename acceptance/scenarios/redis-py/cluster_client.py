"""A client of Redis Cluster: three nodes of `archipel cluster dev`, of which one is killed and started again."""

import json
import os
import shlex
import signal
import subprocess

import redis
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY, SCRATCH, free_offset
from redis.cluster import ClusterNode, RedisCluster



class Dev:
    """The cluster, until its process is ended."""

    def __init__(self):
        command = [BINARY, "cluster", "dev", "--json", "--dir", os.path.join(SCRATCH, "dev")]
        command += ["--port-offset", f"{free_offset()}"]
        # Its nodes end when its input does, so it has one of its own.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.nodes = json.loads(self.process.stdout.readline())["nodes"]
        self.again = []

    def clients(self):
        """Where clients of Redis Cluster connect."""
        return [ClusterNode("127.0.0.1", 6380 + node["port_offset"]) for node in self.nodes]

    def end(self):
        for process in self.again:
            process.kill()
            process.wait(PATIENCE_SECONDS)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE_SECONDS)


_dev = []


def dev():
    """The cluster, which is started once."""
    if not BINARY:
        raise Skip("the server that runs is in no cluster")
    if not _dev:
        _dev.append(Dev())
    return _dev[0]


def connect():
    """A client of the cluster."""
    return RedisCluster(startup_nodes=dev().clients(), decode_responses=True, socket_timeout=PATIENCE_SECONDS)


@check
def keys_are_found_where_the_cluster_says(_):
    with connect() as client:
        equal(len(client.get_nodes()), 3)
        for number in range(200):
            equal(client.set(f"k:{number}", number), True)
        for number in range(200):
            equal(client.get(f"k:{number}"), f"{number}")
        equal(client.mget_nonatomic([f"k:{number}" for number in range(5)]), ["0", "1", "2", "3", "4"])
        pipeline = client.pipeline()
        for number in range(50):
            pipeline.incr(f"k:{number}")
        equal(pipeline.execute(), list(range(1, 51)))


@check
def copies_answer_readers_that_take_what_is_a_little_old(_):
    cluster = dev()
    with connect() as client:
        for number in range(60):
            equal(client.set(f"old:{number}", number), True)

    def is_told_whole(node):
        with redis.Redis(port=6380 + node["port_offset"], decode_responses=True) as own:
            # The first and the last slot, and three nodes; a leader's first slot is told alone.
            return all(len(one) == 5 or one[0] == one[1] for one in own.cluster("SLOTS"))

    # Copies come one after the other, and redis-py counts on as many of one slot as it saw of another.
    until(lambda: all(is_told_whole(node) for node in cluster.nodes), "each slot has its copies", 60)
    with RedisCluster(
        startup_nodes=cluster.clients(), decode_responses=True, socket_timeout=PATIENCE_SECONDS, read_from_replicas=True
    ) as reader:
        for _ in range(10):
            for number in range(60):
                until(lambda: reader.get(f"old:{number}") == f"{number}", "the copies have it", 60)

    def answers(node):
        # Every key is answered here: by what is led here, or by a copy that is young enough.
        with redis.Redis(port=6380 + node["port_offset"], decode_responses=True) as own:
            with own.client() as session:
                equal(session.execute_command("READONLY"), True)
                for number in range(60):
                    until(lambda: session.get(f"old:{number}") == f"{number}", "it answers here", 60)

    def tells_ages(node):
        answers(node)
        with redis.Redis(port=6379 + node["port_offset"], decode_responses=True) as own:
            told = own.info("replication")
        assert told["copies_of_known_age"] <= told["copies"] and told["copies_behind_ms_max"] >= 0, told
        return told["copies_of_known_age"] > 0

    for node in cluster.nodes:
        until(lambda node=node: tells_ages(node), "it tells how old its copies are", 60)


@check
def a_node_that_is_killed_and_returns_loses_no_acknowledged_write(_):
    cluster = dev()
    with connect() as client:
        for victim in cluster.nodes[:2]:
            name, acknowledged = victim["number"], []
            os.kill(victim["pid"], signal.SIGKILL)
            for number in range(300):
                try:
                    if client.set(f"x:{name}:{number}", number):
                        acknowledged.append(number)
                except redis.exceptions.RedisError:
                    continue
            assert len(acknowledged) > 250, f"only {len(acknowledged)} of 300 writes were acknowledged"
            for number in acknowledged:
                equal(client.get(f"x:{name}:{number}"), f"{number}")
            back = subprocess.Popen(
                shlex.split(victim["restart"]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            cluster.again.append(back)

            def serves():
                try:
                    with redis.Redis(port=6380 + victim["port_offset"], decode_responses=True) as own:
                        return own.cluster("INFO")["cluster_state"] == "ok"
                except redis.exceptions.RedisError:
                    return False

            until(serves, "it serves again", 60)
            with redis.Redis(port=6379 + victim["port_offset"], decode_responses=True, db=1) as own:
                until(lambda: own.get(f"x:{name}:{acknowledged[-1]}") == f"{acknowledged[-1]}", "it has caught up", 60)


try:
    run()
finally:
    for cluster in _dev:
        cluster.end()
