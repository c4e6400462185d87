"""A service of gRPC behind the proxy, in Python's grpcio: `test.Echo`, whose messages are bytes."""

from backends import Telling, services

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


class Service(Telling):
    """A server of gRPC, whose lines are what its slow calls did."""

    def __init__(self, directory):
        super().__init__(SERVICE, directory)


def configured(port):
    return services(echo=[port]) + 'protocol = "http2"\n[[proxy.route]]\nservice = "echo"\n'
