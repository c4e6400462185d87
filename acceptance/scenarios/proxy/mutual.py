"""Proxies of two members that ask each other, and openssl, which sees what they show and is not taken."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

from backends import Backend
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY, Member

NAME = re.compile(r"spiffe://[0-9a-f]{32}/node/[0-9a-f]{64}")


def ask(member, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{8080 + member.offset}{path}", timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("x-archipel-reason")


def metrics(member):
    with urllib.request.urlopen(f"http://127.0.0.1:{member.admin}/metrics", timeout=PATIENCE_SECONDS) as page:
        return page.read().decode()


def told(log):
    with open(log) as lines:
        return lines.readline()


@check
def members_prove_their_keys_to_each_other_until_one_is_removed(_):
    if not BINARY:
        raise Skip("the scenarios run against another server")
    with Backend("shop") as shop:
        text = '[[proxy.listener]]\nname = "mesh"\nmutual = true\n'
        text += f'[[proxy.service]]\nname = "shop"\nendpoints = "127.0.0.1:{shop.port}"\n'
        text += '[[proxy.route]]\nservice = "shop"\nallow = "members"\n'
        log = os.path.join(os.environ["SCRATCH"], "mutual.log")
        with Member("a", config=f'[proxy]\naccess_log = "{log}"\n' + text) as there:
            port = 8080 + there.offset
            text = '[[proxy.listener]]\nname = "web"\n'
            text += f'[[proxy.service]]\nname = "there"\nendpoints = "127.0.0.1:{port}"\nmutual = true\n'
            text += '[[proxy.route]]\nservice = "there"\n'
            with Member("b", peer=there, config=text) as here:
                until(lambda: ask(here, "/x") == (200, "shop GET /x "), "a request goes from member to member")
                # The answer may be there before the line is.
                until(lambda: told(log).endswith("\n"), "the request is in the access log")
                line = json.loads(told(log))
                assert NAME.fullmatch(line["member"]), line
                # What others see of a node, and that they are not let in.
                shown = subprocess.run(
                    ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3"],
                    input=b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n", capture_output=True, timeout=PATIENCE_SECONDS,
                )
                assert b"HTTP/1.1" not in shown.stdout, shown.stdout
                read = subprocess.run(
                    ["openssl", "x509", "-noout", "-text"], input=shown.stdout, capture_output=True, check=True, timeout=PATIENCE_SECONDS
                ).stdout.decode()
                (name,) = NAME.findall(read)
                assert name.split("/")[2] == line["member"].split("/")[2] and name != line["member"], (name, line)
                for words in ("ED25519", "CA:FALSE", "Digital Signature", "TLS Web Client Authentication"):
                    assert words in read, read
                until(lambda: "archipel_proxy_handshake_failures_total 1" in metrics(there), "it is counted")
                here.process.send_signal(signal.SIGHUP)
                equal(ask(here, "/x")[0], 200)


run()
