"""Servers behind the proxy, and nodes whose proxy is configured for them."""

import http.client
import os
import socket
import subprocess
import sys
import urllib.request

from harness import PATIENCE_SECONDS, Skip, equal, until
from processes import BINARY, Process, Server

BACKEND = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name, status = sys.argv[2], int(sys.argv[3])
        length = int(self.headers.get("content-length") or 0)
        body = (name + " " + self.command + " " + self.path + " " + self.rfile.read(length).decode()).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_):
        pass
class Many(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True
server = Many(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 4:
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[4:6])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Backend(Process):
    """A server that says its name, with this status; in TLS with a pair of files, a certificate and its key."""

    def __init__(self, name, status=200, pair=()):
        self.port = free_port()
        command = [sys.executable, "-c", BACKEND, str(self.port), name, str(status), *pair]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        until(self.listens, "the backend listens")

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False


class Program(Process):
    """A server in a Python of its own, on a free port, which it is told with `words` behind it; it says `serving` once it is."""

    def __init__(self, text, *words):
        self.port = free_port()
        command = [sys.executable, "-c", text, str(self.port), *words]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        equal(self.process.stdout.readline(), "serving\n")

    def __exit__(self, *_):
        self.kill()
        self.process.stdout.close()


class Telling(Program):
    """One that writes what it saw into a file in a directory, a line for each."""

    def __init__(self, text, directory):
        self.told = os.path.join(directory, "told")
        super().__init__(text, self.told)

    def lines(self):
        if not os.path.exists(self.told):
            return []
        with open(self.told) as file:
            return file.read().splitlines()


def node(name, text):
    """A node whose proxy is configured so."""
    if not BINARY:
        raise Skip("the scenarios run against another server")
    return Proxied(name, config=text)


class Proxied(Server):
    """A node whose proxy has one listener, on the usual port."""

    def write(self, text):
        with open(self.config, "w") as file:
            file.write(text)

    @property
    def listens(self):
        return 8080 + self.offset

    def ask(self, path, method="GET", body=None, headers=None):
        client = http.client.HTTPConnection("127.0.0.1", self.listens, timeout=PATIENCE_SECONDS)
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        text = answer.read().decode()
        client.close()
        return answer.status, text, answer.getheader("x-archipel-reason")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=PATIENCE_SECONDS) as page:
            return page.read().decode()


def services(**endpoints):
    text = '[[proxy.listener]]\nname = "web"\n'
    for name, ports in endpoints.items():
        listed = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        text += f'[[proxy.service]]\nname = "{name}"\nendpoints = [{listed}]\npolicy = "round-robin"\n'
    return text
