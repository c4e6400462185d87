"""What stands at the edge, with curl and the command line: cookies that keep a client, copies of requests, queues, and who says why."""

import json
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from backends import Backend, node, services
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until
from processes import BINARY


def told(proxied, *words, code=0):
    """What `archipel mesh` prints about a node, as JSON."""
    command = [BINARY, "mesh", *words, "--json", "--port-offset", str(proxied.offset)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    equal(done.returncode, code)
    return json.loads(done.stdout)


def curl(proxied, path, *flags):
    command = ["curl", "-sS", *flags, f"http://127.0.0.1:{proxied.listens}{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS).stdout


@check
def a_client_with_a_cookie_stays_and_does_so_after_a_restart(_):
    with Backend("one") as one, Backend("two") as two:
        text = '[proxy]\nsecret = "of the test"\n' + services(both=[one.port, two.port])
        text += 'sticky_cookie = "stays"\n[[proxy.route]]\nservice = "both"\n'
        kept = {}
        for life in ("sticky", "sticky-again"):
            with node(life, text) as proxied:
                for number in range(4):
                    # curl keeps cookies of 127.0.0.1 whatever its port.
                    jar = os.path.join(os.environ["SCRATCH"], f"jar-{number}")
                    first = curl(proxied, "/", "-c", jar, "-b", jar).split()[0]
                    equal({curl(proxied, "/", "-c", jar, "-b", jar).split()[0] for _ in range(3)}, {first})
                    equal(kept.setdefault(number, first), first)
                equal(set(kept.values()), {"one", "two"})


@check
def copies_go_elsewhere_and_nobody_waits_for_them(_):
    with Backend("real") as real, Backend("shadow", 500) as shadow:
        text = services(real=[real.port], shadow=[shadow.port])
        text += '[[proxy.route]]\nservice = "real"\nmirror = "shadow"\nname = "copied"\n'
        with node("copied", text) as proxied:
            equal(curl(proxied, "/x", "-d", "body"), "real POST /x body")
            until(lambda: f'archipel_proxy_tries_total{{service="shadow",endpoint="127.0.0.1:{shadow.port}"}} 1' in proxied.metrics(), "it is copied")
            shadow.kill()
            equal({curl(proxied, "/y") for _ in range(10)}, {"real GET /y "})
            page = proxied.metrics()
            assert 'archipel_proxy_requests_total{route="copied",class="2xx"} 11' in page, page
            assert 'archipel_proxy_requests_total{route="copied",class="5xx"} 0' in page, page


@check
def who_finds_no_room_waits_where_it_may(_):
    if not shutil.which("wrk"):
        raise Skip("there is no wrk")
    with Backend("one") as one:
        for places, name in ((64, "queued"), (0, "unqueued")):
            text = services(shop=[one.port]) + f"requests_max = 2\nqueue_max = {places}\nqueue_ms = 15000\n"
            text += 'breaker_percent = 100\n[[proxy.route]]\nservice = "shop"\n'
            with node(name, text) as proxied:
                command = ["wrk", "-t1", "-c32", "-d2s", f"http://127.0.0.1:{proxied.listens}/"]
                told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS).stdout
                equal("Non-2xx" in told, places == 0)
                page = proxied.metrics()
                equal('archipel_proxy_service_queued_total{service="shop"} 0' in page, places == 0)
                equal('archipel_proxy_answered_total{reason="too-many"} 0' in page, places > 0)


def held(gate, seen):
    """A server that answers when the gate is open, and tells whose requests it has."""

    class Held(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            seen.append(self.headers.get("x-priority", "low"))
            gate.wait(PATIENCE_SECONDS)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Held)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@check
def the_least_important_are_sent_away_when_there_are_too_many(_):
    gate, seen = threading.Event(), []
    server = held(gate, seen)
    text = services(shop=[server.server_port]) + "adaptive = true\nrequests_min = 2\nrequests_max = 2\nqueue_max = 4\nqueue_ms = 3600000\n"
    text += '[[proxy.route]]\nservice = "shop"\nname = "low"\npriority = "low"\ntry_ms = 60000\n'
    text += '[[proxy.route]]\nservice = "shop"\nname = "high"\npriority = "high"\nheaders = "x-priority: high"\ntry_ms = 60000\n'
    with node("spared", text) as proxied, ThreadPoolExecutor(16) as pool:
        try:
            ask = lambda count, **headers: [pool.submit(proxied.ask, "/", headers=headers) for _ in range(count)]
            queued = lambda count: until(lambda: f'archipel_proxy_service_queued_total{{service="shop"}} {count}\n' in proxied.metrics(), f"{count} have waited")
            low = ask(2)
            until(lambda: len(seen) == 2, "as many are under way as may be")
            low += ask(4)
            queued(4)
            high = ask(4, **{"x-priority": "high"})
            queued(8)
            # All places are those of important ones now.
            for headers in ({}, {"x-priority": "high"}):
                equal(proxied.ask("/", headers=headers)[::2], (503, "queue-full"))
            gate.set()
            equal(sorted(one.result()[::2] for one in high), [(200, None)] * 4)
            equal(sorted((one.result()[::2] for one in low), key=str), [(200, None)] * 2 + [(503, "displaced")] * 4)
            equal((sorted(seen), seen[:2]), (["high"] * 4 + ["low"] * 2, ["low"] * 2))
            page = proxied.metrics()
            for count, priority in ((5, "low"), (0, "normal"), (1, "high")):
                assert f'archipel_proxy_service_shed_total{{service="shop",priority="{priority}"}} {count}\n' in page, page
            shop = told(proxied, "effective", "/")["services"][0]
            equal((shop["limit"], shop["adaptive"], shop["shed"]), (2, True, {"high": 1, "low": 5, "normal": 0}))
        finally:
            gate.set()
            server.shutdown()


@check
def what_a_request_comes_to_is_told_with_reasons(_):
    with Backend("one") as one:
        text = services(shop=[one.port])
        text += "outlier_failures = 2\noutlier_percent = 100\n"
        text += '[[proxy.route]]\nservice = "shop"\nname = "api"\npath = "/api"\nmethods = "GET"\n'
        text += '[[proxy.route]]\nservice = "shop"\nname = "beta"\npath = "/api"\nheaders = "x-beta"\ntries = 1\n'
        with node("told", text) as proxied:
            equal([route["route"] for route in told(proxied, "routes")["routes"]], ["api", "beta"])
            answer = told(proxied, "effective", "/api/x?y", "--explain")
            equal((answer["route"], answer["considered"][1]["why"]), ("api", "the request lacks the header `x-beta`"))
            equal(answer["services"][0]["endpoints"][0]["in"], True)
            answer = told(proxied, "effective", "http://a.example/api", "-X", "PUT", "-H", "X-Beta: 1")
            equal((answer["route"], answer["considered"][0]["why"]), ("beta", "it is for GET"))
            equal(told(proxied, "effective", "/other", code=1)["answer"]["status"], 404)
            one.kill()
            for _ in range(3):
                curl(proxied, "/api", "-H", "X-Beta: 1")
            # Threads tell once a second.
            out = lambda: told(proxied, "effective", "/api")["services"][0]["endpoints"][0]
            until(lambda: not out()["in"], "it is left out")
            assert "failed too often" in out()["why"], out()


@check
def rates_are_shown_while_requests_come(_):
    with Backend("one") as one:
        text = services(shop=[one.port]) + '[[proxy.route]]\nservice = "shop"\nname = "all"\n'
        with node("top", text) as proxied:
            load = f"while :; do curl -sS http://127.0.0.1:{proxied.listens}/ > /dev/null || exit; done"
            curling = subprocess.Popen(["sh", "-c", load])
            try:
                shown = told(proxied, "top", "--interval", "1")
                equal((shown["routes"][0]["route"], shown["endpoints"][0]["endpoint"]), ("all", f"shop 127.0.0.1:{one.port}"))
                assert shown["routes"][0]["per_second"] > 0 and shown["routes"][0]["p99_ms"] > 0, shown
                equal(shown["services"][0]["error_percent"], 0.0)
            finally:
                curling.kill()
                curling.wait(PATIENCE_SECONDS)


run()
