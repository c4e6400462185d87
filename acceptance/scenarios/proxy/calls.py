"""Calls of gRPC through the proxy with Python's grpcio: all four kinds, errors in trailers, deadlines, and a service that is away."""

import os
import subprocess
import sys
import tempfile

import grpc

from backends import free_port, node, services
from harness import PATIENCE_SECONDS, check, equal, run, until
from processes import Process

SERVICE = """
import sys, threading
from concurrent import futures
import grpc

def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "told to")
    return b"unary " + request

def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number

def up(requests, context):
    return b",".join(requests)

def both(requests, context):
    for request in requests:
        yield b"both " + request

def slow(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    with open(sys.argv[2], "a") as file:
        file.write("begun\\n")
    ended.wait(30)
    with open(sys.argv[2], "a") as file:
        file.write("ended\\n" if ended.is_set() else "never\\n")
    return b""

handlers = grpc.method_handlers_generic_handler("test.Echo", {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
})
server = grpc.server(futures.ThreadPoolExecutor(8), options=(("grpc.max_receive_message_length", -1),))
server.add_generic_rpc_handlers((handlers,))
assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print("serving", flush=True)
server.wait_for_termination()
"""

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))


class Service(Process):
    """A server of gRPC; what its slow calls did is in `told`."""

    def __init__(self, told):
        self.port = free_port()
        command = [sys.executable, "-c", SERVICE, str(self.port), told]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        equal(self.process.stdout.readline(), "serving\n")

    def __exit__(self, *_):
        self.kill()
        self.process.stdout.close()


def configured(port):
    return services(echo=[port]) + 'protocol = "http2"\n[[proxy.route]]\nservice = "echo"\n'


def failure(call):
    """The status of a call that fails, and what it says."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details(), dict(error.trailing_metadata() or ())
    raise AssertionError("it did not fail")


@check
def calls_of_all_kinds_go_through_on_one_channel(_):
    with tempfile.TemporaryDirectory() as directory, Service(os.path.join(directory, "told")) as service:
        with node("grpc-kinds", configured(service.port)) as proxied:
            with grpc.insecure_channel(f"127.0.0.1:{proxied.listens}", OPTIONS) as channel:
                limit = {"timeout": PATIENCE_SECONDS}
                unary = channel.unary_unary("/test.Echo/Unary")
                equal(unary(b"x", **limit), b"unary x")
                large = b"y" * 3_000_000
                equal(unary(large, **limit), b"unary " + large)
                down = channel.unary_stream("/test.Echo/Down")(b"200", **limit)
                equal([int(one) for one in down], list(range(200)))
                up = channel.stream_unary("/test.Echo/Up")
                equal(up(iter([b"a", b"b", b"c"]), **limit), b"a,b,c")
                # Each answer comes before the next question is asked.
                answers = []
                def questions():
                    for number in range(5):
                        until(lambda: len(answers) == number, "the last one was answered")
                        yield b"%d" % number
                for answer in channel.stream_stream("/test.Echo/Both")(questions(), **limit):
                    answers.append(answer)
                equal(answers, [b"both %d" % number for number in range(5)])
                code, details, trailers = failure(lambda: unary(b"fail", **limit))
                equal((code, details, trailers["x-why"]), (grpc.StatusCode.FAILED_PRECONDITION, "told to", "because"))
                calls = [unary.future(b"%d" % number, **limit) for number in range(100)]
                equal([call.result() for call in calls], [b"unary %d" % number for number in range(100)])


@check
def a_deadline_and_a_service_that_is_away_are_told_as_grpc_tells_them(_):
    with tempfile.TemporaryDirectory() as directory:
        told = os.path.join(directory, "told")
        with Service(told) as service:
            text = configured(service.port) + "try_ms = 1000\ntotal_ms = 3000\n"
            with node("grpc-ends", text) as proxied:
                with grpc.insecure_channel(f"127.0.0.1:{proxied.listens}", OPTIONS) as channel:
                    slow = channel.unary_unary("/test.Echo/Slow")
                    equal(failure(lambda: slow(b"", timeout=0.5))[0], grpc.StatusCode.DEADLINE_EXCEEDED)
                    def lines():
                        with open(told) as file:
                            return file.read().split()
                    # The service is told that nobody waits any more.
                    until(lambda: lines() == ["begun", "ended"], "the call ends at the service too")
                    code, details, _ = failure(lambda: slow(b"", timeout=PATIENCE_SECONDS))
                    equal((code, details), (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout"))
                    equal(channel.unary_unary("/test.Echo/Unary")(b"x", timeout=PATIENCE_SECONDS), b"unary x")
                    service.kill()
                    unary = channel.unary_unary("/test.Echo/Unary")
                    until(lambda: failure(lambda: unary(b"x", timeout=PATIENCE_SECONDS))[0] == grpc.StatusCode.UNAVAILABLE, "it is away")


run()
