"""Nodes with a registry of services, and what asks them: HTTP, dig."""

import http.server
import json
import subprocess
import threading
import urllib.error
import urllib.request

from harness import PATIENCE_SECONDS
from processes import Member, Server

#: What a node needs to have a registry.
CONFIG = "[services]\nenabled = true\n"


class Services:
    """What a server or member with `CONFIG` can be asked."""

    @property
    def consul_port(self):
        return 8500 + self.offset

    @property
    def dns_port(self):
        return 8600 + self.offset

    def ask(self, method, target, body=None, seconds=PATIENCE_SECONDS):
        """Status, headers and text of an answer of the port for Consul's clients."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.consul_port}{target}"
        request = urllib.request.Request(url, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def get(self, target):
        """What a page says."""
        status, _, text = self.ask("GET", target)
        assert status == 200, f"{target}: {status} {text}"
        return json.loads(text)

    def put(self, target, body=None):
        status, _, text = self.ask("PUT", target, body)
        assert status == 200, f"{target}: {status} {text}"

    def healthy(self, service):
        """The ids of the instances that are passing."""
        return sorted(one["Service"]["ID"] for one in self.get(f"/v1/health/service/{service}?passing"))

    def dig(self, *words):
        """What dig prints."""
        command = ["dig", "@127.0.0.1", "-p", f"{self.dns_port}", "+tries=1", "+time=5", *words]
        told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout


class Node(Services, Server):
    """A node of its own."""

    def __init__(self, name, config=""):
        super().__init__(name, config=CONFIG + config)


class ServiceMember(Services, Member):
    """A member of a cluster."""

    ask_cluster = Member.ask

    def __init__(self, name, peer=None):
        super().__init__(name, peer=peer, config=CONFIG)

    def token(self):
        return self.ask_cluster("token").strip()


class Backend:
    """A service that is well or not, as it is told."""

    def __init__(self):
        self.code = 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(outer.code)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()


class Scraper:
    """A program that looks for targets and scrapes them, and tells of them as Prometheus does."""

    def __init__(self, port, command, log):
        self.port = port
        with open(log, "ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def targets(self, job):
        """Those of the job, as the page has them; nothing as long as it does not answer."""
        assert self.process.poll() is None, f"{self.process.args[0]} has ended: see its log"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/targets", timeout=5) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
        except (urllib.error.URLError, ConnectionError):
            return None
        return [one for one in targets if one["labels"]["job"] == job]
