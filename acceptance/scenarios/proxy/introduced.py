"""HAProxy before us and nginx behind us: whose a connection is goes through by the PROXY protocol, and is believed of HAProxy only."""

import os
import shutil
import socket
import subprocess
import urllib.request

from backends import Backend, free_port, node
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import SCRATCH

HAPROXY = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend clients
  bind 127.0.0.1:{front}
  default_backend proxy
backend proxy
  source 127.0.0.2
  server proxy 127.0.0.1:{port} {how}
"""

NGINX = """
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};
  server {{
    listen 127.0.0.1:{port} proxy_protocol;
    location / {{ return 200 "$proxy_protocol_addr:$proxy_protocol_port $http_x_forwarded_for"; }}
  }}
}}
"""


class Running:
    """A program with a file of its own, which listens on a port."""

    def __init__(self, program, name, text, port, flags):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
        if path is None:
            raise Skip(f"there is no {program}")
        self.dir = os.path.join(SCRATCH, name)
        os.makedirs(self.dir, exist_ok=True)
        config = os.path.join(self.dir, f"{program}.conf")
        with open(config, "w") as file:
            file.write(text.replace("{dir}", self.dir))
        self.log = open(os.path.join(self.dir, f"{program}.log"), "ab")
        self.process = subprocess.Popen([path, *flags, config], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.port = port

    def __enter__(self):
        until(self.listens, "it listens")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self.log.close()

    def listens(self):
        # A look at the port alone: a header that is cut says nothing, and is taken for a client that went away.
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            assert self.process.poll() is None, f"it ended: {self.log.name}"
            return False


def haproxy(name, port, how):
    front = free_port()
    return Running("haproxy", name, HAPROXY.format(front=front, port=port, how=how), front, ["-db", "-f"])


def nginx(name):
    port = free_port()
    return Running("nginx", name, NGINX.format(port=port, dir="{dir}"), port, ["-e", "stderr", "-c"])


def asked(port, fields=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=fields or {})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return answer.read().decode()


def configuration(behind, version):
    return (
        '[[proxy.listener]]\nname = "web"\naccept_proxy = true\ntrusted = ["127.0.0.2"]\n'
        f'[[proxy.service]]\nname = "nginx"\nendpoints = "127.0.0.1:{behind}"\nsend_proxy = "{version}"\n'
        '[[proxy.route]]\nservice = "nginx"\n'
    )


@check
def whose_a_connection_is_goes_through_both_proxies(_):
    for version in ("v1", "v2"):
        with nginx("introduced-nginx") as behind, node(f"introduced-{version}", configuration(behind.port, version)) as proxied:
            for how in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"):
                with haproxy(f"introduced-haproxy", proxied.listens, how) as front:
                    # The client of HAProxy is this process, from an address of its choice.
                    with socket.socket() as client:
                        client.settimeout(PATIENCE_SECONDS)
                        client.bind(("127.0.0.7", 0))
                        client.connect(("127.0.0.1", front.port))
                        own = client.getsockname()
                        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n")
                        answer = b""
                        while piece := client.recv(65536):
                            answer += piece
                    told = answer.decode().split("\r\n\r\n", 1)[1]
                    equal(told, f"{own[0]}:{own[1]} {own[0]}")


@check
def who_is_not_trusted_is_refused(_):
    with nginx("refused-nginx") as behind, node("refused", configuration(behind.port, "v2")) as proxied:
        with socket.create_connection(("127.0.0.1", proxied.listens), PATIENCE_SECONDS) as client:
            try:
                client.sendall(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
                equal(client.recv(1), b"")
            except ConnectionError:
                pass
        until(lambda: "archipel_proxy_untrusted_total 1" in proxied.metrics(), "it is counted")
        # HAProxy without a header is trusted and says nothing.
        with haproxy("refused-haproxy", proxied.listens, "") as front:
            try:
                asked(front.port)
                raise AssertionError("a client that does not say whose it is was answered")
            except OSError:
                pass
        page = proxied.metrics()
        assert "archipel_proxy_unintroduced_total 0" not in page, page


@check
def health_checks_of_haproxy_are_its_own_connections(_):
    with Backend("one") as one:
        text = '[[proxy.listener]]\nname = "web"\naccept_proxy = true\ntrusted = ["127.0.0.2"]\n'
        text += f'[[proxy.service]]\nname = "one"\nendpoints = "127.0.0.1:{one.port}"\n[[proxy.route]]\nservice = "one"\n'
        with node("checked", text) as proxied:
            how = "check inter 50ms check-send-proxy send-proxy-v2"
            with haproxy("checked-haproxy", proxied.listens, how) as front:
                until(lambda: "archipel_proxy_accepted_total 0" not in proxied.metrics(), "it is checked")
                equal(asked(front.port), "one GET / ")


run()
