"""Debian's Chromium without a window, as far as scenarios need it: a page is opened, and the page is asked what it has become."""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request

from websockets.sync.client import connect

from harness import PATIENCE_SECONDS, Skip, until

#: It runs as root here, and nothing that it could tell others of is its affair.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]


class Browser:
    """Chromium on one page; more `flags` of its own."""

    def __init__(self, url, flags=()):
        program = shutil.which("chromium")
        if program is None:
            raise Skip("there is no Chromium")
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.log = open(os.path.join(self.folder.name, "log"), "ab")
        command = [program, *FLAGS, f"--user-data-dir={self.folder.name}/profile", *flags, url]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.numbers = itertools.count(1)

    def __enter__(self):
        try:
            until(self.finds_page, "Chromium has its page", PATIENCE_SECONDS * 3)
        except BaseException:
            self.__exit__()
            raise
        self.page = connect(self.place, max_size=None, proxy=None, open_timeout=PATIENCE_SECONDS)
        return self

    def __exit__(self, *_):
        # With its own group, since it is many processes.
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE_SECONDS)
        self.log.close()
        self.folder.cleanup()

    def finds_page(self):
        """Whether the page is there, and where it is asked."""
        assert self.process.poll() is None, f"Chromium ended: {self.said()}"
        try:
            with open(os.path.join(self.folder.name, "profile", "DevToolsActivePort")) as file:
                port = int(file.readline())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_SECONDS) as answer:
                pages = [one for one in json.load(answer) if one["type"] == "page"]
        except (OSError, ValueError):
            return False
        if pages:
            self.place = pages[0]["webSocketDebuggerUrl"]
        return bool(pages)

    def said(self):
        with open(self.log.name, errors="replace") as file:
            return file.read()[-2000:]

    def evaluate(self, expression):
        """What an expression of JavaScript is on the page."""
        number = next(self.numbers)
        asked = {"id": number, "method": "Runtime.evaluate", "params": {"expression": expression, "returnByValue": True}}
        self.page.send(json.dumps(asked))
        while True:
            answer = json.loads(self.page.recv(PATIENCE_SECONDS))
            if answer.get("id") == number:
                return answer["result"]["result"].get("value")

    def lines(self):
        """The items that the page's script has put into its document, once it says that it is done."""
        until(lambda: self.evaluate("document.title") == "done", "the page is done", PATIENCE_SECONDS * 2)
        return self.evaluate("[...document.querySelectorAll('li')].map(one => one.textContent)")
