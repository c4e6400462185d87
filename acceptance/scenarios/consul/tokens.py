"""Tokens of Consul's clients: python-consul2 with the right one, a wrong one and none, and the three places that have it."""

import os
import subprocess
import urllib.error
import urllib.request

from harness import PATIENCE_SECONDS, check, equal, run

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - tokens: the server under test is not a node")
else:
    import consul
    from services import Node

    TOKENS = """
[consul]
anonymous = "none"
[[consul.tokens]]
name = "deploy"
secret = "d3ploy"
keys = "write"
[[consul.tokens]]
name = "scrape"
secret = "scr4pe"
services = "read"
[[consul.tokens]]
name = "shop"
secret = "sh0p"
service_prefix = ["shop- write", "w read"]
key_prefix = ["shop/ write", "shop/own/ none", "a/ read"]
"""
    NODE = Node("node", TOKENS)

    def client(token=None):
        return consul.Consul(host="127.0.0.1", port=NODE.consul_port, token=token)

    def denied(call, *words):
        """It is refused as Consul refuses, with these words."""
        try:
            answer = call()
        except consul.ACLPermissionDenied as error:
            for word in words:
                assert word in f"{error}", f"{error} does not say {word!r}"
            return
        raise AssertionError(f"it was not refused but gave {answer!r}")

    def status(method, target, headers=None):
        request = urllib.request.Request(f"http://127.0.0.1:{NODE.consul_port}{target}", method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @check
    def the_right_token_registers_finds_and_writes_keys(_):
        deploy = client("d3ploy")
        assert deploy.agent.service.register("web", service_id="w1", port=80)
        equal(sorted(deploy.catalog.services()[1]), ["web"])
        equal([one["Service"]["ID"] for one in deploy.health.service("web", passing=True)[1]], ["w1"])
        assert deploy.kv.put("a/b", "v")
        equal(deploy.kv.get("a/b")[1]["Value"], b"v")
        session = deploy.session.create(ttl=60)
        assert deploy.kv.put("lock", "", acquire=session)
        assert deploy.session.destroy(session)

    @check
    def one_for_reading_finds_services_and_does_nothing_else(_):
        scrape = client("scr4pe")
        equal(sorted(scrape.catalog.services()[1]), ["web"])
        equal([one["ServicePort"] for one in scrape.catalog.service("web")[1]], [80])
        denied(lambda: scrape.agent.service.register("web", service_id="w2"), "Permission denied", '"scrape"', "'agent:write'")
        denied(lambda: scrape.agent.service.deregister("w1"), "'agent:write'")
        denied(lambda: scrape.kv.get("a/b"), "'key:read'")
        denied(lambda: scrape.kv.put("a/b", "x"), "'key:write'")
        denied(lambda: scrape.session.create(), "'session:write'")
        equal([one["ServiceID"] for one in client("d3ploy").catalog.service("web")[1]], ["w1"])

    @check
    def a_wrong_token_and_none_are_refused(_):
        for token, said in (("wrong", "ACL not found"), (None, "anonymous token")):
            stranger = client(token)
            denied(lambda: stranger.catalog.services(), said)
            denied(lambda: stranger.health.service("web"), said)
            denied(lambda: stranger.agent.service.register("evil"), said)
            denied(lambda: stranger.kv.get("a/b"), said)
            denied(lambda: stranger.kv.put("a/b", "x"), said)
        equal(client("d3ploy").kv.get("a/b")[1]["Value"], b"v")
        # Who leads is told to everybody, as Consul tells it.
        assert client().status.leader()

    @check
    def a_token_may_stand_in_three_places(_):
        target = "/v1/catalog/services"
        equal(status("GET", target)[0], 403)
        equal(status("GET", target, {"X-Consul-Token": "scr4pe"})[0], 200)
        equal(status("GET", target, {"Authorization": "Bearer scr4pe"})[0], 200)
        equal(status("GET", target + "?token=scr4pe")[0], 200)
        equal(status("GET", target + "?token=wrong", {"X-Consul-Token": "scr4pe"}), (403, "ACL not found"))

    @check
    def a_token_with_prefixes_has_what_they_say(_):
        deploy, shop = client("d3ploy"), client("sh0p")
        assert deploy.agent.service.register("hidden")
        for key in ("shop/own/x", "b"):
            assert deploy.kv.put(key, "secret")
        assert shop.agent.service.register("shop-cart", port=81)
        denied(lambda: shop.agent.service.register("web", service_id="w3"), """'service:write' on "web\"""")
        denied(lambda: shop.agent.service.deregister("w1"), """'service:write' on "web\"""")
        denied(lambda: shop.health.service("hidden"), """'service:read' on "hidden\"""")
        equal(sorted(shop.catalog.services()[1]), ["shop-cart", "web"])
        equal(sorted(shop.agent.services()), ["shop-cart", "w1"])
        assert "hidden" in deploy.catalog.services()[1]
        assert shop.kv.put("shop/x", "v")
        equal(shop.kv.get("a/b")[1]["Value"], b"v")
        denied(lambda: shop.kv.put("a/b", "x"), """'key:write' on "a/b\"""")
        denied(lambda: shop.kv.get("shop/own/x"), """'key:read' on "shop/own/x\"""")
        denied(lambda: shop.kv.delete("shop/", recurse=True), """'key:write' on "shop/\"""")
        equal([one["Key"] for one in shop.kv.get("", recurse=True)[1]], ["a/b", "shop/x"])
        equal(shop.kv.get("", keys=True)[1], ["a/b", "shop/x"])
        session = shop.session.create(ttl=60)
        assert shop.kv.put("shop/lock", "", acquire=session)
        assert shop.session.destroy(session)
        assert shop.agent.service.deregister("shop-cart") and deploy.agent.service.deregister("hidden")
        assert shop.kv.delete("shop/x") and shop.kv.delete("shop/lock")

    @check
    def what_there_is_no_api_for_says_so(_):
        for method, target in (("GET", "/v1/acl/tokens"), ("PUT", "/v1/acl/policy"), ("PUT", "/v1/acl/bootstrap")):
            code, text = status(method, target, {"X-Consul-Token": "d3ploy"})
            equal(code, 501)
            assert "consul.tokens" in text, text

    @check
    def commands_of_the_machine_use_a_token_of_its_configuration(_):
        def services(*words):
            command = [os.environ["ARCHIPEL_BIN"], "mesh", "services", "--port-offset", f"{NODE.offset}", *words]
            return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        told = services("--config", NODE.config)
        equal(told.returncode, 0)
        assert "web" in told.stdout, told.stdout
        told = services()
        equal(told.returncode, 1)
        assert "anonymous token" in told.stderr, told.stderr

    with NODE:
        run()
