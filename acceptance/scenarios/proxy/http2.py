"""HTTP/2 of the proxy with curl: agreed on in TLS, from the first byte, and to a service; and nghttp2's load, if it is there."""

import shutil
import subprocess
import tempfile

from backends import Backend, node, services
from certificates import Authority, secured
from harness import PATIENCE_SECONDS, Skip, check, equal, run


def curl(*words, data=None):
    """The version that was spoken, the status, and the body."""
    command = ["curl", "-sS", "-w", "\n%{http_version} %{http_code}", *words]
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=PATIENCE_SECONDS)
    body, told = done.stdout.decode().rsplit("\n", 1)
    version, status = told.split()
    return version, int(status), body


@check
def curl_is_answered_in_http2_from_the_first_byte(_):
    with Backend("one") as one:
        with node("h2-plain", services(one=[one.port]) + '[[proxy.route]]\nservice = "one"\n') as proxied:
            url = f"http://127.0.0.1:{proxied.listens}"
            equal(curl("--http2-prior-knowledge", f"{url}/x"), ("2", 200, "one GET /x "))
            body = b"y" * 300_000
            answer = curl("--http2-prior-knowledge", "--data-binary", "@-", f"{url}/x", data=body)
            equal(answer, ("2", 200, "one POST /x " + body.decode()))
            equal(curl("--http2-prior-knowledge", "-I", f"{url}/x")[:1], ("2",))


@check
def curl_and_the_proxy_agree_on_http2_in_tls(_):
    with tempfile.TemporaryDirectory() as directory, Backend("one") as one:
        authority = Authority(directory)
        authority.sign("a", ["DNS:a.example"])
        text = secured(services(one=[one.port]))
        text += authority.setting("a") + '[[proxy.route]]\nservice = "one"\n'
        with node("h2-tls", text) as proxied:
            host = f"a.example:{proxied.listens}"
            words = ["--cacert", authority.ca, "--resolve", f"{host}:127.0.0.1", f"https://{host}/x"]
            equal(curl(*words), ("2", 200, "one GET /x "))
            equal(curl("--http1.1", *words), ("1.1", 200, "one GET /x "))


@check
def a_proxy_asks_another_one_in_http2(_):
    with Backend("one") as one:
        with node("h2-inner", services(one=[one.port]) + '[[proxy.route]]\nservice = "one"\n') as inner:
            text = services(inner=[inner.listens]) + 'protocol = "http2"\n[[proxy.route]]\nservice = "inner"\n'
            with node("h2-outer", text) as outer:
                for words in (["--http1.1"], ["--http2-prior-knowledge"]):
                    url = f"http://127.0.0.1:{outer.listens}/x"
                    equal(curl(*words, url)[1:], (200, "one GET /x "))
                    equal(curl(*words, "--data-binary", "abc", url)[1:], (200, "one POST /x abc"))


@check
def a_load_of_many_streams_is_answered_whole(_):
    if not shutil.which("h2load"):
        raise Skip("there is no h2load")
    with Backend("one") as one:
        with node("h2-load", services(one=[one.port]) + '[[proxy.route]]\nservice = "one"\n') as proxied:
            command = ["h2load", "-n", "2000", "-c", "4", "-m", "20", f"http://127.0.0.1:{proxied.listens}/x"]
            done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_SECONDS * 2)
            assert b"2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout.decode()


run()
