"""Names outside of the domain: dig at a node that asks another server of DNS, which is the scenario's own."""

import os
import shutil
import socket
import struct
import threading

from harness import Skip, check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - forwarding: the server under test is not a node")
else:
    from services import Node

    class Upstream:
        """A server of DNS over UDP and TCP on one port: `NUMBER.a.test` has so many addresses; others as their first label says."""

        def __init__(self):
            self.asked = []
            while True:
                self.tcp = socket.create_server(("127.0.0.1", 0))
                self.port = self.tcp.getsockname()[1]
                self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                try:
                    self.udp.bind(("127.0.0.1", self.port))
                    break
                except OSError:
                    self.tcp.close()
            for target in (self.datagrams, self.connections):
                threading.Thread(target=target, daemon=True).start()

        def answer(self, question, bytes_max, peer):
            at, labels = 12, []
            while question[at]:
                labels.append(question[at + 1 : at + 1 + question[at]].decode())
                at += 1 + question[at]
            body = question[12 : at + 5]
            name = ".".join(labels).lower()
            self.asked.append((name, bytes_max is None, struct.unpack("!H", question[:2])[0], peer[1]))
            rcode, count = 0, 0
            if labels[1:] == ["a", "test"]:
                count = int(labels[0])
            elif labels[0] == "silent":
                return []
            else:
                rcode = {"refused": 5, "failed": 2}.get(labels[0], 3)
            records = b"".join(struct.pack("!HHHIHBBBB", 0xC00C, 1, 1, 60, 4, 192, 0, 2, n % 256) for n in range(count))
            head = lambda id, flags, count: struct.pack("!HHHHHH", id, 0x8180 | flags | rcode, 1, count, 0, 0)
            id = struct.unpack("!H", question[:2])[0]
            if bytes_max is not None and 12 + len(body) + len(records) > bytes_max:
                return [head(id, 0x0200, 0) + body]
            # A forger's answers come before: another id, another question.
            forged = struct.pack("!HHHIHBBBB", 0xC00C, 1, 1, 60, 4, 203, 0, 113, 66)
            first = [head(id ^ 1, 0, 1) + body + forged, head(id, 0, 1) + b"\x04evil" + body + forged] if bytes_max else []
            return first + [head(id, 0, count) + body + records]

        def datagrams(self):
            while True:
                question, peer = self.udp.recvfrom(4096)
                for answer in self.answer(question, 1232, peer):
                    self.udp.sendto(answer, peer)

        def connections(self):
            while True:
                stream, peer = self.tcp.accept()
                with stream:
                    length = struct.unpack("!H", stream.recv(2, socket.MSG_WAITALL))[0]
                    for answer in self.answer(stream.recv(length, socket.MSG_WAITALL), None, peer):
                        stream.sendall(struct.pack("!H", len(answer)) + answer)

    UPSTREAM, SECOND = Upstream(), Upstream()
    NODE = Node("node", config=f'[dns]\nrecursors = ["127.0.0.1:{UPSTREAM.port}", "127.0.0.1:{SECOND.port}"]\n')

    def short(*words):
        return sorted(NODE.dig("+short", *words).split("\n")[:-1])

    def needs_dig():
        if shutil.which("dig") is None:
            raise Skip("there is no dig")

    @check
    def names_of_others_are_answered_by_others(_):
        needs_dig()
        until(lambda: NODE.ask("GET", "/v1/agent/self")[0] == 200, "the port answers")
        equal(short("2.a.test"), ["192.0.2.0", "192.0.2.1"])
        equal(short("+tcp", "2.a.test"), ["192.0.2.0", "192.0.2.1"])
        equal(short("+noedns", "1.a.test"), ["192.0.2.0"])
        told = NODE.dig("nothing.test")
        assert "status: NXDOMAIN" in told, told
        assert " ra" in told.split("flags:")[1].split(";")[0], told

    @check
    def what_a_datagram_does_not_hold_comes_over_tcp(_):
        needs_dig()
        UPSTREAM.asked.clear()
        assert "flags: qr tc" in NODE.dig("+ignore", "200.a.test")
        equal(len(short("200.a.test")), 200)
        equal([over_tcp for _, over_tcp, _, _ in UPSTREAM.asked], [False, False, True])

    @check
    def our_own_names_are_asked_of_nobody(_):
        needs_dig()
        NODE.put("/v1/agent/service/register", {"Name": "web", "Address": "10.0.0.1", "Port": 80})
        UPSTREAM.asked.clear()
        equal(short("web.service.consul"), ["10.0.0.1"])
        assert "status: NXDOMAIN" in NODE.dig("none.service.consul")
        assert "status: REFUSED" in NODE.dig("+norecurse", "1.a.test")
        equal(UPSTREAM.asked, [])

    @check
    def ids_and_ports_are_drawn_by_chance(_):
        needs_dig()
        UPSTREAM.asked.clear()
        for _ in range(12):
            equal(short("1.a.test"), ["192.0.2.0"])
        ids, ports = ([one[at] for one in UPSTREAM.asked] for at in (2, 3))
        steps = lambda numbers: {(after - before) % 65536 for before, after in zip(numbers, numbers[1:])}
        assert len(set(ids)) >= 11 and len(steps(ids)) >= 8, ids
        assert len(set(ports)) >= 11 and len(steps(ports)) >= 8, ports

    @check
    def a_server_that_cannot_is_passed_over(_):
        needs_dig()
        for name in ("silent.test", "refused.test", "failed.test"):
            UPSTREAM.asked.clear()
            SECOND.asked.clear()
            told = NODE.dig("+time=10", name)
            assert "status: SERVFAIL" in told, told
            equal(([one[0] for one in UPSTREAM.asked], [one[0] for one in SECOND.asked]), ([name], [name]))
        # One that is silent holds up nobody else.
        waiting = threading.Thread(target=lambda: NODE.dig("+time=10", "silent.test"))
        waiting.start()
        equal(short("1.a.test"), ["192.0.2.0"])
        waiting.join(20)

    with NODE:
        run()
