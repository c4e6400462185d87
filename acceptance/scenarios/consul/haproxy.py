"""HAProxy finds its servers by SRV records of ours, and follows them."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request

from harness import PATIENCE_SECONDS, Skip, check, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - HAProxy: the server under test is not a node")
else:
    from processes import SCRATCH
    from services import Backend, Node

    NODE = Node("node")
    PORT = NODE.offset + 8080

    CONFIG = f"""
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
resolvers node
  nameserver node 127.0.0.1:{NODE.dns_port}
  accepted_payload_size 1232
  timeout resolve 200ms
  timeout retry 200ms
  hold valid 200ms
  hold nx 200ms
  hold obsolete 200ms
frontend clients
  bind 127.0.0.1:{PORT}
  default_backend servers
backend servers
  server-template server 3 _web._tcp.service.consul resolvers node resolve-prefer ipv4 init-addr none check inter 100ms
"""

    def code():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except (urllib.error.URLError, ConnectionError):
            return None

    @check
    def a_server_is_found_by_its_name_and_left_when_it_is_gone(_):
        haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if haproxy is None:
            raise Skip("there is no haproxy")
        path = os.path.join(SCRATCH, "haproxy.cfg")
        with open(path, "w") as file:
            file.write(CONFIG)
        with open(os.path.join(SCRATCH, "haproxy.log"), "ab") as log, Backend() as backend:
            process = subprocess.Popen([haproxy, "-db", "-f", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                until(lambda: code() == 503, "there is nobody yet")
                NODE.put("/v1/agent/service/register", {"Name": "web", "Address": "127.0.0.1", "Port": backend.port})
                until(lambda: code() == 200, "it is found")
                NODE.put("/v1/agent/service/maintenance/web?enable=true")
                until(lambda: code() == 503, "it is left")
                NODE.put("/v1/agent/service/maintenance/web?enable=false")
                until(lambda: code() == 200, "it is found again")
            finally:
                process.kill()
                process.wait(PATIENCE_SECONDS)

    with NODE:
        run()
