"""WebSocket through the proxy with Python's websockets: messages of all sizes, pings, ends from either side, TLS, and many at once."""

import os
import ssl
import tempfile
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from backends import Telling, node, services
from certificates import Authority, secured
from harness import PATIENCE_SECONDS, check, equal, run, until

#: It says back what it is told. `close` and `ping` have it do that; how its clients ended goes to a file.
SERVICE = """
import logging, sys
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

# A handshake that fails is told to its client.
logging.disable()

def talk(one):
    try:
        for message in one:
            if message == "close":
                one.close(4001, "told to")
            elif message == "ping":
                one.send("answered" if one.ping(b"are you there").wait(20) else "silent")
            else:
                one.send(message)
    except ConnectionClosed:
        pass
    with open(sys.argv[2], "a") as file:
        file.write(f"{one.close_code} {one.close_reason}\\n")

with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=None) as server:
    print("serving", flush=True)
    server.serve_forever()
"""


class Echo(Telling):
    """A server of WebSocket, whose lines are how its clients ended."""

    def __init__(self, directory):
        super().__init__(SERVICE, directory)


def configured(echo):
    text = services(echo=[echo.port]) + '[[proxy.route]]\nservice = "echo"\nupgrade = true\n'
    return text + '[[proxy.route]]\nservice = "echo"\npath = "/plain"\n'


def dial(proxied, path="/", scheme="ws", host="127.0.0.1", **options):
    limits = {"open_timeout": PATIENCE_SECONDS, "close_timeout": PATIENCE_SECONDS, "max_size": None, "proxy": None}
    return connect(f"{scheme}://{host}:{proxied.listens}{path}", **limits, **options)


def ended(one):
    """With what a connection that is ended from there ends."""
    try:
        one.recv(PATIENCE_SECONDS)
    except ConnectionClosed as error:
        return error.rcvd and (error.rcvd.code, error.rcvd.reason)
    raise AssertionError("it does not end")


@check
def messages_of_all_sizes_come_back_as_they_were(_):
    with tempfile.TemporaryDirectory() as directory, Echo(directory) as echo, node("ws-messages", configured(echo)) as proxied:
        with dial(proxied) as one:
            for message in ("hello", "", "ä" * 70_000, b"\x00\xff" * 100, os.urandom(5_000_000)):
                one.send(message)
                assert one.recv(PATIENCE_SECONDS) == message, f"another message than {len(message)} long"
            # In frames of its own each, which the service puts together.
            one.send(["a", "b" * 100_000, "c"])
            equal(one.recv(PATIENCE_SECONDS), "a" + "b" * 100_000 + "c")
            for number in range(500):
                one.send(f"{number}")
            equal([int(one.recv(PATIENCE_SECONDS)) for _ in range(500)], list(range(500)))


@check
def pings_are_answered_in_both_directions(_):
    with tempfile.TemporaryDirectory() as directory, Echo(directory) as echo, node("ws-pings", configured(echo)) as proxied:
        with dial(proxied) as one:
            assert one.ping(b"anybody").wait(PATIENCE_SECONDS), "no pong from the service"
            one.send("ping")
            equal(one.recv(PATIENCE_SECONDS), "answered")


@check
def an_end_goes_through_with_its_code_from_either_side(_):
    with tempfile.TemporaryDirectory() as directory, Echo(directory) as echo, node("ws-ends", configured(echo)) as proxied:
        with dial(proxied) as one:
            one.close(4000, "enough")
        until(lambda: echo.lines() == ["4000 enough"], "the service is told")
        with dial(proxied) as one:
            one.send("close")
            equal(ended(one), (4001, "told to"))
        until(lambda: echo.lines() == ["4000 enough", "4001 told to"], "the service has its answer")
        with dial(proxied) as one:
            echo.kill()
            # No code ever came: it did not end well, and the client must see that.
            equal(ended(one), None)


@check
def a_route_that_does_not_allow_it_changes_no_protocol(_):
    with tempfile.TemporaryDirectory() as directory, Echo(directory) as echo, node("ws-refused", configured(echo)) as proxied:
        try:
            dial(proxied, "/plain").close()
        except InvalidStatus as error:
            # The service was asked for a page, and says what it has.
            equal(error.response.status_code, 426)
        else:
            raise AssertionError("the protocol was changed")


@check
def it_goes_through_tls(_):
    with tempfile.TemporaryDirectory() as directory, Echo(directory) as echo:
        authority = Authority(directory)
        authority.sign("a", ["DNS:localhost"])
        with node("ws-tls", secured(configured(echo)) + authority.setting("a")) as proxied:
            with dial(proxied, scheme="wss", host="localhost", ssl=ssl.create_default_context(cafile=authority.ca)) as one:
                large = os.urandom(2_000_000)
                one.send(large)
                assert one.recv(PATIENCE_SECONDS) == large
                one.send("close")
                equal(ended(one), (4001, "told to"))


@check
def many_talk_at_once_and_each_hears_its_own(_):
    with tempfile.TemporaryDirectory() as directory, Echo(directory) as echo, node("ws-many", configured(echo)) as proxied:
        wrong = []
        def talk(number):
            try:
                with dial(proxied) as one:
                    for turn in range(20):
                        one.send(f"{number} {turn}")
                        equal(one.recv(PATIENCE_SECONDS), f"{number} {turn}")
            except BaseException as error:
                wrong.append(f"{number}: {error!r}")
        threads = [threading.Thread(target=talk, args=(number,)) for number in range(40)]
        [thread.start() for thread in threads]
        [thread.join(PATIENCE_SECONDS * 2) for thread in threads]
        equal(wrong, [])
        # A tunnel is counted when its client's end was seen, which the client does not wait for.
        until(lambda: 'class="1xx"} 40' in proxied.metrics(), "all are counted")


run()
