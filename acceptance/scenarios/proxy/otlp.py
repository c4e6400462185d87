"""A collector of OpenTelemetry, by the messages that its authors publish: spans of two proxies in a row, and metrics with their types."""

import base64
import json
import os
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from backends import Backend, Telling, free_port, node, services
from harness import Skip, check, equal, run, until
from processes import BINARY, SCRATCH

try:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
except ImportError:
    json_format = None

#: A server that writes the `traceparent` of each request into a file.
HEARING = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        with open(sys.argv[2], "a") as file:
            file.write(" ".join(self.headers.get_all("traceparent", [])) + "\\n")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("serving", flush=True)
server.serve_forever()
"""

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def ids(value):
    """The same with ids as protobuf's own mapping has them, in base64: OTLP's has them in hexadecimal (OTLP, "JSON Protobuf Encoding")."""
    if isinstance(value, list):
        return [ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    named = ("traceId", "spanId", "parentSpanId")
    return {key: base64.b64encode(bytes.fromhex(one)).decode() if key in named else ids(one) for key, one in value.items()}


class Collector:
    """Takes what comes, strictly: what its messages do not have is an error. `busy` requests are told to come again."""

    def __init__(self, port=0, busy=0):
        self.spans, self.metrics, self.errors, self.fields, self.busy = [], {}, [], [], busy
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = 200
                try:
                    if outer.busy > 0:
                        outer.busy -= 1
                        status = 503
                    else:
                        outer.take(self.path, self.headers, json.loads(body))
                except Exception as error:
                    outer.errors.append(f"{self.path}: {error!r}")
                    status = 400
                try:
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")
                except OSError:
                    # Nodes are killed when their check is over, whatever they have just sent.
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, fields, value):
        equal(fields["content-type"], "application/json")
        self.fields.append(dict(fields))
        if path == "/otlp/v1/traces":
            request = json_format.ParseDict(ids(value), ExportTraceServiceRequest())
            for resource in request.resource_spans:
                name = attributes(resource.resource)["service.instance.id"]
                self.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]
        else:
            equal(path, "/otlp/v1/metrics")
            request = json_format.ParseDict(value, ExportMetricsServiceRequest())
            for resource in request.resource_metrics:
                told = attributes(resource.resource)
                equal(told["service.name"], "archipel")
                metrics = {one.name: one for scope in resource.scope_metrics for one in scope.metrics}
                self.metrics[told["service.instance.id"]] = metrics

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        equal(self.errors, [])


def attributes(one):
    """What something says of itself."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in one.attributes}


def telling(port, sample):
    text = f'[otlp]\nendpoint = "http://127.0.0.1:{port}/otlp"\ninterval_ms = 200\nsample = {sample}\n'
    return text + 'headers = ["x-token: hunter2"]\n'


def proxied(name, target, port, sample):
    if json_format is None:
        raise Skip("there is no opentelemetry-proto")
    text = services(shop=[target]) + '[[proxy.route]]\nservice = "shop"\nname = "all"\n' + telling(port, sample)
    return node(name, text)


@check
def two_proxies_in_a_row_are_a_span_below_a_span_in_their_clients_trace(_):
    with Collector() as collector, Telling(HEARING, SCRATCH) as hearing:
        # The second one would record next to nothing by itself.
        with proxied("back", hearing.port, collector.port, 10**9) as back:
            with proxied("front", back.listens, collector.port, 1) as front:
                parent = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "a=b"}
                equal(front.ask("/cart?secret", headers=parent)[0], 200)
                until(lambda: len(collector.spans) == 2, "both have told")
                spans = {name.rsplit(":")[-1]: span for name, span in collector.spans}
                first, second = spans[str(front.port)], spans[str(back.port)]
                equal({first.trace_id.hex(), second.trace_id.hex()}, {TRACE})
                equal(first.parent_span_id.hex(), CALLER)
                equal(second.parent_span_id, first.span_id)
                equal(hearing.lines(), [f"00-{TRACE}-{second.span_id.hex()}-01"])
                for span in (first, second):
                    equal((span.kind, span.name, span.status.code), (Span.SPAN_KIND_SERVER, "GET all", Status.STATUS_CODE_UNSET))
                    told = attributes(span)
                    equal((told["url.path"], told["http.route"], told["http.response.status_code"]), ("/cart", "all", 200))
                equal(attributes(first)["network.peer.port"], back.listens)
                assert first.start_time_unix_nano <= second.start_time_unix_nano
                assert second.end_time_unix_nano <= first.end_time_unix_nano
                # One that its client does not record is nobody's, and one that is nobody's is the first proxy's.
                equal(front.ask("/", headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})[0], 200)
                equal(hearing.lines()[1], f"00-{TRACE}-{CALLER}-00")
                equal(front.ask("/")[0], 200)
                until(lambda: len(collector.spans) == 4, "both have told of the third")
                roots = [span for _, span in collector.spans[2:] if not span.parent_span_id]
                equal(len(roots), 1)
                assert roots[0].trace_id.hex() != TRACE
                assert all(one["x-token"] == "hunter2" for one in collector.fields)


@check
def metrics_come_with_the_types_and_values_of_the_page(_):
    with Collector() as collector, Backend("one") as one:
        with proxied("measured", one.port, collector.port, 1) as measured:
            for _ in range(3):
                equal(measured.ask("/")[0], 200)
            counted = lambda: next(iter(collector.metrics.values()), {}).get("archipel_proxy_request_seconds")
            until(lambda: counted() and counted().histogram.data_points[0].count == 3, "all three are counted")
            (metrics,) = collector.metrics.values()
            up = metrics["archipel_up"]
            equal((up.WhichOneof("data"), up.gauge.data_points[0].as_int), ("gauge", 1))
            requests = metrics["archipel_proxy_requests_total"].sum
            equal((requests.is_monotonic, requests.aggregation_temporality), (True, AGGREGATION_TEMPORALITY_CUMULATIVE))
            point = next(point for point in requests.data_points if attributes(point)["class"] == "2xx")
            equal((point.as_int, attributes(point)["route"]), (3, "all"))
            assert 0 < point.start_time_unix_nano < point.time_unix_nano
            took = metrics["archipel_proxy_request_seconds"]
            equal((took.unit, took.histogram.aggregation_temporality), ("s", AGGREGATION_TEMPORALITY_CUMULATIVE))
            times = took.histogram.data_points[0]
            equal((len(times.bucket_counts), sum(times.bucket_counts)), (len(times.explicit_bounds) + 1, 3))
            assert times.sum > 0 and list(times.explicit_bounds) == sorted(times.explicit_bounds)
            # What the page has has come, but for what has no values.
            page = measured.metrics()
            with_values = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if not line.startswith("#")}
            families = [line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE")]
            told = {name for name in families if any(value.startswith(name) for value in with_values)}
            equal(sorted(told - set(metrics)), [])


@check
def a_collector_that_is_late_busy_or_goes_gets_what_waited(_):
    port = free_port()
    with Backend("one") as one, proxied("patient", one.port, port, 1) as patient:
        equal(patient.ask("/")[0], 200)
        until(lambda: "archipel_otlp_failures_total 0" not in patient.metrics(), "it has tried")
        with Collector(port, busy=2) as collector:
            until(lambda: len(collector.spans) == 1, "the span has come")
            until(lambda: "archipel_otlp_spans_exported_total 1" in patient.metrics(), "it is counted")
            # What is left when it stops is sent.
            equal(patient.ask("/last")[0], 200)
            patient.stop()
            equal([attributes(span)["url.path"] for _, span in collector.spans], ["/", "/last"])
    with open(os.path.join(SCRATCH, "patient", "log")) as log:
        assert "hunter2" not in log.read()


@check
def a_share_is_changed_while_the_node_runs_and_another_collector_only_at_its_next_start(_):
    with Collector() as collector, Backend("one") as one, proxied("steered", one.port, collector.port, 10**9) as steered:
        equal(steered.ask("/unrecorded")[0], 200)
        with open(steered.config) as file:
            text = file.read().replace(f"sample = {10**9}", "sample = 1").replace(f":{collector.port}/otlp", ":1/otlp")
        generation = lambda: next(line for line in steered.metrics().splitlines() if line.startswith("archipel_proxy_generation "))
        before = generation()
        steered.write(text)
        steered.process.send_signal(signal.SIGHUP)
        until(lambda: generation() != before, "it is followed")
        equal(steered.ask("/recorded")[0], 200)
        until(lambda: collector.spans, "it has come")
        equal([attributes(span)["url.path"] for _, span in collector.spans], ["/recorded"])
    with open(os.path.join(SCRATCH, "steered", "log")) as log:
        assert "other settings have changed too" in log.read()


@check
def https_is_refused_with_what_to_do(_):
    if not BINARY:
        raise Skip("the scenarios run against another server")
    path = os.path.join(SCRATCH, "https.toml")
    with open(path, "w") as file:
        file.write('[otlp]\nendpoint = "https://127.0.0.1:4318"\n')
    done = subprocess.run([BINARY, "config", "check", path], capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stdout
    assert "run a collector beside the node" in done.stderr, done.stderr


run()
