"""Checks for scenarios in Python: a function is a check, its name the sentence that is true."""

import os
import sys
import threading
import time
import traceback

import redis

HOST = os.environ.get("REDIS_HOST", "127.0.0.1")
PORT = int(os.environ.get("REDIS_PORT", "6379"))

#: How long a condition may take to become true, and a thread to end.
PATIENCE_SECONDS = 20

_checks = []


class Skip(Exception):
    """What a check raises, with the reason, if it cannot be made here."""


def connect(**options):
    """A client of the server under test; text unless told otherwise."""
    options.setdefault("decode_responses", True)
    options.setdefault("socket_timeout", PATIENCE_SECONDS)
    return redis.Redis(host=HOST, port=PORT, **options)


def check(function):
    """Registers a check. It is given a client and an empty server."""
    _checks.append(function)
    return function


def run():
    """Runs the checks of the file in order; each starts with an empty server."""
    failed = 0
    for function in _checks:
        sentence = function.__name__.replace("_", " ")
        with connect() as client:
            client.flushall()
            try:
                function(client)
            except Skip as reason:
                print(f"skip - {sentence}: {reason}")
            except BaseException as error:  # a failed check must not end the others
                failed += 1
                where = traceback.extract_tb(error.__traceback__)
                lines = [frame for frame in where if frame.filename == sys.argv[0]] or where
                print(f"not ok - {sentence}: line {lines[-1].lineno}: {type(error).__name__}: {error}")
            else:
                print(f"ok - {sentence}")
        sys.stdout.flush()
    sys.exit(1 if failed else 0)


def equal(actual, expected):
    """The value, or an error that shows both."""
    assert actual == expected, f"{actual!r} is not {expected!r}"
    assert type(actual) is type(expected), f"{actual!r} is a {type(actual).__name__}"


def refused(call, *words):
    """The call gives an error reply that contains every word."""
    try:
        answer = call()
    except redis.exceptions.RedisError as error:
        for word in words:
            assert word in f"{error}", f"{error} does not say {word!r}"
        return
    raise AssertionError(f"it was not refused but gave {answer!r}")


def until(condition, what, seconds=PATIENCE_SECONDS):
    """Waits for a condition that another connection or time brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.002)


def blocked(client, count=1):
    """Waits until that many clients are blocked."""
    until(lambda: client.info("clients")["blocked_clients"] >= count, f"{count} blocked clients")


class Waiter:
    """A call in another thread, on a connection of its own."""

    def __init__(self, call):
        self._call = call
        self._result = None
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            with connect(socket_timeout=None) as client:
                self._result = self._call(client)
        except BaseException as error:
            self._error = error

    def result(self):
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the call did not come back"
        if self._error:
            raise self._error
        return self._result
