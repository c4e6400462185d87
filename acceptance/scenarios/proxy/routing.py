"""The proxy with curl, Python's http.client and wrk: routes, retries, the breaker, and a backend that is killed under load."""

import json
import os
import re
import shutil
import signal
import subprocess

from backends import Backend, node, services
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until


@check
def requests_take_their_routes(_):
    with Backend("one") as one, Backend("two") as two:
        text = services(one=[one.port], two=[two.port])
        text += '[[proxy.route]]\nservice = "one"\n'
        text += '[[proxy.route]]\nservice = "two"\npath = "/two"\nrewrite = "/"\nname = "second"\n'
        text += '[[proxy.route]]\nservice = "two"\nhost = "*.two.example"\n'
        with node("routes", text) as proxied:
            equal(proxied.ask("/x")[:2], (200, "one GET /x "))
            equal(proxied.ask("/two/y?z")[:2], (200, "two GET /y?z "))
            equal(proxied.ask("/x", headers={"Host": "a.two.example"})[:2], (200, "two GET /x "))
            equal(proxied.ask("/two", "POST", "body")[:2], (200, "two POST / body"))
            told = subprocess.run(
                ["curl", "-sS", "--http1.1", "-H", "Transfer-Encoding: chunked", "-d", "@-", f"http://127.0.0.1:{proxied.listens}/two/c"],
                input=b"from curl", capture_output=True, check=True, timeout=PATIENCE_SECONDS,
            )
            # The backend reads no chunks: that it was answered shows that the body went through.
            assert told.stdout.startswith(b"two POST /c"), told.stdout
            page = proxied.metrics()
            assert re.search(r'archipel_proxy_requests_total\{route="second",class="2xx"\} [1-9]', page), page
            assert re.search(rf'archipel_proxy_tries_total\{{service="one",endpoint="127.0.0.1:{one.port}"\}} [1-9]', page), page


@check
def a_changed_file_is_followed_and_a_wrong_one_is_not(_):
    with Backend("one") as one, Backend("two") as two:
        route = '[[proxy.route]]\nservice = "one"\n'
        with node("reload", services(one=[one.port]) + route) as proxied:
            equal(proxied.ask("/")[:2], (200, "one GET / "))
            proxied.write(services(one=[two.port]) + route)
            proxied.process.send_signal(signal.SIGHUP)
            until(lambda: proxied.ask("/")[1] == "two GET / ", "the new endpoint answers")
            proxied.write(services(one=[one.port]) + '[[proxy.route]]\nservice = "three"\n')
            proxied.process.send_signal(signal.SIGHUP)
            until(lambda: "archipel_proxy_refused_configurations_total 1" in proxied.metrics(), "it is refused")
            equal(proxied.ask("/")[:2], (200, "two GET / "))


@check
def failures_are_retried_and_a_breaker_opens(_):
    with Backend("good") as good, Backend("bad", 503) as bad:
        text = services(mixed=[good.port, bad.port], bad=[bad.port])
        text += "breaker_requests = 5\nbreaker_open_ms = 60000\noutlier_failures = 0\n"
        text += '[[proxy.route]]\nservice = "mixed"\n[[proxy.route]]\nservice = "bad"\npath = "/bad"\ntries = 1\n'
        with node("retries", text) as proxied:
            equal([proxied.ask("/")[0] for _ in range(10)], [200] * 10)
            answers = [proxied.ask("/bad") for _ in range(8)]
            equal([one[0] for one in answers], [503] * 8)
            equal([one[2] for one in answers][-1], "breaker-open")
            log = os.path.join(proxied.dir, "access.log")
            proxied.write(f'[proxy]\naccess_log = "{log}"\n' + text)
            proxied.process.send_signal(signal.SIGHUP)
            until(lambda: proxied.ask("/logged") and os.path.exists(log) and os.path.getsize(log) > 0, "the log begins")
            with open(log) as lines:
                line = json.loads(lines.readline())
            equal((line["path"], line["status"], line["service"]), ("/logged", 200, "mixed"))


@check
def a_backend_that_is_killed_under_load_costs_no_request(_):
    if not shutil.which("wrk"):
        raise Skip("there is no wrk")
    backends = [Backend(f"{number}") for number in range(5)]
    try:
        text = services(all=[backend.port for backend in backends]) + '[[proxy.route]]\nservice = "all"\n'
        with node("killed", text) as proxied:
            command = ["wrk", "-t1", "-c32", "-d6s", f"http://127.0.0.1:{proxied.listens}/"]
            load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            until(lambda: "tries_total" in proxied.metrics(), "the load has begun")
            backends[0].kill()
            told, _ = load.communicate(timeout=PATIENCE_SECONDS + 10)
            assert "Non-2xx" not in told and "Socket errors" not in told, told
            count = int(re.search(r"(\d+) requests in", told).group(1))
            assert count > 100, told
    finally:
        for backend in backends:
            backend.kill()


run()
