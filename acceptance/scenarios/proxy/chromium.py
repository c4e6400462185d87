"""A page and its WebSocket through the proxy with Debian's Chromium: by HTTP/1.1, and in TLS on one connection of HTTP/2."""

import tempfile

from backends import Program, node, services
from browser import Browser
from certificates import Authority, secured
from harness import check, equal, run

#: It has the page, and says back what its clients tell it.
SERVICE = """
import logging, sys
from http import HTTPStatus
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.sync.server import serve

# A handshake that fails is told to its client.
logging.disable()

PAGE = '''<!doctype html><title>at work</title><ol></ol><script>
const tell = text => {
    const item = document.createElement("li");
    item.textContent = text;
    document.querySelector("ol").append(item);
};
const place = (location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/socket";
const large = new Uint8Array(300000).map((_, at) => at % 251);
const one = new WebSocket(place, ["chat"]);
one.binaryType = "arraybuffer";
one.onopen = () => { tell("open " + one.protocol); one.send("hello"); };
one.onerror = () => tell("error");
one.onmessage = event => {
    if (typeof event.data === "string") {
        tell("text " + event.data);
        one.send(large);
    } else {
        const came = new Uint8Array(event.data);
        tell("bytes " + (came.length === large.length && came.every((byte, at) => byte === large[at])));
        one.send("close");
    }
};
one.onclose = event => {
    tell("closed " + event.code + " " + event.reason + " " + event.wasClean);
    many();
};
async function many() {
    const heard = await Promise.all([...Array(20).keys()].map(number => new Promise(resolve => {
        const socket = new WebSocket(place, ["chat"]);
        socket.onopen = () => socket.send("number " + number);
        socket.onmessage = event => { socket.close(); resolve(event.data === "number " + number); };
        socket.onerror = () => resolve(false);
    })));
    tell("many " + heard.filter(Boolean).length);
    tell("page by " + performance.getEntriesByType("navigation")[0].nextHopProtocol);
    document.title = "done";
}
</script>'''

def page(connection, request):
    if request.path == "/socket":
        return None
    body = PAGE.encode()
    fields = Headers([("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))), ("Connection", "close")])
    return Response(HTTPStatus.OK.value, "OK", fields, body)

def talk(one):
    try:
        for message in one:
            if message == "close":
                one.close(4001, "told to")
            else:
                one.send(message)
    except ConnectionClosed:
        pass

with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=None, subprotocols=["chat"], process_request=page) as server:
    print("serving", flush=True)
    server.serve_forever()
"""

#: What the page has in its document when it is done.
LINES = ["open chat", "text hello", "bytes true", "closed 4001 told to true", "many 20"]


def configured(service):
    return services(page=[service.port]) + '[[proxy.route]]\nservice = "page"\nupgrade = true\n'


def handshakes(proxied):
    """Connections of clients in TLS that the proxy has agreed on."""
    lines = proxied.metrics().splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith("archipel_proxy_handshakes_total"))


@check
def a_page_talks_over_a_websocket_of_http1(_):
    with Program(SERVICE) as service, node("chromium-plain", configured(service)) as proxied:
        with Browser(f"http://127.0.0.1:{proxied.listens}/") as browser:
            equal(browser.lines(), LINES + ["page by http/1.1"])


@check
def in_tls_the_page_and_all_of_its_websockets_share_a_connection_of_http2(_):
    with tempfile.TemporaryDirectory() as directory, Program(SERVICE) as service:
        authority = Authority(directory)
        authority.sign("a", ["DNS:localhost"])
        with node("chromium-tls", secured(configured(service)) + authority.setting("a")) as proxied:
            # Who signed the certificate is nobody whom it trusts.
            with Browser(f"https://localhost:{proxied.listens}/", ["--ignore-certificate-errors"]) as browser:
                equal(browser.lines(), LINES + ["page by h2"])
                # A connection or two are made ahead; 21 for the sockets alone there would be without RFC 8441.
                taken = handshakes(proxied)
                assert 1 <= taken <= 8, f"{taken} connections"


run()
