"""Calls of gRPC through the proxy with tonic, which has another HTTP/2 below it than grpcio: all four kinds, errors, deadlines."""

import os
import subprocess
import tempfile

from backends import node
from echo import Service, configured
from harness import PATIENCE_SECONDS, Skip, check, equal, run, until


def calls(port, *names):
    """What came of each call, made one after the other on one channel."""
    program = os.environ.get("TONIC_BIN")
    if program is None:
        raise Skip("the client of tonic was not built")
    command = [program, f"http://127.0.0.1:{port}", *names]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS * 3)
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@check
def calls_of_all_kinds_go_through_on_one_channel(_):
    with tempfile.TemporaryDirectory() as directory, Service(directory) as service:
        with node("tonic-kinds", configured(service.port)) as proxied:
            told = calls(proxied.listens, "unary", "large", "down", "up", "both", "fail", "many")
            equal(told["unary"], "unary x")
            equal(told["large"], "as it was")
            equal(told["down"], ",".join(str(number) for number in range(200)))
            equal(told["up"], "a,b,c")
            equal(told["both"], ",".join(f"both {number}" for number in range(5)) + ",end true")
            equal(told["fail"], "FailedPrecondition: told to, x-why because")
            equal(told["many"], "200 right")
            metrics = proxied.metrics()
            # It was the proxy that they went through: 6 calls, and 200 at once.
            assert 'class="2xx"} 206' in metrics, [line for line in metrics.splitlines() if 'class="2xx"' in line]


@check
def deadlines_of_the_client_and_of_the_proxy_end_a_call_at_the_service_too(_):
    with tempfile.TemporaryDirectory() as directory:
        with Service(directory) as service:
            text = configured(service.port) + "try_ms = 1500\ntotal_ms = 3000\n"
            with node("tonic-ends", text) as proxied:
                # Who notices first is the client itself, which calls it cancelled or past its deadline.
                told = calls(proxied.listens, "hurry")["hurry"].split(":")[0]
                assert told in ("Cancelled", "DeadlineExceeded"), told
                until(lambda: service.lines() == ["begun", "ended"], "the call ends at the service too")
                equal(calls(proxied.listens, "slow", "unary"), {"slow": "DeadlineExceeded: timeout", "unary": "unary x"})
                service.kill()
                until(lambda: calls(proxied.listens, "unary")["unary"].startswith("Unavailable: "), "it is away")


run()
