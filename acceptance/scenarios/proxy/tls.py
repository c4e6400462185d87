"""TLS of the proxy with curl and openssl: certificates by name, read again when they change, passed on unopened, and to services."""

import os
import re
import signal
import subprocess
import tempfile

from backends import Backend, node, services
from certificates import Authority, secured
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY


@check
def curl_speaks_tls_with_the_certificate_of_each_name(_):
    with tempfile.TemporaryDirectory() as directory, Backend("one") as one:
        authority = Authority(directory)
        serials = {name: authority.sign(name, [f"DNS:{name}.example"]) for name in ("a", "b")}
        text = secured(services(one=[one.port]))
        text += authority.setting("a") + authority.setting("b") + '[[proxy.route]]\nservice = "one"\n'
        with node("tls-names", text) as proxied:
            for name, serial in serials.items():
                equal(authority.curl(proxied.listens, f"{name}.example"), (0, "one GET /x "))
                equal(authority.shown(proxied.listens, f"{name}.example"), serial)
            for version in ("1.2", "1.3"):
                equal(authority.curl(proxied.listens, "a.example", f"--tlsv{version}", "--tls-max", version)[0], 0)
            assert authority.curl(proxied.listens, "c.example")[0] != 0
            assert authority.curl(proxied.listens, "a.example", "--tls-max", "1.1")[0] != 0
            page = proxied.metrics()
            assert re.search(r"archipel_proxy_handshake_failures_total [1-9]", page), page


@check
def a_renewed_certificate_is_shown_without_a_word_and_a_broken_one_is_not(_):
    with tempfile.TemporaryDirectory() as directory, Backend("one") as one:
        authority = Authority(directory)
        authority.sign("a", ["DNS:a.example"])
        text = secured(services(one=[one.port]))
        text += authority.setting("a") + '[[proxy.route]]\nservice = "one"\n'
        with node("tls-renewed", text) as proxied:
            equal(authority.curl(proxied.listens, "a.example")[0], 0)
            renewed = authority.sign("a", ["DNS:a.example"])
            until(lambda: authority.shown(proxied.listens, "a.example") == renewed, "the new certificate is shown")
            with open(authority.path("a.pem"), "w") as file:
                file.write("no certificate")
            until(lambda: "archipel_proxy_refused_certificates_total 1" in proxied.metrics(), "it is refused")
            equal(authority.shown(proxied.listens, "a.example"), renewed)
            # A whole configuration with it is refused too, and the last good one stays.
            proxied.process.send_signal(signal.SIGHUP)
            until(lambda: "archipel_proxy_refused_configurations_total 1" in proxied.metrics(), "it is refused")
            renewed = authority.sign("a", ["DNS:a.example"])
            proxied.process.send_signal(signal.SIGHUP)
            until(lambda: authority.shown(proxied.listens, "a.example") == renewed, "the next one is shown")


@check
def a_name_is_passed_on_unopened_and_services_are_asked_in_tls(_):
    with tempfile.TemporaryDirectory() as directory, Backend("plain") as plain:
        authority = Authority(directory)
        outer, inner = authority.sign("outer", ["DNS:outer.example"]), authority.sign("inner", ["DNS:inner.example"])
        secure = (authority.path("inner.pem"), authority.path("inner.key"))
        with Backend("secure", pair=secure) as safe:
            text = services(plain=[plain.port], secure=[safe.port], checked=[safe.port], wrong=[safe.port])
            text = secured(text, '\npassthrough = ["inner.example secure"]')
            for name, host in (("checked", "inner.example"), ("wrong", "other.example")):
                more = f'name = "{name}"\ntls = true\ntls_ca = "{authority.ca}"\ntls_name = "{host}"'
                text = text.replace(f'name = "{name}"', more)
            text += authority.setting("outer") + '[[proxy.route]]\nservice = "plain"\n'
            for name in ("checked", "wrong"):
                text += f'[[proxy.route]]\nservice = "{name}"\nhost = "outer.example"\npath = "/{name}"\n'
            with node("tls-passed", text) as proxied:
                equal(authority.shown(proxied.listens, "outer.example"), outer)
                equal(authority.shown(proxied.listens, "inner.example"), inner)
                equal(authority.curl(proxied.listens, "inner.example"), (0, "secure GET /x "))
                url = f"https://outer.example:{proxied.listens}"
                resolve = ["--resolve", f"outer.example:{proxied.listens}:127.0.0.1", "--cacert", authority.ca]
                def asked(path):
                    command = ["curl", "-sS", "-w", " %{http_code}", *resolve, url + path]
                    return subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_SECONDS).stdout.decode()
                equal(asked("/checked"), "secure GET /checked  200")
                equal(asked("/wrong"), "no secure connection to the service could be made\n 502")


@check
def a_command_that_checks_the_configuration_reads_the_certificates(_):
    if not BINARY:
        raise Skip("the scenarios run against another server")
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "archipel.toml")
        with open(path, "w") as file:
            file.write('[[proxy.listener]]\nname = "web"\ntls = true\n[[proxy.certificate]]\ncert = "/nowhere.pem"\nkey = "/nowhere.key"\n')
        done = subprocess.run([BINARY, "config", "check", path], capture_output=True, timeout=PATIENCE_SECONDS)
        assert done.returncode != 0 and b"/nowhere.pem" in done.stderr + done.stdout, (done.stdout, done.stderr)


run()
