"""Services by Consul's HTTP API and by DNS: python-consul2, dig, and what is kept when the node is killed."""

import json
import os
import shutil
import subprocess
import threading
import time

from harness import Skip, check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - services: the server under test is not a node")
else:
    import consul
    from services import Backend, Node

    NODE = Node("node")

    def client():
        return consul.Consul(host="127.0.0.1", port=NODE.consul_port)

    def passing(service, **options):
        index, nodes = client().health.service(service, passing=True, **options)
        return int(index), sorted(one["Service"]["ID"] for one in nodes)

    @check
    def a_service_is_found_as_long_as_its_check_succeeds(_):
        with Backend() as backend:
            check_of_it = consul.Check.http(f"http://127.0.0.1:{backend.port}/health", interval="100ms", timeout="2s")
            agent = client().agent
            assert agent.service.register("web", service_id="web1", port=backend.port, tags=["v1"], check=check_of_it)
            until(lambda: passing("web")[1] == ["web1"], "it is passing")
            equal(sorted(agent.services()), ["web1"])
            backend.code = 500
            until(lambda: passing("web")[1] == [], "it is critical")
            backend.code = 200
            until(lambda: passing("web")[1] == ["web1"], "it is passing again")
            index, services = client().catalog.services()
            equal(services, {"web": ["v1"]})
            assert agent.service.deregister("web1")
            equal(client().catalog.service("web")[1], [])

    @check
    def a_tcp_check_and_a_ttl_say_how_a_service_is(_):
        agent = client().agent
        with Backend() as backend:
            agent.service.register("tcp", port=backend.port, check=consul.Check.tcp("127.0.0.1", backend.port, "100ms"))
            until(lambda: passing("tcp")[1] == ["tcp"], "it takes connections")
        agent.service.register("ttl", check=consul.Check.ttl("60s"))
        equal(passing("ttl")[1], [])
        agent.check.ttl_pass("service:ttl", notes="fine")
        equal(passing("ttl")[1], ["ttl"])
        agent.check.ttl_fail("service:ttl")
        equal(passing("ttl")[1], [])
        agent.service.register("soon", check=consul.Check.ttl("200ms"))
        agent.check.ttl_pass("service:soon")
        until(lambda: passing("soon")[1] == [], "nobody renews it")
        for service in ("tcp", "ttl", "soon"):
            agent.service.deregister(service)

    @check
    def a_query_waits_until_its_service_changes(_):
        agent = client().agent
        agent.service.register("other")
        index, _ = passing("waited")
        seen = []
        waiter = threading.Thread(target=lambda: seen.append(passing("waited", index=index, wait="60s")))
        waiter.start()
        agent.service.register("other", port=7)
        agent.service.register("waited")
        waiter.join(20)
        assert not waiter.is_alive(), "it still waits"
        later, nodes = seen[0]
        equal(nodes, ["waited"])
        assert later > index
        # Nothing changes: the time is up, and the index is the same.
        began = time.monotonic()
        equal(passing("waited", index=later, wait="100ms"), (later, ["waited"]))
        assert time.monotonic() - began >= 0.1
        agent.service.deregister("other")
        agent.service.deregister("waited")

    @check
    def maintenance_takes_a_service_out_and_lets_it_in_again(_):
        agent = client().agent
        agent.service.register("m")
        equal(passing("m")[1], ["m"])
        agent.service.maintenance("m", "true", "upgrade")
        equal(passing("m")[1], [])
        agent.service.maintenance("m", "false")
        equal(passing("m")[1], ["m"])
        agent.maintenance("true", "all of it")
        equal(passing("m")[1], [])
        agent.maintenance("false")
        equal(passing("m")[1], ["m"])
        agent.service.deregister("m")

    @check
    def services_are_changed_in_one_transaction(_):
        node = NODE.get("/v1/agent/self")["Config"]["NodeName"]

        def transact(*operations):
            body = [{"Service": {"Verb": verb, "Node": node, "Service": {"Service": "t", "ID": id}}} for verb, id in operations]
            status, _, text = NODE.ask("PUT", "/v1/txn", body)
            return status, [one.get("OpIndex") for one in json.loads(text)["Errors"] or []]

        equal(transact(("set", "t1"), ("set", "t2")), (200, []))
        equal(transact(("delete", "t1"), ("get", "t1")), (409, [1]))
        equal(passing("t")[1], ["t1", "t2"])
        equal(transact(("delete", "t1"), ("delete", "t2")), (200, []))
        equal(passing("t")[1], [])

    @check
    def what_was_registered_is_there_after_a_kill(_):
        NODE.put("/v1/agent/service/register", {"Name": "kept", "Port": 9, "Check": {"TTL": "60s"}})
        NODE.put("/v1/agent/check/pass/service:kept")
        index = passing("kept")[0]
        NODE.kill()
        NODE.start()
        until(lambda: NODE.ask("GET", "/v1/agent/self")[0] == 200, "the port answers")
        equal([one["ServicePort"] for one in NODE.get("/v1/catalog/service/kept")], [9])
        assert passing("kept")[0] > index, "an index fell"
        NODE.put("/v1/agent/check/pass/service:kept")
        equal(passing("kept")[1], ["kept"])
        NODE.put("/v1/agent/service/deregister/kept")

    @check
    def dig_finds_instances_by_name_tag_and_node(_):
        if shutil.which("dig") is None:
            raise Skip("there is no dig")
        for number in (1, 2):
            body = {"Name": "web", "ID": f"w{number}", "Address": f"10.0.0.{number}", "Port": 80 + number, "Tags": [f"t{number}"]}
            NODE.put("/v1/agent/service/register", body)
        short = lambda *words: sorted(NODE.dig("+short", *words).split("\n")[:-1])
        equal(short("web.service.consul"), ["10.0.0.1", "10.0.0.2"])
        equal(short("+tcp", "web.service.consul"), ["10.0.0.1", "10.0.0.2"])
        equal(short("t2.web.service.consul"), ["10.0.0.2"])
        equal(short("_web._tcp.service.consul", "SRV"), ["1 1 81 0a000001.addr.dc1.consul.", "1 1 82 0a000002.addr.dc1.consul."])
        equal(short("0a000002.addr.dc1.consul"), ["10.0.0.2"])
        node = NODE.get("/v1/agent/self")["Config"]["NodeName"]
        equal(short(f"{node}.node.consul"), ["127.0.0.1"])
        equal(short("-x", "127.0.0.1"), [f"{node}.node.dc1.consul."])
        for name, status in (("none.service.consul", "NXDOMAIN"), ("web.service.consul", "NOERROR"), ("example.org", "REFUSED")):
            told = NODE.dig(name, "AAAA")
            assert f"status: {status}" in told, told
            assert ("SOA" in told) == (status != "REFUSED"), told
        # More than a datagram holds comes over TCP.
        for number in range(3, 120):
            NODE.put("/v1/agent/service/register", {"Name": "web", "ID": f"w{number}", "Address": f"10.0.0.{number}", "Port": 80})
        assert "flags: qr aa tc" in NODE.dig("+ignore", "+noedns", "web.service.consul")
        equal(len(short("web.service.consul")), 119)
        for number in range(1, 120):
            NODE.put(f"/v1/agent/service/deregister/w{number}")

    @check
    def what_is_not_offered_says_so(_):
        for method, target in (("GET", "/v1/acl/tokens"), ("GET", "/v1/connect/ca/roots"), ("GET", "/v1/query"), ("PUT", "/v1/event/fire/a?node=x")):
            status, _, text = NODE.ask(method, target, {} if method == "PUT" else None)
            equal(status, 501)
            assert "not offered" in text, text

    @check
    def prometheus_is_told_of_targets(_):
        NODE.put("/v1/agent/service/register", {"Name": "web", "ID": "w1", "Address": "10.0.0.1", "Port": 81, "Tags": ["a", "b"], "Meta": {"app-name": "x"}})
        (group,) = NODE.get("/prometheus/targets?service=web&tag=a")
        equal(group["targets"], ["10.0.0.1:81"])
        equal(group["labels"]["__meta_archipel_tags"], ",a,b,")
        equal(group["labels"]["__meta_archipel_meta_app_name"], "x")
        NODE.put("/v1/agent/service/deregister/w1")

    @check
    def the_command_line_registers_drains_and_shows(_):
        def mesh(*words, code=0):
            command = [os.environ["ARCHIPEL_BIN"], "mesh", *words, "--port-offset", f"{NODE.offset}", "--json"]
            told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
            equal(told.returncode, code)
            return json.loads(told.stdout) if told.stdout else None

        mesh("register", "web", "--id", "w1", "--port", "80", "--tag", "a", "--meta", "k=v")
        (one,) = mesh("instances", "web")["instances"]
        equal((one["id"], one["port"], one["health"], one["tags"], one["meta"]), ("w1", 80, "passing", ["a"], {"k": "v"}))
        mesh("drain", "w1")
        equal([one["critical"] for one in mesh("services")["services"]], [1])
        mesh("instances", "web", "--passing", code=1)
        mesh("drain", "w1", "--end")
        mesh("deregister", "w1")
        mesh("deregister", "w1", code=1)
        equal(mesh("services"), {"services": []})

    with NODE:
        run()
