"""Services of a cluster: what is registered at one member is found at all, and a member that dies is told of at once."""

import os

from harness import check, equal, run, until

if os.environ.get("ARCHIPEL_BIN") is None:
    print("skip - services of a cluster: the server under test is not a node")
else:
    from services import ServiceMember

    FIRST = ServiceMember("a")
    SECOND = ServiceMember("b", FIRST)
    THIRD = ServiceMember("c", FIRST)
    MEMBERS = [FIRST, SECOND, THIRD]

    def everywhere(service, ids, members):
        for member in members:
            until(lambda: member.healthy(service) == ids, f"{ids} are found at {member.offset}")

    @check
    def all_members_find_what_is_registered_at_one(_):
        for member in MEMBERS:
            until(lambda: len(member.get("/v1/catalog/nodes")) == 3, "all nodes are known")
        for member, name in zip(MEMBERS, "abc"):
            member.put("/v1/agent/service/register", {"Name": "web", "ID": f"web-{name}", "Port": 80})
        everywhere("web", ["web-a", "web-b", "web-c"], MEMBERS)
        FIRST.put("/v1/agent/service/maintenance/web-a?enable=true")
        everywhere("web", ["web-b", "web-c"], MEMBERS)
        FIRST.put("/v1/agent/service/maintenance/web-a?enable=false")
        everywhere("web", ["web-a", "web-b", "web-c"], MEMBERS)
        SECOND.put("/v1/agent/service/deregister/web-b")
        everywhere("web", ["web-a", "web-c"], MEMBERS)

    @check
    def a_members_death_takes_its_services_out_and_its_return_brings_them_back(_):
        everywhere("web", ["web-a", "web-c"], MEMBERS)
        THIRD.kill()
        everywhere("web", ["web-a"], [FIRST, SECOND])
        equal(len(FIRST.get("/v1/health/service/web")), 2)
        THIRD.start()
        until(lambda: THIRD.ask("GET", "/v1/agent/self")[0] == 200, "it answers again")
        everywhere("web", ["web-a", "web-c"], MEMBERS)

    try:
        run()
    finally:
        for member in MEMBERS:
            member.kill()
