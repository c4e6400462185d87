"""The admin port: health and Prometheus metrics. Only a node has one."""

import os
import re
import urllib.error
import urllib.request

from harness import check, equal, run

ADMIN = os.environ.get("ADMIN_PORT")

SAMPLE = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\.|[^"\\])*",?)*\})? (NaN|[+-]?Inf|[-+0-9.eE]+)( \d+)?$')


def get(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}{path}", timeout=20) as answer:
        return answer.status, answer.headers, answer.read().decode()


def metrics():
    """Every sample by its name with labels."""
    _, headers, text = get("/metrics")
    assert headers["Content-Type"].startswith("text/plain"), headers["Content-Type"]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    wrong = [line for line in lines if not SAMPLE.match(line)]
    equal(wrong, [])
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


if ADMIN is None:
    print("skip - admin port: the server under test is not a node")
else:

    @check
    def health_answers(_):
        equal(get("/health")[0], 200)

    @check
    def metrics_are_prometheus_text_and_count_commands(r):
        before = metrics()
        assert before, "no metrics"
        for n in range(100):
            r.set(f"k{n}", n)
        after = metrics()
        risen = [name for name, value in after.items() if value >= before.get(name, 0) + 100]
        assert risen, f"no metric rose by 100 after 100 commands, of {sorted(after)}"

    @check
    def an_unknown_path_is_not_found(_):
        try:
            get("/no-such-page")
        except urllib.error.HTTPError as error:
            equal(error.code, 404)
        else:
            raise AssertionError("it was found")

    run()
