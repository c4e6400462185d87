"""Calls of gRPC through the proxy with Python's grpcio: all four kinds, errors in trailers, deadlines, and a service that is away."""

import tempfile

import grpc

from backends import node
from echo import Service, configured
from harness import PATIENCE_SECONDS, check, equal, run, until

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))


def failure(call):
    """The status of a call that fails, and what it says."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details(), dict(error.trailing_metadata() or ())
    raise AssertionError("it did not fail")


@check
def calls_of_all_kinds_go_through_on_one_channel(_):
    with tempfile.TemporaryDirectory() as directory, Service(directory) as service:
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
        with Service(directory) as service:
            text = configured(service.port) + "try_ms = 1000\ntotal_ms = 3000\n"
            with node("grpc-ends", text) as proxied:
                with grpc.insecure_channel(f"127.0.0.1:{proxied.listens}", OPTIONS) as channel:
                    slow = channel.unary_unary("/test.Echo/Slow")
                    equal(failure(lambda: slow(b"", timeout=0.5))[0], grpc.StatusCode.DEADLINE_EXCEEDED)
                    # The service is told that nobody waits any more.
                    until(lambda: service.lines() == ["begun", "ended"], "the call ends at the service too")
                    code, details, _ = failure(lambda: slow(b"", timeout=PATIENCE_SECONDS))
                    equal((code, details), (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout"))
                    equal(channel.unary_unary("/test.Echo/Unary")(b"x", timeout=PATIENCE_SECONDS), b"unary x")
                    service.kill()
                    unary = channel.unary_unary("/test.Echo/Unary")
                    until(lambda: failure(lambda: unary(b"x", timeout=PATIENCE_SECONDS))[0] == grpc.StatusCode.UNAVAILABLE, "it is away")


run()
