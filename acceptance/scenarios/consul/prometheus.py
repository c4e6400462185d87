"""Prometheus finds what to scrape through us: by a page of targets, and by DNS, as SRV and as A.

Debian builds it without `consul_sd_configs`; with those victoria-metrics finds targets, in `scrape.py`."""

import os
import random
import shutil
import socket
import subprocess
import threading

from harness import PATIENCE_SECONDS, Skip, check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - Prometheus: the server under test is not a node")
else:
    from processes import SCRATCH
    from services import Node, Scraper

    NODE = Node("node")

    CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: http
    http_sd_configs: [{{url: "http://127.0.0.1:{consul}/prometheus/targets?service=admin", refresh_interval: 1s}}]
"""
    BY_NAME = """
  - job_name: srv
    dns_sd_configs: [{{names: [_admin._tcp.service.consul], refresh_interval: 1s}}]
    relabel_configs: [{{source_labels: [__meta_dns_srv_record_port], regex: (.*), replacement: "127.0.0.1:${{1}}", target_label: __address__}}]
  - job_name: a
    dns_sd_configs: [{{names: [admin.service.consul], type: A, port: {admin}, refresh_interval: 1s}}]
"""

    class Relay:
        """Port 53 of a loopback address of its own, where a resolver looks, in front of the node's port."""

        def __init__(self):
            self.address = "127." + ".".join(str(random.randrange(2, 250)) for _ in range(3))
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((self.address, 53))
            threading.Thread(target=self.serve, daemon=True).start()

        def serve(self):
            while True:
                question, client = self.socket.recvfrom(4096)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as toward:
                    toward.settimeout(PATIENCE_SECONDS)
                    try:
                        toward.sendto(question, ("127.0.0.1", NODE.dns_port))
                        self.socket.sendto(toward.recv(65_535), client)
                    except OSError:
                        # Who asked asks again.
                        continue

    def can_mount():
        mount = 'mount --bind /dev/null "$(readlink -f /etc/resolv.conf)"'
        return subprocess.run(["unshare", "-m", "sh", "-c", mount], check=False, capture_output=True).returncode == 0

    class Prometheus(Scraper):
        """It reads the system's resolv.conf, so it has a file of its own in its place."""

        def __init__(self, by_name):
            port = NODE.offset + 8428
            config, resolver = (os.path.join(SCRATCH, name) for name in ("prometheus.yml", "resolv.conf"))
            with open(config, "w") as file:
                file.write((CONFIG + (BY_NAME if by_name else "")).format(consul=NODE.consul_port, admin=NODE.admin))
            command = ["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
            command += [f"--storage.tsdb.path={os.path.join(SCRATCH, 'prometheus')}"]
            if by_name:
                with open(resolver, "w") as file:
                    file.write(f"nameserver {Relay().address}\n")
                mount = f'mount --bind {resolver} "$(readlink -f /etc/resolv.conf)" && exec "$@"'
                command = ["unshare", "-m", "sh", "-c", mount, "sh"] + command
            super().__init__(port, command, os.path.join(SCRATCH, "prometheus.log"))

        def scraped(self, job):
            """Where the targets of the job are that could be scraped; nothing as long as there is one that could not."""
            of_job = self.targets(job)
            if of_job is None or any(one["health"] != "up" for one in of_job):
                return None
            return sorted(one["labels"]["instance"] for one in of_job)

    def register(id, address):
        NODE.put("/v1/agent/service/register", {"Name": "admin", "ID": id, "Address": address, "Port": NODE.admin})

    @check
    def targets_are_found_scraped_and_dropped(_):
        if shutil.which("prometheus") is None:
            raise Skip("there is no prometheus")
        by_name = os.getuid() == 0 and can_mount()
        jobs = ["http"] + (["srv", "a"] if by_name else [])
        until(lambda: NODE.ask("GET", "/v1/agent/self")[0] == 200, "the port answers")
        register("one", "127.0.0.1")
        place = f"127.0.0.1:{NODE.admin}"
        with Prometheus(by_name) as prometheus:
            for job in jobs:
                until(lambda: prometheus.scraped(job) == [place], f"{job} scrapes it", 60)
            NODE.put("/v1/agent/service/deregister/one")
            until(lambda: prometheus.scraped("http") == [], "it is dropped", 60)
            register("two", "127.0.0.1")
            for job in jobs:
                until(lambda: prometheus.scraped(job) == [place], f"{job} scrapes it again", 60)
        NODE.put("/v1/agent/service/deregister/two")
        equal(NODE.get("/v1/catalog/services"), {})
        if not by_name:
            raise Skip("only root can give Prometheus a resolv.conf of its own: not tried by DNS")

    with NODE:
        run()
